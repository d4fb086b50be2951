"""Which directory of a TIFF is what: levels of the pyramid, channels, side pictures.

Where tifffile knows the order of the pages (OME and a few others), it is asked; elsewhere pages
are sorted by what they look like: smaller ones of the same shape are levels, the others beside.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from math import prod
from pathlib import Path
from typing import BinaryIO

import numpy as np
import tifffile

from napari_histomil.errors import SlideError
from napari_histomil.slides.tiff_codecs import UnsupportedTiffError
from napari_histomil.slides.tiff_metadata import (
    Metadata,
    aperio_metadata,
    ome_metadata,
    parse_ome,
    plain_metadata,
)

MAX_PAGES = 512
"""Directories looked at in a file without a stated order; slides have about ten."""

ORDERED_KINDS = ("ome", "qpi", "imagej", "shaped")
"""Kinds of series in which tifffile knows which page is which channel and layer."""

FOREIGN = {
    "is_ndpi": "Hamamatsu NDPI",
    "is_scn": "Leica SCN",
    "is_bif": "Ventana BIF",
    "is_philips": "Philips TIFF",
}
"""Flags of tifffile for formats whose pixels need more than tiles in order."""

REDUCED = 1
"""Bit of NewSubfileType: a smaller version of another image of the file."""


@dataclass(frozen=True, slots=True)
class Directories:
    """The directories of a file, sorted."""

    levels: list[list[tifffile.TiffPage]]
    """Pages of each level, finest first; one page a channel."""
    associated: dict[str, tifffile.TiffPage]
    metadata: Metadata
    note: str = ""
    """What of the file is not shown, in words."""

    def only(self, page: tifffile.TiffPage) -> Directories:
        """Return the directories of one side picture alone."""
        plain = replace(self.metadata, channels=(), significant_bits=None)
        return Directories([[page]], {}, plain)


def check_chain(path: Path) -> None:
    """Refuse a file whose list of directories leads beyond its end.

    tifffile only logs this and goes on with the directories that are left: a slide would lose
    its levels unnoticed.

    Raises
    ------
    SlideError
        If a directory lies outside the file.
    """
    size = path.stat().st_size
    try:
        beyond = _first_beyond(path, size)
    except struct.error as error:  # fewer bytes are left than a number needs
        raise SlideError(
            f"{path.name} is truncated: it ends in the middle of its list of pictures, "
            f"get the file again."
        ) from error
    if beyond is not None:
        raise SlideError(
            f"{path.name} is truncated: its list of pictures goes on at byte {beyond} "
            f"of {size}, get the file again."
        )


def _first_beyond(path: Path, size: int) -> int | None:
    """Return the first position in the chain of directories that is beyond the file."""
    with path.open("rb") as file:
        head = file.read(16)
        order = "<" if head.startswith(b"II") else ">"
        big = head[2:4] in (b"+\0", b"\0+")
        count_format, entry_bytes, next_format = ("Q", 20, "Q") if big else ("H", 12, "I")
        (offset,) = struct.unpack_from(order + next_format, head, 8 if big else 4)
        for _ in range(MAX_PAGES):
            if offset == 0:
                return None
            if offset >= size:
                return int(offset)
            file.seek(offset)
            count = _unpack(file, order + count_format)
            # The entries' own bytes may be a lie: seeking beyond the end reads nothing.
            after = offset + struct.calcsize(order + count_format) + count * entry_bytes
            if after >= size:
                return int(after)
            file.seek(after)
            offset = _unpack(file, order + next_format)
    return None  # too long to be a slide's, or a circle: tifffile sees to that


def _unpack(file: BinaryIO, format_: str) -> int:
    (value,) = struct.unpack(format_, file.read(struct.calcsize(format_)))
    return int(value)


def find_directories(file: tifffile.TiffFile, path: Path) -> Directories:
    """Sort the directories of an open TIFF.

    Raises
    ------
    UnsupportedTiffError
        If the format is one whose pixels need more than tiles in order.
    SlideError
        If the file's description is damaged.
    """
    for flag, name in FOREIGN.items():
        if getattr(file, flag):
            raise UnsupportedTiffError(
                f"{path.name} is {name}, which the TIFF reader leaves to others."
            )
    if len(file.pages) == 0:
        raise tifffile.TiffFileError("it has no picture")
    first = file.pages[0]
    # Parsed before tifffile reads it: its own parser does not refuse entities.
    document = parse_ome(first.description, path) if file.is_ome else None
    if not file.is_svs:
        series = file.series
        main = max(series, key=_series_area, default=None)
        if main is not None and main.kind in ORDERED_KINDS:
            metadata = plain_metadata(first)
            if document is not None and main.kind == "ome":
                metadata = ome_metadata(first, document, series.index(main))
            found = _from_series(series, main, metadata)
            if found is not None:
                return found
    pages = list(islice(_all_pages(file), MAX_PAGES))
    if any(0 in (page.imagewidth, page.imagelength) for page in pages):
        raise SlideError(f"{path.name} is damaged: it claims a picture without size.")
    metadata = aperio_metadata(first) if file.is_svs else plain_metadata(first)
    return _from_pages(pages, metadata)


def _series_area(series: tifffile.TiffPageSeries) -> int:
    page = series.keyframe
    return int(page.imagewidth * page.imagelength)


def _from_series(
    series: Sequence[tifffile.TiffPageSeries], main: tifffile.TiffPageSeries, metadata: Metadata
) -> Directories | None:
    """Sort by tifffile's series; None if the main one's axes do not fit its pages."""
    levels = []
    note = ""
    for stored in main.levels:
        leading = [
            (axis, size)
            for axis, size in zip(stored.axes, stored.shape, strict=True)
            if axis not in "YXS"
        ]
        if prod(size for _, size in leading) != len(stored):
            return None
        channels_have_colors = stored.keyframe.samplesperpixel >= 3
        chosen, left_out = [], []
        for axis, size in leading:
            if axis == "C" and not channels_have_colors:
                chosen.append(list(range(size)))
                continue
            one = size // 2 if axis == "Z" else 0
            chosen.append([one])
            if size > 1:
                left_out.append(f"position {one + 1} of {size} along {axis}")
        numbers = (
            np.ravel_multi_index(np.ix_(*chosen), tuple(size for _, size in leading)).ravel()
            if leading
            else [0]
        )
        pages = [stored[int(number)] for number in numbers]
        if any(page is None for page in pages):
            raise tifffile.TiffFileError("a file that belongs to it, or a page, is missing")
        levels.append(pages)
        note = note or ", ".join(left_out)
    pictures: dict[str, tifffile.TiffPage] = {}
    for other in series:
        if other is not main and other.ndim >= 2:
            _add_picture(pictures, other.name, other[0])
    return Directories(levels, pictures, metadata, note)


def _all_pages(file: tifffile.TiffFile) -> Iterator[tifffile.TiffPage]:
    for page in file.pages:
        page = page.aspage()
        yield page
        if page.subifds:
            yield from (sub.aspage() for sub in page.pages)


def _from_pages(pages: Sequence[tifffile.TiffPage], metadata: Metadata) -> Directories:
    main = max(pages, key=lambda page: page.imagewidth * page.imagelength)
    levels = [main]
    same_size = 1
    pictures: dict[str, tifffile.TiffPage] = {}
    for index, page in enumerate(pages):
        if page is main:
            continue
        if page.shape == main.shape:
            same_size += 1
        elif _is_level(page, main):
            levels.append(page)
        else:
            _add_picture(pictures, _picture_name(page, index, metadata.vendor), page)
    levels.sort(key=lambda page: -page.imagewidth)
    note = f"picture 1 of {same_size} of the same size" if same_size > 1 else ""
    return Directories([[page] for page in levels], pictures, metadata, note)


def _is_level(page: tifffile.TiffPage, main: tifffile.TiffPage) -> bool:
    """Say whether `page` is a smaller version of `main`.

    It has the same kind of pixels, the same shape but for rounding, and is marked as reduced or
    tiled as `main` is: a label may have the slide's shape by chance, but is not tiled.
    """
    alike = (
        page.samplesperpixel == main.samplesperpixel
        and page.dtype == main.dtype
        and page.imagewidth < main.imagewidth
        and page.imagelength < main.imagelength
    )
    if not alike or page.is_tiled != main.is_tiled:
        return False
    if not (page.is_tiled or page.subfiletype & REDUCED):
        return False
    ranges = [
        (size0 / (size + 1), size0 / max(size - 1, 0.5))
        for size0, size in (
            (main.imagewidth, page.imagewidth),
            (main.imagelength, page.imagelength),
        )
    ]
    return bool(max(low for low, _ in ranges) < min(high for _, high in ranges))


def _picture_name(page: tifffile.TiffPage, index: int, vendor: str) -> str:
    """Return what the file calls a side picture: Aperio's second line begins with the name."""
    if vendor == "aperio":
        lines = page.description.splitlines()
        word = lines[1].split(" ")[0] if len(lines) > 1 else ""
        if word.isalpha():
            return word
        if index == 1:
            return "thumbnail"
    text = page.description.lower()
    known = ("label", "macro", "thumbnail", "overview")
    return next((name for name in known if name in text), f"picture {index + 1}")


def _add_picture(pictures: dict[str, tifffile.TiffPage], name: str, page: object) -> None:
    if page is None:
        return
    base = name or "picture"
    count = 1
    while name in pictures or not name:
        count += 1
        name = f"{base} {count}"
    pictures[name] = page
