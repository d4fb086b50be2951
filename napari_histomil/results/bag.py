"""Bags, what models of slides are given: features of tiles, where these lie, whose they are.

A bag has one level a magnification, the lowest first. Several levels are nested: each tile has as
many children, which lie one after the other, in the order of their parents. So row ``i`` of a
level with ``r`` children each has the rows ``i * r`` to ``i * r + r - 1`` of the next.

Order is part of a bag: our own are in the Morton order of their grids, those of others in the
order of their files. Features stay where they are until they are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_histomil.errors import RunError
from napari_histomil.results.features import FeatureStore
from napari_histomil.tiling import GridSpec, TileGrid, children_a_side, morton

Rows = slice | NDArray[np.int64]
SIZE_TOLERANCE = 0.02
"""Tile sizes and resolutions that differ by less are the same, rounded."""


class Features:
    """Rows of features that are read as they are asked for; ``np.asarray`` reads all of them.

    Parameters
    ----------
    read
        Gives the rows [n, D] of a slice, or with these indices, of what is stored.
    shape
        (N, D) of what is stored.
    dtype
        Of what is stored.
    rows
        int64 [M]: which of the stored rows these are, in which order; None for all as stored.
    """

    def __init__(
        self,
        read: Callable[[Rows], NDArray[Any]],
        shape: tuple[int, int],
        dtype: Any,
        rows: NDArray[np.int64] | None = None,
    ) -> None:
        self._read = read
        self._rows = rows
        self.shape = (shape[0] if rows is None else len(rows), shape[1])
        self.dtype = np.dtype(dtype)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: slice | Sequence[int] | NDArray[Any]) -> NDArray[Any]:
        if not isinstance(key, slice):
            key = np.asarray(key)
            key = np.flatnonzero(key) if key.dtype == bool else key.astype(np.int64)
        if self._rows is None:
            return self._read(key)
        rows = self._rows[key]
        together = len(rows) and (np.diff(rows) == 1).all()
        return self._read(slice(int(rows[0]), int(rows[-1]) + 1) if together else rows)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:], dtype)


@dataclass(frozen=True, slots=True)
class EncoderFacts:
    """Which encoder made features; what is not known is empty."""

    name: str
    sha256: str = ""
    """Of the model; '' where only a name is known, as in files of others."""
    tta: bool = False


@dataclass(frozen=True, slots=True)
class SlideFacts:
    """Which slide a bag is of; what is not known is None."""

    name: str
    size_px0: tuple[int, int] | None = None
    fingerprint: str | None = None
    mpp_xy: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class BagLevel:
    """The tiles of one magnification."""

    xy_px0: NDArray[np.float64] = field(repr=False)
    """float64 [N, 2]: (x, y) of the corner of each tile's footprint, level-0 px."""
    side_px0: tuple[float, float]
    """(width, height) of a tile in level-0 px."""
    mpp: float | None
    """Resolution at which the encoder was given the tiles; None where nobody says it."""
    features: Features | NDArray[Any] = field(repr=False)
    """[N, D]."""
    parents: NDArray[np.int64] | None = field(default=None, repr=False)
    """int64 [N]: row of the next lower magnification's level; None in the lowest."""
    grid: TileGrid | None = field(default=None, repr=False)
    """The tiles as ours, in the same order; None for those of others, which fit no grid."""

    def __len__(self) -> int:
        return len(self.xy_px0)

    @property
    def dim(self) -> int:
        """Number of values of a tile's features."""
        return int(self.features.shape[1])

    @property
    def centers_px0(self) -> NDArray[np.float64]:
        """float64 [N, 2]: (x, y) of the middle of each tile, level-0 px."""
        return self.xy_px0 + np.array(self.side_px0) / 2


@dataclass(frozen=True, slots=True, eq=False)
class Bag:
    """The features of a slide."""

    levels: tuple[BagLevel, ...]
    """The lowest magnification first."""
    slide: SlideFacts
    encoder: EncoderFacts | None = None

    @property
    def dim(self) -> int:
        """Number of values of a tile's features; the same in all levels."""
        return self.levels[0].dim


def bag_of_runs(runs: Sequence[FeatureStore]) -> Bag:
    """Return the features of one or several magnifications of a slide as a bag.

    Tiles that could not be read have no features and are left out of a bag with one level; in
    one with several, where every tile has as many children, they are zeros.

    Parameters
    ----------
    runs
        Complete runs of one encoder over one slide, a magnification each, in any order.

    Raises
    ------
    RunError
        If a run is not complete, or they do not belong together: another slide, encoder or
        augmentation, or tiles that are not nested.
    """
    ordered = sorted(runs, key=lambda run: -run.grid.spec.cell_um)
    if not ordered:
        raise RunError("A bag needs at least one run of features.")
    first = ordered[0]
    for run in ordered:
        _check_alike(first, run)
    levels: list[BagLevel] = []
    for run in ordered:
        if len(ordered) == 1:
            known = run.known_tiles
            rows = None if len(known) == len(run.grid) else known
            parents = None
            grid = run.grid if rows is None else run.grid.select(_mask(known, len(run.grid)))
        elif not levels:
            rows, parents, grid = None, None, run.grid
        else:
            above = levels[-1].grid
            assert above is not None  # it is one of ours
            rows, parents, grid = _nested(above, run)
        if not len(grid):
            raise RunError(f"{run.path} holds no tile that could be read: run its job again.")
        read = run.read if len(ordered) == 1 else _zeros_for_nan(run.read)
        features = Features(read, (len(run.grid), run.dim), np.float16, rows)
        xy, side, mpp = grid.tile_rects_px0[:, :2], grid.tile_size_px0, grid.spec.mpp
        levels.append(BagLevel(xy, side, mpp, features, parents, grid))
    slide = first.slide
    return Bag(
        tuple(levels),
        SlideFacts(
            str(slide["name"]),
            (int(slide["width_px0"]), int(slide["height_px0"])),
            str(slide["fingerprint"]),
            (float(slide["mpp_xy"][0]), float(slide["mpp_xy"][1])),
        ),
        EncoderFacts(str(first.model["name"]), str(first.model["sha256"]), first.tta),
    )


def mismatches(
    bag: Bag,
    *,
    dim: int,
    encoder: EncoderFacts | None = None,
    grids: Sequence[GridSpec] = (),
) -> list[str]:
    """Return in what a bag is not what a model of slides was trained on, a sentence each.

    Parameters
    ----------
    bag
        What the model would be given.
    dim
        Values of a tile's features that it takes.
    encoder
        Whose features it was trained on.
    grids
        The grids it was trained on, lowest magnification first; none where they are not known.

    Raises
    ------
    RunError
        If the model cannot take the bag at all: another width, or number of magnifications.
    """
    if bag.dim != dim:
        raise RunError(
            f"The features of {bag.slide.name} have {bag.dim} values a tile, and the model takes "
            f"{dim}: they are of another encoder{_named(encoder)}."
        )
    if grids and len(grids) != len(bag.levels):
        raise RunError(
            f"The bag of {bag.slide.name} has {len(bag.levels)} magnifications, and the model "
            f"takes {len(grids)}: extract features at "
            f"{', '.join(f'{grid.mpp:g}' for grid in grids)} µm/px."
        )
    found = []
    if encoder is not None and bag.encoder is not None:
        by_hash = encoder.sha256 and bag.encoder.sha256
        same = (
            encoder.sha256 == bag.encoder.sha256
            if by_hash
            else encoder.name.lower() == bag.encoder.name.lower()
        )
        if not same:
            found.append(
                f"The features are of the encoder {bag.encoder.name}, and the model was trained "
                f"on those of {encoder.name}: its answer means nothing."
            )
        elif encoder.tta != bag.encoder.tta:
            found.append("Only one of model and features used test-time augmentation.")
    elif encoder is not None:
        found.append(
            f"Nobody says which encoder made the features: the model was trained on those of "
            f"{encoder.name}."
        )
    for grid, level in zip(grids, bag.levels, strict=False):
        found += _other_scale(grid, level, bag.slide)
    return found


def _other_scale(grid: GridSpec, level: BagLevel, slide: SlideFacts) -> list[str]:
    if level.mpp is not None and abs(level.mpp / grid.mpp - 1) > SIZE_TOLERANCE:
        given, wanted, of = level.mpp, grid.mpp, "µm/px"
    elif slide.mpp_xy is not None:
        given, wanted, of = (
            level.side_px0[0] * slide.mpp_xy[0],
            grid.tile_px * grid.mpp,
            "µm a side",
        )
    else:
        return []
    if abs(given / wanted - 1) <= SIZE_TOLERANCE:
        return []
    return [f"The tiles have {given:.3g} {of}, and the model was trained on {wanted:.3g}."]


def _named(encoder: EncoderFacts | None) -> str:
    return f" than {encoder.name}" if encoder is not None and encoder.name else ""


def _check_alike(first: FeatureStore, run: FeatureStore) -> None:
    if not run.complete:
        raise RunError(
            f"{run.path} is not finished ({int(run.done_tiles.sum())} of {len(run.grid)} tiles): "
            f"run its job again, it goes on where it stands."
        )
    facts = (
        ("slides", first.slide["fingerprint"] == run.slide["fingerprint"]),
        ("encoders", first.model["sha256"] == run.model["sha256"]),
        ("kinds of augmentation", first.tta == run.tta),
    )
    for what, same in facts:
        if not same:
            raise RunError(
                f"{first.path.name} and {run.path.name} are features of different {what}: a bag "
                f"is of one slide by one encoder."
            )


def _nested(
    above: TileGrid, run: FeatureStore
) -> tuple[NDArray[np.int64] | None, NDArray[np.int64], TileGrid]:
    """Return which tiles of a run are the children of the tiles `above`, in whose order they come.

    Returns
    -------
    rows
        int64 [N] into the run; None for all of them as they are stored.
    parents
        int64 [N] into `above`.
    grid
        The children.
    """
    sides = children_a_side(above.spec, run.grid.spec)
    children = sides * sides
    ranks = {cell: rank for rank, cell in enumerate(map(tuple, above.cells.tolist()))}
    parents = (run.grid.cells // sides).tolist()
    of = np.array([ranks.get((row, column), -1) for row, column in parents], np.int64)
    wanted = np.flatnonzero(of >= 0)
    counts = np.bincount(of[wanted], minlength=len(above))
    if sides < 2 or (counts != children).any():
        raise RunError(
            f"{run.path.name} has not all {children} tiles of {run.grid.spec.mpp:g} µm/px within "
            f"each tile of {above.spec.mpp:g} µm/px: extract features at all magnifications in "
            f"one go (histomil features --mpp ... --mpp ...)."
        )
    order = wanted[np.lexsort((morton(run.grid.cells[wanted]), of[wanted]))]
    as_stored = len(order) == len(run.grid) and bool((np.diff(order) == 1).all())
    grid = TileGrid(
        run.grid.spec, run.grid.slide_mpp, run.grid.slide_size_px0, run.grid.cells[order]
    )
    return (None if as_stored else order), of[order], grid


def _mask(rows: NDArray[np.int64], count: int) -> NDArray[np.bool_]:
    mask = np.zeros(count, bool)
    mask[rows] = True
    return mask


def _zeros_for_nan(read: Callable[[Rows], NDArray[Any]]) -> Callable[[Rows], NDArray[Any]]:
    return lambda rows: np.nan_to_num(read(rows), nan=0.0)
