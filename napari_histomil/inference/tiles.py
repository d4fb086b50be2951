"""Pixels of many tiles at once, as a model wants them: uint8, before they cross to the device.

Neighbouring tiles are read as one region and cut out of it: they share what the slide stores
together, and tiles with context overlap. A tile is the same pixels either way: its corner lies a
whole number of pixels (at the grid's µm/px) from the region's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from napari_histomil.errors import ModelError, SlideError, TileError
from napari_histomil.geometry import choose_level
from napari_histomil.manifest import ModelManifest
from napari_histomil.slides.slide import Slide, Uint8Image, read_rect
from napari_histomil.slides.tiles import TiledSlide
from napari_histomil.tiling import TileGrid

Indices = NDArray[np.int64]

MAX_REGION_PX = 2**23
"""Pixels, of the level that is read, of one region: 24 MB, however coarse the grid is."""


class TileReader:
    """Reads tiles of one slide for one model. `read` may be called from several threads.

    Parameters
    ----------
    slide, grid
        What is read. The slide is told that it is gone through.
    model
        How: ``model.read`` and ``model.transforms``.
    recolor
        Applied to each tile's pixels (stain normalisation), uint8 -> uint8; None for nothing.
    """

    def __init__(
        self,
        slide: Slide,
        grid: TileGrid,
        model: ModelManifest,
        *,
        recolor: Callable[[Uint8Image], Uint8Image] | None = None,
    ) -> None:
        self._slide = slide
        if isinstance(slide, TiledSlide):
            slide.expect_walk()
        self._grid = grid
        self._recolor = recolor
        self._rects = grid.tile_rects_px0
        spec, (mpp_x, mpp_y) = grid.spec, grid.slide_mpp
        self._level = choose_level(slide.info.downsamples, spec.mpp / min(mpp_x, mpp_y))
        self._resize: Callable[[Image.Image], Image.Image] | None = None
        if model.read == "level0":
            self._level = 0
            self._size = (
                max(round(spec.tile_px * spec.mpp / mpp_x), 1),
                max(round(spec.tile_px * spec.mpp / mpp_y), 1),
            )
            self._corners = np.rint(self._rects[:, :2]).astype(np.int64)  # px0, [N, 2]
            self._px0 = (1.0, 1.0)
            self._resize = _resize_of(model)
        else:
            self._size = (spec.tile_px, spec.tile_px)
            self._corners = grid.cells[:, ::-1].astype(np.int64) * spec.stride_px  # px at mpp
            self._px0 = (spec.mpp / mpp_x, spec.mpp / mpp_y)
        downsample = slide.info.downsamples[self._level]
        self._source_px = self._px0[0] * self._px0[1] / downsample**2

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of a tile as the model gets it."""
        if self._resize is None:
            return self._size[1], self._size[0]
        width, height = self._resize(Image.new("RGB", self._size)).size
        return height, width

    def read(
        self, tiles: Indices, out: Uint8Image, check: Callable[[], None] = lambda: None
    ) -> dict[int, TileError]:
        """Read the tiles with these indices into `out`.

        Parameters
        ----------
        tiles
            int64 [n], neighbours best.
        out
            uint8 [n, height, width, 3], written to.
        check
            Called before every region that is read; raises to stop.

        Returns
        -------
        dict
            Position in `tiles` -> why it could not be read; its pixels are white.
        """
        failed: dict[int, TileError] = {}
        self._read_some(tiles, np.arange(len(tiles)), out, failed, check)
        return failed

    def error(self, tile: int, problem: object) -> TileError:
        """Return an error that says which tile of which slide."""
        x, y = self._rects[tile, :2]
        return TileError(
            f"{self._slide.info.path.name}: the tile at x = {x:.0f}, y = {y:.0f} px (level-0), "
            f"level {self._level}: {str(problem).rstrip('.')}."
        )

    def _read_some(
        self,
        tiles: Indices,
        places: Indices,
        out: Uint8Image,
        failed: dict[int, TileError],
        check: Callable[[], None],
    ) -> None:
        """Read tiles as one region, or in halves where a region would read more than they hold."""
        corners = self._corners[tiles[places]]
        low = corners.min(axis=0)
        width, height = (int(v) for v in corners.max(axis=0) - low + self._size)
        alone = len(places) == 1
        worth = width * height <= len(places) * self._size[0] * self._size[1]
        if not alone and (not worth or width * height * self._source_px > MAX_REGION_PX):
            half = len(places) // 2
            self._read_some(tiles, places[:half], out, failed, check)
            self._read_some(tiles, places[half:], out, failed, check)
            return
        check()
        first = tiles[places[0]]
        try:
            region = self._read_region(int(first), low - corners[0], (width, height))
        except SlideError as error:
            if not alone:  # find out which tile it is
                for place in places:
                    self._read_some(tiles, np.array([place]), out, failed, check)
                return
            failed[int(places[0])] = self.error(int(first), error)
            out[places[0]] = 255
            return
        for place, (x, y) in zip(places, corners - low, strict=True):
            pixels = region[y : y + self._size[1], x : x + self._size[0]]
            if self._resize is not None:
                pixels = np.asarray(self._resize(Image.fromarray(pixels)))
            out[place] = pixels if self._recolor is None else self._recolor(pixels)

    def _read_region(
        self, tile: int, offset_px: NDArray[np.int64], size: tuple[int, int]
    ) -> Uint8Image:
        """Read (width, height) px from the corner of `tile`, moved by `offset_px`."""
        if self._resize is not None:
            x, y = (int(v) for v in self._corners[tile] + offset_px)
            return self._slide.read_region((x, y), 0, size)
        x0, y0 = self._rects[tile, :2] + offset_px * self._px0
        size_px0 = size[0] * self._px0[0], size[1] * self._px0[1]
        return read_rect(self._slide, (float(x0), float(y0)), size_px0, size)


def _resize_of(model: ModelManifest) -> Callable[[Image.Image], Image.Image]:
    """Return what WSInfer's transforms do to the picture before it becomes a tensor."""
    names = [str(t["name"]) for t in model.transforms]
    before = names.index("ToTensor") if "ToTensor" in names else len(names)
    if names[before:] not in (["ToTensor"], ["ToTensor", "Normalize"]) or (
        set(names[:before]) - {"Resize"}
    ):
        raise ModelError(
            f"{model.path}: the transforms {names} are not supported: Resize, ToTensor and "
            f"Normalize must come in this order."
        )
    return _compose(model, model.transforms[:before])


def _compose(
    model: ModelManifest, transforms: Sequence[Mapping[str, Any]]
) -> Callable[[Image.Image], Image.Image]:
    from torchvision.transforms import Compose, Resize

    try:
        steps: Callable[[Image.Image], Image.Image] = Compose(
            [Resize(**t.get("arguments", {})) for t in transforms]
        )
        steps(Image.new("RGB", (8, 8)))
    except (TypeError, ValueError) as error:
        raise ModelError(f"{model.path}: Resize cannot be done as stated: {error}.") from error
    return steps
