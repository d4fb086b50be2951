"""Which tiles of stored results are worth a look, and why; one page of them is a gallery.

Nothing here reads pixels (`slides/thumbnails.py` does) or knows a window.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Patch:
    """One thumbnail of a gallery: a place of a slide, and why it is listed."""

    slide: Path
    fingerprint: str
    xy_px0: Point
    """Upper left corner (x, y) of the tile's cell, level-0 px."""
    size_px0: Point
    """(width, height), level-0 px."""
    score: float
    """What the model gave the tile."""
    truth: float
    """Share of it that is positive by the ground truth; NaN where nobody says."""
    why: str
    """Why it is listed, in words."""
    alike: tuple[Patch, ...] = ()
    """Others of the same kind that lie over it or look like it, and are not listed themselves."""
