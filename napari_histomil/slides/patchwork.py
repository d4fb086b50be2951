"""Puts a rectangle of a level together from what is in memory.

Pieces that are there are copied. The places of missing ones are filled from the next coarser
level that has any of them, else from the overview, which always has something.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from napari_histomil.slides.pieces import Pieces
from napari_histomil.slides.slide import Uint8Image

if TYPE_CHECKING:
    from napari_histomil.slides.pyramid import Pyramid

Key = tuple[int, int, int]
"""(level, row, column) of a piece."""

Find = Callable[[Key], Uint8Image | None]
"""Returns a piece if it is in memory; never waits."""


def find_pieces(
    pyramid: Pyramid, find: Find, index: int, x: int, y: int, width: int, height: int
) -> tuple[dict[Key, Uint8Image], list[Key]]:
    """Return the pieces of a rectangle of a level that are in memory, and which are missing.

    Parameters
    ----------
    pyramid, find
        The levels, and where their pieces are looked for.
    index, x, y, width, height
        The level, not one that is kept in memory as a whole, and the rectangle in its pixels.
    """
    rows, columns = pyramid.pieces[index].span(x, y, width, height)
    found: dict[Key, Uint8Image] = {}
    missing: list[Key] = []
    for row in rows:
        for column in columns:
            key = index, row, column
            piece = find(key)
            if piece is None:
                missing.append(key)
            else:
                found[key] = piece
    return found, missing


def assemble(
    pyramid: Pyramid,
    find: Find,
    out: Uint8Image,
    index: int,
    x: int,
    y: int,
    found: dict[Key, Uint8Image],
    missing: list[Key],
) -> None:
    """Fill `out`, a rectangle of a level, from what `find_pieces` says of it; never waits.

    Parameters
    ----------
    pyramid, find
        The levels, and where pieces of coarser ones are looked for.
    out
        uint8 [height, width, 3], filled.
    index, x, y
        The level, and the rectangle's corner in its pixels.
    found, missing
        The pieces in it.
    """
    height, width = out.shape[:2]
    pieces = pyramid.pieces[index]
    inside = pyramid.inside(index)
    if x + width > inside[0] or y + height > inside[1]:
        out[max(inside[1] - y, 0) :] = 255
        out[:, max(inside[0] - x, 0) :] = 255
    for (_, row, column), piece in found.items():
        _copy(piece, column * pieces.width, row * pieces.height, out, x, y)
    if missing:
        _fill_gaps(pyramid, find, out, index, x, y, missing)


def _fill_gaps(
    pyramid: Pyramid,
    find: Find,
    out: Uint8Image,
    index: int,
    x: int,
    y: int,
    missing: list[Key],
) -> None:
    """Fill the places of missing pieces from the next coarser level that has any of them."""
    pieces = pyramid.pieces[index]
    height, width = out.shape[:2]
    inside_x, inside_y = pyramid.inside(index)
    x0 = max(min(key[2] for key in missing) * pieces.width, x)
    y0 = max(min(key[1] for key in missing) * pieces.height, y)
    x1 = min((max(key[2] for key in missing) + 1) * pieces.width, x + width, inside_x)
    y1 = min((max(key[1] for key in missing) + 1) * pieces.height, y + height, inside_y)
    coarser = index + 1
    while coarser < pyramid.overview.first and not _has_any(
        pyramid, find, coarser, x0, y0, x1, y1, coarser - index
    ):
        coarser += 1
    step = coarser - index
    cx0, cy0, cx1, cy1 = x0 >> step, y0 >> step, -(-x1 >> step), -(-y1 >> step)
    if coarser >= pyramid.overview.first:
        base, _ = pyramid.overview.part(coarser, cx0, cy0, cx1 - cx0, cy1 - cy0)
    else:
        base = np.empty((cy1 - cy0, cx1 - cx0, 3), np.uint8)
        there = find_pieces(pyramid, find, coarser, cx0, cy0, cx1 - cx0, cy1 - cy0)
        assemble(pyramid, find, base, coarser, cx0, cy0, *there)
    factor = 1 << step
    if len(missing) * pieces.width * pieces.height >= (x1 - x0) * (y1 - y0) / 2:
        whole = enlarged(base, factor)
        if not _overlaps(x0, y0, x1, y1, pieces, missing):
            out[y0 - y : y1 - y, x0 - x : x1 - x] = whole[
                y0 - (cy0 << step) : y1 - (cy0 << step),
                x0 - (cx0 << step) : x1 - (cx0 << step),
            ]
            return
        for _, row, column in missing:
            left, top = max(column * pieces.width, x0), max(row * pieces.height, y0)
            part = whole[
                top - (cy0 << step) : (row + 1) * pieces.height - (cy0 << step),
                left - (cx0 << step) : (column + 1) * pieces.width - (cx0 << step),
            ]
            _copy(part, left, top, out, x, y)
        return
    for _, row, column in missing:
        left, top = max(column * pieces.width, x0), max(row * pieces.height, y0)
        right = min((column + 1) * pieces.width, x1)
        bottom = min((row + 1) * pieces.height, y1)
        bx, by = left >> step, top >> step
        part = enlarged(
            base[by - cy0 : -(-bottom >> step) - cy0, bx - cx0 : -(-right >> step) - cx0],
            factor,
        )
        _copy(part[top - (by << step) :, left - (bx << step) :], left, top, out, x, y)


def _overlaps(x0: int, y0: int, x1: int, y1: int, pieces: Pieces, missing: list[Key]) -> bool:
    """Say whether some piece of the area is not missing."""
    rows, columns = pieces.span(x0, y0, x1 - x0, y1 - y0)
    return len(missing) < len(rows) * len(columns)


def _has_any(
    pyramid: Pyramid, find: Find, index: int, x0: int, y0: int, x1: int, y1: int, step: int
) -> bool:
    pieces = pyramid.pieces[index]
    rows, columns = pieces.span(
        x0 >> step, y0 >> step, max(x1 - x0 >> step, 1), max(y1 - y0 >> step, 1)
    )
    return any(find((index, row, column)) is not None for row in rows for column in columns)


def enlarged(pixels: Uint8Image, factor: int) -> Uint8Image:
    """Return a picture with each pixel `factor` times as wide and high; quick, not pretty."""
    height, width = pixels.shape[:2]
    wide = np.empty((height, width, factor, 3), np.uint8)
    for channel in range(3):  # long inner loops: four times as quick as by pixel
        values = pixels[..., channel]
        for step in range(factor):
            wide[:, :, step, channel] = values
    out = np.empty((height, factor, width * factor, 3), np.uint8)
    out[:] = wide.reshape(height, 1, width * factor, 3)
    return out.reshape(height * factor, width * factor, 3)


def _copy(piece: Uint8Image, left: int, top: int, out: Uint8Image, x: int, y: int) -> None:
    """Copy a piece whose corner lies at (left, top) to `out`, whose corner lies at (x, y)."""
    height, width = out.shape[:2]
    xa, xb = max(left, x), min(left + piece.shape[1], x + width)
    ya, yb = max(top, y), min(top + piece.shape[0], y + height)
    if xb > xa and yb > ya:
        out[ya - y : yb - y, xa - x : xb - x] = piece[ya - top : yb - top, xa - left : xb - left]
