"""Pieces of tissue with labels, and squares cut out of them.

A *field* is a connected piece of tissue with its labels, at the model's µm/px. Training tiles are
cut from fields at any place, on the fly. Finding and reading files lives in `data.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import shapely
from numpy.typing import NDArray

from napari_histomil.slides.slide import Slide, read_tile

UNLABELLED = 255
"""Label of pixels that nobody has judged: they are not learnt from."""

Uint8 = NDArray[np.uint8]


class Field(Protocol):
    """A piece of tissue that tiles are cut from."""

    @property
    def name(self) -> str:
        """What messages call it."""

    @property
    def group(self) -> str:
        """What it belongs to."""

    @property
    def source(self) -> str:
        """Name of its source."""

    @property
    def size_px(self) -> tuple[int, int]:
        """(width, height) at the model's µm/px."""

    def cut(self, xy_px: tuple[int, int], size_px: int) -> tuple[Uint8, Uint8]:
        """Return pixels [size, size, 3] and labels [size, size] from a corner (x, y) on.

        The square may reach beyond the field.
        """

    def centre(self, rng: np.random.Generator) -> tuple[int, int]:
        """Return a random place (x, y) to cut a training tile around."""


@dataclass(frozen=True, slots=True, eq=False)
class ArrayField:
    """A field in memory. Beyond its edge the tissue is mirrored, or there is glass."""

    name: str
    group: str
    source: str
    image: Uint8
    """[h, w, 3]"""
    labels: Uint8
    """[h, w], index of the class or `UNLABELLED`."""
    mirrored: bool
    """True for a piece cut out of tissue; False for a whole slide, which ends in glass."""
    foreground: NDArray[np.int64]
    """[n, 2] places (x, y) of other classes than the first; half of the training tiles of a
    whole slide are cut around one of them, because most of a slide is background."""

    @property
    def size_px(self) -> tuple[int, int]:
        """(width, height)."""
        return self.image.shape[1], self.image.shape[0]

    def cut(self, xy_px: tuple[int, int], size_px: int) -> tuple[Uint8, Uint8]:
        """Return pixels and labels of a square."""
        height, width = self.labels.shape
        x = np.arange(xy_px[0], xy_px[0] + size_px)
        y = np.arange(xy_px[1], xy_px[1] + size_px)
        inner_x, inner_y = _mirror(x, width), _mirror(y, height)
        image = self.image[inner_y[:, None], inner_x[None, :]]
        labels = self.labels[inner_y[:, None], inner_x[None, :]]
        if not self.mirrored:
            outside = (y != inner_y)[:, None] | (x != inner_x)[None, :]
            image[outside], labels[outside] = 255, 0
        return image, labels

    def centre(self, rng: np.random.Generator) -> tuple[int, int]:
        """Return a random place; on a whole slide every other one in the foreground."""
        if not self.mirrored and len(self.foreground) and rng.random() < 0.5:
            x, y = self.foreground[rng.integers(len(self.foreground))]
            return int(x), int(y)
        width, height = self.size_px
        return int(rng.integers(width)), int(rng.integers(height))


def array_field(
    name: str, group: str, source: str, image: Uint8, labels: Uint8, *, mirrored: bool
) -> ArrayField:
    """Return a field of pixels [h, w, 3] and labels [h, w] in memory."""
    y, x = np.nonzero((labels > 0) & (labels != UNLABELLED))
    return ArrayField(name, group, source, image, labels, mirrored, np.stack([x, y], axis=1))


@dataclass(frozen=True, slots=True, eq=False)
class SlideField:
    """An annotated slide; pixels are read when they are asked for."""

    name: str
    group: str
    source: str
    slide: Slide
    mpp: float
    shapes: tuple[tuple[shapely.Geometry, int], ...]
    """Polygons in level-0 px with the index of their class; later ones lie above."""
    unannotated: int
    """Label of what no polygon covers."""

    @property
    def size_px(self) -> tuple[int, int]:
        """(width, height) at the model's µm/px."""
        info = self.slide.info
        mpp_x, mpp_y = info.mpp_xy
        return (
            max(round(info.width_px0 * mpp_x / self.mpp), 1),
            max(round(info.height_px0 * mpp_y / self.mpp), 1),
        )

    def cut(self, xy_px: tuple[int, int], size_px: int) -> tuple[Uint8, Uint8]:
        """Return pixels and labels of a square; a pixel is what its centre is."""
        mpp_x, mpp_y = self.slide.info.mpp_xy
        step = self.mpp / mpp_x, self.mpp / mpp_y  # level-0 px per px
        corner = xy_px[0] * step[0], xy_px[1] * step[1]
        image = read_tile(self.slide, corner, size_px, self.mpp)
        labels = np.full((size_px, size_px), self.unannotated, np.uint8)
        x = corner[0] + (np.arange(size_px) + 0.5) * step[0]
        y = corner[1] + (np.arange(size_px) + 0.5) * step[1]
        for shape, value in self.shapes:
            left, top, right, bottom = shape.bounds
            columns, rows = _between(x, left, right), _between(y, top, bottom)
            if columns.start < columns.stop and rows.start < rows.stop:
                inside = shapely.contains_xy(shape, x[None, columns], y[rows, None])
                labels[rows, columns][inside] = value
        return image, labels

    def centre(self, rng: np.random.Generator) -> tuple[int, int]:
        """Return a random place in a random polygon; anywhere every other time if all counts."""
        width, height = self.size_px
        if not self.shapes or (self.unannotated != UNLABELLED and rng.random() < 0.5):
            return int(rng.integers(width)), int(rng.integers(height))
        shape, _ = self.shapes[rng.integers(len(self.shapes))]
        left, top, right, bottom = shape.bounds
        mpp_x, mpp_y = self.slide.info.mpp_xy
        for _ in range(100):  # a polygon fills a fair part of its box, as a rule
            x, y = rng.uniform(left, right), rng.uniform(top, bottom)
            if shapely.contains_xy(shape, x, y):
                break
        return int(x * mpp_x / self.mpp), int(y * mpp_y / self.mpp)


def cut_around(
    fields: Sequence[Field], shares: Mapping[str, float], size_px: int, rng: np.random.Generator
) -> tuple[Uint8, Uint8]:
    """Cut a random square: the source by its share, then any of its fields, then a place."""
    present = sorted({f.source for f in fields if shares[f.source] > 0})
    weights = np.array([shares[name] for name in present])
    source = present[rng.choice(len(present), p=weights / weights.sum())]
    own = [f for f in fields if f.source == source]
    chosen = own[rng.integers(len(own))]
    x, y = chosen.centre(rng)
    return chosen.cut((x - size_px // 2, y - size_px // 2), size_px)


def _mirror(index: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Reflect indices at both ends (the edge pixel is not doubled)."""
    if size == 1:
        return np.zeros_like(index)
    period = 2 * (size - 1)
    folded = np.mod(index, period)
    return np.where(folded >= size, period - folded, folded)


def _between(values: NDArray[np.floating], low: float, high: float) -> slice:
    """Return which of the ascending values lie in low to high."""
    return slice(int(np.searchsorted(values, low)), int(np.searchsorted(values, high, "right")))
