"""How good are answers: AUROC and average precision, with intervals over groups."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from sklearn.metrics import average_precision_score, roc_auc_score

from napari_histomil.errors import TrainingError

Floats = NDArray[np.float64]
Metric = Callable[[NDArray[np.bool_], Floats], float]


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """What was asked and answered, one row a cell."""

    field: NDArray[np.str_]
    group: NDArray[np.str_]
    share: Floats
    """True share of the positive class."""
    logit: Floats
    """Log odds of the positive class."""

    def __len__(self) -> int:
        return len(self.share)

    @property
    def truth(self) -> NDArray[np.bool_]:
        """Whether the positive class has at least half of the cell."""
        return self.share >= 0.5

    def where(self, keep: NDArray[np.bool_]) -> Answers:
        """Return some of the rows."""
        return Answers(self.field[keep], self.group[keep], self.share[keep], self.logit[keep])

    def unmixed(self, tolerance: float) -> Answers:
        """Return the cells that hold (nearly) nothing else than one side."""
        return self.where((self.share <= tolerance) | (self.share >= 1 - tolerance))


def join(parts: Sequence[Answers]) -> Answers:
    """Put answers one after the other."""
    if not parts:
        raise TrainingError("There are no answers to score.")
    return Answers(
        np.concatenate([p.field for p in parts]),
        np.concatenate([p.group for p in parts]),
        np.concatenate([p.share for p in parts]),
        np.concatenate([p.logit for p in parts]),
    )


def auroc(truth: NDArray[np.bool_], score: Floats) -> float:
    """Return the area under the ROC curve; NaN where only one side is there."""
    return float(roc_auc_score(truth, score)) if truth.any() and not truth.all() else float("nan")


def average_precision(truth: NDArray[np.bool_], score: Floats) -> float:
    """Return the average precision; NaN where only one side is there."""
    if not truth.any() or truth.all():
        return float("nan")
    return float(average_precision_score(truth, score))


def bootstrap(
    metric: Metric, runs: Sequence[Answers], *, rounds: int, seed: int = 0
) -> tuple[float, float]:
    """Return the 95 % percentile interval of a metric over groups.

    Whole groups are drawn with replacement (Efron 1979; cluster bootstrap), because cells of one
    group are alike: drawing single cells would make the interval far too narrow. Rounds in which
    one side is missing are left out.

    Parameters
    ----------
    metric
        Takes truth and score.
    runs
        Answers of one or more trainings to the same cells; the metric's mean over them counts.
    rounds, seed
        How often, and from which random numbers, groups are drawn.
    """
    names, inverse = np.unique(runs[0].group, return_inverse=True)
    rows = [np.flatnonzero(inverse == i) for i in range(len(names))]
    random = np.random.default_rng(seed)
    values = []
    for _ in range(rounds):
        drawn = np.concatenate([rows[i] for i in random.integers(len(names), size=len(names))])
        value = np.mean([metric(run.truth[drawn], run.logit[drawn]) for run in runs])
        if np.isfinite(value):
            values.append(value)
    if not values:
        return float("nan"), float("nan")
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def summarise(runs: Sequence[Answers], *, rounds: int) -> dict[str, Any]:
    """Return AUROC and average precision with their intervals, and how much they stand on.

    Parameters
    ----------
    runs
        Answers of one or more trainings to the same cells, in the same order.
    rounds
        Of the bootstrap.
    """
    first = runs[0]
    summary: dict[str, Any] = {
        "cells": len(first),
        "positive": int(first.truth.sum()),
        "groups": len(np.unique(first.group)),
    }
    for name, metric in (("auroc", auroc), ("average_precision", average_precision)):
        each = [metric(run.truth, run.logit) for run in runs]
        summary[name] = _round(float(np.mean(each)))
        summary[f"{name}_95"] = [_round(v) for v in bootstrap(metric, runs, rounds=rounds)]
        summary[f"{name}_each_seed"] = [_round(v) for v in each]
    return summary


def fit_temperature(answers: Answers) -> float:
    """Return the temperature that makes the probabilities fit the true shares best.

    Logits are divided by it (Guo et al. 2017, "On calibration of modern neural networks"); here
    the cross-entropy against the share is minimised, on answers for groups that were left out.
    """

    def cross_entropy(log_temperature: float) -> float:
        z = answers.logit / np.exp(log_temperature)
        return float(np.mean(np.logaddexp(0, z) - answers.share * z))

    found = minimize_scalar(cross_entropy, bounds=(np.log(0.25), np.log(8.0)), method="bounded")
    return float(np.exp(found.x))


def _round(value: float) -> float | None:
    return round(value, 4) if np.isfinite(value) else None
