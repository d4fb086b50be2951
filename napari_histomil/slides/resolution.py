"""Which micrometres a pixel spans can be believed.

Files carry resolutions that mean nothing: 0, not-a-number, the 72 dpi of a paint program. What is
not plausible counts as unknown, so that a person is asked instead of measured wrongly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from napari_histomil.errors import SlideError

PLAUSIBLE_MPP = (0.01, 1000.0)
"""µm/px that a microscope picture, or a heatmap saved as one, can have."""

PRINT_DPI = (72.0, 96.0, 100.0, 120.0, 144.0, 150.0, 180.0, 200.0, 240.0, 300.0, 600.0, 1200.0)
"""Dots per inch that programs write when they know nothing."""

PLAUSIBLE_MAGNIFICATION = (0.1, 200.0)

Mpp = tuple[float, float]


def plausible_mpp(mpp_x: object, mpp_y: object) -> Mpp | None:
    """Return (x, y) µm/px as floats, or None unless both are plausible numbers."""
    values = [_number(value) for value in (mpp_x, mpp_y)]
    low, high = PLAUSIBLE_MPP
    kept = [value for value in values if value is not None and low <= value <= high]
    return (kept[0], kept[1]) if len(kept) == 2 else None


def plausible_magnification(power: object) -> float | None:
    """Return the objective power as a float, or None if it cannot be one."""
    value = _number(power)
    low, high = PLAUSIBLE_MAGNIFICATION
    return value if value is not None and low <= value <= high else None


def mpp_from_dots(dots_xy: tuple[float, float], um_per_unit: float) -> Mpp | None:
    """Return µm/px from the resolution tags of a TIFF.

    Parameters
    ----------
    dots_xy
        Pixels per unit along (x, y).
    um_per_unit
        25 400 for inches, 10 000 for centimetres.

    Returns
    -------
    (x, y) µm/px, or None where the tags say nothing: not positive, not plausible, or one of the
    round numbers for printers that programs fill in (72 dpi and the like).
    """
    if not all(math.isfinite(dots) and dots > 0 for dots in dots_xy):
        return None
    dpi = [dots * 25_400 / um_per_unit for dots in dots_xy]
    if all(any(abs(value - dots) < 0.05 for dots in PRINT_DPI) for value in dpi):
        return None
    return plausible_mpp(um_per_unit / dots_xy[0], um_per_unit / dots_xy[1])


def given_mpp(mpp: float | Sequence[float], path: Path) -> Mpp:
    """Check µm/px that a person gave, one number or (x, y).

    Raises
    ------
    SlideError
        If they are not one or two plausible numbers.
    """
    pair = tuple(mpp) if isinstance(mpp, list | tuple) else (mpp, mpp)
    checked = plausible_mpp(*pair) if len(pair) == 2 else None
    if checked is None:
        raise SlideError(
            f"{mpp} cannot be the µm/px of {path.name}: give one number, or two for x and y, "
            f"between {PLAUSIBLE_MPP[0]:g} and {PLAUSIBLE_MPP[1]:g}."
        )
    return checked


def _number(value: object) -> float | None:
    """Read a finite number out of what a file holds; None where there is none."""
    if not isinstance(value, str | int | float):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
