"""A heatmap refined: a small net looks at it together with the slide from afar.

The net's input has four channels: red, green and blue of the slide at the refiner's µm/px, and the
heatmap's probability, 255 times, 0 where nobody looked. It is laid out here, for training too.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from napari_histomil.errors import RunError
from napari_histomil.inference.backends import prepare_net
from napari_histomil.inference.predictor import Predictor
from napari_histomil.inference.stitch import Stitcher, window
from napari_histomil.inference.tiles import TileReader
from napari_histomil.manifest import ModelManifest
from napari_histomil.manifest.chain import Look
from napari_histomil.results.bands import BAND_PX, Picture
from napari_histomil.slides.slide import Slide, Uint8Image
from napari_histomil.tiling import TileGrid, any_within

BATCH = 4
"""There are few tiles: the whole of a slide from afar."""

MOST_PX = 2**27
"""Pixels of a refined heatmap; it is in memory, a byte each."""


def heat_channel(
    heat: NDArray[np.float32],
    cell_px0: tuple[float, float],
    corner_px0: Sequence[float] | NDArray[np.float64],
    step_px0: tuple[float, float],
    shape: tuple[int, int],
) -> Uint8Image:
    """Return a part of a heatmap as a channel, uint8 [h, w]; a pixel is what its centre is.

    Parameters
    ----------
    heat
        float32 [rows, columns], probabilities of the cells that cover the slide from its corner.
    cell_px0, step_px0
        (width, height) of a cell and of a pixel of the channel.
    corner_px0
        (x, y) of the channel's first pixel; it may lie outside the slide, as may others.
    shape
        (h, w).
    """
    padded = np.pad(np.nan_to_num(heat), 1)
    y, x = (
        np.floor((corner_px0[axis] + (np.arange(count) + 0.5) * step_px0[axis]) / cell_px0[axis])
        for count, axis in zip(shape, (1, 0), strict=True)
    )
    rows = np.clip(y + 1, 0, padded.shape[0] - 1).astype(int)
    columns = np.clip(x + 1, 0, padded.shape[1] - 1).astype(int)
    channel: Uint8Image = np.rint(padded[rows[:, None], columns] * 255).astype(np.uint8)
    return channel


def likely_after_refining(
    model: ModelManifest,
    look: Look,
    slide: Slide,
    region: TileGrid,
    heat: NDArray[np.float32],
    cell_px0: tuple[float, float],
    *,
    threshold: float,
    device: torch.device,
    on_error: Literal["raise", "skip"],
    cancel: threading.Event,
) -> tuple[NDArray[np.bool_], tuple[float, float]] | None:
    """Return where a refiner finds its class likely.

    Parameters
    ----------
    model, look
        The refiner, and how the chain uses it.
    slide
        The slide.
    region
        Wherever this grid has cells, the refiner looks.
    heat, cell_px0
        See `heat_channel`.
    threshold
        Least probability.
    device, on_error, cancel
        As of `engine.run`; a tile that cannot be read counts as likely with ``skip``.

    Returns
    -------
    bool [rows, columns] over the whole slide, and (width, height) of one of its pixels in level-0
    px; None if it was cancelled.

    Raises
    ------
    RunError
        If the refiner looks from too near for its picture to fit into memory, or gives no number.
    TileError
        If a tile cannot be read.
    """
    everywhere = TileGrid.cover(slide.info, look.grid)
    asked = np.zeros(region.shape, bool)
    asked[tuple(region.cells.T)] = True
    keep = any_within(asked, region.cell_size_px0, everywhere.cell_rects_px0)
    picture = Picture(everywhere.select(keep))
    if picture.shape[0] * picture.shape[1] > MOST_PX:
        raise RunError(
            f"{model.name} refines heatmaps at {look.grid.mpp:g} µm/px, which is too near for a "
            f"slide as large as {slide.info.path.name}: make the chain with a coarser one."
        )
    spec, column = picture.grid.spec, model.class_names.index(look.class_name)
    reader = TileReader(slide, picture.grid, model)
    net = Predictor(prepare_net(model, reader.shape, device), model, BATCH)
    rects = picture.grid.tile_rects_px0
    likely = np.zeros(picture.shape, bool)

    def probabilities(tiles: NDArray[np.int64]) -> NDArray[np.float32]:
        pixels = np.empty((len(tiles), *reader.shape, 4), np.uint8)
        image = np.empty((len(tiles), *reader.shape, 3), np.uint8)
        failed = reader.read(tiles, image)
        if failed and on_error == "raise":
            raise failed[min(failed)]
        pixels[..., :3] = image
        for place, tile in enumerate(tiles):
            pixels[place, ..., 3] = heat_channel(
                heat, cell_px0, rects[tile, :2], picture.pixel_px0, reader.shape
            )
        answers = net.scores(pixels)[:, column : column + 1]  # (n, 1, i, i)
        if not np.isfinite(answers).all():
            raise RunError(f"{model.name} gives an answer that is not a number: it is broken.")
        answers[list(failed)] = 1
        return answers

    weights = window(spec.inner_px, spec.stride_px)
    for stretch in picture.stretches(np.zeros(len(picture.bands), bool)):
        stitcher = Stitcher(stretch.rows, stretch.columns, 1, weights, BAND_PX)

        def keep_rows(
            stop: int, stitcher: Stitcher = stitcher, columns: slice = stretch.columns
        ) -> None:
            top, stop = stitcher.top, max(stitcher.top, stop)
            likely[top:stop, columns] = stitcher.take(stop)[0] >= threshold

        for row in picture.rows_of_tiles(stretch):
            keep_rows(picture.corner(row.start)[0])
            for start in range(row.start, row.stop, BATCH):
                if cancel.is_set():
                    return None
                tiles = np.arange(start, min(start + BATCH, row.stop))
                for tile, answer in zip(tiles, probabilities(tiles), strict=True):
                    stitcher.add(picture.corner(int(tile)), answer)
        keep_rows(stretch.rows.stop)
    return likely, picture.pixel_px0
