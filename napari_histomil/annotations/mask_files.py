"""Label masks written to files, whole or not at all; reading them is in `mask_reading.py`.

* ``.ome.tif``: tiled, pyramidal OME-TIFF with µm/px;
* ``.tif``: the mask that ASAP writes and reads: exactly the slide's size, tiles of 512 px, LZW,
  smaller levels as further pages;
* ``.zarr``: OME-Zarr 0.5 with the members of an image label;
* ``.png``: one picture, and a file of the same name and ``.json`` beside it.

All hold the facts of `mask_facts.py`: in the description (TIFF), as attributes (Zarr), as a text
of the picture and beside it (PNG). Masks are written in strips and need the memory of one, but
for PNG.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import zarr
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from zarr.codecs import ZstdCodec

from napari_histomil.annotations.mask_facts import MaskFacts, facts_text
from napari_histomil.annotations.mask_pyramid import in_strips, level_shapes, pyramid
from napari_histomil.annotations.masks import LabelImage
from napari_histomil.errors import AnnotationError
from napari_histomil.files import whole_file, whole_folder

TILE_PX = 512
CHUNK_PX = 1024

BIG_TIFF_BYTES = 2**31
"""Masks of more bytes, unpacked, get the 64-bit offsets of BigTIFF: packed they may exceed 32."""

MAX_PNG_PX = 2**28
"""A PNG is put together in memory."""


PNG_KEY = "histomil"
"""Keyword of the text in a PNG that holds its facts."""


def mask_format(path: Path) -> str:
    """Return ``ome-tiff``, ``tiff``, ``zarr`` or ``png``, by the name.

    Raises
    ------
    AnnotationError
        If the name ends otherwise.
    """
    name = path.name.lower()
    for kind, endings in {
        "ome-tiff": (".ome.tif", ".ome.tiff"),
        "tiff": (".tif", ".tiff"),
        "zarr": (".zarr",),
        "png": (".png",),
    }.items():
        if name.endswith(endings):
            return kind
    raise AnnotationError(
        f"The name {path.name} does not tell a format of masks: end it in .ome.tif, .tif, .zarr "
        f"or .png."
    )


def png_sidecar(path: Path) -> Path:
    """Return where the facts of a PNG mask are."""
    return path.with_name(f"{path.name}.json")


def check_mask_format(path: Path, facts: MaskFacts) -> None:
    """Refuse a mask that its format cannot hold, before anything is made.

    Raises
    ------
    AnnotationError
        If the format is unknown, the mask is too large for a PNG, or it is not of the slide's
        size and the format is ASAP's.
    """
    kind, grid = mask_format(path), facts.grid
    if kind == "tiff" and grid.pixel_px0 != (1.0, 1.0):
        raise AnnotationError(
            f"{path.name} would be a mask for ASAP, which has to be of the slide's own size: "
            f"leave --mpp out, or end the name in .ome.tif."
        )
    if kind == "png" and grid.rows * grid.columns > MAX_PNG_PX:
        raise AnnotationError(
            f"A mask of {grid.columns:,} x {grid.rows:,} pixels is too large for a PNG: choose a "
            f"larger µm/px, or .ome.tif or .zarr."
        )


def write_mask(path: Path, bands: Iterable[LabelImage], facts: MaskFacts) -> None:
    """Write a mask in the format that the name tells, all or nothing.

    Parameters
    ----------
    path
        Ends in ``.ome.tif``, ``.tif``, ``.zarr`` or ``.png``. What is there is replaced.
    bands
        The mask from top to bottom.
    facts
        Its pixels and values, and which slide it is of.

    Raises
    ------
    AnnotationError
        As `check_mask_format`.
    OutputError
        If it cannot be written there.
    """
    check_mask_format(path, facts)
    writer = {"png": _write_png, "zarr": _write_zarr}.get(mask_format(path), _write_tiff)
    writer(path, bands, facts)


# --- TIFF -------------------------------------------------------------------------------------


def _write_tiff(path: Path, bands: Iterable[LabelImage], facts: MaskFacts) -> None:
    ome = mask_format(path) == "ome-tiff"
    grid, dtype = facts.grid, facts.table.dtype
    shapes = level_shapes(grid.shape, TILE_PX)
    big = grid.rows * grid.columns * dtype.itemsize > BIG_TIFF_BYTES
    text = facts_text(facts)
    with (
        whole_file(path) as part,
        tifffile.TiffWriter(part, ome=ome, bigtiff=big) as tiff,
    ):
        levels = pyramid(bands, len(shapes), TILE_PX, path.parent)
        for index, (shape, strips) in enumerate(zip(shapes, levels, strict=True)):
            how: dict[str, Any] = {"metadata": None}
            if index == 0:
                how = _ome_members(facts, text) if ome else how | {"description": text}
            if ome and index == 0:
                how["subifds"] = len(shapes) - 1
            if grid.mpp_xy is not None:
                how["resolution"] = tuple(1e4 / (mpp * 2**index) for mpp in grid.mpp_xy)
                how["resolutionunit"] = "CENTIMETER"
            tiff.write(
                _tiles(strips),
                shape=shape,
                dtype=dtype,
                tile=(TILE_PX, TILE_PX),
                compression="zlib" if ome else "lzw",
                photometric="minisblack",
                subfiletype=1 if index else 0,
                maxworkers=1,
                **how,
            )


def _ome_members(facts: MaskFacts, text: str) -> dict[str, Any]:
    members: dict[str, Any] = {
        "axes": "YX",
        # The same for the same facts; tifffile's own would hold the time and this machine.
        "UUID": str(uuid.uuid5(uuid.NAMESPACE_OID, text)),
        "Name": f"mask of {facts.slide}",
        "Description": text,
    }
    if facts.grid.mpp_xy is not None:
        for axis, mpp in zip("XY", facts.grid.mpp_xy, strict=True):
            members |= {f"PhysicalSize{axis}": mpp, f"PhysicalSize{axis}Unit": "µm"}
    return {"metadata": members}


def _tiles(strips: Iterable[LabelImage]) -> Iterator[LabelImage]:
    """Yield the tiles of a level in rows; those at the edges are filled up with 0."""
    for strip in strips:
        rows, columns = strip.shape
        full = np.zeros((TILE_PX, -(-columns // TILE_PX) * TILE_PX), strip.dtype)
        full[:rows, :columns] = strip
        for left in range(0, full.shape[1], TILE_PX):
            yield full[:, left : left + TILE_PX]


# --- Zarr -------------------------------------------------------------------------------------


def _write_zarr(path: Path, bands: Iterable[LabelImage], facts: MaskFacts) -> None:
    table = facts.table
    shapes = level_shapes(facts.grid.shape, CHUNK_PX)
    with whole_folder(path, "zarr.json") as part:
        group = zarr.create_group(part, zarr_format=3)
        levels = pyramid(bands, len(shapes), CHUNK_PX, path.parent)
        for index, (shape, strips) in enumerate(zip(shapes, levels, strict=True)):
            array = group.create_array(
                str(index),
                shape=shape,
                dtype=table.dtype,
                chunks=(CHUNK_PX, CHUNK_PX),
                compressors=ZstdCodec(level=3),
                fill_value=table.unlabelled,
                dimension_names=("y", "x"),
            )
            top = 0
            for strip in strips:
                array[top : top + len(strip)] = strip
                top += len(strip)
        group.attrs.update({"ome": _ome_zarr(facts, len(shapes)), **json.loads(facts_text(facts))})


def _ome_zarr(facts: MaskFacts, levels: int) -> dict[str, Any]:
    """Return OME-Zarr's members of an image label; a length of 1 where µm/px are unknown."""
    table, mpp = facts.table, facts.grid.mpp_xy
    unit = {} if mpp is None else {"unit": "micrometer"}
    across, down = mpp or (1.0, 1.0)
    slide_across, slide_down = (
        size / pixel for size, pixel in zip((across, down), facts.grid.pixel_px0, strict=True)
    )
    datasets = []
    for level in range(levels):
        scale = [down * 2**level, across * 2**level]
        # Positions are of centres, and 0 is the centre of the slide's first pixel.
        shift = [(scale[0] - slide_down) / 2, (scale[1] - slide_across) / 2]
        moves = [
            {"type": "scale", "scale": scale},
            {"type": "translation", "translation": shift},
        ]
        datasets.append({"path": str(level), "coordinateTransformations": moves})
    named = [
        {"label-value": value, "class": kind.name}
        for value, kind in zip(table.values, table.classes, strict=True)
    ]
    colors = [
        {"label-value": value, "rgba": [*kind.color, 255]}
        for value, kind in zip(table.values, table.classes, strict=True)
    ]
    nothing = (table.background, table.unlabelled)
    clear = [{"label-value": value, "rgba": [0, 0, 0, 0]} for value in nothing]
    return {
        "version": "0.5",
        "multiscales": [
            {
                "name": f"mask of {facts.slide}",
                "axes": [{"name": axis, "type": "space"} | unit for axis in "yx"],
                "datasets": datasets,
                "type": "mode",
            }
        ],
        "image-label": {"version": "0.5", "colors": [*colors, *clear], "properties": named},
    }


# --- PNG --------------------------------------------------------------------------------------


def _write_png(path: Path, bands: Iterable[LabelImage], facts: MaskFacts) -> None:
    """Write the picture with its facts inside, and the same facts beside it.

    Two files cannot be put into place at once: whatever is killed when, a picture has the facts
    that it was written with, which count. The file beside is for programs that do not look into
    pictures; it comes first, so that no new picture is ever without one, or with an old one.
    """
    pixels = np.concatenate(list(in_strips(bands, facts.grid.rows)))
    text, said, beside = facts_text(facts), PngInfo(), png_sidecar(path)
    said.add_text(PNG_KEY, text)
    before = beside.read_bytes() if beside.is_file() else None
    try:
        with whole_file(path) as part:
            Image.fromarray(pixels).save(part, format="PNG", optimize=False, pnginfo=said)
            with whole_file(beside) as part_beside:
                part_beside.write_text(text + "\n", encoding="ascii")
    except BaseException:
        if before is None:
            beside.unlink(missing_ok=True)
        elif beside.read_bytes() != before:  # the picture it belongs to could not be placed
            beside.write_bytes(before)
        raise
