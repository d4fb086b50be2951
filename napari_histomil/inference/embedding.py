"""Encoders: one go at a run of features."""

from __future__ import annotations

import numpy as np

from napari_histomil.inference.blocks import BlockSession
from napari_histomil.results import FeatureStore

SAMPLE = 512
"""Tiles, spread over the run, that are looked at for what is odd: all may not fit into memory."""


class EmbedSession(BlockSession[FeatureStore]):
    """One go at a run of an encoder."""

    def _warning(self) -> str | None:
        known = self.store.known_tiles
        if len(known) < 2:
            return None
        some = known[np.unique(np.linspace(0, len(known) - 1, SAMPLE).astype(np.int64))]
        features = self.store.read(some)
        if np.ptp(features, axis=0).max() > 0:
            return None
        return (
            f"{self.model.name} gives {len(some)} tiles of the slide the same features: its "
            f"weights are broken, or the slide is blank."
        )
