"""From plan to pixels: blocks of stain concentration, and light through them (Beer-Lambert)."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from shapely.geometry import Polygon

from napari_histomil.errors import HistomilError
from napari_histomil.slides.synthetic.fields import Fields
from napari_histomil.slides.synthetic.histology import Histology, Matter
from napari_histomil.slides.synthetic.noise import Floats, octaves, periodic_texture
from napari_histomil.slides.synthetic.scene import Scene, make_scene

BLOCK = 512
"""Side of the blocks in px; each is made whole, from its place and the seed alone."""
INKS = {"green": (1.30, 0.36, 0.95), "blue": (1.35, 0.72, 0.16), "black": (1.5, 1.5, 1.4)}
"""Optical density of a pen's line for red, green, blue."""
BLOOD = (0.12, 0.85, 0.62)


@dataclass(frozen=True, slots=True)
class Stains:
    """Colours of the stains: optical density per unit of concentration, for red, green, blue.

    Defaults lie between the hematoxylin and eosin vectors of Ruifrok and Johnston (2001) and those
    of a scanned lymph node.
    """

    hematoxylin: tuple[float, float, float] = (0.61, 0.74, 0.29)
    eosin: tuple[float, float, float] = (0.18, 0.92, 0.34)
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
        if self.pen and self.pen not in INKS:
            raise HistomilError(f"There is no {self.pen} pen: choose one of {', '.join(INKS)}.")

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
    def _histology(self) -> Histology:
        return Histology(self.scene, self.mpp, BLOCK)

    @cached_property
    def _noise(self) -> Floats:
        """Noise of the camera, in grey levels."""
        rng = np.random.default_rng([self.seed, 22])
        return periodic_texture(509, 0.6, rng) * np.float32(1.0)

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
        side = BLOCK * self.mpp
        fields = Fields(self.scene, (bx * side, by * side), side)
        matter = None
        if fields.zones.tissue.max() > -30:
            matter = self._histology.matter(bx, by, fields)
        return self._light(bx, by, fields, matter)

    def _light(self, bx: int, by: int, fields: Fields, matter: Matter | None) -> NDArray[np.uint8]:
        """Send light through the block: Beer-Lambert, camera noise, 8 bits."""
        noise = self._histology.tile(self._noise, bx, by)
        pen = self._ink(bx, by, fields) if self.pen else None
        out = np.empty((BLOCK, BLOCK, 3), np.uint8)
        strength = np.float32(self.stains.strength)
        for c in range(3):
            light = np.full((BLOCK, BLOCK), self.stains.glass[c], np.float32)
            if matter is not None:
                od = matter.hematoxylin * np.float32(self.stains.hematoxylin[c])
                od += matter.eosin * np.float32(self.stains.eosin[c])
                if matter.blood is not None:
                    od += matter.blood * np.float32(BLOOD[c])
                od *= -strength
                light *= np.exp(od, out=od)
            if pen is not None:
                light *= np.exp(pen * np.float32(-INKS[self.pen][c]))
            light += noise
            light += np.float32(0.5)
            out[..., c] = np.clip(light, 0, 255, out=light)
        return out

    def _ink(self, bx: int, by: int, fields: Fields) -> Floats | None:
        depth = self.scene.pen_depth(fields.x_um, fields.y_um)
        if depth.max() < -6:
            return None
        x = ((np.arange(BLOCK) + (0.5 + bx * BLOCK)) * self.mpp).astype(np.float32)
        y = ((np.arange(BLOCK) + (0.5 + by * BLOCK)) * self.mpp).astype(np.float32)
        ramp = np.clip(fields.raster(depth, x, y) / 5 + 0.5, 0, 1)
        streak = octaves(fields.x_um, fields.y_um, 60.0, self.seed * 31 + 45, 3)
        ink: Floats = ramp * (0.85 + 0.35 * fields.raster(streak, x, y))
        return ink
