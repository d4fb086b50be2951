"""Which tiles of stored results are worth a look, and why; one page of them is a gallery.

One slide shall not fill the page: a slide gives at most so many, and what lies side by side or
looks alike is one patch with the others behind it. Nothing here reads pixels
(`slides/thumbnails.py` does) or knows a window.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_histomil.errors import RunError
from napari_histomil.files import write_rows
from napari_histomil.review.tile_scores import TileScores

Point = tuple[float, float]

KINDS: Mapping[str, str] = MappingProxyType(
    {
        "false positives": "called positive and are not, the surest first",
        "false negatives": "positive and missed, those with the lowest score first",
        "most uncertain": "with scores nearest to the threshold",
        "confidently wrong": "wrong either way, those farthest from the truth first",
        "highest": "with the highest scores or attention",
        "lowest": "with the lowest scores or attention",
        "random": "drawn at random, the same ones for the same seed",
    }
)
"""Name of each selection, with what it lists in words."""

NEED_TRUTH = ("false positives", "false negatives", "confidently wrong")
"""Selections that mean nothing where the truth is not known."""

COLUMNS = (
    "slide", "x_px0", "y_px0", "width_px0", "height_px0", "score", "truth", "why", "alike",
)  # fmt: skip
"""Of a gallery as a table, before the questions of the form."""

PAGE = 100
"""Patches of a page."""

APART_CELLS = 1.5
"""Tiles whose middles are nearer than so many cells lie side by side."""

ALIKE = 0.02
"""Cosine distance of features below which tiles look alike."""

FEATURES_OF = 5_000
"""So many of the foremost tiles are compared by their features; all are by their place."""


@dataclass(frozen=True, slots=True)
class Patch:
    """One thumbnail of a gallery: a place of a slide, and why it is listed."""

    slide: Path
    fingerprint: str
    xy_px0: Point
    """Upper left corner (x, y) of the tile's cell, level-0 px."""
    size_px0: Point
    """(width, height), level-0 px."""
    score: float
    """What the model gave the tile."""
    truth: float
    """Share of it that is positive by the ground truth; NaN where nobody says."""
    why: str
    """Why it is listed, in words."""
    alike: tuple[Patch, ...] = field(default=(), repr=False)
    """Others of the same kind that lie beside it or look like it, and are not listed
    themselves."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What a gallery lists.

    Raises
    ------
    RunError
        If there is no such selection, or a number is out of reason.
    """

    kind: str = "false positives"
    """A name of `KINDS`."""
    count: int = PAGE
    """Patches at most."""
    a_slide: int | None = 10
    """At most so many of one slide; None for any number."""
    threshold: float = 0.5
    """A score at or above it is a positive call."""
    positive_share: float = 0.5
    """A tile with at least this share of the class is positive."""
    group: bool = True
    """Whether neighbours and tiles that look alike are listed as one."""
    seed: int = 0
    """Of what is drawn at random."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise RunError(f"There is no selection '{self.kind}': choose one of {_list(KINDS)}.")
        if self.count < 1 or (self.a_slide is not None and self.a_slide < 1):
            raise RunError("A gallery lists at least one patch, and one a slide.")


def select(tiles: Sequence[TileScores], choice: Choice) -> list[Patch]:
    """Return the patches of a gallery, those worth most first.

    Equal ones come in the order of the slides, and of the tiles in a slide. The walk is greedy:
    the foremost tile is taken, what lies beside it or looks like it goes behind it, and so on.

    Parameters
    ----------
    tiles
        The tiles of each slide.
    choice
        What is listed.

    Raises
    ------
    RunError
        If the selection needs a truth and there is none, or probabilities and they are not.
    """
    _check(tiles, choice)
    worth = [_worth(each, choice, n) for n, each in enumerate(tiles)]
    if not worth:
        return []
    slide = np.concatenate([np.full(len(each), n) for n, each in enumerate(tiles)])
    tile = np.concatenate([np.arange(len(each)) for each in tiles])
    every = np.concatenate(worth)
    order = np.argsort(-every, kind="stable")
    order = order[np.isfinite(every[order])]
    walk = _Walk(tiles, slide[order].astype(np.int64), tile[order].astype(np.int64), choice)
    return walk.taken()


class _Walk:
    """Candidates in the order of their worth, some of which stand for others."""

    def __init__(
        self,
        tiles: Sequence[TileScores],
        slide: NDArray[np.int64],
        tile: NDArray[np.int64],
        choice: Choice,
    ) -> None:
        self._tiles, self._choice = tiles, choice
        self._slide, self._tile = slide, tile
        self._left = np.ones(len(slide), bool)
        self._of = [np.flatnonzero(slide == n) for n in range(len(tiles))]
        self._centers = [
            each.centers_px0[tile[of]] for each, of in zip(tiles, self._of, strict=True)
        ]
        self._features = self._read_features() if choice.group else None

    def taken(self) -> list[Patch]:
        choice = self._choice
        found: list[Patch] = []
        room = [math.inf if choice.a_slide is None else choice.a_slide] * len(self._tiles)
        for n in range(len(self._slide)):
            if len(found) == choice.count:
                break
            slide = int(self._slide[n])
            if not self._left[n] or not room[slide]:
                continue
            self._left[n] = False
            room[slide] -= 1
            others = self._beside(n) if choice.group else np.empty(0, np.int64)
            self._left[others] = False
            behind = tuple(self._patch(int(other)) for other in others)
            found.append(replace(self._patch(n), alike=behind))
        return found

    def _beside(self, n: int) -> NDArray[np.int64]:
        """Return the candidates left that lie beside one or look like it, in order."""
        slide = int(self._slide[n])
        of, centers = self._of[slide], self._centers[slide]
        side = self._tiles[slide].rects_px0[self._tile[n], 2:]
        away = (centers - centers[np.searchsorted(of, n)]) / side
        near = [of[(away**2).sum(1) < APART_CELLS**2]]
        features = self._features
        if features is not None and n < len(features) and np.isfinite(features[n, 0]):
            near.append(np.flatnonzero(features @ features[n] > 1 - ALIKE))
        found = np.unique(np.concatenate(near))
        kept: NDArray[np.int64] = found[self._left[found]]
        return kept

    def _read_features(self) -> NDArray[np.float32] | None:
        """Return the features of the foremost, each of length 1; NaN where there are none."""
        count = min(FEATURES_OF, len(self._slide))
        dims = {each.features.shape[1] for each in self._tiles if each.features is not None}
        if len(dims) != 1:  # none, or of encoders that cannot be compared
            return None
        found = np.full((count, dims.pop()), np.nan, np.float32)
        for slide, each in enumerate(self._tiles):
            rows = self._of[slide][: np.searchsorted(self._of[slide], count)]
            if each.features is not None and len(rows):
                found[rows] = each.features[self._tile[rows]]
        length = np.linalg.norm(found, axis=1, keepdims=True)
        units: NDArray[np.float32] = np.divide(
            found, length, out=np.full_like(found, np.nan), where=length > 0
        )
        return units

    def _patch(self, n: int) -> Patch:
        each, tile = self._tiles[int(self._slide[n])], int(self._tile[n])
        x, y, width, height = each.rects_px0[tile].tolist()
        score = float(each.scores[tile])
        truth = math.nan if each.truth is None else float(each.truth[tile])
        why = f"{each.what} {score:.3g}"
        if not math.isnan(truth):
            why += f", {truth:.0%} of it positive"
        else:
            truth = math.nan  # the one that is equal to itself in a tuple
        return Patch(each.slide, each.fingerprint, (x, y), (width, height), score, truth, why)


def _worth(tiles: TileScores, choice: Choice, number: int) -> NDArray[np.float64]:
    """Return how much each tile is worth a look, [N]; -inf where it is no candidate."""
    scores = tiles.scores
    truth = np.full(len(tiles), np.nan) if tiles.truth is None else tiles.truth
    known = np.isfinite(scores)
    called = scores >= choice.threshold
    positive = truth >= choice.positive_share
    judged = known & np.isfinite(truth)
    values: NDArray[Any]
    if choice.kind == "false positives":
        wanted, values = judged & called & ~positive, scores
    elif choice.kind == "false negatives":
        wanted, values = judged & ~called & positive, -scores
    elif choice.kind == "confidently wrong":
        wanted, values = judged & (called != positive), np.where(positive, 1 - scores, scores)
    elif choice.kind == "most uncertain":
        wanted, values = known, -np.abs(scores - choice.threshold)
    elif choice.kind == "random":
        # by slide: what is drawn of one does not change when others are added after it
        wanted, values = known, np.random.default_rng([choice.seed, number]).random(len(tiles))
    else:
        wanted, values = known, scores if choice.kind == "highest" else -scores
    return np.where(wanted, values, -np.inf)


def _check(tiles: Sequence[TileScores], choice: Choice) -> None:
    if choice.kind in (*NEED_TRUTH, "most uncertain"):
        for each in tiles:
            if not each.is_probability:
                raise RunError(
                    f"{each.what} of {each.model} is no probability: list the highest or the "
                    f"lowest instead of the {choice.kind}."
                )
    if choice.kind in NEED_TRUTH and not any(
        each.truth is not None and np.isfinite(each.truth).any() for each in tiles
    ):
        raise RunError(
            f"Nobody says what is true of these slides, so there are no {choice.kind} to list: "
            f"choose a ground truth first."
        )


def write_patches(
    patches: Sequence[Patch], path: Path, answers: Callable[[Patch], Mapping[str, object]] | None
) -> None:
    """Write a gallery as CSV: where each patch is, its numbers, why it is listed, what was said.

    Parameters
    ----------
    patches
        In the order of the rows.
    path
        Of the file.
    answers
        Gives what was answered about a patch, by question; None for nothing.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    said = [{} if answers is None else answers(patch) for patch in patches]
    questions = list(dict.fromkeys(name for each in said for name in each))
    rows = []
    for patch, given in zip(patches, said, strict=True):
        numbers = ["" if math.isnan(n) else f"{n:.6g}" for n in (patch.score, patch.truth)]
        places = [f"{n:.6g}" for n in (*patch.xy_px0, *patch.size_px0)]
        row = [patch.slide.name, *places, *numbers, patch.why, len(patch.alike)]
        rows.append([*row, *(_cell(given.get(name, "")) for name in questions)])
    write_rows(path, [*COLUMNS, *questions], rows)


def _cell(answer: object) -> str:
    return "; ".join(map(str, answer)) if isinstance(answer, tuple) else str(answer)


def _list(names: Mapping[str, str]) -> str:
    return ", ".join(names)
