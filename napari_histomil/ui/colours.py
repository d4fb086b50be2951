"""Colour maps of heatmaps: which there are, for napari's layers and for the bar in the dock.

All are ordered in lightness or run through white from one of two hues to the other, so that
readers with any colour vision can tell low from high. No rainbow: it shows edges that are not
there. What has no score is transparent in all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

import numpy as np
from napari.utils.colormaps import Colormap, ensure_colormap
from numpy.typing import NDArray

COLOUR_MAPS: Mapping[str, str] = MappingProxyType(
    {
        "viridis": "dark violet to yellow, even steps of lightness; safe for every colour vision",
        "magma": "black to pale yellow, even steps of lightness",
        "cividis": "dark blue to yellow, looks the same to every colour vision",
        "blue-white-red": "blue is low, red is high, the middle is white; usual for attention",
    }
)
"""Name of each colour map, with what it looks like in words."""

DEFAULT = "viridis"

DIVERGING = "blue-white-red"
"""For what has a sign: its middle stands for 0."""

_STEPS = 256

# Blue and red of one lightness (after Moreland's diverging maps: the ends differ in hue, the
# lightness falls on both sides of the white middle), which red-green blind readers tell apart.
_BLUE, _WHITE, _RED = (0.13, 0.30, 0.75), (0.97, 0.97, 0.97), (0.75, 0.07, 0.15)


@cache
def colour_map(name: str) -> Colormap:
    """Return napari's colour map for values 0 to 1; NaN is transparent.

    Parameters
    ----------
    name
        A key of `COLOUR_MAPS`.
    """
    if name not in COLOUR_MAPS:
        raise KeyError(f"no colour map {name!r}: there are {', '.join(COLOUR_MAPS)}")
    if name == DIVERGING:
        half = np.linspace(0, 1, _STEPS // 2)[:, None]
        low = (1 - half) * _BLUE + half * np.array(_WHITE)
        high = (1 - half) * _WHITE + half * np.array(_RED)
        rgb = np.concatenate([low, high])
    else:
        rgb = np.asarray(ensure_colormap(name).map(np.linspace(0, 1, _STEPS)))[:, :3]
    rgba = np.column_stack([rgb, np.ones(len(rgb))])
    # napari has its own of the same names, which it would not let us replace.
    return Colormap(rgba, name=f"{name} (HistoMIL)", nan_color=(0, 0, 0, 0))


def colour_steps(name: str) -> NDArray[np.uint8]:
    """Return the colour map as uint8 [256, 3], lowest value first."""
    return np.rint(np.asarray(colour_map(name).colors)[:, :3] * 255).astype(np.uint8)
