"""The probabilities of a segmentation as OME-TIFF or OME-Zarr for other programs.

Both hold float32 [C, rows, columns], NaN where nothing was looked at, and all levels of the
pyramid. They are written a tile at a time, whole or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import zarr
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec

from napari_histomil.errors import RunError
from napari_histomil.exchange.facts import class_column, ome_metadata, provenance
from napari_histomil.exchange.labels import Turn
from napari_histomil.files import whole_file, whole_folder
from napari_histomil.results import SegmentationStore
from napari_histomil.results.segmentation import from_stored

TILE_PX = 512
BIG_TIFF_BYTES = 2**31


def write_probabilities(
    store: SegmentationStore,
    path: Path,
    names: Sequence[str] = (),
    *,
    turn: Turn = lambda: None,
) -> None:
    """Write probabilities in the format that the name tells.

    Parameters
    ----------
    store
        The segmentation.
    path
        Ends in ``.ome.tif``, ``.tif`` or ``.zarr``.
    names
        Classes, a channel each; all by default.
    turn
        Called before each row of tiles; what it raises stops the work, and no file is left.

    Raises
    ------
    RunError
        If the name tells no such format, or there is no class of a name.
    OutputError
        If it cannot be written there.
    """
    columns = [class_column(store, name) for name in names or store.class_names]
    if path.suffix.lower() == ".zarr":
        _write_zarr(store, path, columns, turn)
    elif path.suffix.lower() in (".tif", ".tiff"):
        _write_tiff(store, path, columns, turn)
    else:
        raise RunError(
            f"Probabilities are written as .ome.tif or .zarr, and {path.name} ends otherwise."
        )


def _write_tiff(store: SegmentationStore, path: Path, columns: list[int], turn: Turn) -> None:
    mpp, levels = store.grid.spec.mpp, store.levels
    names = [store.class_names[column] for column in columns]
    metadata = ome_metadata(store, names, mpp)
    size = 4 * len(columns) * int(np.prod(store.picture.shape))
    with (
        whole_file(path) as part,
        tifffile.TiffWriter(part, ome=True, bigtiff=size > BIG_TIFF_BYTES) as tiff,
    ):
        for index, level in enumerate(levels):
            per_cm = 1e4 / (mpp * 2**index)
            tiff.write(
                _tiles(level, columns, turn),
                shape=(len(columns), *level.shape[1:]),
                dtype=np.float32,
                photometric="minisblack",
                tile=(TILE_PX, TILE_PX),
                compression="zlib",
                resolution=(per_cm, per_cm),
                resolutionunit="CENTIMETER",
                subifds=None if index else len(levels) - 1,
                subfiletype=1 if index else 0,
                maxworkers=1,
                metadata=None if index else metadata,
            )


def _tiles(level: Any, columns: list[int], turn: Turn) -> Iterator[NDArray[np.float32]]:
    """Yield the tiles of every channel in rows; those at the edges are filled up with NaN."""
    _, height, width = level.shape
    for column in columns:
        for top in range(0, height, TILE_PX):
            turn()
            for left in range(0, width, TILE_PX):
                part = level[column, top : top + TILE_PX, left : left + TILE_PX]
                full = np.full((TILE_PX, TILE_PX), np.nan, np.float32)
                full[: part.shape[0], : part.shape[1]] = from_stored(np.asarray(part))
                yield full


def _write_zarr(store: SegmentationStore, path: Path, columns: list[int], turn: Turn) -> None:
    with whole_folder(path, "zarr.json") as part:
        group = zarr.create_group(part, zarr_format=3)
        for index, level in enumerate(store.levels):
            _, height, width = level.shape
            array = group.create_array(
                str(index),
                shape=(len(columns), height, width),
                chunks=(1, TILE_PX, TILE_PX),
                dtype="float32",
                fill_value=float("nan"),
                compressors=ZstdCodec(level=3),
                dimension_names=("c", "y", "x"),
            )
            for place, column in enumerate(columns):
                for top in range(0, height, TILE_PX):
                    turn()
                    stored = np.asarray(level[column, top : top + TILE_PX])
                    array[place, top : top + TILE_PX] = from_stored(stored)
        ome: dict[str, Any] = json.loads(json.dumps(store.ome))
        ome["omero"]["channels"] = [
            {**ome["omero"]["channels"][column], "window": _WINDOW} for column in columns
        ]
        group.attrs.update({"ome": ome, "histomil": provenance(store)})


_WINDOW = {"min": 0, "max": 1, "start": 0, "end": 1}
