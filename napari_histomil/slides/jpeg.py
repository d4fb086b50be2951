"""JPEG tiles of TIFF files: decoded whole, only down to a row, or smaller, alone or many at once.

A tile's stream often lacks its tables (they are in the directory) and never says reliably which
colours it holds (the directory does). Both are put into the stream's head here, once for all
tiles with the same head, so that the decoder sees an ordinary JPEG. The pixels are exactly those
of libjpeg's accurate path, which OpenSlide and libtiff take too.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import simplejpeg
from numpy.typing import NDArray

Raw = NDArray[np.uint8]

SOI, SOS, EOI, COM, DRI, RST0 = 0xD8, 0xDA, 0xD9, 0xFE, 0xDD, 0xD0
APP = range(0xE0, 0xF0)
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Markers that begin a frame: they hold its size."""

ONE_PASS = frozenset({0xC0, 0xC1})
"""Frames (baseline, extended) whose rows come one after the other."""

MAX_SCANS = 100
"""Of a picture, each of which is gone through; a hostile one has thousands without any data."""

MAX_SIDE_PX = 65500
"""What libjpeg takes a picture's side to be at most."""

MAX_RESTART_UNITS = 65535
"""Units of coding between two restarts: a number of two bytes."""

CONTEXT_ROWS = 4
"""Rows below the last wanted one that smoothing of the colours looks at, rounded up."""


_END = bytes((0xFF, EOI))


class UnusualJpegError(ValueError):
    """A stream that this path does not decode; another decoder may."""


@dataclass(frozen=True, slots=True)
class Head:
    """All of a stream before its first scan's data.

    Attributes
    ----------
    stored
        The bytes as they are in the file.
    clean
        The bytes that the decoder gets in their place.
    height_at
        Where in `clean` the picture's height stands (two bytes).
    rows_alone
        Rows of a unit of coding where decoding may stop after any of them; 0 if it may not.
    scan_at
        Where in `clean` the first scan begins.
    units
        Units of coding of a picture that may be put on top of others like it (`decode_stack`);
        0 if it may not.
    """

    stored: bytes
    clean: bytes
    width: int
    height: int
    components: int
    height_at: int
    rows_alone: int
    scan_at: int
    units: int


class JpegDecoder:
    """Decodes the JPEG tiles of one directory; may be called from several threads.

    Parameters
    ----------
    tables
        What the directory's tag JPEGTables holds; None without one.
    components
        1 (grey) or 3.
    rgb
        Whether three components are red, green and blue; otherwise they are YCbCr. None: the
        stream's own word counts.
    """

    def __init__(self, tables: bytes | None, components: int, rgb: bool | None) -> None:
        self._components = components
        self._rgb = rgb
        self._colorspace = "GRAY" if components == 1 else "RGB"
        self._tables = b"".join(_kept_segments(tables)) if tables else b""
        self._head: Head | None = None

    def decode(self, data: bytes, out: Raw | None = None) -> Raw:
        """Decode a tile whole.

        Parameters
        ----------
        data
            The stored bytes.
        out
            Contiguous uint8 memory that the pixels are written to, of at least their number.

        Returns
        -------
        uint8 array [h, w, components]
            As the stream says; over the memory of `out` if that is given.

        Raises
        ------
        UnusualJpegError, ValueError
            If the stream is damaged, larger than `out`, or none that is read here.
        """
        head, stream = self._stream(data)
        if out is not None and head.width * head.height * self._components > out.nbytes:
            raise ValueError(f"a tile claims to have {head.width} x {head.height} px")
        return self._decoded(stream, out)

    def decode_top(self, data: bytes, rows: int, out: Raw) -> Raw:
        """Decode the first `rows` rows at least; as `decode`, but for the rows returned.

        The head is made to claim fewer rows: what follows them is not decoded at all.
        """
        head = self._known_head(data)
        unit = head.rows_alone
        if not unit:
            return self.decode(data, out)
        height = -(-(rows + CONTEXT_ROWS) // unit) * unit
        if height >= head.height:
            return self.decode(data, out)
        if head.width * height * self._components > out.nbytes:
            raise ValueError(f"a tile claims to have {head.width} x {head.height} px")
        at = head.height_at
        stream = b"".join(
            (
                head.clean[:at],
                height.to_bytes(2),
                head.clean[at + 2 :],
                memoryview(data)[len(head.stored) :],
            )
        )
        # Not strict: that rows are left over is a warning.
        return self._decoded(stream, out, strict=False)

    def decode_halved(self, data: bytes, halvings: int, most_px: int) -> Raw:
        """Decode a tile at 1 / 2**halvings (1 to 3) by scaled cosine transforms.

        The result has ceil(w / 2**halvings) x ceil(h / 2**halvings) px. At 1/8 it is the mean of
        8 x 8 px (before limits are applied), at 1/4 and 1/2 a picture that is a little crisper
        than the mean.

        Parameters
        ----------
        most_px
            A stream that claims more pixels than this is refused.
        """
        head, stream = self._stream(data)
        if head.width * head.height > most_px:
            raise ValueError(f"a tile claims to have {head.width} x {head.height} px")
        factor = 1 << halvings
        pixels: Raw = simplejpeg.decode_jpeg(
            stream,
            self._colorspace,
            min_width=-(-head.width // factor),
            min_height=-(-head.height // factor),
            min_factor=factor,
        )
        return pixels

    def decode_stack(self, tiles: Sequence[bytes], halvings: int, most_px: int) -> Raw | None:
        """Decode tiles of one size at 1 / 2**halvings (1 to 3), all in one go.

        To the decoder they are one high picture: each tile begins where a restart marker lets the
        coding begin anew, as it does at the beginning of a tile. Setting up a decoder for each
        tile costs as much as a twentieth of them, and Python's own work a quarter.

        Returns
        -------
        uint8 array [n, ceil(h / 2**halvings), ceil(w / 2**halvings), components]
            The very pixels of `decode_halved`; None where tiles cannot be put together so, or
            one of them is damaged.
        """
        try:
            head = self._known_head(tiles[0])
        except ValueError:
            return None
        if not head.units or head.width * head.height > most_px:
            return None
        height = head.height * len(tiles)
        if height > MAX_SIDE_PX or not all(tile.startswith(head.stored) for tile in tiles):
            return None
        parts: list[bytes | memoryview] = [
            head.clean[: head.height_at],
            height.to_bytes(2),
            head.clean[head.height_at + 2 : head.scan_at],
            bytes((0xFF, DRI, 0, 4)),
            head.units.to_bytes(2),
            head.clean[head.scan_at :],
        ]
        for number, tile in enumerate(tiles):
            end = tile.rfind(_END, len(head.stored))
            if end < 0:
                return None
            parts += memoryview(tile)[len(head.stored) : end], bytes((0xFF, RST0 + number % 8))
        parts[-1] = _END
        factor = 1 << halvings
        width, high = -(-head.width // factor), -(-head.height // factor)
        try:
            pixels: Raw = simplejpeg.decode_jpeg(
                b"".join(parts),
                self._colorspace,
                min_width=width,
                min_height=high * len(tiles),
                min_factor=factor,
            )
        except ValueError:  # alone, the damaged one of them will say what is wrong
            return None
        return pixels.reshape(len(tiles), high, width, self._components)

    def _decoded(self, stream: bytes, out: Raw | None, strict: bool = True) -> Raw:
        pixels: Raw = simplejpeg.decode_jpeg(stream, self._colorspace, buffer=out, strict=strict)
        return pixels

    def _stream(self, data: bytes) -> tuple[Head, bytes]:
        head = self._known_head(data)
        if not head.rows_alone:
            check_scans(data)
        return head, b"".join((head.clean, memoryview(data)[len(head.stored) :]))

    def _known_head(self, data: bytes) -> Head:
        head = self._head
        if head is None or not data.startswith(head.stored):
            head = self._head = self._read_head(data)
        if head.components != self._components:
            raise UnusualJpegError(
                f"a tile has {head.components} colours in place of {self._components}"
            )
        return head

    def _read_head(self, data: bytes) -> Head:
        clean = [b"\xff\xd8", _adobe(self._rgb), self._tables]
        width = height = components = height_at = unit = units = 0
        for marker, segment, end in _segments(data):
            if marker in FRAMES:
                if len(segment) < 10 or segment[4] != 8:
                    raise UnusualJpegError("a tile's JPEG has no 8 bits")
                height, width = struct.unpack_from(">HH", segment, 5)
                components = segment[9]
                height_at = sum(map(len, clean)) + 5
                factors = segment[11 : 11 + 3 * components : 3]
                if marker in ONE_PASS and len(factors) == components:
                    unit = 8 * max((factor & 15 for factor in factors), default=0)
                    units = _units(width, height, factors)
            if marker == DRI:
                units = 0  # it has restarts of its own
            if (marker not in APP and marker != COM) or self._rgb is None:
                clean.append(segment)
            if marker == SOS:
                if len(segment) < 5 or not width or not height:
                    raise ValueError("a tile's JPEG begins without a size")
                if segment[4] != components:
                    unit = units = 0  # colours follow one another: none may be cut
                scan_at = sum(map(len, clean[:-1]))
                return Head(
                    data[:end],
                    b"".join(clean),
                    width,
                    height,
                    components,
                    height_at,
                    unit,
                    scan_at,
                    units,
                )
        raise ValueError("a tile's JPEG has no picture")


def _units(width: int, height: int, factors: bytes) -> int:
    """Return how many units of coding a picture has that may lie between others; else 0.

    Its last row of units must be whole, and no colour may be smoothed up and down when it is
    decoded smaller: one that is stored at half the height must be stored at half the width too,
    as such ones are just decoded twice as large.
    """
    wide, high = (max((factor >> shift & 15 for factor in factors), default=0) for shift in (4, 0))
    smoothed = any(
        factor & 15 != high and factor != (wide // 2 << 4 | high // 2) for factor in factors
    )
    if not wide or not high or height % (8 * high) or smoothed or max(wide, high) > 2:
        return 0
    units = -(-width // (8 * wide)) * (height // (8 * high))
    return units if units <= MAX_RESTART_UNITS else 0


def check_scans(data: bytes) -> None:
    """Refuse a JPEG that would be gone through too often.

    Raises
    ------
    ValueError
        If it has more than `MAX_SCANS` scans.
    """
    scans = data.count(b"\xff\xda") if data.startswith(b"\xff\xd8") else 0
    if scans > MAX_SCANS:
        raise ValueError(f"a tile's JPEG has {scans} scans")


def _adobe(rgb: bool | None) -> bytes:
    """Return the marker by which decoders know the colours: Adobe's, 0 for RGB, 1 for YCbCr."""
    if rgb is None:
        return b""
    return b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00" + (b"\x00" if rgb else b"\x01")


def _kept_segments(tables: bytes) -> list[bytes]:
    return [
        segment for marker, segment, _ in _segments(tables) if marker not in APP and marker != COM
    ]


def _segments(data: bytes) -> list[tuple[int, bytes, int]]:
    """Return (marker, whole segment, where it ends) of a head, up to the first scan's.

    Raises
    ------
    ValueError
        If the bytes are no JPEG.
    """
    if not data.startswith(b"\xff\xd8"):
        raise ValueError("a tile is no JPEG")
    found = []
    position = 2
    while position + 4 <= len(data):
        if data[position] != 0xFF:
            raise ValueError("a tile's JPEG is damaged in its head")
        marker = data[position + 1]
        if marker == 0xFF:  # filling
            position += 1
            continue
        if marker == EOI:
            break
        length = int.from_bytes(data[position + 2 : position + 4])
        end = position + 2 + length
        if length < 2 or end > len(data):
            raise ValueError("a tile's JPEG ends in its head")
        found.append((marker, data[position:end], end))
        if marker == SOS:
            break
        position = end
    return found
