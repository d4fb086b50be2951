"""Two models on the same tissue: where they differ, how much, and who is right by the truth.

Cells of the first run are compared; the second run answers for the place of their middle, so grids
need not be the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from napari_histomil.heatmaps.scores import hottest
from napari_histomil.results import RunStore
from napari_histomil.review.metrics import Confusion, Score, kappa
from napari_histomil.review.scored import positive_scores
from napari_histomil.review.truth import Bools, Floats, TileTruth
from napari_histomil.review.truth_files import check_same_slide
from napari_histomil.tiling import TileGrid

Right = Literal["first", "second", "unknown"]

SIDES = ("positive", "negative")


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A cell that one model calls positive and the other negative."""

    tile: int
    """Index into the first run's tiles."""
    xy_px0: tuple[float, float]
    """Middle of the cell."""
    first: float
    second: float
    right: Right
    """Who is right by the truth."""


@dataclass(frozen=True, slots=True, eq=False)
class RunsCompared:
    """Two runs of one slide."""

    grid: TileGrid
    first: Floats = field(repr=False)
    """float64 [N], P(positive) of each cell of the first run; NaN where there is none."""
    second: Floats = field(repr=False)
    names: tuple[str, str]
    truth: TileTruth | None = None

    @property
    def difference(self) -> Floats:
        """float64 [N], the first less the second: -1 to 1, NaN where one has no answer."""
        return self.first - self.second

    @property
    def common(self) -> Bools:
        """Bool [N], cells that both have answered for."""
        return np.isfinite(self.difference)

    def agreement(self, threshold: float, second_threshold: float | None = None) -> Confusion:
        """Return how often the first says row i where the second says column j."""
        one, two = self._called(threshold, second_threshold)
        table = [[(one & two).sum(), (one & ~two).sum()], [(~one & two).sum(), 0]]
        counts = np.array(table, np.int64)
        counts[1, 1] = int(self.common.sum()) - counts.sum()
        return Confusion(counts, SIDES, self.names)

    def kappa(self, threshold: float, second_threshold: float | None = None) -> Score:
        """Return Cohen's kappa of the two."""
        return kappa(self.agreement(threshold, second_threshold))

    def disagreements(
        self,
        threshold: float,
        second_threshold: float | None = None,
        *,
        most: int = 200,
        apart_um: float = 0.0,
    ) -> list[Disagreement]:
        """Return the cells that the two call differently, those that they differ most in first.

        Parameters
        ----------
        threshold, second_threshold
            Of each model; the same by default.
        most
            How many at most.
        apart_um
            No two lie nearer, so that one place does not fill the table.
        """
        one, two = self._called(threshold, second_threshold)
        gaps = np.where(one != two, np.abs(self.difference), np.nan)
        chosen = hottest(self.grid, gaps, count=most, min_distance_um=apart_um)
        rects = self.grid.cell_rects_px0[chosen]
        middles = rects[:, :2] + rects[:, 2:] / 2
        return [
            Disagreement(
                int(tile),
                (float(x), float(y)),
                float(self.first[tile]),
                float(self.second[tile]),
                self._right(int(tile), bool(one[tile])),
            )
            for tile, (x, y) in zip(chosen, middles, strict=True)
        ]

    def _called(self, threshold: float, second: float | None) -> tuple[Bools, Bools]:
        common = self.common
        with np.errstate(invalid="ignore"):
            one = common & (self.first >= threshold)
            two = common & (self.second >= (threshold if second is None else second))
        return one, two

    def _right(self, tile: int, first_called: bool) -> Right:
        if self.truth is None or not self.truth.known[tile]:
            return "unknown"
        return "first" if bool(self.truth.positive[tile]) == first_called else "second"


def compare_runs(
    first: RunStore, second: RunStore, answer: str, truth: TileTruth | None = None
) -> RunsCompared:
    """Lay two runs of patch classifiers on the same tissue beside each other.

    Parameters
    ----------
    first, second
        Runs of one slide.
    answer
        Class of both.
    truth
        Of the first run's tiles, where it is known.

    Raises
    ------
    RunError
        If they are of different slides, or one has no such class.
    """
    check_same_slide(first, second)
    names = str(first.model.get("name", "first")), str(second.model.get("name", "second"))
    if names[0] == names[1]:
        names = f"{names[0]} ({first.run_id})", f"{names[1]} ({second.run_id})"
    return RunsCompared(
        first.grid,
        positive_scores(first, answer),
        scores_at(second, answer, first.grid),
        names,
        truth,
    )


def scores_at(run: RunStore, answer: str, grid: TileGrid) -> Floats:
    """Return what a run says at the middle of each cell of a grid of its slide, float64 [N]."""
    picture = np.full(run.grid.shape, np.nan)
    picture[tuple(run.grid.cells.T)] = positive_scores(run, answer)
    rects = grid.cell_rects_px0
    middles = (rects[:, :2] + rects[:, 2:] / 2) / np.array(run.grid.cell_size_px0)
    column, row = np.floor(middles + 1e-9).astype(np.int64).T
    inside = (row < picture.shape[0]) & (column < picture.shape[1])
    found: NDArray[np.float64] = np.full(len(grid), np.nan)
    found[inside] = picture[row[inside], column[inside]]
    return found
