"""Alignments kept with both slides, and found again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from napari_histomil.errors import AlignmentError, OutputError
from napari_histomil.slides.alignment import PointPair, align
from napari_histomil.slides.alignment_files import (
    FILE_NAME,
    LARGEST_FILE_BYTES,
    MOST_PAIRS,
    SCHEMA_VERSION,
    forget_alignment,
    recall_alignment,
    save_alignment,
)
from napari_histomil.slides.readers import open_slide
from napari_histomil.slides.slide import SlideInfo
from tests.slides.conftest import picture, write_pyramid

PAIRS = [
    PointPair((10.0, 12.0), (100.5, 20.0)),
    PointPair((90.0, 30.0), (82.0, 100.0)),
    PointPair((50.0, 80.0), (32.0, 60.25)),
]


def info_of(path: Path) -> SlideInfo:
    with open_slide(path) as slide:
        return slide.info


@pytest.fixture
def two(tmp_path: Path) -> tuple[SlideInfo, SlideInfo]:
    """Two slides in two folders, of different µm/px."""
    infos = []
    for index, mpp in enumerate((0.5, 0.25)):
        folder = tmp_path / f"case {index}"
        folder.mkdir()
        path = folder / "schnitt ü.tif"
        write_pyramid(path, [picture(128, 96, seed=index)], mpp=mpp)
        infos.append(info_of(path))
    return infos[0], infos[1]


def home(info: SlideInfo) -> Path:
    return info.path.with_name(f"{info.path.name}.histomil") / FILE_NAME


def test_it_lies_with_both_slides_and_is_found_from_either(two):
    first, second = two
    assert recall_alignment(first, second) is None
    made = align(PAIRS, first, second)
    files = save_alignment(made, first, second)
    assert files == [home(first), home(second)]
    assert recall_alignment(first, second) == made
    back = recall_alignment(second, first)
    np.testing.assert_allclose(back.to_second(made.to_second((40.0, 50.0))), (40.0, 50.0))
    for gone in files:
        kept = gone.read_bytes()
        gone.unlink()
        assert recall_alignment(first, second) == made
        gone.write_bytes(kept)


def test_the_file_says_which_slides_and_how_to_map_them(two):
    first, second = two
    made = align(PAIRS, first, second)
    save_alignment(made, first, second)
    content = json.loads(home(first).read_text(encoding="utf-8"))
    assert content["schema_version"] == SCHEMA_VERSION
    (entry,) = content["alignments"]
    assert entry["first"] == {
        "name": "schnitt ü.tif", "fingerprint": first.fingerprint, "mpp_xy": [0.5, 0.5],
    }  # fmt: skip
    assert entry["second"]["fingerprint"] == second.fingerprint
    matrix = np.array(entry["first_to_second_px0"])
    np.testing.assert_allclose(matrix @ (40.0, 50.0, 1.0), made.to_second((40.0, 50.0)))


def test_moved_and_renamed_slides_keep_it(two, tmp_path):
    first, second = two
    made = align(PAIRS, first, second)
    save_alignment(made, first, second)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    moved = [info.path.rename(elsewhere / f"{i}.tif") for i, info in enumerate(two)]
    assert recall_alignment(info_of(moved[0]), info_of(moved[1])).matrix == made.matrix


def test_a_later_one_takes_its_place_and_others_stay(two, tmp_path):
    first, second = two
    third = info_of(write_pyramid(tmp_path / "third.tif", [picture(128, 96, seed=7)]))
    other = align(PAIRS, first, third)
    save_alignment(other, first, third)
    save_alignment(align(PAIRS, first, second), first, second)
    # Said from the other side, with a flip that the person chose.
    turned = align([pair.turned() for pair in PAIRS[:2]], second, first, mirrored=True)
    save_alignment(turned, second, first)
    assert len(json.loads(home(first).read_text(encoding="utf-8"))["alignments"]) == 2
    assert recall_alignment(second, first) == turned
    assert recall_alignment(first, second).flip == "given"
    assert recall_alignment(first, third) == other
    forget_alignment(first, second)
    assert recall_alignment(first, second) is None
    assert recall_alignment(first, third) == other


def test_the_last_one_counts_where_two_are_found(two, monkeypatch):
    first, second = two
    save_alignment(align(PAIRS[:2], first, second), first, second)
    old = home(second).read_bytes()
    save_alignment(align(PAIRS, first, second), first, second)
    home(second).write_bytes(old)
    assert len(recall_alignment(first, second).pairs) == 3
    home(first).write_bytes(old)
    assert len(recall_alignment(first, second).pairs) == 2


def test_other_µm_per_px_make_another_transform_of_the_same_pairs(two):
    first, second = two
    save_alignment(align(PAIRS, first, second), first, second)
    with open_slide(second.path, mpp=0.5) as slide:
        found = recall_alignment(first, slide.info)
        assert found == align(PAIRS, first, slide.info)


def test_a_newer_file_is_refused(two):
    first, second = two
    home(first).parent.mkdir()
    home(first).write_text('{"schema_version": 99}')
    with pytest.raises(AlignmentError, match=r"newer version of this program: update it"):
        recall_alignment(first, second)


ENTRY = '{"schema_version": 1, "alignments": [{"first": {"fingerprint": "%s"}, "second": {"fingerprint": "%s"}%s}]}'  # noqa: E501


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfe",
        b"",
        b"[]",
        b"{}",
        b'{"schema_version": "1"}',
        b'{"schema_version": 1}',
        b'{"schema_version": 1, "alignments": [3]}',
        b'{"schema_version": 1, "alignments": [{"first": 1, "second": {}}]}',
        b"[" * 100_000,
        ENTRY,
        ENTRY.replace("%s}]}", ', "pairs_px0": 3, "mirrored": null}]}'),
        ENTRY.replace("%s}]}", ', "pairs_px0": [[[1, 2], [3, 4, 5]]], "mirrored": null}]}'),
        ENTRY.replace("%s}]}", ', "pairs_px0": [[[1, 2], [3, "x"]]], "mirrored": null}]}'),
        ENTRY.replace("%s}]}", ', "pairs_px0": [[[1, 2], [3, 1e300]]], "mirrored": null}]}'),
        ENTRY.replace("%s}]}", ', "pairs_px0": [[[1, 2], [3, NaN]]], "mirrored": null}]}'),
        ENTRY.replace("%s}]}", ', "pairs_px0": [], "mirrored": "yes"}]}'),
        ENTRY.replace(
            "%s}]}",
            f', "pairs_px0": {[[[1, 2], [3, 4]]] * (MOST_PAIRS + 1)}, "mirrored": null}}]}}',
        ),
        b" " * (LARGEST_FILE_BYTES + 1),
    ],
    ids=range(18),
)
def test_a_damaged_file_is_a_sentence(two, content):
    first, second = two
    home(first).parent.mkdir()
    if isinstance(content, str):
        names = (first.fingerprint, second.fingerprint)
        content = (content % (*names, "") if content == ENTRY else content % names).encode()
    home(first).write_bytes(content)
    with pytest.raises(AlignmentError, match=r"is damaged: delete it and align the slides again"):
        recall_alignment(first, second)


def test_nothing_is_written_over_a_damaged_file(two):
    first, second = two
    home(second).parent.mkdir()
    home(second).write_text("{")
    with pytest.raises(AlignmentError, match="damaged"):
        save_alignment(align(PAIRS, first, second), first, second)
    assert home(second).read_text() == "{"
    assert not home(first).exists()


def test_a_disk_that_refuses_is_a_sentence(two, monkeypatch):
    first, second = two

    def full(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("napari_histomil.files.os.replace", full)
    with pytest.raises(OutputError, match=r"cannot be kept in .*: No space left on device\."):
        save_alignment(align(PAIRS, first, second), first, second)
