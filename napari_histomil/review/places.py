"""Which places of a slide a reader is led to: those that weigh most in a model's answer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from napari_histomil.geometry import Rect
from napari_histomil.heatmaps.scores import hottest
from napari_histomil.results import MilRun, RunStore, SegmentationStore
from napari_histomil.review.predictions import target_of
from napari_histomil.review.verdicts import Place

TOP = 10
"""Places that a reader is led to."""

APART_CELLS = 1.5
"""Tiles whose middles lie closer than so many cells are one place."""


@dataclass(frozen=True, slots=True)
class Spot:
    """One place with what the model says of it."""

    place: Place
    score: float
    """Probability of the class asked about, or attention."""


def top_places(
    run: RunStore | MilRun | SegmentationStore, target: str = "", count: int = TOP
) -> list[Spot]:
    """Return the places of a run with the highest scores of a class, the highest first.

    Of a MIL run those of its map of the highest magnification. A segmentation has none.

    Parameters
    ----------
    run
        The run.
    target
        The class; the model's positive one where it is empty.
    count
        How many at most; no two overlap or touch.

    Raises
    ------
    RunError
        If the model has no class of that name.
    """
    if isinstance(run, SegmentationStore):
        return []
    index = target_of(run.class_names, target, run.model.get("positive_class"), run.path)
    slide = str(run.slide["fingerprint"])
    if isinstance(run, MilRun):
        return list(_of_map(run, index, slide, count))
    grid, scores = run.grid, run.scores[:, index]
    apart_um = APART_CELLS * grid.spec.cell_um
    rects = grid.cell_rects_px0
    return [
        Spot(_place(slide, rects[tile]), float(scores[tile]))
        for tile in hottest(grid, scores, count=count, min_distance_um=apart_um)
    ]


def _of_map(run: MilRun, index: int, slide: str, count: int) -> Iterator[Spot]:
    shown = run.default_map
    if shown is None or shown.value is None:
        return
    level = run.levels[shown.level]
    values = shown.value[index if len(shown.value) > 1 else 0]
    width, height = level.side_px0
    taken: list[tuple[float, float]] = []
    for n in np.argsort(-values, kind="stable"):
        x, y = (float(v) for v in level.xy_px0[shown.index[n]])
        if any(
            abs(x - a) < APART_CELLS * width and abs(y - b) < APART_CELLS * height
            for a, b in taken
        ):
            continue
        taken.append((x, y))
        yield Spot(Place(slide, (x, y), (width, height)), float(values[n]))
        if len(taken) == count:
            return


def _place(slide: str, rect: np.ndarray) -> Place:
    x, y, width, height = (float(v) for v in rect)
    return Place(slide, (x, y), (width, height))


def looked_at(run: RunStore | MilRun | SegmentationStore) -> Rect | None:
    """Return the rectangle around all that a model was given: the tissue, where it was found.

    It tells nothing of the answer.
    """
    if isinstance(run, MilRun):
        corners = np.concatenate([level.xy_px0 for level in run.levels[:1]])
        sides = np.array(run.levels[0].side_px0)
    else:
        corners = run.grid.cell_rects_px0[:, :2]
        sides = run.grid.cell_rects_px0[:1, 2:]
    if not len(corners):
        return None
    low, high = corners.min(axis=0), (corners + sides).max(axis=0)
    return Rect(float(low[0]), float(low[1]), *(float(v) for v in high - low))
