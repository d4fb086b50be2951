"""A segmentation as labels, outlines and regions, by named steps whose sizes are in µm.

The steps work on outlines along the edges of pixels, not on pictures: so an object is one object
wherever bands meet, areas are exact, and memory is that of a band and of the outlines.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import Polygon

from napari_histomil.annotations import raster
from napari_histomil.annotations.mask_facts import MaskFacts
from napari_histomil.annotations.masks import LabelImage, LabelTable, MaskGrid
from napari_histomil.annotations.model import AnnotationClass, Region
from napari_histomil.annotations.stamps import Stamp, as_drawn
from napari_histomil.annotations.tracing import Tracer, on_slide
from napari_histomil.errors import RunError
from napari_histomil.exchange.facts import class_column
from napari_histomil.results import SegmentationStore
from napari_histomil.results.bands import BAND_PX
from napari_histomil.results.segmentation import CERTAIN, UNKNOWN

STEP_PX = 0.75
"""A slanting edge of pixels lies no farther than that from a straight line."""

Turn = Callable[[], None]
"""Called before each strip and object; it may raise to stop, or let others have their turn."""


def _go_on() -> None:
    """Neither stop nor wait."""


SIMPLIFY_SHARE = 0.1
"""Smoothed outlines leave out vertices that move them by less than this share of the radius."""


@dataclass(frozen=True, slots=True)
class Steps:
    """What is done to probabilities, in this order.

    Raises
    ------
    RunError
        If the threshold is no probability, or a size is below 0.
    """

    threshold: float | None = None
    """Least probability of a class. By default 0.5 where classes do not exclude each other
    (sigmoid), and none where they do (softmax): then the most likely class counts."""
    fill_holes_um2: float = 0.0
    """Holes of a smaller area are filled."""
    smooth_um: float = 0.0
    """Notches and spikes narrower than twice this are closed and cut off."""
    remove_objects_um2: float = 0.0
    """Objects of a smaller area are left out."""

    def __post_init__(self) -> None:
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise RunError(f"The threshold must be a probability of 0 to 1, not {self.threshold}.")
        for name in ("fill_holes_um2", "smooth_um", "remove_objects_um2"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise RunError(f"{name} must be 0 or more, not {value}.")

    @property
    def on_outlines(self) -> bool:
        """Whether there is a step that works on outlines."""
        return max(self.fill_holes_um2, self.smooth_um, self.remove_objects_um2) > 0


def label_facts(store: SegmentationStore, names: Sequence[str] = ()) -> MaskFacts:
    """Return the facts of the label mask of a segmentation, or of some of its classes.

    The model's background class becomes the mask's background, what was not looked at is
    unlabelled.
    """
    return MaskFacts(
        _grid(store),
        LabelTable.of([_class(store, index) for index in _columns(store, names)]),
        str(store.slide["name"]),
        str(store.slide["fingerprint"]),
    )


def label_bands(
    store: SegmentationStore, steps: Steps, names: Sequence[str] = (), *, turn: Turn = _go_on
) -> Iterator[LabelImage]:
    """Yield the label mask from top to bottom, with the values of `label_facts`.

    Where several classes may be at a place (sigmoid), the most likely counts; after steps on
    outlines the object with the smaller area.
    """
    table = label_facts(store, names).table
    if not steps.on_outlines:
        for stored in _strips(store, turn):
            yield _labels(store, stored, steps, names, table)
        return
    regions = regions_of(store, steps, names, turn=turn)
    painting = raster.prepare(regions, _grid(store), table, fully_annotated=True)
    top = 0
    for band in raster.bands(painting, BAND_PX):
        turn()
        rows = slice(top, top + len(band))
        unknown = (store.strip(rows) == UNKNOWN).any(axis=0)
        yield np.where(unknown, table.unlabelled, band).astype(table.dtype)
        top = rows.stop


def outline_bands(bands: Iterator[LabelImage], table: LabelTable) -> Iterator[LabelImage]:
    """Yield a label mask with only those pixels of objects that touch another value.

    By an edge, not a corner. The mask's own edge is no outline.
    """
    above: LabelImage | None = None
    band = next(bands, None)
    while band is not None:
        below = next(bands, None)
        first = band[:1] if above is None else above[-1:]
        last = band[-1:] if below is None else below[:1]
        tall = np.concatenate([first, band, last])
        wide = np.pad(band, ((0, 0), (1, 1)), mode="edge")
        inside = (band == tall[:-2]) & (band == tall[2:])
        inside &= (band == wide[:, :-2]) & (band == wide[:, 2:])
        inside &= (band != table.background) & (band != table.unlabelled)
        yield np.where(inside, table.background, band).astype(band.dtype)
        above, band = band, below


def regions_of(
    store: SegmentationStore, steps: Steps, names: Sequence[str] = (), *, turn: Turn = _go_on
) -> list[Region]:
    """Return the objects of a segmentation as regions, with the model as author.

    Parameters
    ----------
    store
        The segmentation.
    steps
        What is done.
    names
        Classes; all but the model's background by default.
    turn
        Called now and then; what it raises stops the work.

    Returns
    -------
    list of Region
        In level-0 pixels, larger objects first, so that small ones are painted over them.

    Raises
    ------
    RunError
        If there is no class of a name.
    """
    columns = _columns(store, names)
    tracers = {index: Tracer(skip=(0,)) for index in columns}
    for stored in _strips(store, turn):
        for index, tracer in tracers.items():
            tracer.add(is_class(store, stored, index, steps).astype(np.uint8))
    grid = _grid(store)
    stamp = Stamp(str(store.model["name"]), _time(store))
    found: list[tuple[float, Region]] = []
    for index, tracer in tracers.items():
        tracer.end()
        kind = _class(store, index)
        for outline in tracer.outlines:
            turn()
            for polygon in after_steps(outline.polygon, steps, store.grid.spec.mpp):
                region = Region(on_slide(polygon, grid), kind)
                found.append((polygon.area, as_drawn(region, stamp)))
    found.sort(key=lambda pair: -pair[0])
    return [region for _, region in found]


def after_steps(polygon: Polygon, steps: Steps, pixel_um: float) -> list[Polygon]:
    """Return what the steps on outlines make of one object: itself, parts of it, or nothing.

    Parameters
    ----------
    polygon
        In pixels.
    steps
        What is done.
    pixel_um
        Side of a pixel in µm.
    """
    pixel_um2 = pixel_um**2
    holes = [h for h in polygon.interiors if Polygon(h).area * pixel_um2 >= steps.fill_holes_um2]
    shape: shapely.Geometry = Polygon(polygon.exterior, holes)
    radius = steps.smooth_um / pixel_um
    if radius > 0:
        least = SIMPLIFY_SHARE * radius
        # The steps along pixels' edges are nine vertices of ten.
        shape = shape.simplify(max(least, min(STEP_PX, radius / 4)))
        for by in (radius, -2 * radius, radius):
            shape = shape.buffer(by, quad_segs=4).simplify(0.5 * least)
        shape = shapely.make_valid(shape.simplify(least))
    parts = [part for part in shapely.get_parts(shape) if isinstance(part, Polygon)]
    return [
        part
        for part in parts
        if part.area > 0 and part.area * pixel_um2 >= steps.remove_objects_um2
    ]


def class_areas_mm2(
    store: SegmentationStore, steps: Steps, names: Sequence[str] = (), *, turn: Turn = _go_on
) -> tuple[dict[str, float], float]:
    """Return the area of each class, before steps on outlines, and of all that is known.

    Parameters
    ----------
    store
        The segmentation.
    steps
        Only the threshold counts.
    names
        Classes; all but the model's background by default.
    turn
        Called now and then; what it raises stops the work.

    Returns
    -------
    areas
        Name of a class -> mm².
    looked_at
        mm² of all that is known.
    """
    pixel_mm2 = store.grid.spec.mpp**2 / 1e6
    columns = _columns(store, names)
    counts, looked_at = np.zeros(len(columns), np.int64), 0
    for stored in _strips(store, turn):
        looked_at += int((stored != UNKNOWN).all(axis=0).sum())
        for place, index in enumerate(columns):
            counts[place] += int(is_class(store, stored, index, steps).sum())
    areas = {
        store.class_names[index]: float(count * pixel_mm2)
        for index, count in zip(columns, counts, strict=True)
    }
    return areas, looked_at * pixel_mm2


# --- pixels -----------------------------------------------------------------------------------


def _strips(store: SegmentationStore, turn: Turn) -> Iterator[NDArray[np.uint8]]:
    rows = store.picture.shape[0]
    for top in range(0, rows, BAND_PX):
        turn()
        yield store.strip(slice(top, min(top + BAND_PX, rows)))


def is_class(
    store: SegmentationStore, stored: NDArray[np.uint8], index: int, steps: Steps
) -> NDArray[np.bool_]:
    """Bool [rows, columns]: where a class is, other classes or not.

    Parameters
    ----------
    store
        The segmentation.
    stored
        A part of one of its levels, as it is stored: uint8 [C, rows, columns].
    index
        Of the class.
    steps
        Only the threshold counts here.
    """
    known = stored[index] != UNKNOWN
    likely = known & (stored[index] >= _least(store, steps))
    if store.model["activation"] == "softmax":
        likely &= stored.argmax(axis=0) == index
    found: NDArray[np.bool_] = likely
    return found


def _labels(
    store: SegmentationStore,
    stored: NDArray[np.uint8],
    steps: Steps,
    names: Sequence[str],
    table: LabelTable,
) -> LabelImage:
    """Return the most likely of the classes at each pixel."""
    columns = _columns(store, names)
    found = np.stack([is_class(store, stored, index, steps) for index in columns])
    likely = np.where(found, stored[columns].astype(np.int16), -1)
    values = np.array(table.values)[likely.argmax(axis=0)]
    labels = np.where(found.any(axis=0), values, table.background)
    labels[(stored == UNKNOWN).any(axis=0)] = table.unlabelled
    return labels.astype(table.dtype)


def _least(store: SegmentationStore, steps: Steps) -> float:
    """Return the least stored value of a class."""
    if steps.threshold is not None:
        return steps.threshold * CERTAIN
    return 0.5 * CERTAIN if store.model["activation"] == "sigmoid" else 0


# --- facts ------------------------------------------------------------------------------------


def _columns(store: SegmentationStore, names: Sequence[str]) -> list[int]:
    if names:
        return [class_column(store, name) for name in dict.fromkeys(names)]
    background = store.model.get("background_class")
    found = [i for i, name in enumerate(store.class_names) if name != background]
    return found or list(range(len(store.class_names)))


def _class(store: SegmentationStore, index: int) -> AnnotationClass:
    kind = store.classes[index]
    return AnnotationClass(kind.name, kind.color)


def _grid(store: SegmentationStore) -> MaskGrid:
    rows, columns = store.picture.shape
    mpp = store.grid.spec.mpp
    return MaskGrid(columns, rows, store.picture.pixel_px0, (mpp, mpp))


def _time(store: SegmentationStore) -> str:
    sessions: list[dict[str, Any]] = store.sessions
    ended = sessions[-1]["finished"] if sessions else None
    return str(ended or store.created.isoformat(timespec="seconds")).replace("+00:00", "Z")
