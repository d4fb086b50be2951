"""Several classes against scikit-learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from shapely.geometry import box
from sklearn import metrics as sk
from truth_runs import drawn, grid_over, tile_run

from napari_histomil.errors import RunError
from napari_histomil.review import calibration
from napari_histomil.review.class_scores import score_classes, tile_classes
from napari_histomil.review.truth import tile_truth
from napari_histomil.review.truth_sources import RegionTruth

GRADES = ("benign", "low", "medium", "high")


def test_scores_of_grades_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(2)
    truth = rng.integers(3, size=300)  # nobody has the highest: k is that of the list
    z = rng.normal(size=(300, 4)) + 1.5 * np.eye(4)[truth]
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    said = p.argmax(axis=1)
    found = score_classes(p, truth, GRADES, ordered=True)
    labels = [0, 1, 2, 3]
    assert (
        found.confusion.counts.tolist() == sk.confusion_matrix(truth, said, labels=labels).tolist()
    )
    assert found.accuracy.value == pytest.approx(sk.accuracy_score(truth, said))
    assert found.kappa.value == pytest.approx(sk.cohen_kappa_score(truth, said, labels=labels))
    assert found.weighted_kappa is not None
    assert found.weighted_kappa.value == pytest.approx(
        sk.cohen_kappa_score(truth, said, labels=labels, weights="quadratic")
    )
    assert [each.value for each in found.f1] == pytest.approx(
        sk.f1_score(truth, said, labels=labels, average=None, zero_division=0)
    )
    for k in range(3):
        assert found.auroc[k] == pytest.approx(sk.roc_auc_score(truth == k, p[:, k]))
    assert np.isnan(found.auroc[3])
    assert found.document()["auroc"][3] is None
    assert found.brier == pytest.approx(((p - np.eye(4)[truth]) ** 2).sum(axis=1).mean())
    # top label: the likeliest class and whether it is right, by bins of equal width
    top, right = p.max(axis=1), said == truth
    place = np.searchsorted(calibration.equal_width()[1:-1], top)
    gaps = [abs(top[place == b].mean() - right[place == b].mean()) * (place == b).sum()
            for b in np.unique(place)]  # fmt: skip
    assert found.ece_width == pytest.approx(sum(gaps) / 300)
    assert score_classes(p, truth, GRADES, ordered=False).weighted_kappa is None
    with pytest.raises(RunError, match="No tile"):
        score_classes(p[:0], truth[:0], GRADES, ordered=False)


def test_a_tile_is_of_the_class_that_has_most_of_it(tmp_path: Path) -> None:
    grid = grid_over(128, 32)
    regions = [
        drawn(box(0, 0, 128, 32), "Region*"),
        drawn(box(0, 0, 20, 32), "Tumor"),
        drawn(box(32, 0, 40, 32), "Tumor"),
        drawn(box(64, 0, 96, 32), "Stroma"),  # no class of the model
    ]
    run = tile_run(tmp_path, grid, [0.9, 0.2, 0.3, np.nan])
    truth = tile_truth(RegionTruth(regions, "a"), run.grid, "tumor")
    p, classes = tile_classes(run, truth)
    assert classes.tolist() == [1, 0]  # tumor, and what is none of the classes is normal
    np.testing.assert_allclose(p[:, 1], [0.9, 0.2], atol=1e-6)
