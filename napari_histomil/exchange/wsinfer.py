"""Scores as WSInfer writes them: a CSV table, and GeoJSON tiles that QuPath opens.

Both hold a tile's footprint (what the model saw), not its cell: tiles may overlap. Positions and
sizes are whole level-0 pixels, as WSInfer's are: each corner is rounded on its own, so it is at
most half a pixel off, however far from the slide's corner. At the slide's edges a footprint may
begin at a negative position or end outside. Tiles without a score are left out.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_histomil.annotations.geojson import collection_lines
from napari_histomil.exchange.facts import footprints, frame_of, locked_tile
from napari_histomil.files import whole_file
from napari_histomil.results import RunStore

COLUMNS = ("minx", "miny", "width", "height")


def write_csv(run: RunStore, path: Path) -> int:
    """Write ``minx,miny,width,height,prob_<class>,...``, one row a tile.

    Positions are uncropped level-0 pixels. Scores are written with as few digits as give the
    same float32 again.

    Returns
    -------
    int
        Number of rows.

    Raises
    ------
    OutputError
        If the file cannot be written there.
    """
    boxes, scores = footprints(run)
    with whole_file(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow([*COLUMNS, *(f"prob_{name}" for name in run.class_names)])
        for box, row in zip(boxes.tolist(), scores, strict=True):
            table.writerow([*box, *map(str, row)])
    return len(boxes)


def write_geojson(run: RunStore, path: Path) -> int:
    """Write one locked tile object with its measurements per tile, as WSInfer does.

    Positions are in QuPath's frame: cropped to the slide's bounds where it has them; the
    top-level member ``histomil`` says so. Ids are made of run and tile, so that writing again
    gives the same file.

    Returns
    -------
    int
        Number of objects.

    Raises
    ------
    OutputError
        If the file cannot be written there.
    """
    boxes, scores = footprints(run)
    frame = frame_of(run)
    features = _features(run, boxes, scores, frame.origin_px0)
    with whole_file(path) as part, part.open("wb") as file:
        file.writelines(collection_lines(features, frame))
    return len(boxes)


def _features(
    run: RunStore,
    boxes: NDArray[np.int64],
    scores: NDArray[np.float32],
    origin_px0: tuple[float, float],
) -> Iterator[Mapping[str, Any]]:
    names = [f"prob_{name}" for name in run.class_names]
    left, top = round(origin_px0[0]), round(origin_px0[1])
    for (minx, miny, width, height), row in zip(boxes.tolist(), scores, strict=True):
        x0, y0 = minx - left, miny - top
        yield locked_tile(
            f"{run.run_id} {minx} {miny}",
            (x0, y0, x0 + width, y0 + height),
            dict(zip(names, row, strict=True)),
        )
