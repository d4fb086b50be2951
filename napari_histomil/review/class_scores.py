"""Scores of tiles that may be of several classes: one matrix of all, each class against the rest.

Kappa is weighted only where the person declares the classes ordered (grades), with
1 - (i - j)² / (k - 1)² and k from the model's list of classes; calibration is that of the
likeliest class. Of two classes `scoring.py` says more.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_histomil.errors import RunError
from napari_histomil.results import RunStore
from napari_histomil.review import calibration, metrics
from napari_histomil.review.metrics import Confusion, Score
from napari_histomil.review.ranking import auroc
from napari_histomil.review.truth import BACKGROUND, Floats, TileTruth, positive_indices


@dataclass(frozen=True, slots=True, eq=False)
class ClassScores:
    """All that is said of the tiles of several classes."""

    confusion: Confusion
    accuracy: Score
    balanced_accuracy: Score
    kappa: Score
    weighted_kappa: Score | None
    """None unless the classes are declared ordered."""
    f1: tuple[Score, ...]
    """Of each class."""
    auroc: tuple[float, ...]
    """Of each class against the others; NaN where only one side is there."""
    brier: float
    """Summed over classes, 0 to 2."""
    ece_width: float
    ece_mass: float
    """Of the likeliest class."""

    def document(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        weighted = self.weighted_kappa
        return {
            "classes": list(self.confusion.classes),
            "confusion": self.confusion.counts.tolist(),
            "accuracy": asdict(self.accuracy),
            "balanced_accuracy": asdict(self.balanced_accuracy),
            "kappa": asdict(self.kappa),
            "weighted_kappa": None if weighted is None else asdict(weighted),
            "f1": [asdict(each) for each in self.f1],
            "auroc": [None if np.isnan(value) else value for value in self.auroc],
            "brier": self.brier,
            "ece_width": self.ece_width,
            "ece_mass": self.ece_mass,
        }


def score_classes(
    probabilities: Floats, truth: NDArray[np.intp], classes: tuple[str, ...], *, ordered: bool
) -> ClassScores:
    """Score probabilities of several classes.

    Parameters
    ----------
    probabilities
        float64 [n, K].
    truth
        [n], index of the class that is true.
    classes
        Names of all K, in order where they are ordered.
    ordered
        Whether the person declares them ordered.

    Raises
    ------
    RunError
        If there is no case.
    """
    count = len(classes)
    if not len(truth):
        raise RunError("No tile has both an answer and a class that the model knows.")
    said = probabilities.argmax(axis=1)
    counts = np.bincount(truth * count + said, minlength=count**2).reshape(count, count)
    confusion = Confusion(counts, classes, ("the truth", "the answer"))
    is_so = truth[:, None] == np.arange(count)
    p, right = calibration.top_label(probabilities, is_so.astype(np.float64))
    group = np.zeros(len(truth), "<U1")
    errors = [
        calibration.expected_error(calibration.reliability(p, right, group, edges))
        for edges in (calibration.equal_width(), calibration.equal_mass(p))
    ]
    return ClassScores(
        confusion=confusion,
        accuracy=metrics.accuracy(confusion),
        balanced_accuracy=metrics.balanced_accuracy(confusion),
        kappa=metrics.kappa(confusion),
        weighted_kappa=metrics.kappa(confusion, "quadratic") if ordered else None,
        f1=tuple(metrics.f1(confusion, k) for k in range(count)),
        auroc=tuple(auroc(is_so[:, k], probabilities[:, k]) for k in range(count)),
        brier=calibration.brier(probabilities, is_so.astype(np.float64)),
        ece_width=errors[0],
        ece_mass=errors[1],
    )


def tile_classes(run: RunStore, truth: TileTruth) -> tuple[Floats, NDArray[np.intp]]:
    """Return the answers and the true class of a run's tiles, where both are known.

    A tile is of the class that has most of its judged area. What is background in the truth is
    the model's background class where it has one, by that name or ``normal`` or ``other``; tiles
    of classes that the model does not know are left out.

    Returns
    -------
    float64 [n, K], integers [n]
    """
    assert truth.counts is not None, "made by tile_truth"
    names = [name.casefold() for name in run.class_names]
    place = np.full(len(truth.names), -1)
    for k, name in enumerate(run.class_names):
        place[list(positive_indices(truth.names, name))] = k
    words = [BACKGROUND, "normal", "other"]
    found = next((names.index(word) for word in words if word in names), -1)
    last = truth.names.index(BACKGROUND)
    place[last] = found if place[last] < 0 else place[last]
    most = place[truth.counts.argmax(axis=1)]
    scores = np.asarray(run.scores, np.float64)
    keep = truth.known & (most >= 0) & np.isfinite(scores).all(axis=1)
    return scores[keep], most[keep]
