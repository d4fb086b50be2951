"""What a block of tissue is made of: concentrations of hematoxylin, eosin and blood."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from napari_histomil.slides.synthetic.cells import KINDS, make_stamps
from napari_histomil.slides.synthetic.fields import Canvas, Fields, Masks
from napari_histomil.slides.synthetic.noise import (
    Floats,
    hash01,
    octaves,
    periodic_texture,
    value_noise,
)
from napari_histomil.slides.synthetic.population import populate
from napari_histomil.slides.synthetic.scene import Scene

FAT_CELL_UM = 50.0
"""Distance between the middles of neighbouring fat cells."""


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
        self.stamps = {kind.name: make_stamps(kind, mpp, rng) for kind in KINDS}
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
        scene, zones, side = self.scene, fields_.zones, self.block
        x = ((np.arange(side) + (0.5 + bx * side)) * self.mpp).astype(np.float32)
        y = ((np.arange(side) + (0.5 + by * side)) * self.mpp).astype(np.float32)
        m = Masks(fields_, x, y)
        cloud = self.tile(self.cloud, bx, by)

        in_node = m.inside(zones.node - scene.capsule_um)
        whole_node = m.inside(zones.node, 4.0)
        in_tumour = m.both(in_node, m.inside(zones.tumour))
        in_septum = m.both(in_tumour, m.inside(np.maximum(zones.septum, 9 - zones.tumour)))
        healthy = m.without(in_node, in_tumour)
        in_strand = m.both(healthy, m.inside(zones.trabecula, 4.0))
        wall = m.both(in_node, m.inside(3.2 - np.abs(zones.vessel + 1.6)))
        lymphoid = m.without(m.without(healthy, in_strand), wall)
        nest = m.without(m.without(in_tumour, in_septum), wall)
        fibrous = m.without(m.without(whole_node, lymphoid), nest)
        in_sinus = m.both(lymphoid, m.inside(zones.sinus))

        eosin, haze = np.zeros(m.shape, np.float32), np.zeros(m.shape, np.float32)
        m.add(eosin, lymphoid, 0.20 + 0.05 * cloud)
        m.add(eosin, in_sinus, 0.04)
        m.add(eosin, nest, 0.16)
        m.add(haze, lymphoid, 0.09 + 0.02 * cloud)
        m.add(haze, in_sinus, -0.05)
        m.add(haze, nest, 0.12)
        m.add(haze, fibrous, 0.06)
        fibres = self._fibres(fields_, m) if fibrous is not m.nothing else m.nothing
        m.add(eosin, fibrous, fibres)
        fat = m.without(m.inside(zones.tissue + FAT_CELL_UM), whole_node)
        if fat is not m.nothing:
            membranes, bundle = self._fat(fields_, m), m.inside(zones.trabecula - 4, 4.0)
            bundle = m.both(bundle, m.inside(zones.tissue))
            if bundle is not m.nothing:
                membranes = np.maximum(membranes, bundle * self._fibres(fields_, m))
            m.add(eosin, fat, membranes)

        canvas = Canvas(*(np.zeros(m.shape, np.float32) for _ in range(4)))
        corner = bx * side * self.mpp, by * side * self.mpp
        for kind in KINDS:
            populate(canvas, kind, self.stamps[kind.name], scene, fields_, corner, self.mpp)
        np.maximum(eosin, canvas.eosin, out=eosin)
        np.maximum(haze, canvas.tint, out=haze)
        eosin *= 1 - 0.25 * np.minimum(canvas.nuclei, 1)
        haze += canvas.nuclei

        # Where nothing is: lumina, vessels, and cracks between cells that hold loosely together.
        lumen, vessel = m.inside(zones.lumen, 1.5), m.inside(zones.vessel, 1.5)
        empty = m.either(m.both(nest, lumen), m.both(in_node, vessel))
        loose = m.either(lymphoid, nest)
        if loose is not m.nothing:
            crack = np.clip((self.tile(self.gap, bx, by) - 1.7) * 1.2, 0, 0.9)
            empty = m.either(empty, crack * loose)
        solid = 1 + 0.07 * cloud
        if empty is not m.nothing:
            solid *= 1 - empty
        fold = m.both(m.inside(zones.fold, 7.0), whole_node)
        m.add(eosin, fold, 0.22)
        m.add(haze, fold, 0.30)
        m.add(solid, fold, 0.75)
        haze *= solid
        eosin *= solid
        blood = m.both(canvas.blood, whole_node) if canvas.blood.any() else None
        return Matter(haze, eosin, blood)

    def _fibres(self, fields_: Fields, m: Masks) -> Floats:
        """Return eosin of wavy fibres: streaks looked up along the contours of a zone."""
        key = self.scene.seed * 31 + 51
        fx, fy = fields_.x_um, fields_.y_um
        wave = value_noise(fx, fy, 46.0, key) * 7 + value_noise(fx, fy, 15.0, key + 1) * 2.2
        zones, capsule = fields_.zones, self.scene.capsule_um
        across = m.up(zones.strand)
        if zones.tumour.max() > -9:
            tumour = m.up(zones.tumour) > -3
            across = np.where(tumour, m.up(zones.nest), across)
        if zones.node.min() < capsule and zones.node.max() > 0:
            node = m.up(zones.node)
            across = np.where((node < capsule) & (node > -3), node, across)
        across = (across + m.up(wave)) * 2
        along = m.up(
            (fx + fy * 0.6 + octaves(fx, fy, 80.0, key + 3, 2) * 40).astype(np.float32) * 2
        )
        n = len(self.fibre)
        streak = self.fibre[across.astype(np.int32) % n, along.astype(np.int32) % n]
        eosin = 0.50 + 0.15 * np.clip(streak, -3.2, 2)
        return np.asarray(np.clip(eosin, 0.02, None), np.float32)

    def _fat(self, fields_: Fields, m: Masks) -> Floats:
        """Return eosin of the membranes of fat cells, thicker where three cells meet."""
        key = self.scene.seed * 31 + 61
        fx, fy = fields_.x_um, fields_.y_um
        x, y = m.x_um, m.y_um
        px = x[None, :] + m.up(value_noise(fx, fy, 38.0, key + 4) * 7)
        py = y[:, None] + m.up(value_noise(fx, fy, 38.0, key + 5) * 7)
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
