"""JPEG 2000 tiles of TIFF files decoded smaller.

The format holds a picture of half the size inside, but not its means: it is crisper, and its
pixels lie a quarter of their own size aside. Only where four of them are averaged in each
direction, for an eighth of the tile, is that too little to be seen.
"""

from __future__ import annotations

import io
import struct

import numpy as np
from PIL import Image, UnidentifiedImageError

from napari_histomil.slides.resample import Uint8Image, mean_of_blocks

SIZE_MARKER = b"\xff\x4f\xff\x51"
PLAIN = bytes((7, 1, 1)) * 3
"""Three components of 8 bits, none of them stored at a lower resolution."""


def decode_eighth(data: bytes, width: int, height: int) -> Uint8Image | None:
    """Decode a tile of width x height px at 1/8, for about half of what all of it costs.

    Returns
    -------
    uint8 array [ceil(height / 8), ceil(width / 8), 3]
        The three components as they are stored; None for a stream of another kind or size, or
        one that is damaged.
    """
    start = data.find(SIZE_MARKER, 0, 512)
    if start < 0 or len(data) < start + 51 or width % 2 or height % 2:
        return None
    right, bottom, left, top = struct.unpack_from(">IIII", data, start + 8)
    (components,) = struct.unpack_from(">H", data, start + 40)
    if (right, bottom, left, top, components) != (width, height, 0, 0, 3):
        return None
    if data[start + 42 : start + 51] != PLAIN:
        return None
    try:
        with Image.open(io.BytesIO(data), formats=["JPEG2000"]) as image:
            image.reduce = 1  # type: ignore[assignment, method-assign]
            half = np.asarray(image)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError):
        return None
    if half.shape != (height // 2, width // 2, 3) or half.dtype != np.uint8:
        return None
    return mean_of_blocks(np.ascontiguousarray(half), 4)
