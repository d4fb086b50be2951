"""Stored tiles: asked for one by one, smaller, in walks and at random; and what is given back."""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_histomil.errors import SlideError
from napari_histomil.slides.cache import TileCache, shared_cache
from napari_histomil.slides.readers import open_slide
from napari_histomil.slides.reading_order import MAX_EXPECTED, ReadingOrder
from napari_histomil.slides.resample import mean_of_blocks
from napari_histomil.slides.tile_memory import BLOCK_BYTES, tile_memory
from napari_histomil.slides.tiles import TiledSlide
from tests.slides.conftest import halves, picture, write_pyramid

LEVELS = halves(picture(611, 437), 1)
TILE = 64


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_pyramid(tmp_path / "slide.tif", LEVELS, compression="jpeg", photometric="ycbcr",
                         subsampling=(2, 2))  # fmt: skip


@pytest.fixture
def truth(path: Path) -> list[np.ndarray]:
    with tifffile.TiffFile(path) as file:
        return [page.asarray() for page in file.pages]


@pytest.fixture
def slide(path: Path):
    with open_slide(path) as opened:
        assert isinstance(opened, TiledSlide)
        yield opened


def tiles_of(level: np.ndarray) -> list[tuple[int, int, np.ndarray]]:
    return [
        (y // TILE, x // TILE, level[y : y + TILE, x : x + TILE])
        for y in range(0, level.shape[0], TILE)
        for x in range(0, level.shape[1], TILE)
    ]


def test_tiles_are_those_of_the_level(slide: TiledSlide, truth: list[np.ndarray]):
    for index, level in enumerate(truth):
        for row, column, wanted in tiles_of(level):
            found = slide.tile(index, row, column)
            np.testing.assert_array_equal(found, wanted)
            assert not found.flags.writeable
            assert slide.cached_tile(index, row, column) is found


@pytest.mark.parametrize("halvings", [1, 2, 3])
def test_smaller_tiles_have_the_size_of_means_and_nearly_their_colours(
    slide: TiledSlide, truth: list[np.ndarray], halvings: int
):
    """Tiles cut where no whole pixel ends are exact means: nothing from beyond the edge."""
    factor = 2**halvings
    for row, column, whole in tiles_of(truth[0]):
        found = slide.tile(0, row, column, halvings=halvings)
        wanted = mean_of_blocks(np.ascontiguousarray(whole), factor)
        assert found.shape == wanted.shape == (-(-whole.shape[0] // factor),
                                               -(-whole.shape[1] // factor), 3)  # fmt: skip
        difference = np.abs(found.astype(int) - wanted)
        if whole.shape[0] % factor or whole.shape[1] % factor:
            assert not difference.any()
        assert difference.mean() < 12  # the picture is noise, the worst there is
        assert slide.cached_tile(0, row, column, halvings=halvings) is found
        assert slide.cached_tile(0, row, column) is None


def test_stored_bytes(slide: TiledSlide, path: Path):
    with tifffile.TiffFile(path) as file:
        for index, page in enumerate(file.pages):
            stored = slide.tile_bytes(index)
            assert stored is not None
            assert stored.dtype == np.int64
            np.testing.assert_array_equal(stored.ravel(), page.databytecounts)
            assert stored.shape == (-(-page.imagelength // TILE), -(-page.imagewidth // TILE))


@pytest.mark.parametrize(
    ("place", "halvings"),
    [((2, 0, 0), 0), ((-1, 0, 0), 0), ((0, 7, 0), 0), ((0, 0, 10), 0), ((0, -1, 0), 0),
     ((0, 0, -1), 0), ((0, 0, 0), 4), ((0, 0, 0), -1)],
    ids=str,
)  # fmt: skip
def test_a_tile_that_is_not_there(slide: TiledSlide, place: tuple[int, int, int], halvings: int):
    with pytest.raises(SlideError, match="no tile in row"):
        slide.tile(*place, halvings=halvings)


def test_closed_is_closed(path: Path):
    slide = open_slide(path)
    assert isinstance(slide, TiledSlide)
    slide.tile(0, 0, 0)
    slide.close()
    with pytest.raises(SlideError, match="closed"):
        slide.tile(0, 0, 0)
    with pytest.raises(SlideError, match="closed"):
        slide.tile_bytes(0)
    assert slide.cached_tile(0, 0, 0) is None


# --- walks and random reads ---------------------------------------------------------------------


def decoded_by(slide: TiledSlide, reads: list[tuple[int, int]], side: int) -> int:
    cache: TileCache = shared_cache()
    before = cache.misses
    for xy in reads:
        slide.read_region(xy, 0, (side, side))
    return cache.misses - before


def test_a_walk_off_the_grid_decodes_each_tile_about_once(slide: TiledSlide):
    reads = [(x, y) for y in range(0, 400, 80) for x in range(0, 560, 80)]
    tiles = len(tiles_of(LEVELS[0]))
    assert decoded_by(slide, reads, 80) <= tiles + 4  # the first read of a walk is none yet


def test_random_reads_keep_nothing_until_it_is_wanted_again(slide: TiledSlide):
    cache: TileCache = shared_cache()
    assert decoded_by(slide, [(100, 100)], 50) == 4
    assert cache.used_bytes == 0
    assert decoded_by(slide, [(105, 100)], 50) == 4
    assert cache.used_bytes == 4 * TILE * TILE * 3
    assert decoded_by(slide, [(90, 100)], 50) == 0


def test_a_walk_with_overlaps_in_any_order_decodes_each_tile_once(
    slide: TiledSlide, truth: list[np.ndarray]
):
    slide.expect_walk()
    reads = [(x, y) for y in range(0, 280, 90) for x in range(0, 460, 90)]
    np.random.default_rng(0).shuffle(reads)
    assert decoded_by(slide, reads, 150) == len(tiles_of(LEVELS[0][:420, :600]))
    np.testing.assert_array_equal(
        slide.read_region((90, 180), 0, (150, 150)), truth[0][180:330, 90:240]
    )


def test_a_whole_tile_read_twice_is_kept(slide: TiledSlide):
    for wanted in (1, 1, 0):
        assert decoded_by(slide, [(TILE, TILE)], TILE) == wanted


def test_random_reads_are_right(slide: TiledSlide, truth: list[np.ndarray]):
    rng = np.random.default_rng(0)
    for _ in range(400):
        size = tuple(rng.integers(1, 140, 2).tolist())
        x, y = (int(rng.integers(0, limit - s)) for limit, s in zip((611, 437), size, strict=True))
        found = slide.read_region((x, y), 0, size)
        np.testing.assert_array_equal(found, truth[0][y : y + size[1], x : x + size[0]])


def test_the_order_of_reads():
    order = ReadingOrder()
    assert not order.follows(0, (100, 50), (30, 20))
    assert order.follows(0, (130, 50), (30, 20))
    assert order.follows(0, (100, 70), (30, 20))
    assert not order.follows(1, (160, 50), (30, 20))
    assert not order.follows(0, (101, 90), (30, 20))
    for number in range(MAX_EXPECTED):
        order.follows(2, (1000 * number, 0), (5, 5))
    assert not order.follows(0, (160, 50), (30, 20))


def test_what_is_looked_at_stays_while_a_walk_passes():
    cache = TileCache(budget_bytes=100 * 300)
    for number in range(40):
        cache.get(("seen", number), lambda: np.zeros((10, 10, 3), np.uint8))
    for number in range(500):
        cache.get(("walk", number), lambda: np.zeros((10, 10, 3), np.uint8), passing=True)
        assert cache.used_bytes <= 100 * 300
    assert all(cache.peek(("seen", number)) is not None for number in range(40))
    assert cache.peek(("walk", 499)) is not None
    assert cache.peek(("walk", 400)) is None
    cache.get(("walk", 499), lambda: np.zeros((10, 10, 3), np.uint8))  # looked at now
    for number in range(1000, 1100):
        cache.get(("walk", number), lambda: np.zeros((10, 10, 3), np.uint8), passing=True)
    assert cache.peek(("walk", 499)) is not None


# --- giving back --------------------------------------------------------------------------------


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts in /proc")
def test_closing_gives_back_files_and_tiles(path: Path, tmp_path: Path):
    cache: TileCache = shared_cache()
    before, held = open_descriptors(), tile_memory().held_bytes
    slides = [open_slide(path) for _ in range(3)]
    assert open_descriptors() > before
    for slide in slides:
        assert isinstance(slide, TiledSlide)
        for row, column in np.ndindex(6, 9):
            slide.tile(0, row, column)
            slide.tile(0, row, column, halvings=1)
        slide.read_region((30, 30), 0, (200, 200))
    for slide in slides[:2]:
        slide.close()
        assert cache.used_bytes > 0
    slides[2].close()
    del slide
    assert cache.used_bytes == 0
    assert open_descriptors() == before
    assert tile_memory().held_bytes <= held + BLOCK_BYTES


def test_a_tile_made_while_its_slide_is_closed_is_not_kept():
    cache = TileCache()
    cache.acquire("slide")
    making, go_on = threading.Event(), threading.Event()

    def slow() -> np.ndarray:
        making.set()
        assert go_on.wait(10)
        return np.zeros((10, 10, 3), np.uint8)

    with ThreadPoolExecutor(1) as pool:
        made = pool.submit(cache.get, ("slide", 1), slow)
        assert making.wait(10)
        cache.release("slide")
        go_on.set()
        assert made.result(10).shape == (10, 10, 3)
    assert cache.used_bytes == 0
    assert cache.peek(("slide", 1)) is None
