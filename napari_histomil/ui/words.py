"""Numbers as people read them; nothing here knows what they count."""

from __future__ import annotations

import math


def count(number: int) -> str:
    """Return a whole number with thin blanks between thousands, as ISO 80000 has it."""
    return f"{number:,}".replace(",", "\u202f")


def regions_text(number: int) -> str:
    """Return how many regions: ``1 region``, ``1,200 regions``."""
    return f"{count(number)} region{'' if number == 1 else 's'}"


def rate(per_second: float) -> str:
    """Return a speed with three digits, or as a whole number above a thousand."""
    return f"{per_second:.3g}" if per_second < 1000 else count(round(per_second))


def digits(value: float, significant: int) -> str:
    """Return a number above 0 with so many digits that count, and no exponent."""
    return f"{value:.{max(significant - 1 - math.floor(math.log10(value)), 0)}f}"


def times(power: float) -> str:
    """Return a magnification as the buttons have it: ``10x``, ``1.25x``, ``12.3x``."""
    text = digits(power, 3)
    return f"{text.rstrip('0').rstrip('.') if '.' in text else text}x"


def duration(seconds: float) -> str:
    """Return a time in two units at most."""
    whole = round(seconds)
    if whole < 60:
        return f"{max(whole, 1)} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
