"""Features of tiles as points of a plane: PCA at once, UMAP where it is installed.

How the plane is coloured and drawn is a matter of the window.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_histomil.errors import RunError
from napari_histomil.review.points import ROWS, moments, scales_of

Floats = NDArray[np.floating[Any]]

UMAP_NEIGHBOURS, UMAP_DIM = 15, 50
"""UMAP looks at the nearest 15 in the first 50 principal components."""


@dataclass(frozen=True, slots=True, eq=False)
class Pca:
    """Principal components of standardised features."""

    points: NDArray[np.float32] = field(repr=False)
    """float32 [N, K]: each tile along each component."""
    shares: NDArray[np.float64]
    """float64 [K]: how much of the spread of all features each component holds."""
    mean: NDArray[np.float64] = field(repr=False)
    """float64 [D] of the features."""
    axes: NDArray[np.float64] = field(repr=False)
    """float64 [D, K]: points are (features - mean) @ axes."""

    def place(self, features: Floats) -> NDArray[np.float32]:
        """Return where other features [M, D] of the same encoder lie, float32 [M, K]."""
        axes, mean = self.axes.astype(np.float32), self.mean.astype(np.float32)
        return np.asarray((np.asarray(features, np.float32) - mean) @ axes, np.float32)


def pca(features: Floats, components: int = 2) -> Pca:
    """Return the principal components of features, each spread by 1 before.

    By the covariance of the features, of which there are few, in one pass over the tiles; the sign
    of a component is such that its largest share of a feature is positive.

    Parameters
    ----------
    features
        [N, D].
    components
        How many.

    Raises
    ------
    RunError
        If there are fewer tiles or features than components.
    """
    count, dim = features.shape
    if min(count, dim) < components:
        raise RunError(
            f"{count} tiles with {dim} features each cannot be laid out along {components} axes."
        )
    mean, covariance = moments(features)
    scales = scales_of(covariance)
    values, vectors = np.linalg.eigh(covariance * np.outer(scales, scales))
    vectors = vectors[:, ::-1][:, :components]
    largest = np.abs(vectors).argmax(axis=0)
    vectors = vectors * np.sign(vectors[largest, np.arange(components)])
    spread = values[::-1][:components].clip(0)
    total = float(values.clip(0).sum())
    found = Pca(
        np.empty((count, components), np.float32),
        spread / total if total else np.zeros(components),
        mean,
        vectors * scales[:, None],
    )
    for start in range(0, count, ROWS):
        found.points[start : start + ROWS] = found.place(features[start : start + ROWS])
    return found


def has_umap() -> bool:
    """Return whether UMAP is installed."""
    return find_spec("umap") is not None


def umap(features: Floats, *, neighbours: int = UMAP_NEIGHBOURS, seed: int = 0) -> Floats:
    """Return UMAP's layout of features, float32 [N, 2]; the same for the same seed.

    It keeps who is near whom, and neither distances between groups nor their sizes [1]_. Minutes
    for 100,000 tiles: for a thread.

    Parameters
    ----------
    features
        [N, D].
    neighbours
        How many each tile is held to.
    seed
        Of what is random.

    Raises
    ------
    RunError
        If UMAP is not installed, or there are fewer tiles than neighbours.

    References
    ----------
    .. [1] McInnes, L., Healy, J. and Melville, J. (2018). UMAP: Uniform manifold approximation and
       projection for dimension reduction. arXiv:1802.03426.
    """
    if not has_umap():
        raise RunError(
            'UMAP is not installed: pip install "napari-histomil[umap]", or use the principal '
            "components."
        )
    if len(features) <= neighbours:
        raise RunError(f"UMAP needs more than {neighbours} tiles, and there are {len(features)}.")
    reduced = pca(features, min(UMAP_DIM, *features.shape)).points
    layout = import_module("umap").UMAP(
        n_components=2, n_neighbors=neighbours, random_state=seed, n_jobs=1
    )
    return np.asarray(layout.fit_transform(reduced), np.float32)
