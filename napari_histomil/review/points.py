"""Features of the tiles of many slides as one table, for an embedding and for neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_histomil.errors import RunError
from napari_histomil.review.tile_scores import TileScores

MOST_POINTS = 200_000
"""Of more tiles an even share of every slide is taken: 400 MB at 512 values a tile."""

ROWS = 8192
"""Rows that are worked on at once."""

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """Tiles with features, of one slide after the other."""

    features: NDArray[np.float32] = field(repr=False)
    """float32 [N, D]."""
    slide: NDArray[np.int32] = field(repr=False)
    """int32 [N]: which of the slides."""
    tile: NDArray[np.int64] = field(repr=False)
    """int64 [N]: which of the slide's tiles."""
    tiles: tuple[TileScores, ...] = field(repr=False)
    """The slides."""
    left_out: int = 0
    """Tiles with features that were not taken, because there are too many."""

    def __len__(self) -> int:
        return len(self.features)

    def column(self, name: str) -> NDArray[np.float64]:
        """Return the ``scores`` or the ``truth`` of each point, float64 [N]; NaN for unknown."""
        found = np.full(len(self), np.nan)
        for n, each in enumerate(self.tiles):
            values = getattr(each, name)
            if values is not None:
                of = self.slide == n
                found[of] = values[self.tile[of]]
        return found

    @property
    def rects_px0(self) -> NDArray[np.float64]:
        """float64 [N, 4]: x, y, width, height of each point's tile, level-0 px."""
        rects = np.empty((len(self), 4))
        for n, each in enumerate(self.tiles):
            of = self.slide == n
            rects[of] = each.rects_px0[self.tile[of]]
        return rects


def points_of(tiles: Sequence[TileScores], *, most: int = MOST_POINTS) -> Points:
    """Read the features of the tiles of some slides.

    Parameters
    ----------
    tiles
        The slides; those without features are left out.
    most
        Points at most; of more every slide gives the same share, evenly spaced.

    Raises
    ------
    RunError
        If there are no features, or they are of encoders of different widths.
    """
    those = [each for each in tiles if each.features is not None]
    if not those:
        raise RunError(
            "There are no features of these slides: extract them first (histomil features, or the "
            "Run dock)."
        )
    dims = sorted({int(each.features.shape[1]) for each in those if each.features is not None})
    if len(dims) > 1:
        raise RunError(
            f"The features of these slides have {dims[0]} and {dims[-1]} values a tile: they are "
            f"of different encoders."
        )
    step = max(-(-sum(map(len, those)) // most), 1)
    parts, slides, numbers, left_out = [], [], [], 0
    for n, each in enumerate(those):
        assert each.features is not None
        wanted = np.arange(0, len(each), step)
        rows = np.asarray(each.features[wanted], np.float32)
        there = np.isfinite(rows).all(axis=1)
        parts.append(rows[there])
        slides.append(np.full(int(there.sum()), n, np.int32))
        numbers.append(wanted[there])
        left_out += len(each) - len(wanted)
    return Points(
        np.concatenate(parts),
        np.concatenate(slides),
        np.concatenate(numbers),
        tuple(those),
        left_out,
    )


def moments(features: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean [D] and covariance [D, D] of features [N, D], a few rows at a time."""
    count, dim = features.shape
    if not count:
        raise RunError("There are no features to look at.")
    # around the first rows' mean, where float32 products lose nothing that counts
    shift = features[:ROWS].mean(axis=0, dtype=np.float64).astype(np.float32)
    total, products = np.zeros(dim), np.zeros((dim, dim))
    for start in range(0, count, ROWS):
        rows = features[start : start + ROWS] - shift
        total += rows.sum(axis=0, dtype=np.float64)
        products += rows.T @ rows
    mean = total / count
    return shift + mean, products / count - np.outer(mean, mean)


def scales_of(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what each feature is multiplied by to be spread by 1, [D]; 0 for a constant one."""
    spread = np.sqrt(np.clip(np.diag(covariance), 0, None))
    tiny = 1e-6 * spread.max(initial=0.0)
    return np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > tiny)


def unit_rows(features: Floats) -> NDArray[np.float32]:
    """Return features, each spread by 1 around 0, as rows of length 1: float32 [N, D].

    The product of two rows is their likeness, from -1 to 1.
    """
    mean, covariance = moments(features)
    scales = scales_of(covariance).astype(np.float32)
    rows = np.empty(features.shape, np.float32)
    for start in range(0, len(rows), ROWS):
        part = (features[start : start + ROWS] - mean.astype(np.float32)) * scales
        length = np.linalg.norm(part, axis=1, keepdims=True)
        rows[start : start + ROWS] = part / np.maximum(length, np.float32(1e-12))
    return rows
