"""How a block (tile or strip) of a TIFF is decoded: which codecs, which colours, which claims.

tifffile chooses the codec and knows its options. What slides mostly hold, JPEG of 8-bit colours,
also has a short way of its own (`jpeg.py`), and JPEG and JPEG 2000 may be decoded smaller.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tifffile

from napari_histomil.errors import SlideError, brief
from napari_histomil.slides.composite import Raw, ycbcr_to_rgb
from napari_histomil.slides.jpeg import JpegDecoder, check_scans
from napari_histomil.slides.jpeg2000 import decode_eighth
from napari_histomil.slides.resample import Uint8Image

MAX_CLAIM = 4
"""A compressed tile may claim this many times the pixels that it should have, not more."""

JPEG_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}

JPEG_OLD = 6
APERIO_JPEG2000_YCBCR = 33003
JPEG2000_COMPRESSIONS = (APERIO_JPEG2000_YCBCR, 33004, 33005, 34712)
JPEG_COMPRESSIONS = (7, 34892, 33007)
RGB, YCBCR = 2, 6

DECODE_ERRORS = (
    RuntimeError, ValueError, IndexError, TypeError, OverflowError, MemoryError, struct.error,
)  # fmt: skip
"""What imagecodecs, tifffile and numpy raise on bytes that are no picture."""


class UnsupportedTiffError(SlideError):
    """A sound TIFF in a layout that this path does not read; OpenSlide may."""


def check_supported(page: tifffile.TiffPage, path: Path) -> None:
    """Refuse a page that cannot be shown.

    Raises
    ------
    UnsupportedTiffError
        If OpenSlide may read it.
    SlideError
        If nothing does.
    """
    if page.imagedepth > 1 or (page.is_tiled and page.tiledepth > 1):
        raise SlideError(
            f"{path.name} stores a volume ({page.imagedepth} layers in one picture), "
            f"which cannot be shown as a slide."
        )
    if page.dtype is None or page.dtype.kind not in "buif":
        raise UnsupportedTiffError(
            f"{path.name} stores values of {_name(page.bitspersample)} bits "
            f"(sample format {int(page.sampleformat)}), which cannot be shown."
        )
    if page.photometric not in (0, 1, 2, 3, YCBCR):
        raise UnsupportedTiffError(
            f"{path.name} stores colours as {_name(page.photometric)}: save it as RGB."
        )
    try:
        page.decode(None, 0)  # says whether there is a decoder, without decoding
    except (ValueError, NotImplementedError) as error:
        raise UnsupportedTiffError(
            f"{path.name} cannot be decoded ({_name(page.compression)}): {brief(error)}."
        ) from error
    if page.compression == JPEG_OLD:
        raise UnsupportedTiffError(
            f"{path.name} uses the old JPEG layout of TIFF 6.0, which was never clear: "
            f"save it again with another compression."
        )


def block_decoder(page: tifffile.TiffPage) -> Callable[[bytes, int], Raw]:
    """Return the function (stored bytes, block index) -> [h, w, samples in a block].

    It raises one of `DECODE_ERRORS` where the bytes are no picture.
    """
    decode, tables = page.decode, page.jpegtables
    to_rgb = _is_ycbcr(page)
    tile_px = MAX_CLAIM * (
        page.tilewidth * page.tilelength if page.is_tiled else page.imagewidth * page.rowsperstrip
    )

    def decode_block(data: bytes, index: int) -> Raw:
        # The long way, also for JPEG that the short one finds odd.
        claim = _claimed_size(data)
        check_scans(data)
        if claim is not None and claim[0] * claim[1] > tile_px:
            raise ValueError(f"a tile claims to have {claim[0]} x {claim[1]} px")
        pixels, _, _ = decode(data, index, jpegtables=tables)
        raw: Raw = pixels[0]
        return ycbcr_to_rgb(raw) if to_rgb else raw

    return decode_block


def _is_ycbcr(page: tifffile.TiffPage) -> bool:
    """Say whether decoded values still are YCbCr."""
    return page.compression == APERIO_JPEG2000_YCBCR or (
        page.photometric == YCBCR and page.compression not in (*JPEG_COMPRESSIONS, 34712, 50001)
    )


def jpeg_decoder(page: tifffile.TiffPage) -> JpegDecoder | None:
    """Return the decoder of a page of 8-bit JPEG in colours; None for anything else."""
    plain = (
        page.compression in JPEG_COMPRESSIONS
        and page.photometric in (RGB, YCBCR)
        and page.samplesperpixel == 3
        and page.planarconfig == 1
        and page.bitspersample == 8
        and page.dtype == np.uint8
        and not page.extrasamples
    )
    if not plain:
        return None
    # Scanners' tiles of red, green and blue do not say so; JFIF always is YCbCr.
    rgb = True if page.photometric == RGB and not page.is_jfif else None
    try:
        return JpegDecoder(page.jpegtables, 3, rgb)
    except ValueError:  # damaged tables: each tile will say so
        return None


def eighth_decoder(page: tifffile.TiffPage) -> Callable[[bytes], Uint8Image | None] | None:
    """Return what decodes tiles at 1/8, for pages of JPEG 2000 in 8-bit colours; else None."""
    plain = (
        page.compression in JPEG2000_COMPRESSIONS
        and page.is_tiled
        and page.photometric in (RGB, YCBCR)
        and page.samplesperpixel == 3
        and page.planarconfig == 1
        and page.dtype == np.uint8
    )
    if not plain:
        return None
    to_rgb = _is_ycbcr(page)

    def decode(data: bytes) -> Uint8Image | None:
        small = decode_eighth(data, page.tilewidth, page.tilelength)
        return ycbcr_to_rgb(small) if to_rgb and small is not None else small

    return decode


def _claimed_size(data: bytes) -> tuple[int, int] | None:
    """Return (width, height) that a JPEG, JPEG 2000 or PNG stream says it has, else None.

    A few hostile bytes can claim gigapixels, which the decoders would believe.
    """
    if data.startswith(b"\xff\xd8"):
        position = 2
        while position + 9 <= len(data) and data[position] == 0xFF:
            marker = data[position + 1]
            if marker in JPEG_FRAME_MARKERS:
                height, width = struct.unpack_from(">HH", data, position + 5)
                return int(width), int(height)
            position += 2 + int.from_bytes(data[position + 2 : position + 4])
        return None
    start = data.find(b"\xff\x4f\xff\x51", 0, 512)  # of a code stream, bare or in a JP2 box
    if start >= 0 and len(data) >= start + 16:
        width, height = struct.unpack_from(">II", data, start + 8)
        return int(width), int(height)
    if data.startswith(b"\x89PNG") and len(data) >= 24:
        width, height = struct.unpack_from(">II", data, 16)
        return int(width), int(height)
    return None


def _name(tag_value: object) -> str:
    return brief(str(getattr(tag_value, "name", tag_value)))
