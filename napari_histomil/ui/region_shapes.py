"""Regions <-> shapes of a napari Shapes layer: holes by keyholes, several parts of one region.

napari's shapes are single rings; a region of several parts is several shapes with one id among
their features. Here is how such a layer is filled, and how a layer that a person drew with
napari's own buttons is read; when, is said in `region_layers.py` and `adopting.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import shapely
from napari.layers import Shapes
from numpy.typing import NDArray
from shapely.geometry import MultiPolygon, Polygon
from shapely.geometry.base import BaseGeometry

from napari_histomil.annotations.model import Region
from napari_histomil.slides.slide import SlideInfo
from napari_histomil.ui.layers import (
    LayerData,
    keyhole_ring,
    ours,
    shape_to_px0,
    world_scale,
    world_units,
)

MOST_VERTICES = 2000
"""napari's shapes are slow to make and to draw: more than these are not shown as such."""

MOST_SHAPES = 60

CLASS, REGION_ID = "class", "region"
"""Columns of the layer's features."""


@dataclass(frozen=True, eq=False)
class ShapesContent:
    """What the layer shows: regions, and how wide their outlines are."""

    regions: tuple[Region, ...] = ()
    width_px0: float = 1.0

    def same_as(self, other: ShapesContent) -> bool:
        """Whether there is nothing to be done."""
        return (
            self.width_px0 == other.width_px0
            and len(self.regions) == len(other.regions)
            and all(a is b for a, b in zip(self.regions, other.regions, strict=True))
        )


def few_enough(regions: Sequence[Region]) -> bool:
    """Whether napari can show these regions as shapes and stay quick."""
    if len(regions) > MOST_SHAPES:
        return False
    vertices = sum(shapely.get_num_coordinates(region.geometry) for region in regions)
    return bool(vertices <= MOST_VERTICES)


def show_in(layer: Shapes, content: ShapesContent) -> list[NDArray[np.float64]]:
    """Fill a layer anew: shapes first, then their features; return the vertices it was given."""
    data, kinds, columns = _rows_of(content.regions)
    with layer.events.data.blocker(), layer.events.features.blocker():
        layer.selected_data = set()
        if layer.nshapes:
            layer.data = []
        if data:
            layer.add(
                data,
                shape_type=kinds,
                edge_width=content.width_px0,
                edge_color=columns["color"],
                face_color="transparent",
            )
        layer.features = pd.DataFrame(
            {name: np.array(columns[name], dtype=object) for name in (CLASS, REGION_ID)}
        )
        # What the person adds is a region of its own, not a part of the last one.
        layer.feature_defaults = {CLASS: "", REGION_ID: ""}
    return data


def as_shapes_layer(
    regions: Sequence[Region], info: SlideInfo, *, name: str = "regions", width_px0: float = 4.0
) -> LayerData:
    """Return an ordinary Shapes layer of regions, for other plugins; points are left out.

    Parameters
    ----------
    regions
        Any number: napari takes a second for some thousand.
    info
        The facts of the slide they lie on.
    name
        Name of the layer.
    width_px0
        Width of outlines in level-0 pixels.
    """
    data, kinds, columns = _rows_of(regions)
    attributes = {
        "name": name,
        "shape_type": kinds,
        "scale": world_scale(info),
        "units": world_units(info),
        "axis_labels": ("y", "x"),
        "features": pd.DataFrame({key: columns[key] for key in (CLASS, REGION_ID, "name")}),
        "edge_color": columns["color"] or "red",
        "face_color": "transparent",
        "edge_width": width_px0,
    }
    return data, attributes, "shapes"


def shapes_as_geometries(layer: Shapes, info: SlideInfo) -> list[tuple[BaseGeometry, str | None]]:
    """Return what a person drew in a Shapes layer, each with the class that its features say.

    Shapes of the same region (see `as_shapes_layer`) come back as one. The layer's own transform
    and units are respected.

    Returns
    -------
    list
        (shape in level-0 pixels, name of the class or None).
    """
    names = dict(
        zip(_keys_of(layer), column_of(layer.features, CLASS, layer.nshapes), strict=True)
    )
    return [(shape, names[key]) for key, shape in geometries_by_region(layer, info).items()]


def geometries_by_region(layer: Shapes, info: SlideInfo) -> dict[str | int, BaseGeometry]:
    """Return the shapes in level-0 pixels by their region's id; by their index without one."""
    found: dict[str | int, list[BaseGeometry]] = {}
    for index, key in enumerate(_keys_of(layer)):
        shape = shape_to_px0(layer, index, info)
        if shape is not None:
            found.setdefault(key, []).append(shape)
    return {key: _together(parts) for key, parts in found.items()}


def _keys_of(layer: Shapes) -> list[str | int]:
    ids = column_of(layer.features, REGION_ID, layer.nshapes)
    return [index if each is None else each for index, each in enumerate(ids)]


def is_a_person_s(layer: Any) -> bool:
    """Whether a layer is a Shapes layer that is not one of ours."""
    return isinstance(layer, Shapes) and not ours(layer)


def _rows_of(
    regions: Sequence[Region],
) -> tuple[list[NDArray[np.float64]], list[str], dict[str, list[Any]]]:
    """Return data (row, col), kinds and features of the shapes that stand for regions."""
    data: list[NDArray[np.float64]] = []
    kinds: list[str] = []
    columns: dict[str, list[Any]] = {CLASS: [], REGION_ID: [], "name": [], "color": []}
    for region in regions:
        for part in shapely.get_parts(region.geometry):
            if part.geom_type == "Polygon":
                ring, kind = keyhole_ring(part), "polygon"
            elif part.geom_type == "LineString":
                ring, kind = shapely.get_coordinates(part), "path"
            else:
                continue
            data.append(ring[:, ::-1])
            kinds.append(kind)
            columns[CLASS].append(region.class_name or "")
            columns[REGION_ID].append(region.id)
            columns["name"].append(region.name or "")
            columns["color"].append((*(value / 255 for value in region.shown_color), 1.0))
    return data, kinds, columns


def column_of(features: pd.DataFrame, name: str, count: int) -> list[str | None]:
    """Return a column of features as texts; None where there is none, or no text."""
    if name not in features or len(features) != count:
        return [None] * count
    return [value if isinstance(value, str) and value else None for value in features[name]]


def _together(parts: list[BaseGeometry]) -> BaseGeometry:
    if len(parts) == 1:
        return parts[0]
    if all(isinstance(part, Polygon | MultiPolygon) for part in parts):
        return shapely.union_all(parts)
    lines = [line for part in parts for line in shapely.get_parts(part)]
    return shapely.multilinestrings([line for line in lines if line.geom_type == "LineString"])
