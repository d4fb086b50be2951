"""The overview grows from a sketch, ends exact, is kept, and survives damage."""

from __future__ import annotations

import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from napari_histomil.resources import sidecar
from napari_histomil.slides import overview_source, overview_store, powers
from napari_histomil.slides.cache import TileCache
from napari_histomil.slides.loader import Loader
from napari_histomil.slides.pyramid import Pyramid
from napari_histomil.slides.readers import open_slide
from tests.slides.conftest import halves, picture, write_pyramid

SIZE = 2048, 1536


def tissue() -> np.ndarray:
    """White glass with a dark, textured square."""
    pixels = np.full((SIZE[1], SIZE[0], 3), 250, np.uint8)
    pixels[512:1024, 512:1280] = picture(768, 512) // 2
    return pixels


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A slide of one level that counts as one that takes long."""
    monkeypatch.setattr(overview_source, "LONG_PX", 1 << 20)
    monkeypatch.setattr(powers, "OVERVIEW_PX", 1 << 16)
    monkeypatch.setattr(powers, "SMALL_PX", 1 << 10)
    return write_pyramid(tmp_path / "one.tif", [tissue()], compression="zlib")


def made(slide) -> Pyramid:
    return Pyramid(slide, TileCache(), loader=Loader(2))


def test_it_ends_as_the_means_of_the_slide(path: Path):
    with open_slide(path) as slide:
        pixels, final = made(slide).paint(3, 0, 0, 256, 192)
        levels = made(slide)
        levels.overview.finish()
        assert levels.overview.first == 3
        assert levels.overview.share == 1
        for index, expected in enumerate(halves(tissue(), 4)):
            if index >= 3:
                found, final = levels.paint(index, 0, 0, *levels.size(index))
                assert final
                assert np.abs(found.astype(int) - expected).max() <= 3
    assert pixels.shape == (192, 256, 3)


def test_a_slide_that_is_closed_while_it_is_gone_through_says_nothing(path, monkeypatch, caplog):
    slide = open_slide(path)
    levels = made(slide)
    real, reached, go = slide.tile, threading.Event(), threading.Event()

    def tile(*place, **options):
        reached.set()
        assert go.wait(20)
        return real(*place, **options)

    monkeypatch.setattr(slide, "tile", tile)
    levels.overview.start(levels.loader)
    assert reached.wait(20)
    levels.close()
    slide.close()
    go.set()
    end = time.monotonic() + 10
    while levels.overview._making and time.monotonic() < end:
        time.sleep(0.01)
    assert not levels.overview._making
    time.sleep(0.1)
    assert not caplog.records
    assert levels.trouble is None


def test_a_sketch_tells_tissue_from_glass(path: Path):
    with open_slide(path) as slide:
        small = overview_source.sketch(made(slide))
    assert small is not None
    height, width, _ = small.shape
    grey = small.mean(axis=2)
    inside = grey[int(0.42 * height) : int(0.58 * height), int(0.32 * width) : int(0.55 * width)]
    assert inside.mean() < 150
    assert grey[: int(0.2 * height)].mean() > 220


def test_a_sketch_without_bytes_is_made_of_places(path: Path, monkeypatch: pytest.MonkeyPatch):
    with open_slide(path) as slide:
        monkeypatch.setattr(slide, "tile_bytes", lambda level: None)
        small = overview_source.sketch(made(slide))
    assert small is not None
    height, width, _ = small.shape
    assert small[height // 2, int(0.45 * width)].mean() < 160
    assert small[1, 1].mean() > 220


def test_the_next_opening_decodes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch):
    with open_slide(path) as slide:
        first = made(slide)
        first.overview.finish()
        file = sidecar(path, slide.info.fingerprint) / overview_store.NAME
    assert file.is_file()
    with open_slide(path) as slide:
        monkeypatch.setattr(slide, "tile", None)
        again = made(slide)
        again.overview.finish()
        for one, two in zip(first.overview.levels, again.overview.levels, strict=True):
            np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "other slide"])
def test_a_kept_one_that_does_not_fit_is_made_anew(path: Path, damage: str):
    with open_slide(path) as slide:
        made(slide).overview.finish()
        info, size = slide.info, made(slide).size(3)
        file = sidecar(path, info.fingerprint) / overview_store.NAME
        assert overview_store.load(info, size) is not None
        data = file.read_bytes()
        if damage == "cut":
            file.write_bytes(data[: len(data) // 2])
        elif damage == "flipped":
            middle = len(data) // 2
            file.write_bytes(data[:middle] + bytes([data[middle] ^ 255]) + data[middle + 1 :])
        elif damage == "empty":
            file.write_bytes(b"")
        else:
            info = replace(info, fingerprint="f" * 64)
        assert overview_store.load(info, size) is None
        assert overview_store.load(slide.info, (size[0] + 8, size[1])) is None
        again = made(slide)
        again.overview.finish()
        assert again.overview.complete


def test_where_nothing_can_be_kept_it_is_shown_all_the_same(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog
):
    blocked = path.parent / "a file, no folder"
    blocked.touch()
    monkeypatch.setattr(overview_store, "sidecar", lambda *_: blocked / "one.tif.histomil")
    with open_slide(path) as slide:
        levels = made(slide)
        levels.overview.finish()
        assert levels.overview.complete
    assert "cannot be kept" in caplog.text


def test_what_is_in_view_comes_first(path: Path):
    with open_slide(path) as slide:
        overview = made(slide).overview
        wanted = []

        class Recorder:
            def want(self, client, jobs) -> None:
                wanted[:] = sorted(jobs, key=lambda job: job.rank)

        overview._begin()
        overview.start(Recorder())
        overview.look_at((200, 150, 256, 192))
        first = overview._source.blocks[wanted[0].key]
        assert first.x + first.width > 200
        assert first.y + first.height > 150


def test_moved_away_and_back_it_is_found(path: Path, tmp_path: Path):
    with open_slide(path) as slide:
        made(slide).overview.finish()
        info, size = slide.info, made(slide).size(3)
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    shutil.move(path, moved / path.name)
    shutil.move(sidecar(path, info.fingerprint), moved / f"{path.name}.histomil")
    with open_slide(moved / path.name) as slide:
        assert overview_store.load(slide.info, size) is not None
