"""What a MIL model looked at, for other programs: CLAM's heatmaps, and tiles for QuPath.

One map at a time: that of the highest magnification, or another, and of a model with a row of
attention a class the row of one class. Positions are those of the tiles' footprints. Pictures of
it are in `attention_pictures.py`.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from napari_histomil.annotations.geojson import collection_lines
from napari_histomil.errors import RunError
from napari_histomil.exchange.facts import frame_of, identity, locked_tile
from napari_histomil.files import whole_file
from napari_histomil.heatmaps import normalise
from napari_histomil.results import MilRun
from napari_histomil.results.mil import MilLevel, MilMap

Floats = NDArray[np.float32]

VALUES = {
    "rank": "share of the slide's tiles whose attention is not higher; the hottest tile of any "
    "slide has 1, whatever it shows",
    "softmax": "share of the slide's attention",
    "raw": "attention before the softmax",
    "contribution": "what a tile adds to the logit of the class",
}
"""What can be written as a picture, with what it says."""


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """The row of a map that is written."""

    run: MilRun
    map: MilMap
    class_index: int

    @property
    def level(self) -> MilLevel:
        """Where its tiles lie."""
        return self.run.levels[self.map.level]

    @property
    def class_name(self) -> str:
        """The class that it is about: of attention, only where there is a row a class."""
        return self.run.class_names[self.class_index]

    @property
    def boxes_px0(self) -> NDArray[np.float64]:
        """float64 [M, 4]: x, y, width, height of the tiles that have values."""
        xy = self.level.xy_px0[self.map.index]
        return np.column_stack([xy, np.broadcast_to(self.level.side_px0, xy.shape)])

    def row(self, values: Floats) -> Floats:
        """Return the row of the class of values [K, M]."""
        row: Floats = values[self.class_index if len(values) > 1 else 0]
        return row

    @property
    def order(self) -> Floats:
        """float32 [M]: what ranks are taken from, before the softmax where there is such."""
        found = self.map.raw if self.map.raw is not None else self.map.value
        if found is None:
            raise RunError(f"{self.run.path.name} has no attention ({self.map.kind}).")
        return self.row(found)

    def values(self, name: str) -> Floats:
        """Return float32 [M] by a name of `VALUES`.

        Raises
        ------
        RunError
            If the model has none such.
        """
        if name == "rank":
            return normalise(self.order, "rank").astype(np.float32)
        if name == "contribution":
            found = self.contributions(self.class_index)
            if found is None:
                raise RunError(
                    f"{self.run.model['name']} has no exact contributions: choose "
                    f"{', '.join(n for n in VALUES if n != name)}."
                )
            return found
        if name not in VALUES:
            raise RunError(f"There are no values '{name}': choose one of {', '.join(VALUES)}.")
        found = self.map.raw if name == "raw" else self.map.value
        if found is None:
            raise RunError(
                f"{self.run.model['name']} has no attention "
                f"{'before' if name == 'raw' else 'after'} a softmax ({self.map.kind}): choose "
                f"rank."
            )
        return self.row(found)

    def contributions(self, class_index: int) -> Floats | None:
        """Return float32 [M] to a class, or None."""
        for part in self.run.contributions:
            if part.level == self.map.level:
                everywhere = np.full(len(self.level), np.nan, np.float32)
                everywhere[part.index] = part.values[class_index]
                return everywhere[self.map.index]
        return None


def shown_map(run: MilRun, *, level: int | None = None, class_name: str | None = None) -> Shown:
    """Return what is written of a run.

    Parameters
    ----------
    run
        The run.
    level
        Index of its level; by default that of the map that is shown first.
    class_name
        A class; by default the predicted one.

    Raises
    ------
    RunError
        If the run has no such level, map or class.
    """
    maps = [m for m in run.maps if m.kind != "selection" and level in (None, m.level)]
    if not maps:
        raise RunError(
            f"{run.path.name} has no map of level {level}: it has "
            f"{', '.join(str(m.level) for m in run.maps) or 'none at all'}."
        )
    if class_name is not None and class_name not in run.class_names:
        raise RunError(
            f"The run {run.path.name} has no class '{class_name}': choose one of "
            f"{', '.join(run.class_names)}."
        )
    index = run.answer.predicted if class_name is None else run.class_names.index(class_name)
    return Shown(run, maps[-1], index)


def origin(run: MilRun) -> dict[str, Any]:
    """Return what made a result in a few plain values, for files with room for a text."""
    return {
        **identity(run),
        "probabilities": {
            name: round(float(p), 6)
            for name, p in zip(run.class_names, run.answer.probabilities, strict=True)
        },
        "warnings": list(run.warnings),
    }


def write_h5(shown: Shown, path: Path) -> int:
    """Write ``attention_scores`` and ``coords`` as CLAM's heatmaps do.

    ====================  ============================================================
    ``attention_scores``  float32 [M, 1], before the softmax where there is such
    ``coords``            int64 [M, 2], x and y of a tile's footprint in level-0 pixels,
                          rounded, uncropped
    attribute ``run``     JSON: run, slide, model, probabilities, warnings
    ====================  ============================================================

    Returns
    -------
    int
        Number of tiles.

    Raises
    ------
    OutputError
        If the file cannot be written there.
    """
    content = io.BytesIO()  # HDF5 crashes the process at its end when the disk is full
    with h5py.File(content, "w") as file:
        scores = shown.order[:, None].astype(np.float32)
        file.create_dataset("attention_scores", data=scores, maxshape=(None, 1))
        coords = np.rint(shown.boxes_px0[:, :2]).astype(np.int64)
        dataset = file.create_dataset("coords", data=coords, maxshape=(None, 2))
        dataset.attrs["patch_size_exact_px0"] = np.array(shown.level.side_px0)
        file.attrs["run"] = json.dumps(origin(shown.run))
    with whole_file(path) as part:
        part.write_bytes(content.getbuffer())
    return len(coords)


def write_geojson(shown: Shown, path: Path) -> int:
    """Write one locked tile object a tile, with all its values as measurements, for QuPath.

    Positions are in QuPath's frame, as of `exchange.wsinfer.write_geojson`.

    Returns
    -------
    int
        Number of objects.

    Raises
    ------
    OutputError
        If the file cannot be written there.
    """
    frame = frame_of(shown.run)
    with whole_file(path) as part, part.open("wb") as file:
        file.writelines(collection_lines(_features(shown, frame.origin_px0), frame))
    return len(shown.map.index)


def _features(shown: Shown, origin_px0: tuple[float, float]) -> Iterator[Mapping[str, Any]]:
    columns: dict[str, Floats] = {"attention rank": shown.values("rank")}
    if shown.map.raw is not None:
        columns["attention raw"] = shown.row(shown.map.raw)
    if shown.map.value is not None:
        columns["attention"] = shown.row(shown.map.value)
    for index, name in enumerate(shown.run.class_names):
        found = shown.contributions(index)
        if found is not None:
            columns[f"contribution {name}"] = found
    moved = shown.boxes_px0 - [*origin_px0, 0, 0]
    table = np.column_stack(list(columns.values()))
    for (x0, y0, width, height), row in zip(moved.round(2).tolist(), table, strict=True):
        x1, y1 = round(x0 + width, 2), round(y0 + height, 2)
        known = {n: v for n, v in zip(columns, row, strict=True) if np.isfinite(v)}
        key = f"{shown.run.run_id} {shown.map.level} {x0} {y0}"
        yield locked_tile(key, (x0, y0, x1, y1), known)


def slide_size(shown: Shown) -> tuple[int, int] | None:
    """Return (width, height) of the slide in level-0 px, if anybody knows it."""
    width, height = shown.run.slide.get("width_px0"), shown.run.slide.get("height_px0")
    return (int(width), int(height)) if width and height else None
