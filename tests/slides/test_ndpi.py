"""The NDPI reader where it is alone: odd heights, what it leaves to OpenSlide, damage."""

from __future__ import annotations

import shutil
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from napari_histomil.errors import SlideError
from napari_histomil.slides.ndpi import open_ndpi
from napari_histomil.slides.readers import open_slide
from napari_histomil.slides.resample import mean_of_blocks
from napari_histomil.slides.tiff_codecs import UnsupportedTiffError
from tests.slides.conftest import halves, picture
from tests.slides.contract import SlideContract
from tests.slides.vendor_files import write_ndpi

LEVELS = halves(picture(512, 416), 2)
NAME = "wsi-hamamatsu-ndpi/test3-DAPI-2-387.ndpi"


def decoded(level: np.ndarray) -> np.ndarray:
    """Return a level as a whole JPEG gives it back, without pieces."""
    stream = BytesIO()
    Image.fromarray(level).save(stream, "JPEG", quality=90, subsampling="4:4:4")
    return np.array(Image.open(stream))


TRUTH = [decoded(level) for level in LEVELS]


class TestMade(SlideContract):
    reader = "ndpi"
    truth = TRUTH

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return write_ndpi(tmp_path / "a.ndpi", LEVELS, sampling="4:4:4", units=8)

    def test_tiles_of_half_the_resolution_are_means(self, path: Path):
        """JPEG changes each level on its own: a level is not the mean of the one before."""
        with open_slide(path) as slide:
            found = slide.tile(0, 0, 0, halvings=1)
            exact = mean_of_blocks(slide.tile(0, 0, 0), 2)
        assert found.shape == exact.shape
        assert np.abs(found.astype(int) - exact).mean() < 3


def test_heights_that_are_no_whole_pieces(tmp_path: Path):
    level = picture(512, 501)
    path = write_ndpi(tmp_path / "a.ndpi", [level], sampling="4:4:4", units=16)
    with open_slide(path) as slide:
        assert slide.info.reader == "ndpi"
        np.testing.assert_array_equal(slide.read_region((0, 0), 0, (512, 501)), decoded(level))
        assert slide.tile(0, 1, 0, halvings=2).shape == (62, 128, 3)


def test_colours_at_half_the_rows_are_left_to_openslide(tmp_path: Path):
    path = write_ndpi(tmp_path / "a.ndpi", LEVELS, sampling="4:2:0")
    with pytest.raises(UnsupportedTiffError, match="unusual JPEG, which is left to OpenSlide"):
        open_ndpi(path)
    with open_slide(path) as slide:
        assert slide.info.reader == "openslide"


def test_widths_that_are_no_whole_pieces_are_left_to_openslide(tmp_path: Path):
    path = write_ndpi(tmp_path / "a.ndpi", [picture(600, 64)], sampling="4:4:4", units=7)
    with pytest.raises(UnsupportedTiffError, match="pieces of unusual size"):
        open_ndpi(path)


def test_what_the_file_says(data_dir: Path):
    with (
        open_slide(data_dir / NAME) as slide,
        open_slide(data_dir / NAME, reader="openslide") as other,
    ):
        assert slide.info.mpp_xy == pytest.approx(other.info.mpp_xy)
        assert slide.info.objective_power == other.info.objective_power == 40
        assert slide.info.fingerprint == other.info.fingerprint  # so runs stay
        assert slide.info.associated_images == ("macro",)
        np.testing.assert_array_equal(
            slide.read_associated("macro"), other.read_associated("macro")
        )
        assert slide.info.properties["hamamatsu.Product"] == "C9600-12"
        bytes_ = slide.tile_bytes(0)
        assert bytes_ is not None
        assert bytes_.shape == (38, 1)
        assert bytes_.min() > 0


def test_damage_is_one_sentence(tmp_path: Path, data_dir: Path):
    whole = (data_dir / NAME).read_bytes()
    path = tmp_path / "a.ndpi"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SlideError) as caught:
        open_slide(path)
    assert "\n" not in str(caught.value)


def test_a_damaged_piece_says_where(tmp_path: Path):
    path = write_ndpi(tmp_path / "a.ndpi", LEVELS[:1], sampling="4:4:4", units=8)
    with open_slide(path) as slide:
        assert slide.info.levels[0].tile_width == 512
    content = path.read_bytes()
    inside = content.index(b"\xff\xda") + 500
    path.write_bytes(content[:inside] + bytes(900) + content[inside + 900 :])
    with open_slide(path) as slide:
        with pytest.raises(SlideError, match=r"a\.ndpi cannot be decoded at \(0, 0\) of level 0"):
            slide.read_region((0, 0), 0, (16, 16))
        slide.read_region((0, 300), 0, (16, 16))  # the others are as they were


def test_another_suffix_is_left_to_openslide(tmp_path: Path, data_dir: Path):
    path = tmp_path / "a.tif"
    shutil.copy(data_dir / NAME, path)
    with open_slide(path) as slide:
        assert slide.info.vendor == "hamamatsu"
        assert slide.info.width_px0 == 3968
