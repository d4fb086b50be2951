"""What every reader must do. A reader's test class inherits this and says what it opens."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from napari_histomil.errors import SlideError
from napari_histomil.slides.readers import open_slide
from napari_histomil.slides.slide import Slide, read_rect, read_tile


def window(level: np.ndarray, left: int, top: int, width: int, height: int) -> np.ndarray:
    """Cut a window out of a level, white outside: the truth of `read_region`."""
    out = np.full((height, width, 3), 255, np.uint8)
    x0, x1 = max(left, 0), min(left + width, level.shape[1])
    y0, y1 = max(top, 0), min(top + height, level.shape[0])
    if x1 > x0 and y1 > y0:
        out[y0 - top : y1 - top, x0 - left : x1 - left] = level[y0:y1, x0:x1]
    return out


def area_mean(
    image: np.ndarray, xy: tuple[float, float], size: tuple[float, float], out: tuple[int, int]
) -> np.ndarray:
    """Return float means over fractional areas, [out height, out width, 3], by the definition."""
    weights = []
    for axis in (0, 1):
        pixels = np.arange(image.shape[1 - axis])
        edges = xy[axis] + size[axis] * np.arange(out[axis] + 1) / out[axis]
        shared = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
        shared = np.clip(shared, 0, None)
        weights.append(shared / shared.sum(1, keepdims=True))
    return np.einsum("yi,xj,ijc->yxc", weights[1], weights[0], image.astype(float), optimize=True)


class SlideContract:
    """Subclasses give `path` (a fixture), `truth` and the reader's name."""

    reader: str
    truth: list[np.ndarray]
    tolerance = 0
    """Largest allowed difference in grey levels; above 0 only for lossy files."""

    @pytest.fixture
    def slide(self, path: Path):
        with open_slide(path, reader=self.reader) as opened:
            yield opened

    def same(self, found: np.ndarray, wanted: np.ndarray) -> None:
        assert found.dtype == np.uint8
        assert found.shape == wanted.shape
        if found.size:
            assert np.abs(found.astype(int) - wanted).max() <= self.tolerance

    def test_the_facts_are_those_of_the_pixels(self, slide: Slide, path: Path):
        info = slide.info
        assert info.path == path
        assert info.reader == self.reader
        assert (info.height_px0, info.width_px0) == self.truth[0].shape[:2]
        sizes = [(level.height, level.width) for level in info.levels]
        assert sizes == [level.shape[:2] for level in self.truth]
        assert info.downsamples[0] == 1
        for level, downsample in zip(info.levels, info.downsamples, strict=True):
            ratios = info.width_px0 / level.width, info.height_px0 / level.height
            assert downsample == pytest.approx(np.mean(ratios))
            assert 1 <= level.tile_width <= level.width or level.tile_width >= 1

    def test_whole_levels(self, slide: Slide):
        for index, level in enumerate(self.truth):
            size = level.shape[1], level.shape[0]
            self.same(slide.read_region((0, 0), index, size), level)

    def test_windows_anywhere_are_white_outside(self, slide: Slide):
        rng = np.random.default_rng(1)
        for index, level in enumerate(self.truth):
            downsample = slide.info.downsamples[index]
            height, width = level.shape[:2]
            for _ in range(25):
                left, top = rng.integers(-40, [width + 10, height + 10]).tolist()
                size = tuple(rng.integers(1, 150, 2).tolist())
                corner = round(left * downsample), round(top * downsample)
                self.same(slide.read_region(corner, index, size), window(level, left, top, *size))

    def test_corners_and_edges(self, slide: Slide):
        height, width = self.truth[0].shape[:2]
        for left in (-5, 0, width - 7, width - 1):
            for top in (-5, 0, height - 7, height - 1):
                found = slide.read_region((left, top), 0, (9, 11))
                self.same(found, window(self.truth[0], left, top, 9, 11))

    def test_far_outside_is_white(self, slide: Slide):
        for corner in ((-9000, 0), (0, 10**7), (10**7, -(10**7))):
            assert (slide.read_region(corner, 0, (20, 10)) == 255).all()

    def test_numpy_integers_are_integers(self, slide: Slide):
        corner = np.int64(3), np.int32(4)
        found = slide.read_region(corner, np.int64(0), (np.int64(8), np.uint16(9)))
        self.same(found, window(self.truth[0], 3, 4, 8, 9))

    def test_nothing_is_an_empty_picture(self, slide: Slide):
        assert slide.read_region((0, 0), 0, (0, 5)).shape == (5, 0, 3)

    def test_what_is_returned_belongs_to_the_caller(self, slide: Slide):
        first = slide.read_region((0, 0), 0, (30, 30))
        first[:] = 77
        self.same(slide.read_region((0, 0), 0, (30, 30)), self.truth[0][:30, :30])

    def test_many_threads(self, slide: Slide):
        rng = np.random.default_rng(2)
        height, width = self.truth[0].shape[:2]
        corners = rng.integers(-20, [width, height], (60, 2)).tolist()
        with ThreadPoolExecutor(8) as pool:
            regions = pool.map(lambda xy: slide.read_region(tuple(xy), 0, (64, 48)), corners)
            for (left, top), found in zip(corners, regions, strict=True):
                self.same(found, window(self.truth[0], left, top, 64, 48))

    @pytest.mark.parametrize("level", [-1, 99])
    def test_a_level_that_is_not_there(self, slide: Slide, level: int):
        with pytest.raises(SlideError, match=f"no level {level}"):
            slide.read_region((0, 0), level, (5, 5))

    @pytest.mark.parametrize("size", [(-1, 5), (5, -1), (1 << 20, 1 << 20)])
    def test_a_size_that_cannot_be(self, slide: Slide, size: tuple[int, int]):
        with pytest.raises(SlideError, match="smaller pieces"):
            slide.read_region((0, 0), 0, size)

    def test_an_associated_image_that_is_not_there(self, slide: Slide):
        with pytest.raises(SlideError, match="no associated image 'nonsense'"):
            slide.read_associated("nonsense")

    def test_closed_is_closed(self, path: Path):
        slide = open_slide(path, reader=self.reader)
        slide.close()
        slide.close()
        with pytest.raises(SlideError, match="closed"):
            slide.read_region((0, 0), 0, (5, 5))
        with pytest.raises(SlideError, match="closed"):
            slide.read_associated("label")

    def test_the_fingerprint_stays(self, slide: Slide, path: Path):
        assert len(bytes.fromhex(slide.info.fingerprint)) == 32
        with open_slide(path, reader=self.reader) as again:
            assert again.info.fingerprint == slide.info.fingerprint

    def test_given_mpp_wins(self, path: Path):
        with open_slide(path, reader=self.reader, mpp=(0.3, 0.4)) as slide:
            assert slide.info.mpp_xy == (0.3, 0.4)
            assert slide.info.mpp_source == "given"

    def test_tiles_of_half_the_resolution_are_means(self, path: Path):
        with open_slide(path, reader=self.reader, mpp=0.5) as slide:
            tile = read_tile(slide, (16, 8), 32, 1.0)
            if len(self.truth) > 1:
                wanted = self.truth[1][4:36, 8:40]
            else:
                region = self.truth[0][8:72, 16:80].astype(int)
                wanted = (region.reshape(32, 2, 32, 2, 3).sum((1, 3)) + 2) // 4
            self.same(tile, wanted)

    def test_an_overview(self, slide: Slide):
        """Areas without common measure: a level's pixel may straddle an edge, not more."""
        height, width = (size * 9 // 10 for size in self.truth[0].shape[:2])
        overview = read_rect(slide, (0, 0), (width, height), (7, 5))
        wanted = area_mean(self.truth[0], (0, 0), (width, height), (7, 5))
        assert np.abs(overview - wanted).max() < 6
