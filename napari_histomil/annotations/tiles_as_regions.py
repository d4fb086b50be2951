"""Tiles of patch classifiers as regions: WSInfer's table, and its and QuPath's GeoJSON tiles.

WSInfer's measurements are ``prob_<class>`` and it gives no class; QuPath's extension calls them by
the class alone. Either way `with_top_class` gives each tile the class of its highest score.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import shapely

from napari_histomil.annotations.files import AnnotationFile, plain_frame
from napari_histomil.annotations.kept import made_id
from napari_histomil.annotations.model import Region, SlideFrame, class_named, walk
from napari_histomil.errors import AnnotationError

COLUMNS = ("minx", "miny", "width", "height")
PREFIX = "prob_"


def is_table(data: bytes) -> bool:
    """Return whether a text begins as WSInfer's table does."""
    head = data[:4096].removeprefix(b"\xef\xbb\xbf").split(b"\n", 1)[0].strip()
    return head.startswith(",".join(COLUMNS).encode())


def read_table(data: bytes, *, frame: SlideFrame | None = None) -> AnnotationFile:
    """Return the tiles of WSInfer's CSV: ``minx,miny,width,height,prob_<class>,...``.

    Parameters
    ----------
    data
        The text. Positions are level-0 pixels of the whole slide.
    frame
        Frame of the slide that the person says it belongs to.

    Raises
    ------
    AnnotationError
        If a row is not as long as the head, or holds something else than finite numbers.
    """
    try:
        rows = list(csv.reader(io.StringIO(data.decode("utf-8-sig")), strict=True))
    except (UnicodeDecodeError, csv.Error):
        raise AnnotationError("it is not a table in UTF-8") from None
    head = rows[0]
    names = head[len(COLUMNS) :]
    if len(set(names)) != len(names) or "" in names:
        raise AnnotationError("two of its columns have the same name, or one has none")
    numbers = np.empty((len(rows) - 1, len(head)))
    for n, row in enumerate(rows[1:]):
        try:
            numbers[n] = [float(text) for text in row]
        except ValueError:
            raise AnnotationError(
                f"line {n + 2} is not {len(head)} numbers, as its head has columns"
            ) from None
    boxes = numbers[:, : len(COLUMNS)]
    wrong = np.flatnonzero(~np.isfinite(boxes).all(axis=1) | (boxes[:, 2:] <= 0).any(axis=1))
    if wrong.size:
        raise AnnotationError(f"line {wrong[0] + 2} is no tile: its place or size is no number")
    x0, y0 = boxes[:, 0], boxes[:, 1]
    x1, y1 = x0 + boxes[:, 2], y0 + boxes[:, 3]
    # WSInfer's own order of corners, from the top right
    corners = np.stack([x1, y0, x1, y1, x0, y1, x0, y0, x1, y0], axis=1).reshape(-1, 5, 2)
    shapes = shapely.polygons(corners)
    regions = tuple(
        Region(
            shape,
            id=made_id(f"tile {n}", box),
            locked=True,
            object_type="tile",
            measurements=dict(zip(names, row, strict=True)),
        )
        for n, (shape, box, row) in enumerate(
            zip(shapes, boxes, numbers[:, len(COLUMNS) :].tolist(), strict=True)
        )
    )
    found, notes = plain_frame(frame)
    return AnnotationFile(regions, found, tuple(notes), {}, "wsinfer")


def table_lines(regions: Iterable[Region]) -> tuple[Iterator[str], list[str]]:
    """Return the lines of WSInfer's CSV, and notes on what it has no room for.

    Raises
    ------
    AnnotationError
        If a region is no upright rectangle, or has other measurements than the first.
    """
    tiles = list(walk(regions))
    names = list(tiles[0].measurements) if tiles else []
    rows = []
    lost = 0
    for n, tile in enumerate(tiles):
        box = tile.geometry.bounds
        if tile.geometry.geom_type != "Polygon" or not shapely.box(*box).equals(tile.geometry):
            raise AnnotationError(
                f"{tile.label} is no upright rectangle: WSInfer's table holds tiles only."
            )
        if set(tile.measurements) != set(names):
            raise AnnotationError(
                f"{tile.label} has other measurements than the first: WSInfer's table has the "
                f"same columns for all."
            )
        x0, y0, x1, y1 = box
        plain = Region(
            tile.geometry,
            id=made_id(f"tile {n}", np.array([x0, y0, x1 - x0, y1 - y0])),
            locked=True, object_type="tile", measurements=tile.measurements,
        )  # fmt: skip
        lost += replace(tile, geometry=plain.geometry, children=()) != plain
        rows.append([*map(_short, (x0, y0, x1 - x0, y1 - y0)),
                     *(tile.measurements[name] for name in names)])  # fmt: skip
    notes = []
    if lost:
        notes.append(
            f"WSInfer's table has no room for ids, names, classes and notes: those of {lost} "
            f"tiles are not in it."
        )
    return _lines([[*COLUMNS, *names], *rows]), notes


def _lines(rows: Sequence[Sequence[Any]]) -> Iterator[str]:
    for row in rows:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(row)
        yield text.getvalue()


def _short(value: float) -> float | int:
    return int(value) if value.is_integer() else value


def with_top_class(regions: Iterable[Region]) -> tuple[Region, ...]:
    """Return the regions, each tile with the class of its highest score.

    Scores are the measurements that begin with ``prob_``; where there is none, all of them. Other
    objects, and tiles without a score, stay as they are.
    """
    result = []
    for region in regions:
        children = with_top_class(region.children) if region.children else ()
        if children != region.children:
            region = replace(region, children=children)
        if region.object_type == "tile":
            top = _top(region)
            region = region if top is None else replace(region, classification=class_named(top))
        result.append(region)
    return tuple(result)


def _top(region: Region) -> str | None:
    marked = {
        name.removeprefix(PREFIX): value
        for name, value in region.measurements.items()
        if name.startswith(PREFIX)
    }
    scores = {
        name: value
        for name, value in (marked or region.measurements).items()
        if name and np.isfinite(value)
    }
    return max(scores, key=lambda name: scores[name]) if scores else None
