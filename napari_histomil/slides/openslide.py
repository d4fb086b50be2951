"""Slides through the OpenSlide library: every vendor format that the TIFF path does not take.

`read_region` is OpenSlide's own, so where a corner falls between two pixels of a level,
OpenSlide interpolates (`tiff.py` and `zarr.py` take the nearest pixel instead). Only its
transparency is gone: it lies on white.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import numpy as np
import openslide
from numpy.typing import NDArray
from PIL import Image, ImageCms

from napari_histomil.errors import SlideError, brief
from napari_histomil.geometry import Rect
from napari_histomil.slides.claims import check_tile
from napari_histomil.slides.icc import Convert, profile_name
from napari_histomil.slides.identity import fingerprint_file, fingerprint_text
from napari_histomil.slides.resolution import plausible_magnification, plausible_mpp
from napari_histomil.slides.slide import Level, SlideInfo, Uint8Image, check_region

FORMATS_OF_MANY_FILES = frozenset({"dicom", "mirax"})
"""OpenSlide's names of formats where the file opened is only a part of the slide."""

DEFAULT_TILE_PX = 256

MAX_ASSOCIATED_PX = 1 << 25
SIDES = ("width", "height")


def detect_format(path: Path) -> str | None:
    """Return OpenSlide's name of the file's format; None if it knows none."""
    vendor: str | None = openslide.OpenSlide.detect_format(path)
    return vendor


class OpenSlideReader:
    """A slide read by OpenSlide; see `slide.Slide` for the methods.

    Raises
    ------
    SlideError
        If OpenSlide does not know the format or cannot read the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._handle: openslide.OpenSlide | None = self._open()
        self._convert: Convert | None = None
        self.icc = _profile(self._handle)
        try:
            self.info = _describe(path, self._handle, self.icc)
        except (openslide.OpenSlideError, ValueError, OverflowError) as error:
            raise SlideError(
                f"{path.name} is damaged: what it says of itself makes no sense ({brief(error)})."
            ) from error

    def convert_colors(self, convert: Convert) -> None:
        """Give pixels through `convert` from now on; side pictures stay as they are."""
        self._convert = convert

    def _open(self) -> openslide.OpenSlide:
        try:
            return openslide.OpenSlide(self._path)
        except openslide.OpenSlideUnsupportedFormatError as error:
            raise SlideError(
                f"{self._path.name} is not a slide that OpenSlide can read: "
                f"it may be another kind of file, damaged, or lack the files that belong to it."
            ) from error
        except openslide.OpenSlideError as error:
            raise SlideError(
                f"{self._path.name} cannot be opened: OpenSlide says {_reason(error, self._path)}"
            ) from error

    def read_region(
        self, xy_px0: tuple[int, int], level: int, size: tuple[int, int]
    ) -> Uint8Image:
        """Read as `Slide.read_region` says; corners between level pixels are interpolated."""
        check_region(self.info, xy_px0, level, size)
        handle = self._current()
        corner = int(xy_px0[0]), int(xy_px0[1])
        try:
            image = handle.read_region(corner, int(level), (int(size[0]), int(size[1])))
        except openslide.OpenSlideError as error:
            self._replace(handle)
            raise SlideError(
                f"{self._path.name} cannot be read at ({corner[0]}, {corner[1]}) "
                f"of level {level}: OpenSlide says {_reason(error, self._path)}"
            ) from error
        return on_white(image, self._convert)

    def read_associated(self, name: str) -> Uint8Image:
        """Read as `Slide.read_associated` says."""
        handle = self._current()
        if name not in self.info.associated_images:
            raise SlideError(f"{self._path.name} has no associated image {name!r}.")
        try:
            return on_white(handle.associated_images[name])
        except openslide.OpenSlideError as error:
            self._replace(handle)
            raise SlideError(
                f"The image {name!r} of {self._path.name} cannot be read: "
                f"OpenSlide says {_reason(error, self._path)}"
            ) from error

    def close(self) -> None:
        """Release the file."""
        with self._lock:
            handle, self._handle = self._handle, None
        # Not closed by hand: another thread may be inside OpenSlide with it, and closing under
        # it crashes the process. The library's own finaliser closes with the last reference.
        del handle

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _current(self) -> openslide.OpenSlide:
        handle = self._handle
        if handle is None:
            raise SlideError(f"{self._path.name} is closed already.")
        return handle

    def _replace(self, broken: openslide.OpenSlide) -> None:
        """Open anew: after one error OpenSlide refuses every further read of a handle."""
        with self._lock:
            if self._handle is broken:
                self._handle = self._open()


def on_white(image: Image.Image, convert: Convert | None = None) -> Uint8Image:
    """Return an RGB(A) picture as uint8 [h, w, 3], transparent parts laid on white.

    Colours go through `convert` first: the white is ours and in no need of it.
    """
    if image.mode != "RGBA":
        opaque: Uint8Image = np.array(image.convert("RGB"))
        return opaque if convert is None else convert(opaque)
    pixels: NDArray[np.uint8] = np.asarray(image)
    alpha = pixels[..., 3:]
    rgb = np.ascontiguousarray(pixels[..., :3])
    if convert is not None:
        rgb = convert(rgb)
    if (alpha == 255).all():
        return rgb
    wide = alpha.astype(np.uint16)
    return ((rgb * wide + 255 * (255 - wide) + 127) // 255).astype(np.uint8)


def _describe(path: Path, handle: openslide.OpenSlide, icc: bytes) -> SlideInfo:
    properties = _properties(handle)
    levels = tuple(
        Level(
            *handle.level_dimensions[index],
            handle.level_downsamples[index],
            int(properties.get(f"openslide.level[{index}].tile-width", DEFAULT_TILE_PX)),
            int(properties.get(f"openslide.level[{index}].tile-height", DEFAULT_TILE_PX)),
        )
        for index in range(handle.level_count)
    )
    for level in levels:
        check_tile(path, level.tile_width, level.tile_height)
    width, height = handle.dimensions
    mpp = plausible_mpp(
        properties.get(openslide.PROPERTY_NAME_MPP_X),
        properties.get(openslide.PROPERTY_NAME_MPP_Y),
    )
    return SlideInfo(
        path=path,
        reader="openslide",
        vendor=properties.get(openslide.PROPERTY_NAME_VENDOR, "unknown"),
        width_px0=width,
        height_px0=height,
        mpp_x=mpp[0] if mpp else None,
        mpp_y=mpp[1] if mpp else None,
        mpp_source="file" if mpp else None,
        objective_power=plausible_magnification(
            properties.get(openslide.PROPERTY_NAME_OBJECTIVE_POWER)
        ),
        levels=levels,
        channels=("red", "green", "blue"),
        dtype="uint8",
        composite="",
        bounds_px0=_bounds(properties, (width, height)),
        associated_images=_associated(handle, properties),
        properties=properties,
        fingerprint=_fingerprint(path, handle, properties),
        icc_profile=profile_name(icc),
    )


def _profile(handle: openslide.OpenSlide) -> bytes:
    try:
        profile = handle.color_profile
    except (OSError, ImageCms.PyCMSError, openslide.OpenSlideError):
        # It is damaged, but the pixels are none the worse.
        return b""
    return b"" if profile is None else bytes(profile.tobytes())


def _properties(handle: openslide.OpenSlide) -> dict[str, str]:
    """Return what OpenSlide knows; of damaged files it names properties that have no value."""
    found = {}
    for name in handle.properties:
        with contextlib.suppress(KeyError, UnicodeDecodeError):
            found[name] = handle.properties[name]
    return found


def _associated(handle: openslide.OpenSlide, properties: Mapping[str, str]) -> tuple[str, ...]:
    """Return the names of the side pictures that are not too large to be looked at."""
    sizes = {
        name: [properties.get(f"openslide.associated.{name}.{side}", "0") for side in SIDES]
        for name in handle.associated_images
    }
    return tuple(
        name
        for name, (width, height) in sizes.items()
        if int(width) * int(height) <= MAX_ASSOCIATED_PX
    )


def _bounds(properties: Mapping[str, str], size: tuple[int, int]) -> Rect | None:
    """Return the part that the scanner filled, if it is one and lies on the slide."""
    names = ("x", "y", "width", "height")
    values = [properties.get(f"openslide.bounds-{name}") for name in names]
    numbers = [float(value) for value in values if value is not None]
    if len(numbers) < 4 or not all(map(math.isfinite, numbers)):
        return None
    x, y, width, height = numbers
    sound = width > 0 and height > 0 and x >= 0 and y >= 0
    if not sound or x + width > size[0] + 1 or y + height > size[1] + 1:
        return None
    return Rect(x, y, width, height)


def _fingerprint(path: Path, handle: openslide.OpenSlide, properties: Mapping[str, str]) -> str:
    """Identify the content: by the file, or where several make one slide by OpenSlide's hash."""
    quickhash = properties.get(openslide.PROPERTY_NAME_QUICKHASH1)
    vendor = str(detect_format(path))
    # Hamamatsu's NDPI is one file, its older VMS and VMU are an index beside the pictures.
    index_only = vendor == "hamamatsu" and path.suffix.lower() != ".ndpi"
    if quickhash is None or not (index_only or vendor in FORMATS_OF_MANY_FILES):
        return fingerprint_file(path)
    # DICOM: any instance of the series opens the same slide, so no one file may stand for it.
    return fingerprint_text(vendor, quickhash, repr(handle.level_dimensions))


def _reason(error: Exception, path: Path) -> str:
    """Return OpenSlide's words as half a sentence without the path, which is said already."""
    words = brief(str(error).replace(str(path), path.name))
    return f'"{words}".'
