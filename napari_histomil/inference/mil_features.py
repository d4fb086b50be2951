"""The features that a MIL job needs: their jobs, and those of tiles that a model zooms into.

Each magnification is a run of features by itself, the same that `histomil features` makes, used
again where it is there. A model that zooms has all tiles of the lowest magnification only; of the
others those within the tiles it chose are computed, unless all are there already.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_histomil.errors import RunError
from napari_histomil.inference.job import Job, MilSpec, ModelRef, RegionSpec, StainSpec
from napari_histomil.inference.mil_answer import Missing, tensor_of
from napari_histomil.manifest import ModelManifest
from napari_histomil.results import FeatureStore
from napari_histomil.results.bag import Bag
from napari_histomil.results.mil import MilLevel
from napari_histomil.tiling import GridSpec, TileGrid, children_a_side, morton

Indices = NDArray[np.int64]


def feature_job(job: Job, encoder: ModelManifest, level: int) -> Job:
    """Return the job of one magnification's features, of all tiles in the region.

    Above the lowest these are all children of its tiles, as with `plan_job`'s `within`.
    """
    grids = job.grids[:1] if level == 0 else (job.grids[level], job.grids[0])
    return _embedding(job, encoder, grids)


def finer_job(job: Job, encoder: ModelManifest) -> Job:
    """Return the job of features at the stride of the finer map."""
    last = job.grids[-1]
    return _embedding(job, encoder, (replace(last, stride_px=last.stride_px // job.mil.finer),))


def chosen_job(job: Job, encoder: ModelManifest, level: int, parents: TileGrid) -> Job:
    """Return the job of a magnification's features within some tiles of the one below."""
    boxes = parents.cell_rects_px0
    low, high = boxes[:, :2].tolist(), (boxes[:, :2] + boxes[:, 2:]).tolist()
    polygons = tuple(
        f"POLYGON (({x0!r} {y0!r}, {x1!r} {y0!r}, {x1!r} {y1!r}, {x0!r} {y1!r}, {x0!r} {y0!r}))"
        for (x0, y0), (x1, y1) in zip(low, high, strict=True)
    )
    # Cells that only touch one of these have none of it, but for rounding.
    region = RegionSpec("polygons", polygons_wkt=polygons, min_fraction=0.5)
    return replace(_embedding(job, encoder, (job.grids[level], parents.spec)), region=region)


def _embedding(job: Job, encoder: ModelManifest, grids: tuple[GridSpec, ...]) -> Job:
    stain = encoder.stain if job.stain.method == "none" else job.stain.method
    return replace(
        job,
        model=ModelRef(encoder.name, encoder.path, encoder.sha256),
        task="embed",
        grids=grids,
        stain=StainSpec(stain, job.stain.condition),
        mil=MilSpec(),
    )


@dataclass(slots=True)
class ZoomBag:
    """Nested tiles of which those of higher magnifications are looked for as they are asked for.

    Row ``i`` of a level has the rows ``i * r`` to ``i * r + r - 1`` of the next, whether their
    features are there or not, as in a bag that has all.
    """

    lowest: Bag
    """The lowest magnification, by itself."""
    grids: tuple[GridSpec, ...]
    device: torch.device
    _stores: dict[int, _Rows] = field(default_factory=dict)

    def add(self, level: int, store: FeatureStore) -> None:
        """Take the features of some or all tiles of a higher magnification."""
        codes = morton(store.grid.cells)
        order = np.argsort(codes, kind="stable")
        self._stores[level] = _Rows(store, codes[order], order)

    def children(self, level: int, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return features [M, D] and rows [M] of all children of some tiles, see `ZoomMIL`.

        Raises
        ------
        Missing
            If they are not there.
        RunError
            If all of these tiles lie beyond the slide, where nothing is.
        """
        chosen = rows.cpu().numpy().astype(np.int64)
        chosen = chosen[self.tiles(level, chosen).visible_fraction > 0]
        if not len(chosen):
            raise RunError(
                f"All the patches of {self.lowest.slide.name} that the model zooms into lie "
                f"beyond its edge: its lowest magnification is too coarse for so small a slide."
            )
        index = self._children_of(level, chosen)
        there = self._stores.get(level + 1)
        places = None if there is None else there.places(self.tiles(level + 1, index).cells)
        if there is None or places is None:
            raise Missing(level, chosen)
        features = np.nan_to_num(there.store.read(places), nan=0.0)
        return tensor_of(features, self.device), torch.from_numpy(index).to(rows.device)

    def tiles(self, level: int, rows: Indices) -> TileGrid:
        """Return the tiles that rows of a level are."""
        grid = self.lowest.levels[0].grid
        assert grid is not None  # it is one of ours
        return replace(grid, spec=self.grids[level], cells=self._cells(level, rows))

    def count(self, level: int) -> int:
        """Return how many tiles a level has, looked at or not."""
        sides = (children_a_side(*self.grids[i : i + 2]) for i in range(level))
        return len(self.lowest.levels[0]) * math.prod(side**2 for side in sides)

    def level(self, level: int, rows: Indices) -> MilLevel:
        """Return some tiles of a level as a run keeps them."""
        grid = self.tiles(level, rows)
        return MilLevel(
            grid.tile_rects_px0[:, :2], grid.tile_size_px0, grid.spec.mpp, grid, self.count(level)
        )

    def _cells(self, level: int, rows: Indices) -> NDArray[np.int32]:
        if level == 0:
            grid = self.lowest.levels[0].grid
            assert grid is not None
            return grid.cells[rows]
        sides = children_a_side(*self.grids[level - 1 : level + 1])
        inside = np.indices((sides, sides), dtype=np.int32).reshape(2, -1).T
        inside = inside[np.argsort(morton(inside), kind="stable")]
        parents = self._cells(level - 1, rows // len(inside))
        return np.asarray(parents * np.int32(sides) + inside[rows % len(inside)], np.int32)

    def _children_of(self, level: int, rows: Indices) -> Indices:
        each = children_a_side(*self.grids[level : level + 2]) ** 2
        return np.asarray((rows[:, None] * each + np.arange(each)).ravel(), np.int64)


@dataclass(frozen=True, slots=True)
class _Rows:
    """Where in a store the tile of a cell is."""

    store: FeatureStore
    codes: NDArray[np.uint64]
    order: NDArray[Any]

    def places(self, cells: NDArray[np.int32]) -> Indices | None:
        """Return the row of each cell; None if some are not there."""
        codes = morton(cells)
        at = np.minimum(np.searchsorted(self.codes, codes), len(self.codes) - 1)
        if (self.codes[at] != codes).any():
            return None
        return np.asarray(self.order[at], np.int64)


def examined(bag: ZoomBag, rows_of: Sequence[Sequence[Indices]]) -> list[Indices]:
    """Return which rows of each level were looked at, all of the lowest; growing.

    Parameters
    ----------
    bag
        The bag.
    rows_of
        Of each level the rows that maps and contributions are about.
    """
    found = [np.arange(len(bag.lowest.levels[0]))]
    for rows in rows_of[1:]:
        found.append(np.unique(np.concatenate(rows)) if rows else np.empty(0, np.int64))
    return found
