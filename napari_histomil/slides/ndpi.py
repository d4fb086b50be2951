"""Hamamatsu NDPI: one huge JPEG a level, cut where its restart markers are.

The scanner writes a level as a single JPEG with a restart marker after every few units of coding,
and a list of where each piece begins. Pieces know nothing of each other, so any rectangle of them
is a JPEG once it has a head with its size. Here some pieces are joined to a tile of a handy size;
the pixels are those of each piece decoded alone, as OpenSlide does it. Levels without such a list,
and colours that are stored at half the rows, are left to OpenSlide.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from napari_histomil.errors import SlideError, brief
from napari_histomil.slides.identity import fingerprint_file
from napari_histomil.slides.jpeg import JpegDecoder
from napari_histomil.slides.resolution import plausible_magnification
from napari_histomil.slides.slide import Level, SlideInfo, Uint8Image
from napari_histomil.slides.tiff_codecs import DECODE_ERRORS, UnsupportedTiffError
from napari_histomil.slides.tiff_layout import FileReader
from napari_histomil.slides.tiff_metadata import plain_metadata
from napari_histomil.slides.tile_memory import tile_memory
from napari_histomil.slides.tiles import TiledSlide

MAX_PAGES = 512
MAX_PICTURE_PX = 1 << 26

TILE_PX = 1 << 19
"""A tile has about this many pixels, and at most `TILE_SIDE` rows."""
TILE_SIDE = 256
MAX_PIECE_PX = 1 << 24

MACRO = -1
"""Magnification that marks the picture of the whole glass; -2 is a map, levels are above 0."""

COMPRESSION_JPEG = 7
JPEG_MAX_SIDE = 65_500
RESTART_0, END = 0xD0, b"\xff\xd9"
RESTARTS = range(0xD0, 0xD8)
FRAMES = (0xC0, 0xC1)
"""Frames whose pieces stand alone: baseline and extended, not progressive."""


@dataclass(frozen=True, slots=True, eq=False)
class Pieces:
    """One level: a grid of pieces, and how many of them make a tile."""

    width: int
    height: int
    piece_width: int
    piece_height: int
    offsets: NDArray[np.int64]
    """Of each piece in the file, [rows, columns]."""
    counts: NDArray[np.int64]
    head: bytes
    """The stream up to its first piece; its size is put in at `size_at`."""
    size_at: int
    across: int
    """Pieces beside each other in a tile."""
    down: int

    @property
    def tile_width(self) -> int:
        """Pixels of a whole tile along x."""
        return min(self.across * self.piece_width, self.width)

    @property
    def tile_height(self) -> int:
        """Pixels of a whole tile along y."""
        return self.down * self.piece_height


def open_ndpi(path: Path) -> TiledSlide:
    """Open a Hamamatsu NDPI.

    Raises
    ------
    UnsupportedTiffError
        If it is one whose pieces do not stand alone; OpenSlide reads it.
    SlideError
        If the file is no NDPI, or a damaged one.
    """
    try:
        with tifffile.TiffFile(path) as file:
            if not file.is_ndpi:
                raise UnsupportedTiffError(f"{path.name} is not laid out as a Hamamatsu NDPI.")
            pages = [page.aspage() for page in islice(file.pages, MAX_PAGES)]
            facts = [page.ndpi_tags for page in pages]
            shown = _levels(pages, facts)
            if not shown:
                raise SlideError(f"{path.name} is damaged: it has no level.")
            size = path.stat().st_size
            levels = [_pieces(pages[index], path, size) for index in shown]
            macros = [
                (
                    int(page.dataoffsets[0]),
                    int(page.databytecounts[0]),
                    int(page.imagewidth * page.imagelength),
                )
                for page, fact in zip(pages, facts, strict=True)
                if fact.get("Magnification") == MACRO
                and page.compression == COMPRESSION_JPEG
                and len(page.dataoffsets) == 1
                and page.imagewidth * page.imagelength <= MAX_PICTURE_PX
            ]
            metadata = plain_metadata(pages[shown[0]])
            fact = facts[shown[0]]
    except SlideError:
        raise
    except (tifffile.TiffFileError, AttributeError, KeyError, OSError, *DECODE_ERRORS) as error:
        raise SlideError(f"{path.name} is a damaged or truncated NDPI: {brief(error)}.") from error
    pixels = _Pixels(path, levels)
    associated: dict[str, Callable[[], Uint8Image]] = {}
    if macros and macros[0][0] + macros[0][1] <= size:
        associated["macro"] = partial(pixels.picture, "macro", *macros[0])
    stamp = path.stat()
    return TiledSlide(
        SlideInfo(
            path=path,
            reader="ndpi",
            vendor="hamamatsu",
            width_px0=levels[0].width,
            height_px0=levels[0].height,
            mpp_x=metadata.mpp[0] if metadata.mpp else None,
            mpp_y=metadata.mpp[1] if metadata.mpp else None,
            mpp_source="file" if metadata.mpp else None,
            objective_power=plausible_magnification(str(fact.get("Magnification", ""))),
            levels=tuple(
                Level(
                    level.width,
                    level.height,
                    (levels[0].width / level.width + levels[0].height / level.height) / 2,
                    level.tile_width,
                    level.tile_height,
                )
                for level in levels
            ),
            channels=("red", "green", "blue"),
            dtype="uint8",
            composite="",
            bounds_px0=None,
            associated_images=tuple(associated),
            properties=dict(metadata.properties) | _properties(fact),
            fingerprint=fingerprint_file(path),
        ),
        pixels.tile,
        associated,
        owner=("ndpi", path.resolve(), stamp.st_mtime_ns, stamp.st_size),
        release=pixels.close,
        read_halved=pixels.halved,
        tile_bytes=pixels.tile_bytes,
    )


class _Pixels:
    """The open file, and the way from its pieces to tiles."""

    def __init__(self, path: Path, levels: list[Pieces]) -> None:
        self._path = path
        self._levels = levels
        self._decoders = [JpegDecoder(None, 3, rgb=False) for _ in levels]
        self._file: FileReader | None = FileReader(path)

    def tile(self, level: int, row: int, column: int) -> Uint8Image:
        """Read and decode one tile, cut at the level's edges; `tiles.ReadTile`."""
        pieces = self._levels[level]
        height = min(pieces.tile_height, pieces.height - row * pieces.tile_height)
        width = min(pieces.tile_width, pieces.width - column * pieces.tile_width)
        try:
            memory = tile_memory().empty(pieces.tile_height, pieces.tile_width)
            found = self._decoders[level].decode(self._stream(pieces, row, column), memory)
            if found.shape[0] < height or found.shape[1] < width:
                raise ValueError(f"a tile has only {found.shape[1]} x {found.shape[0]} px")
            return np.ascontiguousarray(found[:height, :width])
        except (OSError, *DECODE_ERRORS) as error:
            raise self._damaged(level, row, column, error) from error

    def halved(self, level: int, row: int, column: int, halvings: int) -> Uint8Image | None:
        """Decode one tile smaller; None where its size in the file is not the tile's."""
        pieces = self._levels[level]
        tile_px = pieces.tile_width * pieces.tile_height
        inside = (row + 1) * pieces.tile_height <= pieces.height
        if not inside or (column + 1) * pieces.tile_width > pieces.width:
            return None
        try:
            stream = self._stream(pieces, row, column)
            return self._decoders[level].decode_halved(stream, halvings, tile_px)
        except (OSError, *DECODE_ERRORS) as error:
            raise self._damaged(level, row, column, error) from error

    def tile_bytes(self, level: int) -> NDArray[np.int64]:
        """Return the stored bytes of each tile, int64 [rows, columns]."""
        pieces = self._levels[level]
        rows = np.arange(0, pieces.counts.shape[0], pieces.down)
        columns = np.arange(0, pieces.counts.shape[1], pieces.across)
        by_row: NDArray[np.int64] = np.add.reduceat(pieces.counts, rows, axis=0)
        return np.add.reduceat(by_row, columns, axis=1)

    def picture(self, name: str, offset: int, count: int, most_px: int) -> Uint8Image:
        """Decode a picture that is one JPEG of no more pixels than it should have."""
        data = self._read(offset, count)
        try:
            return JpegDecoder(None, 3, rgb=False).decode(data, np.empty(3 * most_px, np.uint8))
        except DECODE_ERRORS as error:
            raise SlideError(
                f"The image {name!r} of {self._path.name} cannot be decoded."
            ) from error

    def close(self) -> None:
        """Let go of the file; threads that read it just now keep it until they are done."""
        self._file = None

    def _read(self, offset: int, count: int) -> bytes:
        file = self._file
        if file is None:
            raise SlideError(f"{self._path.name} is closed already.")
        return file.read(offset, count)

    def _stream(self, pieces: Pieces, row: int, column: int) -> bytes:
        """Return the JPEG of one tile: the head with its size, its pieces, restarts between."""
        top, left = row * pieces.down, column * pieces.across
        offsets = pieces.offsets[top : top + pieces.down, left : left + pieces.across]
        counts = pieces.counts[top : top + pieces.down, left : left + pieces.across]
        size = struct.pack(
            ">HH", offsets.shape[0] * pieces.piece_height, offsets.shape[1] * pieces.piece_width
        )
        parts = [pieces.head[: pieces.size_at], size, pieces.head[pieces.size_at + 4 :]]
        number = 0
        for piece_offsets, piece_counts in zip(offsets.tolist(), counts.tolist(), strict=True):
            # Pieces of a row follow each other, as a rule: read with one call.
            start, stop = piece_offsets[0], piece_offsets[-1] + piece_counts[-1]
            together = stop - start == sum(piece_counts)
            data = self._read(start, stop - start) if together else b""
            for offset, count in zip(piece_offsets, piece_counts, strict=True):
                piece = (
                    data[offset - start : offset - start + count]
                    if together
                    else self._read(offset, count)
                )
                if len(piece) != count:
                    raise ValueError("the file has become shorter")
                parts += [_without_marker(piece), bytes((0xFF, RESTART_0 + number % 8))]
                number += 1
        parts[-1] = END
        return b"".join(parts)

    def _damaged(self, level: int, row: int, column: int, error: Exception) -> SlideError:
        pieces = self._levels[level]
        factor = self._levels[0].width / pieces.width
        x = round(column * pieces.tile_width * factor)
        y = round(row * pieces.tile_height * factor)
        return SlideError(
            f"{self._path.name} cannot be decoded at ({x}, {y}) of level {level}: {brief(error)}."
        )


def _levels(pages: list[tifffile.TiffPage], facts: list[Mapping[str, object]]) -> list[int]:
    """Return which pages are levels, finest first: those in focus where there are several."""
    depths = {}
    for index, fact in enumerate(facts):
        magnification = fact.get("Magnification", 0)
        if isinstance(magnification, float | int) and magnification > 0:
            depth = fact.get("ZOffsetFromSlideCenter", 0)
            depths[index] = abs(depth) if isinstance(depth, float | int) else 0
    nearest = min(depths.values(), default=0)
    found = [index for index, depth in depths.items() if depth == nearest]
    return sorted(found, key=lambda index: -pages[index].imagewidth)


def _pieces(page: tifffile.TiffPage, path: Path, size: int) -> Pieces:
    """Describe the pieces of one level.

    Raises
    ------
    UnsupportedTiffError
        If it is stored in one piece, or its pieces do not stand alone.
    SlideError
        If pieces lie outside the file.
    """
    left = f"{path.name} stores a level"
    if page.compression != COMPRESSION_JPEG or not page.is_tiled or not page.jpegheader:
        raise UnsupportedTiffError(f"{left} in one piece, which is left to OpenSlide.")
    head = bytes(page.jpegheader)
    size_at, sampling, components = _frame(head)
    piece_width, piece_height = int(page.tilewidth), int(page.tilelength)
    if size_at is None or components != 3 or any(factors & 15 != 1 for factors in sampling):
        raise UnsupportedTiffError(f"{left} in an unusual JPEG, which is left to OpenSlide.")
    width, height = int(page.imagewidth), int(page.imagelength)
    if min(width, height, piece_width, piece_height) < 1:
        raise SlideError(f"{path.name} is damaged: it claims a picture without size.")
    if (
        piece_width * piece_height > MAX_PIECE_PX
        or piece_width > JPEG_MAX_SIDE
        or width % piece_width
    ):
        raise UnsupportedTiffError(
            f"{left} in pieces of unusual size, which is left to OpenSlide."
        )
    rows, columns = -(-height // piece_height), -(-width // piece_width)
    offsets = np.asarray(page.dataoffsets, np.int64)
    counts = np.asarray(page.databytecounts, np.int64)
    if min(len(offsets), len(counts)) < rows * columns:
        raise SlideError(
            f"{path.name} is damaged: it lists {len(offsets)} pieces of the {rows * columns} that "
            f"its size needs."
        )
    offsets = offsets[: rows * columns].reshape(rows, columns)
    counts = counts[: rows * columns].reshape(rows, columns)
    bad = int(((offsets < 0) | (counts < 1) | (counts > size) | (offsets > size - counts)).sum())
    if bad:
        raise SlideError(
            f"{path.name} is truncated or damaged: {bad} of {rows * columns} pieces lie beyond "
            f"its end, get the file again."
        )
    # Colours stored at half the columns are smoothed across them: only pieces alone are right.
    alone = any(factors != 0x11 for factors in sampling)
    across = 1 if alone else max(1, min(columns, 2 * TILE_SIDE // piece_width))
    down = max(1, min(rows, TILE_SIDE // piece_height, TILE_PX // (piece_width * piece_height)))
    return Pieces(
        width, height, piece_width, piece_height, offsets, counts, head, size_at, across, down
    )


def _frame(head: bytes) -> tuple[int | None, list[int], int]:
    """Return where a head's size stands, how often each colour is sampled, and how many they are.

    Sampling is one byte a colour: times along x in the upper half, along y in the lower.
    """
    position = 2
    while position + 10 <= len(head) and head[position] == 0xFF:
        marker = head[position + 1]
        if marker in FRAMES:
            components = head[position + 9]
            sampling = list(head[position + 11 : position + 11 + 3 * components : 3])
            return position + 5, sampling, components
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return None, [], 0
        position += 2 + int.from_bytes(head[position + 2 : position + 4])
    return None, [], 0


def _without_marker(piece: bytes) -> bytes:
    """Return a piece without the restart marker, or the end mark, behind it."""
    if len(piece) >= 2 and piece[-2] == 0xFF and (piece[-1] in RESTARTS or piece[-2:] == END):
        return piece[:-2]
    return piece


def _properties(fact: Mapping[str, object]) -> dict[str, str]:
    """Return Hamamatsu's own words: the lines ``key=value`` of the comments, and a few tags."""
    found = {}
    for line in str(fact.get("Comments", "")).splitlines():
        key, equals, value = line.partition("=")
        if equals and not key.startswith(";"):
            found[f"hamamatsu.{key}"] = value
    for name in ("Fluorescence", "Magnification", "Wavelength", "JpegQuality"):
        if name in fact:
            found[f"hamamatsu.{name}"] = str(fact[name])
    return found
