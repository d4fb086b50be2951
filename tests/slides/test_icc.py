"""Colour profiles: named always, applied only when asked for, and the same by every reader."""

from __future__ import annotations

import io
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import Image, ImageCms

from napari_histomil.errors import SlideError
from napari_histomil.slides.icc import profile_name, to_srgb
from napari_histomil.slides.readers import open_slide
from napari_histomil.slides.resample import mean_of_blocks
from tests.slides.conftest import halves, picture, write_pyramid
from tests.slides.dicom_files import write_dicom_slide
from tests.slides.vendor_files import write_ndpi

ADOBE: bytes = imagecodecs.cms_profile("adobergb")
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
LEVELS = halves(picture(256, 192), 1)


def wanted(pixels: np.ndarray) -> np.ndarray:
    """Convert with Pillow alone."""
    image = ImageCms.profileToProfile(
        Image.fromarray(np.ascontiguousarray(pixels)),
        ImageCms.ImageCmsProfile(io.BytesIO(ADOBE)),
        ImageCms.createProfile("sRGB"),
    )
    return np.array(image)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_pyramid(tmp_path / "a.tif", LEVELS, extratags=[(34675, 7, None, ADOBE, True)])


@pytest.mark.parametrize("reader", ["tiff", "openslide"])
def test_off_by_default_and_named(path: Path, reader: str):
    with open_slide(path, reader=reader) as slide:
        assert slide.info.icc_profile == "Adobe RGB (compatible)"
        assert not slide.info.icc_applied
        np.testing.assert_array_equal(slide.read_region((0, 0), 0, (256, 192)), LEVELS[0])


@pytest.mark.parametrize("reader", ["tiff", "openslide"])
def test_converted_where_the_slide_is_and_white_outside(path: Path, reader: str):
    with open_slide(path, reader=reader, icc=True) as slide, open_slide(path) as stored:
        assert slide.info.icc_applied
        assert slide.info.fingerprint == stored.info.fingerprint
        for index, level in enumerate(LEVELS):
            found = slide.read_region((0, 0), index, (level.shape[1] + 8, level.shape[0]))
            np.testing.assert_array_equal(found[:, :-8], wanted(level))
            assert (found[:, -8:] == 255).all()
        # Both are open: neither finds the other's tiles.
        np.testing.assert_array_equal(stored.read_region((0, 0), 0, (256, 192)), LEVELS[0])
        np.testing.assert_array_equal(slide.read_region((0, 0), 0, (256, 192)), wanted(LEVELS[0]))


def test_smaller_tiles_are_converted_too(path: Path):
    with open_slide(path, icc=True) as slide:
        found = slide.tile(0, 0, 0, halvings=2)
    np.testing.assert_array_equal(found, mean_of_blocks(wanted(LEVELS[0][:64, :64]), 4))


@pytest.mark.parametrize("reader", ["openslide", "wsidicom"])
def test_dicom(tmp_path: Path, reader: str):
    files = write_dicom_slide(tmp_path / "slide", LEVELS, icc=ADOBE)
    with open_slide(files[0], reader=reader, icc=True) as slide:
        assert slide.info.icc_profile == "Adobe RGB (compatible)"
        np.testing.assert_array_equal(slide.read_region((0, 0), 0, (256, 192)), wanted(LEVELS[0]))


def test_srgb_needs_no_conversion(tmp_path: Path):
    path = write_pyramid(tmp_path / "a.tif", LEVELS, extratags=[(34675, 7, None, SRGB, True)])
    assert to_srgb(SRGB) is None
    with open_slide(path, icc=True) as slide:
        assert slide.info.icc_applied
        np.testing.assert_array_equal(slide.read_region((0, 0), 0, (256, 192)), LEVELS[0])


@pytest.mark.parametrize(
    ("profile", "words"),
    [
        (b"", "no colour profile"),
        (b"nonsense" * 40, "damaged"),
        (ADOBE[:200], "damaged"),
        (ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes(), "slides are RGB"),
    ],
)
def test_what_cannot_be_applied_is_one_sentence(tmp_path: Path, profile: bytes, words: str):
    tags = [(34675, 7, None, profile, True)] if profile else []
    path = write_pyramid(tmp_path / "a.tif", LEVELS, extratags=tags)
    with pytest.raises(SlideError, match=words) as caught:
        open_slide(path, icc=True)
    assert "a.tif" in str(caught.value)
    assert "\n" not in str(caught.value)
    with open_slide(path) as slide:  # shown as it is stored none the less
        np.testing.assert_array_equal(slide.read_region((0, 0), 0, (256, 192)), LEVELS[0])


def test_no_profile_has_no_name(tmp_path: Path):
    assert profile_name(b"") == ""
    path = write_ndpi(tmp_path / "a.ndpi", LEVELS, sampling="4:4:4")
    with open_slide(path) as slide:
        assert slide.info.icc_profile == ""
    with pytest.raises(SlideError, match="no colour profile"):
        open_slide(path, icc=True)
