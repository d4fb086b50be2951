"""What a legend of the regions says: the classes that are drawn, with names and colours, in order.

Not the widget over the canvas, which is `widgets/legend.py`, and not how a figure has it, which is
in `figure_paint.py`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely

from napari_histomil.annotations.classes import ClassSet
from napari_histomil.annotations.model import RGB, UNCLASSIFIED_COLOR, is_starred
from napari_histomil.annotations.spatial import shapes_of
from napari_histomil.ui.annotator import Annotator, annotator
from napari_histomil.ui.layers import rect_in_view_px0
from napari_histomil.ui.region_layers import found_region_layers
from napari_histomil.ui.session import RunView, SlideSession

UNCLASSIFIED = "unclassified"
"""What regions without a class are called."""


@dataclass(frozen=True, slots=True)
class LegendEntry:
    """A line of the legend."""

    name: str
    color: RGB


def entries_of(names: Collection[str | None], classes: ClassSet) -> list[LegendEntry]:
    """Return the lines for some classes, in the order of the list of classes.

    Parameters
    ----------
    names
        Of the classes; None for what has none, which comes last. Those that are not in the list
        come after those that are.
    classes
        The list.
    """
    known = [each.name for each in classes.classes]
    order = [name for name in known if name in names]
    order += [name for name in names if name is not None and name not in known]
    entries = [LegendEntry(name, classes.named(name).color) for name in order]
    if None in names:
        entries.append(LegendEntry(UNCLASSIFIED, UNCLASSIFIED_COLOR))
    return entries


def drawn_entries(state: Annotator) -> list[LegendEntry]:
    """Return the lines for all that is drawn on the shown slide and not hidden."""
    regions = state.regions
    totals = {} if regions is None else regions.totals()
    names = [name for name, total in totals.items() if total.count and name not in state.hidden]
    return entries_of(names, state.classes)


def entries_of_run(run: RunView) -> list[LegendEntry]:
    """Return the lines for the classes that a segmentation shows; none for what has colours."""
    view = run.segmentation
    if view is None or view.style.probability:
        return []
    return [
        LegendEntry(kind.name, kind.color)
        for kind, on in zip(run.store.classes, view.style.on, strict=True)
        if on
    ]


def entries_in_view(viewer: Any, slide: SlideSession) -> list[LegendEntry]:
    """Return the lines for the regions that are seen on a slide in the view as it is now.

    Nobody's annotations are opened for it: where they are not shown, there are none to explain.
    """
    layers, rect = found_region_layers(viewer), rect_in_view_px0(viewer, slide.info)
    if layers is None or not layers.seen or rect is None:
        return []
    state = annotator(viewer)
    if state.slide is not slide or state.regions is None:
        return []
    near = [each for each in state.regions.within(rect) if each.class_name not in state.hidden]
    view = shapely.box(rect.x_px0, rect.y_px0, rect.right_px0, rect.bottom_px0)
    shapes = shapes_of(near)
    # The inside of Region* and Ignore* is not tinted: their outline is all there is to see.
    bare = [n for n, each in enumerate(near) if each.is_areal and is_starred(each.class_name)]
    shapes[bare] = shapely.boundary(shapes[bare])
    inside = np.flatnonzero(shapely.intersects(shapes, view)).tolist()
    return entries_of({near[n].class_name for n in inside}, state.classes)
