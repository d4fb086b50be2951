"""Zones of one block on a lattice that is the same for every block, and masks made of them.

Because the lattice is common, a cell that reaches over a block's edge is seen alike from both
sides.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from napari_histomil.slides.synthetic.cells import REACH_UM
from napari_histomil.slides.synthetic.noise import Floats
from napari_histomil.slides.synthetic.scene import Scene, Zones

Positions = NDArray[np.float32] | NDArray[np.float64]

FIELD_UM = 4.0
"""Distance of the lattice's nodes; zones are interpolated between."""


class Fields:
    """Zones of one block on the common lattice.

    Parameters
    ----------
    scene
        The plan of the slide.
    corner_um, side_um
        Top-left corner (x, y) and side of the block.
    """

    def __init__(self, scene: Scene, corner_um: tuple[float, float], side_um: float) -> None:
        self.first = [int((c - REACH_UM) // FIELD_UM) - 1 for c in corner_um]
        count = int((side_um + 2 * REACH_UM) // FIELD_UM) + 5
        x, y = ((first + np.arange(count)) * FIELD_UM for first in self.first)
        self.x_um, self.y_um = x.astype(np.float32)[None, :], y.astype(np.float32)[:, None]
        self.zones = scene.zones(self.x_um, self.y_um)

    def raster(self, values: Floats, x_um: Floats, y_um: Floats) -> Floats:
        """Interpolate lattice values on a raster of pixels with centres x_um [w], y_um [h]."""
        ix, tx = self._split(x_um, 0)
        iy, ty = self._split(y_um, 1)
        columns = values[:, ix] + (values[:, ix + 1] - values[:, ix]) * tx
        top = columns[iy]
        out: Floats = columns[iy + 1]
        out -= top
        out *= ty[:, None]
        out += top
        return out

    def points(self, x_um: Positions, y_um: Positions) -> Zones:
        """Interpolate every zone at points; points off the lattice take its edge's values."""
        ix, tx = self._split(x_um, 0)
        iy, ty = self._split(y_um, 1)
        limit = len(self.zones.node) - 2
        ix, iy = np.clip(ix, 0, limit), np.clip(iy, 0, limit)
        found = []
        for zone in fields(Zones):
            v = getattr(self.zones, zone.name)
            top = v[iy, ix] + (v[iy, ix + 1] - v[iy, ix]) * tx
            low = v[iy + 1, ix] + (v[iy + 1, ix + 1] - v[iy + 1, ix]) * tx
            found.append(top + (low - top) * ty)
        return Zones(*found)

    def _split(self, position_um: Positions, axis: int) -> tuple[NDArray[np.int64], Floats]:
        u = np.asarray(position_um, np.float64) / FIELD_UM
        low = np.floor(u)
        return low.astype(np.int64) - self.first[axis], (u - low).astype(np.float32)


class Masks:
    """Masks in [0, 1] of one block of pixels, with short cuts for all or nothing.

    Most zones are absent from most blocks; what is nothing costs nothing.

    Parameters
    ----------
    fields_
        The block's zones.
    x_um, y_um
        Centres of its pixels.
    """

    def __init__(self, fields_: Fields, x_um: Floats, y_um: Floats) -> None:
        self.fields, self.x_um, self.y_um = fields_, x_um, y_um
        self.shape = len(y_um), len(x_um)
        self.nothing = np.zeros(self.shape, np.float32)
        self.everything = np.ones(self.shape, np.float32)

    def up(self, values: Floats) -> Floats:
        """Return lattice values at the pixels."""
        return self.fields.raster(values, self.x_um, self.y_um)

    def inside(self, depth_um: Floats, soft_um: float = 3.0) -> Floats:
        """Return 1 inside a zone and 0 outside, with an edge `soft_um` wide."""
        if depth_um.max() < -soft_um:
            return self.nothing
        if depth_um.min() > soft_um:
            return self.everything
        ramp = self.up(depth_um)
        ramp *= np.float32(1 / soft_um)
        ramp += np.float32(0.5)
        return np.clip(ramp, 0, 1, out=ramp)

    def both(self, a: Floats, b: Floats) -> Floats:
        """Return a and b."""
        if a is self.nothing or b is self.nothing:
            return self.nothing
        if a is self.everything or b is self.everything:
            return b if a is self.everything else a
        return a * b

    def without(self, a: Floats, b: Floats) -> Floats:
        """Return a and not b."""
        if a is self.nothing or b is self.everything:
            return self.nothing
        return a if b is self.nothing else a * (1 - b)

    def either(self, a: Floats, b: Floats) -> Floats:
        """Return a or b."""
        if a is self.nothing or b is self.nothing:
            return b if a is self.nothing else a
        either: Floats = np.maximum(a, b)
        return either

    def add(self, total: Floats, mask: Floats, amount: Floats | float) -> None:
        """Add `amount` to `total` where the mask is."""
        if mask is not self.nothing:
            total += mask * amount


@dataclass(frozen=True, slots=True, eq=False)
class Canvas:
    """What cells are stamped on, float32 [side, side] each."""

    nuclei: Floats
    eosin: Floats
    tint: Floats
    blood: Floats
