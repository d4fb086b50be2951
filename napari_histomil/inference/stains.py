"""Stain normalisation of a job: fitted once on tiles spread over the slide, then applied."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from napari_histomil.errors import RunError
from napari_histomil.slides.slide import Uint8Image
from napari_histomil.stain import REFERENCE, StainFit, fit_stain, normalise_stain

Recolor = Callable[[Uint8Image], Uint8Image]

MIN_OPTICAL_DENSITY = 0.15
"""Mean of a pixel's channels; what is brighter is glass (Macenko et al. 2009 use the same)."""

MIN_PIXELS = 1000


def fit_to_tiles(tiles: Uint8Image, method: str, slide: str) -> Mapping[str, Any]:
    """Fit a slide's stains to the tissue in some of its tiles.

    Parameters
    ----------
    tiles
        uint8 [n, H, W, 3].
    method
        ``macenko`` or ``reinhard``.
    slide
        The slide's name, for messages.

    Returns
    -------
    Mapping
        The fit as plain JSON values.

    Raises
    ------
    RunError
        If the tiles hold too little stained tissue.
    """
    pixels = tiles.reshape(-1, 3)
    density = -np.log10(np.maximum(pixels, 1) / 255.0).mean(axis=1)
    tissue = pixels[density > MIN_OPTICAL_DENSITY]
    if len(tissue) < MIN_PIXELS:
        raise RunError(
            f"{slide} holds too little stained tissue to fit its stains: run it without --stain."
        )
    return fit_stain(tissue, method).to_json()


def recolor_with(fit: Mapping[str, Any], method: str) -> Recolor:
    """Return what gives tiles the colours of the reference slide."""
    source, target = StainFit.from_json(fit), REFERENCE[method]
    return lambda pixels: normalise_stain(pixels, source, target)
