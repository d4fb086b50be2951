"""Label masks read from files, ours and those of others, a band at a time.

A mask that does not say where it lies on the slide is taken to cover all of it, and of its
values 0 is taken for unlabelled: a note says so.
"""

from __future__ import annotations

import contextlib
import json
import struct
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import zarr
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import ParseError, fromstring
from PIL import Image, UnidentifiedImageError

from napari_histomil.annotations.mask_facts import MEMBER, MaskFacts, read_facts
from napari_histomil.annotations.mask_files import MAX_PNG_PX, PNG_KEY, png_sidecar
from napari_histomil.annotations.masks import LabelImage, LabelTable, MaskGrid
from napari_histomil.errors import AnnotationError, brief
from napari_histomil.slides.claims import check_tiff_claims
from napari_histomil.slides.slide import SlideInfo
from napari_histomil.slides.zarr_store import READ_ERRORS, open_root

BAND_PX = 2**24
"""Pixels that are read at once."""

_ERRORS = (
    *READ_ERRORS,
    tifffile.TiffFileError,
    zlib.error,
    struct.error,
    Image.DecompressionBombError,
)
_FOREIGN = LabelTable((), (), background=65535, unlabelled=0)


@dataclass(slots=True, eq=False)
class MaskFile:
    """An open mask: close it, or use it in a ``with``."""

    path: Path
    facts: MaskFacts
    notes: tuple[str, ...]
    """Sentences for the person about what was assumed."""
    _pixels: Any
    """What gives rows when it is sliced."""
    _chunk_rows: int
    _files: contextlib.ExitStack

    def bands(self) -> Iterator[LabelImage]:
        """Yield the mask from top to bottom.

        Raises
        ------
        AnnotationError
            If the pixels cannot be decoded.
        """
        grid = self.facts.grid
        fit = max(BAND_PX // (grid.columns * self._chunk_rows), 1)
        step = fit * self._chunk_rows
        for top in range(0, grid.rows, step):
            yield self.rows(top, min(top + step, grid.rows))

    def rows(self, top: int, stop: int) -> LabelImage:
        """Return some rows.

        Raises
        ------
        AnnotationError
            If the pixels cannot be decoded.
        """
        try:
            band = np.asarray(self._pixels[top:stop])
        except _ERRORS as error:
            raise AnnotationError(
                f"The rows from {top} on of {self.path.name} cannot be read: {brief(error)}."
            ) from error
        return band.astype(np.uint8) if band.dtype == bool else band

    def close(self) -> None:
        """Release the file."""
        self._files.close()

    def __enter__(self) -> MaskFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_mask(path: Path, info: SlideInfo | None = None) -> MaskFile:
    """Open a mask.

    Parameters
    ----------
    path
        A TIFF or PNG of one channel of 8 or 16 bits, or a folder of OME-Zarr.
    info
        The slide. Without it only masks that this program has written can be used.

    Raises
    ------
    AnnotationError
        If there is no such file, it is no mask, or it is of another slide or shape.
    """
    if not path.exists():
        raise AnnotationError(f"There is no file {path}.")
    with contextlib.ExitStack() as files:
        try:
            if path.is_dir():
                pixels, text, rows = _open_zarr(path)
            elif path.suffix.lower() in (".tif", ".tiff"):
                pixels, text, rows = _open_tiff(path, files)
            else:
                pixels, text, rows = _open_picture(path, files)
        except _ERRORS as error:
            raise AnnotationError(
                f"{path.name} is no mask that can be read: {brief(error)}."
            ) from error
        shape, kind = tuple(pixels.shape), np.dtype(pixels.dtype)
        if len(shape) != 2 or kind not in (np.uint8, np.uint16, np.bool_) or 0 in shape:
            raise AnnotationError(
                f"{path.name} is no mask: it is an image of {shape} values of type {kind}, and a "
                f"mask has rows and columns of whole numbers of 8 or 16 bits."
            )
        facts = read_facts(text, shape, path.name)
        notes: tuple[str, ...] = ()
        if facts is None:
            facts, notes = _foreign(path, shape, info)
        elif info is not None:
            _check_slide(path, facts, info)
        return MaskFile(path, facts, notes, pixels, rows, files.pop_all())
    raise AssertionError("the stack lets no error pass")


def _open_tiff(path: Path, files: contextlib.ExitStack) -> tuple[Any, str, int]:
    """Return rows that can be sliced, the description, and the rows that are decoded at once."""
    check_tiff_claims(path)
    tiff = files.enter_context(tifffile.TiffFile(path))
    page = tiff.pages.first
    text = page.description or ""
    if tiff.is_ome:
        with contextlib.suppress(ParseError, DefusedXmlException, ValueError):
            found = [e.text for e in fromstring(text).iter() if e.tag.endswith("}Description")]
            text = next((t for t in found if t), "")
    size = path.stat().st_size
    pieces = zip(page.dataoffsets, page.databytecounts, strict=True)
    if any(offset + count > size for offset, count in pieces):
        # tifffile would give zeros for what is missing
        raise AnnotationError(f"{path.name} is cut off: pixels lie beyond its end.")
    height, width = page.shape[:2]
    if page.is_tiled:
        store = files.enter_context(contextlib.closing(page.aszarr()))
        return zarr.open_array(store, mode="r"), text, page.tilelength
    if height * width > MAX_PNG_PX:
        raise AnnotationError(
            f"{path.name} is too large to be read in one piece, as it was written: save it with "
            f"tiles."
        )
    return page.asarray(), text, 1


def _open_zarr(path: Path) -> tuple[Any, str, int]:
    group = open_root(path)
    attributes = group.attrs.asdict()
    ome: Any = attributes.get("ome", attributes)
    array: Any = group[ome["multiscales"][0]["datasets"][0]["path"]]
    text = json.dumps({MEMBER: attributes.get(MEMBER)})
    return array, text, int(array.chunks[0])


def _open_picture(path: Path, files: contextlib.ExitStack) -> tuple[Any, str, int]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # judged below
        try:
            picture = files.enter_context(Image.open(path))
        except UnidentifiedImageError:
            raise AnnotationError(
                f"{path.name} is neither TIFF, PNG nor OME-Zarr: no mask that can be read."
            ) from None
        if picture.width * picture.height > MAX_PNG_PX:
            raise AnnotationError(f"{path.name} is larger than pictures can be read: use a TIFF.")
        pixels = np.asarray(picture)
    if pixels.dtype == np.int32 and pixels.size and pixels.min() >= 0 and pixels.max() < 2**16:
        pixels = pixels.astype(np.uint16)  # how Pillow gives some 16-bit pictures
    inside, beside = picture.info.get(PNG_KEY), png_sidecar(path)
    if isinstance(inside, str):  # what the picture was written with counts
        return pixels, inside, 1
    text = beside.read_text(encoding="utf-8", errors="replace") if beside.is_file() else ""
    return pixels, text, 1


def _foreign(
    path: Path, shape: tuple[int, int], info: SlideInfo | None
) -> tuple[MaskFacts, tuple[str, ...]]:
    """Return the facts of a mask of another program, which covers the whole slide."""
    if info is None:
        raise AnnotationError(
            f"{path.name} does not say where it lies on its slide: say which slide it is of."
        )
    rows, columns = shape
    ratio = info.width_px0 / columns, info.height_px0 / rows
    whole = round(ratio[0])
    sizes = ((info.width_px0, columns), (info.height_px0, rows))
    if whole and all(abs(size0 / whole - size) < 1 for size0, size in sizes):
        ratio = float(whole), float(whole)  # the last row or column was cut off, or rounded up
    elif abs(ratio[0] / ratio[1] - 1) > 1 / min(shape) + 1e-3:
        raise AnnotationError(
            f"{path.name} ({columns} x {rows} pixels) is not of the shape of {info.path.name} "
            f"({info.width_px0} x {info.height_px0}): it is a mask of another slide, or of a part."
        )
    mpp = None if info.mpp_x is None else (info.mpp_xy[0] * ratio[0], info.mpp_xy[1] * ratio[1])
    grid = MaskGrid(columns, rows, ratio, mpp)
    notes = (
        (
            f"{path.name} does not say what its values mean: 0 is taken for unlabelled, and "
            f"each other value for a class of its own."
        ),
        f"It is taken to cover the whole slide, {ratio[0]:g} level-0 pixels a pixel.",
    )
    return MaskFacts.of(grid, _FOREIGN, info), notes


def _check_slide(path: Path, facts: MaskFacts, info: SlideInfo) -> None:
    if facts.fingerprint and facts.fingerprint != info.fingerprint:
        raise AnnotationError(
            f"{path.name} is a mask of another slide ({facts.slide}) than {info.path.name}: give "
            f"the slide that it was made for."
        )
