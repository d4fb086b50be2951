"""Where the tiles of a TIFF lie; how one is decoded is the matter of `tiff_codecs.py`.

tifffile knows the format; the pixels are read without it. A *plane* is one directory of the file
(one channel, or all of an RGB picture). Everything is checked against the file's size when a
slide is opened, so that a damaged or hostile file is refused there and never makes us allocate
what it claims.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from napari_histomil.errors import SlideError
from napari_histomil.slides.composite import Raw
from napari_histomil.slides.jpeg import JpegDecoder
from napari_histomil.slides.resample import Uint8Image
from napari_histomil.slides.tiff_codecs import (
    block_decoder,
    check_supported,
    eighth_decoder,
    jpeg_decoder,
)

MAX_BLOCK_BYTES = 1 << 28
"""Decoded size of the largest tile or strip that is accepted."""

STRIP_BYTES = 2 << 20
"""An uncompressed picture is read in strips of about this size, however it is cut in the file."""


@dataclass(frozen=True, slots=True, eq=False)
class Plane:
    """One directory: its blocks (tiles or strips) in rows, one sample after the other."""

    file: Path
    offsets: NDArray[np.int64]
    counts: NDArray[np.int64]
    decode: Callable[[bytes, int], Raw]
    """(stored bytes, block index) -> [h, w, samples in a block]."""
    samples: int
    separate: bool
    """Whether each sample has blocks of its own (planar configuration 2)."""
    jpeg: JpegDecoder | None = None
    """Where blocks are JPEG that this gives as 8-bit RGB by itself."""
    decode_eighth: Callable[[bytes], Uint8Image | None] | None = None
    """Where blocks are JPEG 2000 of 8-bit RGB: one at 1/8 (see `jpeg2000.decode_eighth`)."""


@dataclass(frozen=True, slots=True, eq=False)
class StoredLevel:
    """One resolution: a grid of blocks for each of its planes, the channels."""

    width: int
    height: int
    tile_width: int
    tile_height: int
    planes: tuple[Plane, ...]

    @property
    def columns(self) -> int:
        """Blocks in a row."""
        return -(-self.width // self.tile_width)

    @property
    def rows(self) -> int:
        """Rows of blocks."""
        return -(-self.height // self.tile_height)

    @property
    def samples(self) -> int:
        """Values of a pixel over all planes."""
        return sum(plane.samples for plane in self.planes)

    def block_size(self, row: int, column: int) -> tuple[int, int]:
        """Return (height, width) of a block as it is cut at the level's edges."""
        return (
            min(self.tile_height, self.height - row * self.tile_height),
            min(self.tile_width, self.width - column * self.tile_width),
        )

    def repeated_blocks(self) -> NDArray[np.int64] | None:
        """Return for each block which is the first one stored in the same bytes.

        Returns
        -------
        int64 [rows, columns, 2] of (row, column); None if no two blocks are the same.

        Blocks that the file leaves out are the same too. Blocks that are cut at the level's
        edges stay by themselves, as do those of several planes.
        """
        if len(self.planes) > 1 or self.planes[0].separate:
            return None
        count = self.rows * self.columns
        places = np.where(self.planes[0].counts > 0, self.planes[0].offsets, -1)[:count]
        index = np.arange(count)
        cut = np.zeros((self.rows, self.columns), bool)
        cut[-1, :] = self.height % self.tile_height != 0
        cut[:, -1] |= self.width % self.tile_width != 0
        whole = index[~cut.ravel()]
        _, first, which = np.unique(places[whole], return_index=True, return_inverse=True)
        if len(first) == len(whole):
            return None
        index[whole] = whole[first][which]
        return np.stack(np.divmod(index.reshape(cut.shape), self.columns), axis=-1)

    def block_bytes(self) -> NDArray[np.int64]:
        """Return the stored bytes of each block, all its planes together; [rows, columns]."""
        total = np.zeros(self.rows * self.columns, np.int64)
        for plane in self.planes:
            repeats = plane.samples if plane.separate else 1
            counts = plane.counts[: total.size * repeats]
            total += counts.reshape(repeats, total.size).sum(0)
        return total.reshape(self.rows, self.columns)


AHEAD_BYTES = 1 << 17
"""Read at once by a thread that goes through a file: each call costs as much as a few pixels'
decoding, and a change of threads."""


class FileReader:
    """Reads bytes at positions, from several threads at once, also where there is no pread.

    Whoever reads on where the same thread stopped gets what follows from memory for a while.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        self._lock = threading.Lock()
        self._own = _Ahead()

    def __del__(self) -> None:
        # Closed with the last reference: a thread still reading keeps it, so a descriptor that
        # the system has given to another file is never read.
        descriptor = getattr(self, "_descriptor", None)
        if descriptor is not None:
            os.close(descriptor)

    def read(self, offset: int, count: int) -> bytes:
        """Return `count` bytes at `offset`, fewer at the end of the file."""
        own = self._own
        at = offset - own.start
        if 0 <= at <= len(own.data) - count:
            own.stopped = offset + count
            return own.data[at : at + count]
        goes_on, own.stopped = offset == own.stopped, offset + count
        if not goes_on or count >= AHEAD_BYTES:
            return self._read(offset, count)
        own.start, own.data = offset, self._read(offset, AHEAD_BYTES)
        return own.data[:count]

    def _read(self, offset: int, count: int) -> bytes:
        if hasattr(os, "pread"):
            return os.pread(self._descriptor, count, offset)
        with self._lock:
            os.lseek(self._descriptor, offset, os.SEEK_SET)
            return os.read(self._descriptor, count)


class _Ahead(threading.local):
    """What a thread has read ahead, and where it stopped."""

    start = 0
    data = b""
    stopped = -1


def stored_level(pages: list[tifffile.TiffPage], path: Path) -> StoredLevel:
    """Describe the level that `pages` hold, one page a channel.

    Raises
    ------
    UnsupportedTiffError
        If the layout or the compression is none that we read.
    SlideError
        If blocks lie outside the file or would be too large.
    """
    first = pages[0].keyframe
    planes = tuple(_plane(page, path) for page in pages)
    if first.is_tiled:
        tile_width, tile_height = first.tilewidth, first.tilelength
    else:
        tile_width = first.imagewidth
        tile_height = _strip_rows(first) or min(first.rowsperstrip, first.imagelength)
    level = StoredLevel(first.imagewidth, first.imagelength, tile_width, tile_height, planes)
    if min(level.width, level.height, tile_width, tile_height, level.samples) < 1:
        raise SlideError(f"{path.name} is damaged: it claims a picture without size.")
    block_bytes = tile_width * tile_height * level.samples * first.dtype.itemsize
    if block_bytes > MAX_BLOCK_BYTES:
        raise SlideError(
            f"{path.name} stores pieces of {tile_width} x {tile_height} px, too large to be "
            f"decoded one by one: save it again as a tiled TIFF."
        )
    return replace(level, planes=tuple(_checked(plane, level, path) for plane in planes))


def read_block(
    level: StoredLevel, row: int, column: int, read: Callable[[Path, int, int], bytes]
) -> Raw | None:
    """Decode one block of all channels.

    Parameters
    ----------
    read
        (file, offset, count) -> bytes.

    Returns
    -------
    [h, w, C] raw values; None where the file stores nothing (a sparse tile).

    Raises
    ------
    One of `DECODE_ERRORS`, or OSError.
    """
    index = row * level.columns + column
    parts: list[Raw | None] = []
    shapes = []
    for plane in level.planes:
        for sample in range(plane.samples if plane.separate else 1):
            block = index + sample * level.rows * level.columns
            offset, count = int(plane.offsets[block]), int(plane.counts[block])
            if count == 0:
                shape = (level.tile_height, level.tile_width)
                parts.append(None)
                shapes.append((*shape, 1 if plane.separate else plane.samples))
                continue
            data = read(plane.file, offset, count)
            if len(data) != count:
                raise ValueError("the file has become shorter")
            parts.append(plane.decode(data, block))
    stored = [part for part in parts if part is not None]
    if not stored:
        return None
    if len(parts) == 1:
        return stored[0]
    height = min(part.shape[0] for part in stored)
    width = min(part.shape[1] for part in stored)
    empty = iter(shapes)
    return np.concatenate(
        [
            np.zeros((height, width, next(empty)[2]), stored[0].dtype)
            if part is None
            else part[:height, :width]
            for part in parts
        ],
        axis=2,
    )


def _plane(page: tifffile.TiffPage, path: Path) -> Plane:
    key = page.keyframe  # a TiffFrame has positions only, its keyframe the tags
    check_supported(key, path)
    file = Path(page.parent.filehandle.path)
    separate = key.planarconfig == 2 and key.samplesperpixel > 1
    if rows := _strip_rows(key):
        return _uncompressed_strips(page, file, rows, separate)
    return Plane(
        file,
        _positions(page.dataoffsets),
        _positions(page.databytecounts),
        block_decoder(key),
        key.samplesperpixel,
        separate,
        jpeg_decoder(key),
        eighth_decoder(key),
    )


def _positions(values: Sequence[int]) -> NDArray[np.int64]:
    """Return positions as numbers of 64 bits; what is larger is beyond any end all the same."""
    try:
        return np.asarray(values, np.int64)
    except OverflowError:
        return np.asarray([min(int(value), 2**63 - 1) for value in values], np.int64)


def _strip_rows(page: tifffile.TiffPage) -> int | None:
    """Return the height of our own strips of an uncompressed page; None if it is not one."""
    plain = page.is_contiguous and page.predictor == 1 and page.fillorder == 1
    if page.is_tiled or not plain or page.bitspersample % 8:
        return None
    return int(max(1, min(page.imagelength, STRIP_BYTES // max(_row_bytes(page), 1))))


def _row_bytes(page: tifffile.TiffPage) -> int:
    """Bytes of one row of the page, or of one sample's row where samples are separate."""
    together = page.samplesperpixel if page.planarconfig == 1 else 1
    return int(page.imagewidth * together * page.dtype.itemsize)


def _uncompressed_strips(page: tifffile.TiffPage, file: Path, rows: int, separate: bool) -> Plane:
    key = page.keyframe
    height, width = key.imagelength, key.imagewidth
    samples = 1 if separate else key.samplesperpixel
    row_bytes = _row_bytes(key)
    dtype = np.dtype(page.parent.byteorder + key.dtype.char)
    starts = np.arange(0, height, rows, dtype=np.int64)
    one_sample = page.dataoffsets[0] + starts * row_bytes
    repeats = key.samplesperpixel if separate else 1
    shift = np.arange(repeats, dtype=np.int64) * (height * row_bytes)
    counts = np.minimum(rows, height - starts) * row_bytes

    def decode(data: bytes, index: int) -> Raw:
        del index
        pixels = np.frombuffer(data, dtype).reshape(-1, width, samples)
        return pixels.astype(dtype.newbyteorder("="), copy=False)

    return Plane(
        file,
        (shift[:, None] + one_sample).ravel(),
        np.tile(counts, repeats),
        decode,
        key.samplesperpixel,
        separate,
    )


def _checked(plane: Plane, level: StoredLevel, path: Path) -> Plane:
    """Return the plane with as many blocks as the level has, all of them inside the file."""
    wanted = level.rows * level.columns * (plane.samples if plane.separate else 1)
    if min(len(plane.offsets), len(plane.counts)) < wanted:
        raise SlideError(
            f"{path.name} is damaged: it lists {len(plane.offsets)} tiles "
            f"of the {wanted} that its size needs."
        )
    size = plane.file.stat().st_size
    offsets, counts = plane.offsets[:wanted], plane.counts[:wanted]
    bad = (offsets < 0) | (counts < 0) | (counts > size) | (offsets > size - counts)
    bad &= counts != 0
    if bad.any():
        raise SlideError(
            f"{plane.file.name} is truncated or damaged: {int(bad.sum())} of {wanted} tiles lie "
            f"beyond its end, get the file again."
        )
    return replace(plane, offsets=offsets, counts=counts)
