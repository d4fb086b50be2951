"""What of a MIL run can be shown: attention, contributions, scores of patches; where each lies.

Pure arrays, neither napari nor Qt. How one of them is coloured is in `attention_view.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_histomil.errors import RunError
from napari_histomil.geometry import magnification
from napari_histomil.heatmaps import AttentionRow, CellPicture, merge, picture_of_cells
from napari_histomil.results.mil import WEIGHTS, MilMap, MilRun
from napari_histomil.ui.words import times

ATTENTION, SELECTION = "attention", "where to zoom in"
CONTRIBUTION, SCORE = "contribution", "patch score"

WHAT: Mapping[str, str] = MappingProxyType(
    {
        CONTRIBUTION: "What each patch adds to the class's logit: red speaks for the class, blue "
        "against it. With the bias the contributions are the logit, exactly.",
        ATTENTION: "What the model looked at.",
        SCORE: "What the model says of each patch by itself: its own logit.",
        SELECTION: "The auxiliary attention that chose the patches to zoom into.",
    }
)
"""What can be shown, with what it means in words; `meaning` says it of one map."""

SIGNED = (CONTRIBUTION, SCORE)
"""What diverges around 0."""

MERGED = -1
"""Stands for all magnifications in one map, where a level's index is expected."""

EVERY_CLASS = "all classes"
"""The head of a map with one row for all classes."""

_SAYS_LITTLE = ("uniform", "argmax")
"""Maps of pooling without attention: scores or contributions of patches say more."""


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """One thing that is shown: a value for each tile of a level, and where the tiles lie."""

    values: NDArray[np.float64] = field(repr=False)
    """float64 [N]; NaN where a tile was not examined."""
    picture: CellPicture
    """Where each tile is drawn."""
    xy_px0: NDArray[np.float64] = field(repr=False)
    """float64 [N, 2]: (x, y) of the corner of each tile's footprint."""
    side_px0: tuple[float, float]
    mpp: float | None
    """Resolution at which the model looked; None where nobody knows."""
    row: AttentionRow | None = None
    """Of attention, [N] as `values`."""


def whats(run: MilRun) -> tuple[str, ...]:
    """Return what can be shown of a run, what is shown first at the front."""
    found = []
    if run.contributions:
        found.append(CONTRIBUTION)
    maps = [m for m in run.maps if m.kind != "selection" and _has_values(m)]
    scores = [SCORE] if run.instance_scores is not None else []
    if maps:
        says_little = all(m.kind in _SAYS_LITTLE for m in maps)
        found += [*scores, ATTENTION] if says_little else [ATTENTION, *scores]
    else:
        found += scores
    if any(m.kind == "selection" and _has_values(m) for m in run.maps):
        found.append(SELECTION)
    return tuple(found)


def levels(run: MilRun, what: str) -> tuple[int, ...]:
    """Return the magnifications at which something can be shown, what is shown first last."""
    if what == CONTRIBUTION:
        found = [part.level for part in run.contributions]
        nested = len(found) > 1 and all(run.levels[i].grid is not None for i in found)
        return (*found, MERGED) if nested else tuple(found)
    if what == SCORE:
        return (0,)
    return tuple(m.level for m in _maps(run, what))


def level_name(run: MilRun, level: int, *, short: bool = False) -> str:
    """Return what a magnification is called; without µm/px if it shall be short."""
    if level == MERGED:
        return "all, added"
    facts = run.levels[level]
    name = f"level {level + 1}" if facts.mpp is None else times(magnification(facts.mpp))
    if facts.mpp is not None and not short:
        name += f" ({facts.mpp:.3g} µm/px)"
    return name if facts.finer_than is None else f"{name}, finer steps"


def heads(run: MilRun, what: str, level: int) -> tuple[str, ...]:
    """Return the names of what can be shown of a magnification: classes, or one for all."""
    if what in SIGNED:
        return run.class_names
    rows = _rows(_map(run, what, level))
    return run.class_names if rows == len(run.classes) else (EVERY_CLASS,)


def first_head(run: MilRun, names: tuple[str, ...]) -> int:
    """Return which head is shown first: that of the predicted class."""
    return run.answer.predicted if len(names) == len(run.classes) > 1 else 0


def meaning(run: MilRun, what: str, level: int) -> str:
    """Return what the numbers are, in a sentence or two."""
    return WHAT[what] if what in SIGNED else _map(run, what, level).meaning


def effective_number(run: MilRun, what: str, level: int, head: int) -> float | None:
    """Return over how many patches a row of attention is spread; None where it is no share."""
    if what in SIGNED or run.levels[level].finer_than is not None:
        return None
    numbers = _map(run, what, level).effective_number
    return None if numbers is None else float(numbers[head])


def shown(run: MilRun, what: str, level: int, head: int, slide_size_px0: tuple[int, int]) -> Shown:
    """Return one thing to show.

    Parameters
    ----------
    run
        The run.
    what, level, head
        Of `whats`, `levels` and `heads`.
    slide_size_px0
        (width, height) of the slide.
    """
    if level == MERGED:
        return _merged(run, head)
    if what == CONTRIBUTION:
        part = next(part for part in run.contributions if part.level == level)
        return _placed(
            run, level, _spread(run, level, part.index, part.values[head]), slide_size_px0
        )
    if what == SCORE:
        assert run.instance_scores is not None  # or it would not be offered
        return _placed(run, level, run.instance_scores[:, head].astype(np.float64), slide_size_px0)
    row = _row(run, what, level, head)
    return _placed(run, level, np.asarray(row.ordered, np.float64), slide_size_px0, row)


def _placed(
    run: MilRun,
    level: int,
    values: NDArray[np.float64],
    slide_size_px0: tuple[int, int],
    row: AttentionRow | None = None,
) -> Shown:
    facts = run.levels[level]
    if facts.grid is not None:
        picture = CellPicture.of_grid(facts.grid)
    else:
        picture = picture_of_cells(facts.xy_px0, facts.side_px0, slide_size_px0)
    return Shown(values, picture, facts.xy_px0, facts.side_px0, facts.mpp, row)


def _merged(run: MilRun, head: int) -> Shown:
    parts = []
    for part in run.contributions:
        grid = run.levels[part.level].grid
        if grid is None:
            raise RunError("Only magnifications on our own grids can be shown in one map.")
        parts.append((grid, _spread(run, part.level, part.index, part.values[head])))
    picture, values = merge(parts)
    rows, columns = np.nonzero(picture.tiles >= 0)  # in the order of the tiles' numbers
    xy = np.column_stack([columns, rows]) * np.array(picture.pixel_px0)
    return Shown(
        values, picture, xy, picture.pixel_px0, run.levels[run.contributions[-1].level].mpp
    )


def _row(run: MilRun, what: str, level: int, head: int) -> AttentionRow:
    shown_map, base = _map(run, what, level), run.levels[level].finer_than
    own = level if base is None else base
    coarse = None
    if base is not None:
        model_pass = _map(run, what, base)
        # Of the same kind as what is ranked: raw where the finer map has it.
        values = model_pass.value if shown_map.raw is None else model_pass.raw
        coarse = None if values is None else values[head]
    return AttentionRow(
        value=_of_row(run, level, shown_map, shown_map.value, head),
        raw=_of_row(run, level, shown_map, shown_map.raw, head),
        tiles=len(_map(run, what, own).index),
        shares=shown_map.kind in WEIGHTS,
        coarse=coarse,
        quantiles=_quantiles(run, _map(run, what, own)),
    )


def _of_row(
    run: MilRun, level: int, shown_map: MilMap, values: NDArray[np.float32] | None, head: int
) -> NDArray[np.float64] | None:
    return None if values is None else _spread(run, level, shown_map.index, values[head])


def _spread(
    run: MilRun, level: int, index: NDArray[np.int64], values: NDArray[np.floating[Any]]
) -> NDArray[np.float64]:
    """Return values of some tiles of a level as values of all, NaN where there is none."""
    every = np.full(len(run.levels[level]), np.nan)
    every[index] = values
    return every


def _quantiles(run: MilRun, of: MilMap) -> NDArray[np.float64] | None:
    """Return the model's reference distribution of a map; None where it says none."""
    every = (run.model.get("reference") or {}).get("attention_quantiles")
    number = next(i for i, each in enumerate(run.maps) if each is of)
    if not every or number >= len(every) or not every[number]:
        return None
    found = np.asarray(every[number], np.float64)
    return found if found.ndim == 1 and np.isfinite(found).all() else None


def _maps(run: MilRun, what: str) -> list[MilMap]:
    return [
        m for m in run.maps if (m.kind == "selection") == (what == SELECTION) and _has_values(m)
    ]


def _map(run: MilRun, what: str, level: int) -> MilMap:
    return next(m for m in _maps(run, what) if m.level == level)


def _has_values(of: MilMap) -> bool:
    return of.value is not None or of.raw is not None


def _rows(of: MilMap) -> int:
    values = of.value if of.raw is None else of.raw
    assert values is not None  # `_has_values`
    return len(values)
