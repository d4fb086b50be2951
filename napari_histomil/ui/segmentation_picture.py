"""A part of a segmentation as an RGBA picture: which level and pixels, classes or probability.

Pure numpy and shapely, no window: it runs in a thread beside the GUI. The pixels of a picture are
those of a level of the run's pyramid, so they lie where the model's do. Steps on outlines are
done on what is in view, with the level's pixels: far away they are a preview, and what lies on the
picture's edge keeps its size.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio.features import rasterize
from shapely.geometry.base import BaseGeometry

from napari_histomil.annotations.tracing import Tracer
from napari_histomil.exchange.labels import Steps, after_steps, is_class
from napari_histomil.geometry import Rect
from napari_histomil.results import SegmentationStore
from napari_histomil.results.segmentation import CERTAIN, UNKNOWN, Stored
from napari_histomil.ui.colours import colour_steps
from napari_histomil.ui.segmentation_view import Facts, Small, Style

MOST_PIXELS = 6_000_000
"""A larger picture is taken from a coarser level."""

OVERVIEW_PIXELS = 1_000_000
"""Rough areas and the minimap are taken from a level of no more pixels, where there is one."""

LINE_PX = 2.0
"""Width of outlines in pixels of the screen; no less than a pixel of the picture."""

AROUND = 0.3
"""Share of the view's sides that a picture reaches beyond it, on each side."""

Picture = NDArray[np.uint8]
"""[rows, columns, 4]."""


class Cancelled(Exception):
    """Another picture is wanted meanwhile."""


@dataclass(frozen=True, slots=True)
class Frame:
    """Pixels of a level."""

    level: int
    top: int
    left: int
    bottom: int
    right: int
    line: int
    """Width of outlines, in these pixels."""

    @property
    def rows(self) -> slice:
        """Of the level."""
        return slice(self.top, self.bottom)

    @property
    def columns(self) -> slice:
        """Of the level."""
        return slice(self.left, self.right)


def frame_for(store: SegmentationStore, view_px0: Rect, screen_px0: float) -> Frame | None:
    """Return the part of the pyramid that shows a view; None where nothing of it is in view.

    Parameters
    ----------
    store
        The segmentation.
    view_px0
        What is in view, with what is wanted around it.
    screen_px0
        Level-0 pixels along x that a physical pixel of the screen shows.
    """
    across, down = store.picture.pixel_px0
    level = min(max(round(math.log2(screen_px0 / across)), 0), len(store.level_shapes) - 1)
    while True:
        step = 2**level
        rows, columns = store.level_shapes[level]
        left, right = _span(view_px0.x_px0, view_px0.right_px0, across * step, columns)
        top, bottom = _span(view_px0.y_px0, view_px0.bottom_px0, down * step, rows)
        if left >= right or top >= bottom:
            return None
        if (right - left) * (bottom - top) <= MOST_PIXELS or level == len(store.level_shapes) - 1:
            line = max(round(LINE_PX * screen_px0 / (across * step)), 1)
            return Frame(level, top, left, bottom, right, line)
        level += 1


def rect_of(store: SegmentationStore, frame: Frame) -> Rect:
    """Return what a frame covers, in level-0 pixels."""
    across, down = (side * 2**frame.level for side in store.picture.pixel_px0)
    width, height = (frame.right - frame.left) * across, (frame.bottom - frame.top) * down
    return Rect(frame.left * across, frame.top * down, width, height)


def holds(frame: Frame, wanted: Frame | None) -> bool:
    """Say whether a frame shows all of another one, as finely and with lines as wide."""
    return wanted is None or (
        (frame.level, frame.line) == (wanted.level, wanted.line)
        and frame.top <= wanted.top
        and frame.left <= wanted.left
        and frame.bottom >= wanted.bottom
        and frame.right >= wanted.right
    )


def paint(
    store: SegmentationStore,
    stored: Stored,
    style: Style,
    *,
    pixel_um: float,
    line: int,
    turn: Callable[[], None] = lambda: None,
) -> Picture:
    """Return the picture of a part of a level.

    Parameters
    ----------
    store
        The segmentation: its classes and how they exclude each other.
    stored
        uint8 [C, rows, columns], as `SegmentationStore.read` returns it.
    style
        How it is shown.
    pixel_um
        Side of a pixel in µm.
    line
        Width of outlines in pixels.
    turn
        Called now and then; what it raises stops the work.
    """
    if style.probability:
        return _probability(stored[style.class_index], style)
    labels = class_labels(store, stored, style, pixel_um=pixel_um, turn=turn)
    if style.outline:
        labels = _outlines(labels, line)
    colours = np.zeros((len(store.classes) + 1, 4), np.uint8)
    colours[1:] = [(*kind.color, 255) for kind in store.classes]
    return colours[labels]


def class_labels(
    store: SegmentationStore,
    stored: Stored,
    style: Style,
    *,
    pixel_um: float,
    turn: Callable[[], None] = lambda: None,
) -> NDArray[np.uint8]:
    """Return [rows, columns]: 1 more than the index of the class that is shown; 0 for none.

    Where several classes may be, the most likely counts; after steps on outlines the smaller
    object, as in the files and regions (`exchange.labels`).
    """
    columns = [index for index, on in enumerate(style.on) if on]
    labels = np.zeros(stored.shape[1:], np.uint8)
    masks = [is_class(store, stored, index, style.steps) for index in columns]
    turn()
    if style.steps.on_outlines:
        shapes = _shapes(masks, columns, style.steps, pixel_um, turn)
        if shapes:
            rasterize(shapes, out=labels)
        labels[(stored == UNKNOWN).any(axis=0)] = 0
        return labels
    best = np.zeros(labels.shape, np.uint8)
    for index, mask in zip(columns, masks, strict=True):
        better = mask & ((labels == 0) | (stored[index] > best))
        labels[better] = index + 1
        best[better] = stored[index][better]
    return labels


def rough_facts(
    store: SegmentationStore, stored: Stored, steps: Steps, *, pixel_um: float, done_tiles: int
) -> Facts:
    """Return the areas on a coarse level, after the threshold; arguments as of `paint`."""
    pixel_mm2 = pixel_um**2 / 1e6
    areas = {
        name: float(is_class(store, stored, index, steps).sum() * pixel_mm2)
        for index, name in enumerate(store.class_names)
    }
    looked_at = float((stored != UNKNOWN).all(axis=0).sum() * pixel_mm2)
    return Facts(areas, looked_at, exact=False, done_tiles=done_tiles)


def overview_level(store: SegmentationStore) -> int:
    """Return the finest level of no more than `OVERVIEW_PIXELS`, else the coarsest."""
    small = [n for n, s in enumerate(store.level_shapes) if s[0] * s[1] <= OVERVIEW_PIXELS]
    return small[0] if small else len(store.level_shapes) - 1


def small_picture(
    store: SegmentationStore, stored: Stored, style: Style, *, pixel_um: float
) -> Small:
    """Return the whole as a small picture, filled and without steps on outlines."""
    plain = replace(style, outline=False, steps=Steps(style.steps.threshold))
    return Small(paint(store, stored, plain, pixel_um=pixel_um, line=1), pixel_um)


def _span(low_px0: float, high_px0: float, pixel_px0: float, count: int) -> tuple[int, int]:
    """Return [first, last) of the pixels between two places, within 0 and `count`."""
    first, last = math.floor(low_px0 / pixel_px0), math.ceil(high_px0 / pixel_px0)
    return max(first, 0), min(last, count)


def _probability(stored: NDArray[np.uint8], style: Style) -> Picture:
    colours = _probability_colours(style.colours).copy()
    threshold = style.steps.threshold
    if threshold is not None:
        colours[np.arange(256) < threshold * CERTAIN, 3] = 0
    picture: Picture = colours[stored]
    return picture


@cache
def _probability_colours(name: str) -> NDArray[np.uint8]:
    """Return [256, 4]: the colour of each value as it is stored."""
    steps = colour_steps(name)
    colours = np.zeros((256, 4), np.uint8)
    at = np.rint(np.arange(CERTAIN + 1) / CERTAIN * (len(steps) - 1)).astype(int)
    colours[: CERTAIN + 1, :3] = steps[at]
    colours[: CERTAIN + 1, 3] = 255
    return colours


def _shapes(
    masks: list[NDArray[np.bool_]],
    columns: list[int],
    steps: Steps,
    pixel_um: float,
    turn: Callable[[], None],
) -> list[tuple[BaseGeometry, int]]:
    """Return the objects after the steps with their labels, larger ones first."""
    found: list[tuple[BaseGeometry, int]] = []
    whole = replace(steps, remove_objects_um2=0.0)
    for mask, index in zip(masks, columns, strict=True):
        rows, width = mask.shape
        tracer = Tracer(skip=(0,))
        tracer.add(mask.astype(np.uint8))
        tracer.end()
        for outline in tracer.outlines:
            turn()
            left, top, right, bottom = outline.polygon.bounds
            cut = left <= 0 or top <= 0 or right >= width or bottom >= rows
            for part in after_steps(outline.polygon, whole if cut else steps, pixel_um):
                found.append((part, index + 1))
    found.sort(key=lambda pair: -shapely.area(pair[0]))
    return found


def _outlines(labels: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    """Return labels with only those pixels that are no farther than `width` from another value.

    Steps go by edges. The picture's own edge is no outline.
    """
    inside = np.ones(labels.shape, bool)
    padded = np.pad(labels, width, mode="edge")
    rows, columns = labels.shape
    for by in range(1, width + 1):
        for down, across in ((by, 0), (-by, 0), (0, by), (0, -by)):
            top, left = width + down, width + across
            inside &= padded[top : top + rows, left : left + columns] == labels
    outlines: NDArray[np.uint8] = np.where(inside, 0, labels)
    return outlines
