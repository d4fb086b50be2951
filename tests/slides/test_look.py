"""A look never waits: coarse first, then the rest, what is in view before what comes next."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_histomil.errors import SlideError
from napari_histomil.slides.cache import TileCache, shared_cache
from napari_histomil.slides.loader import Loader
from napari_histomil.slides.look import Look
from napari_histomil.slides.patchwork import enlarged
from napari_histomil.slides.pyramid import Pyramid
from napari_histomil.slides.readers import open_slide
from tests.slides.conftest import halves, picture, write_pyramid

SIZE = 2560, 1536


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pyramid of steps of four."""
    made = halves(picture(*SIZE), 2)
    return write_pyramid(tmp_path_factory.mktemp("look") / "four.tif", [made[0], made[2]])


@pytest.fixture
def pyramid(four: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("napari_histomil.slides.powers.SMALL_PX", 1 << 14)
    with open_slide(four) as slide:
        made = Pyramid(slide, TileCache(), loader=Loader(2))
        yield made
        made.close()


def test_the_levels_are_of_all_kinds(pyramid: Pyramid):
    assert [pyramid.stored(index) for index in range(3)] == [0, None, 1]
    assert pyramid.overview.first == 3


def painted(look: Look, *area: int) -> np.ndarray:
    end = time.monotonic() + 10
    while True:
        pixels, final = look.paint(*area)
        if final:
            return pixels
        assert time.monotonic() < end, "the view was never complete"
        time.sleep(0.005)


class Gate:
    """Holds back the decoding of tiles of a slide."""

    def __init__(self, slide, monkeypatch) -> None:
        self.open = threading.Event()
        self.asked: list[tuple] = []
        real = slide.tile

        def tile(level, row, column, **options):
            self.asked.append((level, row, column, options.get("halvings", 0)))
            assert self.open.wait(10)
            return real(level, row, column, **options)

        monkeypatch.setattr(slide, "tile", tile)


def test_each_level_is_complete_in_the_end_and_right(pyramid: Pyramid):
    look = Look(pyramid)
    for index in range(pyramid.count):
        width, height = (min(side, 700) for side in pyramid.size(index))
        found = painted(look, index, 0, 0, width, height)
        exact = pyramid.read(index, 0, 0, width, height)
        assert np.abs(found.astype(int) - exact).max() <= 1, f"level {index}"


def test_the_padding_is_white_at_once(pyramid: Pyramid, monkeypatch):
    gate = Gate(pyramid.slide, monkeypatch)
    width, height = pyramid.size(0)
    pixels, final = Look(pyramid).paint(0, width - 200, height - 200, 200, 200)
    assert (width, height) == SIZE or (pixels[-1] == 255).all()
    assert not final
    gate.open.set()


def test_nothing_is_waited_for_and_a_coarser_level_stands_in(pyramid: Pyramid, monkeypatch):
    look = Look(pyramid)
    pyramid.overview.finish()
    coarse = painted(look, 2, 0, 0, 320, 192)
    gate = Gate(pyramid.slide, monkeypatch)
    pixels, final = look.paint(0, 0, 0, 1280, 768)
    assert not final
    np.testing.assert_array_equal(pixels, enlarged(coarse, 4))
    gate.open.set()


def test_what_left_the_view_is_not_fetched(pyramid: Pyramid, monkeypatch):
    pyramid.overview.finish()
    look = Look(pyramid)
    gate = Gate(pyramid.slide, monkeypatch)
    look.paint(0, 0, 0, 640, 640)  # 100 tiles
    look.paint(0, 1920, 896, 128, 128)  # four others
    gate.open.set()
    painted(look, 0, 1920, 896, 128, 128)
    left = [asked for asked in gate.asked if asked[1] < 13]  # 14 and 15, and one ahead
    assert len(left) <= 2, "only those that the threads had in hand"


def test_looking_again_decodes_nothing_and_a_pan_is_ahead(pyramid: Pyramid):
    pyramid.overview.finish()
    look = Look(pyramid)
    for x in (0, 128, 256):
        painted(look, 0, x, 0, 512, 512)
    end = time.monotonic() + 5
    while not look.paint(0, 384, 0, 512, 512)[1]:  # fetched before it was asked for
        assert time.monotonic() < end
    look.paint(0, 384, 0, 512, 512)
    time.sleep(0.2)
    misses = shared_cache().misses
    for x in (256, 128, 0, 128, 256):
        assert look.paint(0, x, 0, 512, 512)[1]
    time.sleep(0.1)
    assert shared_cache().misses == misses


def test_it_tells_when_pixels_are_in(pyramid: Pyramid, monkeypatch):
    pyramid.overview.finish()
    gate = Gate(pyramid.slide, monkeypatch)
    look, told = Look(pyramid), threading.Event()
    look.arrived = told.set
    _, final = look.paint(0, 64, 64, 256, 256)
    assert not final
    assert not told.is_set()
    gate.open.set()
    assert told.wait(5)
    assert look.grown


@pytest.mark.parametrize("index", [0, 1])
def test_pieces_that_come_at_once_are_in_the_first_frame(pyramid: Pyramid, monkeypatch, index):
    monkeypatch.setattr("napari_histomil.slides.look.PATIENCE_S", 20.0)
    pyramid.overview.finish()
    look = Look(pyramid)
    pixels, final = look.paint(index, 64, 64, 512, 512)
    assert final
    assert not look.grown, "no second frame is due"
    exact = pyramid.read(index, 64, 64, 512, 512)
    assert np.abs(pixels.astype(int) - exact).max() <= 1


def test_it_waits_no_longer_than_pieces_come_in_quickly(pyramid: Pyramid, monkeypatch):
    monkeypatch.setattr("napari_histomil.slides.look.PATIENCE_S", 4.0)
    pyramid.overview.finish()
    gate = Gate(pyramid.slide, monkeypatch)
    opener = threading.Timer(3.0, gate.open.set)
    opener.start()
    _, final = Look(pyramid).paint(0, 64, 64, 512, 512)
    assert not final, "nothing had come in after a quarter of the time"
    assert not gate.open.is_set()
    opener.cancel()
    gate.open.set()


def test_a_damaged_tile_is_a_checker_and_said_once(tmp_path: Path, caplog):
    path = write_pyramid(
        tmp_path / "damaged.tif", [picture(1024, 768)], compression="jpeg", tile=(128, 128)
    )
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        offset, count = file.pages[0].dataoffsets[9], file.pages[0].databytecounts[9]
    data[offset : offset + count] = b"\0" * count
    path.write_bytes(data)
    with open_slide(path) as slide:
        pyramid = Pyramid(slide, TileCache(), loader=Loader(2))
        look = Look(pyramid)
        pixels = painted(look, 0, 0, 0, 512, 512)
        grey = pixels[128:256, 128:256]
        assert set(np.unique(grey)) == {130, 170}
        assert isinstance(pyramid.trouble, SlideError)
        pyramid.overview.finish()
        assert pyramid.coarse(200)[1]
        pyramid.close()
    assert caplog.text.count("cannot be decoded") == 1


def test_a_table_changes_what_is_shown_only(pyramid: Pyramid):
    look = Look(pyramid)
    plain = painted(look, 0, 0, 0, 100, 100)
    look.set_lut(np.arange(256, dtype=np.uint8)[::-1].copy())
    np.testing.assert_array_equal(painted(look, 0, 0, 0, 100, 100), 255 - plain)
    np.testing.assert_array_equal(pyramid.read(0, 0, 0, 100, 100), plain)


def test_closed_it_lets_go(four: Path):
    before = threading.active_count()
    used = shared_cache().used_bytes
    with open_slide(four) as slide:
        pyramid = Pyramid(slide, TileCache(), loader=Loader(2))
        look = Look(pyramid)
        look.paint(0, 0, 0, 2000, 1500)
        look.close()
        pyramid.close()
    end = time.monotonic() + 5
    while threading.active_count() > before or shared_cache().used_bytes > used:
        assert time.monotonic() < end, "threads or pixels stay"
        time.sleep(0.01)


@pytest.mark.parametrize("factor", [1, 2, 8])
def test_enlarged_repeats_pixels(factor: int):
    small = picture(13, 7)
    expected = small.repeat(factor, axis=0).repeat(factor, axis=1)
    np.testing.assert_array_equal(enlarged(small, factor), expected)


def test_slides_without_tiles_of_ours_are_painted_too(data_dir: Path):
    with open_slide(
        data_dir / "wsi-hamamatsu-ndpi" / "test3-DAPI-2-387.ndpi", reader="openslide"
    ) as slide:
        pyramid = Pyramid(slide, TileCache(), loader=Loader(2))
        look = Look(pyramid)
        found = painted(look, 0, 300, 200, 700, 600)
        np.testing.assert_array_equal(found, pyramid.read(0, 300, 200, 700, 600))
        assert pyramid.coarse(100)[0].max() > 0
        pyramid.close()
