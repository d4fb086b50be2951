"""The viewer's levels: every power of two, exact means, exact places, bounded work."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from napari_histomil.errors import SlideError
from napari_histomil.slides import exact, overview_source, powers
from napari_histomil.slides.cache import TileCache, shared_cache
from napari_histomil.slides.level_array import LevelArray
from napari_histomil.slides.pyramid import levels
from napari_histomil.slides.readers import open_slide
from napari_histomil.slides.slide import Level, Slide
from tests.slides.conftest import halves, picture, write_pyramid


def mean_of_four(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[0] // 2, image.shape[1] // 2
    sums = image.reshape(height, 2, width, 2, 3).astype(int).sum((1, 3))
    return (sums + 2) // 4


class Painted:
    """A slide without a file: `paint(x, y)` gives its colours; counts the pixels read."""

    def __init__(
        self, base: Slide, sizes: Sequence[tuple[int, int]], paint: Callable[..., np.ndarray]
    ) -> None:
        width, height = sizes[0]
        self.info = replace(
            base.info,
            width_px0=width,
            height_px0=height,
            levels=tuple(Level(w, h, (width / w + height / h) / 2, 256, 256) for w, h in sizes),
        )
        self.paint = paint
        self.pixels_read = [0] * len(sizes)
        self.largest_read = 0
        self._counting = threading.Lock()

    def read_region(self, xy, level, size):
        stored = self.info.levels[level]
        left, top = round(xy[0] / stored.downsample), round(xy[1] / stored.downsample)
        x = left + np.arange(size[0])
        y = top + np.arange(size[1])
        self.largest_read = max(self.largest_read, size[0] * size[1])
        inside = ((y >= 0) & (y < stored.height))[:, None] & ((x >= 0) & (x < stored.width))
        with self._counting:
            self.pixels_read[level] += int(inside.sum())
        factors = self.info.width_px0 / stored.width, self.info.height_px0 / stored.height
        colors = self.paint((x + 0.5) * factors[0], ((y + 0.5) * factors[1])[:, None])
        return np.where(inside[..., None], colors, 255).astype(np.uint8)


@pytest.fixture
def base(tmp_path: Path):
    with open_slide(write_pyramid(tmp_path / "base.tif", [picture(64, 64)])) as slide:
        yield slide


def ramp(width: int, height: int) -> Callable[..., np.ndarray]:
    """Red tells x, green tells y: a misplaced pixel shows."""

    def paint(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        x, y = np.broadcast_arrays(x, y)
        return np.stack([x / width * 250, y / height * 250, np.full(x.shape, 90.0)], -1)

    return paint


@pytest.fixture(params=[1, 2, 3])
def odd(request: pytest.FixtureRequest, tmp_path: Path):
    """A slide of odd size with one stored level, with 1 and 4, and with 1, 2 and 8."""
    made = halves(picture(1203, 787), 3)
    stored = {1: [made[0]], 2: [made[0], made[2]], 3: [made[0], made[1], made[3]]}
    path = write_pyramid(tmp_path / "odd.tif", stored[request.param], compression="zlib")
    with open_slide(path) as slide:
        yield slide, stored[request.param]


def test_shapes_are_halves_down_to_about_100_px(odd: tuple):
    slide, _ = odd
    arrays = levels(slide)
    height, width, _ = arrays[0].shape
    count = len(arrays) - 1
    assert width >= 1203 > width - (1 << count)
    assert height >= 787 > height - (1 << count)
    for index, array in enumerate(arrays):
        assert array.shape == (height >> index, width >> index, 3)
        assert (height >> index) << index == height
        assert (array.dtype, array.ndim) == (np.uint8, 3)
        assert array.size == np.prod(array.shape)
        assert len(array.chunks) == 3
    assert 64 <= max(arrays[-1].shape[:2]) <= 128
    assert max(width - 1203, height - 787) <= 1203 / 64  # the white is hardly seen


def test_virtual_levels_are_means_and_stored_ones_are_as_stored(odd: tuple):
    slide, stored = odd
    arrays = levels(slide)
    whole = [np.asarray(array) for array in arrays]
    powers = {round(slide.info.width_px0 / level.shape[1]): level for level in stored}
    for index, found in enumerate(whole):
        assert found.shape == arrays[index].shape
        if 1 << index in powers:
            level = powers[1 << index]
            height, width = level.shape[:2]
            np.testing.assert_array_equal(found[:height, :width], level)
            assert (found[height:] == 255).all()
            assert (found[:, width:] == 255).all()
        else:
            expected = mean_of_four(whole[index - 1])
            # Rounded once where a decoder makes a quarter in one go, else at each halving.
            assert np.abs(found.astype(int) - expected).max() <= 1


def test_any_index_is_as_in_the_whole(odd: tuple):
    slide, _ = odd
    rng = np.random.default_rng(0)
    for array in levels(slide):
        whole = np.asarray(array)
        height, width, _ = whole.shape
        for _ in range(6):
            y = sorted(rng.integers(0, height + 1, 2).tolist())
            x = sorted(rng.integers(0, width + 1, 2).tolist())
            np.testing.assert_array_equal(
                array[y[0] : y[1], x[0] : x[1]], whole[y[0] : y[1], x[0] : x[1]]
            )
        for key in (
            np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[..., 1], np.s_[3:9:2, ::3, :2], np.s_[5, 6, 2],
            np.s_[-9:-2, 2], np.s_[()], np.s_[7:3], np.s_[np.int64(2), 1:5], np.s_[:, :, ::2],
        ):  # fmt: skip
            found = array[key]
            np.testing.assert_array_equal(found, whole[key])
            assert np.shape(found) == np.shape(whole[key])


def test_what_is_no_index_is_refused(odd: tuple):
    array = levels(odd[0])[0]
    for key in (np.s_[10**6], np.s_[0, 0, 0, 0], np.s_[::-1], np.s_["x"], np.s_[1.5]):
        with pytest.raises(IndexError):
            array[key]


def test_arrays_convert_as_numpy_asks(odd: tuple):
    array = levels(odd[0])[-1]
    assert np.asarray(array, dtype=float).dtype == float
    assert len(array) == array.shape[0]
    assert "odd.tif" in repr(array)


@pytest.mark.parametrize(
    "sizes",
    [
        [(5000, 3000)],
        [(5003, 3001), (1250, 750), (312, 187)],
        [(5003, 3001), (1251, 751)],
        [(9993, 7994), (2498, 1998)],  # 4.0004 and 4.0010: to the pixel still 4
        [(60_000, 40_000), (14_995, 9_997), (3_748, 2_499)],  # 4.0013 and 4.0012, 16.008
        [(6000, 4000), (2000, 1333), (667, 444)],  # steps of 3
    ],
    ids=str,
)
def test_every_level_lies_where_level_0_lies(base: Slide, sizes: list):
    width, height = sizes[0]
    slide = Painted(base, sizes, ramp(width, height))
    for index, array in enumerate(levels(slide, TileCache())):
        power = 1 << index
        if array.size > 3 * 10**7:
            continue
        found = np.asarray(array).astype(float)
        rows, columns = height // power - 1, width // power - 1
        if min(rows, columns) < 2:
            continue
        x = (np.arange(columns) + 0.5) * power
        y = (np.arange(rows) + 0.5) * power
        # Half a pixel of the level off is power / 2; rounding to grey levels is another half.
        grey_x = 250 / width * power / 2 + 0.9 + index * 0.13
        grey_y = 250 / height * power / 2 + 0.9 + index * 0.13
        assert np.abs(found[:rows, :columns, 0] - x / width * 250).max() <= grey_x
        assert np.abs(found[:rows, :columns, 1] - (y / height * 250)[:, None]).max() <= grey_y


def test_coarse_levels_come_from_the_coarsest_stored_one(base: Slide):
    sizes = [(80_000, 60_000), (20_000, 15_000), (5_000, 3_750)]
    slide = Painted(base, sizes, ramp(80_000, 60_000))
    arrays = levels(slide, TileCache())
    np.asarray(arrays[-1])
    np.asarray(arrays[-2])
    assert slide.pixels_read[0] == slide.pixels_read[1] == 0
    assert slide.pixels_read[2] == 5_000 * 3_750


def test_a_slide_of_one_level_is_gone_through_once_and_in_blocks(
    base: Slide, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(overview_source, "LONG_PX", 1 << 30)  # no sketch, which looks too
    slide = Painted(base, [(12_011, 7_001)], ramp(12_011, 7_001))
    arrays = levels(slide, TileCache(budget_bytes=1 << 20))
    assert slide.pixels_read == [0]  # nothing before somebody looks
    for array in reversed(arrays):
        if array.size <= 3 * powers.OVERVIEW_PX // 4:
            np.asarray(array)
    assert slide.pixels_read == [12_011 * 7_001]
    assert slide.largest_read <= exact.BLOCK_PX**2


def test_a_view_reads_about_what_it_shows(base: Slide):
    slide = Painted(base, [(80_000, 60_000)], ramp(80_000, 60_000))
    array = levels(slide, TileCache())[2]
    array[1000:2000, 3000:4600]
    assert slide.pixels_read[0] <= 16 * (1000 + 2 * 512) * (1600 + 2 * 512)


def test_looking_again_reads_nothing(odd: tuple):
    slide, _ = odd
    chunks = TileCache()
    arrays = levels(slide, chunks)
    views = [array[10:300, 20:400] for array in arrays]
    misses = shared_cache().misses, chunks.misses
    again = [array[10:300, 20:400] for array in arrays]
    assert (shared_cache().misses, chunks.misses) == misses
    for one, two in zip(views, again, strict=True):
        np.testing.assert_array_equal(one, two)
        one[:] = 0  # a caller's own copy
    np.testing.assert_array_equal(arrays[1][10:300, 20:400], again[1])


def test_openslides_pixels_are_kept_too(data_dir: Path):
    path = data_dir / "wsi-hamamatsu-ndpi" / "test3-DAPI-2-387.ndpi"
    with open_slide(path, reader="openslide") as slide:
        arrays = levels(slide)
        first = arrays[1][100:600, 300:900]
        np.testing.assert_array_equal(first, slide.read_region((600, 200), 1, (600, 500)))
        misses = shared_cache().misses
        np.testing.assert_array_equal(arrays[1][100:600, 300:900], first)
        assert shared_cache().misses == misses


def test_a_view_far_coarser_than_what_is_stored_is_kept(
    base: Slide, monkeypatch: pytest.MonkeyPatch
):
    """What it is made of must not push it out."""
    monkeypatch.setattr(exact, "CHUNK_PX", 64)
    monkeypatch.setattr(exact, "BLOCK_PX", 256)
    monkeypatch.setattr(powers, "OVERVIEW_PX", 1 << 15)
    monkeypatch.setattr(powers, "SMALL_PX", 1 << 10)
    slide = Painted(base, [(4500, 2500)], ramp(4500, 2500))
    array = levels(slide, TileCache(budget_bytes=1 << 20))[3]
    array[20:300, 50:440]
    read = slide.pixels_read[0]
    array[20:300, 50:440]
    assert slide.pixels_read[0] == read > 0


def test_the_real_slide(data_dir: Path):
    with open_slide(data_dir / "wsi-aperio-svs" / "CMU-1-Small-Region.svs") as slide:
        arrays = levels(slide)
        assert arrays[0].shape == (2976, 2240, 3)
        assert arrays[-1].shape == (93, 70, 3)
        region = slide.read_region((0, 0), 0, (2220, 2967))
        np.testing.assert_array_equal(arrays[0][:2967, :2220], region)
        assert (arrays[0][2967:] == 255).all()
        mean = np.asarray(arrays[-1]).reshape(-1, 3).mean(0)
        padded = np.asarray(arrays[0]).reshape(-1, 3).mean(0)
        assert np.abs(mean - padded).max() < 1.5


def test_a_closed_slide_is_a_sentence(tmp_path: Path):
    path = write_pyramid(tmp_path / "closed.tif", [picture(300, 200)])
    with open_slide(path) as slide:
        arrays = levels(slide)
    with pytest.raises(SlideError, match=r"closed\.tif is closed"):
        arrays[0][:5, :5]


def test_a_tiny_slide_has_a_level(tmp_path: Path):
    path = write_pyramid(tmp_path / "tiny.tif", [picture(20, 17)], tile=None)
    with open_slide(path) as slide:
        (array,) = levels(slide)
        assert isinstance(array, LevelArray)
        assert array.shape == (17, 20, 3)


def test_the_kept_pixels_go_with_the_last_array(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(powers, "OVERVIEW_PX", 1)
    monkeypatch.setattr(powers, "SMALL_PX", 1)
    path = write_pyramid(tmp_path / "gone.tif", [picture(300, 200)], tile=None)
    made = TileCache()
    with open_slide(path) as slide:
        arrays = levels(slide, made)
        again = levels(slide, made)
        np.asarray(arrays[1])
        used = made.used_bytes
        assert used > 0
        del arrays
        gc.collect()
        assert made.used_bytes == used  # somebody else still looks at the slide
        del again
        gc.collect()
    assert made.used_bytes == 0
