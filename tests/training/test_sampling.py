"""What is drawn, counted."""

from __future__ import annotations

import numpy as np

from napari_histomil.training.fields import array_field
from napari_histomil.training.sampling import sampler


def test_sources_are_drawn_by_their_share() -> None:
    labels = np.zeros((4, 4), np.uint8)
    fields = [
        array_field(str(i), str(i), source, np.full((4, 4, 3), i, np.uint8), labels, mirrored=True)
        for i, source in enumerate(["many", "many", "few", "none"])
    ]
    rng = np.random.default_rng(0)
    shares = {"many": 0.75, "few": 0.25, "none": 0.0}
    source = sampler(fields, shares)
    drawn = [int(source.cut(2, rng)[0][0, 0, 0]) for _ in range(400)]
    assert set(drawn) == {0, 1, 2}
    assert 0.15 < drawn.count(2) / 400 < 0.35
