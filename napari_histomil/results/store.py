"""A patch classifier's run on disk: scores, done flags, and what made them, in one Zarr v3 group.

====================  ===================================================================
``scores``            float32 [N, C], one chunk a block of 64 tiles, NaN where not done,
                      each chunk with its CRC-32C
``done``              bool [B], one flag a block
``cells``             int32 [N, 2], (row, column) of each tile's cell, in Morton order
attribute             ``schema_version``, ``run_id``, ``created``, ``job``, ``slide``,
``histomil``          ``model``, ``classes``, ``grid``, ``stain``, ``sessions``,
                      ``warnings``, ``skipped``
====================  ===================================================================

How blocks are written, flagged and mended is in `blocks.py`. There is one writer at a time
(`lock.py`), and any number of readers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import zarr
from numpy.typing import NDArray

from napari_histomil.lock import WriterLock
from napari_histomil.manifest import ClassSpec
from napari_histomil.results.blocks import BlockRun
from napari_histomil.results.layout import check_shapes, make_scores
from napari_histomil.tiling import TileGrid


class RunStore(BlockRun):
    """A run of a patch classifier: the scores of its tiles, all of them in memory."""

    TASK: ClassVar[str] = "classify"
    ARRAY: ClassVar[str] = "scores"

    def __init__(self, path: Path, group: zarr.Group, lock: WriterLock | None) -> None:
        super().__init__(path, group, lock)
        self._scores = np.full((len(self.grid), len(self.classes)), np.nan, np.float32)
        check_shapes(group, {"scores": self._scores.shape, "done": self._done.shape})

    @classmethod
    def _fill(
        cls,
        group: zarr.Group,
        grid: TileGrid,
        classes: Sequence[ClassSpec],
        slide: Mapping[str, Any],
        model: Mapping[str, Any],
    ) -> None:
        make_scores(group, grid, len(classes))

    @property
    def scores(self) -> NDArray[np.float32]:
        """float32 [N, C], a copy; NaN where not done, and in skipped tiles."""
        self.refresh()
        return self._scores.copy()

    def _take(self, tiles: slice, values: Any) -> None:
        self._scores[tiles] = values[tiles]

    def _keep(self, tiles: slice, values: NDArray[Any]) -> None:
        self._scores[tiles] = values
