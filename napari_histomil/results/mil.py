"""A MIL run: what a model of slides answered, what it looked at, and what from.

A run on disk is one Zarr v3 group, small enough to be read whole: 20 MB at 100,000 patches. It
appears whole or not at all, and nothing in it changes afterwards. Features are not in it: it names
the runs, or the file, that they are in. How its arrays lie is in `mil_layout.py`.

What was not looked at has no value anywhere: a map's `index` says which tiles of its level it is
about, and tiles of a model that zooms which it did not zoom into are not among a level's tiles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_histomil.manifest import ClassSpec
from napari_histomil.manifest.mil import MAP_KINDS
from napari_histomil.results.bag import BagLevel, EncoderFacts
from napari_histomil.tiling import TileGrid

TASK = "mil"

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]

WEIGHTS = ("attention", "class attention", "critical", "selection", "uniform", "argmax")
"""Kinds of maps whose values are shares that add up to 1 over the tiles of a row."""


@dataclass(frozen=True, slots=True, eq=False)
class MilLevel:
    """The tiles of one magnification that the model was given, in the order it was given them."""

    xy_px0: NDArray[np.float64] = field(repr=False)
    """float64 [N, 2]: (x, y) of the corner of each tile's footprint, level-0 px."""
    side_px0: tuple[float, float]
    """(width, height) of a tile in level-0 px."""
    mpp: float | None
    """Resolution at which the encoder was given the tiles; None where nobody says it."""
    grid: TileGrid | None = field(default=None, repr=False)
    """The tiles as ours, in the same order; None for those of others, which fit no grid."""
    tiles: int = 0
    """How many tiles the region has at this magnification, those not looked at included."""
    finer_than: int | None = None
    """Index of the level whose map this one refines at a smaller stride; None for a level of the
    bag. It decides nothing: the answer is the bag's."""

    def __len__(self) -> int:
        return len(self.xy_px0)

    @classmethod
    def of(cls, level: BagLevel, *, tiles: int | None = None) -> MilLevel:
        """Return a bag's level; `tiles` where the bag holds not all."""
        count = len(level) if tiles is None else tiles
        return cls(level.xy_px0, level.side_px0, level.mpp, level.grid, count)

    @property
    def centers_px0(self) -> NDArray[np.float64]:
        """float64 [N, 2]: (x, y) of the middle of each tile, level-0 px."""
        return self.xy_px0 + np.array(self.side_px0) / 2


@dataclass(frozen=True, slots=True, eq=False)
class MilMap:
    """What a model looked at, at one magnification."""

    level: int
    """Index into `MilRun.levels`."""
    kind: str
    """A key of `manifest.mil.MAP_KINDS`, whose value says what the numbers mean."""
    raw: Floats | None = field(repr=False)
    """float32 [K, M] before the softmax; None where the method has none, or several members have
    each their own."""
    value: Floats | None = field(repr=False)
    """float32 [K, M] as the model used it; row k is class k where K > 1. Of several members their
    mean. Of a finer stride it is relative to the bag's softmax: `value` times the bag's number of
    tiles compares with the bag's own, and a row need not add up to 1."""
    index: Indices = field(repr=False)
    """int64 [M] into the level's tiles, each once."""

    @property
    def meaning(self) -> str:
        """What the numbers are, in a sentence or two."""
        return MAP_KINDS.get(self.kind, "")

    @property
    def effective_number(self) -> NDArray[np.float64] | None:
        """float64 [K]: exp of the entropy of each row, the number of tiles that it is spread over.

        None where the values are no shares.
        """
        if self.value is None or self.kind not in WEIGHTS:
            return None
        return effective_number(self.value)


@dataclass(frozen=True, slots=True, eq=False)
class MilContributions:
    """What each tile of a level adds to the logits: with `MilRun.bias` they add up exactly."""

    level: int
    index: Indices = field(repr=False)
    """int64 [M] into the level's tiles."""
    values: Floats = field(repr=False)
    """float32 [C, M], in units of the logits."""


@dataclass(frozen=True, slots=True, eq=False)
class MilAnswer:
    """The answer for the slide."""

    logits: Floats
    """float32 [C] before temperature and activation; of several members the mean."""
    probabilities: Floats
    """float32 [C] after both; of several members the mean of theirs."""
    members: Floats
    """float32 [M, C]: the probabilities of each member, M = 1 for a model by itself."""
    how: str = "one model"
    """``one model``, ``ensemble`` (members are models), or ``dropout`` (members are passes with
    dropout on, Gal and Ghahramani 2016; of an ensemble, too, its models by themselves, then)."""

    @property
    def spread(self) -> Floats | None:
        """float32 [C]: standard deviation of the members' probabilities; None for one model."""
        if len(self.members) < 2:
            return None
        return np.asarray(self.members.std(axis=0, ddof=1), np.float32)

    @property
    def predicted(self) -> int:
        """The class of the highest probability."""
        return int(np.argmax(self.probabilities))


@dataclass(frozen=True, slots=True)
class MilSource:
    """Which bag the answer was made from."""

    dim: int
    """Values of a tile's features."""
    encoder: EncoderFacts | None = None
    runs: tuple[str, ...] = ()
    """Ids of runs of features, lowest magnification first; of a model that zooms only those that
    were needed."""
    file: str = ""
    """Name of a file of another program, and its sha256."""
    sha256: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class MilRun:
    """A MIL run, in memory whole."""

    run_id: str
    job: Mapping[str, Any]
    slide: Mapping[str, Any]
    """As of other runs: name, path, fingerprint, width_px0, height_px0, mpp_xy, bounds_px0; None
    where a bag without its slide does not say it."""
    model: Mapping[str, Any]
    """name, path, sha256, architecture, activation, temperature, positive_class, reference, ...
    and ``members``, the same of those of an ensemble."""
    classes: tuple[ClassSpec, ...]
    source: MilSource
    answer: MilAnswer
    levels: tuple[MilLevel, ...]
    """Those of the bag, the lowest magnification first, then finer ones."""
    maps: tuple[MilMap, ...]
    contributions: tuple[MilContributions, ...] = ()
    """A level each; none where the model has no exact ones."""
    bias: Floats | None = None
    """float32 [C]: the logits without any contribution."""
    instance_scores: Floats | None = field(default=None, repr=False)
    """float32 [N, C]: logits of the tiles of the first level, of models that score them."""
    warnings: tuple[str, ...] = ()
    """What whoever looks at the answer should know, a sentence each."""
    numbers: Mapping[str, Any] = field(default_factory=dict)
    """Plain values: ``seconds`` by stage, ``skipped_tiles`` (what zooming spared), ``nuclear_um``,
    ``dropout_passes``, ..."""
    sessions: tuple[Mapping[str, Any], ...] = ()
    """Provenance: versions, device, times."""
    created: datetime | None = None
    path: Path = Path()
    """Where it is on disk."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the logits."""
        return tuple(c.name for c in self.classes)

    @property
    def default_map(self) -> MilMap | None:
        """The map that is shown first: of the highest magnification, finer where there is one."""
        shown = [m for m in self.maps if m.kind != "selection"]
        return shown[-1] if shown else None

    def maps_of(self, level: int) -> tuple[MilMap, ...]:
        """Return the maps of a level."""
        return tuple(m for m in self.maps if m.level == level)

    def with_warnings(self, warnings: Sequence[str]) -> tuple[str, ...]:
        """Return the run's warnings and these, each once."""
        return tuple(dict.fromkeys([*self.warnings, *warnings]))


def effective_number(shares: NDArray[Any]) -> NDArray[np.float64]:
    """Return exp(H) of each row of shares [K, M]: 1 for one tile, M where all count the same.

    H is Shannon's entropy in nats. A row with what is no number gives no number.
    """
    shares = np.asarray(shares, np.float64)
    total = shares.sum(axis=1, keepdims=True)
    p = np.divide(shares, total, out=np.full_like(shares, np.nan), where=total > 0)
    logs = np.log(p, out=np.zeros_like(p), where=p > 0)
    result: NDArray[np.float64] = np.exp(-(p * logs).sum(axis=1))
    return result
