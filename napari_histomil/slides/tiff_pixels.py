"""From the stored bytes of a TIFF's tiles to RGB.

Most slides hold 8-bit JPEG in red, green and blue once decoded: those tiles go straight from the
decoder to whoever wants them (the *quick* way). All others are decoded as the file says and
brought to RGB by the rule of `composite.py`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_histomil.errors import SlideError, brief
from napari_histomil.slides.composite import Composite, Raw, thinned
from napari_histomil.slides.jpeg import JpegDecoder
from napari_histomil.slides.slide import Uint8Image
from napari_histomil.slides.tiff_codecs import DECODE_ERRORS, MAX_CLAIM
from napari_histomil.slides.tiff_layout import FileReader, StoredLevel, read_block
from napari_histomil.slides.tile_memory import empty_pixels, tile_memory
from napari_histomil.slides.tiles import Box

SAMPLE_BLOCKS = 16
"""Blocks of the coarsest level that are read to find the range of values, where it matters."""

MAX_SCRATCH_PX = 1 << 20
"""Larger tiles are never decoded for a part of them alone: they are worth keeping."""


class TiffPixels:
    """The open files of some levels, and the way from their bytes to RGB.

    Parameters
    ----------
    path
        The slide, for messages.
    levels
        Where the tiles lie.
    composite
        Makes the way to RGB and the colour [3] of tiles that the file leaves out; called with a
        function that reads a sample [n, C] of the values.
    """

    def __init__(
        self,
        path: Path,
        levels: Sequence[StoredLevel],
        composite: Callable[[Callable[[], Raw]], tuple[Composite, Uint8Image]],
    ) -> None:
        self._path = path
        self._levels = levels
        self.files = {
            plane.file: FileReader(plane.file) for level in levels for plane in level.planes
        }
        self._quick = [_quick_decoder(level) for level in levels]
        self._same: dict[int, NDArray[np.int64] | None] = {}
        self._scratch = threading.local()
        self.composite, self._empty = composite(self._sample)

    def tile(self, level: int, row: int, column: int) -> Uint8Image:
        """Read and decode one tile; `tiles.ReadTile`."""
        stored = self._levels[level]
        height, width = stored.block_size(row, column)
        quick = self._quick[level]
        try:
            if quick is not None:
                out = tile_memory().empty(height, width)
                if self._decode_part(stored, quick, row, column, (0, height, 0, width), out):
                    return out
            raw = read_block(stored, row, column, self._read)
            if raw is None:
                return np.tile(self._empty, (height, width, 1))
            if raw.shape[0] < height or raw.shape[1] < width:
                raise ValueError(f"a tile has only {raw.shape[1]} x {raw.shape[0]} px")
            return self.composite.convert(raw[:height, :width])
        except (*DECODE_ERRORS, OSError) as error:
            factor = self._levels[0].width / stored.width
            x = round(column * stored.tile_width * factor)
            y = round(row * stored.tile_height * factor)
            raise SlideError(
                f"{self._path.name} cannot be decoded at ({x}, {y}) of level {level}: "
                f"{brief(error)}."
            ) from error

    def part(self, level: int, row: int, column: int, box: Box, out: Uint8Image) -> bool:
        """Decode no more of a tile than is needed for a part of it; `tiles.ReadPart`."""
        quick = self._quick[level]
        if quick is None:
            return False
        try:
            return self._decode_part(self._levels[level], quick, row, column, box, out)
        except OSError:
            return False  # the other way says what is wrong

    def halved(self, level: int, row: int, column: int, halvings: int) -> Uint8Image | None:
        """Decode one tile smaller; `tiles.ReadHalved`."""
        stored = self._levels[level]
        height, width = stored.block_size(row, column)
        factor = 1 << halvings
        uncut = (height, width) == (stored.tile_height, stored.tile_width)
        if not (uncut or height % factor == width % factor == 0):
            return None  # the last pixels would be mixed with what lies beyond the edge
        try:
            small = self._smaller(self._levels[level], row, column, halvings)
        except ValueError:
            return None  # the whole tile says what is wrong
        height, width = -(-height // factor), -(-width // factor)
        if small is None or small.shape[0] < height or small.shape[1] < width:
            return None
        return np.ascontiguousarray(small[:height, :width])

    def halved_row(self, level: int, row: int, columns: range, halvings: int) -> Uint8Image | None:
        """Decode tiles side by side smaller; `tiles.ReadHalvedRow`."""
        stored, jpeg = self._levels[level], self._quick[level]
        if jpeg is None or any(
            stored.block_size(row, column) != (stored.tile_height, stored.tile_width)
            for column in (columns[0], columns[-1])
        ):
            return None
        tiles = self._stored_row(stored, row, columns)
        if tiles is None:
            return None
        factor = 1 << halvings
        most_px = MAX_CLAIM * stored.tile_width * stored.tile_height
        small = jpeg.decode_stack(tiles, halvings, most_px)
        height, width = -(-stored.tile_height // factor), -(-stored.tile_width // factor)
        return small if small is not None and small.shape[1:3] == (height, width) else None

    def _smaller(
        self, stored: StoredLevel, row: int, column: int, halvings: int
    ) -> Uint8Image | None:
        """Decode a tile as it is stored, also beyond the level's edge, smaller."""
        if len(stored.planes) > 1 or stored.planes[0].separate:
            return None
        jpeg, decode_eighth = stored.planes[0].jpeg, stored.planes[0].decode_eighth
        if jpeg is None and (decode_eighth is None or halvings < 3):
            return None
        data = self._stored_bytes(stored, row, column)
        if data is None:
            return None
        if jpeg is not None:
            most_px = MAX_CLAIM * stored.tile_width * stored.tile_height
            return jpeg.decode_halved(data, halvings, most_px)
        return decode_eighth(data) if decode_eighth is not None else None

    def same(self, level: int) -> NDArray[np.int64] | None:
        """Return which tiles are stored in the same bytes; `tiles.SameTiles`."""
        if level not in self._same:  # looked for when a tile is first asked for
            self._same[level] = self._levels[level].repeated_blocks()
        return self._same[level]

    def tile_bytes(self, level: int) -> NDArray[np.int64]:
        """Return the stored bytes of each tile, all channels together; int64 [rows, columns]."""
        return self._levels[level].block_bytes()

    def whole(self, name: str) -> Uint8Image:
        """Read the first level whole: an associated image."""
        stored = self._levels[0]
        out = np.empty((stored.height, stored.width, 3), np.uint8)
        for row in range(stored.rows):
            for column in range(stored.columns):
                try:
                    tile = self.tile(0, row, column)
                except SlideError as error:
                    raise SlideError(
                        f"The image {name!r} of {self._path.name} cannot be decoded."
                    ) from error
                y, x = row * stored.tile_height, column * stored.tile_width
                out[y : y + tile.shape[0], x : x + tile.shape[1]] = tile
        return out

    def close(self) -> None:
        """Let go of the files; threads that read one just now keep it until they are done."""
        self.files = {}

    def _decode_part(
        self,
        stored: StoredLevel,
        decoder: JpegDecoder,
        row: int,
        column: int,
        box: Box,
        out: Uint8Image,
    ) -> bool:
        """Decode a part of a tile into `out`; False if it has to go the other way."""
        top, bottom, left, right = box
        tile_height, tile_width = stored.tile_height, stored.tile_width
        straight = out.shape[:2] == (tile_height, tile_width) and out.flags.c_contiguous
        if not straight and tile_height * tile_width > MAX_SCRATCH_PX:
            return False
        data = self._stored_bytes(stored, row, column)
        if data is None:
            return False
        memory = out if straight else self._scratch_of(tile_height, tile_width)
        try:
            pixels = (
                decoder.decode(data, memory)
                if bottom == tile_height
                else decoder.decode_top(data, bottom, memory)
            )
        except ValueError:
            return False
        if straight:
            return pixels.shape == out.shape
        if pixels.shape[0] < bottom or pixels.shape[1] < right:
            return False
        out[:] = pixels[top:bottom, left:right]
        return True

    def _scratch_of(self, height: int, width: int) -> Uint8Image:
        """Return this thread's memory for pixels that are copied at once: it stays hot."""
        memory: Uint8Image | None = getattr(self._scratch, "memory", None)
        if memory is None or memory.size < height * width * 3:
            memory = self._scratch.memory = empty_pixels(height, width)
        return memory

    def _stored_bytes(self, stored: StoredLevel, row: int, column: int) -> bytes | None:
        """Return the bytes of a block of a level of one plane; None if there are none."""
        plane = stored.planes[0]
        index = row * stored.columns + column
        count = plane.counts.item(index)
        if not count:
            return None
        data = self._read(plane.file, plane.offsets.item(index), count)
        return data if len(data) == count else None

    def _stored_row(self, stored: StoredLevel, row: int, columns: range) -> list[bytes] | None:
        """Return the bytes of blocks side by side, read at once where they lie so in the file.

        None if one is not stored, or the file has ended before.
        """
        plane = stored.planes[0]
        first = row * stored.columns + columns.start
        offsets = plane.offsets[first : first + len(columns)].tolist()
        counts = plane.counts[first : first + len(columns)].tolist()
        if not all(counts):
            return None
        start, total = min(offsets), sum(counts)
        end = max(offset + count for offset, count in zip(offsets, counts, strict=True))
        if end - start <= 2 * total:
            data = self._read(plane.file, start, end - start)
            offsets = [offset - start for offset in offsets]
            tiles = [data[at : at + n] for at, n in zip(offsets, counts, strict=True)]
        else:
            tiles = [self._read(plane.file, at, n) for at, n in zip(offsets, counts, strict=True)]
        whole = all(len(tile) == n for tile, n in zip(tiles, counts, strict=True))
        return tiles if whole else None

    def _read(self, file: Path, offset: int, count: int) -> bytes:
        reader = self.files.get(file)
        if reader is None:
            raise SlideError(f"{self._path.name} is closed already.")
        return reader.read(offset, count)

    def _sample(self) -> Raw:
        """Return [n, C] values of blocks spread evenly over the coarsest level."""
        stored = self._levels[-1]
        count = stored.rows * stored.columns
        chosen = {count * index // SAMPLE_BLOCKS for index in range(SAMPLE_BLOCKS)}
        values = []
        for index in sorted(chosen):
            raw = read_block(stored, *divmod(index, stored.columns), self._read)
            if raw is not None:
                values.append(thinned(raw))
        return np.concatenate(values) if values else np.zeros((1, stored.samples))


def _quick_decoder(level: StoredLevel) -> JpegDecoder | None:
    return level.planes[0].jpeg if len(level.planes) == 1 else None
