"""Scores against scikit-learn, intervals against drawing by hand, what has no value says why."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from shapely.geometry import box
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve
from truth_runs import drawn, grid_over, picture_run, tile_run

from napari_histomil.errors import RunError
from napari_histomil.review import calibration
from napari_histomil.review.intervals import interval, stratified_draws
from napari_histomil.review.operating import count_all, operating_points
from napari_histomil.review.ranking import auroc
from napari_histomil.review.scored import (
    Scored,
    join,
    positive_scores,
    score_picture,
    score_slides,
    score_tile_pixels,
    score_tiles,
)
from napari_histomil.review.scoring import MOST_SCORES, draw, resample, score
from napari_histomil.review.truth import tile_truth
from napari_histomil.review.truth_sources import RegionTruth

GRID = grid_over(160, 96)
REGIONS = [
    drawn(box(0, 0, 160, 96), "Region*"),
    drawn(box(0, 0, 80, 32), "Tumor"),  # two cells and a half
    drawn(box(0, 32, 1, 64), "Tumor"),  # a thirty-second: no mixed tile
]


def some(count=300, patients=12, *, weights=False, decimals=2, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.random(count) < 0.3
    p = np.round(1 / (1 + np.exp(-rng.normal(2 * truth - 1, 1.5))), decimals)
    group = rng.integers(patients, size=count).astype(str)
    if not weights:
        return Scored("tile", p, truth.astype(float), 1.0 - truth, group)
    counts = rng.integers(0, 9, (2, count)).astype(float)
    return Scored("pixel", p, counts[0], counts[1], group)


def rows(cases):
    """Cases one by one: truth, probability."""
    times = np.concatenate([cases.positive, cases.negative]).astype(int)
    return (
        np.repeat(np.r_[np.ones(len(cases), bool), np.zeros(len(cases), bool)], times),
        np.repeat(np.r_[cases.score, cases.score], times),
    )


@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize("threshold", [0.5, 0.21])
def test_every_score_is_that_of_scikit_learn(weights: bool, threshold: float) -> None:
    cases = some(weights=weights)
    truth, p = rows(cases)
    called = p >= threshold
    found = score(cases, threshold=threshold, rounds=20)
    expected = {
        "accuracy": sk.accuracy_score(truth, called),
        "balanced_accuracy": sk.balanced_accuracy_score(truth, called),
        "precision": sk.precision_score(truth, called),
        "recall": sk.recall_score(truth, called),
        "specificity": sk.recall_score(~truth, ~called),
        "f1": sk.f1_score(truth, called),
        "iou": sk.jaccard_score(truth, called),
        "kappa": sk.cohen_kappa_score(truth, called),
        "auroc": sk.roc_auc_score(truth, p),
        "average_precision": sk.average_precision_score(truth, p),
    }
    assert {n: f.value for n, f in found.figures.items()} == pytest.approx(expected)
    assert (
        found.confusion.counts[::-1, ::-1].tolist() == sk.confusion_matrix(truth, called).tolist()
    )
    said = found.calibration
    assert said["brier"] == pytest.approx(sk.brier_score_loss(truth, p))
    counts = np.bincount(np.searchsorted(calibration.equal_width()[1:-1], p), minlength=15)
    observed, mean = calibration_curve(truth, p, n_bins=15)
    full = [b for b in said["curve"] if b["count"]]
    np.testing.assert_allclose([b["observed"] for b in full], observed)
    np.testing.assert_allclose([b["mean"] for b in full], mean)
    share = counts[counts > 0] / counts.sum()
    assert said["ece_width"] == pytest.approx((share * abs(observed - mean)).sum())
    assert sum(b["count"] for b in said["mass_bins"]) == len(truth)
    # bins of equal mass, of cases one by one: the same edges
    edges = calibration.equal_mass(p)
    assert [b["low"] for b in said["mass_bins"]] == pytest.approx(edges[:-1].tolist())
    assert "12 independent patients" in said["note"]
    assert (found.cases, found.positive) == (len(truth), truth.sum())


def test_curves_are_those_of_scikit_learn() -> None:
    cases = some()
    truth, p = rows(cases)
    counts = cases.counts()
    fpr, tpr, _ = sk.roc_curve(truth, p, drop_intermediate=False)
    np.testing.assert_allclose(counts.roc, (fpr, tpr))
    precision, recall, _ = sk.precision_recall_curve(truth, p)
    np.testing.assert_allclose(counts.precision_recall, (recall[-2::-1], precision[-2::-1]))


def test_counts_at_any_threshold_and_named_ones() -> None:
    counts = count_all(
        np.array([0.1, 0.4, 0.4, 0.8, -np.inf]),
        np.array([0.0, 1, 0, 1, 1]),
        np.array([1.0, 0, 1, 0, 0]),
    )
    assert counts.at(0.4) == (2, 1, 1, 1)
    assert counts.at(0.41) == (1, 0, 2, 2)
    assert counts.at(0.0) == (2, 2, 1, 0)
    assert counts.at(0.9) == (0, 0, 3, 2)
    points = {p.name: p for p in operating_points(counts)}
    # at 0.8: 1/3 + 1, at 0.4: 2/3 + 1/2, at 0.1: 2/3 + 0
    assert points["Youden"].threshold == 0.8
    assert list(points) == ["Youden"]  # 95 % of the positive are never found: one was not seen
    cases = some(decimals=8)
    truth, p = rows(cases)
    named = {each.name: each for each in operating_points(cases.counts())}
    fpr, tpr, at = sk.roc_curve(truth, p, drop_intermediate=False)
    assert named["Youden"].threshold == at[np.argmax(tpr - fpr)]
    assert named["sensitivity 95%"].threshold == at[np.argmax(tpr >= 0.95)]
    assert named["sensitivity 95%"].specificity == pytest.approx(1 - fpr[np.argmax(tpr >= 0.95)])


def test_an_interval_is_that_of_drawing_patients_one_by_one() -> None:
    cases = some(60, 5, seed=4)
    drawn_ = draw(cases, 25)
    found = resample(cases, 0.5, drawn_)
    names, index = np.unique(cases.patient, return_inverse=True)
    for row, times in enumerate(drawn_.times):
        own = np.concatenate([np.flatnonzero(index == g) for g in range(len(names))
                              for _ in range(int(times[g]))])  # fmt: skip
        truth, p = cases.positive[own] > 0, cases.score[own]
        assert found["auroc"][row] == pytest.approx(auroc(truth, p))
        assert found["f1"][row] == pytest.approx(sk.f1_score(truth, p >= 0.5))
        assert found["kappa"][row] == pytest.approx(sk.cohen_kappa_score(truth, p >= 0.5))
    figure = score(cases, rounds=25).figures["auroc"]
    assert (figure.low, figure.high) == pytest.approx(interval(found["auroc"]))


def test_many_different_scores_are_put_together_for_intervals_only() -> None:
    cases = some(6000, 6, decimals=12)
    assert len(np.unique(cases.score)) > MOST_SCORES
    times = draw(cases, 10)
    _, index = np.unique(cases.patient, return_inverse=True)
    rounds = resample(cases, 0.5, times)["auroc"]
    for row, drawn_ in zip(rounds, times.times, strict=True):
        own = np.repeat(np.arange(len(cases)), drawn_[index].astype(int))
        assert row == pytest.approx(auroc(cases.positive[own] > 0, cases.score[own]), abs=1e-3)


def test_patients_are_drawn_by_strata_and_again_where_a_side_is_missing() -> None:
    stratum = np.array([0, 0, 0, 1, 1])
    sides = np.array([[0, 3], [0, 0], [0, 0], [1, 0], [2, 0]], float)
    drawn_ = stratified_draws(stratum, sides, 200)
    assert (drawn_.times[:, :3].sum(axis=1) == 3).all()
    assert (drawn_.times[:, 3:].sum(axis=1) == 2).all()
    assert (drawn_.times @ sides > 0).all()
    # a round lacks the only one with negative cases with a chance of (2/3)^3: 8/19 a kept round
    assert 60 < drawn_.redrawn < 110
    one_side = stratified_draws(stratum, sides * [1, 0], 5)
    assert one_side.redrawn == 0
    np.testing.assert_array_equal(drawn_.times, stratified_draws(stratum, sides, 200).times)


def test_one_class_or_one_patient_says_why(tmp_path: Path) -> None:
    none = Scored("slide", np.array([0.2, 0.7]), np.zeros(2), np.ones(2), np.array(["a", "b"]))
    found = score(none, rounds=20)
    assert found.figures["auroc"].value is None
    assert "one side only" in found.figures["auroc"].reason
    assert found.figures["recall"].reason == "the truth has no positive"
    assert found.figures["accuracy"].value == 0.5
    assert found.points == ()
    alone = score(some(patients=1), rounds=20)
    assert alone.figures["auroc"].value is not None
    assert alone.figures["auroc"].low is None
    with pytest.raises(RunError, match="no answers"):
        join([])


def test_tiles_and_pixels_of_a_run_by_hand(tmp_path: Path) -> None:
    scores = np.zeros(15)
    scores[[0, 1, 3]] = 0.9, 0.4, 0.8
    scores[2] = np.nan  # the mixed tile could not be read
    run = tile_run(tmp_path, GRID, scores)
    truth = tile_truth(RegionTruth(REGIONS, "a"), run.grid, "Tumor")
    said = positive_scores(run, "tumor")
    tiles = score(score_tiles(said, truth, "p"), rounds=0)
    assert tiles.confusion.counts.tolist() == [[1, 1], [1, 11]]
    assert tiles.cases == 14
    pixels = score(score_tile_pixels(said, truth, "p"), rounds=0)
    cell = 32 * 32
    missed = cell + cell // 2 + 32  # the second cell, the half of the torn one, a strip
    assert pixels.confusion.counts.tolist() == [
        [cell, missed],
        [cell, 15 * cell - 2 * cell - missed],
    ]
    assert pixels.unseen == cell
    assert pixels.areas_mm2 == pytest.approx(
        {"judged": 15 * cell / 1e6, "positive": (cell + missed) / 1e6,
         "called": 2 * cell / 1e6, "both": cell / 1e6}
    )  # fmt: skip
    assert pixels.document()["areas_mm2"]["called"] == pytest.approx(2 * cell / 1e6)
    with pytest.raises(RunError, match="has no class x: it has normal, tumor"):
        positive_scores(run, "x")


def test_mixed_tiles_count_or_not(tmp_path: Path) -> None:
    run = tile_run(tmp_path, GRID, np.linspace(1, 0, 15))
    truth = tile_truth(RegionTruth(REGIONS, "a"), run.grid, "Tumor")
    said = positive_scores(run, "tumor")
    assert len(score_tiles(said, truth, "p")) == 15
    assert len(score_tiles(said, truth, "p", mixed=False)) == 14


def test_a_run_over_part_of_the_tissue_misses_what_it_left_out(tmp_path: Path) -> None:
    rest = GRID.select(np.arange(15) > 0)
    run = tile_run(tmp_path, rest, np.ones(14))
    truth = tile_truth(RegionTruth(REGIONS, "a"), run.grid, "Tumor")
    pixels = score(score_tile_pixels(positive_scores(run, "tumor"), truth, "p"), rounds=0)
    assert pixels.unseen == 32 * 32
    assert pixels.confusion.counts[0].tolist() == [1024 + 512 + 32, 1024]
    assert pixels.counts.at(-1e9)[0] == 1024 + 512 + 32


def test_pixels_of_a_segmentation(tmp_path: Path) -> None:
    p = np.full((96, 160), 0.25)
    p[:40, :60] = 0.75
    run = picture_run(tmp_path, GRID, p)
    cases = score_picture(run, RegionTruth(REGIONS, "a"), "tumor", "p")
    found = score(cases, rounds=0)
    assert found.confusion.counts.tolist() == [
        [60 * 32 + 8, 20 * 32 + 24],
        [40 * 60 - 60 * 32 - 8, 96 * 160 - 80 * 32 - 32 - (40 * 60 - 60 * 32 - 8)],
    ]
    assert found.case_um2 == 1
    assert cases.counts().thresholds == pytest.approx([0.25, 0.75], abs=0.002)


def test_slides_are_cases_too() -> None:
    cases = score_slides([0.9, 0.2, 0.6], [True, False, False], ["a", "b", "b"])
    found = score(cases, rounds=50)
    assert found.confusion.counts.tolist() == [[1, 0], [1, 1]]
    assert found.patients == 2
    assert found.figures["auroc"].value == 1
    assert not math.isnan(found.calibration["brier"])
