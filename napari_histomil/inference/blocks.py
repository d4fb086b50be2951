"""Answers of single tiles: the pieces of a block come together, and whole blocks are written.

What the answers are, and what in them is odd, is in `patches.py` and `embedding.py`.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from typing import TypeVar

import numpy as np

from napari_histomil.inference.job import Progress
from napari_histomil.inference.lanes import Answer
from napari_histomil.inference.plan import Near, Plan
from napari_histomil.inference.prefetch import Crew
from napari_histomil.inference.session import Session
from napari_histomil.results import FeatureStore, RunStore
from napari_histomil.tiling import BLOCK_TILES

WRITE_SECONDS = 0.1
"""Blocks that are done within this time are written together: each write costs the same."""


Store = TypeVar("Store", FeatureStore, RunStore)


class BlockSession(Session[Store]):
    """One go at a run that holds an answer of each tile."""

    def _pieces(self, batch: int, *, on_cpu: bool, near: Near | None) -> Plan:
        piece_tiles = min(batch, BLOCK_TILES) if on_cpu else BLOCK_TILES
        return Plan(self.store.grid, self.store.done_blocks, piece_tiles=piece_tiles, near=near)

    def _collect(self, crew: Crew[Answer], cancel: threading.Event) -> Iterator[Progress]:
        slices = list(self.store.grid.blocks())
        parts: dict[int, list[Answer]] = {}
        whole: dict[int, list[Answer]] = {}
        written = -math.inf
        while not cancel.is_set():
            try:
                answer = crew.take(timeout=WRITE_SECONDS)
            except TimeoutError:
                answer = None
                over = False
            else:
                over = answer is None
            while answer is not None:
                if answer.failed and self.on_error == "raise":
                    raise answer.failed[min(answer.failed)]
                block = answer.piece.block
                parts.setdefault(block, []).append(answer)
                tiles = slices[block].stop - slices[block].start
                if sum(a.piece.count for a in parts[block]) == tiles:
                    whole[block] = parts.pop(block)
                answer = crew.take_nowait()
            if whole and (over or time.perf_counter() - written >= WRITE_SECONDS):
                yield from self._write(whole, slices)
                whole, written = {}, time.perf_counter()
            if over:
                return

    def _write(self, blocks: dict[int, list[Answer]], slices: list[slice]) -> Iterator[Progress]:
        scores = {
            block: np.concatenate(
                [a.scores for a in sorted(answers, key=lambda a: a.piece.tiles.start)]
            )
            for block, answers in blocks.items()
        }
        skipped = {
            tile: str(error)
            for answers in blocks.values()
            for answer in answers
            for tile, error in answer.failed.items()
        }
        self.store.write_blocks(scores, skipped=skipped)
        for block in blocks:
            self.done += len(scores[block])
            yield self._progress(self.store.grid.bounding_rect_px0(slices[block]))
