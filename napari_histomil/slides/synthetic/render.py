"""From plan to pixels: blocks of stain concentration, and light through them (Beer-Lambert)."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from shapely.geometry import Polygon

from napari_histomil.errors import HistomilError
from napari_histomil.slides.synthetic.cells import (
    CENTROCYTE,
    KINDS,
    LYMPHOCYTE,
    SPINDLE,
    TUMOUR,
    TURNS,
    Kind,
    Stamps,
    lattice,
    make_stamps,
    stamp,
)
from napari_histomil.slides.synthetic.noise import Floats, hash01, periodic_texture, value_noise
from napari_histomil.slides.synthetic.scene import Scene, Zones, make_scene

BLOCK = 512
"""Side of the blocks in px; each is made whole, from its place and the seed alone."""
FIELD_UM = 4.0
"""Zones are computed at this distance and interpolated between."""


@dataclass(frozen=True, slots=True)
class Stains:
    """Colours of the stains: optical density per unit of concentration, for red, green, blue.

    Defaults are the hematoxylin and eosin vectors of Ruifrok and Johnston (2001), lightly mixed as
    real stains are.
    """

    hematoxylin: tuple[float, float, float] = (0.65, 0.70, 0.29)
    eosin: tuple[float, float, float] = (0.13, 0.95, 0.38)
    strength: float = 1.0
    glass: tuple[float, float, float] = (243.0, 242.0, 244.0)


@dataclass(frozen=True, slots=True, eq=False)
class SyntheticTruth:
    """What is known of a synthetic slide; polygons in level-0 px."""

    width_px0: int
    height_px0: int
    mpp: float
    tumour: tuple[Polygon, ...]
    tissue: tuple[Polygon, ...]
    scene: Scene

    def masks(self, mpp: float) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Return (tumour, tissue) masks [h, w] at a resolution; a pixel is what its centre is."""
        factor = mpp / self.mpp
        width = max(round(self.width_px0 / factor), 1)
        height = max(round(self.height_px0 / factor), 1)
        x = ((np.arange(width) + 0.5) * (self.width_px0 / width * self.mpp)).astype(np.float32)
        y = ((np.arange(height) + 0.5) * (self.height_px0 / height * self.mpp)).astype(np.float32)
        x, y = x[None, :], y[:, None]
        return self.scene.tumour_depth(x, y) > 0, self.scene.tissue_depth(x, y) > 0


@dataclass(frozen=True)
class SyntheticSlide:
    """A procedural H&E slide of any size: every pixel depends on its place and the seed alone.

    Parameters
    ----------
    width, height
        Size in px.
    mpp
        Resolution in µm/px.
    seed
        Chooses the slide.
    stains
        Colours of stains and glass.
    pen
        Whether ink was left on the glass: green, blue, black, or "" for none.

    Raises
    ------
    HistomilError
        If a size or the resolution makes no slide.
    """

    width: int
    height: int
    mpp: float = 0.5
    seed: int = 0
    stains: Stains = field(default_factory=Stains)
    pen: str = "green"

    def __post_init__(self) -> None:
        if min(self.width, self.height) < 64 or not 0.1 <= self.mpp <= 4:
            raise HistomilError(
                f"A synthetic slide needs sides of at least 64 px and 0.1 to 4 µm/px, "
                f"not {self.width} x {self.height} px at {self.mpp:g} µm/px."
            )

    @cached_property
    def scene(self) -> Scene:
        """The plan of the slide."""
        return make_scene(self.width * self.mpp, self.height * self.mpp, self.seed)

    @cached_property
    def truth(self) -> SyntheticTruth:
        """Tumour and tissue outlines."""
        return SyntheticTruth(
            self.width,
            self.height,
            self.mpp,
            self.scene.tumour_polygons(self.mpp),
            self.scene.tissue_polygons(self.mpp),
            self.scene,
        )

    @cached_property
    def _stamps(self) -> dict[str, Stamps]:
        rng = np.random.default_rng([self.seed, 21])
        return {kind.name: make_stamps(kind, self.mpp, rng) for kind in KINDS}

    @cached_property
    def _textures(self) -> dict[str, Floats]:
        rng = np.random.default_rng([self.seed, 22])
        return {
            "grain": periodic_texture(509, 0.6, rng),
            "cloud": periodic_texture(601, 4.0 / self.mpp, rng),
            "fibre": periodic_texture(512, (1.3, 28.0), rng),
            "gap": periodic_texture(613, (1.0 / self.mpp, 3.4 / self.mpp), rng),
        }

    @cached_property
    def _blocks(self) -> OrderedDict[tuple[int, int], NDArray[np.uint8]]:
        return OrderedDict()

    def read(self, xy_px0: tuple[int, int], size: tuple[int, int]) -> NDArray[np.uint8]:
        """Return the region whose top-left corner is (x, y), uint8 [height, width, 3].

        Parts outside the slide are white.
        """
        x0, y0 = xy_px0
        width, height = size
        out = np.full((height, width, 3), 255, np.uint8)
        right, bottom = min(x0 + width, self.width), min(y0 + height, self.height)
        for by in range(max(y0, 0) // BLOCK, -(-bottom // BLOCK)):
            for bx in range(max(x0, 0) // BLOCK, -(-right // BLOCK)):
                block = self._cached_block(bx, by)
                left, top = max(x0, bx * BLOCK), max(y0, by * BLOCK)
                r, b = min(right, (bx + 1) * BLOCK), min(bottom, (by + 1) * BLOCK)
                out[top - y0 : b - y0, left - x0 : r - x0] = block[
                    top - by * BLOCK : b - by * BLOCK, left - bx * BLOCK : r - bx * BLOCK
                ]
        return out

    def _cached_block(self, bx: int, by: int) -> NDArray[np.uint8]:
        found = self._blocks.get((bx, by))
        if found is None:
            found = self.block(bx, by)
            self._blocks[bx, by] = found
            while len(self._blocks) > 16:
                self._blocks.popitem(last=False)
        return found

    def block(self, bx: int, by: int) -> NDArray[np.uint8]:
        """Return block (column, row), uint8 [BLOCK, BLOCK, 3]."""
        corner = bx * BLOCK * self.mpp, by * BLOCK * self.mpp
        side = BLOCK * self.mpp
        nodes = int(np.ceil(side / FIELD_UM)) + 2
        gx = (corner[0] + np.arange(nodes) * FIELD_UM).astype(np.float32)
        gy = (corner[1] + np.arange(nodes) * FIELD_UM).astype(np.float32)
        zones = self.scene.zones(gx[None, :], gy[:, None])
        if zones.tissue.max() < -2 * self.scene.edge_um:
            od = np.zeros((BLOCK, BLOCK, 2), np.float32)
            h, e = od[..., 0], od[..., 1]
            fold = None
        else:
            h, e, fold = self._tissue(bx, by, corner, zones)
        return self._light(bx, by, h, e, fold, zones)

    def _up(self, field_values: Floats) -> Floats:
        position = (np.arange(BLOCK) + 0.5) * (self.mpp / FIELD_UM)
        low = np.floor(position).astype(np.int64)
        t = (position - low).astype(np.float32)
        rows = field_values[low] * (1 - t[:, None]) + field_values[low + 1] * t[:, None]
        up: Floats = rows[:, low] * (1 - t) + rows[:, low + 1] * t
        return up

    def _tile(self, name: str, bx: int, by: int) -> Floats:
        texture = self._textures[name]
        n = len(texture)
        rows = (np.arange(BLOCK) + by * BLOCK) % n
        columns = (np.arange(BLOCK) + bx * BLOCK) % n
        tile: Floats = texture[rows[:, None], columns[None, :]]
        return tile

    def _tissue(
        self, bx: int, by: int, corner: tuple[float, float], zones: Zones
    ) -> tuple[Floats, Floats, Floats]:
        scene, cloud = self.scene, self._tile("cloud", bx, by)
        grain, gap = self._tile("grain", bx, by), self._tile("gap", bx, by)
        node, tumour = self._up(zones.node), self._up(zones.tumour)
        tissue = self._up(zones.tissue) + scene.edge_um * cloud
        alpha = np.clip(tissue / 2 + 0.5, 0, 1)
        septum = self._up(np.maximum(zones.septum, 10 - zones.tumour))
        trabecula = self._up(zones.trabecula)
        in_tumour = np.clip(tumour / 3 + 0.5, 0, 1)
        in_node = np.clip(node / 3 + 0.5 - scene.capsule_um / 3, 0, 1)
        capsule = np.clip(node / 4 + 0.5, 0, 1) * (1 - in_node)
        strand = np.clip(trabecula / 4 + 0.5, 0, 1) * (1 - in_tumour)
        stroma = np.clip(septum / 3 + 0.5, 0, 1) * in_tumour
        fibrous = np.clip(capsule + in_node * (stroma + strand), 0, 1)
        lymphoid = in_node * (1 - in_tumour) * (1 - strand)
        nest = in_node * in_tumour * (1 - stroma)
        fat = 1 - np.clip(node / 4 + 0.5, 0, 1)

        fibre = self._fibres(bx, by, zones)
        vacuole = self._fat(bx, by)
        eosin = (
            fibrous * np.clip(0.55 + 0.26 * fibre, 0.06, None)
            + lymphoid * 0.13
            + nest * 0.10
            + fat * vacuole * 0.6
        )
        haze = lymphoid * 0.12 + nest * 0.16 + fibrous * 0.05

        bodies = np.zeros((BLOCK, BLOCK), np.float32)
        nuclei = np.zeros((BLOCK, BLOCK), np.float32)
        for number, kind in enumerate(KINDS):
            self._cells(kind, number, corner, bodies, nuclei)
        eosin = np.maximum(eosin, bodies * (nest + lymphoid)) * (1 - 0.35 * np.clip(nuclei, 0, 1))
        lumen = np.clip(self._up(zones.lumen) / 1.5 + 0.5, 0, 1) * nest
        crack = np.clip((gap - 2.1) * 2, 0, 1) * (nest + lymphoid)
        open_ = (1 - np.maximum(lumen, 0.8 * crack)) * alpha
        fold = np.clip(self._up(zones.fold) / 6 + 0.5, 0, 1)
        thickness = (1 + 0.08 * cloud + 0.03 * grain) * (1 + 0.9 * fold)
        h = (haze * (1 + 0.25 * cloud) + nuclei) * open_ * thickness
        e = eosin * open_ * thickness
        return h.astype(np.float32), e.astype(np.float32), fold

    def _fibres(self, bx: int, by: int, zones: Zones) -> Floats:
        """Return wavy fibres: a streaky texture looked up at warped positions."""
        texture = self._textures["fibre"]
        n = len(texture)
        x = ((np.arange(BLOCK) + bx * BLOCK) * self.mpp).astype(np.float32)[None, :]
        y = ((np.arange(BLOCK) + by * BLOCK) * self.mpp).astype(np.float32)[:, None]
        nodes = zones.node.shape[0]
        gx = (bx * BLOCK * self.mpp + np.arange(nodes) * FIELD_UM).astype(np.float32)[None, :]
        gy = (by * BLOCK * self.mpp + np.arange(nodes) * FIELD_UM).astype(np.float32)[:, None]
        key = self.seed * 31 + 51
        bend = self._up(value_noise(gx, gy, 140.0, key) * 90 + value_noise(gx, gy, 34.0, key + 1) * 11)
        across = (y + 0.35 * x + bend) * 2.0
        along = (x - 0.35 * y + 0.4 * bend) * 2.0
        fibre: Floats = texture[
            np.floor(across).astype(np.int64) % n, np.floor(along).astype(np.int64) % n
        ]
        return fibre

    def _fat(self, bx: int, by: int) -> Floats:
        """Return the membranes between fat cells: thin where two cells are equally near."""
        spacing = 46.0
        x = ((np.arange(BLOCK) + 0.5 + bx * BLOCK) * self.mpp).astype(np.float32)[None, :]
        y = ((np.arange(BLOCK) + 0.5 + by * BLOCK) * self.mpp).astype(np.float32)[:, None]
        shape = (BLOCK, BLOCK)
        first, second = np.full(shape, 1e9, np.float32), np.full(shape, 1e9, np.float32)
        key = self.seed * 31 + 61
        x0, y0, side = bx * BLOCK * self.mpp, by * BLOCK * self.mpp, BLOCK * self.mpp
        for j in range(int(y0 // spacing) - 1, int((y0 + side) // spacing) + 2):
            for i in range(int(x0 // spacing) - 1, int((x0 + side) // spacing) + 2):
                ix, iy = np.array([i]), np.array([j])
                cx = (i + 0.1 + 0.8 * float(hash01(ix, iy, key)[0])) * spacing
                cy = (j + 0.1 + 0.8 * float(hash01(ix, iy, key + 1)[0])) * spacing
                left = max(int((cx - x0 - 2 * spacing) / self.mpp), 0)
                right = min(int((cx - x0 + 2 * spacing) / self.mpp), BLOCK)
                top = max(int((cy - y0 - 2 * spacing) / self.mpp), 0)
                low = min(int((cy - y0 + 2 * spacing) / self.mpp), BLOCK)
                if right <= left or low <= top:
                    continue
                box = np.s_[top:low, left:right]
                d = np.hypot(x[:, left:right] - np.float32(cx), y[top:low] - np.float32(cy))
                second[box] = np.minimum(second[box], np.maximum(first[box], d))
                first[box] = np.minimum(first[box], d)
        membrane: Floats = np.clip(1.6 - (second - first) * 0.6, 0, 1)
        return membrane

    def _cells(
        self,
        kind: Kind,
        number: int,
        corner: tuple[float, float],
        bodies: Floats,
        nuclei: Floats,
    ) -> None:
        key = self.seed * 31 + 101 + 10 * number
        side = BLOCK * self.mpp
        box = corner[0], corner[1], corner[0] + side, corner[1] + side
        gx, gy, x, y = lattice(kind.spacing_um, kind.jitter, box, key)
        zones = self.scene.zones(x.astype(np.float32), y.astype(np.float32))
        chance = hash01(gx, gy, key + 2)
        keep = (zones.tissue > 3) & _lives_here(kind, zones, chance, self.scene)
        if not keep.any():
            return
        gx, gy, x, y = gx[keep], gy[keep], x[keep], y[keep]
        stamps = self._stamps[kind.name]
        turn = np.floor(hash01(gx, gy, key + 3) * TURNS).astype(np.int64)
        if kind is TUMOUR:
            near = zones.lumen[keep] > -22
            radial = np.floor(zones.lumen_angle[keep] / np.pi * TURNS).astype(np.int64)
            turn = np.where(near, radial, turn)
        elif kind is SPINDLE:
            turn = np.floor(TURNS * (0.9 + 0.2 * hash01(gx, gy, key + 3))).astype(np.int64)
        turn %= TURNS
        choice = hash01(gx, gy, key + 4)
        x_px = np.floor((x - corner[0]) / self.mpp).astype(np.int64)
        y_px = np.floor((y - corner[1]) / self.mpp).astype(np.int64)
        gain = (0.85 + 0.3 * hash01(gx, gy, key + 5)).astype(np.float32)
        if stamps.bodies:
            pick = np.floor(choice * len(stamps.bodies)).astype(np.int64).tolist()
            stamp(bodies, [stamps.bodies[i] for i in pick], x_px, y_px, gain)
        variants = len(stamps.nuclei[0])
        pick = np.floor(choice * variants).astype(np.int64).tolist()
        pictures = [stamps.nuclei[t][i] for t, i in zip(turn.tolist(), pick, strict=True)]
        stamp(nuclei, pictures, x_px, y_px, gain)

    def _light(
        self, bx: int, by: int, h: Floats, e: Floats, fold: Floats | None, zones: Zones
    ) -> NDArray[np.uint8]:
        stains = self.stains
        grain = self._tile("grain", bx, by)
        pen = np.clip(self._up(zones.pen) / 3 + 0.5, 0, 1) if zones.pen.max() > -8 else None
        ink = {"green": (1.5, 0.35, 1.1), "blue": (1.6, 0.9, 0.2), "black": (1.6, 1.6, 1.5)}
        out = np.empty((BLOCK, BLOCK, 3), np.uint8)
        for c in range(3):
            od = stains.hematoxylin[c] * h + stains.eosin[c] * e
            od *= np.float32(stains.strength)
            if pen is not None and self.pen:
                od += pen * np.float32(ink[self.pen][c])
            light = np.float32(stains.glass[c]) * np.exp(-od) + grain * np.float32(1.1)
            out[..., c] = np.clip(light + np.float32(0.5), 0, 255)
        return out


def _lives_here(kind: Kind, zones: Zones, chance: Floats, scene: Scene) -> NDArray[np.bool_]:
    deep = zones.node > scene.capsule_um + 2
    tumour = zones.tumour > 0
    open_tumour = tumour & (zones.septum < 0) & (zones.tumour > 10)
    strand = zones.trabecula > 0
    if kind is TUMOUR:
        found = deep & open_tumour & (zones.lumen < -3.5) & (chance > 0.06)
    elif kind is LYMPHOCYTE:
        crowd = np.where(zones.follicle > -35, 0.99, 0.9)
        home = deep & ~tumour & ~strand & (zones.follicle < 0) & (chance < crowd)
        guest = deep & (tumour & ~open_tumour | strand) & (chance < 0.12)
        found = home | guest
    elif kind is CENTROCYTE:
        found = deep & ~tumour & ~strand & (zones.follicle > 0) & (chance < 0.95)
    else:
        fibrous = ~deep & (zones.node > 0) | deep & (strand | tumour & ~open_tumour)
        found = fibrous & (chance < 0.75)
    return np.asarray(found, dtype=np.bool_)
