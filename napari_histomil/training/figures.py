"""Figures of answers with 95 % intervals over groups: areas, agreement, overlap, objects.

Where there are several trainings, a figure is the mean over them; ``..._each_seed`` lists them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_histomil.review import metrics
from napari_histomil.review.intervals import draws, interval, per_group
from napari_histomil.review.metrics import Confusion
from napari_histomil.review.ranking import auroc, average_precision, ranked_intervals
from napari_histomil.training.cells import Answers, Floats
from napari_histomil.training.pixels import PixelAnswers

OVERLAPS: dict[str, Callable[[Floats], Floats]] = {
    "dice": lambda c: 2 * c[..., 0] / (2 * c[..., 0] + c[..., 1] + c[..., 2]),
    "iou": lambda c: c[..., 0] / c.sum(axis=-1),
    "precision": lambda c: c[..., 0] / (c[..., 0] + c[..., 1]),
    "recall": lambda c: c[..., 0] / (c[..., 0] + c[..., 2]),
}
"""Name -> figure of counts [..., (true positive, false positive, false negative)]."""


OBJECT_FIGURES: dict[str, Callable[[Floats], Floats]] = {
    "f1": lambda c: OVERLAPS["dice"](c[..., :3]),
    "panoptic_quality": lambda c: 2 * c[..., 3] / (2 * c[..., 0] + c[..., 1] + c[..., 2]),
}
"""Name -> figure of [..., (matched, found only, true only, sum of IoU)]."""


def summarise(runs: Sequence[Answers], *, rounds: int) -> dict[str, Any]:
    """Return figures of cells with their intervals, and how much they stand on.

    AUROC and average precision are of the positive class against the others; kappa and balanced
    accuracy of the likeliest class against that with the largest share.

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
    summary |= _ranked(first.truth, [run.logit for run in runs], first.group, rounds)
    if first.activation == "softmax" and first.shares.shape[1] > 1 and len(first):
        for name, values, drawn in _agreement(runs, rounds):
            summary |= _figure(name, values, drawn)
    if first.shares.shape[1] > 2:
        summary["auroc_each_class"] = [
            rounded(np.mean([area(replace(run, positive=k)) for run in runs]))
            for k in range(first.shares.shape[1])
        ]
    return summary


def summarise_pixels(runs: Sequence[PixelAnswers], *, rounds: int) -> dict[str, Any]:
    """Return overlap of each class over all pixels together, with intervals over groups.

    ``dice`` pools the pixels of all fields; ``dice_fields`` is the mean over fields that have the
    class in truth or answer. AUROC and average precision are of the positive class on the sampled
    pixels, log odds rounded to 0.01.

    Parameters
    ----------
    runs
        Answers of one or more trainings to the same fields, in the same order.
    rounds
        Of the bootstrap.
    """
    first, count = runs[0], len(runs[0].classes)
    names, index = np.unique(first.group, return_inverse=True)
    times = draws(len(names), rounds)
    summary: dict[str, Any] = {
        "fields": len(first),
        "groups": len(names),
        "pixels": int(first.labelled.sum()),
    }

    def grouped(counts: NDArray[np.int64]) -> Floats:
        return per_group(index, len(names), *counts.reshape(len(counts), -1).T)

    tables = [grouped(run.counts) for run in runs]
    seen = [run.counts.sum(axis=0) for run in runs]
    drawn = [(times @ table).reshape(rounds, count, 3) for table in tables]
    own = [n for n, name in enumerate(first.classes) if name != first.background]
    summary["classes"] = {}
    for k, name in enumerate(first.classes):
        found: dict[str, Any] = {
            "pixels": int(first.counts[:, k, 0].sum() + first.counts[:, k, 2].sum())
        }
        for figure, formula in OVERLAPS.items():
            found |= _figure(
                figure,
                [float(_quiet(formula, counts[k])) for counts in seen],
                np.mean([_quiet(formula, counts[:, k]) for counts in drawn], axis=0),
            )
        each = _quiet(OVERLAPS["dice"], np.stack([run.counts[:, k] for run in runs]))
        found["dice_fields"] = rounded(_mean(each.ravel(), 0))
        summary["classes"][name] = found
    dice = OVERLAPS["dice"]
    summary |= _figure(
        "mean_dice",
        [float(_mean(_quiet(dice, counts[own]), 0)) for counts in seen],
        np.mean([_mean(_quiet(dice, counts[:, own]), 1) for counts in drawn], axis=0),
    )
    sample = first.sample
    summary["sampled"] = len(sample)
    scores = [np.round(run.sample.logit, 2) for run in runs]
    summary |= _ranked(sample.truth, scores, sample.group, rounds)
    if first.objects is not None:
        summary["objects"] = {first.classes[k]: _objects(runs, k, index, times) for k in own}
    return summary


def area(cells: Answers) -> float:
    """Return the AUROC of some cells; NaN where only one side is there."""
    return auroc(cells.truth, cells.logit)


def dice_each(runs: Sequence[PixelAnswers]) -> dict[str, dict[str, float | None]]:
    """Return the Dice of each field and class but the background, mean over trainings."""
    first = runs[0]
    counts = np.stack([run.counts for run in runs])  # (runs, F, K, 3)
    dice = _mean(_quiet(OVERLAPS["dice"], counts), 0)
    return {
        str(field): {
            name: rounded(dice[row, k])
            for k, name in enumerate(first.classes)
            if name != first.background
        }
        for row, field in enumerate(first.field)
    }


def rounded(value: Any) -> float | None:
    """Return a figure as it is stored: four digits, None for no number."""
    return round(float(value), 4) if np.isfinite(value) else None


def rounded_all(value: Any) -> Any:
    """Return nested figures as they are stored."""
    if isinstance(value, Mapping):
        return {key: rounded_all(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [rounded_all(v) for v in value]
    return rounded(value) if isinstance(value, float) else value


def _ranked(
    truth: NDArray[np.bool_], scores: Sequence[Floats], group: NDArray[np.str_], rounds: int
) -> dict[str, Any]:
    spread = ranked_intervals(truth, scores, group, rounds=rounds)
    summary: dict[str, Any] = {}
    for name, figure in (("auroc", auroc), ("average_precision", average_precision)):
        each = [figure(truth, score) for score in scores]
        summary |= {
            name: rounded(np.mean(each)),
            f"{name}_95": [rounded(v) for v in spread[name]],
            f"{name}_each_seed": [rounded(v) for v in each],
        }
    return summary


def _figure(name: str, each: Sequence[float], drawn: Floats) -> dict[str, Any]:
    return {
        name: rounded(np.mean(each)),
        f"{name}_95": [rounded(v) for v in interval(drawn)],
        f"{name}_each_seed": [rounded(v) for v in each],
    }


def _agreement(runs: Sequence[Answers], rounds: int) -> Iterator[tuple[str, list[float], Floats]]:
    """Yield kappa and balanced accuracy: (name, of each training, of each round)."""
    first = runs[0]
    count = first.shares.shape[1]
    names, index = np.unique(first.group, return_inverse=True)
    times, labels = draws(len(names), rounds), tuple(str(k) for k in range(count))
    truth = first.shares.argmax(axis=1)
    tables = []
    for run in runs:
        table = np.zeros((len(names), count, count))
        np.add.at(table, (index, truth, run.logits.argmax(axis=1)), 1)
        tables.append(table)

    def figure(formula: Callable[[Confusion], metrics.Score], table: Floats) -> float:
        value = formula(Confusion(table.astype(np.int64), labels)).value
        return float("nan") if value is None else value

    for name, formula in (
        ("kappa", metrics.kappa),
        ("balanced_accuracy", metrics.balanced_accuracy),
    ):
        drawn = [np.tensordot(times, table, 1) for table in tables]  # (rounds, K, K)
        yield (
            name,
            [figure(formula, table.sum(axis=0)) for table in tables],
            np.array([np.mean([figure(formula, d[i]) for d in drawn]) for i in range(rounds)]),
        )


def _objects(
    runs: Sequence[PixelAnswers], index: int, group: NDArray[np.intp], times: Floats
) -> dict[str, Any]:
    """Return F1 and panoptic quality of the pieces of a class."""
    counts = [run.objects.counts[:, index] for run in runs if run.objects is not None]
    overlap = [run.objects.overlap[:, index] for run in runs if run.objects is not None]
    tables = [
        per_group(group, times.shape[1], *pieces.T, ious)
        for pieces, ious in zip(counts, overlap, strict=True)
    ]
    hit, extra, missed = counts[0].sum(axis=0)
    summary = {"true": int(hit + missed), "found": int(hit + extra), "matched": int(hit)}
    for name, formula in OBJECT_FIGURES.items():
        each = [float(_quiet(formula, table.sum(axis=0))) for table in tables]
        drawn = np.mean([_quiet(formula, times @ table) for table in tables], axis=0)
        summary |= _figure(name, each, drawn)
    return summary


def _quiet(formula: Callable[[Floats], Floats], counts: NDArray[Any]) -> Floats:
    """Return a ratio of counts, NaN where there is nothing to divide by."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(formula(np.asarray(counts, float)))


def _mean(values: Floats, axis: int) -> Floats:
    """Return the mean of what is a number; NaN where nothing is."""
    known = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        mean: Floats = np.where(known, values, 0).sum(axis=axis) / known.sum(axis=axis)
    return mean
