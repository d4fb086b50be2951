"""Free-response ROC: sensitivity for lesions against false positives a slide, as in CAMELYON16.

A candidate in a lesion finds it, and a lesion is found once, with the best score in it. One in
isolated tumour cells counts for nothing; all others are false positives. The score of a model is
the mean sensitivity at 1/4, 1/2, 1, 2, 4 and 8 false positives a slide, interpolated linearly
(Ehteshami Bejnordi et al., JAMA 318 (2017) 2199).

The challenge's script goes through the sorted scores *from the second on*: the lowest threshold
is skipped. Where a lesion was not found (its score is then 0) that changes nothing; where all were
found, the last point of the curve is missing. It is done here in the same way, so that figures
compare.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_histomil.errors import RunError
from napari_histomil.review.candidates import Candidates
from napari_histomil.review.intervals import ROUNDS, interval, stratified_draws
from napari_histomil.review.lesion_masks import Lesions
from napari_histomil.review.truth import Floats

FALSE_POSITIVES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Mean false positives a slide at which the sensitivity is read."""

SKIPPED = "the lowest threshold is skipped, as in the challenge's own script"


@dataclass(frozen=True, slots=True, eq=False)
class Hits:
    """What the candidates of one slide come to."""

    slide: str
    patient: str
    found: Floats = field(repr=False)
    """float64 [L], best score in each lesion; 0 where it was not found, and of isolated cells."""
    isolated: NDArray[np.bool_] = field(repr=False)
    """bool [L]"""
    false: Floats = field(repr=False)
    """float64 [F], scores of false positives."""

    @property
    def lesions(self) -> int:
        """How many there are to be found."""
        return int((~self.isolated).sum())


@dataclass(frozen=True, slots=True)
class Froc:
    """The curve, and its score."""

    false_positives: tuple[float, ...]
    """Mean a slide, falling."""
    sensitivity: tuple[float, ...]
    thresholds: tuple[float, ...]
    """Of each point but the last one, (0, 0)."""
    at: tuple[float, ...]
    """Sensitivity at `FALSE_POSITIVES`."""
    score: float
    low: float | None
    high: float | None
    """95 % interval of the score over patients; None with fewer than two."""
    slides: int
    lesions: int
    isolated: int
    patients: int
    redrawn: int

    def document(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        return asdict(self) | {"false_positives_a_slide": list(FALSE_POSITIVES), "note": SKIPPED}


def hit_lesions(candidates: Candidates, lesions: Lesions, slide: str, patient: str) -> Hits:
    """Say which lesions the candidates find; those where nobody has judged are left out."""
    number, judged = lesions.at(candidates.xy_px0)
    isolated = lesions.isolated
    found = np.zeros(len(lesions))
    inside = judged & (number > 0)
    np.maximum.at(found, number[inside] - 1, candidates.score[inside])
    found[isolated] = 0
    return Hits(slide, patient, found, isolated, candidates.score[judged & (number == 0)])


def froc(slides: Sequence[Hits], *, rounds: int = ROUNDS) -> Froc:
    """Return the curve of some slides.

    Parameters
    ----------
    slides
        All of them: those without a lesion give false positives.
    rounds
        Of the bootstrap over patients.

    Raises
    ------
    RunError
        If there is no lesion to be found.
    """
    lesions = sum(each.lesions for each in slides)
    if not lesions:
        raise RunError(
            "The truth has no lesion larger than isolated tumour cells: there is no FROC curve."
        )
    false, true, thresholds = _curve(slides)
    names, index = np.unique([each.patient for each in slides], return_inverse=True)
    low = high = None
    redrawn = 0
    if len(names) > 1:
        counts = [float(each.lesions) for each in slides]
        sides = np.bincount(index, counts).astype(np.float64)[:, None]
        drawn = stratified_draws((sides[:, 0] > 0).astype(np.intp), sides, rounds)
        values = np.zeros(rounds)
        for n, times in enumerate(drawn.times.astype(int)):
            some = [each for each, i in zip(slides, index, strict=True) for _ in range(times[i])]
            values[n] = np.mean(_read_off(*_curve(some)[:2]))
        (low, high), redrawn = interval(values), drawn.redrawn
    at = _read_off(false, true)
    return Froc(
        false_positives=tuple(false.tolist()),
        sensitivity=tuple(true.tolist()),
        thresholds=tuple(thresholds.tolist()),
        at=tuple(at.tolist()),
        score=float(at.mean()),
        low=low,
        high=high,
        slides=len(slides),
        lesions=lesions,
        isolated=sum(int(each.isolated.sum()) for each in slides),
        patients=len(names),
        redrawn=redrawn,
    )


def _curve(slides: Sequence[Hits]) -> tuple[Floats, Floats, Floats]:
    """Return false positives a slide, sensitivity, and the thresholds, from low to high."""
    false = np.sort(np.concatenate([each.false for each in slides]))
    found = np.sort(np.concatenate([each.found for each in slides]))
    thresholds = np.unique(np.concatenate([false, found]))[1:]
    above = len(false) - np.searchsorted(false, thresholds)
    hits = len(found) - np.searchsorted(found, thresholds)
    lesions = sum(each.lesions for each in slides)
    return np.append(above, 0) / len(slides), np.append(hits, 0) / lesions, thresholds


def _read_off(false: Floats, sensitivity: Floats) -> Floats:
    """Return the sensitivity at `FALSE_POSITIVES`."""
    return np.interp(FALSE_POSITIVES, false[::-1], sensitivity[::-1])
