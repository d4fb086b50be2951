from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from napari_histomil.errors import ModelError, SlideError
from napari_histomil.inference.tiles import TileReader
from napari_histomil.manifest import ModelManifest, load_manifest
from napari_histomil.slides.cache import shared_cache
from napari_histomil.slides.readers import open_slide
from napari_histomil.slides.slide import Slide, Uint8Image, read_tile
from napari_histomil.tiling import GridSpec, TileGrid


@pytest.fixture
def model(model_folder: Path) -> ModelManifest:
    return load_manifest(model_folder)


class Watched:
    """A slide that counts its reads and cannot read around some places."""

    def __init__(self, slide: Slide, broken_px0: tuple[int, int] | None = None) -> None:
        self._slide, self._broken = slide, broken_px0
        self.info = slide.info
        self.pixels = self.reads = 0

    def read_region(self, xy: tuple[int, int], level: int, size: tuple[int, int]) -> Uint8Image:
        if self._broken is not None:
            inside = [0 <= b - a < s for a, b, s in zip(xy, self._broken, size, strict=True)]
            if all(inside):
                raise SlideError("a piece of the file is missing.")
        self.reads += 1
        self.pixels += size[0] * size[1]
        return self._slide.read_region(xy, level, size)


@pytest.mark.parametrize(
    ("mpp", "tile_px", "stride_px"),
    [(0.5, 64, 64), (1.0, 32, 16), (1.0, 33, 16), (1.37, 40, 24), (0.8, 50, 50), (0.3, 40, 40)],
)
def test_tiles_of_a_region_are_tiles_read_alone(
    slide_path: Path, model: ModelManifest, mpp: float, tile_px: int, stride_px: int
) -> None:
    with open_slide(slide_path) as slide:
        grid = TileGrid.cover(slide.info, GridSpec(mpp, tile_px, stride_px))
        reader = TileReader(slide, grid, model)
        tiles = np.arange(64)
        out = np.empty((64, *reader.shape, 3), np.uint8)
        assert reader.read(tiles, out) == {}
        different = np.zeros(64)
        for tile, pixels in zip(tiles, out, strict=True):
            x, y = grid.tile_rects_px0[tile, :2]
            alone = read_tile(slide, (float(x), float(y)), tile_px, mpp).astype(int)
            # enlarging interpolates: alone, a tile does not know what lies beyond its edge
            inside = np.s_[3:-3, 3:-3] if mpp < 0.5 else np.s_[:, :]
            different[tile] = np.abs(pixels[inside] - alone[inside]).max()
        assert different.max() <= 1  # both are right to half a grey level


def test_neighbours_are_read_together(slide_path: Path, model: ModelManifest) -> None:
    with open_slide(slide_path) as slide:
        grid = TileGrid.cover(slide.info, GridSpec(1.0, 32, 16))
        watched = Watched(slide)
        reader = TileReader(watched, grid, model)  # type: ignore[arg-type]
        reader.read(np.arange(64), np.empty((64, 32, 32, 3), np.uint8))
        assert watched.reads == 1
        assert watched.pixels == pytest.approx((2 * (7 * 16 + 32)) ** 2, rel=0.02)


def test_stored_tiles_are_decoded_about_once_in_a_run(
    slide_path: Path, model: ModelManifest
) -> None:
    cache = shared_cache()
    cache.clear()
    with open_slide(slide_path) as slide:
        grid = TileGrid.cover(slide.info, GridSpec(1.0, 48, 16))
        reader = TileReader(slide, grid, model)
        before = cache.misses
        for tiles in grid.blocks():
            indices = np.arange(tiles.start, tiles.stop)
            reader.read(indices, np.empty((len(indices), *reader.shape, 3), np.uint8))
        level = slide.info.levels[0]
        stored = -(-level.width // level.tile_width) * -(-level.height // level.tile_height)
        assert stored > 4
        assert cache.misses - before <= 1.1 * stored


def test_tiles_far_apart_are_not(slide_path: Path, model: ModelManifest) -> None:
    with open_slide(slide_path) as slide:
        grid = TileGrid.cover(slide.info, GridSpec(1.0, 32, 32))
        watched = Watched(slide)
        reader = TileReader(watched, grid, model)  # type: ignore[arg-type]
        tiles = np.array([0, 1, len(grid) - 2, len(grid) - 1])
        reader.read(tiles, np.empty((4, 32, 32, 3), np.uint8))
        assert watched.pixels <= 4 * 66**2


def test_a_tile_that_cannot_be_read_is_found(slide_path: Path, model: ModelManifest) -> None:
    with open_slide(slide_path) as slide:
        grid = TileGrid.cover(slide.info, GridSpec(1.0, 32, 32))
        broken = int(np.flatnonzero((grid.cells == (2, 3)).all(axis=1))[0])
        watched = Watched(slide, broken_px0=(3 * 64 + 30, 2 * 64 + 30))
        reader = TileReader(watched, grid, model)  # type: ignore[arg-type]
        tiles, out = np.arange(64), np.zeros((64, 32, 32, 3), np.uint8)
        failed = reader.read(tiles, out)
        assert list(failed) == [int(np.flatnonzero(tiles == broken)[0])]
        message = str(failed[broken])
        assert slide_path.name in message
        assert "x = 192, y = 128 px (level-0), level 0: a piece of the file is missing." in message
        assert (out[broken] == 255).all()
        assert (out[np.arange(64) != broken] > 0).any(axis=(1, 2, 3)).all()


def test_outside_the_slide_is_white(slide_path: Path, model: ModelManifest) -> None:
    with open_slide(slide_path) as slide:
        grid = TileGrid.cover(slide.info, GridSpec(1.0, 96, 32))
        reader = TileReader(slide, grid, model)
        out = np.empty((1, 96, 96, 3), np.uint8)
        reader.read(np.array([0]), out)
        assert (out[0, :32] == 255).all()
        assert (out[0, :, :32] == 255).all()
        assert out[0, 32:, 32:].max() < 255


def test_a_stain_is_changed_tile_by_tile(slide_path: Path, model: ModelManifest) -> None:
    with open_slide(slide_path) as slide:
        grid = TileGrid.cover(slide.info, GridSpec(1.0, 32, 16))
        plain, inverted = (np.empty((16, 32, 32, 3), np.uint8) for _ in range(2))
        TileReader(slide, grid, model).read(np.arange(16), plain)
        TileReader(slide, grid, model, recolor=lambda pixels: 255 - pixels).read(
            np.arange(16), inverted
        )
        np.testing.assert_array_equal(inverted, 255 - plain)


@pytest.mark.parametrize(
    "transforms",
    [
        [{"name": "Normalize", "arguments": {"mean": [0.5] * 3, "std": [0.5] * 3}}],
        [{"name": "ToTensor"}, {"name": "Resize", "arguments": {"size": 8}}],
        [{"name": "Resize"}, {"name": "ToTensor"}],
        [{"name": "Resize", "arguments": {"size": "big"}}, {"name": "ToTensor"}],
    ],
)
def test_transforms_in_another_order_are_refused(
    slide_path: Path, model: ModelManifest, transforms: list[dict[str, object]]
) -> None:
    wsinfer = replace(model, read="level0", transforms=tuple(transforms))
    with open_slide(slide_path) as slide:
        grid = TileGrid.cover(slide.info, GridSpec(1.0, 32, 32))
        with pytest.raises(ModelError, match=r"transforms|Resize"):
            TileReader(slide, grid, wsinfer)
