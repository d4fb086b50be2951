"""A shown slide is painted without waiting: coarse, then complete, on napari's real canvas."""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image
from napari.settings import get_settings

from napari_histomil.errors import SlideError
from napari_histomil.slides import overview_source
from napari_histomil.slides.cache import shared_cache
from napari_histomil.slides.readers import open_slide
from napari_histomil.ui.camera import go_to_px0, set_native
from napari_histomil.ui.layers import pyramid_of, slide_layer
from napari_histomil.ui.painting import LOADING, complete, follow, painting
from napari_histomil.ui.session import session


@pytest.fixture(autouse=True)
def _empty_cache() -> None:
    shared_cache().clear()


@pytest.fixture
def textured():
    return np.random.default_rng(1).integers(0, 256, (2400, 3200, 3), np.uint8)


@pytest.fixture
def shown(make_napari_viewer, write_slide, textured):
    """A window with a slide in it."""
    viewer = make_napari_viewer(show=True)
    opened = session(viewer).open_slide(write_slide(textured))
    return viewer, opened


def canvas(viewer) -> np.ndarray:
    return viewer.screenshot(canvas_only=True, flash=False)[..., :3]


def open_files(path: Path) -> int:
    """Return how often a file is open in this process; 0 where the system does not say."""
    found = Path("/proc/self/fd").glob("*") if sys.platform == "linux" else ()
    return sum(os.path.realpath(each) == str(path.resolve()) for each in found)


class Slow:
    """Lets a slide's tiles come only when it is told."""

    def __init__(self, slide, monkeypatch) -> None:
        self.go = threading.Event()
        real = slide.tile

        def tile(*place, **options):
            assert self.go.wait(20)
            return real(*place, **options)

        monkeypatch.setattr(slide, "tile", tile)


def test_the_view_is_there_at_once_and_complete_soon(shown, monkeypatch):
    viewer, opened = shown
    painted = painting(opened.layer)
    assert painted.wait(10)
    slow = Slow(opened.slide, monkeypatch)
    set_native(viewer, opened.info)
    go_to_px0(viewer, opened.info, (1700, 1300))
    coarse = canvas(viewer)
    assert not painted.complete, "it did not wait for the tiles"
    assert coarse.min() < coarse.max(), "a coarser level is seen"
    told = []
    painted.changed.connect(lambda: told.append(threading.current_thread()))
    slow.go.set()
    assert painted.wait(10)
    assert set(told) == {threading.main_thread()}
    fine = canvas(viewer)
    assert fine.astype(int).std() > 1.3 * coarse.astype(int).std(), "noise, not its means"


def test_others_get_exact_pixels_of_a_painted_layer(shown, textured):
    _, opened = shown
    np.testing.assert_array_equal(
        opened.layer.data[0][100:300, 200:500], textured[100:300, 200:500]
    )


def test_a_hidden_layer_wants_nothing(shown, monkeypatch):
    viewer, opened = shown
    assert complete(viewer, 10)
    Slow(opened.slide, monkeypatch).go.set()
    opened.layer.visible = False
    assert painting(opened.layer).complete
    misses = shared_cache().misses
    set_native(viewer, opened.info)
    canvas(viewer)
    time.sleep(0.1)
    assert shared_cache().misses == misses
    opened.layer.visible = True
    assert painting(opened.layer).wait(10)
    assert shared_cache().misses > misses


@pytest.mark.parametrize("loading", [False, True])
def test_a_removed_slide_leaves_nothing_behind(shown, monkeypatch, loading):
    viewer, opened = shown
    assert complete(viewer, 10)
    slow = Slow(opened.slide, monkeypatch)
    set_native(viewer, opened.info)
    if not loading:
        slow.go.set()
        assert complete(viewer, 10)
        assert shared_cache().used_bytes > 0
    else:
        canvas(viewer)
    painted, layer = painting(opened.layer), opened.layer
    assert open_files(opened.info.path) > 0 or sys.platform != "linux"
    viewer.layers.clear()
    slow.go.set()
    assert painting(layer) is None
    assert painted.complete, "nothing more is to come"
    end = time.monotonic() + 10
    while (
        shared_cache().used_bytes
        or open_files(opened.info.path)
        or any(thread.name == "slide loader" for thread in threading.enumerate())
    ):
        assert time.monotonic() < end, "pixels or threads stay"
        time.sleep(0.01)


def test_a_copy_of_the_layer_is_painted_by_itself(shown):
    viewer, opened = shown
    data, state, _ = opened.layer.as_layer_data_tuple()
    copy = viewer.add_layer(Image(data, **{**state, "name": "copy"}))
    assert painting(copy) not in (None, painting(opened.layer))
    assert pyramid_of(copy) is pyramid_of(opened.layer)
    assert complete(viewer, 10)


def test_a_second_viewer_follows_too(shown):
    viewer, opened = shown
    second = ViewerModel()
    data, state, _ = opened.layer.as_layer_data_tuple()
    copy = second.add_layer(Image(data, **state))
    painted = follow(second, copy)
    assert painted is follow(second, copy) is painting(copy)
    assert painting(opened.layer) is not painted
    second.layers.clear()
    assert painting(copy) is None
    assert complete(viewer, 10), "the first goes on"


def test_naparis_asynchronous_slicing_works_too(shown, qtbot):
    viewer, opened = shown
    settings = get_settings().experimental
    settings.async_ = True
    try:
        set_native(viewer, opened.info)
        go_to_px0(viewer, opened.info, (900, 800))
        # A thread asks for the pixels: until it has, what was asked for before is complete.
        noise = 45  # more than a coarser level has
        qtbot.waitUntil(lambda: canvas(viewer).astype(int).std() > noise, timeout=20_000)
        assert painting(opened.layer).wait(10)
    finally:
        settings.async_ = False


def test_brightness_is_for_the_eye_only(shown, textured):
    viewer, opened = shown
    painted = painting(opened.layer)
    assert painted.wait(10)
    before = canvas(viewer).astype(float).mean()
    painted.set_lut((np.arange(256) // 4).astype(np.uint8))
    assert canvas(viewer).astype(float).mean() < before - 20
    np.testing.assert_array_equal(opened.layer.data[0][:50, :50], textured[:50, :50])
    with pytest.raises(ValueError, match="256 values"):
        painted.set_lut(np.zeros(3, np.uint8))


def test_a_long_overview_is_marked_while_it_fills(
    make_napari_viewer, write_slide, textured, monkeypatch
):
    monkeypatch.setattr(overview_source, "LONG_PX", 1 << 20)
    viewer = make_napari_viewer(show=True)
    slide = open_slide(write_slide(textured))
    slow = Slow(slide, monkeypatch)
    opened = session(viewer).add_slide(slide_layer(slide))
    canvas(viewer)
    painted = painting(opened.layer)
    assert not painted.complete
    mark = viewer.canvas.overlays[LOADING]
    assert mark.visible
    assert mark.text == "loading 0%"
    before = opened.layer.thumbnail.copy()
    slow.go.set()
    assert painted.wait(20)
    assert not mark.visible
    assert (opened.layer.thumbnail != before).any(), "napari's thumbnail is renewed"


def test_damage_is_said_once_in_a_sentence(make_napari_viewer, write_slide, monkeypatch):
    said = []
    monkeypatch.setattr("napari_histomil.ui.painting.show_error", said.append)
    pixels = np.random.default_rng(2).integers(0, 256, (1200, 1600, 3), np.uint8)
    path = write_slide(pixels)
    size = path.stat().st_size
    viewer = make_napari_viewer(show=True)
    slide = open_slide(path)
    real = slide.tile
    broken = {(0, 1, 1), (0, 2, 2)}

    def tile(level, row, column, **options):
        if (level, row, column) in broken:
            raise damage
        return real(level, row, column, **options)

    damage = SlideError("slide.tiff cannot be decoded at (256, 256) of level 0.")
    monkeypatch.setattr(slide, "tile", tile)
    opened = session(viewer).add_slide(slide_layer(slide))
    assert complete(viewer, 10)
    set_native(viewer, opened.info)
    go_to_px0(viewer, opened.info, (500, 500))
    assert complete(viewer, 10)
    assert len(said) == 1
    assert said[0].startswith(str(damage))
    assert path.stat().st_size == size


def test_a_viewer_dies_with_its_paintings(array_slide, checkered):
    viewer = ViewerModel()
    layer = session(viewer).add_slide(slide_layer(array_slide(checkered))).layer
    found = painting(layer)
    assert found is not None
    del viewer, layer
    gc.collect()
    assert found.complete, "it waits for nobody"
