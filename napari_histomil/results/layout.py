"""How a run lies in its Zarr group: made empty, checked, read back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec

from napari_histomil.errors import RunError
from napari_histomil.tiling import BLOCK_TILES, GridSpec, TileGrid

SCHEMA_VERSION = 1
"""Version of the attributes that this program writes and the newest it reads."""

ATTRIBUTE = "histomil"


def make_scores(group: zarr.Group, grid: TileGrid, classes: int) -> None:
    """Make the arrays of a patch classifier's run of which nothing is done."""
    make_rows(group, "scores", (len(grid), classes), "float32")


def make_rows(group: zarr.Group, name: str, shape: tuple[int, int], dtype: str) -> None:
    """Make an array of one row a tile, one chunk a block, and the flags of its blocks."""
    group.create_array(
        name,
        shape=shape,
        chunks=(BLOCK_TILES, shape[1]),
        dtype=dtype,
        fill_value=float("nan"),
        compressors=[Crc32cCodec()],
    )
    make_flags(group, -(-shape[0] // BLOCK_TILES))


def make_flags(group: zarr.Group, count: int) -> None:
    """Make the flags of so many parts of a run, none of which is done."""
    group.create_array(
        "done",
        shape=(count,),
        chunks=(count,),
        dtype="bool",
        fill_value=False,
        compressors=[Crc32cCodec()],
    )


def check_version(path: Path, attributes: Any) -> None:
    """Refuse what is no run, or one of a newer program; raises `RunError`."""
    version = attributes.get("schema_version") if isinstance(attributes, Mapping) else None
    if not isinstance(version, int):
        raise RunError(f"{path} is a Zarr group of another program, not a run of napari-histomil.")
    if version > SCHEMA_VERSION:
        raise RunError(
            f"{path} was written by a newer version of this program (schema {version}, this "
            f"program knows {SCHEMA_VERSION}): update napari-histomil."
        )


def task_of(attributes: Mapping[str, Any]) -> str:
    """Return the task of a run; runs know it from their job. A chain ends in a segmentation."""
    job = attributes.get("job")
    task = str(job.get("task", "classify")) if isinstance(job, Mapping) else "classify"
    return "segment" if task == "chain" else task


def check_task(path: Path, attributes: Mapping[str, Any], wanted: str) -> None:
    """Refuse a run of another task than is understood; raises `RunError`."""
    task = task_of(attributes)
    if task == wanted:
        return
    if task == "segment" and wanted == "classify":
        raise RunError(
            f"{path} is a segmentation, and this is for the scores of patches: see "
            f"'histomil segmentation --help'."
        )
    if wanted == "mil":
        raise RunError(
            f"{path} holds the answers of a model of tiles ({task}), not those of a MIL model for "
            f"the whole slide."
        )
    if task == "mil":
        raise RunError(
            f"{path} is a MIL model's answer for the whole slide, and this is for answers of "
            f"tiles: see 'histomil mil --help'."
        )
    if task == "embed":
        raise RunError(
            f"{path} holds the features of tiles, which are no result by themselves: they are "
            f"what models of slides are given."
        )
    if wanted == "embed":
        raise RunError(f"{path} holds no features: its model does not embed tiles ({task}).")
    raise RunError(f"{path} is no segmentation: its model answers for tiles ({task}).")


def grid_attributes(grid: TileGrid) -> dict[str, Any]:
    """Return what `read_grid` needs besides the cells."""
    spec = grid.spec
    margin = {"margin_px": spec.margin_px} if spec.margin_px else {}
    return {
        "mpp": float(spec.mpp),
        "tile_px": spec.tile_px,
        "stride_px": spec.stride_px,
        **margin,
        "slide_mpp": [float(v) for v in grid.slide_mpp],
        "slide_size_px0": [int(v) for v in grid.slide_size_px0],
    }


def read_grid(group: zarr.Group, grid: Mapping[str, Any]) -> TileGrid:
    """Return the grid from its attributes and its cells."""
    cells: Any = group["cells"]
    return TileGrid(
        spec=GridSpec(grid["mpp"], grid["tile_px"], grid["stride_px"], grid.get("margin_px", 0)),
        slide_mpp=(grid["slide_mpp"][0], grid["slide_mpp"][1]),
        slide_size_px0=(grid["slide_size_px0"][0], grid["slide_size_px0"][1]),
        cells=np.asarray(cells[:], np.int32),
    )


def check_shapes(group: zarr.Group, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise `ValueError` if an array has another shape than the grid asks for."""
    for name, shape in shapes.items():
        array: Any = group[name]
        if tuple(array.shape) != shape:
            raise ValueError(f"{name} has the shape {array.shape} instead of {shape}")


def spans(blocks: NDArray[np.bool_], tiles: int) -> list[slice]:
    """Return the slices of tiles of neighbouring true blocks: one read each."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], blocks.astype(np.int8), [0]])))
    return [
        slice(int(a) * BLOCK_TILES, min(int(b) * BLOCK_TILES, tiles))
        for a, b in zip(edges[::2], edges[1::2], strict=True)
    ]
