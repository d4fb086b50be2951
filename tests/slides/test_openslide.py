"""The OpenSlide reader: OpenSlide's pixels on white, its errors as sentences."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openslide
import pytest
from PIL import Image

from napari_histomil.errors import SlideError
from napari_histomil.slides.openslide import on_white
from napari_histomil.slides.readers import open_slide
from tests.slides.conftest import halves, picture, write_pyramid
from tests.slides.contract import SlideContract, window

EVEN = halves(picture(512, 384), 2)


class TestGenericTiff(SlideContract):
    reader = "openslide"
    truth = EVEN

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return write_pyramid(tmp_path / "generic.tif", EVEN, compression="deflate")


class TestNdpi(SlideContract):
    reader = "openslide"

    @pytest.fixture
    def path(self, data_dir: Path) -> Path:
        path = data_dir / "wsi-hamamatsu-ndpi" / "test3-DAPI-2-387.ndpi"
        if not hasattr(type(self), "truth"):
            with openslide.OpenSlide(path) as other:
                type(self).truth = [
                    np.array(other.read_region((0, 0), index, size).convert("RGB"))
                    for index, size in enumerate(other.level_dimensions)
                ]
        return path

    def test_what_the_file_says(self, path: Path):
        with open_slide(path, reader="openslide") as slide:
            assert slide.info.reader == "openslide"
            assert slide.info.mpp == pytest.approx(0.22818, abs=1e-5)
            assert slide.info.objective_power == 40
            assert slide.info.associated_images == ("macro",)
            assert slide.read_associated("macro").shape == (406, 1188, 3)

    def test_equal_to_openslide_anywhere(self, path: Path):
        """Also between the pixels of a level, and partly outside: transparent becomes white."""
        rng = np.random.default_rng(0)
        with open_slide(path, reader="openslide") as slide, openslide.OpenSlide(path) as other:
            for level in range(other.level_count):
                for _ in range(8):
                    corner = tuple(rng.integers(-300, [4200, 5200]).tolist())
                    size = tuple(rng.integers(1, 400, 2).tolist())
                    rgba = np.array(other.read_region(corner, level, size)).astype(int)
                    alpha = rgba[..., 3:]
                    wanted = (rgba[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255
                    found = slide.read_region(corner, level, size)
                    np.testing.assert_array_equal(found, wanted)


def test_transparent_is_white():
    pixels = np.zeros((2, 2, 4), np.uint8)
    pixels[0, 0] = 10, 20, 30, 255
    pixels[1, 1] = 0, 100, 200, 51  # a fifth
    found = on_white(Image.fromarray(pixels))
    assert found[0, 0].tolist() == [10, 20, 30]
    assert found[0, 1].tolist() == [255, 255, 255]
    assert found[1, 1].tolist() == [204, 224, 244]


def test_dicom_is_one_slide_whichever_file_is_opened(data_dir: Path):
    files = sorted((data_dir / "wsi-dicom-cmu1-small").glob("*.dcm"))
    fingerprints = set()
    for file in (files[0], files[3], files[-1]):
        with open_slide(file) as slide:
            assert slide.info.vendor == "dicom"
            assert (slide.info.width_px0, slide.info.height_px0) == (2220, 2967)
            assert len(slide.info.levels) == 12
            assert slide.info.mpp_xy == (0.499, 0.499)
            fingerprints.add(slide.info.fingerprint)
    assert len(fingerprints) == 1


def test_dicom_lies_where_the_svs_lies(data_dir: Path):
    """The same tissue as the SVS; the file's colours are wrong (YCbCr that it calls RGB)."""
    dicom = data_dir / "wsi-dicom-cmu1-small" / "level-0-frames-0-30.dcm"
    svs = data_dir / "wsi-aperio-svs" / "CMU-1-Small-Region.svs"
    with open_slide(dicom) as one, open_slide(svs) as two:
        luma = one.read_region((1000, 1400), 0, (300, 300))[..., 0].astype(float)
        rgb = two.read_region((1000, 1400), 0, (300, 300)).astype(float)
    wanted = rgb @ [0.299, 0.587, 0.114]
    assert np.corrcoef(luma.ravel(), wanted.ravel())[0, 1] > 0.99


def test_one_broken_place_does_not_break_the_rest(tmp_path: Path):
    """After an error OpenSlide refuses every read of the handle: ours is opened anew."""
    path = write_pyramid(tmp_path / "broken.tif", EVEN[:1], compression="jpeg")
    content = bytearray(path.read_bytes())
    with openslide.OpenSlide(path) as other:
        assert other.detect_format(path) == "generic-tiff"
    import tifffile

    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        offset, count = page.dataoffsets[9], page.databytecounts[9]
    content[offset : offset + count] = bytes(count)
    path.write_bytes(content)
    with open_slide(path, reader="openslide") as slide:
        before = slide.read_region((256, 256), 0, (100, 100))
        with pytest.raises(SlideError, match=r"broken\.tif cannot be read at \(64, 64\)"):
            slide.read_region((64, 64), 0, (64, 64))
        after = slide.read_region((256, 256), 0, (100, 100))
    np.testing.assert_array_equal(before, after)
    assert window(before, 0, 0, 1, 1).shape == (1, 1, 3)
