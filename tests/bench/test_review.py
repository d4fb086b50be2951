"""What the benchmark of galleries and embeddings measures, on little."""

from __future__ import annotations

from napari_histomil.bench.review import measure_pca


def test_components_are_timed_against_their_limit():
    told: list[str] = []
    figure = measure_pca(rounds=1, points=200, dim=8, say=told.append)
    assert (figure.name, figure.unit, figure.target) == ("PCA of 200 x 8 features", "s", 3.0)
    assert figure.value is not None
    assert figure.value > 0
    assert told == ["principal components of 200 x 8 features ..."]
