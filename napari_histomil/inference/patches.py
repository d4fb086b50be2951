"""Patch classifiers: one go at a run of scores."""

from __future__ import annotations

import numpy as np

from napari_histomil.inference.blocks import BlockSession
from napari_histomil.results import RunStore

CONSTANT = 1e-6


class PatchSession(BlockSession[RunStore]):
    """One go at a run of a patch classifier."""

    def _warning(self) -> str | None:
        scores = self.store.scores
        scores = scores[np.isfinite(scores).all(axis=1)]
        if (
            self.store.done_blocks.sum() > 1
            and len(scores)
            and np.ptp(scores, axis=0).max() <= CONSTANT
        ):
            return (
                f"{self.model.name} gives every one of {len(scores)} tiles the same answer: it "
                f"does not work on this slide, or its weights are broken."
            )
        return None
