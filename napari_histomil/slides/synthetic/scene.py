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

from napari_histomil.slides.synthetic.noise import Floats, hash01, octaves, value_noise

OUTLINE_POINTS = 720


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
) -> Blob:
    """Return an ellipse with half axes `radius_um`, turned by `tilt`, with an irregular edge."""
    angle = np.arange(OUTLINE_POINTS) * (2 * np.pi / OUTLINE_POINTS)
    a, b = radius_um
    ellipse = a * b / np.hypot(b * np.cos(angle - tilt), a * np.sin(angle - tilt))
    wave = np.zeros(OUTLINE_POINTS)
    for n in range(2, 42):
        amount = rng.normal() * roughness / n**1.15
        wave += amount * np.cos(n * angle + rng.uniform(0, 2 * np.pi))
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
    septum: Floats
    """Depth inside the stroma between the nests of a tumour."""
    lumen: Floats
    """Depth inside the lumen of the nearest tumour gland."""
    lumen_angle: Floats
    """Direction from that lumen's centre."""
    fold: Floats
    pen: Floats


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
    edge_um: float
    """How far the finest raggedness moves the tissue's edge."""

    def tissue_depth(self, x_um: Floats, y_um: Floats) -> Floats:
        """Return the depth inside the section: node with its capsule, and fat."""
        depth: Floats = np.maximum(
            self.node.depth_um(x_um, y_um), self.fat.depth_um(x_um, y_um)
        )
        return depth

    def tumour_depth(self, x_um: Floats, y_um: Floats) -> Floats:
        """Return the depth inside the nearest tumour, never outside the node."""
        depth = np.full(np.broadcast(x_um, y_um).shape, -1e6, np.float32)
        for blob in self.tumours:
            depth = np.maximum(depth, blob.depth_um(x_um, y_um))
        inside: Floats = np.minimum(depth, self.node.depth_um(x_um, y_um) - self.capsule_um)
        return inside

    def zones(self, x_um: Floats, y_um: Floats) -> Zones:
        """Return all zones at positions in µm, broadcast together."""
        node = self.node.depth_um(x_um, y_um)
        tissue = np.maximum(node, self.fat.depth_um(x_um, y_um))
        tumour = self.tumour_depth(x_um, y_um)
        follicle = self._follicle(x_um, y_um, node)
        ridge = 1 - np.abs(octaves(x_um, y_um, 520.0, self.seed * 31 + 5, 2)) * 9
        deep = np.clip((node - self.follicle_um * 0.5) / 150, 0, 1)
        trabecula = (ridge - 1.02 + 0.35 * deep) * 28
        nest = np.abs(octaves(x_um, y_um, 150.0, self.seed * 31 + 6, 2))
        septum = (0.085 - nest) * 130
        lumen, angle = self._lumen(x_um, y_um)
        return Zones(
            tissue=tissue,
            node=node,
            tumour=tumour,
            follicle=follicle,
            trabecula=trabecula.astype(np.float32),
            septum=septum.astype(np.float32),
            lumen=lumen,
            lumen_angle=angle,
            fold=self._fold(x_um, y_um),
            pen=self._pen(x_um, y_um),
        )

    def _nearest(
        self, x_um: Floats, y_um: Floats, spacing_um: float, key: int
    ) -> tuple[Floats, Floats, Floats, Floats]:
        """Return (distance, dx, dy, a random number) of the nearest point of a jittered lattice."""
        gx = np.floor(np.asarray(x_um) / spacing_um).astype(np.int64)
        gy = np.floor(np.asarray(y_um) / spacing_um).astype(np.int64)
        shape = np.broadcast(gx, gy).shape
        best = np.full(shape, np.inf, np.float32)
        best_dx, best_dy = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        chance = np.zeros(shape, np.float32)
        for i in (-1, 0, 1):
            for j in (-1, 0, 1):
                cx = (gx + i + 0.2 + 0.6 * hash01(gx + i, gy + j, key)) * spacing_um
                cy = (gy + j + 0.2 + 0.6 * hash01(gx + i, gy + j, key + 1)) * spacing_um
                dx, dy = x_um - cx, y_um - cy
                distance = np.hypot(dx, dy).astype(np.float32)
                nearer = distance < best
                best = np.where(nearer, distance, best)
                best_dx = np.where(nearer, dx, best_dx).astype(np.float32)
                best_dy = np.where(nearer, dy, best_dy).astype(np.float32)
                chance = np.where(nearer, hash01(gx + i, gy + j, key + 2), chance)
        return best, best_dx, best_dy, chance

    def _follicle(self, x_um: Floats, y_um: Floats, node: Floats) -> Floats:
        distance, _, _, chance = self._nearest(
            x_um, y_um, self.follicle_um, self.seed * 31 + 11
        )
        radius = self.follicle_um * (0.16 + 0.14 * chance)
        wobble = value_noise(x_um, y_um, 90.0, self.seed * 31 + 14) * radius * 0.18
        present = (chance > 0.25) & (node > self.capsule_um + 20)
        depth: Floats = np.where(present, radius + wobble - distance, -1e6).astype(np.float32)
        return depth

    def _lumen(self, x_um: Floats, y_um: Floats) -> tuple[Floats, Floats]:
        distance, dx, dy, chance = self._nearest(x_um, y_um, 105.0, self.seed * 31 + 21)
        radius = np.where(chance > 0.45, 6 + 34 * (chance - 0.45), -30)
        angle = np.arctan2(dy, dx).astype(np.float32)
        wobble = value_noise(x_um, y_um, 26.0, self.seed * 31 + 24) * 7
        return (radius + wobble - distance).astype(np.float32), angle

    def _fold(self, x_um: Floats, y_um: Floats) -> Floats:
        x0, y0, x1, y1 = self.fold_um
        length = float(np.hypot(x1 - x0, y1 - y0))
        ux, uy = (x1 - x0) / length, (y1 - y0) / length
        along = (x_um - x0) * ux + (y_um - y0) * uy
        across = (y_um - y0) * ux - (x_um - x0) * uy
        across = across + value_noise(x_um, y_um, length / 2, self.seed * 31 + 31) * length * 0.06
        taper = np.clip(np.minimum(along, length - along) / (0.25 * length), 0, 1)
        half = min(0.022 * length, 45.0) * taper
        depth: Floats = (half - np.abs(across) - 1e3 * (taper <= 0)).astype(np.float32)
        return depth

    def _pen(self, x_um: Floats, y_um: Floats) -> Floats:
        cx, cy, radius = self.pen_um
        distance = np.hypot(x_um - cx, y_um - cy)
        wave = value_noise(x_um, y_um, radius / 2, self.seed * 31 + 41) * radius * 0.05
        half = radius * 0.06 * (1 + 0.3 * value_noise(x_um, y_um, radius / 3, self.seed * 31 + 42))
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
    node = make_blob(x, y, half, rng, roughness=0.10)
    side = rng.uniform(0.15, 0.85) * np.pi
    fat_xy = x + 0.42 * half[0] * np.cos(side), y + 0.42 * half[1] * np.sin(side)
    fat = make_blob(*fat_xy, (half[0] * 0.85, half[1] * 0.82), rng, roughness=0.13)
    tumours = []
    start = rng.uniform(0, 2 * np.pi)
    for k, share in enumerate((0.34, 0.24, 0.13)):
        turn = start + k * 2.2 + rng.uniform(-0.2, 0.2)
        away = 0.62 if k else 0.5
        tumours.append(
            make_blob(
                x + half[0] * away * np.cos(turn),
                y + half[1] * away * np.sin(turn),
                (share * half[0] * rng.uniform(0.95, 1.2), share * half[1] * rng.uniform(1.0, 1.3)),
                rng,
                roughness=0.16,
                tilt=rng.uniform(0, np.pi),
            )
        )
    lean = start + 3.6
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
        edge_um=3.0,
    )
