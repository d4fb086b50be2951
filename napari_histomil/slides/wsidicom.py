"""DICOM slides through wsidicom, an extra: for those that OpenSlide refuses.

OpenSlide reads tiles in JPEG, JPEG 2000 and uncompressed RGB of 8 bits. wsidicom also finds and
decodes JPEG-LS, RLE, 16 bits, grey and fluorescence, and tiles of which some are missing. Which
files are one slide is decided in `dicom.py`; the tiles are cached by `tiles.TiledSlide`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histomil.errors import SlideError, brief
from napari_histomil.slides.composite import (
    Channel,
    Composite,
    Raw,
    channel_composite,
    rgb_composite,
)
from napari_histomil.slides.dicom import read_instance, series_of
from napari_histomil.slides.icc import profile_name
from napari_histomil.slides.identity import dicom_fingerprint
from napari_histomil.slides.resolution import plausible_magnification, plausible_mpp
from napari_histomil.slides.slide import Level, SlideInfo, Uint8Image
from napari_histomil.slides.tiles import TiledSlide

if TYPE_CHECKING:
    from wsidicom import WsiDicom
    from wsidicom.instance import ImageData

# What they log is said by our own errors; without a handler Python prints it on stderr.
for _library in ("wsidicom", "pydicom"):
    logging.getLogger(_library).addHandler(logging.NullHandler())

MAX_TILE_BYTES = 1 << 28
SAMPLE_TILES = 16

RGB_COLORS = ("RGB", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "YBR_FULL")
GREY_COLORS = ("MONOCHROME1", "MONOCHROME2")
COLOR_DECODED = ("1.2.840.10008.1.2.4.5", "1.2.840.10008.1.2.4.9", "1.2.840.10008.1.2.4.20")
"""Beginnings of transfer syntaxes (JPEG, JPEG 2000, HTJ2K) whose decoders return RGB for YBR."""

PROPERTY_NAMES = (
    "SeriesInstanceUID", "SeriesDescription", "Manufacturer", "ManufacturerModelName",
    "PhotometricInterpretation", "BitsStored", "DimensionOrganizationType", "ImageType",
)  # fmt: skip
HEADER_NAMES = ("OpticalPathSequence",)

INSTALL = 'pip install "napari-histomil[dicom]"'


def open_wsidicom(path: Path) -> TiledSlide:
    """Open the DICOM slide that a file is part of.

    Raises
    ------
    SlideError
        If wsidicom is not installed, or cannot read the slide.
    """
    try:
        from wsidicom import WsiDicom
    except ImportError as error:
        raise SlideError(f"{path.name} needs wsidicom to be read: {INSTALL}.") from error
    files = series_of(path)
    opened: list[WsiDicom] = []
    try:
        opened.append(WsiDicom.open(files))
        return _slide(path, files, opened[0])
    except SlideError:
        for slide in opened:
            slide.close()
        raise
    # Whatever it raises: the library has no common error, and headers from outside go far in it.
    except Exception as error:
        for slide in opened:
            slide.close()
        raise SlideError(
            f"{path.name} is no slide that can be read through wsidicom, or a damaged one: "
            f"{brief(error)}."
        ) from error


def _slide(path: Path, files: Sequence[Path], opened: WsiDicom) -> TiledSlide:
    stored = [level.image_data_map for level in opened.pyramid]
    first = opened.pyramid.base_level.default_instance
    planes = _shown_planes(stored[0], first.image_data.default_z)
    for level in stored:
        for plane in planes:
            if plane not in level:
                raise SlideError(f"{path.name} lacks an optical path on one of its levels.")
            _check(level[plane], path)
    levels = _levels(opened)
    read = partial(_read, threading.Lock(), stored, planes)
    dataset = _dataset(Path(str(first.image_data.files[0])))
    composite = _composite(stored, planes, dataset, read, levels)
    focal_planes = len({z for _, z in stored[0]})
    if focal_planes > 1:
        note = f"1 of {focal_planes} focal planes"
        statement = "; ".join(part for part in (composite.statement, note) if part)
        composite = replace(composite, statement=statement)
    associated = _associated(opened)
    mpp = plausible_mpp(opened.mpp.width, opened.mpp.height)
    series = str(dataset.get("SeriesInstanceUID", ""))
    profile = _profile(dataset) if len(planes) == 1 else b""

    def read_tile(level: int, row: int, column: int) -> Uint8Image:
        grid = levels[level]
        height = min(grid.tile_height, grid.height - row * grid.tile_height)
        width = min(grid.tile_width, grid.width - column * grid.tile_width)
        try:
            return composite.convert(
                np.ascontiguousarray(read(level, row, column)[:height, :width])
            )
        except Exception as error:
            x = round(column * grid.tile_width * grid.downsample)
            y = round(row * grid.tile_height * grid.downsample)
            raise SlideError(
                f"{path.name} cannot be decoded at ({x}, {y}) of level {level}: {brief(error)}."
            ) from error

    fingerprint = dicom_fingerprint(series, _stored_sizes(files))
    return TiledSlide(
        SlideInfo(
            path=path,
            reader="wsidicom",
            vendor="dicom",
            width_px0=levels[0].width,
            height_px0=levels[0].height,
            mpp_x=mpp[0] if mpp else None,
            mpp_y=mpp[1] if mpp else None,
            mpp_source="file" if mpp else None,
            objective_power=plausible_magnification(_objective(dataset)),
            levels=levels,
            channels=composite.channels,
            dtype=str(stored[0][planes[0]].dtype),
            composite=composite.statement,
            bounds_px0=None,
            associated_images=tuple(associated),
            properties=_properties(dataset, path),
            fingerprint=fingerprint,
            icc_profile=profile_name(profile),
        ),
        read_tile,
        associated,
        owner=("wsidicom", path.resolve(), fingerprint),
        release=opened.close,
        icc=profile,
    )


def _dataset(file: Path) -> Any:
    """Return the header of a file of the finest level, without what is long."""
    from pydicom import dcmread

    return dcmread(file, stop_before_pixels=True, specific_tags=[*HEADER_NAMES, *PROPERTY_NAMES])


def _stored_sizes(files: Sequence[Path]) -> list[tuple[int, int]]:
    """Return (width, height) of every level that is stored, the largest first.

    wsidicom leaves out levels that are no half of a half of the finest; OpenSlide does not, and
    by both the slide must have one name.
    """
    from pydicom import dcmread

    names = ["ImageType", "TotalPixelMatrixColumns", "TotalPixelMatrixRows"]
    headers = [dcmread(file, stop_before_pixels=True, specific_tags=[*names]) for file in files]
    sizes = {
        (int(header.TotalPixelMatrixColumns), int(header.TotalPixelMatrixRows))
        for header in headers
        if "VOLUME" in header.get("ImageType", [])
    }
    return sorted(sizes, reverse=True)


def _shown_planes(level: dict[tuple[str, float], Any], z: float) -> list[tuple[str, float]]:
    """Return (optical path, focal plane) of each channel: all paths, in one plane."""
    shown: dict[str, tuple[str, float]] = {}
    for key in sorted(level, key=lambda key: (key[0], abs(key[1] - z))):
        shown.setdefault(key[0], key)
    return list(shown.values())


def _check(image: ImageData, path: Path) -> None:
    colors, syntax = str(image.photometric_interpretation), str(image.transfer_syntax)
    known = colors in (*RGB_COLORS, *GREY_COLORS)
    if known and colors.startswith("YBR"):
        known = syntax.startswith(COLOR_DECODED) and not syntax.endswith((".4.80", ".4.81"))
    if not known or image.samples_per_pixel not in (1, 3):
        raise SlideError(
            f"{path.name} stores colours as {colors} in transfer syntax {syntax}, "
            f"which cannot be shown: convert it to RGB."
        )
    size = image.tile_size
    if min(size.width, size.height, image.image_size.width, image.image_size.height) < 1:
        raise SlideError(f"{path.name} is damaged: it claims a picture without size.")
    if size.width * size.height * image.samples_per_pixel * 2 > MAX_TILE_BYTES:
        raise SlideError(f"{path.name} has tiles of {size.width} x {size.height} px, too large.")


def _levels(opened: WsiDicom) -> tuple[Level, ...]:
    sizes = [(level.size, level.default_instance.image_data.tile_size) for level in opened.pyramid]
    width, height = sizes[0][0].width, sizes[0][0].height
    return tuple(
        Level(
            size.width,
            size.height,
            (width / size.width + height / size.height) / 2,
            tile.width,
            tile.height,
        )
        for size, tile in sizes
    )


def _read(
    lock: threading.Lock,
    stored: Sequence[dict[tuple[str, float], ImageData]],
    planes: Sequence[tuple[str, float]],
    level: int,
    row: int,
    column: int,
) -> Raw:
    """Return raw [h, w, C] of one tile; parts outside the slide are whatever is stored."""
    from wsidicom.geometry import Point

    parts: list[Raw] = []
    for optical_path, z in planes:
        image = stored[level][optical_path, z]
        with lock:  # its decoder by pydicom keeps the frame at hand in one place for all threads
            tile = image.get_decoded_tile(Point(column, row), z, optical_path, cache=False)
        if tile.shape[:2] != (image.tile_size.height, image.tile_size.width):
            raise ValueError(f"a tile has {tile.shape[1]} x {tile.shape[0]} px")
        parts.append(tile if tile.ndim == 3 else tile[..., None])
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)


def _composite(
    stored: Sequence[dict[tuple[str, float], ImageData]],
    planes: Sequence[tuple[str, float]],
    dataset: Any,
    read: Callable[[int, int, int], Raw],
    levels: Sequence[Level],
) -> Composite:
    first = stored[0][planes[0]]
    dtype: np.dtype[np.generic] = np.dtype(first.dtype)
    if first.samples_per_pixel == 3:
        if len(planes) > 1:
            raise ValueError("it has several pictures in colour, one for each optical path")
        return rgb_composite(dtype, 3, False, 2.0 ** min(first.bits, 16) - 1)
    inverted = first.photometric_interpretation == "MONOCHROME1" and len(planes) == 1
    names = {
        str(item.get("OpticalPathIdentifier", "")): str(item.get("OpticalPathDescription", ""))
        for item in dataset.get("OpticalPathSequence", [])
    }
    channels = [Channel(names.get(plane[0]) or f"optical path {plane[0]}") for plane in planes]
    values: Raw = np.zeros((1, len(planes)))
    if dtype != np.uint8:
        coarsest = levels[-1]
        columns = -(-coarsest.width // coarsest.tile_width)
        count = columns * -(-coarsest.height // coarsest.tile_height)
        chosen = sorted({count * step // SAMPLE_TILES for step in range(SAMPLE_TILES)})
        tiles = [read(len(levels) - 1, *divmod(index, columns)) for index in chosen]
        values = np.concatenate([tile.reshape(-1, len(planes)) for tile in tiles])
    return channel_composite(dtype, channels, values, inverted)


def _associated(opened: WsiDicom) -> dict[str, Callable[[], Uint8Image]]:
    pictures: dict[str, Callable[[], Uint8Image]] = {}
    if opened.labels:
        pictures["label"] = lambda: np.array(opened.read_label().convert("RGB"))
    if opened.overviews:
        pictures["macro"] = lambda: np.array(opened.read_overview().convert("RGB"))
    return pictures


def _profile(dataset: Any) -> bytes:
    paths = dataset.get("OpticalPathSequence", [])
    return bytes(paths[0].get("ICCProfile", b"") or b"") if paths else b""


def _objective(dataset: Any) -> str | None:
    paths = dataset.get("OpticalPathSequence", [])
    power = paths[0].get("ObjectiveLensPower", None) if paths else None
    return None if power is None else str(power)


def _properties(dataset: Any, path: Path) -> dict[str, str]:
    """Return what a person may want to read; nothing of the patient."""
    found = {f"dicom.{name}": str(dataset.get(name)) for name in PROPERTY_NAMES if name in dataset}
    instance = read_instance(path)
    if instance is not None:
        found["dicom.TransferSyntaxUID"] = instance.transfer_syntax
    return found
