"""Hypothesis strategies of shapes, which several test files share."""

from __future__ import annotations

import math

import numpy as np
import shapely
from hypothesis import strategies as st
from shapely.geometry import Polygon

from napari_histomil.annotations.edit import areal

places = st.tuples(st.integers(-500, 500), st.integers(-500, 500))


@st.composite
def blobs(draw) -> Polygon:
    """A star-shaped polygon, maybe with a hole, in hundredths of a pixel."""
    x, y = draw(places)
    radii = draw(st.lists(st.integers(20, 300), min_size=3, max_size=12))
    angles = np.arange(len(radii)) * 2 * math.pi / len(radii)
    xy = np.stack([x + radii * np.cos(angles), y + radii * np.sin(angles)], axis=1)
    shape = Polygon(xy)
    if draw(st.booleans()):
        hole = shapely.Point(x, y).buffer(min(radii) / 4, quad_segs=2)
        shape = shape.difference(hole)
    return areal(shape)


many_blobs = st.lists(blobs(), min_size=1, max_size=3).map(
    lambda several: areal(shapely.union_all(several))
)
"""Of one part or several."""
