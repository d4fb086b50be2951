"""Where the pixels of a slide's overview come from: block by block, each stored tile once.

Where filling takes seconds (a slide of one level), a sketch is made first, and what was made is
kept beside the slide (`overview_store.py`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_histomil.errors import HistomilError
from napari_histomil.slides import overview_store
from napari_histomil.slides.overview import Block, Source
from napari_histomil.slides.pieces import damaged, halved_tiles, halves_exactly
from napari_histomil.slides.slide import Uint8Image
from napari_histomil.slides.tiles import MAX_HALVINGS, TiledSlide

if TYPE_CHECKING:
    from napari_histomil.slides.pyramid import Pyramid

LONG_PX = 1 << 26
"""An overview made of more stored pixels than this is sketched first, and kept on disk."""

BLOCK_TILES = 8
"""Rows and columns of tiles in a block, before those that are decoded smaller than 1/4."""

SAMPLE_GRID = 16
"""Rows and columns of places that a sketch looks at, at most."""

SAMPLE_PX = 64
SAMPLE_S = 0.12
"""A sketch takes about so long, however slow its tiles are."""

ASPECT_TOLERANCE = 0.03


def overview_source(pyramid: Pyramid, first: int) -> Source:
    """Return the source of the levels ``first`` and coarser of a pyramid."""
    own = [k for k in range(first, pyramid.count) if k == first or pyramid.source(k) == k]
    blocks = [block for index in own for block in _blocks(pyramid, index)]
    read_px = math.prod(pyramid.inside(pyramid.source(first)))
    if read_px <= LONG_PX:
        return Source(blocks, lambda block: _make(pyramid, block))
    info, size = pyramid.slide.info, pyramid.size(first)
    return Source(
        blocks,
        lambda block: _make(pyramid, block),
        sketch=lambda: sketch(pyramid),
        load=lambda: overview_store.load(info, size),
        save=lambda pixels: None if pyramid.trouble else overview_store.save(info, pixels),
    )


def _tiles_of(pyramid: Pyramid, index: int) -> tuple[TiledSlide, int, int] | None:
    """Return (slide, stored level, halvings) where a level is made of stored tiles."""
    source = pyramid.source(index)
    stored = pyramid.stored(source)
    if source == index or stored is None or not isinstance(pyramid.slide, TiledSlide):
        return None
    if not halves_exactly(pyramid.slide.info.levels[stored], index - source):
        return None
    return pyramid.slide, stored, index - source


def _block_tiles(halvings: int) -> int:
    return BLOCK_TILES << max(halvings - 2, 0)


def _blocks(pyramid: Pyramid, index: int) -> Iterator[Block]:
    width, height = pyramid.inside(index)
    tiles = _tiles_of(pyramid, index)
    stored_bytes: NDArray[np.int64] | None = None
    if tiles is not None:
        slide, stored, halvings = tiles
        level, count = slide.info.levels[stored], _block_tiles(halvings)
        step_x = level.tile_width * count >> halvings
        step_y = level.tile_height * count >> halvings
        stored_bytes = slide.tile_bytes(stored)
    else:
        step_x = step_y = pyramid.exact.block_px(index)
    for row, y in enumerate(range(0, height, step_y)):
        for column, x in enumerate(range(0, width, step_x)):
            weight = 0.0
            if stored_bytes is not None:
                part = stored_bytes[
                    row * count : (row + 1) * count, column * count : (column + 1) * count
                ]
                weight = float(part.mean()) if part.size else 0.0
            yield Block(index, x, y, min(step_x, width - x), min(step_y, height - y), weight)


def _make(pyramid: Pyramid, block: Block) -> Uint8Image:
    tiles = _tiles_of(pyramid, block.index)
    if tiles is not None:
        slide, stored, halvings = tiles
        level, count = slide.info.levels[stored], _block_tiles(halvings)
        first = (
            (block.y << halvings) // level.tile_height,
            (block.x << halvings) // level.tile_width,
        )
        return halved_tiles(
            slide,
            stored,
            halvings,
            first,
            (count, count),
            (block.width, block.height),
            lambda _row, _column, error: pyramid.report(error),
        )
    try:
        return pyramid.exact.uncached(block.index, block.x, block.y, block.width, block.height)
    except HistomilError as error:
        pyramid.report(error)
        return damaged(block.width, block.height)


# --- a first idea of the slide ---


def sketch(pyramid: Pyramid) -> Uint8Image | None:
    """Return a small picture of the whole slide, made in a moment, or None.

    The file's own thumbnail if it has one. Else a few places are looked at; where the file says
    how many bytes its tiles take, each tile gets the colour of the places with as many bytes:
    glass takes few, tissue many.
    """
    slide = pyramid.slide
    thumbnail = _thumbnail(pyramid)
    if thumbnail is not None:
        return thumbnail
    stored = pyramid.stored(pyramid.source(pyramid.overview.first))
    stored_bytes = (
        slide.tile_bytes(stored) if isinstance(slide, TiledSlide) and stored is not None else None
    )
    if stored_bytes is None or stored is None or stored_bytes.size < SAMPLE_GRID:
        rows = columns = SAMPLE_GRID
        shape = rows, columns
    else:
        shape = stored_bytes.shape[0], stored_bytes.shape[1]
    places, colours = _sample(pyramid, stored, shape)
    if not len(places):
        return None
    if stored_bytes is not None and stored_bytes.shape == shape:
        picture = _by_bytes(stored_bytes, places, colours)
    else:
        picture = _nearest(shape, places, colours)
    picture[places[:, 0], places[:, 1]] = colours
    return np.clip(picture + 0.5, 0, 255).astype(np.uint8)


def _thumbnail(pyramid: Pyramid) -> Uint8Image | None:
    slide = pyramid.slide
    if "thumbnail" not in slide.info.associated_images:
        return None
    try:
        picture = slide.read_associated("thumbnail")
    except HistomilError:
        return None  # the slide itself may be sound
    aspect = slide.info.width_px0 / slide.info.height_px0
    found = picture.shape[1] / picture.shape[0]
    return picture if abs(found / aspect - 1) <= ASPECT_TOLERANCE else None


def _sample(
    pyramid: Pyramid, stored: int | None, shape: tuple[int, int]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return (row, column) [n, 2] of places in a grid and their mean colours [n, 3]."""
    slide, info = pyramid.slide, pyramid.slide.info
    rows, columns = (
        np.unique(np.linspace(0, side - 1, min(side, SAMPLE_GRID)).round().astype(int))
        for side in shape
    )
    grid = np.stack(np.meshgrid(rows, columns, indexing="ij"), -1).reshape(-1, 2)
    order = np.random.default_rng(0).permutation(len(grid))  # spread evenly at any time
    end = time.monotonic() + SAMPLE_S
    places: list[tuple[int, int]] = []
    colours: list[NDArray[np.float64]] = []
    for row, column in grid[order]:
        if time.monotonic() > end and len(places) >= 4:
            break
        try:
            if isinstance(slide, TiledSlide) and stored is not None and shape[0] > SAMPLE_GRID:
                pixels = slide.tile(
                    stored, int(row), int(column), halvings=MAX_HALVINGS, keep=False
                )
            else:
                x = int((column + 0.5) / shape[1] * info.width_px0) - SAMPLE_PX // 2
                y = int((row + 0.5) / shape[0] * info.height_px0) - SAMPLE_PX // 2
                pixels = slide.read_region((x, y), 0, (SAMPLE_PX, SAMPLE_PX))
        except HistomilError:
            continue  # the overview itself will say it
        places.append((row, column))
        colours.append(pixels.reshape(-1, 3).mean(axis=0))
    return np.array(places, np.int64).reshape(-1, 2), np.array(colours).reshape(-1, 3)


def _by_bytes(
    stored_bytes: NDArray[np.int64], places: NDArray[np.int64], colours: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return [rows, columns, 3]: the colour of tiles by the bytes they take."""
    taken = stored_bytes[places[:, 0], places[:, 1]]
    order = np.argsort(taken, kind="stable")
    parts = np.array_split(order, min(len(order), 16))
    known = np.array([taken[part].mean() for part in parts])
    means = np.array([colours[part].mean(axis=0) for part in parts])
    channels = [np.interp(stored_bytes, known, means[:, channel]) for channel in range(3)]
    return np.stack(channels, -1)


def _nearest(
    shape: tuple[int, int], places: NDArray[np.int64], colours: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return [rows, columns, 3]: the colour of the nearest place looked at."""
    cells = np.indices(shape).transpose(1, 2, 0).reshape(-1, 1, 2)
    distance = ((cells - places[None]) ** 2).sum(axis=2)
    picture: NDArray[np.float64] = colours[distance.argmin(axis=1)].reshape(*shape, 3)
    return picture
