"""An encoder's run on disk: one embedding a tile, in one Zarr v3 group.

====================  ===================================================================
``features``          float16 [N, D], one chunk a block of 64 tiles, NaN where not done,
                      each chunk with its CRC-32C
``done``, ``cells``   as of a classifier's run (`store.py`)
attribute             the same but no classes; ``model.embedding_dim`` is D
====================  ===================================================================

Features stay on disk: what is asked for is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import zarr
from numpy.typing import NDArray

from napari_histomil.errors import RunError
from napari_histomil.lock import WriterLock
from napari_histomil.manifest import ClassSpec
from napari_histomil.results.blocks import BlockRun
from napari_histomil.results.layout import check_shapes, make_rows
from napari_histomil.tiling import TileGrid

LARGEST = float(np.finfo(np.float16).max)


class FeatureStore(BlockRun):
    """A run of an encoder: the features of its tiles, read as they are asked for."""

    TASK: ClassVar[str] = "embed"
    ARRAY: ClassVar[str] = "features"

    def __init__(self, path: Path, group: zarr.Group, lock: WriterLock | None) -> None:
        super().__init__(path, group, lock)
        shape = len(self.grid), int(self._attributes["model"]["embedding_dim"])
        check_shapes(group, {"features": shape, "done": self._done.shape})

    @classmethod
    def _fill(
        cls,
        group: zarr.Group,
        grid: TileGrid,
        classes: Sequence[ClassSpec],
        slide: Mapping[str, Any],
        model: Mapping[str, Any],
    ) -> None:
        make_rows(group, "features", (len(grid), int(model["embedding_dim"])), "float16")

    @property
    def dim(self) -> int:
        """Number of values of an embedding."""
        return int(self._attributes["model"]["embedding_dim"])

    @property
    def tta(self) -> bool:
        """Whether a tile's features are the mean over its eight turns and flips."""
        return bool(self.job.get("tta", False))

    @property
    def known_tiles(self) -> NDArray[np.int64]:
        """int64 [M]: indices of the tiles that have features: done, and not skipped."""
        done = self.done_tiles
        done[[tile for tile in self.skipped if tile < len(done)]] = False
        return np.flatnonzero(done)

    def read(self, tiles: slice | NDArray[np.int64]) -> NDArray[np.float16]:
        """Return the features [n, D] of some tiles; NaN where not done, and in skipped tiles.

        Raises
        ------
        RunError
            If what is on disk does not pass its check.
        """
        try:
            array = self._array("features")
            if isinstance(tiles, slice):
                return np.asarray(array[tiles], np.float16)
            return np.asarray(array.oindex[tiles, :], np.float16)
        except (KeyError, TypeError, ValueError, OSError) as error:
            raise self._damaged(error) from error

    @property
    def features(self) -> NDArray[np.float16]:
        """float16 [N, D], all of them; NaN where not done, and in skipped tiles."""
        self.refresh()
        return self.read(slice(None))

    def write_blocks(
        self,
        blocks: Mapping[int, NDArray[np.float32]],
        *,
        skipped: Mapping[int, str] | None = None,
    ) -> None:
        """Store the features of finished blocks; as `BlockRun.write_blocks`.

        Raises
        ------
        RunError
            Also if a value is too large for float16.
        """
        for values in blocks.values():
            largest = float(np.nanmax(np.abs(values), initial=0.0))
            if largest > LARGEST:
                raise RunError(
                    f"The model {self.model['name']} gives features of up to {largest:.3g}, and "
                    f"they are kept as float16, which ends at {LARGEST:.0f}: scale its last layer."
                )
        super().write_blocks(blocks, skipped=skipped)
