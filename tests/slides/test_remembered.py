"""The µm/px that a person said once."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from napari_histomil.errors import SlideError
from napari_histomil.resources import sidecar
from napari_histomil.slides.readers import open_slide
from napari_histomil.slides.remembered import recall_mpp, recall_view, remember_mpp, remember_view
from tests.slides.conftest import picture, write_pyramid


@pytest.fixture
def silent(tmp_path: Path) -> Path:
    """A slide that does not say its µm/px."""
    return write_pyramid(tmp_path / "silent.tif", [picture(128, 96)], mpp=None)


def test_the_answer_is_found_again(silent: Path):
    with open_slide(silent) as slide:
        assert slide.info.mpp_x is None
        file = remember_mpp(slide.info, (0.25, 0.5))
    assert file == silent.with_name("silent.tif.histomil") / "slide.json"
    assert [path.name for path in file.parent.iterdir()] == ["slide.json"]
    with open_slide(silent) as slide:
        assert slide.info.mpp_xy == (0.25, 0.5)
        assert slide.info.mpp_source == "remembered"
        remember_mpp(slide.info, 1.0)
    with open_slide(silent) as slide:
        assert slide.info.mpp_xy == (1.0, 1.0)


def test_an_answer_for_another_slide_of_that_name_is_not_used(silent: Path):
    with open_slide(silent) as slide:
        remember_mpp(slide.info, 0.25)
    write_pyramid(silent, [picture(128, 96, seed=9)], mpp=None)
    with open_slide(silent) as slide:
        assert slide.info.mpp_x is None


def test_where_beside_the_slide_nothing_can_be_written(
    silent: Path, own_user_data: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("napari_histomil.resources._writable", lambda folder: False)
    with open_slide(silent) as slide:
        file = remember_mpp(slide.info, 0.25)
    assert file.is_relative_to(own_user_data)
    with open_slide(silent) as slide:
        assert slide.info.mpp_xy == (0.25, 0.25)


@pytest.mark.parametrize("mpp", [0, -0.5, float("inf"), 10**6, (1.0, 0.0)])
def test_nonsense_is_not_remembered(silent: Path, mpp: object):
    with open_slide(silent) as slide:
        with pytest.raises(SlideError, match=r"cannot be the µm/px of silent\.tif"):
            remember_mpp(slide.info, mpp)
        assert recall_mpp(silent, slide.info.fingerprint) is None


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"\xff\xfe", b'{"schema_version": "1"}', b"[" * 5000, b"null"],
    ids=["empty", "half", "list", "no text", "words", "deep", "null"],
)
def test_a_damaged_answer_is_one_sentence(silent: Path, content: bytes):
    with open_slide(silent) as slide:
        file = remember_mpp(slide.info, 0.25)
    file.write_bytes(content)
    with pytest.raises(SlideError, match=r"slide\.json.*silent\.tif.*damaged") as caught:
        open_slide(silent)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("values", [None, [0.5], [0, 0], ["a", "b"], {"x": 1}, [1, 1, 1]])
def test_damaged_numbers_are_one_sentence(silent: Path, values: object):
    with open_slide(silent) as slide:
        file = remember_mpp(slide.info, 0.25)
    file.write_text(json.dumps(json.loads(file.read_text()) | {"mpp_xy": values}))
    with pytest.raises(SlideError, match="damaged"):
        open_slide(silent)


def test_an_answer_of_a_newer_version_is_refused(silent: Path):
    with open_slide(silent) as slide:
        file = remember_mpp(slide.info, 0.25)
    file.write_text(json.dumps({"schema_version": 2, "resolution": {}}))
    with pytest.raises(SlideError, match="newer version"):
        open_slide(silent)


def test_the_folder_is_where_all_work_on_a_slide_is(silent: Path):
    with open_slide(silent) as slide:
        file = remember_mpp(slide.info, 0.25)
        assert file.parent == sidecar(silent, slide.info.fingerprint)


# --- the view -----------------------------------------------------------------------------------

VIEW = {"center_px0": [3.5, 4.0], "runs": [{"id": "a", "class": "пухлина"}]}


def test_a_view_is_found_again_after_a_move(silent: Path, tmp_path: Path):
    with open_slide(silent) as slide:
        info = slide.info
    assert recall_view(silent, info.fingerprint) is None
    assert remember_view(info, VIEW) == silent.with_name("silent.tif.histomil") / "view.json"
    (tmp_path / "moved").mkdir()
    moved = silent.rename(tmp_path / "moved" / "other.tif")
    assert recall_view(moved, info.fingerprint) == VIEW
    assert recall_view(moved, "cd" * 32) is None, "other content"


def test_the_newest_view_counts(silent: Path, tmp_path: Path):
    with open_slide(silent) as slide:
        info = slide.info
    first = remember_view(info, VIEW)
    assert first is not None
    os.utime(first, (1, 1))
    (tmp_path / "moved").mkdir()
    moved = replace(info, path=tmp_path / "moved" / "other.tif")
    remember_view(moved, {"center_px0": [1, 1]})
    assert recall_view(silent, info.fingerprint) == {"center_px0": [1, 1]}


def test_a_full_disk_beside_the_slide_is_no_error(
    silent: Path, own_user_data: Path, monkeypatch: pytest.MonkeyPatch
):
    with open_slide(silent) as slide:
        info = slide.info
    silent.with_name("silent.tif.histomil").write_text("in the way")
    file = remember_view(info, VIEW)
    assert file is not None
    assert file.is_relative_to(own_user_data)
    assert recall_view(silent, info.fingerprint) == VIEW


def test_a_view_that_can_be_kept_nowhere_is_logged(
    silent: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("napari_histomil.files.os.replace", refuse)
    with open_slide(silent) as slide:
        assert remember_view(slide.info, VIEW) is None
    (record,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "silent.tif cannot be kept" in record.message
    assert "No space left" in record.message


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "damaged"),
        (b"{", "damaged"),
        (b"[]", "damaged"),
        (b"\xff\xfe", "damaged"),
        (b"[" * 5000, "damaged"),
        (b'{"schema_version": 99}', "newer version"),
    ],
)
def test_a_view_that_cannot_be_used_is_passed_over(
    silent: Path, content: bytes, why: str, caplog: pytest.LogCaptureFixture
):
    with open_slide(silent) as slide:
        file = remember_view(slide.info, VIEW)
        assert file is not None
        file.write_bytes(content)
        assert recall_view(silent, slide.info.fingerprint) is None
    (record,) = caplog.records
    assert why in record.message
    assert "\n" not in record.message
