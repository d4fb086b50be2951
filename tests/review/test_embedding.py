"""Features of many slides as points: components, neighbours, purity."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from napari_histomil.errors import RunError
from napari_histomil.review.embedding import has_umap, pca, umap
from napari_histomil.review.neighbours import nearest, purity
from napari_histomil.review.points import moments, points_of, unit_rows
from napari_histomil.review.tile_scores import TileScores


def cloud(count=9000, dim=12, seed=0):
    """Correlated features far from 0, one of them the same everywhere."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, dim)) @ rng.normal(size=(dim, dim)) + 100
    x[:, 3] = 7
    return x.astype(np.float32)


def slide(features, name="a", scores=None, truth=None):
    count = len(features)
    rects = np.column_stack(
        [np.arange(count) * 100.0, np.zeros((count, 1)), np.full((count, 2), 100)]
    )
    scores = np.linspace(0, 1, count) if scores is None else np.array(scores, float)
    return TileScores(
        Path(f"{name}.svs"), name * 64, rects, scores, "P(tumor)", "m", truth=truth,
        features=np.array(features, np.float32),
    )  # fmt: skip


def test_moments_are_those_of_numpy_whatever_the_offset():
    x = cloud() + np.float32(1000)
    mean, covariance = moments(x)
    np.testing.assert_allclose(mean, x.mean(axis=0, dtype=np.float64), rtol=1e-6)
    expected = np.cov(x.T.astype(np.float64), bias=True)
    np.testing.assert_allclose(covariance, expected, rtol=1e-3, atol=1e-3)


def test_components_are_those_of_scikit_learn():
    x = cloud()
    found = pca(x, 3)
    scaled = StandardScaler().fit_transform(x.astype(np.float64))
    expected = PCA(3, svd_solver="full").fit(scaled)
    np.testing.assert_allclose(found.shares, expected.explained_variance_ratio_, rtol=1e-4)
    theirs = expected.transform(scaled)
    for k in range(3):  # up to the sign
        assert abs(np.corrcoef(found.points[:, k], theirs[:, k])[0, 1]) > 0.99999
    np.testing.assert_allclose(found.points.std(axis=0), theirs.std(axis=0), rtol=1e-3)
    np.testing.assert_allclose(found.place(x[:5]), found.points[:5], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(pca(x, 3).points, found.points)
    with pytest.raises(RunError, match="cannot be laid out along 2 axes"):
        pca(x[:1])


def test_umap_that_is_not_there_is_a_sentence():
    if has_umap():
        pytest.skip("UMAP is installed")
    with pytest.raises(RunError, match="UMAP is not installed"):
        umap(cloud(100))


def test_points_are_the_tiles_with_features_of_all_slides():
    some = [[1, 2], [np.nan, 0], [3, 4], [5, 6]]
    one = slide(some, truth=np.array([0, 1, 1, np.nan]))
    two = slide([[7, 8]], "b", scores=[0.5])
    bare = TileScores(Path("c.svs"), "c", one.rects_px0, one.scores, "P", "m")
    points = points_of([one, bare, two])
    assert points.features.tolist() == [[1, 2], [3, 4], [5, 6], [7, 8]]
    assert (points.slide.tolist(), points.tile.tolist()) == ([0, 0, 0, 1], [0, 2, 3, 0])
    assert points.column("scores").tolist() == [0, 2 / 3, 1, 0.5]
    np.testing.assert_array_equal(points.column("truth"), [0, 1, np.nan, np.nan])
    assert points.rects_px0[:, 0].tolist() == [0, 200, 300, 0]
    thinned = points_of([one, two], most=3)
    assert (len(thinned), thinned.left_out) == (3, 2)
    with pytest.raises(RunError, match="no features of these slides"):
        points_of([bare])
    with pytest.raises(RunError, match="of different encoders"):
        points_of([one, slide([[1, 2, 3]], "b")])


def test_the_nearest_are_the_most_alike_and_oneself_first():
    x = cloud(500)
    units = unit_rows(x)
    np.testing.assert_allclose(np.linalg.norm(units, axis=1), 1, rtol=1e-5)
    rows, likeness = nearest(units, units[17], 5)
    assert rows[0] == 17
    assert likeness[0] == pytest.approx(1, abs=1e-5)
    scaled = StandardScaler().fit_transform(x.astype(np.float64))
    scaled /= np.linalg.norm(scaled, axis=1, keepdims=True)
    assert rows.tolist() == np.argsort(-(scaled @ scaled[17]))[:5].tolist()


def test_purity_is_1_where_features_are_the_slides_and_0_where_they_know_nothing_of_it():
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(4), 300)
    noise = rng.normal(size=(1200, 8))
    apart = noise * 0.1 + np.eye(8)[group] * 5
    pure = purity(unit_rows(apart), group)
    assert pure.number == pytest.approx(1, abs=1e-6)
    assert pure.by_chance == pytest.approx(299 / 1199)
    assert "cluster by group" in pure.words
    mixed = purity(unit_rows(noise), group)
    assert mixed.number < 0.05
    assert "hardly tell groups apart" in mixed.words
    assert purity(unit_rows(noise), group) == mixed
    with pytest.raises(RunError, match="of 1 group do not say"):
        purity(unit_rows(noise), np.zeros(1200))
