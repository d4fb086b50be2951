"""Tools that change what is there: select, move vertices, move and scale and turn.

What lies under the hand is found by the `AnnotationSet`. Until the button goes up, only previews
change; then there is one step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import MultiPoint, MultiPolygon, Point, Polygon

from napari_histomil.annotations import commands
from napari_histomil.annotations.edit import Matrix
from napari_histomil.annotations.model import Region
from napari_histomil.annotations.spatial import rect_of, shapes_of
from napari_histomil.errors import AnnotationError
from napari_histomil.geometry import Rect
from napari_histomil.ui.annotator import Annotator
from napari_histomil.ui.drawing import handles, vertices
from napari_histomil.ui.drawing.gestures import DRAG_PX
from napari_histomil.ui.drawing.pointer import XY, Pointer
from napari_histomil.ui.drawing.preview import NOTHING, Path, Preview
from napari_histomil.ui.drawing.tools import Tool

REACH_PX = 6.0
"""So near to a line or a point it is hit."""

VERTEX_PX = 9.0

MOST_VERTICES = 200_000
"""Of a region whose vertices can be edited."""

MOST_PREVIEWED = 20_000
"""Vertices of what is moved that are seen while it moves; of more, the box."""

YELLOW = (255, 230, 0)


def hits(state: Annotator, at: Pointer) -> list[Region]:
    """Return the regions under the hand that are not hidden, what is small before what is large.

    So a region drawn round others, such as ``Region*``, does not keep them from being hit.
    """
    regions = state.regions
    if regions is None:
        return []
    found = [
        region
        for region in regions.at(at.xy_px0, REACH_PX * at.px0_per_pixel)
        if region.class_name not in state.hidden
    ]
    return sorted(found, key=lambda region: region.geometry.area)


class SelectTool(Tool):
    """Clicks select; Shift adds and takes away; a drag selects all that a rectangle touches.

    A second click at the same place goes to the next region below.
    """

    def __init__(self, state: Annotator) -> None:
        super().__init__(state)
        self._from: Pointer | None = None
        self._to: XY | None = None
        self._last: Pointer | None = None

    @property
    def busy(self) -> bool:
        """Whether something is begun and not finished."""
        return self._to is not None

    def press(self, at: Pointer) -> None:
        """Take the button, or the pen, going down."""
        self._from, self._to = at, None

    def move(self, at: Pointer, *, down: bool) -> None:
        """Take the pointer moving."""
        if down and self._from is not None and not at.near(self._from.xy_px0, DRAG_PX):
            self._to = at.xy_px0

    def release(self, at: Pointer) -> None:
        """Take the button going up."""
        began, banded = self._from, self._to is not None
        self._from = self._to = None
        if began is None:
            return
        if banded:
            self._last = None
            self._select_in(began.xy_px0, at.xy_px0, add=began.add)
        else:
            self._click(at)

    def cancel(self) -> None:
        """Begin anew."""
        self._from = self._to = None

    def _click(self, at: Pointer) -> None:
        state, found = self.state, [region.id for region in hits(self.state, at)]
        again = self._last is not None and at.near(self._last.xy_px0, DRAG_PX)
        self._last = at
        if not found:
            if not at.add:
                state.select(())
            return
        if at.add:
            chosen = found[0]
            if chosen in state.selected:
                state.select(state.selected - {chosen})
            else:
                state.select([chosen], add=True)
            return
        chosen = found[0]
        if again and len(state.selected) == 1 and (now := next(iter(state.selected))) in found:
            chosen = found[(found.index(now) + 1) % len(found)]
        state.select([chosen])

    def _select_in(self, a: XY, b: XY, *, add: bool) -> None:
        regions = self.state.regions
        if regions is None:
            return
        (x0, x1), (y0, y1) = sorted((a[0], b[0])), sorted((a[1], b[1]))
        found = [
            region
            for region in regions.within(Rect(x0, y0, x1 - x0, y1 - y0))
            if region.class_name not in self.state.hidden
        ]
        touched = shapely.intersects(shapes_of(found), shapely.box(x0, y0, x1, y1))
        chosen = [region.id for region, is_in in zip(found, touched, strict=True) if is_in]
        self.state.select(chosen, add=add)

    @property
    def preview(self) -> Preview:
        """What is seen of it."""
        if self._from is None or self._to is None:
            return NOTHING
        (x0, y0), (x1, y1) = self._from.xy_px0, self._to
        corners = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
        return Preview((Path(corners, True, color=(255, 255, 255), dashed=True, filled=True),))


class VertexTool(Tool):
    """Moves the vertices of the selected regions, puts new ones in, takes some away.

    A press on an edge puts a vertex in, which then moves along; Alt and a press takes one away, as
    Delete does with the one that was held last. A press elsewhere selects another region.
    """

    def __init__(self, state: Annotator) -> None:
        super().__init__(state)
        self._region: Region | None = None
        self._rings: vertices.Rings = []
        self._held: vertices.Place | None = None
        self._moved = False
        self._chosen: tuple[str, vertices.Place] | None = None

    @property
    def busy(self) -> bool:
        """Whether something is begun and not finished."""
        return self._held is not None

    def press(self, at: Pointer) -> None:
        """Take the button, or the pen, going down."""
        found = self._find(at)
        if found is None:
            self._chosen = None
            under = hits(self.state, at)
            self.state.select([under[0].id] if under else (), add=at.add)
            return
        region, place, is_new = found
        if region.is_fixed:
            self.state.tell(f"{region.label} is locked: unlock it first.")
            return
        rings = vertices.rings_of(region.geometry)
        if at.subtract and not at.add:
            if not is_new:
                self._apply(region, vertices.without(rings, place), "delete vertex")
            return
        if is_new:
            rings = vertices.with_inserted(rings, place, at.xy_px0)
        self._region, self._rings, self._held = region, rings, place
        self._moved = is_new

    def move(self, at: Pointer, *, down: bool) -> None:
        """Take the pointer moving."""
        if down and self._held is not None:
            if not self._moved:
                x, y = self._rings[self._held.ring][self._held.vertex]
                if at.near((x, y), 2.0):
                    return
            self._moved = True
            self._rings = vertices.with_moved(self._rings, self._held, at.xy_px0)

    def release(self, at: Pointer) -> None:
        """Take the button going up."""
        region, place, moved, rings = self._region, self._held, self._moved, self._rings
        self.cancel()
        if region is None or place is None:
            return
        if moved:
            self._apply(region, rings, "move vertex")
        else:
            self._chosen = region.id, place

    def delete(self) -> bool:
        """Delete the vertex that was held last."""
        if self._chosen is None:
            return False
        (region_id, place), self._chosen = self._chosen, None
        regions = self.state.regions
        if regions is None or region_id not in regions:
            return False
        region = regions.get(region_id)
        rings = vertices.rings_of(region.geometry)
        if place.ring >= len(rings) or place.vertex >= len(rings[place.ring]):
            return False
        self._apply(region, vertices.without(rings, place), "delete vertex")
        return True

    def cancel(self) -> None:
        """Begin anew."""
        self._region, self._held, self._rings, self._moved = None, None, [], False

    def _apply(self, region: Region, rings: vertices.Rings, text: str) -> None:
        try:
            shape = vertices.rebuilt(region.geometry, rings)
        except AnnotationError as error:
            self.state.tell(str(error))
            return
        self.state.attempt(
            lambda regions: commands.reshape(regions, {region.id: shape}, text, self.state.stamp())
        )

    def _editable(self) -> list[Region]:
        return [
            region
            for region in (self.state.pick() if len(self.state.selected) < 200 else [])
            if shapely.get_num_coordinates(region.geometry) <= MOST_VERTICES
        ]

    def _find(self, at: Pointer) -> tuple[Region, vertices.Place, bool] | None:
        """Return the vertex under the hand, or the place of a new one on the edge there."""
        reach = VERTEX_PX * at.px0_per_pixel
        chosen = self._editable()
        for region in chosen:
            place = vertices.nearest_vertex(vertices.rings_of(region.geometry), at.xy_px0, reach)
            if place is not None:
                return region, place, False
        for region in chosen:
            if isinstance(region.geometry, Point | MultiPoint):
                continue
            closed = isinstance(region.geometry, Polygon | MultiPolygon)
            place = vertices.nearest_edge(
                vertices.rings_of(region.geometry), at.xy_px0, reach, closed=closed
            )
            if place is not None:
                return region, place, True
        return None

    @property
    def preview(self) -> Preview:
        """What is seen of it."""
        if self._region is not None and self._held is not None:
            closed = isinstance(self._region.geometry, Polygon | MultiPolygon)
            paths = tuple(Path(ring, closed, color=YELLOW) for ring in self._rings)
            x, y = self._rings[self._held.ring][self._held.vertex]
            return Preview(paths, np.concatenate(self._rings), held=(float(x), float(y)))
        chains = [ring for each in self._editable() for ring in vertices.rings_of(each.geometry)]
        if not chains:
            return NOTHING
        held = None
        if self._chosen is not None and self.state.regions is not None:
            region_id, place = self._chosen
            if region_id in self.state.regions:
                rings = vertices.rings_of(self.state.regions.get(region_id).geometry)
                if place.ring < len(rings) and place.vertex < len(rings[place.ring]):
                    x, y = rings[place.ring][place.vertex]
                    held = float(x), float(y)
        return Preview(handles=np.concatenate(chains), held=held)


class TransformTool(Tool):
    """Moves, scales and turns what is selected by the box around it.

    Parameters
    ----------
    state
        Whose regions.
    px0_per_pixel
        Returns the level-0 pixels that a pixel of the screen spans now: the handle that turns
        stays as far from the box, whether the mouse has moved since the view did or not.
    """

    def __init__(self, state: Annotator, px0_per_pixel: Callable[[], float]) -> None:
        super().__init__(state)
        self._px0_per_pixel = px0_per_pixel
        self._grip: handles.Grip | None = None
        self._box: Rect | None = None
        self._began: XY = (0.0, 0.0)
        self._matrix: Matrix | None = None

    @property
    def busy(self) -> bool:
        """Whether something is begun and not finished."""
        return self._grip is not None

    def press(self, at: Pointer) -> None:
        """Take the button, or the pen, going down."""
        box = rect_of(self.state.pick())
        grip = None if box is None else handles.grip_at(box, at)
        if grip is None:
            under = hits(self.state, at)
            self.state.select([under[0].id] if under else (), add=at.add)
            box = rect_of(self.state.pick())
            grip = handles.Grip("move") if under else None
        self._box, self._grip, self._began, self._matrix = box, grip, at.xy_px0, None

    def move(self, at: Pointer, *, down: bool) -> None:
        """Take the pointer moving."""
        if down and self._grip is not None and self._box is not None:
            if self._matrix is None and at.near(self._began, DRAG_PX / 2):
                return
            self._matrix = handles.matrix_of(self._grip, self._box, self._began, at)

    def release(self, at: Pointer) -> None:
        """Take the button going up."""
        matrix, grip = self._matrix, self._grip
        self.cancel()
        if matrix is None or grip is None:
            return
        text = {"move": "move", "scale": "scale", "turn": "turn"}[grip.kind]
        chosen = self.state.selected
        self.state.attempt(
            lambda regions: commands.transform(regions, chosen, matrix, self.state.stamp(), text)
        )

    def cancel(self) -> None:
        """Begin anew."""
        self._grip, self._matrix = None, None

    @property
    def preview(self) -> Preview:
        """What is seen of it."""
        chosen = self.state.pick()
        box = rect_of(chosen)
        if box is None:
            return NOTHING
        corners = np.array(
            [
                (box.x_px0, box.y_px0),
                (box.right_px0, box.y_px0),
                (box.right_px0, box.bottom_px0),
                (box.x_px0, box.bottom_px0),
            ]
        )
        matrix = self._matrix or (1, 0, 0, 1, 0, 0)
        paths = [Path(handles.moved_by(corners, matrix), True, color=YELLOW, dashed=True)]
        if self._matrix is not None:
            paths += [
                Path(handles.moved_by(ring, matrix), closed, color=YELLOW)
                for ring, closed in _chains(chosen)
            ]
        places = handles.handles_of(box, self._px0_per_pixel())
        return Preview(tuple(paths), handles.moved_by(places, matrix))


def _chains(regions: list[Region]) -> list[tuple[NDArray[np.float64], Any]]:
    """Return the outlines of regions and whether each is closed; none if they are many."""
    shapes = shapes_of(regions)
    if int(shapely.get_num_coordinates(shapes).sum()) > MOST_PREVIEWED:
        return []
    return [
        (ring, isinstance(region.geometry, Polygon | MultiPolygon))
        for region in regions
        for ring in vertices.rings_of(region.geometry)
    ]
