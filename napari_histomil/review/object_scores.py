"""Scores of whole pieces: lesions of the truth against connected pieces that a run calls.

Two pieces are the same where more than half of their union is common (`objects.py`). Beside that
stands what a reader asks first: how many lesions did the run touch at all, and how many pieces
that it calls touch none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from napari_histomil.results import RunStore, SegmentationStore
from napari_histomil.review.intervals import ROUNDS, interval, per_group, stratified_draws
from napari_histomil.review.lesion_masks import Lesions, lesion_grid
from napari_histomil.review.objects import TOUCHING, count_objects
from napari_histomil.review.paired import wilson
from napari_histomil.review.scored import class_index
from napari_histomil.review.scoring import Figure
from napari_histomil.review.truth import UNJUDGED, Bools, Floats
from napari_histomil.review.truth_sources import RunTruth


@dataclass(frozen=True, slots=True)
class Pieces:
    """The pieces of one slide, matched."""

    slide: str
    patient: str
    matched: int
    """Pieces of the truth that a called piece is the same as."""
    extra: int
    """Called pieces without a partner."""
    missed: int
    """Pieces of the truth without one."""
    overlap: float
    """Sum of the IoU of the matched."""
    touched: int
    """Pieces of the truth of which the run calls any pixel."""
    apart: int
    """Called pieces that touch no piece of the truth."""

    @property
    def true(self) -> int:
        """Pieces of the truth."""
        return self.matched + self.missed


@dataclass(frozen=True, slots=True)
class ObjectScores:
    """All that is said of pieces."""

    threshold: float
    figures: Mapping[str, Figure]
    true: int
    called: int
    matched: int
    touched: int
    touched_95: tuple[float, float]
    """Wilson's interval of the share that is touched: for few pieces of independent patients."""
    apart: int
    patients: int

    def document(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        return {"level": "object", **asdict(self)}


# columns: matched, extra, missed, overlap, touched, apart
FORMULAS: Mapping[str, tuple[Callable[[Floats], Floats], str]] = {
    "precision": (lambda c: c[..., 0] / (c[..., 0] + c[..., 1]), "the run calls no piece"),
    "recall": (lambda c: c[..., 0] / (c[..., 0] + c[..., 2]), "the truth has no piece"),
    "f1": (
        lambda c: 2 * c[..., 0] / (2 * c[..., 0] + c[..., 1] + c[..., 2]),
        "neither has a piece",
    ),
    "panoptic_quality": (
        lambda c: 2 * c[..., 3] / (2 * c[..., 0] + c[..., 1] + c[..., 2]),
        "neither has a piece",
    ),
    "touched": (lambda c: c[..., 4] / (c[..., 0] + c[..., 2]), "the truth has no piece"),
}
"""Name -> figure of counts, and why it may have no value."""

TITLES: Mapping[str, str] = {
    "precision": "Precision (IoU > 0.5)",
    "recall": "Recall (IoU > 0.5)",
    "f1": "F1 (IoU > 0.5)",
    "panoptic_quality": "Panoptic quality",
    "touched": "Lesions touched",
}


def called_picture(
    run: RunStore | SegmentationStore, name: str, threshold: float, mpp: float
) -> Bools:
    """Return where a run calls a class, bool [rows, columns] of `lesion_grid`."""
    own = run.class_names[class_index(run, name)]
    pixels = lesion_grid(run.grid, mpp)
    labels = RunTruth(run, own, threshold).labels(pixels, slice(0, pixels.rows))
    return np.asarray(labels == 0)


def match_pieces(lesions: Lesions, called: Bools, slide: str, patient: str) -> Pieces:
    """Match the pieces of a slide; nothing counts where nobody has judged.

    Parameters
    ----------
    lesions
        Of the truth; their drawn tumour counts, not the dilated.
    called
        bool [rows, columns] of the same pixels, from `called_picture`.
    slide, patient
        Whose they are.
    """
    truth = np.where(lesions.tumour, 0, 1).astype(np.uint8)
    truth[~lesions.judged] = UNJUDGED
    found = count_objects(truth, np.where(called, 0, 1).astype(np.uint8), 1)
    matched, extra, missed = found.counts[0, 0].tolist()
    true, _ = ndimage.label(lesions.tumour & lesions.judged, TOUCHING)
    said, pieces = ndimage.label(called & lesions.judged, TOUCHING)
    both = (true > 0) & (said > 0)
    return Pieces(
        slide,
        patient,
        matched,
        extra,
        missed,
        float(found.overlap[0, 0]),
        len(np.unique(true[both])),
        pieces - len(np.unique(said[both])),
    )


def score_pieces(
    slides: Sequence[Pieces], threshold: float, *, rounds: int = ROUNDS
) -> ObjectScores:
    """Score the pieces of some slides, with intervals over patients."""
    columns = ("matched", "extra", "missed", "overlap", "touched", "apart")
    names, index = np.unique([each.patient for each in slides], return_inverse=True)
    values = [np.array([getattr(each, c) for each in slides], float) for c in columns]
    table = per_group(index, len(names), *values)
    total = table.sum(axis=0)
    true = table[:, [0, 2]].sum(axis=1)
    drawn = stratified_draws(
        (true > 0).astype(np.intp), true[:, None], rounds if len(names) > 1 else 0
    )
    figures = {}
    for name, (formula, reason) in FORMULAS.items():
        with np.errstate(invalid="ignore", divide="ignore"):
            value, spread = float(formula(total)), interval(formula(drawn.times @ table))
        if not np.isfinite(value):
            figures[name] = Figure(None, reason=reason)
        elif np.isfinite(spread[0]):
            figures[name] = Figure(value, *spread)
        else:
            figures[name] = Figure(value)
    matched, extra, missed, _, touched, apart = (round(v) for v in total.tolist())
    return ObjectScores(
        threshold=threshold,
        figures=figures,
        true=matched + missed,
        called=matched + extra,
        matched=matched,
        touched=touched,
        touched_95=wilson(touched, matched + missed),
        apart=apart,
        patients=len(names),
    )
