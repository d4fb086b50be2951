"""What a person drew or changed with napari's own buttons becomes steps like all others.

A Shapes layer of the person's own is adopted as a whole. Our Shapes layer is compared with what we
put there whenever napari says that it was edited: each change of a hand is one step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from napari.layers import Shapes
from numpy.typing import NDArray

from napari_histomil.annotations import commands, edit
from napari_histomil.annotations.collection import AnnotationSet, Command
from napari_histomil.annotations.model import Region
from napari_histomil.ui.annotator import Annotator
from napari_histomil.ui.drawing.finishing import apart, reshaped
from napari_histomil.ui.region_shapes import (
    REGION_ID,
    column_of,
    geometries_by_region,
    shapes_as_geometries,
)


def adopt(state: Annotator, layer: Shapes) -> list[str]:
    """Make regions of all that a Shapes layer holds, and hide the layer.

    Parameters
    ----------
    state
        Of the viewer; its active slide is drawn on.
    layer
        Any Shapes layer; a column ``class`` of its features names the classes, else the regions
        get the active one.

    Returns
    -------
    list of str
        Ids of the regions; empty if there is nothing to adopt, or it is refused.
    """
    slide = state.slide
    if slide is None:
        return []
    found = shapes_as_geometries(layer, slide.info)
    if not found:
        state.tell(f"There is no shape with an extent in the layer {layer.name}.")
        return []
    regions = [
        Region(
            edit.on_grid(shape), state.active_class if name is None else state.classes.named(name)
        )
        for shape, name in found
    ]
    text = f"adopt {commands.counted(regions)} from the layer {layer.name}"
    if not state.do(commands.add(regions, state.stamp(), text)):
        return []
    layer.visible = False
    state.set_classes(state.classes.adopting(regions))
    ids = [region.id for region in regions]
    state.select(ids)
    return ids


def take_edits(
    state: Annotator,
    layer: Shapes,
    regions: Sequence[Region],
    rows: Sequence[NDArray[np.float64]],
) -> bool:
    """Do what a person changed in our layer, as one step.

    Parameters
    ----------
    layer
        Our layer as it is now.
    regions, rows
        The regions that were shown in it, and the vertices that it was given.

    Returns
    -------
    bool
        Whether the regions now are as the layer has them.
    """
    slide = state.slide
    if slide is None:
        return False
    ids = column_of(layer.features, REGION_ID, layer.nshapes)
    now: dict[Any, list[NDArray[np.float64]]] = {}
    for region_id, vertices in zip(ids, layer.data, strict=True):
        now.setdefault(region_id, []).append(np.asarray(vertices))
    before: dict[str, list[NDArray[np.float64]]] = {}
    for region_id, vertices in zip(_ids_of(regions), rows, strict=True):
        before.setdefault(region_id, []).append(vertices)
    shapes = geometries_by_region(layer, slide.info)
    changed = {
        each: shapes[each]
        for each, old in before.items()
        if each in shapes and not _same(old, now.get(each, []))
    }
    gone = [each for each in before if each not in shapes]
    new = [shape for each, shape in shapes.items() if each not in before]
    if not changed and not gone and not new:
        return True

    def make(there: AnnotationSet) -> Command:
        kind = state.active_class
        name = None if kind is None else kind.name
        drawn = [Region(edit.on_grid(_apart(there, shape, name)), kind) for shape in new]
        if not changed and not gone:
            return commands.add(drawn, state.stamp())
        kept = [reshaped(there.get(each), edit.on_grid(shape)) for each, shape in changed.items()]
        text = "delete" if gone and not changed else "edit"
        text = f"{text} {commands.counted([*gone, *kept, *drawn])}"
        return commands.exchange(there, [*gone, *changed], [*kept, *drawn], text, state.stamp())

    def _apart(there: AnnotationSet, shape: Any, name: str | None) -> Any:
        return apart(state, there, shape, name) if shape.area else shape

    return state.attempt(make)


def _ids_of(regions: Sequence[Region]) -> list[str]:
    """Return the id of the region of each row, as `region_shapes.rows_of` makes them."""
    return [
        region.id
        for region in regions
        for part in getattr(region.geometry, "geoms", [region.geometry])
        if part.geom_type in ("Polygon", "LineString")
    ]


def _same(old: Sequence[NDArray[np.float64]], new: Sequence[NDArray[np.float64]]) -> bool:
    return len(old) == len(new) and all(
        a.shape == b.shape and np.allclose(a, b, rtol=0, atol=1e-3)
        for a, b in zip(old, new, strict=True)
    )
