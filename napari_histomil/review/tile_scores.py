"""What a stored run gave the tiles of one slide, whichever kind of run it is.

A gallery, an embedding and a list of lesions all speak of `TileScores`: places, numbers, and what
is known of the truth. Choosing among them is the matter of those files.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from napari_histomil.errors import RunError
from napari_histomil.results import (
    FeatureStore,
    MilRun,
    RunStore,
    find_slide,
    open_mil_run,
    run_task,
)
from napari_histomil.results.bag import Features
from napari_histomil.results.mil import TASK as MIL_TASK

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class TileScores:
    """Tiles of one slide with a number each.

    Raises
    ------
    RunError
        If the arrays are not as long as one another.
    """

    slide: Path
    fingerprint: str
    rects_px0: NDArray[np.float64] = field(repr=False)
    """float64 [N, 4]: x, y, width, height of the cell that each tile answers for, level-0 px."""
    scores: NDArray[np.float64] = field(repr=False)
    """float64 [N]; NaN where the tile was not looked at."""
    what: str
    """What the numbers are, such as ``P(tumor)``."""
    model: str
    """Name of the model that gave them."""
    is_probability: bool = True
    """Whether they can be held against a truth; attention cannot."""
    truth: NDArray[np.float64] | None = field(default=None, repr=False)
    """float64 [N]: share of each tile that is positive, NaN where nobody says; None if nowhere."""
    features: Features | Floats | None = field(default=None, repr=False)
    """[N, D], rows read as they are asked for; NaN where a tile has none."""
    run: Path | None = None
    """The run that they are from."""

    def __post_init__(self) -> None:
        for name in ("scores", "truth", "features"):
            values = getattr(self, name)
            if values is not None and len(values) != len(self.rects_px0):
                raise RunError(
                    f"{self.slide.name} has {len(self.rects_px0)} tiles and {len(values)} values "
                    f"of {name}: they are of different runs."
                )

    def __len__(self) -> int:
        return len(self.rects_px0)

    @property
    def centers_px0(self) -> NDArray[np.float64]:
        """float64 [N, 2]: (x, y) of the middle of each tile, level-0 px."""
        return self.rects_px0[:, :2] + self.rects_px0[:, 2:] / 2

    def with_truth(self, share: Floats) -> TileScores:
        """Return the tiles with the share of each that is positive, [N]."""
        return replace(self, truth=np.asarray(share, np.float64))

    def with_features(self, run: FeatureStore) -> TileScores:
        """Return the tiles with the features of those of another grid that lie over them.

        A tile gets the features of the one whose middle is nearest, and none where that is
        farther than half a cell of the coarser grid: their tiles then show different places.

        Raises
        ------
        RunError
            If the features are of another slide.
        """
        if run.slide["fingerprint"] != self.fingerprint:
            raise RunError(f"{run.path.name} holds the features of another slide.")
        known = run.known_tiles
        theirs = run.grid.cell_rects_px0
        rows = nearest_places(
            theirs[known, :2] + theirs[known, 2:] / 2,
            self.centers_px0,
            within_px0=max(float(np.max(theirs[:1, 2:], initial=0)), _side(self.rects_px0)) / 2,
        )

        def read(wanted: slice | NDArray[np.int64]) -> Floats:
            chosen = rows[wanted]
            found = np.full((len(chosen), run.dim), np.nan, np.float32)
            there = chosen >= 0
            if there.any():
                # each stored row once and in order: chunks are then read one after the other
                stored, back = np.unique(known[chosen[there]], return_inverse=True)
                found[there] = run.read(stored)[back]
            return found

        return replace(self, features=Features(read, (len(self), run.dim), np.float32))


def scores_of_run(
    run: RunStore, class_name: str | None = None, *, slide: Path | None = None
) -> TileScores:
    """Return the probabilities of a class that a patch classifier gave.

    Parameters
    ----------
    run
        Stored scores, also while they are still coming in.
    class_name
        The model's positive class by default, or the last where it names none.
    slide
        Where the slide is now; where the run says it was by default.

    Raises
    ------
    RunError
        If the run has no such class.
    """
    names = run.class_names
    name = class_name or str(run.model.get("positive_class") or names[-1])
    if name not in names:
        raise RunError(f"{run.path.name} has no class '{name}': choose one of {', '.join(names)}.")
    return TileScores(
        slide or Path(run.slide["path"]),
        str(run.slide["fingerprint"]),
        run.grid.cell_rects_px0,
        run.scores[:, names.index(name)].astype(np.float64),
        f"P({name})",
        str(run.model["name"]),
        run=run.path,
    )


def attention_of_run(
    run: MilRun, head: int | None = None, *, slide: Path | None = None
) -> TileScores:
    """Return the attention that a model of slides paid, times what a tile would have by chance.

    That number means the same on every slide (``x uniform`` of `heatmaps.SCALES`); where a map
    holds no shares its values are taken as they are.

    Parameters
    ----------
    run
        The stored answer; its first map is taken.
    head
        Row of the map; that of the predicted class by default.
    slide
        As of `scores_of_run`.

    Raises
    ------
    RunError
        If the run has no map.
    """
    shown = run.default_map
    if shown is None or (shown.value is None and shown.raw is None):
        raise RunError(
            f"{run.model['name']} says nothing of single tiles of {run.slide['name']}: choose a "
            f"model with attention."
        )
    level = run.levels[shown.level]
    values = shown.raw if shown.value is None else shown.value
    assert values is not None, "a map holds raw values or others"
    row = min(run.answer.predicted if head is None else head, len(values) - 1)
    shares = shown.value is not None and shown.effective_number is not None
    bag = level if level.finer_than is None else run.levels[level.finer_than]
    scores = np.full(len(level), np.nan)
    scores[shown.index] = values[row] * (len(bag) if shares else 1)
    rects = np.column_stack([level.xy_px0, np.tile(level.side_px0, (len(level), 1))])
    return TileScores(
        slide or Path(run.slide["path"]),
        str(run.slide["fingerprint"]),
        rects,
        scores,
        f"{shown.kind} x uniform" if shares else shown.kind,
        str(run.model["name"]),
        is_probability=False,
        run=run.path,
    )


def read_tiles(
    path: Path, class_name: str | None = None, *, with_features: bool = True
) -> TileScores:
    """Return what a run on disk gave the tiles of its slide, scores or attention.

    Parameters
    ----------
    path
        The run's folder.
    class_name
        Of scores, as of `scores_of_run`.
    with_features
        Whether features of the slide that lie beside the run are taken along: those of the finest
        tiles.

    Raises
    ------
    RunError
        If the run cannot be opened, is one of another task, or its slide is not found.
    """
    task = run_task(path)
    if task not in (None, RunStore.TASK, MIL_TASK):
        raise RunError(
            f"{path.name} is a run of the task '{task}', which gives tiles no score: choose one "
            f"of a patch classifier or of a MIL model."
        )
    run = open_mil_run(path) if task == MIL_TASK else RunStore.open(path)
    told, fingerprint = Path(run.slide["path"]), str(run.slide["fingerprint"])
    slide = find_slide(path, told, fingerprint)
    if slide is None:
        raise RunError(
            f"The slide {told.name} of {path.name} is not found: put it back to {told}."
        )
    tiles = (
        attention_of_run(run, slide=slide)
        if isinstance(run, MilRun)
        else scores_of_run(run, class_name, slide=slide)
    )
    features = features_beside(path, fingerprint) if with_features else None
    return tiles if features is None else tiles.with_features(features)


def features_beside(path: Path, fingerprint: str) -> FeatureStore | None:
    """Return the features of a slide that lie beside one of its runs; None where none do.

    Of several those of the finest tiles, and of these the ones made last.
    """
    found = [
        FeatureStore.open(each)
        for each in path.parent.glob("*.zarr")
        if run_task(each) == FeatureStore.TASK
    ]
    usable = [
        each
        for each in found
        if each.slide["fingerprint"] == fingerprint and len(each.known_tiles)
    ]
    return min(
        usable, key=lambda each: (each.grid.spec.cell_um, -each.created.timestamp()), default=None
    )


def nearest_places(places: Floats, of: Floats, *, within_px0: float = np.inf) -> NDArray[np.int64]:
    """Return for each point the index of the nearest place, -1 where none is near.

    Parameters
    ----------
    places
        [N, 2]: (x, y), level-0 px.
    of
        [M, 2]: the points.
    within_px0
        Farther places are none.

    Returns
    -------
    int64 [M]
    """
    if not len(places) or not len(of):
        return np.full(len(of), -1, np.int64)
    _, rows = cKDTree(places).query(of, distance_upper_bound=within_px0 * (1 + 1e-9))
    return np.where(rows == len(places), -1, rows).astype(np.int64)


def _side(rects_px0: Floats) -> float:
    return float(np.max(rects_px0[:1, 2:], initial=0))
