"""What a block of tissue is made of: concentrations of hematoxylin, eosin and blood.

Zones come from the scene on a coarse lattice that is the same for every block, so a cell that
reaches over a block's edge is seen alike from both sides.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from napari_histomil.slides.synthetic.cells import (
    CENTROCYTE,
    ERYTHROCYTE,
    HISTIOCYTE,
    KINDS,
    LYMPHOCYTE,
    REACH_UM,
    SPINDLE,
    TUMOUR,
    TURNS,
    Kind,
    Stamps,
    lattice,
    make_stamps,
    stamp,
)
from napari_histomil.slides.synthetic.noise import (
    Floats,
    hash01,
    octaves,
    periodic_texture,
    value_noise,
)
from napari_histomil.slides.synthetic.scene import Scene, Zones

FIELD_UM = 4.0
"""Distance of the lattice on which zones are computed; they are interpolated between."""
FAT_CELL_UM = 50.0
"""Distance between the middles of neighbouring fat cells."""


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

    def points(self, x_um: Floats, y_um: Floats) -> Zones:
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

    def _split(self, position_um: Floats, axis: int) -> tuple[NDArray[np.int64], Floats]:
        u = np.asarray(position_um, np.float64) / FIELD_UM
        low = np.floor(u)
        return low.astype(np.int64) - self.first[axis], (u - low).astype(np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Matter:
    """Concentrations in one block, float32 [side, side] each."""

    hematoxylin: Floats
    eosin: Floats
    blood: Floats | None


class Histology:
    """Makes the matter of blocks; holds the pictures and textures of one slide.

    Parameters
    ----------
    scene
        The plan of the slide.
    mpp
        Resolution in µm/px.
    block
        Side of a block in px.
    """

    def __init__(self, scene: Scene, mpp: float, block: int) -> None:
        self.scene, self.mpp, self.block = scene, mpp, block
        rng = np.random.default_rng([scene.seed, 21])
        self.stamps: dict[str, Stamps] = {k.name: make_stamps(k, mpp, rng) for k in KINDS}
        self.cloud = periodic_texture(601, 3.0 / mpp, rng)
        self.gap = periodic_texture(613, (1.0 / mpp, 2.6 / mpp), rng)
        coarse, fine = (
            periodic_texture(512, (4.0, 50.0), rng),
            periodic_texture(512, (1.1, 26.0), rng),
        )
        self.fibre = 0.65 * coarse + 0.55 * fine

    def tile(self, texture: Floats, bx: int, by: int) -> Floats:
        """Cut a block's share out of a texture that repeats over the slide."""
        steps = np.arange(self.block)
        rows, columns = (steps + by * self.block) % len(texture), (steps + bx * self.block)
        found: Floats = texture[rows][:, columns % len(texture)]
        return found

    def matter(self, bx: int, by: int, fields_: Fields) -> Matter:
        """Return the concentrations in block (column, row)."""
        scene, zones = self.scene, fields_.zones
        x = ((np.arange(self.block) + (0.5 + bx * self.block)) * self.mpp).astype(np.float32)
        y = ((np.arange(self.block) + (0.5 + by * self.block)) * self.mpp).astype(np.float32)

        def up(values: Floats) -> Floats:
            return fields_.raster(values, x, y)

        def inside(values: Floats, soft_um: float = 3.0) -> Floats:
            """Return 1 inside, 0 outside; nothing is interpolated where all is alike."""
            if values.max() < -soft_um:
                return nothing
            if values.min() > soft_um:
                return everything
            ramp = up(values)
            ramp *= np.float32(1 / soft_um)
            ramp += np.float32(0.5)
            return np.clip(ramp, 0, 1, out=ramp)

        shape = (self.block, self.block)
        nothing, everything = np.zeros(shape, np.float32), np.ones(shape, np.float32)
        cloud = self.tile(self.cloud, bx, by)
        in_node = inside(zones.node - scene.capsule_um)
        in_capsule = inside(zones.node, 4.0) - in_node
        in_tumour = in_node * inside(zones.tumour)
        in_septum = in_tumour * inside(np.maximum(zones.septum, 9 - zones.tumour))
        in_strand = (in_node - in_tumour) * inside(zones.trabecula, 4.0)
        wall = inside(3.2 - np.abs(zones.vessel + 1.6)) * in_node
        fibrous = np.minimum(in_capsule + in_septum + in_strand + wall, 1)
        lymphoid = np.clip(in_node - in_tumour - in_strand - wall, 0, 1)
        nest = np.clip(in_tumour - in_septum - wall, 0, 1)
        in_sinus = lymphoid * inside(zones.sinus)

        eosin = lymphoid * (0.13 + 0.04 * cloud) + nest * 0.10 + in_sinus * 0.06
        haze = lymphoid * (0.055 + 0.02 * cloud) + nest * 0.10 + fibrous * 0.05
        haze -= 0.04 * in_sinus
        if fibrous.any():
            eosin += fibrous * self._fibres(fields_, x, y)
        fat = inside(zones.tissue + FAT_CELL_UM) * (1 - inside(zones.node, 4.0))
        if fat.any():
            bundle = inside(zones.trabecula - 4, 4.0) * inside(zones.tissue)
            tissue = np.maximum(self._fat(fields_, x, y), bundle * self._fibres(fields_, x, y))
            eosin += fat * tissue

        canvas = _Canvas(*(np.zeros(shape, np.float32) for _ in range(4)))
        for number, kind in enumerate(KINDS):
            self._cells(kind, number, bx, by, fields_, canvas)
        np.maximum(eosin, canvas.eosin, out=eosin)
        np.maximum(haze, canvas.tint, out=haze)
        eosin *= 1 - 0.5 * np.clip(canvas.nuclei, 0, 1)
        haze += canvas.nuclei

        # Where nothing is: lumina, vessels, and cracks between cells that hold loosely together.
        empty = np.maximum(inside(zones.lumen, 1.5) * nest, inside(zones.vessel, 1.5) * in_node)
        gap = self.tile(self.gap, bx, by)
        crack = np.clip((gap - 1.5) * 1.2, 0, 0.9) * np.maximum(lymphoid, 0.8 * nest)
        empty = np.maximum(empty, crack)
        solid = 1 - empty
        if zones.fold.max() > -8:
            fold = inside(zones.fold, 7.0) * inside(zones.node)
            eosin += 0.22 * fold
            haze += 0.30 * fold
            solid *= 1 + 0.75 * fold
        solid *= 1 + 0.07 * cloud
        blood = None
        if canvas.blood.any():
            blood = canvas.blood * inside(zones.node)
        return Matter(haze * solid, eosin * solid, blood)

    def _fibres(self, fields_: Fields, x: Floats, y: Floats) -> Floats:
        """Return eosin of wavy fibres: streaks looked up along the contours of a zone."""
        key = self.scene.seed * 31 + 51
        fx, fy = fields_.x_um, fields_.y_um
        wave = value_noise(fx, fy, 46.0, key) * 7 + value_noise(fx, fy, 15.0, key + 1) * 2.2
        zones, capsule = fields_.zones, self.scene.capsule_um
        across = fields_.raster(zones.strand, x, y)
        if zones.tumour.max() > -9:
            tumour = fields_.raster(zones.tumour, x, y) > -3
            across = np.where(tumour, fields_.raster(zones.nest, x, y), across)
        if zones.node.min() < capsule and zones.node.max() > 0:
            node = fields_.raster(zones.node, x, y)
            across = np.where((node < capsule) & (node > -3), node, across)
        across = (across + fields_.raster(wave, x, y)) * 2
        along = fields_.raster(
            (fx + fy * 0.6 + octaves(fx, fy, 80.0, key + 3, 2) * 40).astype(np.float32) * 2, x, y
        )
        n = len(self.fibre)
        streak = self.fibre[across.astype(np.int32) % n, along.astype(np.int32) % n]
        eosin: Floats = 0.50 + 0.15 * np.clip(streak, -3.2, 2)
        return np.clip(eosin, 0.02, None)

    def _across(self, zones: Zones, at: Zones) -> Floats:
        """Return the zone that runs across the fibres there, chosen by what lies `at`."""
        capsule = (at.node < self.scene.capsule_um) & (at.node > -3)
        inner = np.where(at.tumour > -3, zones.nest, zones.strand)
        across: Floats = np.where(capsule, zones.node, inner)
        return across

    def _fat(self, fields_: Fields, x: Floats, y: Floats) -> Floats:
        """Return eosin of the membranes of fat cells, thicker where three cells meet."""
        key = self.scene.seed * 31 + 61
        fx, fy = fields_.x_um, fields_.y_um
        px = x[None, :] + fields_.raster(value_noise(fx, fy, 38.0, key + 4) * 7, x, y)
        py = y[:, None] + fields_.raster(value_noise(fx, fy, 38.0, key + 5) * 7, x, y)
        shape = (len(y), len(x))
        near = np.full(shape, 1e6, np.float32)
        total, outside = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        reach = int(1.5 * FAT_CELL_UM / self.mpp)
        lo = [int((v[0] - FAT_CELL_UM) // FAT_CELL_UM) - 1 for v in (x, y)]
        hi = [int((v[-1] + FAT_CELL_UM) // FAT_CELL_UM) + 2 for v in (x, y)]
        gx, gy = (g.ravel() for g in np.meshgrid(np.arange(lo[0], hi[0]), np.arange(lo[1], hi[1])))
        cx = (gx + 0.5 * (gy % 2) + 0.42 * (hash01(gx, gy, key) - 0.5)) * FAT_CELL_UM
        cy = (gy + 0.42 * (hash01(gx, gy, key + 1) - 0.5)) * FAT_CELL_UM
        inside = self.scene.fat.depth_um(cx.astype(np.float32), cy.astype(np.float32)) > 0
        soft = 2.0  # µm over which the two nearest cells share a membrane
        for ax, ay, whole in zip(cx.tolist(), cy.tolist(), inside.tolist(), strict=True):
            i, j = int((ax - float(x[0])) / self.mpp), int((ay - float(y[0])) / self.mpp)
            box = np.s_[
                max(j - reach, 0) : max(j + reach, 0), max(i - reach, 0) : max(i + reach, 0)
            ]
            if near[box].size == 0:
                continue
            d = np.hypot(px[box] - np.float32(ax), py[box] - np.float32(ay))
            weight = np.exp(d * np.float32(-1 / soft))
            total[box] += weight
            if not whole:
                outside[box] += weight
            np.minimum(near[box], d, out=near[box])
        others = total * np.exp(near * np.float32(1 / soft)) - 1
        membrane = np.clip((others - 0.30) * 1.6, 0, 1) * 0.5
        membrane[outside > 0.8 * total] = 0
        return np.asarray(membrane, np.float32)

    def _cells(
        self, kind: Kind, number: int, bx: int, by: int, fields_: Fields, canvas: _Canvas
    ) -> None:
        key = self.scene.seed * 31 + 101 + 10 * number
        side = self.block * self.mpp
        corner = bx * side, by * side
        gx, gy, x, y = lattice(kind.spacing_um, kind.jitter, corner, side, key)
        zones = fields_.points(x, y)
        keep = _lives_here(kind, zones, hash01(gx, gy, key + 2), self.scene)
        if not keep.any():
            return
        gx, gy, x, y = gx[keep], gy[keep], x[keep], y[keep]
        zones = Zones(*(getattr(zones, f.name)[keep] for f in fields(Zones)))
        turn = hash01(gx, gy, key + 3) * TURNS
        gain = 0.8 + 0.4 * hash01(gx, gy, key + 5)
        if kind is TUMOUR:
            # Cells beside a lumen stand around it in one row, their long axis towards it.
            norm = np.hypot(zones.lumen_dx, zones.lumen_dy) + 1e-3
            row = (zones.lumen > -15) & (zones.lumen < -1)
            shift = np.where(row, zones.lumen + 8.5, 0)
            x, y = x + shift * zones.lumen_dx / norm, y + shift * zones.lumen_dy / norm
            radial = np.arctan2(zones.lumen_dy, zones.lumen_dx) / np.pi * TURNS
            turn = np.where(zones.lumen > -15, radial + hash01(gx, gy, key + 6), turn)
        elif kind is SPINDLE:
            here = self._across(zones, zones)
            ahead = self._across(fields_.points(x + 1, y), zones) - here
            beside = self._across(fields_.points(x, y + 1), zones) - here
            turn = (np.arctan2(beside, ahead) / np.pi + 0.5) * TURNS + 2 * hash01(gx, gy, key + 3)
        elif kind is LYMPHOCYTE:
            mantle = np.clip(1 - np.abs(zones.follicle + 22) / 30, 0, 1)
            gain = gain * (zones.crowding + 0.18 * mantle)
        stamps = self.stamps[kind.name]
        choice = hash01(gx, gy, key + 4)
        variants = len(stamps.nuclei[0])
        which = np.floor(choice * variants).astype(np.int64).tolist()
        x_px = np.floor((x - corner[0]) / self.mpp).astype(np.int64)
        y_px = np.floor((y - corner[1]) / self.mpp).astype(np.int64)
        turns = (np.floor(turn).astype(np.int64) % TURNS).tolist()
        gain = gain.astype(np.float32)
        if stamps.bodies:
            bodies = [stamps.bodies[i] for i in which]
            target = canvas.blood if kind is ERYTHROCYTE else canvas.eosin
            stamp(target, bodies, x_px, y_px, gain)
            if kind.tint:
                stamp(canvas.tint, bodies, x_px, y_px, gain * np.float32(kind.tint))
        if kind.stain:
            pictures = [stamps.nuclei[t][i] for t, i in zip(turns, which, strict=True)]
            stamp(canvas.nuclei, pictures, x_px, y_px, gain)


@dataclass(frozen=True, slots=True, eq=False)
class _Canvas:
    nuclei: Floats
    eosin: Floats
    tint: Floats
    blood: Floats


def _lives_here(kind: Kind, zones: Zones, chance: Floats, scene: Scene) -> NDArray[np.bool_]:
    inner = zones.node - scene.capsule_um
    tumour = zones.tumour > 0
    nest = (zones.tumour > 9) & (zones.septum < 0)
    strand = (zones.trabecula > -1) & ~tumour
    lymphoid = (inner > 1) & ~tumour & ~strand & (zones.vessel < -3)
    stroma = (inner > 1) & (tumour & ~nest | strand)
    if kind is TUMOUR:
        found = (inner > 3) & nest & (zones.septum < -3) & (zones.lumen < -3) & (chance < 0.95)
    elif kind is LYMPHOCYTE:
        share = np.where(zones.sinus > 0, 0.30, 0.98 * np.minimum(zones.crowding, 1))
        beside = (zones.tumour > -20) & (zones.tumour < 12)
        found = lymphoid & (zones.follicle < 0) & (chance < share)
        found |= stroma & (chance < np.where(beside, 0.4, 0.1)) | nest & (chance < 0.015)
    elif kind is CENTROCYTE:
        found = lymphoid & (zones.follicle > 0) & (chance < 0.95)
    elif kind is HISTIOCYTE:
        share = np.where(zones.follicle > 0, 0.8, np.where(zones.sinus > 0, 0.9, 0.45))
        found = lymphoid & (chance < share)
    elif kind is ERYTHROCYTE:
        found = (zones.vessel > 2) & (inner > 5) & (chance < 0.8)
    else:
        capsule = (zones.node > 3) & (inner < 0)
        wall = (zones.vessel > -4) & (zones.vessel < 0) & (inner > 0)
        bundle = (zones.node < 0) & (zones.tissue > 4) & (zones.trabecula > 4)
        found = (capsule | stroma | wall | bundle) & (chance < 0.7)
    return np.asarray(found, dtype=np.bool_)
