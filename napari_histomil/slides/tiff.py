"""Slides of the TIFF family: Aperio SVS, OME-TIFF, plain pyramids, pictures of one level.

tifffile finds the directories once; after that, tiles are read from the file and decoded by
imagecodecs without it. Which directory is what is decided in `tiff_directories.py`, what one
holds in `tiff_layout.py`; the way to RGB is in `composite.py`.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import tifffile

from napari_histomil.errors import SlideError, brief
from napari_histomil.slides.composite import (
    Channel,
    Composite,
    Raw,
    channel_composite,
    palette_composite,
    rgb_composite,
)
from napari_histomil.slides.icc import profile_name
from napari_histomil.slides.identity import fingerprint_file, fingerprint_files
from napari_histomil.slides.slide import Level, SlideInfo, Uint8Image
from napari_histomil.slides.tiff_codecs import DECODE_ERRORS, UnsupportedTiffError
from napari_histomil.slides.tiff_directories import Directories, check_chain, find_directories
from napari_histomil.slides.tiff_layout import StoredLevel, stored_level
from napari_histomil.slides.tiff_pixels import TiffPixels
from napari_histomil.slides.tiles import TiledSlide

# What tifffile logs is said by our own errors; without a handler Python prints it on stderr.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

MAX_ASSOCIATED_PX = 1 << 26

STRUCTURE_ERRORS = (
    tifffile.TiffFileError, struct.error, OSError, EOFError, AttributeError, KeyError,
    AssertionError, ZeroDivisionError, *DECODE_ERRORS,
)  # fmt: skip
"""What tifffile raises on files that only begin like a TIFF."""

PHOTOMETRIC_RGB, PHOTOMETRIC_PALETTE, PHOTOMETRIC_YCBCR = 2, 3, 6
ALPHA_SAMPLES = (1, 2)
"""Kinds of a fourth sample that are opacity (associated or not); 0 is unspecified."""


def open_tiff(path: Path) -> TiledSlide:
    """Open a TIFF as a slide.

    Raises
    ------
    UnsupportedTiffError
        If the file is sound but in a layout that this path does not read.
    SlideError
        If it is no TIFF, truncated or damaged.
    """
    try:
        check_chain(path)
        with tifffile.TiffFile(path) as file:
            found = find_directories(file, path)
            levels = [stored_level(pages, path) for pages in found.levels]
            associated = _associated(found, path)
            pixels = TiffPixels(path, levels, partial(_composite, found, levels))
            pictures = {
                name: TiffPixels(path, [level], partial(_composite, found.only(page), [level]))
                for name, (page, level) in associated.items()
            }
    except SlideError:
        raise
    except STRUCTURE_ERRORS as error:
        raise SlideError(f"{path.name} is a damaged or truncated TIFF: {brief(error)}.") from error
    files = sorted(pixels.files)

    def release() -> None:
        for part in (pixels, *pictures.values()):
            part.close()

    stamps = tuple((file.stat().st_mtime_ns, file.stat().st_size) for file in files)
    return TiledSlide(
        _info(path, found, levels, list(associated), pixels.composite, files),
        pixels.tile,
        {name: partial(picture.whole, name) for name, picture in pictures.items()},
        owner=f"tiff {path.resolve()} {stamps}",  # a string knows its hash
        release=release,
        icc=found.metadata.icc,
        tile_bytes=pixels.tile_bytes,
        read_halved=pixels.halved,
        read_halved_row=pixels.halved_row,
        read_part=pixels.part,
        same_tiles=pixels.same,
    )


def _associated(
    found: Directories, path: Path
) -> dict[str, tuple[tifffile.TiffPage, StoredLevel]]:
    pictures = {}
    for name, page in found.associated.items():
        try:
            level = stored_level([page], path)
        except UnsupportedTiffError:
            continue  # a side picture in a layout that we do not read takes nothing away
        if level.width * level.height <= MAX_ASSOCIATED_PX:
            pictures[name] = page, level
    return pictures


def _composite(
    found: Directories, levels: Sequence[StoredLevel], sample: Callable[[], Raw]
) -> tuple[Composite, Uint8Image]:
    """Return the way to RGB, and the colour [3] of tiles that the file leaves out."""
    page = found.levels[0][0].keyframe
    samples = levels[0].samples
    white = np.full(3, 255, np.uint8)
    dtype = _dtype(page)
    alone = len(levels[0].planes) == 1
    if page.photometric == PHOTOMETRIC_PALETTE and alone and page.colormap is not None:
        table = np.asarray(page.colormap, np.uint16)
        if table.ndim != 2 or len(table) != 3 or not table.size:
            raise ValueError("its table of colours has not three columns")
        return palette_composite(table), white
    if page.photometric in (PHOTOMETRIC_RGB, PHOTOMETRIC_YCBCR) and alone and samples >= 3:
        alpha = samples == 4 and page.extrasamples[:1] in [(kind,) for kind in ALPHA_SAMPLES]
        peak = 255.0 if dtype == np.uint8 else float(np.nanmax(sample()))
        if found.metadata.significant_bits and dtype.kind == "u":
            peak = max(peak, 2.0**found.metadata.significant_bits - 1)
        composite = rgb_composite(dtype, samples, alpha, peak)
        return replace(composite, statement=_joined(composite.statement, found.note)), white
    channels: Sequence[Channel] = found.metadata.channels
    if len(channels) != samples:
        channels = [Channel(f"channel {index + 1}") for index in range(samples)]
    if len({channel.color for channel in channels}) == 1 and samples > 1:
        # Programs write white for every channel when they mean nothing by it.
        channels = [replace(channel, color=None) for channel in channels]
    needs_range = dtype not in (np.uint8, np.bool_)
    values = sample() if needs_range else np.zeros((1, samples))
    inverted = page.photometric == 0 and samples == 1
    composite = channel_composite(dtype, channels, values, inverted)
    composite = replace(composite, statement=_joined(composite.statement, found.note))
    return composite, composite.convert(np.zeros((1, 1, samples), dtype))[0, 0]


def _dtype(page: tifffile.TiffPage) -> np.dtype[np.generic]:
    """Return the type of the decoded values, in this machine's byte order."""
    dtype: np.dtype[np.generic] = np.dtype(page.dtype).newbyteorder("=")
    return dtype


def _joined(*parts: str) -> str:
    return "; ".join(part for part in parts if part)


def _info(
    path: Path,
    found: Directories,
    levels: Sequence[StoredLevel],
    associated: Sequence[str],
    composite: Composite,
    files: Sequence[Path],
) -> SlideInfo:
    width, height = levels[0].width, levels[0].height
    metadata = found.metadata
    return SlideInfo(
        path=path,
        reader="tiff",
        vendor=metadata.vendor,
        width_px0=width,
        height_px0=height,
        mpp_x=metadata.mpp[0] if metadata.mpp else None,
        mpp_y=metadata.mpp[1] if metadata.mpp else None,
        mpp_source="file" if metadata.mpp else None,
        objective_power=metadata.objective_power,
        levels=tuple(
            Level(
                level.width,
                level.height,
                (width / level.width + height / level.height) / 2,
                level.tile_width,
                level.tile_height,
            )
            for level in levels
        ),
        channels=composite.channels,
        dtype=str(_dtype(found.levels[0][0].keyframe)),
        composite=composite.statement,
        bounds_px0=None,
        associated_images=tuple(associated),
        properties=dict(metadata.properties),
        fingerprint=fingerprint_file(path)
        if list(files) == [path.resolve()]  # tifffile resolves links too
        else fingerprint_files(files, path.resolve().parent),
        icc_profile=profile_name(metadata.icc),
    )
