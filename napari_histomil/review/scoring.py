"""Scores of answers against a truth, each with its 95 % interval over patients.

One block of scores (`Scores`) is about one level: tiles, pixels or slides; pieces are scored in
`object_scores.py`. The arithmetic is that of `metrics.py`, `ranking.py` and `calibration.py`. A
score without a value says why. Intervals are those of a bootstrap that draws whole patients, those
with a positive case and those without apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_histomil.review import calibration, metrics
from napari_histomil.review.intervals import ROUNDS, Draws, interval, per_group, stratified_draws
from napari_histomil.review.metrics import Confusion, Score
from napari_histomil.review.operating import (
    Counts,
    OperatingPoint,
    operating_points,
    two_by_two,
)
from napari_histomil.review.ranking import auroc_of, average_precision_of
from napari_histomil.review.scored import Scored
from napari_histomil.review.truth import Floats

MOST_SCORES = 2048
"""Different scores that a bootstrap of areas tells apart: of more, neighbours are put together."""

MAX_VALUES = 2**22
"""Numbers of a bootstrap that are worked on at a time, 32 MB."""

FIGURES: Mapping[str, Callable[[Confusion], Score]] = {
    "accuracy": metrics.accuracy,
    "balanced_accuracy": metrics.balanced_accuracy,
    "precision": lambda c: metrics.precision(c, 0),
    "recall": lambda c: metrics.recall(c, 0),
    "specificity": lambda c: metrics.recall(c, 1),
    "f1": lambda c: metrics.f1(c, 0),
    "iou": lambda c: metrics.iou(c, 0),
    "kappa": metrics.kappa,
}
"""Figure of a 2 x 2 matrix, the positive class first. F1 is Dice, recall is sensitivity."""

TITLES: Mapping[str, str] = {
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "precision": "Precision",
    "recall": "Recall (sensitivity)",
    "specificity": "Specificity",
    "f1": "F1 (Dice)",
    "iou": "IoU",
    "kappa": "Cohen's kappa",
    "auroc": "AUROC",
    "average_precision": "Average precision",
    "brier": "Brier score",
    "ece_width": "ECE, 15 equal bins",
    "ece_mass": "ECE, bins of equal mass",
}
"""Name of each score for the person."""

ONE_SIDE = "the truth has cases of one side only"


@dataclass(frozen=True, slots=True)
class Figure:
    """A score with its interval."""

    value: float | None
    low: float | None = None
    high: float | None = None
    """95 % interval; None with fewer than two patients."""
    reason: str = ""
    """Why it has no value."""

    def __str__(self) -> str:
        if self.value is None:
            return "undefined"
        if self.low is None or self.high is None:
            return f"{self.value:.3f}"
        return f"{self.value:.3f} ({self.low:.3f}-{self.high:.3f})"


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """All that is said of one level."""

    level: str
    what: str
    """Which cases, in words: with mixed tiles, without, ..."""
    threshold: float
    cases: int
    positive: int
    unseen: int
    """Cases that the run has not looked at: called negative."""
    patients: int
    confusion: Confusion
    figures: Mapping[str, Figure]
    calibration: Mapping[str, Any]
    points: tuple[OperatingPoint, ...]
    counts: Counts = field(repr=False)
    case_um2: float
    """Area of a case, 0 where it has none."""
    rounds: int
    redrawn: int
    """Rounds of the bootstrap that were drawn again, as one side had no case."""

    def document(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        (tp, fn), (fp, tn) = self.confusion.counts.tolist()
        return {
            "level": self.level,
            "what": self.what,
            "threshold": self.threshold,
            "cases": self.cases,
            "positive": self.positive,
            "not_looked_at": self.unseen,
            "patients": self.patients,
            "confusion": {"tp": tp, "fp": fp, "fn": fn, "tn": tn},
            "figures": {name: asdict(figure) for name, figure in self.figures.items()},
            "calibration": dict(self.calibration),
            "operating_points": [asdict(point) for point in self.points],
            "bootstrap": {"rounds": self.rounds, "redrawn": self.redrawn},
            **({"areas_mm2": self.areas_mm2} if self.case_um2 else {}),
        }

    @property
    def areas_mm2(self) -> dict[str, float]:
        """Area that was judged, is positive, was called so, and both, in mm²."""
        tp, fp, fn, tn = self.counts.at(self.threshold)
        parts = {"judged": tp + fp + fn + tn, "positive": tp + fn, "called": tp + fp, "both": tp}
        return {name: count * self.case_um2 / 1e6 for name, count in parts.items()}


def score(
    cases: Scored, *, threshold: float = 0.5, rounds: int = ROUNDS, what: str = "all"
) -> Scores:
    """Score answers of one level.

    Parameters
    ----------
    cases
        Answers with their truth.
    threshold
        A case is called positive from this score on.
    rounds
        Of the bootstrap over patients.
    what
        Which cases they are, in words.
    """
    counts = cases.counts()
    drawn = draw(cases, rounds)
    resampled = resample(cases, threshold, drawn)
    confusion = counts.confusion(threshold)
    figures = {}
    for name, found in plain_figures(counts, threshold).items():
        figures[name] = _figure(found, resampled[name])
    seen = cases.seen
    total = cases.positive + cases.negative
    return Scores(
        level=cases.level,
        what=what,
        threshold=threshold,
        cases=round(float(total.sum())),
        positive=round(counts.positives),
        unseen=round(float(total[~seen].sum())),
        patients=cases.patients,
        confusion=confusion,
        figures=figures,
        calibration=calibrate(cases),
        points=operating_points(counts),
        counts=counts,
        case_um2=cases.case_um2,
        rounds=rounds,
        redrawn=drawn.redrawn,
    )


def plain_figures(counts: Counts, threshold: float) -> dict[str, Score]:
    """Return every figure at a threshold, the areas too, without intervals."""
    return figures_at(counts, threshold) | ranked_figures(counts)


def figures_at(counts: Counts, threshold: float) -> dict[str, Score]:
    """Return the figures that a threshold moves, those of `FIGURES`."""
    confusion = counts.confusion(threshold)
    return {name: formula(confusion) for name, formula in FIGURES.items()}


def ranked_figures(counts: Counts) -> dict[str, Score]:
    """Return the two areas: what depends on the order of scores only."""
    positive = (counts.true[:-1] - counts.true[1:])[None]
    negative = (counts.false[:-1] - counts.false[1:])[None]
    found = {}
    for name, area in (("auroc", auroc_of), ("average_precision", average_precision_of)):
        value = float(area(positive, negative)[0]) if positive.size else float("nan")
        found[name] = Score(value) if np.isfinite(value) else Score(None, ONE_SIDE)
    return found


def draw(cases: Scored, rounds: int) -> Draws:
    """Draw patients, those with a positive case and those without apart.

    With fewer than two patients there is nothing to draw: no round is.
    """
    names, index = np.unique(cases.patient, return_inverse=True)
    sides = per_group(index, len(names), cases.positive, cases.negative)
    if len(names) < 2:
        rounds = 0
    return stratified_draws((sides[:, 0] > 0).astype(np.intp), sides, rounds)


def resample(cases: Scored, threshold: float, drawn: Draws) -> dict[str, Floats]:
    """Return each figure in each round [rounds]; NaN where it has no value."""
    names, index = np.unique(cases.patient, return_inverse=True)
    called = cases.score >= threshold
    table = per_group(
        index,
        len(names),
        cases.positive * called,
        cases.negative * called,
        cases.positive * ~called,
        cases.negative * ~called,
    )
    matrices = [two_by_two(*row) for row in (drawn.times @ table).tolist()]
    found = {
        name: np.array([_number(formula(matrix)) for matrix in matrices])
        for name, formula in FIGURES.items()
    }
    place, count = _few(cases.score, cases.positive + cases.negative)
    histogram = np.zeros((2, len(names), count))
    np.add.at(histogram[0], (index, place), cases.positive)
    np.add.at(histogram[1], (index, place), cases.negative)
    rounds = len(drawn.times)
    found |= {"auroc": np.zeros(rounds), "average_precision": np.zeros(rounds)}
    step = max(MAX_VALUES // max(count, 1), 1)
    for start in range(0, rounds, step):
        times = drawn.times[start : start + step]
        positive, negative = times @ histogram[0], times @ histogram[1]
        found["auroc"][start : start + step] = auroc_of(positive, negative)
        found["average_precision"][start : start + step] = average_precision_of(positive, negative)
    return found


def calibrate(cases: Scored, *, rounds: int = 1000) -> dict[str, Any]:
    """Return what is said of P(positive): Brier score, ECE with equal bins and equal mass, curve.

    Bins show their counts. What the run has not looked at has no probability and is left out.
    """
    seen = cases.seen & (cases.positive + cases.negative > 0)
    weight = (cases.positive + cases.negative)[seen]
    if not len(weight):
        return {"reason": "the run answers for none of the cases"}
    p, group = cases.score[seen], cases.patient[seen]
    outcome = cases.positive[seen] / weight
    width = calibration.reliability(
        p, outcome, group, calibration.equal_width(), rounds=rounds, weight=weight
    )
    edges = calibration.equal_mass(p, weight=np.rint(weight).astype(np.int64))
    mass = calibration.reliability(p, outcome, group, edges, weight=weight)
    within = cases.positive[seen] * (1 - p) ** 2 + cases.negative[seen] * p**2
    said: dict[str, Any] = {
        "brier": float(within.sum() / weight.sum()),
        "ece_width": calibration.expected_error(width),
        "ece_mass": calibration.expected_error(mass),
        "curve": [asdict(b) for b in width],
        "mass_bins": [asdict(b) for b in mass],
    }
    patients = len(np.unique(group))
    if patients < calibration.LEAST_CASES:
        said["note"] = (
            f"of {patients} independent patients: below {calibration.LEAST_CASES} a calibration "
            f"error over bins is biased upwards"
        )
    return said


def _figure(found: Score, rounds: Floats) -> Figure:
    if found.value is None:
        return Figure(None, reason=found.reason)
    low, high = interval(rounds)
    if not np.isfinite(low):
        return Figure(found.value)
    return Figure(found.value, low, high)


def _number(found: Score) -> float:
    return float("nan") if found.value is None else found.value


def _few(score: Floats, weight: Floats) -> tuple[NDArray[np.intp], int]:
    """Return the place of each score among at most `MOST_SCORES`, ascending, and how many."""
    distinct, place = np.unique(score, return_inverse=True)
    if len(distinct) <= MOST_SCORES:
        return place, len(distinct)
    cases = np.bincount(place, weight)
    share = (np.cumsum(cases) - cases / 2) / cases.sum()
    bins = (share * MOST_SCORES).astype(np.intp)
    _, dense = np.unique(bins, return_inverse=True)
    return dense[place], int(dense.max()) + 1
