"""A run whose tiles are answered block by block: numbers of each tile, and a flag each block.

What the numbers are is a matter of the classes below: scores (`store.py`) or features
(`features.py`). A block's numbers are written first, its flag after, each file whole or not at
all (Zarr, from 3.1.3 on, writes to a temporary sibling and renames); so a process killed at any
byte loses the blocks that had no flag yet and nothing else.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import zarr
from numpy.typing import NDArray

from napari_histomil.lock import WriterLock
from napari_histomil.results.folder import RunFolder
from napari_histomil.results.layout import spans
from napari_histomil.tiling import BLOCK_TILES


class BlockRun(RunFolder):
    """A run with an array of one row a tile, one chunk a block.

    Reading is safe from several threads, and `refresh` sees what another process has written
    since.
    """

    ARRAY: ClassVar[str]
    """Name of the array."""

    def __init__(self, path: Path, group: zarr.Group, lock: WriterLock | None) -> None:
        super().__init__(path, group, lock)
        self._mutex = threading.Lock()
        self._done = np.zeros(-(-len(self.grid) // BLOCK_TILES), bool)  # [B]

    # ------------------------------------------------------------------------- reading

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
                values = self._array(self.ARRAY)
                for tiles in spans(done & ~self._done, len(self.grid)):
                    self._take(tiles, values)
                self._done = done
            except (KeyError, TypeError, ValueError, OSError) as error:
                raise self._damaged(error) from error

    def _take(self, tiles: slice, values: Any) -> None:
        """Take in what is newly on disk of these tiles; nothing by default."""

    def _keep(self, tiles: slice, values: NDArray[Any]) -> None:
        """Take in what was just written of these tiles; nothing by default."""

    # ------------------------------------------------------------------------- writing

    def write_block(self, index: int, values: NDArray[np.float32]) -> None:
        """Store the numbers [n, C] of one block; see `write_blocks`."""
        self.write_blocks({index: values})

    def write_blocks(
        self,
        blocks: Mapping[int, NDArray[np.float32]],
        *,
        skipped: Mapping[int, str] | None = None,
    ) -> None:
        """Store the numbers of finished blocks, and flag them done when all are on disk.

        Parameters
        ----------
        blocks
            Index of a block -> its numbers [n, C], n = 64 but for the last block.
        skipped
            Index of a tile in these blocks that failed (NaN in its numbers) -> why.

        Raises
        ------
        OutputError
            If the disk takes no more.
        RunError
            If somebody has deleted the run meanwhile.
        """
        with self._writing():
            array = self._array(self.ARRAY)
            todo = np.zeros(len(self._done), bool)
            todo[list(blocks)] = True
            for tiles in spans(todo, len(self.grid)):  # neighbours in one go: quicker by half
                first, last = tiles.start // BLOCK_TILES, -(-tiles.stop // BLOCK_TILES)
                parts = [np.asarray(blocks[index], array.dtype) for index in range(first, last)]
                array[tiles] = np.concatenate(parts)
            self._add_skipped(skipped)
            done = self._done | todo
            self._array("done")[:] = done
        with self._mutex:
            for index, values in blocks.items():
                self._keep(self._tiles(index), values)
            self._done = done

    def _tiles(self, index: int) -> slice:
        return slice(index * BLOCK_TILES, min((index + 1) * BLOCK_TILES, len(self.grid)))

    def _mend(self) -> None:
        """Take the flag from blocks whose numbers cannot be read or are NaN without a reason."""
        flags = self._array("done")
        done = np.asarray(flags[:], bool)
        array, skipped = self._array(self.ARRAY), self.skipped
        for index in np.flatnonzero(done):
            tiles = self._tiles(int(index))
            try:
                values = np.asarray(array[tiles])
            except (ValueError, OSError):
                done[index] = False
                continue
            missing = np.flatnonzero(np.isnan(values).any(axis=1)) + tiles.start
            done[index] = all(int(tile) in skipped for tile in missing)
        if not np.array_equal(done, flags[:]):
            flags[:] = done
