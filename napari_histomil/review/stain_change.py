"""What a model would have said of another staining: runs under stain conditions side by side.

The runs are made by jobs with a condition (`inference`); here those that are stored are found and
compared: same slide, model, tiles and region, and nothing else than the stains changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_histomil.errors import RunError
from napari_histomil.results import RunStore
from napari_histomil.review.scored import positive_scores
from napari_histomil.review.slide_answers import Rule, slide_answer
from napari_histomil.review.truth import Floats

AS_IT_IS = "as it is"
"""The slide without any condition."""

_DECIDES = ("slide", "model", "task", "grids", "region")
"""Members of a job that have to be the same."""


@dataclass(frozen=True, slots=True)
class UnderCondition:
    """What the model says under one condition."""

    condition: str
    run: str
    answer: float
    """P(positive) of the slide by the rule."""
    mean: float
    """Of the tiles."""
    called: int
    """Tiles called positive."""
    to_positive: int
    """Tiles called positive that are not so without the condition."""
    to_negative: int
    difference: float
    """Mean absolute difference of the tiles' answers to those without the condition."""


@dataclass(frozen=True, slots=True, eq=False)
class StainChange:
    """All conditions of one slide."""

    conditions: tuple[UnderCondition, ...]
    """The slide as it is first."""
    scores: Floats = field(repr=False)
    """float64 [conditions, N], P(positive) of each tile; NaN where there is none."""
    rule: str
    threshold: float

    @property
    def answers(self) -> tuple[float, float]:
        """Lowest and highest answer for the slide."""
        found = [each.answer for each in self.conditions]
        return min(found), max(found)

    @property
    def range(self) -> Floats:
        """float64 [N], highest less lowest answer of each tile: how much stains decide there."""
        spread: NDArray[np.float64] = self.scores.max(axis=0) - self.scores.min(axis=0)
        return spread

    @property
    def unstable(self) -> int:
        """How many tiles are called differently under some condition."""
        called = self.scores >= self.threshold
        known = np.isfinite(self.scores).all(axis=0)
        return int((known & (called.any(axis=0) != called.all(axis=0))).sum())

    def document(self) -> dict[str, Any]:
        """Return it as JSON takes it, without the tiles."""
        low, high = self.answers
        return {
            "rule": self.rule,
            "threshold": self.threshold,
            "conditions": [asdict(each) for each in self.conditions],
            "answer_low": low,
            "answer_high": high,
            "unstable_tiles": self.unstable,
        }


def condition_of(run: RunStore) -> str:
    """Return the stain condition of a run's job, `AS_IT_IS` where there is none."""
    return str(run.job.get("stain", {}).get("condition") or AS_IT_IS)


def runs_like(run: RunStore, paths: Sequence[Path]) -> dict[str, RunStore]:
    """Return the finished runs that differ from one in the stain condition only, by condition.

    Parameters
    ----------
    run
        One of them.
    paths
        Stored runs of the slide, as `find_runs` lists them; those that cannot be opened are
        passed over.
    """
    found = {condition_of(run): run}
    for path in paths:
        try:
            other = RunStore.open(path)
        except RunError:
            continue
        if _differs_only_in_stain(run, other) and other.complete:
            found.setdefault(condition_of(other), other)
    return found


def compare_stains(
    runs: Mapping[str, RunStore], answer: str, *, rule: Rule, threshold: float = 0.5
) -> StainChange:
    """Compare the runs of one slide under several conditions.

    Parameters
    ----------
    runs
        By condition, `AS_IT_IS` among them; from `runs_like`.
    answer
        Class of the model.
    rule
        How tiles become the slide's answer.
    threshold
        Called positive from here on.

    Raises
    ------
    RunError
        If the run without a condition is missing, there is no other, or they do not go together.
    """
    if AS_IT_IS not in runs or len(runs) < 2:
        raise RunError(
            f"There are runs under {len(runs)} stain conditions ({', '.join(runs)}): to compare, "
            f"run the model on the slide as it is and under a condition (--stain-condition)."
        )
    base = runs[AS_IT_IS]
    names = [AS_IT_IS, *(name for name in runs if name != AS_IT_IS)]
    for name in names[1:]:
        if not _differs_only_in_stain(base, runs[name]):
            raise RunError(
                f"{runs[name].path.name} differs from {base.path.name} in more than the stains: "
                f"it is of another slide, model, grid or region."
            )
    scores = np.stack([positive_scores(runs[name], answer) for name in names])
    known = np.isfinite(scores).all(axis=0)
    if not known.any():
        raise RunError("The runs have no tile in common: nothing can be compared.")
    scores[:, ~known] = np.nan
    with np.errstate(invalid="ignore"):
        called = scores >= threshold
    conditions = [
        UnderCondition(
            condition=name,
            run=runs[name].run_id,
            answer=slide_answer(scores[n], rule),
            mean=float(scores[n, known].mean()),
            called=int(called[n].sum()),
            to_positive=int((called[n] & ~called[0]).sum()),
            to_negative=int((called[0] & ~called[n]).sum()),
            difference=float(np.abs(scores[n] - scores[0])[known].mean()),
        )
        for n, name in enumerate(names)
    ]
    return StainChange(tuple(conditions), scores, str(rule), threshold)


def _differs_only_in_stain(run: RunStore, other: RunStore) -> bool:
    """Whether two jobs agree in all else; neither may be normalised, which undoes conditions."""
    one, two = run.job, other.job
    stains = [str(job.get("stain", {}).get("method", "none")) for job in (one, two)]
    same = all(one.get(name) == two.get(name) for name in _DECIDES)
    return same and stains[0] == stains[1] and np.array_equal(run.grid.cells, other.grid.cells)
