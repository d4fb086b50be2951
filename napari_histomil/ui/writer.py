"""npe2 writers and reader of annotations: napari's own Save and Open, one writer a format.

A Shapes layer has no holes and no regions of several parts; what this program draws is saved by
the Annotate dock. Here any Shapes layer is saved, also one that a person made with napari's own
buttons: its shapes lie where `data_to_world` puts them, the column ``class`` (and ``name``) of
its features says what they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from napari.layers import Layer, Shapes
from napari.utils.notifications import show_info
from shapely.geometry.base import BaseGeometry

from napari_histomil.annotations.formats import read_annotations, write_annotations
from napari_histomil.annotations.model import Region, SlideFrame, class_named, walk
from napari_histomil.errors import AnnotationError, HistomilError
from napari_histomil.slides.slide import SlideInfo
from napari_histomil.ui.layers import (
    METADATA_KEY,
    LayerData,
    data_to_world,
    keyhole_ring,
    ours,
    outline,
    slide_of,
    to_px0,
    world_scale,
    world_units,
)

READ_SUFFIXES = (".geojson", ".annotations")
"""Extensions that only annotations have; others are opened in the Annotate dock."""

LINE_PX0 = 4
"""Width of an outline in level-0 pixels."""


# --- writing ----------------------------------------------------------------------------------


def write_geojson(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Save a Shapes layer as QuPath's GeoJSON."""
    return _write(path, data, meta, "geojson")


def write_asap(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Save a Shapes layer as ASAP's XML."""
    return _write(path, data, meta, "asap")


def write_imagescope(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Save a Shapes layer as ImageScope's XML."""
    return _write(path, data, meta, "imagescope")


def write_halo(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Save a Shapes layer as HALO's annotations."""
    return _write(path, data, meta, "halo")


def write_dsa(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Save a Shapes layer as HistomicsUI's JSON."""
    return _write(path, data, meta, "dsa")


def _write(path: str, data: Any, meta: dict[str, Any], to: str) -> list[str]:
    """Save a Shapes layer, as napari hands it over.

    Raises
    ------
    AnnotationError
        If the layer is in µm and nobody says how large a pixel of its slide is.
    OutputError
        If the file cannot be written there.
    """
    layer = Layer.create(data, meta, "shapes")
    info = _info_of(layer)
    regions = regions_of(layer, info)
    frame = SlideFrame() if info is None else SlideFrame.of(info)
    mpp = None if info is None or info.mpp_x is None else info.mpp
    extra = ours(layer).get("extra")
    for note in write_annotations(Path(path), regions, to=to, frame=frame, extra=extra, mpp=mpp):
        show_info(note)
    return [path]


def regions_of(layer: Shapes, info: SlideInfo | None) -> list[Region]:
    """Return the shapes of a layer as regions in level-0 pixels.

    Parameters
    ----------
    layer
        Any Shapes layer. The features ``class``, ``name`` and ``id`` are used where it has them.
    info
        The slide that it lies on; None takes world coordinates for level-0 pixels.

    Raises
    ------
    AnnotationError
        If `info` is None and the layer is in µm.
    """
    if info is None and any(str(unit) != "pixel" for unit in layer.units):
        raise AnnotationError(
            f"The layer {layer.name} is in {layer.units[-1]}, and no slide is open that says how "
            f"many of them a pixel has: open the slide first."
        )
    regions = []
    for n, kind in enumerate(layer.shape_type):
        vertices = np.asarray(layer.data[n], float)
        if info is None:
            xy = np.array([layer.data_to_world(vertex)[-2:] for vertex in _area(vertices, kind)])
            xy = xy[:, ::-1]
        else:
            matrix, offset = data_to_world(layer, info)
            xy = to_px0(_area(vertices, kind)[:, -2:] @ matrix.T + offset, info)
        said = {key: _text(layer.features[key].iloc[n]) for key in layer.features}
        name = said.get("class")
        given = {"id": said["id"]} if said.get("id") else {}
        color = tuple(round(255 * float(value)) for value in layer.edge_color[n][:3])
        regions.append(
            Region(
                _geometry(xy, str(kind)),
                class_named(name) if name else None,
                name=said.get("name"),
                color=None if name else color,
                **given,
            )
        )
    return regions


def _area(vertices: np.ndarray, kind: str) -> np.ndarray:
    """Return vertices [n, D] of a shape, of an ellipse those of its outline."""
    if kind != "ellipse":
        return vertices
    ring = outline(vertices[:, -2:], kind)
    before = np.broadcast_to(vertices[0, :-2], (len(ring), vertices.shape[1] - 2))
    return np.hstack([before, ring])


def _geometry(xy: np.ndarray, kind: str) -> BaseGeometry:
    if kind in ("line", "path") or len(xy) < 3:
        return shapely.linestrings(xy)
    shape = shapely.Polygon(xy)
    if shape.is_valid:
        return shape
    # a keyhole, by which napari shows a hole, is a hole again
    mended = shapely.make_valid(shape)
    parts = [part for part in shapely.get_parts(mended) if part.geom_type == "Polygon"]
    if not parts:
        return shape
    return parts[0] if len(parts) == 1 else shapely.multipolygons(parts)


def _text(value: Any) -> str | None:
    """Return what a feature says; None where it says nothing (pandas' NaN)."""
    return value if isinstance(value, str) and value else None


def _info_of(layer: Any) -> SlideInfo | None:
    """Return the facts of the slide that a layer lies on: its own, else the one that is open."""
    kept = ours(layer)
    info = kept.get("info") or getattr(kept.get("slide"), "info", None)
    if info is not None:
        return info
    from napari import current_viewer

    viewer = current_viewer()
    slides = {} if viewer is None else {
        slide.info.fingerprint: slide.info
        for each in viewer.layers
        if (slide := slide_of(each)) is not None
    }  # fmt: skip
    if len(slides) > 1:
        raise AnnotationError(
            f"{len(slides)} slides are open, and the layer {layer.name} does not say on which "
            f"it was drawn: close the others."
        )
    return next(iter(slides.values()), None)


# --- reading ----------------------------------------------------------------------------------


def get_reader(path: str | Sequence[str]) -> Callable[[Any], list[LayerData]] | None:
    """Return what reads a file of annotations, or None where it is none; never raises."""
    if not isinstance(path, str):
        return None
    suffixes = [suffix.lower() for suffix in Path(path).suffixes[-2:]]
    return read_shapes if set(suffixes) & set(READ_SUFFIXES) else None


def read_shapes(path: str | Sequence[str]) -> list[LayerData]:
    """Return a Shapes layer of the regions of a file; on the slide that is open, if there is one.

    Raises
    ------
    AnnotationError
        If the file cannot be read; napari shows the sentence.
    """
    file = Path(path if isinstance(path, str) else path[0])
    try:
        info = _info_of(_Unknown())
    except HistomilError:
        info = None  # several slides are open: the layer is shown without one
    found = read_annotations(file, frame=None if info is None else SlideFrame.of(info))
    for note in (*found.notes, *_loss(found.regions)):
        show_info(note)
    shapes = [
        (vertices, kind, region)
        for region in walk(found.regions)
        for part in shapely.get_parts(region.geometry)
        for vertices, kind in [_vertices(part)]
    ]
    regions = [region for _, _, region in shapes]
    attributes: dict[str, Any] = {
        "name": file.name,
        "shape_type": [kind for _, kind, _ in shapes],
        "edge_color": [[value / 255 for value in region.shown_color] for region in regions],
        "face_color": "transparent",
        "edge_width": LINE_PX0,
        "features": {
            "class": [region.class_name for region in regions],
            "name": [region.name for region in regions],
        },
        "metadata": {METADATA_KEY: {"annotations": str(file), "extra": found.extra}},
        "axis_labels": ("y", "x"),
    }
    if info is not None:
        attributes |= {"scale": world_scale(info), "units": world_units(info)}
        attributes["metadata"][METADATA_KEY]["info"] = info
    if not shapes:
        for each in ("shape_type", "edge_color", "features"):
            del attributes[each]
    return [([vertices for vertices, _, _ in shapes], attributes, "shapes")]


def _loss(regions: Sequence[Region]) -> list[str]:
    """Return a sentence on what a Shapes layer does not hold of regions; none if it holds all."""
    more = sum(
        bool(each.measurements or each.metadata or each.locked or each.nucleus is not None)
        for each in walk(regions)
    )
    if not more:
        return []
    return [
        (
            f"Of {more:,} regions measurements, notes, locks and nuclei are not in the layer: "
            f"import the file in the Annotate dock to keep them."
        )
    ]


class _Unknown:
    """A layer of which nothing is known."""

    name = ""
    metadata: Mapping[str, Any] = {}


def _vertices(part: BaseGeometry) -> tuple[np.ndarray, str]:
    """Return (row, col) [n, 2] and napari's kind of a shape."""
    if part.geom_type == "Polygon":
        return keyhole_ring(part)[:, ::-1], "polygon"
    xy = shapely.get_coordinates(part)
    if len(xy) == 1:  # a Shapes layer has no points: a square of a pixel
        return np.array(shapely.box(*xy[0] - 0.5, *xy[0] + 0.5).exterior.coords)[:-1, ::-1], (
            "rectangle"
        )
    return xy[:, ::-1], "path"
