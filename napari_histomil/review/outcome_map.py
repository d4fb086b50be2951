"""Where a run is right and wrong on one slide: true and false, positive and negative cells.

Made once for a slide; a threshold is then one comparison of an array, so that a slider moves the
map, the matrix and the scores together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from napari_histomil.annotations.masks import MaskGrid
from napari_histomil.results import RunStore, SegmentationStore
from napari_histomil.results.segmentation import from_stored
from napari_histomil.review.metrics import Score
from napari_histomil.review.operating import Counts, OperatingPoint, operating_points
from napari_histomil.review.scored import (
    Scored,
    class_index,
    positive_scores,
    score_picture,
    score_tile_pixels,
    score_tiles,
)
from napari_histomil.review.scoring import calibrate, figures_at, ranked_figures
from napari_histomil.review.truth import (
    POSITIVE_SHARE,
    UNJUDGED,
    Bools,
    Floats,
    TileTruth,
    Truth,
    bands_of,
    positive_indices,
    tile_truth,
)
from napari_histomil.review.truth_files import AnyRun
from napari_histomil.tiling import GridSpec, TileGrid

UNKNOWN, TRUE_POSITIVE, FALSE_POSITIVE, FALSE_NEGATIVE, TRUE_NEGATIVE = range(5)
"""Values of an outcome."""

MOST_CELLS = 2**21
"""Pixels of a segmentation's map, at most: a coarser level is taken where there were more."""


@dataclass(frozen=True, slots=True, eq=False)
class SlideOutcome:
    """One slide's answers beside their truth, ready for any threshold."""

    grid: TileGrid
    """The cells of the map: tiles, or pixels of a level of a segmentation."""
    score: Floats = field(repr=False)
    """float64 [N], P(positive) of each cell; NaN where there is none."""
    positive: Bools = field(repr=False)
    """bool [N]"""
    known: Bools = field(repr=False)
    """bool [N], whether a cell has both an answer and a truth."""
    truth: TileTruth | None
    """Of tiles; None of a segmentation."""
    tables: Mapping[str, Scored]
    """By level: ``tiles``, ``tiles without mixed``, ``pixels``."""
    counts: Mapping[str, Counts]
    """Of each of them, at every threshold."""
    rule: str
    """Where the truth comes from, in words."""

    def outcome(self, threshold: float) -> NDArray[np.uint8]:
        """Return the outcome of each cell [N] at a threshold, `UNKNOWN` to `TRUE_NEGATIVE`."""
        with np.errstate(invalid="ignore"):
            called = self.score >= threshold
        # positive: called 1, else 3; negative: called 2, else 4
        codes = np.where(self.positive, 3, 4).astype(np.uint8)
        codes -= np.where(called, 2, 0).astype(np.uint8)
        codes[~self.known] = UNKNOWN
        return codes

    def picture(self, threshold: float) -> NDArray[np.uint8]:
        """Return the outcomes as an image of the grid's shape, a pixel a cell."""
        image = np.zeros(self.grid.shape, np.uint8)
        image[tuple(self.grid.cells.T)] = self.outcome(threshold)
        return image

    def figures(self, level: str, threshold: float) -> Mapping[str, Score]:
        """Return the scores of a level that a threshold moves: a lookup, whatever the tiles."""
        return figures_at(self.counts[level], threshold)

    def ranked(self, level: str) -> Mapping[str, Score]:
        """Return the scores of a level that no threshold moves: the areas."""
        return ranked_figures(self.counts[level])

    def points(self, level: str) -> tuple[OperatingPoint, ...]:
        """Return the named thresholds of a level."""
        return operating_points(self.counts[level])

    def calibration(self, level: str) -> Mapping[str, object]:
        """Return what is said of the probabilities of a level."""
        return calibrate(self.tables[level], rounds=0)


def slide_outcome(
    run: AnyRun,
    truth: Truth,
    positive: str,
    *,
    answer: str | None = None,
    from_share: float = POSITIVE_SHARE,
) -> SlideOutcome:
    """Lay a run beside its truth.

    Parameters
    ----------
    run
        Of a patch classifier, or a model that segments.
    truth
        Of the same slide.
    positive
        Class of the truth that counts as positive.
    answer
        Class of the run; of the same name by default.
    from_share
        A tile is positive from this share of its judged area on.

    Raises
    ------
    RunError, AnnotationError
        If the run has no such class, or run or truth cannot be read.
    """
    name = answer or positive
    if isinstance(run, RunStore):
        score = positive_scores(run, name)
        found = tile_truth(truth, run.grid, positive, from_share=from_share)
        tables = {
            "tiles": score_tiles(score, found, ""),
            "tiles without mixed": score_tiles(score, found, "", mixed=False),
            "pixels": score_tile_pixels(score, found, ""),
        }
        grid, is_so, known, rule = run.grid, found.positive, found.known, found.rule
    else:
        found = None
        tables = {"pixels": score_picture(run, truth, positive, "", answer=name)}
        grid, score, labels = _coarse(run, truth, name)
        is_so = np.isin(labels, positive_indices(truth.names, positive))
        known, rule = labels != UNJUDGED, truth.rule
    counts = {level: cases.counts() for level, cases in tables.items()}
    return SlideOutcome(
        grid, score, is_so, known & np.isfinite(score), found, tables, counts, rule
    )


def _coarse(
    run: SegmentationStore, truth: Truth, name: str
) -> tuple[TileGrid, Floats, NDArray[np.uint8]]:
    """Return a level of a segmentation as cells with their probabilities, and their labels."""
    shapes = run.level_shapes
    level = next((k for k, s in enumerate(shapes) if s[0] * s[1] <= MOST_CELLS), len(shapes) - 1)
    rows, columns = shapes[level]
    mpp = run.grid.spec.mpp * 2**level
    stored = run.read(level, slice(0, rows), slice(0, columns))[class_index(run, name)]
    pixel = (mpp / run.grid.slide_mpp[0], mpp / run.grid.slide_mpp[1])
    pixels = MaskGrid(columns, rows, pixel, (mpp, mpp))
    bands = [band for _, band in bands_of(truth, pixels, run.grid.slide_size_px0)]
    none = np.empty((0, 2), np.int32)
    empty = TileGrid(GridSpec(mpp, 1, 1), run.grid.slide_mpp, run.grid.slide_size_px0, none)
    rows, columns = min(rows, empty.shape[0]), min(columns, empty.shape[1])
    grid = replace(empty, cells=np.indices((rows, columns), dtype=np.int32).reshape(2, -1).T)
    values = from_stored(stored[:rows, :columns]).astype(np.float64).ravel()
    return grid, values, np.concatenate(bands)[:rows, :columns].ravel()
