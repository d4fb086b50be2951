"""Stains of a job, normalised or changed: fitted once on tiles spread over the slide."""

from __future__ import annotations

from collections.abc import Callable

from napari_histomil.errors import RunError
from napari_histomil.slides.slide import Uint8Image
from napari_histomil.stain import (
    REFERENCE,
    Condition,
    Method,
    StainFit,
    fit_stain,
    normalise_stain,
    with_condition,
)
from napari_histomil.tissue import is_fluorescence

MAX_PIXELS = 200_000


def fit_to_tiles(tiles: Uint8Image, method: Method, slide: str) -> StainFit:
    """Fit a slide's stains to some of its tiles; glass between the tissue does not count.

    Parameters
    ----------
    tiles
        uint8 [n, H, W, 3].
    method
        ``macenko`` or ``reinhard``.
    slide
        The slide's name, for messages.

    Raises
    ------
    RunError
        If the tiles hold too little stained tissue, or glow: black would count as stain.
    """
    if is_fluorescence(tiles):
        raise RunError(
            f"{slide} is bright on black, and stain normalisation is for stains that absorb "
            f"light: run without it (--stain none)."
        )
    pixels = tiles.reshape(-1, 3)
    every = -(-len(pixels) // MAX_PIXELS) or 1
    try:
        return fit_stain(pixels[::every], method)
    except RunError as error:
        raise RunError(f"The stains of {slide} cannot be fitted: {error}") from error


def recolor_with(
    fit: StainFit, condition: Condition | None = None
) -> Callable[[Uint8Image], Uint8Image]:
    """Return what gives tiles the colours of the reference slide, or those of a condition."""
    target = REFERENCE[fit.method] if condition is None else with_condition(fit, condition)
    return lambda pixels: normalise_stain(pixels, fit, target)
