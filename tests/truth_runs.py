"""Stored runs with known answers, for tests of how they are judged. There is no slide file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from napari_histomil.annotations.model import Region, class_named
from napari_histomil.manifest import ClassSpec
from napari_histomil.results import RunStore, SegmentationStore
from napari_histomil.tiling import GridSpec, TileGrid

CLASSES = (ClassSpec("normal", (90, 90, 180)), ClassSpec("tumor", (200, 0, 0)))
SPEC = GridSpec(1.0, 64, 32)
"""Cells of 32 µm; tiles overlap."""
MPP = (0.5, 0.5)


def grid_over(width_um: int, height_um: int, spec: GridSpec = SPEC) -> TileGrid:
    """All cells of a slide of that size at 0.5 µm/px, row by row."""
    size = (round(width_um / MPP[0]), round(height_um / MPP[1]))
    empty = TileGrid(spec, MPP, size, np.empty((0, 2), np.int32))
    cells = np.indices(empty.shape, dtype=np.int32).reshape(2, -1).T
    return TileGrid(spec, MPP, size, cells)


def _facts(grid: TileGrid, name: str) -> dict[str, object]:
    return {
        "name": f"{name}.tif",
        "path": "",
        "fingerprint": f"{name:f<64.64}",
        "width_px0": grid.slide_size_px0[0],
        "height_px0": grid.slide_size_px0[1],
        "mpp_xy": list(grid.slide_mpp),
        "bounds_px0": None,
    }


def tile_run(
    folder: Path,
    grid: TileGrid,
    tumor: Sequence[float] | np.ndarray,
    *,
    slide: str = "slide",
    model: str = "maker",
    blocks: int | None = None,
    classes: Sequence[str] = ("normal", "tumor"),
) -> RunStore:
    """A run of a patch classifier; NaN is a tile that could not be read.

    Of more classes than two the scores are [N, C].
    """
    score = np.asarray(tumor, np.float32)
    if score.ndim == 1:
        score = np.column_stack([1 - score, score])
    path = folder / f"{slide}.{model}.zarr"
    with RunStore.create(
        path,
        run_id=path.stem,
        job={"task": "classify"},
        slide=_facts(grid, slide),
        model={"name": model, "path": "", "sha256": "ab" * 32, "positive_class": "tumor"},
        classes=[ClassSpec(name, (200, 40 * n, 0)) for n, name in enumerate(classes)],
        grid=grid,
    ) as store:
        for index, tiles in enumerate(list(grid.blocks())[:blocks]):
            values = score[tiles]
            torn = np.flatnonzero(np.isnan(values).any(axis=1))
            store.write_blocks(
                {index: values}, skipped={tiles.start + int(i): "torn" for i in torn}
            )
    return RunStore.open(path)


def picture_run(
    folder: Path, grid: TileGrid, tumor: np.ndarray, *, slide: str = "slide"
) -> SegmentationStore:
    """A run of a model that segments: the probability [rows, columns] at the grid's µm/px."""
    path = folder / f"{slide}.picture.zarr"
    with SegmentationStore.create(
        path,
        run_id=path.stem,
        job={"task": "segment"},
        slide=_facts(grid, slide),
        model={"name": "segmenter", "path": "", "sha256": "cd" * 32, "positive_class": "tumor"},
        classes=CLASSES,
        grid=grid,
    ) as store:
        whole = np.stack([1 - tumor, tumor]).astype(np.float32)
        for band in store.picture.bands:
            store.write_band(band, lambda part, rows=band.rows: whole[:, rows, part])
    return SegmentationStore.open(path)


def drawn(shape: BaseGeometry, name: str) -> Region:
    """A region; the shape is in µm from the slide's corner."""
    scaled = shapely.transform(shape, lambda xy: xy / np.array(MPP))
    return Region(scaled, class_named(name))
