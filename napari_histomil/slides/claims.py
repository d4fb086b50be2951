"""What a file may claim to be: no slide is larger, or made of more pictures.

tifffile and OpenSlide believe what a file says of itself, and take memory and time for it before
they find out. Some hundred bytes are enough to claim petabytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from napari_histomil.errors import SlideError
from napari_histomil.slides.slide import SlideInfo

MAX_SIDE_PX = 1 << 23
"""Two metres at 0.25 µm/px."""

MAX_AREA_PX = 1 << 43
"""The largest slides, 8 x 6 inches at 0.25 µm/px, have a seventeenth of it."""

MAX_TILE_PX = 1 << 26
"""Of a tile that OpenSlide decodes: 256 MB as it keeps it."""

MAX_DIRECTORIES = 512
"""Of a TIFF, smaller levels of directories counted too; slides have about ten."""

MAX_TAGS = 4096

TIFF_BEGINNINGS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
WIDTH, LENGTH, TILE_WIDTH, TILE_LENGTH, SUB_DIRECTORIES = 256, 257, 322, 323, 330
NUMBER_FORMATS = {3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}


def check_size(info: SlideInfo) -> None:
    """Refuse an opened slide whose sizes make no sense.

    Raises
    ------
    SlideError
        If it is larger than any slide, or a level or its tiles have no pixels.
    """
    width, height = info.width_px0, info.height_px0
    if max(width, height) > MAX_SIDE_PX or width * height > MAX_AREA_PX:
        raise _too_large(info.path, width, height)
    for level in info.levels:
        if min(level.width, level.height, level.tile_width, level.tile_height) < 1:
            raise SlideError(f"{info.path.name} is damaged: it claims a picture without size.")
        if level.width > width or level.height > height or not level.downsample >= 1:
            raise SlideError(
                f"{info.path.name} is damaged: a smaller level of it claims "
                f"{level.width} x {level.height} px, the slide {width} x {height} px."
            )


def check_tiff_claims(path: Path) -> None:
    """Refuse a TIFF before it is given to a library, if it claims what no slide has.

    Where a file does not even begin like a TIFF, or its directories are cut off, nothing is said
    here.

    Raises
    ------
    SlideError
        If a picture or its tiles are larger than any slide's, or it has too many smaller levels.
    """
    smaller = 0
    with path.open("rb") as file, suppress(struct.error):
        for numbers in _directories(file, path.stat().st_size):
            first = {tag: value for tag, (value, _) in numbers.items()}
            width, length = first.get(WIDTH, 0), first.get(LENGTH, 0)
            if max(width, length) > MAX_SIDE_PX:
                raise _too_large(path, width, length)
            check_tile(path, first.get(TILE_WIDTH, 0), first.get(TILE_LENGTH, 0))
            smaller += numbers.get(SUB_DIRECTORIES, (0, 0))[1]
            if smaller > MAX_DIRECTORIES:
                raise SlideError(
                    f"{path.name} is damaged: it claims {smaller} smaller levels of a picture."
                )


def check_tile(path: Path, width: int, height: int) -> None:
    """Refuse tiles that are too large to be decoded: OpenSlide ends the process over them.

    Raises
    ------
    SlideError
        If they have more than `MAX_TILE_PX`.
    """
    if width * height > MAX_TILE_PX:
        raise SlideError(
            f"{path.name} stores pieces of {width} x {height} px, too large to be decoded one "
            f"by one: save it again with smaller tiles."
        )


def _directories(file: BinaryIO, size: int) -> Iterator[dict[int, tuple[int, int]]]:
    """Yield of each directory: tag -> (first value, number of values), of whole numbers.

    The value is 0 where it lies elsewhere in the file.
    """
    head = file.read(16)
    if not head.startswith(TIFF_BEGINNINGS):
        return
    order = "<" if head.startswith(b"II") else ">"
    word, count_format, inline, start = ("Q", "Q", 8, 8) if 43 in head[2:4] else ("I", "H", 4, 4)
    (offset,) = struct.unpack_from(order + word, head, start)
    seen: set[int] = set()
    while 0 < offset < size and offset not in seen and len(seen) < MAX_DIRECTORIES:
        seen.add(offset)
        file.seek(offset)
        width = struct.calcsize(count_format)
        (count,) = struct.unpack(order + count_format, file.read(width))
        if count > MAX_TAGS:
            return
        entries = file.read(count * (4 + 2 * inline))
        numbers = {}
        for at in range(0, len(entries), 4 + 2 * inline):
            tag, kind, number = struct.unpack_from(order + "HH" + word, entries, at)
            form = NUMBER_FORMATS.get(kind)
            if form is not None:
                here = number * struct.calcsize(form) <= inline
                (value,) = struct.unpack_from(order + form, entries, at + 4 + inline)
                numbers[tag] = value if here else 0, number
        yield numbers
        (offset,) = struct.unpack(order + word, file.read(inline))


def _too_large(path: Path, width: int, height: int) -> SlideError:
    return SlideError(
        f"{path.name} is damaged: it claims {width} x {height} px, more than any slide has."
    )
