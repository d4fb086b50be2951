"""How good are answers: AUROC and average precision, with intervals over groups."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import nn

from napari_histomil.errors import TrainingError
from napari_histomil.training.answers import Answers, Floats, ask, join
from napari_histomil.training.config import TrainingConfig
from napari_histomil.training.data import make_synthetic

Metric = Callable[[NDArray[np.bool_], Floats], float]

SAME_SLIDES = "same slide or slides, spatially separate: not an estimate of generalisation"
"""What scores on other groups of one data set are, and are not."""


@dataclass(frozen=True, slots=True)
class Validated:
    """What the cross-validation gave."""

    scores: dict[str, Any]
    temperature: float


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


def judge(
    config: TrainingConfig, runs: Sequence[Answers], parts: Sequence[frozenset[str]]
) -> Validated:
    """Score the answers for groups left out.

    Parameters
    ----------
    config
        The training.
    runs
        Answers to all cells, one for each seed, in the same order.
    parts
        Groups of each fold.
    """
    validation = config.validation
    rounds, seeds = validation.bootstraps, list(validation.seeds)
    unmixed = [run.unmixed(validation.unmixed) for run in runs]
    scores: dict[str, Any] = {
        "what": SAME_SLIDES,
        "method": (
            f"{len(parts)}-fold cross-validation over groups, seeds {seeds}; one net answers, "
            f"nothing is averaged; answers of all folds are scored together; 95 % intervals by "
            f"bootstrap over groups ({rounds} rounds)"
        ),
        "unmixed": summarise(unmixed, rounds=rounds),
        "all": summarise(runs, rounds=rounds),
        "folds": [sorted(part) for part in parts],
        "fields": {
            name: summarise([run.where(run.field == name) for run in unmixed], rounds=0)["auroc"]
            for name in np.unique(unmixed[0].field).tolist()
        },
    }
    if len(runs) > 1:
        together = replace(runs[0], logit=np.mean([run.logit for run in runs], axis=0))
        scores["unmixed_ensemble"] = summarise(
            [together.unmixed(validation.unmixed)], rounds=rounds
        )
    return Validated(scores, fit_temperature(join(runs)))


def score_synthetic(config: TrainingConfig, net: nn.Module) -> dict[str, Any]:
    """Score a finished net on synthetic slides that it was not trained on; tissue only.

    Raises
    ------
    TrainingError
        If the training has no synthetic source to take the size from.
    """
    sources = [s for s in config.sources if s.kind == "synthetic"]
    if not sources:
        raise TrainingError(
            "validation.synthetic_seeds needs a source of kind 'synthetic' in the training."
        )
    slides = [
        make_synthetic(
            seed, sources[0].name, config.grid.mpp, sources[0].size_px, only_tissue=True
        )
        for seed in config.validation.synthetic_seeds
    ]
    answers = join([ask(config, net, slide) for slide in slides])
    return {
        "what": (
            "the finished net on procedural slides of seeds "
            f"{list(config.validation.synthetic_seeds)}, tissue only: drawings, not patients"
        ),
        "unmixed": summarise(
            [answers.unmixed(config.validation.unmixed)], rounds=config.validation.bootstraps
        ),
        "all": summarise([answers], rounds=config.validation.bootstraps),
    }


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
