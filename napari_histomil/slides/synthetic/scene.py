"""What lies where on a synthetic slide: outlines and zones as smooth functions of µm.

A scene holds no pixels. It answers, for any positions, how deep they lie inside the section, the
node, the tumour and so on (signed distances in µm, positive inside), and gives the outlines as
polygons: the truth that pixels and tests share.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from shapely.geometry import Polygon
from shapely.ops import unary_union

from napari_histomil.slides.synthetic.noise import (
    Floats,
    nearest_point,
    octaves,
    value_noise,
)

OUTLINE_POINTS = 720
FAR_UM = 1000.0
"""Depths are cut here: farther is no different."""


@dataclass(frozen=True, slots=True, eq=False)
class Blob:
    """A star-shaped outline: a radius for every direction from the centre."""

    x_um: float
    y_um: float
    radius_um: Floats
    """Radius in `OUTLINE_POINTS` directions, from angle 0 (along x) towards y."""

    def depth_um(self, x_um: Floats, y_um: Floats) -> Floats:
        """Return the distance to the outline along the ray, positive inside."""
        dx, dy = x_um - self.x_um, y_um - self.y_um
        turn = np.arctan2(dy, dx) * np.float32(OUTLINE_POINTS / (2 * np.pi))
        turn = np.where(turn < 0, turn + OUTLINE_POINTS, turn)
        low = np.floor(turn).astype(np.int64)
        t = (turn - low).astype(np.float32)
        r0 = self.radius_um[low % OUTLINE_POINTS]
        r1 = self.radius_um[(low + 1) % OUTLINE_POINTS]
        depth: Floats = r0 + (r1 - r0) * t - np.hypot(dx, dy)
        return depth

    def polygon(self, mpp: float) -> Polygon:
        """Return the outline in level-0 px."""
        angle = np.arange(OUTLINE_POINTS) * (2 * np.pi / OUTLINE_POINTS)
        x = (self.x_um + self.radius_um * np.cos(angle)) / mpp
        y = (self.y_um + self.radius_um * np.sin(angle)) / mpp
        return Polygon(np.column_stack([x, y])).buffer(0)


def make_blob(
    x_um: float,
    y_um: float,
    radius_um: tuple[float, float],
    rng: np.random.Generator,
    *,
    roughness: float,
    tilt: float = 0.0,
    notch: float | None = None,
) -> Blob:
    """Return an ellipse with half axes `radius_um`, turned by `tilt`, with an irregular edge.

    `notch` is the direction in which it is dented, as a node is at its hilum.
    """
    angle = np.arange(OUTLINE_POINTS) * (2 * np.pi / OUTLINE_POINTS)
    a, b = radius_um
    ellipse = a * b / np.hypot(b * np.cos(angle - tilt), a * np.sin(angle - tilt))
    wave = np.zeros(OUTLINE_POINTS)
    for n in range(2, 60):
        amount = rng.normal() * roughness / n**1.3
        wave += amount * np.cos(n * angle + rng.uniform(0, 2 * np.pi))
    if notch is not None:
        away = np.abs(np.angle(np.exp(1j * (angle - notch))))
        wave -= 0.34 * np.exp(-((away / 0.32) ** 2))
    return Blob(x_um, y_um, (ellipse * np.exp(wave)).astype(np.float32))


@dataclass(frozen=True, slots=True, eq=False)
class Zones:
    """Zones at some positions; depths in µm, positive inside, all of the positions' shape."""

    tissue: Floats
    node: Floats
    tumour: Floats
    follicle: Floats
    """Depth inside the pale centre of the nearest follicle."""
    trabecula: Floats
    """Depth inside the fibrous strands of the node."""
    sinus: Floats
    """Depth inside the loose channels below the capsule and between the cords of the medulla."""
    septum: Floats
    """Depth inside the stroma between the nests of a tumour."""
    lumen: Floats
    """Depth inside the lumen of the nearest tumour gland."""
    lumen_dx: Floats
    """Direction away from the middle of that lumen, with `lumen_dy`."""
    lumen_dy: Floats
    vessel: Floats
    """Depth inside the nearest small vessel."""
    strand: Floats
    """Runs across the fibres of the node's strands, in µm: its contours are their course."""
    nest: Floats
    """Runs across the fibres between a tumour's nests, in µm."""
    fold: Floats
    crowding: Floats
    """About 1; how closely lymphocytes lie and how dark they are."""


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """The plan of one slide."""

    width_um: float
    height_um: float
    seed: int
    node: Blob
    fat: Blob
    tumours: tuple[Blob, ...]
    capsule_um: float
    follicle_um: float
    """Distance between follicles."""
    fold_um: tuple[float, float, float, float]
    """Ends (x, y, x, y) of the fold's axis."""
    pen_um: tuple[float, float, float]
    """Centre and radius of the pen's arc."""

    def tissue_depth(self, x_um: Floats, y_um: Floats) -> Floats:
        """Return the depth inside the section: node with its capsule, and fat."""
        depth: Floats = np.maximum(self.node.depth_um(x_um, y_um), self.fat.depth_um(x_um, y_um))
        return depth

    def tumour_depth(self, x_um: Floats, y_um: Floats) -> Floats:
        """Return the depth inside the nearest tumour, never outside the node."""
        depth = np.full(np.broadcast(x_um, y_um).shape, -FAR_UM, np.float32)
        for blob in self.tumours:
            depth = np.maximum(depth, blob.depth_um(x_um, y_um))
        inside: Floats = np.minimum(depth, self.node.depth_um(x_um, y_um) - self.capsule_um)
        return inside

    def zones(self, x_um: Floats, y_um: Floats) -> Zones:
        """Return all zones at positions in µm, broadcast together."""
        key = self.seed * 31
        node = self.node.depth_um(x_um, y_um)
        inner = node - self.capsule_um
        tumour = self.tumour_depth(x_um, y_um)
        follicle = self._follicle(x_um, y_um, inner)
        medulla = np.clip((inner - self.follicle_um * 0.55) / self.follicle_um, 0, 1)
        strand = octaves(x_um, y_um, 1.15 * self.follicle_um, key + 5, 2)
        trabecula = (0.045 - np.abs(strand)) * 0.75 * self.follicle_um - 9 * medulla
        channel = octaves(x_um, y_um, 0.26 * self.follicle_um, key + 7, 2)
        cords = (0.13 - np.abs(channel)) * 0.13 * self.follicle_um - 14 * (1 - medulla)
        below_capsule = 7 - np.abs(inner - 7)
        beside_strand = 5 - np.abs(trabecula + 6)
        sinus = np.maximum(np.maximum(below_capsule, beside_strand), cords)
        nest = octaves(x_um, y_um, 170.0, key + 6, 2)
        septum = (0.075 - np.abs(nest)) * 130
        lumen, lumen_dx, lumen_dy = self._lumen(x_um, y_um)
        lumen = np.minimum(lumen, np.minimum(-12 - septum, tumour - 24))
        crowding = 1 + 0.16 * octaves(x_um, y_um, 0.5 * self.follicle_um, key + 8, 3)
        return Zones(
            *(
                np.clip(values, -FAR_UM, FAR_UM, dtype=np.float32)
                for values in (
                    np.maximum(node, self.fat.depth_um(x_um, y_um)),
                    node,
                    tumour,
                    follicle,
                    trabecula,
                    sinus,
                    septum,
                    lumen,
                    lumen_dx,
                    lumen_dy,
                    self._vessel(x_um, y_um),
                    strand * 0.5 * self.follicle_um,
                    nest * 75,
                    self._fold(x_um, y_um),
                    crowding,
                )
            )
        )

    def _follicle(self, x_um: Floats, y_um: Floats, inner: Floats) -> Floats:
        key = self.seed * 31 + 11
        distance, _, _, chance = nearest_point(x_um, y_um, self.follicle_um, key)
        radius = self.follicle_um * (0.14 + 0.12 * chance)
        wobble = value_noise(x_um, y_um, 90.0, key + 3) * radius * 0.18
        present = (chance > 0.3) & (inner > 25) & (inner < 2.1 * self.follicle_um)
        depth: Floats = np.where(present, radius + wobble - distance, -FAR_UM)
        return depth

    def _lumen(self, x_um: Floats, y_um: Floats) -> tuple[Floats, Floats, Floats]:
        key = self.seed * 31 + 21
        distance, dx, dy, chance = nearest_point(x_um, y_um, 92.0, key)
        radius = np.where(chance > 0.4, 3 + 60 * np.maximum(chance - 0.4, 0) ** 1.5, -40)
        wobble = value_noise(x_um, y_um, 24.0, key + 3) * np.clip(radius, 0, 7)
        return radius + wobble - distance, dx, dy

    def _vessel(self, x_um: Floats, y_um: Floats) -> Floats:
        key = self.seed * 31 + 26
        distance, dx, dy, chance = nearest_point(x_um, y_um, 210.0, key)
        turn = 6.283 * chance * 7
        oval = np.abs(dx * np.cos(turn) + dy * np.sin(turn)) * (1.5 * chance)
        radius = np.where(chance > 0.55, 5 + 26 * (chance - 0.55), -FAR_UM)
        depth: Floats = radius - np.hypot(distance, oval)
        return depth

    def _fold(self, x_um: Floats, y_um: Floats) -> Floats:
        x0, y0, x1, y1 = self.fold_um
        length = float(np.hypot(x1 - x0, y1 - y0))
        ux, uy = (x1 - x0) / length, (y1 - y0) / length
        along = (x_um - x0) * ux + (y_um - y0) * uy
        across = (y_um - y0) * ux - (x_um - x0) * uy
        key = self.seed * 31 + 31
        across = across + octaves(x_um, y_um, length * 0.6, key, 3) * length * 0.12
        taper = np.clip(np.minimum(along, length - along) / (0.4 * length), 0, 1)
        half = min(0.05 * length, 42.0) * taper
        depth: Floats = np.where(taper > 0, half - np.abs(across), -FAR_UM)
        return depth

    def pen_depth(self, x_um: Floats, y_um: Floats) -> Floats:
        """Return the depth inside the pen's line."""
        cx, cy, radius = self.pen_um
        key = self.seed * 31 + 41
        distance = np.hypot(x_um - cx, y_um - cy)
        wave = octaves(x_um, y_um, radius, key, 3) * radius * 0.16
        half = radius * 0.055 * (1 + 0.35 * value_noise(x_um, y_um, radius / 3, key + 2))
        depth: Floats = (half - np.abs(distance - radius + wave)).astype(np.float32)
        return depth

    def tumour_polygons(self, mpp: float) -> tuple[Polygon, ...]:
        """Return the tumours' outlines in level-0 px, without overlap."""
        inner = Blob(
            self.node.x_um, self.node.y_um, self.node.radius_um - np.float32(self.capsule_um)
        ).polygon(mpp)
        union = unary_union([blob.polygon(mpp) for blob in self.tumours]).intersection(inner)
        return _polygons(union)

    def tissue_polygons(self, mpp: float) -> tuple[Polygon, ...]:
        """Return the section's outlines in level-0 px."""
        return _polygons(unary_union([self.node.polygon(mpp), self.fat.polygon(mpp)]))


def _polygons(geometry: object) -> tuple[Polygon, ...]:
    parts = getattr(geometry, "geoms", [geometry])
    found = [part for part in parts if isinstance(part, Polygon) and not part.is_empty]
    return tuple(sorted(found, key=lambda part: -part.area))


def make_scene(width_um: float, height_um: float, seed: int) -> Scene:
    """Return the plan of a slide of that size: one node with metastases, fat, fold and pen."""
    rng = np.random.default_rng([seed, 20])
    size = min(width_um, height_um)
    wide = min(width_um / height_um, 1.7)
    tall = min(height_um / width_um, 1.7)
    half = (0.33 * size * max(wide, 1), 0.33 * size * max(tall, 1))
    x, y = width_um * rng.uniform(0.47, 0.5), height_um * rng.uniform(0.5, 0.53)
    side = rng.uniform(0, 2 * np.pi)
    node = make_blob(x, y, half, rng, roughness=0.15, notch=side)
    fat_xy = x + 0.5 * half[0] * np.cos(side), y + 0.5 * half[1] * np.sin(side)
    fat = make_blob(*fat_xy, (half[0] * 0.8, half[1] * 0.8), rng, roughness=0.16)
    tumours = []
    start = side + 2.0 + rng.uniform(-0.3, 0.3)
    for k, share in enumerate((0.34, 0.24, 0.13)):
        turn = start + k * 1.9 + rng.uniform(-0.2, 0.2)
        away = 0.62 if k else 0.5
        tumours.append(
            make_blob(
                x + half[0] * away * np.cos(turn),
                y + half[1] * away * np.sin(turn),
                (
                    share * half[0] * rng.uniform(0.95, 1.2),
                    share * half[1] * rng.uniform(1.0, 1.3),
                ),
                rng,
                roughness=0.2,
                tilt=rng.uniform(0, np.pi),
            )
        )
    lean = start + 5.2
    fold = (
        x + half[0] * 0.55 * np.cos(lean),
        y + half[1] * 0.55 * np.sin(lean),
        x + half[0] * 1.02 * np.cos(lean + 0.5),
        y + half[1] * 1.02 * np.sin(lean + 0.5),
    )
    pen_radius = 0.16 * size
    pen = (width_um - 0.02 * size, 0.02 * size, pen_radius)
    return Scene(
        width_um=width_um,
        height_um=height_um,
        seed=seed,
        node=node,
        fat=fat,
        tumours=tuple(tumours),
        capsule_um=float(min(35.0, 0.02 * size)),
        follicle_um=float(np.clip(0.12 * size, 220, 620)),
        fold_um=fold,
        pen_um=pen,
    )
