"""Pictures and files that the tests of readers share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from napari_histomil.slides.cache import TileCache, shared_cache


def picture(width: int, height: int, seed: int = 0) -> np.ndarray:
    """Return uint8 [height, width, 3] in which no two places look alike."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    smooth = np.stack([x * 255 // width, y * 255 // height, (x + y) % 256], -1)
    return (0.7 * smooth + 0.3 * rng.integers(0, 256, (height, width, 3))).astype(np.uint8)


def halves(image: np.ndarray, count: int) -> list[np.ndarray]:
    """Return the image and `count` levels of 2 x 2 means; odd rows and columns are cut off."""
    out = [image]
    for _ in range(count):
        last = out[-1]
        height, width = last.shape[0] // 2, last.shape[1] // 2
        four = last[: 2 * height, : 2 * width].reshape(height, 2, width, 2, 3).astype(int)
        out.append(((four.sum((1, 3)) + 2) // 4).astype(np.uint8))
    return out


def write_pyramid(
    path: Path,
    levels: Sequence[np.ndarray],
    *,
    subifds: bool = False,
    mpp: float | None = 0.5,
    tile: tuple[int, int] | None = (64, 64),
    **options: Any,
) -> Path:
    """Write levels as a TIFF pyramid, as following pages or as SubIFDs of the first."""
    if mpp is not None:
        options |= {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": "CENTIMETER"}
    options = {"photometric": "rgb", "metadata": None, "tile": tile} | options
    order, big = options.pop("byteorder", "<"), options.pop("bigtiff", False)
    with tifffile.TiffWriter(path, bigtiff=big, byteorder=order) as file:
        file.write(levels[0], subifds=len(levels) - 1 if subifds else None, **options)
        for level in levels[1:]:
            file.write(level, subfiletype=1, **options)
    return path


@pytest.fixture(autouse=True)
def _empty_cache() -> None:
    """Let no test find the tiles of another."""
    cache: TileCache = shared_cache()
    cache.clear()
