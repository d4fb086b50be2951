"""An overview that took long, kept in the slide's sidecar folder: ``overview.tiff``.

It is a tiled, losslessly compressed TIFF that other programs can open. Its description says of
which slide it is and what its pixels add up to; whatever does not fit is made anew.
"""

from __future__ import annotations

import json
import logging
import zlib

import numpy as np
import tifffile

from napari_histomil.errors import HistomilError
from napari_histomil.files import whole_file
from napari_histomil.resources import sidecar, sidecars
from napari_histomil.slides.slide import SlideInfo, Uint8Image
from napari_histomil.slides.threads import core_count

NAME = "overview.tiff"
SCHEMA = 1
TILE_PX = 256

_log = logging.getLogger(__name__)


def save(info: SlideInfo, pixels: Uint8Image) -> None:
    """Keep an overview; a folder that cannot be written to is no reason to stop.

    Parameters
    ----------
    info
        The slide's facts.
    pixels
        uint8 [h, w, 3].
    """
    folder = sidecar(info.path, info.fingerprint)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with whole_file(folder / NAME) as part:
            tifffile.imwrite(
                part,
                pixels,
                photometric="rgb",
                tile=(TILE_PX, TILE_PX),
                compression="zstd",
                predictor=2,
                metadata=None,
                description=json.dumps(_facts(info, pixels)),
            )
    except (HistomilError, OSError) as error:
        _log.warning("The overview of %s cannot be kept: %s", info.path.name, error)


def load(info: SlideInfo, size: tuple[int, int]) -> Uint8Image | None:
    """Return what `save` has kept for a slide, or None where nothing sound lies.

    Parameters
    ----------
    size
        (width, height) that it must have.
    """
    for folder in sidecars(info.path, info.fingerprint):
        file = folder / NAME
        if not file.is_file():
            continue
        try:
            pixels = _read(info, file, size)
        except Exception as error:  # noqa: BLE001  a damaged TIFF raises anything
            _log.warning("%s is damaged and made anew: %s", file.name, error)
            continue
        if pixels is not None:
            return pixels
    return None


def _read(info: SlideInfo, file: object, size: tuple[int, int]) -> Uint8Image | None:
    with tifffile.TiffFile(file) as tiff:
        page = tiff.pages.first
        facts = json.loads(page.description)
        shape = (size[1], size[0], 3)
        if facts["schema"] != SCHEMA or facts["fingerprint"] != info.fingerprint:
            return None
        if facts.get("icc", False) != info.icc_applied:  # of other colours
            return None
        if page.shape != shape or page.dtype != np.uint8:  # before memory is taken for it
            return None
        pixels: Uint8Image = page.asarray(maxworkers=core_count())
    if zlib.crc32(np.ascontiguousarray(pixels).data) != facts["crc32"]:
        raise ValueError("its pixels are not those that were written")
    return pixels


def _facts(info: SlideInfo, pixels: Uint8Image) -> dict[str, object]:
    return {
        "schema": SCHEMA,
        "program": "napari-histomil",
        "fingerprint": info.fingerprint,
        "icc": info.icc_applied,
        "crc32": zlib.crc32(np.ascontiguousarray(pixels).data),
    }
