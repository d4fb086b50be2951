"""Colour profiles (ICC) of scanners, and the way from a slide's colours to sRGB.

Scanners name the colours that they measure in a profile. Screens want sRGB, and so do people who
compare scanners; models want what they were trained on, which nearly always is the stored values.
So nothing is converted unless it is asked for.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

from napari_histomil.errors import SlideError
from napari_histomil.slides.resample import Uint8Image

Convert = Callable[[Uint8Image], Uint8Image]

UNCHANGED_LEVELS = 1
"""A profile whose colours are all within so many grey levels of sRGB is sRGB: rounding."""

MAX_PROFILE_BYTES = 1 << 24


def profile_name(profile: bytes) -> str:
    """Return what a profile calls itself; ``""`` where there is none.

    A profile that cannot be read is called ``unreadable``.
    """
    if not profile:
        return ""
    try:
        opened = _opened(profile)
        name = " ".join(ImageCms.getProfileDescription(opened).split())
    except (OSError, ImageCms.PyCMSError, ValueError):
        return "unreadable"
    return name or "without a name"


@lru_cache(maxsize=8)
def to_srgb(profile: bytes) -> Convert | None:
    """Return the conversion of uint8 [h, w, 3] from a profile to sRGB.

    The profile's own rendering intent is used. The conversion may be called from several threads
    at once; it takes about 15 ms a megapixel.

    Returns
    -------
    function or None
        None if the profile is sRGB, so that nothing has to be done.

    Raises
    ------
    SlideError
        If the profile cannot be read, or is not one of RGB colours.
    """
    try:
        source = _opened(profile)
        space = source.profile.xcolor_space.strip()
        if space != "RGB":
            raise SlideError(f"The colour profile is for {space} colours, but slides are RGB.")
        intent = ImageCms.Intent(ImageCms.getDefaultIntent(source))
        srgb = ImageCms.createProfile("sRGB")
        transform = ImageCms.buildTransform(source, srgb, "RGB", "RGB", intent)
    except (OSError, ImageCms.PyCMSError, ValueError) as error:
        raise SlideError(
            "The colour profile is damaged or of a kind that cannot be used: leave it out."
        ) from error

    def convert(pixels: Uint8Image) -> Uint8Image:
        if not pixels.size:
            return pixels
        picture = Image.fromarray(np.ascontiguousarray(pixels))
        transform.apply_in_place(picture)
        return np.array(picture)

    steps = np.linspace(0, 255, 16).astype(np.uint8)
    grid = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(64, 64, 3)
    moved = np.abs(convert(grid).astype(np.int16) - grid).max()
    return None if moved <= UNCHANGED_LEVELS else convert


def _opened(profile: bytes) -> ImageCms.ImageCmsProfile:
    if len(profile) > MAX_PROFILE_BYTES:
        raise ValueError("a profile of this size is none")
    return ImageCms.ImageCmsProfile(io.BytesIO(profile))
