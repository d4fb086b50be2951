"""Pieces of tissue with labels, and squares cut out of them.

A *field* is a connected piece of tissue with its labels, at the model's µm/px. Training tiles are
cut from fields at any place, on the fly (`sampling.py` says where). Finding and reading files
lives in `data.py` and `slide_data.py`.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import shapely
from numpy.typing import NDArray

from napari_histomil.annotations import raster
from napari_histomil.slides.slide import Slide, read_tile
from napari_histomil.training.labels import UNLABELLED as UNLABELLED  # for all who cut fields

Uint8 = NDArray[np.uint8]

TRIES = 500
"""Random places that are looked at before a label counts as missing in a slide."""

_RASTER = threading.Lock()
"""rasterio silences its own warnings, which is not safe in several threads."""


class Field(Protocol):
    """A piece of tissue that tiles are cut from."""

    @property
    def name(self) -> str:
        """What messages call it."""

    @property
    def group(self) -> str:
        """What it belongs to: never on both sides of a split."""

    @property
    def source(self) -> str:
        """Name of its source."""

    @property
    def tags(self) -> Mapping[str, str]:
        """What else is known of it: ``slide``, ``patient``, ``center``, ..."""

    @property
    def size_px(self) -> tuple[int, int]:
        """(width, height) at the model's µm/px."""

    @property
    def present(self) -> tuple[int, ...]:
        """Labels that it holds, without `UNLABELLED`, ascending."""

    @property
    def fingerprint(self) -> bytes:
        """Changes with its pixels and its labels."""

    def cut(self, xy_px: tuple[int, int], size_px: int) -> tuple[Uint8, Uint8]:
        """Return pixels [size, size, 3] and labels [size, size] from a corner (x, y) on.

        The square may reach beyond the field. Pixels that a refiner is given have 4 channels.
        """

    def place(self, rng: np.random.Generator, label: int | None = None) -> tuple[int, int]:
        """Return a random place (x, y) to cut a tile around: of a label, or any."""


@dataclass(frozen=True, slots=True, eq=False)
class ArrayField:
    """A field in memory. Beyond its edge the tissue is mirrored, or there is glass."""

    name: str
    group: str
    source: str
    image: Uint8
    """[h, w, 3]"""
    labels: Uint8
    """[h, w], index of the class, `NONE` or `UNLABELLED`."""
    mirrored: bool
    """True for a piece cut out of tissue; False for a whole slide, which ends in glass."""
    places: Mapping[int, NDArray[np.int32]] = field(repr=False)
    """Label -> where it is, as ``y * w + x``, ascending."""
    tags: Mapping[str, str] = field(default_factory=dict)
    whole: bool = False
    """Whether it is looked at as a whole: tiles are cut around its middle only."""
    beyond: int = 0
    """Label of the glass around a whole slide."""

    @property
    def size_px(self) -> tuple[int, int]:
        """(width, height)."""
        return self.image.shape[1], self.image.shape[0]

    @property
    def present(self) -> tuple[int, ...]:
        """Labels that it holds."""
        return tuple(self.places)

    @property
    def fingerprint(self) -> bytes:
        """All its bytes."""
        return self.image.tobytes() + self.labels.tobytes()

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
            image[outside], labels[outside] = 255, self.beyond
        return image, labels

    def place(self, rng: np.random.Generator, label: int | None = None) -> tuple[int, int]:
        """Return a random place.

        Any place of a whole slide is in the foreground every other time, because most of a slide
        is background.
        """
        width, height = self.size_px
        if self.whole:
            return width // 2, height // 2
        if label is None and not self.mirrored and rng.random() < 0.5:
            others = [value for value in self.places if value != self.beyond]
            if others:
                weights = np.array([len(self.places[value]) for value in others])
                label = others[int(rng.choice(len(others), p=weights / weights.sum()))]
        if label is None:
            return int(rng.integers(width)), int(rng.integers(height))
        own = self.places[label]
        y, x = divmod(int(own[rng.integers(len(own))]), width)
        return x, y


def array_field(
    name: str,
    group: str,
    source: str,
    image: Uint8,
    labels: Uint8,
    *,
    mirrored: bool,
    tags: Mapping[str, str] | None = None,
    whole: bool = False,
    beyond: int = 0,
) -> ArrayField:
    """Return a field of pixels [h, w, 3] and labels [h, w] in memory."""
    flat = labels.ravel()
    order = np.argsort(flat, kind="stable").astype(np.int32)
    values, starts = np.unique(flat[order], return_index=True)
    parts = np.split(order, starts[1:])
    places = {int(v): p for v, p in zip(values.tolist(), parts, strict=True) if v != UNLABELLED}
    return ArrayField(
        name, group, source, image, labels, mirrored, places, tags or {}, whole, beyond
    )


@dataclass(frozen=True, slots=True, eq=False)
class SlideField:
    """An annotated slide; pixels are read when they are asked for.

    What the regions mean is as in `annotations.raster`: inside ``Region*`` what is not drawn is
    background, outside of it and inside ``Ignore*`` nothing is known.
    """

    name: str
    group: str
    source: str
    slide: Slide
    mpp: float
    painting: raster.Painting
    """Of the slide's regions, on a grid of pixels at `mpp`."""
    label_of: Uint8
    """Value that is painted -> label, [256]."""
    tags: Mapping[str, str] = field(default_factory=dict)
    homes: Mapping[int, tuple[NDArray[np.int64], NDArray[np.float64]]] = field(
        init=False, repr=False
    )
    """Label -> polygons that may hold it, and their areas added up; no polygons for anywhere."""

    def __post_init__(self) -> None:
        painted = self.label_of[self.painting.values]
        areas = shapely.area(self.painting.polygons)
        homes = {}
        for label in np.unique(painted).tolist():
            own = np.flatnonzero(painted == label)
            homes[label] = own, np.cumsum(areas[own])
        base = int(self.label_of[self.painting.base])
        if base != UNLABELLED:
            homes[base] = np.empty(0, np.int64), np.empty(0)
        homes.pop(UNLABELLED, None)
        object.__setattr__(self, "homes", homes)
        rng = np.random.default_rng(0)
        missing = [label for label in homes if self._find(rng, label) is None]
        for label in missing:
            del homes[label]

    @property
    def size_px(self) -> tuple[int, int]:
        """(width, height) at the model's µm/px."""
        info = self.slide.info
        mpp_x, mpp_y = info.mpp_xy
        return (
            max(round(info.width_px0 * mpp_x / self.mpp), 1),
            max(round(info.height_px0 * mpp_y / self.mpp), 1),
        )

    @property
    def present(self) -> tuple[int, ...]:
        """Labels that some place of it was found to have."""
        return tuple(sorted(self.homes))

    @property
    def fingerprint(self) -> bytes:
        """The slide's, and all shapes with their labels."""
        shapes = b"".join(shapely.to_wkb(self.painting.polygons).tolist())
        labels = self.label_of[self.painting.values].tobytes()
        base = bytes([int(self.label_of[self.painting.base])])
        return self.slide.info.fingerprint.encode() + shapes + labels + base

    def cut(self, xy_px: tuple[int, int], size_px: int) -> tuple[Uint8, Uint8]:
        """Return pixels and labels of a square; a pixel is what its centre is."""
        width, height = self.painting.grid.pixel_px0
        corner = xy_px[0] * width, xy_px[1] * height
        image = read_tile(self.slide, corner, size_px, self.mpp)
        return image, self.labels_at(xy_px, size_px)

    def labels_at(self, xy_px: tuple[int, int], size_px: int) -> Uint8:
        """Return the labels of a square alone: the slide is not read."""
        width, height = self.painting.grid.pixel_px0
        corner = xy_px[0] * width, xy_px[1] * height
        with _RASTER:
            painted = raster.window(self.painting, xy_px, (size_px, size_px))
        labels = self.label_of[painted]
        info = self.slide.info
        x0 = corner[0] + (np.arange(size_px) + 0.5) * width
        y0 = corner[1] + (np.arange(size_px) + 0.5) * height
        labels[:, (x0 < 0) | (x0 >= info.width_px0)] = UNLABELLED
        labels[(y0 < 0) | (y0 >= info.height_px0), :] = UNLABELLED
        return labels

    def place(self, rng: np.random.Generator, label: int | None = None) -> tuple[int, int]:
        """Return a random place: polygons by their area, so all of a label is equally likely."""
        if label is None:
            label = self.present[int(rng.integers(len(self.present)))]
        found = None
        while found is None:  # it was found before, so it will be again
            found = self._find(rng, label)
        width, height = self.painting.grid.pixel_px0
        return int(found[0] / width), int(found[1] / height)

    def _find(self, rng: np.random.Generator, label: int) -> tuple[float, float] | None:
        """Look for a place (x, y) of a label in level-0 px, a limited number of times."""
        own, summed = self.homes[label]
        info = self.slide.info
        for _ in range(TRIES):
            box = (0.0, 0.0, float(info.width_px0), float(info.height_px0))
            if len(own):
                chosen = int(np.searchsorted(summed, rng.uniform(0, summed[-1]), side="right"))
                box = self.painting.polygons[own[min(chosen, len(own) - 1)]].bounds
            x, y = rng.uniform(box[0], box[2]), rng.uniform(box[1], box[3])
            inside = 0 <= x < info.width_px0 and 0 <= y < info.height_px0
            if inside and self._label_at(x, y) == label:
                return x, y
        return None

    def _label_at(self, x_px0: float, y_px0: float) -> int:
        """Return the label of a place: that of the polygon painted last."""
        painting = self.painting
        near = painting.tree.query(shapely.Point(x_px0, y_px0), predicate="intersects")
        value = painting.values[near.max()] if len(near) else painting.base
        return int(self.label_of[value])


def _mirror(index: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Reflect indices at both ends (the edge pixel is not doubled)."""
    if size == 1:
        return np.zeros_like(index)
    period = 2 * (size - 1)
    folded = np.mod(index, period)
    return np.where(folded >= size, period - folded, folded)
