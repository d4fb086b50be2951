"""Between core values and napari's layers: scale, translate, units, (x, y) <-> (row, col).

The rest of the program speaks level-0 pixels (x, y); napari speaks world coordinates (row, col).
World coordinates are micrometres from the slide's top-left corner, or level-0 pixels where
nobody has said how large a pixel is. This module is the only place where the two meet; it knows
layer objects, but neither Qt nor a window.

napari puts the centre of a pixel on its integer index. So a raster layer is moved by half a
cell (``translate = scale / 2``), a vector layer not at all, and both agree to the half pixel.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pint
import shapely
from numpy.typing import ArrayLike, NDArray
from shapely.geometry import LineString, MultiPolygon, Polygon
from shapely.geometry.base import BaseGeometry

from napari_histomil.geometry import Rect
from napari_histomil.slides import pyramid
from napari_histomil.slides.cache import shared_cache
from napari_histomil.slides.look import Look
from napari_histomil.slides.slide import Slide, SlideInfo
from napari_histomil.ui.orientation import center_of_world, world_step

LayerData = tuple[Any, dict[str, Any], str]
"""What napari makes a layer of: data, attributes, type."""

METADATA_KEY = "histomil"
"""Key of a layer's metadata under which everything of ours lies."""

ELLIPSE_VERTICES = 128
"""Vertices of the polygon that stands for an ellipse; its area is 0.04 % too small."""

_KIND_SLIDE = "slide"
_KIND_HEATMAP = "heatmap"
_KIND_SEGMENTATION = "segmentation"


# --- coordinates ------------------------------------------------------------------------------


def world_scale(info: SlideInfo) -> tuple[float, float]:
    """Return the world units that one level-0 pixel spans along (row, col).

    These are micrometres where the slide's µm/px are known, else 1.
    """
    if info.mpp_x is None or info.mpp_y is None:
        return 1.0, 1.0
    return info.mpp_y, info.mpp_x


def world_units(info: SlideInfo) -> tuple[str, str]:
    """Return the units of the world axes (row, col): µm, or pixels where µm/px are unknown."""
    return ("pixel", "pixel") if info.mpp_x is None or info.mpp_y is None else ("um", "um")


def to_world_um(xy_px0: ArrayLike, info: SlideInfo) -> NDArray[np.float64]:
    """Convert level-0 positions to world positions.

    Parameters
    ----------
    xy_px0
        float [..., 2], (x, y) in level-0 pixels.
    info
        The slide's facts.

    Returns
    -------
    float64 [..., 2]
        (row, col) in µm from the slide's corner; in level-0 pixels where µm/px are unknown.
    """
    return np.asarray(xy_px0, np.float64)[..., ::-1] * np.array(world_scale(info))


def to_px0(world: ArrayLike, info: SlideInfo) -> NDArray[np.float64]:
    """Convert world positions to level-0 positions: the inverse of `to_world_um`.

    Parameters
    ----------
    world
        float [..., D], D >= 2; the last two numbers are (row, col), as in ``event.position``.
    info
        The slide's facts.

    Returns
    -------
    float64 [..., 2]
        (x, y) in level-0 pixels.
    """
    rows_columns = np.asarray(world, np.float64)[..., -2:]
    return (rows_columns / np.array(world_scale(info)))[..., ::-1]


def rect_in_view_px0(viewer: Any, info: SlideInfo) -> Rect | None:
    """Return the part of the slide that the canvas shows, or None where it shows none of it.

    Parameters
    ----------
    viewer
        A napari viewer or ``ViewerModel``, looking at the slide from above (2D).
    info
        The facts of the slide.
    """
    return rect_around_px0(viewer, info, 0.0).intersection(info.rect_px0)


def rect_around_px0(
    viewer: Any, info: SlideInfo, share: float, *, affine: NDArray[np.float64] | None = None
) -> Rect:
    """Return what the canvas shows, on the slide or beside it, and more around it.

    Parameters
    ----------
    viewer, info
        As in `rect_in_view_px0`.
    share
        Share of the view's sides that is added on each side.
    affine
        [3, 3] in (row, col), how the slide lies in the world; not moved by default. What is then
        returned is the smallest rectangle along the slide's sides.
    """
    height, width = viewer.canvas.size
    half = np.abs(world_step(viewer, (width / 2, height / 2)))  # however the view is turned
    half = half * (1 + 2 * share)
    corners = center_of_world(viewer) + half * np.array([(-1, -1), (-1, 1), (1, -1), (1, 1)])
    if affine is not None:
        back = np.linalg.inv(affine)
        corners = corners @ back[:2, :2].T + back[:2, 2]
    found = to_px0(corners, info)
    (x0, y0), (x1, y1) = found.min(axis=0), found.max(axis=0)
    return Rect(float(x0), float(y0), float(x1 - x0), float(y1 - y0))


def center_of_view_px0(viewer: Any, info: SlideInfo) -> tuple[float, float]:
    """Return the level-0 position (x, y) in the middle of the canvas; may lie off the slide."""
    x, y = to_px0(center_of_world(viewer), info)
    return float(x), float(y)


# --- core values to layers --------------------------------------------------------------------


def slide_layer(slide: Slide, *, name: str | None = None) -> LayerData:
    """Return the multiscale RGB image layer of an open slide.

    The layer's metadata hold the slide, so that whoever sees the layer can adopt it, however it
    came into the viewer (`slide_of`). napari never waits for its pixels; `painting.follow`, which
    the session of a viewer calls, has it show them as they come in.
    """
    info = slide.info
    attributes = {
        "name": name or info.path.name,
        "rgb": True,
        "multiscale": True,
        # Given limits keep napari from scanning a gigapixel image for its extremes.
        "contrast_limits": (0, 255),
        "interpolation2d": "linear",
        **_raster_transform(world_scale(info), info),
        "metadata": {METADATA_KEY: {"kind": _KIND_SLIDE, "slide": slide}},
    }
    shown = pyramid.Pyramid(slide, shared_cache())
    return shown.arrays(Look(shown)), attributes, "image"


def heatmap_layer(
    image: NDArray[np.floating[Any]],
    *,
    pixel_um: tuple[float, float],
    corner_um: tuple[float, float] = (0.0, 0.0),
    name: str,
    metadata: Mapping[str, Any] | None = None,
    **attributes: Any,
) -> LayerData:
    """Return the image layer of values of tiles.

    Parameters
    ----------
    image
        float [rows, cols], a pixel a cell of a grid, or finer; NaN where there is no value.
    pixel_um
        (height, width) of a pixel.
    corner_um
        (row, col) of the picture's corner.
    name
        Name of the layer.
    metadata
        Kept in the layer's metadata under `METADATA_KEY`.
    attributes
        Further attributes of the layer, such as ``colormap`` or ``opacity``.
    """
    given = {
        "name": name,
        "rgb": False,
        "multiscale": False,
        "contrast_limits": (0.0, 1.0),
        "interpolation2d": "nearest",
        # `opaque` and `multiplicative` would paint the transparent cells black.
        "blending": "translucent",
        **heatmap_place(pixel_um, corner_um),
        "units": ("um", "um"),
        "axis_labels": ("y", "x"),
        "metadata": {METADATA_KEY: {"kind": _KIND_HEATMAP, **(metadata or {})}},
    }
    return image, given | attributes, "image"


def heatmap_place(
    pixel_um: tuple[float, float], corner_um: tuple[float, float] = (0.0, 0.0)
) -> dict[str, tuple[float, float]]:
    """Return scale and translate of a heatmap's layer; arguments as of `heatmap_layer`."""
    half = (corner_um[0] + pixel_um[0] / 2, corner_um[1] + pixel_um[1] / 2)
    return {"scale": pixel_um, "translate": half}


def pixel_um(layer: Any) -> tuple[float, float]:
    """Return (height, width) of a pixel of a heatmap's layer."""
    height, width = (float(value) for value in layer.scale)
    return height, width


def corner_um(layer: Any) -> tuple[float, float]:
    """Return (row, col) of the corner of a heatmap's layer."""
    (height, width), (row, column) = layer.scale, layer.translate
    return float(row - height / 2), float(column - width / 2)


def picture_layer(
    info: SlideInfo, *, name: str, metadata: Mapping[str, Any] | None = None, **attributes: Any
) -> LayerData:
    """Return the RGBA image layer of a segmentation; it is empty, and gets its pixels later.

    Parameters
    ----------
    info
        The facts of the slide.
    name
        Name of the layer.
    metadata
        Kept in the layer's metadata under `METADATA_KEY`.
    attributes
        Further attributes of the layer, such as ``opacity``.
    """
    given = {
        "name": name,
        "rgb": True,
        "multiscale": False,
        "interpolation2d": "nearest",  # a pixel is what the model said of it
        "blending": "translucent",
        "units": world_units(info),
        "axis_labels": ("y", "x"),
        "metadata": {METADATA_KEY: {"kind": _KIND_SEGMENTATION, **(metadata or {})}},
    }
    return np.zeros((8, 8, 4), np.uint8), given | attributes, "image"


def picture_affine(mpp: float, level: int, corner: tuple[int, int]) -> NDArray[np.float64]:
    """Return where a part of a picture's level lies in the world, [3, 3] in (row, col) µm.

    Parameters
    ----------
    mpp
        µm that a pixel of level 0 spans.
    level
        Of the picture's pyramid; each halves the one before.
    corner
        (row, column) of the part's first pixel.
    """
    scale = mpp * 2**level
    affine = np.diag([scale, scale, 1.0])
    affine[:2, 2] = (np.array(corner) + 0.5) * scale
    return affine


def kinds_layer(
    kinds: NDArray[np.uint8],
    pixel_px0: tuple[float, float],
    info: SlideInfo,
    *,
    name: str,
    kind: str,
) -> LayerData:
    """Return the image layer of a map whose values 0 to 3 stand for kinds of places.

    Parameters
    ----------
    kinds
        [rows, columns] from the slide's corner.
    pixel_px0
        (width, height) of a pixel in level-0 pixels.
    info
        The facts of the slide.
    name
        Name of the layer.
    kind
        Kept in the layer's metadata, so that it is known as ours.
    """
    row_unit, column_unit = world_scale(info)
    attributes = {
        "name": name,
        "rgb": False,
        "multiscale": False,
        "contrast_limits": (0, 3),
        "interpolation2d": "nearest",  # between two kinds lies none
        "blending": "translucent",
        **_raster_transform((pixel_px0[1] * row_unit, pixel_px0[0] * column_unit), info),
        "metadata": {METADATA_KEY: {"kind": kind}},
    }
    return kinds, attributes, "image"


def polygons_layer(
    geometries: Sequence[BaseGeometry],
    info: SlideInfo,
    *,
    name: str,
    metadata: Mapping[str, Any] | None = None,
    **attributes: Any,
) -> LayerData:
    """Return the Shapes layer of polygons in level-0 pixels; holes are cut by keyholes.

    Parameters
    ----------
    geometries
        Polygons in level-0 pixels (x, y), one shape each.
    info
        The facts of the slide they lie on.
    name
        Name of the layer.
    metadata
        Kept in the layer's metadata under `METADATA_KEY`.
    attributes
        Further attributes of the layer; lists go by shape.
    """
    data = [np.asarray(keyhole_ring(geometry))[:, ::-1] for geometry in geometries]
    given = {
        "name": name,
        "shape_type": "polygon",
        "scale": world_scale(info),
        "units": world_units(info),
        "axis_labels": ("y", "x"),
        "metadata": {METADATA_KEY: dict(metadata or {})},
    }
    return data, given | attributes, "shapes"


def _raster_transform(scale: tuple[float, float], info: SlideInfo) -> dict[str, Any]:
    """Transform of a raster layer whose first pixel starts at the slide's corner."""
    return {
        "scale": scale,
        "translate": (scale[0] / 2, scale[1] / 2),
        "units": world_units(info),
        "axis_labels": ("y", "x"),
    }


def keyhole_ring(polygon: BaseGeometry) -> NDArray[np.float64]:
    """Return one closed-by-itself ring [n, 2] that walks the outline and, over cuts, its holes.

    napari's polygons know no holes, but a cut walked there and back has no area.
    """
    if not isinstance(polygon, Polygon):
        raise ValueError(f"a shape needs one polygon, not a {polygon.geom_type}")
    ring = shapely.get_coordinates(polygon.exterior)[:-1]
    for interior in polygon.interiors:
        hole = shapely.get_coordinates(interior)[:-1]
        # The shortest cut between the two rings' vertices.
        distances = np.linalg.norm(ring[:, None] - hole[None], axis=2)
        i, j = np.unravel_index(np.argmin(distances), distances.shape)
        walked = np.concatenate([hole[j:], hole[: j + 1]])
        ring = np.concatenate([ring[: i + 1], walked, ring[i:]])
    return ring


# --- layers to core values --------------------------------------------------------------------


def ours(layer: Any) -> Mapping[str, Any]:
    """Return what we keep in a layer's metadata; empty for a layer of somebody else."""
    value = layer.metadata.get(METADATA_KEY, {})
    return value if isinstance(value, Mapping) else {}


def slide_of(layer: Any) -> Slide | None:
    """Return the open slide that an image layer shows, or None."""
    kept = ours(layer)
    return kept.get("slide") if kept.get("kind") == _KIND_SLIDE else None


def pyramid_of(layer: Any) -> pyramid.Pyramid:
    """Return the levels that a slide's image layer shows."""
    found: pyramid.Pyramid = layer.data[0].pyramid
    return found


def shapes_to_px0(layer: Any, info: SlideInfo, *, selected_only: bool = False) -> list[Polygon]:
    """Return a Shapes layer's areas as polygons in level-0 pixels.

    Rectangles, ellipses and polygons are areas; so is a path of three vertices or more, which is
    closed; lines are left out. What crosses itself falls into valid parts. The layer may be one
    that a person made with napari's own buttons: its transform and units are respected.

    Parameters
    ----------
    layer
        The Shapes layer.
    info
        The facts of the slide it lies on.
    selected_only
        Only the shapes that are selected.

    Returns
    -------
    list of shapely polygons
    """
    chosen = sorted(layer.selected_data) if selected_only else range(layer.nshapes)
    kinds = list(layer.shape_type)
    matrix, offset = data_to_world(layer, info)
    polygons: list[Polygon] = []
    for index in chosen:
        vertices = outline(np.asarray(layer.data[index], float)[:, -2:], str(kinds[index]))
        if vertices is None:
            continue
        polygons += _valid_polygons(to_px0(vertices @ matrix.T + offset, info))
    return polygons


def shape_to_px0(layer: Any, index: int, info: SlideInfo) -> BaseGeometry | None:
    """Return one shape of a Shapes layer in level-0 pixels: an area, or a line that stays one.

    An outline that crosses itself becomes its valid parts; None where nothing has an extent.
    """
    kind = str(list(layer.shape_type)[index])
    vertices = np.asarray(layer.data[index], float)[:, -2:]
    matrix, offset = data_to_world(layer, info)
    ring = None if kind in ("line", "path") else outline(vertices, kind)
    if ring is not None:
        parts = list(_valid_polygons(to_px0(ring @ matrix.T + offset, info)))
        return None if not parts else parts[0] if len(parts) == 1 else MultiPolygon(parts)
    if len(vertices) < 2:
        return None
    line = LineString(to_px0(vertices @ matrix.T + offset, info))
    return line if line.length else None


def outline(vertices: NDArray[np.float64], kind: str) -> NDArray[np.float64] | None:
    """Return the outline of a napari shape, or None where it has no area."""
    if kind == "line" or len(vertices) < 3:
        return None
    if kind != "ellipse":
        return vertices
    middle = vertices.mean(axis=0)
    first, second = (vertices[1] - vertices[0]) / 2, (vertices[3] - vertices[0]) / 2
    angle = np.linspace(0, 2 * math.pi, ELLIPSE_VERTICES, endpoint=False)[:, None]
    return middle + np.cos(angle) * first + np.sin(angle) * second


def data_to_world(layer: Any, info: SlideInfo) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return matrix [2, 2] and offset [2] from a layer's data to the world of the slide."""
    other = layer.ndim - 2
    corners = [
        np.asarray(layer.data_to_world((0.0,) * other + corner))[-2:]
        for corner in ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0))
    ]
    matrix = np.column_stack([corners[1] - corners[0], corners[2] - corners[0]])
    factor = _world_per_layer_unit(layer, info)
    return matrix * factor[:, None], corners[0] * factor


def _world_per_layer_unit(layer: Any, info: SlideInfo) -> NDArray[np.float64]:
    """Return how many world units one unit of the layer has, along (row, col)."""
    registry = pint.get_application_registry()
    world = [registry(unit).units for unit in world_units(info)]
    factors = [
        # napari shows pixels on lengths as they are; we do the same.
        (1 * unit).to(target).magnitude if unit.is_compatible_with(target) else 1.0
        for unit, target in zip(layer.units[-2:], world, strict=True)
    ]
    return np.array(factors)


def _valid_polygons(ring: NDArray[np.float64]) -> Iterable[Polygon]:
    """Return the areas that a ring [n, 2] encloses."""
    geometry: BaseGeometry = Polygon(ring)
    if not geometry.is_valid:
        geometry = shapely.make_valid(geometry)
    return [
        part
        for part in _parts(geometry)
        if part.area > 0  # a keyhole leaves its cut behind as a line
    ]


def _parts(geometry: BaseGeometry) -> Iterable[Polygon]:
    if isinstance(geometry, Polygon):
        return [geometry]
    if isinstance(geometry, MultiPolygon):
        return list(geometry.geoms)
    return [part for member in getattr(geometry, "geoms", ()) for part in _parts(member)]
