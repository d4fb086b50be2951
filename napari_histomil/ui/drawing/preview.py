"""What is seen of a gesture before it is a step: values that `overlay.py` paints."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from napari_histomil.ui.drawing.pointer import XY

RGB = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Path:
    """A line, an outline, or what a brush covers, in level-0 pixels."""

    xy_px0: NDArray[np.float64]
    """[N, 2]"""
    closed: bool = False
    width_px0: float = 0.0
    """Of a brush; 0 for a thin line."""
    color: RGB = (255, 255, 255)
    dashed: bool = False
    filled: bool = False


@dataclass(frozen=True, eq=False)
class Preview:
    """All that is seen of a tool."""

    paths: tuple[Path, ...] = ()
    handles: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 2)))
    """[N, 2]: places that can be taken hold of."""
    held: XY | None = None
    """The one that is."""
    text: str = ""
    text_at: XY | None = None
    brush_px0: float = 0.0
    """Width of the circle around the pointer; 0 for none."""
    brush_color: RGB = (255, 255, 255)


NOTHING = Preview()
