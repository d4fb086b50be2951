"""A run on disk: scores, done flags, and what made them, in one Zarr v3 group.

====================  ===================================================================
``scores``            float32 [N, C], one chunk a block of 64 tiles, NaN where not done,
                      each chunk with its CRC-32C
``done``              bool [B], one flag a block
``cells``             int32 [N, 2], (row, column) of each tile's cell, in Morton order
attribute             ``schema_version``, ``run_id``, ``created``, ``job``, ``slide``,
``histomil``          ``model``, ``classes``, ``grid``, ``stain``, ``sessions``,
                      ``warnings``, ``skipped``
====================  ===================================================================

A block's scores are written first, its flag after, each file whole or not at all (Zarr, from
3.1.3 on, writes to a temporary sibling and renames); so a process killed at any byte loses the
blocks that had no flag yet and nothing else. There is one writer at a time (`lock.py`), and any
number of readers.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import zarr
from numpy.typing import NDArray

from napari_histomil.lock import WriterLock
from napari_histomil.manifest import ClassSpec
from napari_histomil.results.folder import RunFolder
from napari_histomil.results.layout import check_shapes, make_scores, spans
from napari_histomil.tiling import BLOCK_TILES, TileGrid


class RunStore(RunFolder):
    """A run of a patch classifier: the scores of its tiles.

    Reading is safe from several threads, and `refresh` sees what another process has written
    since.
    """

    TASK: ClassVar[str] = "classify"

    def __init__(self, path: Path, group: zarr.Group, lock: WriterLock | None) -> None:
        super().__init__(path, group, lock)
        self._mutex = threading.Lock()
        blocks = -(-len(self.grid) // BLOCK_TILES)
        self._done = np.zeros(blocks, bool)  # [B], blocks whose scores are in _scores
        self._scores = np.full((len(self.grid), len(self.classes)), np.nan, np.float32)
        check_shapes(group, self._scores.shape, blocks)

    @classmethod
    def _fill(
        cls,
        group: zarr.Group,
        grid: TileGrid,
        classes: Sequence[ClassSpec],
        slide: Mapping[str, Any],
    ) -> None:
        make_scores(group, grid, len(classes))

    # ------------------------------------------------------------------------- reading

    @property
    def scores(self) -> NDArray[np.float32]:
        """float32 [N, C], a copy; NaN where not done, and in skipped tiles."""
        self.refresh()
        return self._scores.copy()

    @property
    def done_blocks(self) -> NDArray[np.bool_]:
        """Bool [B], a copy."""
        self.refresh()
        return self._done.copy()

    @property
    def done_tiles(self) -> NDArray[np.bool_]:
        """Bool [N]: tiles of the blocks that are done."""
        return np.repeat(self.done_blocks, BLOCK_TILES)[: len(self.grid)]

    @property
    def complete(self) -> bool:
        """Whether every block is done."""
        return bool(self.done_blocks.all())

    def _load(self) -> None:
        with self._mutex:
            try:
                done = np.asarray(self._array("done")[:], bool)
                scores = self._array("scores")
                for tiles in spans(done & ~self._done, len(self.grid)):
                    self._scores[tiles] = scores[tiles]
                self._done = done
            except (KeyError, TypeError, ValueError, OSError) as error:
                raise self._damaged(error) from error

    # ------------------------------------------------------------------------- writing

    def write_block(self, index: int, scores: NDArray[np.float32]) -> None:
        """Store the scores [n, C] of one block; see `write_blocks`."""
        self.write_blocks({index: scores})

    def write_blocks(
        self,
        blocks: Mapping[int, NDArray[np.float32]],
        *,
        skipped: Mapping[int, str] | None = None,
    ) -> None:
        """Store the scores of finished blocks, and flag them done when all are on disk.

        Parameters
        ----------
        blocks
            Index of a block -> its scores [n, C], n = 64 but for the last block.
        skipped
            Index of a tile in these blocks that failed (NaN in its scores) -> why.

        Raises
        ------
        OutputError
            If the disk takes no more.
        RunError
            If somebody has deleted the run meanwhile.
        """
        with self._writing():
            scores = self._array("scores")
            todo = np.zeros(len(self._done), bool)
            todo[list(blocks)] = True
            for tiles in spans(todo, len(self.grid)):  # neighbours in one go: quicker by half
                first, last = tiles.start // BLOCK_TILES, -(-tiles.stop // BLOCK_TILES)
                parts = [np.asarray(blocks[index], np.float32) for index in range(first, last)]
                scores[tiles] = np.concatenate(parts)
            self._add_skipped(skipped)
            done = self._done | todo
            self._array("done")[:] = done
        with self._mutex:
            for index, values in blocks.items():
                self._scores[self._tiles(index)] = values
            self._done = done

    def _tiles(self, index: int) -> slice:
        return slice(index * BLOCK_TILES, min((index + 1) * BLOCK_TILES, len(self.grid)))

    def _mend(self) -> None:
        """Take the flag from blocks whose scores cannot be read or hold NaN without a reason."""
        flags = self._array("done")
        done = np.asarray(flags[:], bool)
        scores, skipped = self._array("scores"), self.skipped
        for index in np.flatnonzero(done):
            tiles = self._tiles(int(index))
            try:
                values = np.asarray(scores[tiles])
            except (ValueError, OSError):
                done[index] = False
                continue
            missing = np.flatnonzero(np.isnan(values).any(axis=1)) + tiles.start
            done[index] = all(int(tile) in skipped for tile in missing)
        if not np.array_equal(done, flags[:]):
            flags[:] = done
