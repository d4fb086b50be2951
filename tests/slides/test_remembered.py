"""The µm/px that a person said once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from napari_histomil.errors import SlideError
from napari_histomil.resources import sidecar
from napari_histomil.slides.readers import open_slide
from napari_histomil.slides.remembered import recall_mpp, remember_mpp
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
