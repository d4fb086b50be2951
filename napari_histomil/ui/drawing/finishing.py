"""A finished shape becomes one step: a region of its own, or a change of those selected.

Classes that may not overlap (`ClassSet.exclusive`) are kept apart here, by clipping what is new or
by refusing it.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence

import shapely
from shapely.geometry import LineString, MultiPoint, MultiPolygon, Point, Polygon
from shapely.geometry.base import BaseGeometry

from napari_histomil.annotations import commands, drawing, edit
from napari_histomil.annotations.collection import AnnotationSet, Command
from napari_histomil.annotations.model import Region, is_starred
from napari_histomil.errors import AnnotationError
from napari_histomil.geometry import Rect
from napari_histomil.ui.annotator import Annotator, Mode
from napari_histomil.ui.drawing.gestures import Drawn


def finish(state: Annotator, drawn: Drawn, mode: Mode, tool: str) -> bool:
    """Do what a drawn shape is for.

    Parameters
    ----------
    mode
        What becomes of it; where it cannot change what is selected, ``add`` makes a new region.
    tool
        Names the step: ``brush``.

    Returns
    -------
    bool
        Whether a step was done.
    """
    shape = drawn.shape
    areal = isinstance(shape, Polygon | MultiPolygon)
    if mode == "subtract":
        if not areal:
            return False
        return take_away(state, shape, tool)
    if mode == "add":
        target = _target(state, shape)
        if target is not None:
            return state.attempt(lambda regions: _added(state, regions, target, shape, tool))
    return _draw(state, drawn, tool)


def take_away(state: Annotator, shape: BaseGeometry, tool: str) -> bool:
    """Take a shape away from the selected regions, or without any from all that it touches.

    Locked regions that are merely touched are passed over; one of which nothing is left goes.
    """
    regions = state.regions
    if regions is None:
        return False
    chosen = [region for region in state.pick() if region.is_areal]
    if not chosen:
        chosen = [
            region
            for region in regions.within(_rect_of(shape))
            if region.is_areal
            and not region.is_fixed
            and region.class_name not in state.hidden
            and not is_starred(region.class_name)
        ]
    met = [region for region in chosen if shapely.intersects(region.geometry, shape)]
    if not met:
        return False

    def make(regions: AnnotationSet) -> Command:
        left = []
        for region in met:
            rest = shapely.difference(edit.sound(region.geometry), shape)
            if rest.area > edit.GRID_PX0:
                left.append(reshaped(region, edit.areal(rest)))
        if len(left) == len(met):
            shapes = {region.id: region.geometry for region in left}
            return commands.reshape(regions, shapes, tool, state.stamp())
        ids = [region.id for region in met]
        return commands.exchange(regions, ids, left, tool, state.stamp())

    return state.attempt(make)


def split_selected(state: Annotator, line: LineString) -> bool:
    """Cut the selected regions by a line; the largest piece of each keeps its id."""
    chosen = [region for region in state.pick() if region.is_areal]
    if not chosen:
        state.tell("Select the region to split first, then draw a line across it.")
        return False
    met = [region for region in chosen if shapely.intersects(region.geometry, line)] or chosen[:1]
    pieces: list[Region] = []

    def make(regions: AnnotationSet) -> Command:
        pieces.clear()
        for region in met:
            first, *rest = edit.split(region.geometry, line)
            pieces.append(reshaped(region, first))
            pieces.extend(
                reshaped(region, piece).but(id=str(uuid.uuid4()), children=()) for piece in rest
            )
        text = f"split {commands.counted(met)}"
        return commands.exchange(
            regions, [region.id for region in met], pieces, text, state.stamp()
        )

    done = state.attempt(make)
    if done:
        state.select([region.id for region in pieces])
    return done


def reshaped(region: Region, shape: BaseGeometry) -> Region:
    """Return a region of another shape, which is no ellipse any more."""
    extra = region.extra
    if commands.ELLIPSE in extra.geometry:
        rest = {k: v for k, v in extra.geometry.items() if k != commands.ELLIPSE}
        region = region.but(
            extra=type(extra)(
                extra.feature, extra.properties, rest, extra.nucleus, extra.classification
            )
        )
    return region.but(geometry=shape)


def apart(
    state: Annotator,
    regions: AnnotationSet,
    shape: BaseGeometry,
    class_name: str | None,
    but: Sequence[str] = (),
) -> BaseGeometry:
    """Return a shape without what it may not overlap.

    Raises
    ------
    AnnotationError
        If that is refused, or nothing is left.
    """
    rivals = state.classes.rivals(class_name)
    if not rivals:
        return shape
    near = [
        region
        for region in regions.within(_rect_of(shape))
        if region.class_name in rivals and region.id not in but
    ]
    return edit.exclusive(shape, near, state.overlaps)


def _draw(state: Annotator, drawn: Drawn, tool: str) -> bool:
    """Make a region of its own, and select it."""
    made: list[Region] = []

    def make(regions: AnnotationSet) -> Command:
        shape, kind = drawn.shape, state.active_class
        if isinstance(shape, Polygon | MultiPolygon):
            shape = apart(state, regions, shape, None if kind is None else kind.name)
        extra = drawn.extra if shape is drawn.shape or shape.equals(drawn.shape) else None
        region = Region(shape, kind) if extra is None else Region(shape, kind, extra=extra)
        made.append(region)
        return commands.add([region], state.stamp(), f"draw {tool}")

    done = state.attempt(make)
    if done:
        state.select([made[-1].id])
    return done


def _target(state: Annotator, shape: BaseGeometry) -> Region | None:
    """Return the selected region that a shape is added to: one it touches, if it touches any."""
    chosen = [region for region in state.pick() if _same_kind(region.geometry, shape)]
    touched = [region for region in chosen if shapely.intersects(region.geometry, shape)]
    return next(iter([*touched, *chosen]), None)


def _same_kind(a: BaseGeometry, b: BaseGeometry) -> bool:
    kinds = ((Polygon, MultiPolygon), (Point, MultiPoint))
    return any(isinstance(a, kind) and isinstance(b, kind) for kind in kinds)


def _added(
    state: Annotator, regions: AnnotationSet, target: Region, shape: BaseGeometry, tool: str
) -> Command:
    if isinstance(shape, Point | MultiPoint):
        old, new = shapely.get_coordinates(target.geometry), shapely.get_coordinates(shape)
        whole: BaseGeometry = drawing.points([*old, *new])
    else:
        free = apart(state, regions, shape, target.class_name, [target.id])
        whole = edit.add_to(target.geometry, free)
    return commands.reshape(regions, {target.id: whole}, tool, state.stamp())


def _rect_of(shape: BaseGeometry) -> Rect:
    if shape.is_empty:
        raise AnnotationError("The shape is empty.")
    x0, y0, x1, y1 = shape.bounds
    return Rect(x0, y0, x1 - x0, y1 - y0)
