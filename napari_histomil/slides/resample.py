"""Pictures at another size: means over exact areas when smaller, interpolation when larger.

Pillow's box filter counts a pixel wholly or not at all, so at a factor of 2.004 neighbouring
tiles would differ by several grey levels; here a pixel counts with the share that lies inside.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import sparse

Uint8Image = NDArray[np.uint8]


def reduce_whole(pixels: Uint8Image, factor: int) -> Uint8Image:
    """Return the means of `factor` x `factor` pixels, halves rounded up.

    Parameters
    ----------
    pixels
        uint8 [h, w, 3]; both sides multiples of `factor`.
    """
    if factor & (factor - 1) == 0:  # Pillow is exact for powers of two only, and quick there
        return np.array(Image.fromarray(pixels).reduce(factor))
    height, width = pixels.shape[0] // factor, pixels.shape[1] // factor
    return area_mean(pixels, (0, 0), (width * factor, height * factor), (width, height))


def mean_of_blocks(pixels: Uint8Image, factor: int) -> Uint8Image:
    """Return the means of `factor` x `factor` pixels; the last of a row or column of fewer.

    Parameters
    ----------
    pixels
        uint8 [h, w, 3] of any size.
    factor
        A power of two.

    Returns
    -------
    uint8 array [ceil(h / factor), ceil(w / factor), 3]
        Halves rounded up.
    """
    return np.array(Image.fromarray(pixels).reduce(factor))


def area_mean(
    pixels: Uint8Image,
    xy: tuple[float, float],
    size: tuple[float, float],
    out_size: tuple[int, int],
) -> Uint8Image:
    """Return the means over a grid of areas with fractional edges.

    Parameters
    ----------
    pixels
        uint8 [h, w, 3].
    xy, size
        Corner (x, y) and (width, height) of the grid in pixels of `pixels`, within it.
    out_size
        (columns, rows) of the grid; no area is smaller than a pixel.

    Returns
    -------
    uint8 array [rows, columns, 3]
        Right to half a grey level.
    """
    height, width = pixels.shape[:2]
    columns, rows = out_size
    # Few different grids occur in a slide's rows and columns of tiles: weights are kept.
    down = _weights(height, round(xy[1], 6), round(size[1], 6), rows, 1)
    across = _weights(width, round(xy[0], 6), round(size[0], 6), columns, 3)
    narrow = down @ pixels.reshape(height, width * 3).astype(np.float32)  # [rows, width * 3]
    means = across @ np.ascontiguousarray(narrow.T)  # [columns * 3, rows]
    means += np.float32(0.5)
    out: Uint8Image = np.ascontiguousarray(means.T.astype(np.uint8)).reshape(rows, columns, 3)
    return out


def enlarge(
    pixels: Uint8Image,
    xy: tuple[float, float],
    size: tuple[float, float],
    out_size: tuple[int, int],
) -> Uint8Image:
    """Interpolate a part of a picture bilinearly; arguments as in `area_mean`.

    A pixel looks at its neighbours: give a margin of one pixel around the part.
    """
    box = (xy[0], xy[1], xy[0] + size[0], xy[1] + size[1])
    return np.array(Image.fromarray(pixels).resize(out_size, Image.Resampling.BILINEAR, box=box))


@lru_cache(maxsize=512)
def _weights(length: int, start: float, size: float, count: int, samples: int) -> Any:
    """Return the sparse float32 matrix [count * samples, length * samples] of area shares.

    `samples` interleaved values a pixel (red, green, blue) are kept apart.
    """
    edges = start + size * np.arange(count + 1) / count
    taps = math.ceil(size / count) + 1
    pixel = np.floor(edges[:-1, None]).astype(np.int64) + np.arange(taps)  # [count, taps]
    share = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
    # Edges are rounded to a millionth: the last may touch the pixel beyond the picture.
    share = np.where(pixel < length, np.clip(share, 0, None), 0)
    share /= share.sum(1, keepdims=True)
    pixel = np.minimum(pixel, length - 1)
    sample = np.arange(samples)
    columns = pixel[:, None, :] * samples + sample[:, None]  # [count, samples, taps]
    values = np.broadcast_to(share[:, None, :], columns.shape).astype(np.float32)
    starts = np.arange(count * samples + 1, dtype=np.int32) * taps
    return sparse.csr_matrix(
        (values.ravel(), columns.ravel().astype(np.int32), starts),
        shape=(count * samples, length * samples),
    )
