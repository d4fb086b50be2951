"""What looking through results costs without a window: components of many features."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np

from napari_histomil.bench.figures import AT_MOST, Figure
from napari_histomil.review.embedding import pca

POINTS, DIM = 100_000, 512
PCA_LIMIT_S = 3.0


def measure_pca(
    *, rounds: int, points: int = POINTS, dim: int = DIM, say: Callable[[str], None] = print
) -> Figure:
    """Lay made features out along two components; the median of some rounds.

    Parameters
    ----------
    rounds
        How often.
    points, dim
        How many tiles, and features of each.
    say
        Told what goes on.
    """
    say(f"principal components of {points:,} x {dim} features ...")
    features = np.random.default_rng(0).standard_normal((points, dim), np.float32)
    times = []
    for each in range(rounds + 1):
        start = time.perf_counter()
        pca(features)
        if each:  # the first warms up
            times.append(time.perf_counter() - start)
    name = f"PCA of {points:,} x {dim} features"
    return Figure(name, statistics.median(times), AT_MOST, PCA_LIMIT_S, "s")
