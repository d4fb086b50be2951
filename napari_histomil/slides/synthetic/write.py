"""Writing a synthetic slide: pyramidal tiled TIFF in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

from napari_histomil.files import whole_file
from napari_histomil.slides.synthetic.render import BLOCK, Stains, SyntheticSlide, SyntheticTruth

TILE = 256
FACTOR = 2
QUALITY = 82
BIG_PX = 2**32
"""More pixels than this may need more than the 4 GB that plain TIFF can address."""


@dataclass(slots=True)
class _Level:
    """One smaller level while it grows: rows not yet enough for a tile, and finished tiles."""

    width: int
    height: int
    waiting: NDArray[np.uint8] | None = None
    tiles: list[bytes] = field(default_factory=list)


def write_synthetic(
    path: Path,
    *,
    width: int,
    height: int,
    mpp: float = 0.5,
    seed: int = 0,
    stains: Stains | None = None,
    pen: str = "green",
    quality: int = QUALITY,
) -> SyntheticTruth:
    """Write a synthetic H&E slide as a pyramidal tiled TIFF and return its truth.

    Memory is bounded: level 0 is made in rows of blocks; of the smaller levels the finished JPEG
    tiles are kept until their turn.

    Parameters
    ----------
    path
        The file to write; it appears only when it is complete.
    width, height
        Size of level 0 in px.
    mpp
        µm/px, written as the TIFF's resolution.
    seed
        Chooses the slide.
    stains, pen
        As of `SyntheticSlide`.
    quality
        Of the JPEG tiles.

    Raises
    ------
    HistomilError
        If size or resolution make no slide, or the file cannot be written.
    """
    slide = SyntheticSlide(width, height, mpp, seed, stains or Stains(), pen)
    levels = []
    w, h = width, height
    while max(w, h) > 2 * TILE:
        w, h = -(-w // FACTOR), -(-h // FACTOR)
        levels.append(_Level(w, h))
    with (
        whole_file(path) as part,
        tifffile.TiffWriter(part, bigtiff=width * height > BIG_PX) as tiff,
    ):
        _write_level(tiff, _level0(slide, levels, quality), (width, height), mpp, 0)
        for index, level in enumerate(levels, start=1):
            size = level.width, level.height
            _write_level(tiff, iter(level.tiles), size, mpp * width / level.width, index)
    return slide.truth


def _write_level(
    tiff: tifffile.TiffWriter,
    tiles: Iterator[bytes],
    size: tuple[int, int],
    mpp: float,
    index: int,
) -> None:
    per_cm = 1e4 / mpp
    tiff.write(
        tiles,
        shape=(size[1], size[0], 3),
        dtype=np.uint8,
        tile=(TILE, TILE),
        photometric="ycbcr",
        subsampling=(2, 2),
        compression="jpeg",
        subfiletype=1 if index else 0,
        resolution=(per_cm, per_cm),
        resolutionunit="CENTIMETER",
        description="napari-histomil synthetic H&E slide, not a patient's" if index == 0 else None,
        software=False,
        metadata=None,
    )


def _level0(slide: SyntheticSlide, levels: list[_Level], quality: int) -> Iterator[bytes]:
    for top in range(0, slide.height, BLOCK):
        rows = min(BLOCK, slide.height - top)
        strip = np.empty((rows, slide.width, 3), np.uint8)
        for left in range(0, slide.width, BLOCK):
            block = slide.block(left // BLOCK, top // BLOCK)
            part = strip[:, left : left + BLOCK]
            part[...] = block[: part.shape[0], : part.shape[1]]
        # Feed first: whoever takes exactly the tiles of level 0 never comes back after the last.
        _feed(levels, strip, top + rows == slide.height, quality)
        yield from _tiles(strip, quality)


def _tiles(strip: NDArray[np.uint8], quality: int) -> Iterator[bytes]:
    for top in range(0, strip.shape[0], TILE):
        for left in range(0, strip.shape[1], TILE):
            tile = strip[top : top + TILE, left : left + TILE]
            missing = TILE - tile.shape[0], TILE - tile.shape[1]
            if any(missing):
                tile = np.pad(tile, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge")
            yield bytes(
                imagecodecs.jpeg8_encode(
                    np.ascontiguousarray(tile),
                    level=quality,
                    colorspace="rgb",
                    outcolorspace="ycbcr",
                    subsampling="420",
                )
            )


def _feed(levels: list[_Level], strip: NDArray[np.uint8], last: bool, quality: int) -> None:
    """Pass a strip down the pyramid, halving it from level to level."""
    for level in levels:
        strip = _halve(strip)
        if level.waiting is not None:
            strip = np.concatenate([level.waiting, strip])
        whole = len(strip) if last else len(strip) // (2 * TILE) * (2 * TILE)
        level.waiting, strip = strip[whole:], strip[:whole]
        if whole == 0:
            return
        level.tiles.extend(_tiles(strip, quality))


def _halve(strip: NDArray[np.uint8]) -> NDArray[np.uint8]:
    odd = strip.shape[0] % 2, strip.shape[1] % 2
    if any(odd):
        strip = np.pad(strip, ((0, odd[0]), (0, odd[1]), (0, 0)), mode="edge")
    total = strip[::2, ::2].astype(np.uint16)
    total += strip[1::2, ::2]
    total += strip[::2, 1::2]
    total += strip[1::2, 1::2]
    return ((total + 2) >> 2).astype(np.uint8)
