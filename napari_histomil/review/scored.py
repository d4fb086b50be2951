"""Answers beside their truth: tiles, pixels or slides as one kind of table, to be scored alike.

A row is a score with how many positive and how many negative cases have it: 0 and 1 of tiles and
slides, counts of pixels. Rows belong to patients, which are what an interval is drawn over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from napari_histomil.annotations.masks import MaskGrid
from napari_histomil.errors import RunError
from napari_histomil.results import RunStore, SegmentationStore
from napari_histomil.results.segmentation import CERTAIN, UNKNOWN
from napari_histomil.review.operating import Counts, count_all
from napari_histomil.review.truth import (
    UNJUDGED,
    Floats,
    TileTruth,
    Truth,
    bands_of,
    positive_indices,
    sides,
)

UNSEEN = -np.inf
"""Score of what the run has not looked at: it is called positive by no threshold."""


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """Scores and their truth."""

    level: str
    """``tile``, ``pixel`` or ``slide``."""
    score: Floats = field(repr=False)
    """float64 [n], probability of the positive class, or `UNSEEN`."""
    positive: Floats = field(repr=False)
    """float64 [n], how many cases of this score are positive."""
    negative: Floats = field(repr=False)
    patient: NDArray[np.str_] = field(repr=False)
    """[n]"""
    case_um2: float = 0.0
    """Area of a case, where it has one: of a pixel."""

    def __len__(self) -> int:
        return len(self.score)

    @property
    def seen(self) -> NDArray[np.bool_]:
        """Bool [n], whether the run has said anything."""
        return np.isfinite(self.score)

    @property
    def patients(self) -> int:
        """How many patients there are."""
        return len(np.unique(self.patient))

    def counts(self) -> Counts:
        """Return the counts at every threshold."""
        return count_all(self.score, self.positive, self.negative)

    def with_scores(self, score: Floats) -> Scored:
        """Return the same cases with other answers, of a second model."""
        return replace(self, score=np.asarray(score, np.float64))


def join(parts: Sequence[Scored]) -> Scored:
    """Put tables of the same level one after the other.

    Raises
    ------
    RunError
        If there are none.
    """
    if not parts:
        raise RunError("There are no answers with a truth to score.")
    return replace(
        parts[0],
        score=np.concatenate([p.score for p in parts]),
        positive=np.concatenate([p.positive for p in parts]),
        negative=np.concatenate([p.negative for p in parts]),
        patient=np.concatenate([p.patient for p in parts]),
    )


def positive_scores(run: RunStore, name: str) -> Floats:
    """Return the probability of a class in each tile, float64 [N]; NaN where there is none.

    Raises
    ------
    RunError
        If the run has no such class.
    """
    return np.asarray(run.scores[:, class_index(run, name)], np.float64)


def class_index(run: RunStore | SegmentationStore, name: str) -> int:
    """Return the column of a class of a run.

    Raises
    ------
    RunError
        If it has none of that name.
    """
    for index, own in enumerate(run.class_names):
        if own.casefold() == name.casefold():
            return index
    raise RunError(
        f"The run {run.path.name} has no class {name}: it has {', '.join(run.class_names)}."
    )


def score_tiles(score: Floats, truth: TileTruth, patient: str, *, mixed: bool = True) -> Scored:
    """Return the tiles that have an answer and a truth.

    Parameters
    ----------
    score
        [N], as `positive_scores`.
    truth
        Of the same tiles.
    patient
        Whose slide it is.
    mixed
        Whether tiles that are neither one thing nor the other count.
    """
    keep = np.isfinite(score) & truth.known
    if not mixed:
        keep &= ~truth.mixed
    positive = truth.positive[keep].astype(np.float64)
    return Scored("tile", score[keep], positive, 1 - positive, _whose(patient, int(keep.sum())))


def score_tile_pixels(score: Floats, truth: TileTruth, patient: str) -> Scored:
    """Return all judged pixels, each with the answer of the tile that it belongs to.

    What the run did not look at (no tissue, torn tiles) has the score `UNSEEN`: tumour there is
    missed, and nothing is left out of the truth for having been left out of the run.
    """
    assert truth.unseen is not None, "made by tile_truth"
    positive, rest = truth.pixels()
    more = sides(truth.unseen, truth.positive_classes)
    said = np.where(np.isfinite(score), score, UNSEEN)
    return _some(
        Scored(
            "pixel",
            np.append(said, UNSEEN),
            np.append(positive, more[0]).astype(np.float64),
            np.append(rest, more[1]).astype(np.float64),
            _whose(patient, len(said) + 1),
            truth.pixel_um2,
        )
    )


def score_picture(
    run: SegmentationStore, truth: Truth, positive: str, patient: str, *, answer: str | None = None
) -> Scored:
    """Return the judged pixels of a segmentation, counted by the 255 probabilities it can store.

    Parameters
    ----------
    run
        A model that segments.
    truth
        Of the same slide.
    positive
        Class of the truth; the same of the run, unless `answer` names another.
    patient
        Whose slide it is.

    Raises
    ------
    RunError, AnnotationError
        If the run has no such class, or run or truth cannot be read.
    """
    column = class_index(run, answer or positive)
    rows, columns = run.picture.shape
    mpp = run.grid.spec.mpp
    grid = MaskGrid(columns, rows, run.picture.pixel_px0, (mpp, mpp))
    count = len(truth.names)
    table = np.zeros((256, count), np.int64)
    for top, labels in bands_of(truth, grid, run.grid.slide_size_px0):
        known = labels != UNJUDGED
        if not known.any():
            continue
        stored = run.strip(slice(top, top + len(labels)))[column]
        pairs = stored[known].astype(np.int64) * count + labels[known]
        table += np.bincount(pairs, minlength=table.size).reshape(table.shape)
    true, rest = sides(table, positive_indices(truth.names, positive))
    score = np.arange(256) / CERTAIN
    score[UNKNOWN] = UNSEEN
    return _some(
        Scored(
            "pixel",
            score,
            true.astype(np.float64),
            rest.astype(np.float64),
            _whose(patient, 256),
            mpp**2,
        )
    )


def score_slides(
    answers: Sequence[float], positive: Sequence[bool], patients: Sequence[str]
) -> Scored:
    """Return slides with their answers."""
    true = np.array(positive, bool).astype(np.float64)
    return Scored("slide", np.array(answers, np.float64), true, 1 - true, np.array(patients, str))


def _some(cases: Scored) -> Scored:
    """Drop the rows that hold nothing."""
    keep = cases.positive + cases.negative > 0
    return replace(
        cases,
        score=cases.score[keep],
        positive=cases.positive[keep],
        negative=cases.negative[keep],
        patient=cases.patient[keep],
    )


def _whose(patient: str, count: int) -> NDArray[np.str_]:
    return np.full(count, patient)
