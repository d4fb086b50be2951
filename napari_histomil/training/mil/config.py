"""What to train on bags, and how: a TOML file with ``task = "mil"``.

A file looks like this::

    task = "mil"
    name = "metastasis-mil"
    description = "..."
    licence = "BSD-3-Clause"
    positive_class = "tumor"

    [[classes]]
    name = "normal"
    color = [120, 160, 220]

    [[classes]]
    name = "tumor"
    color = [200, 0, 0]

    [bags]
    table = "slides.csv"
    encoder = "tissue-encoder-small"
    features = "features"

    [[grids]]                      # one a magnification, the lowest first
    mpp = 1.0
    tile_px = 64
    stride_px = 64

    [aggregator]
    name = "gated-attention"
    arguments = { hidden = [128], attention = 64 }

Paths are relative to the data folder that the person names. ``docs/mil.md`` explains the members.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, fields
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from napari_histomil.errors import TrainingError
from napari_histomil.manifest import ClassSpec
from napari_histomil.tiling import GridSpec
from napari_histomil.training.options import Tracking
from napari_histomil.training.toml import plain_member, read_as, read_toml


@dataclass(frozen=True, slots=True)
class Bags:
    """Which slides, and where their features are."""

    table: str
    """CSV of slides or bags, see `table.py`."""
    encoder: str = ""
    """Whose features they are: a model that embeds, by name or folder, which is run over slides
    whose features are missing; or only a name, of features that others made."""
    features: str = ""
    """Folder where features of the slides are looked for, and made where they are missing."""
    scaling: Literal["none", "training", "all"] = "none"
    """Each value of the features minus its mean, divided by its standard deviation over all
    instances: of the training's bags (it becomes part of the first layer), or of ``all`` bags, as
    some published protocols have it, test bags included."""
    clinical: tuple[str, ...] = ()
    """Columns of the table that are fused late, as numbers."""


@dataclass(frozen=True, slots=True)
class Aggregator:
    """The net."""

    name: str
    """As `nets.mil.build_mil` takes it."""
    arguments: dict[str, Any] = field(default_factory=dict)
    first_weights: Literal["torch", "glorot"] = "torch"
    """As torch draws them for each layer; or uniform after Glorot & Bengio (2010), biases 0."""


@dataclass(frozen=True, slots=True)
class MilSchedule:
    """Optimisation."""

    epochs: int = 50
    batch: int = 1
    """Bags a step."""
    optimiser: Literal["adamw", "sgd"] = "adamw"
    """``sgd`` with Nesterov's momentum of 0.9, and weight decay as part of the gradient."""
    learning_rate: float = 2e-4
    weight_decay: float = 1e-2
    """Of weights; biases do not decay."""
    annealed: bool = True
    """Whether the learning rate falls along a half cosine; else it stays."""
    warm_up: int = 0
    label_smoothing: float = 0.0
    imbalance: Literal["none", "weights", "sampling"] = "none"
    """How rare classes are helped: by weights in the loss, 1 / frequency; or drawn as often."""
    instance_dropout: float = 0.0
    """Share of a bag's tiles (of the lowest magnification, with their children) left out of a
    step, others each time."""
    most_instances: int = 0
    """So many tiles of the lowest magnification take part in a step at most; 0 for all."""
    checkpoint_every: int = 200


@dataclass(frozen=True, slots=True)
class Mhim:
    """Masked hard instance mining, see `mhim.py`. Its shares are of a bag's instances."""

    name: Literal["mhim"]
    high: float = 0.01
    """Of highest attention, masked; falls to 0 along a half cosine over the training."""
    high_part: float = 0.5
    """What is masked is drawn from the highest ``high / high_part``; 1 for the highest as such."""
    low: float = 0.0
    """Of lowest attention, masked."""
    random: float = 0.5
    """Of all, masked at random."""
    consistency: float = 0.1
    """Weight of the loss that holds the student's bags to the teacher's."""
    temperature: float = 0.1
    """Of the teacher's."""
    momentum: float = 0.9999
    """How much of the teacher stays in a step, once it has seen enough steps."""


@dataclass(frozen=True, slots=True)
class ScMil:
    """Supervised contrastive learning of bags, see `contrastive.py`."""

    name: Literal["sc-mil"]
    temperature: float = 0.1
    """Of the contrastive loss."""
    projection: int = 128
    """Width in which bags are compared."""


WITHOUT = {"mhim": ("mean", "max"), "sc-mil": ("max",)}
"""Aggregators that have no attention to mask by, or no one vector of a bag to compare."""


@dataclass(frozen=True, slots=True)
class MilSplit:
    """What is kept from training, by patients. A column ``split`` of the table goes before."""

    validation: float = 0.2
    """Share of the patients on which epoch and temperature are chosen; 0: the last epoch."""
    test: float = 0.0
    """Share of the patients that the finished net is asked about, once."""
    seed: int = 0


@dataclass(frozen=True, slots=True)
class MilValidation:
    """Scores on patients that a net has not seen."""

    metric: Literal["auroc", "kappa", "loss"] = "auroc"
    """What the best epoch is best by, on the validation."""
    ordered: bool = False
    """Whether the classes are grades: kappa is then weighted quadratically."""
    patience: int = 0
    """Training stops after so many epochs in a row that were no better; 0 for never."""
    folds: int = 5
    """Of the cross-validation; 0 for none. A column ``fold`` of the table goes before."""
    stratified: bool = True
    """Whether the classes are shared out evenly among the folds."""
    seeds: tuple[int, ...] = (0,)
    """One cross-validation for each, with folds of its own."""
    bootstraps: int = 2000
    ensemble: bool = False
    """Whether the nets of the first cross-validation are kept as members of an ensemble."""


@dataclass(frozen=True, slots=True)
class MilConfig:
    """All that decides a training on bags, but the bags."""

    task: Literal["mil"]
    name: str
    description: str
    licence: str
    classes: tuple[ClassSpec, ...]
    positive_class: str
    bags: Bags
    aggregator: Aggregator
    grids: tuple[GridSpec, ...] = ()
    """Of each magnification, the lowest first; a model folder needs them."""
    schedule: MilSchedule = field(default_factory=MilSchedule)
    scheme: Mhim | ScMil | None = None
    """What is done with the bags of a step; none: each by itself."""
    split: MilSplit = field(default_factory=MilSplit)
    validation: MilValidation = field(default_factory=MilValidation)
    tracking: Tracking = field(default_factory=Tracking)
    nuclear_um: float | None = None
    """Size of nuclei as `review.nuclear_size` finds it, of bags without their slides; else
    it is measured on these. By it a slide whose µm/px are wrong is told."""
    notes: tuple[str, ...] = ()
    """Paragraphs for the model's card: what it is good for and what not."""
    data_facts: tuple[str, ...] = ()
    """Paragraphs for the card on what is known of the data."""

    def __post_init__(self) -> None:
        _check(self)

    @property
    def class_names(self) -> list[str]:
        """Names of the classes in the order of the outputs."""
        return [c.name for c in self.classes]

    @property
    def positive(self) -> int:
        """Number of the positive class."""
        return self.class_names.index(self.positive_class)

    def hash(self) -> str:
        """Return the SHA-256 of all members that decide the net: names and texts do not."""
        texts = ("name", "description", "licence", "nuclear_um", "notes", "data_facts", "tracking")
        decisive = {
            f.name: plain_member(getattr(self, f.name))
            for f in fields(self)
            if f.name not in texts and not (f.name == "scheme" and self.scheme is None)
        }
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def is_mil(path: Path) -> bool:
    """Whether a training's TOML file is one of bags."""
    return read_toml(path).get("task") == "mil"


def read_mil_config(path: Path) -> MilConfig:
    """Read a TOML file of a training on bags.

    Raises
    ------
    TrainingError
        If the file cannot be read, or a member is missing, unknown or of the wrong kind.
    """
    return read_as(MilConfig, path)


def _check(config: MilConfig) -> None:
    names, schedule, split, validation = (
        config.class_names,
        config.schedule,
        config.split,
        config.validation,
    )
    if len(names) < 2 or len(set(names)) < len(names):
        raise TrainingError(f"A model of slides needs two or more different classes, not {names}.")
    if config.positive_class not in names:
        raise TrainingError(f"positive_class {config.positive_class!r} is none of {names}.")
    if any(after.mpp >= before.mpp for before, after in pairwise(config.grids)):
        raise TrainingError("grids must begin with the lowest magnification: the largest mpp.")
    if min(split.validation, split.test) < 0 or split.validation + split.test >= 1:
        raise TrainingError(
            "split.validation and split.test are shares of the patients: 0 or more, together "
            "less than 1."
        )
    if min(schedule.epochs, schedule.batch, schedule.checkpoint_every) < 1:
        raise TrainingError(
            "schedule.epochs, schedule.batch and schedule.checkpoint_every must be 1 or more."
        )
    if not 0 <= schedule.instance_dropout < 1 or schedule.most_instances < 0:
        raise TrainingError(
            "schedule.instance_dropout is a share of 0 to less than 1, and "
            "schedule.most_instances a number of 0 or more."
        )
    if config.scheme is not None:
        _check_scheme(config, config.scheme)
    if validation.folds == 1 or validation.folds < 0 or not validation.seeds:
        raise TrainingError(
            "validation.folds must be 0 (none) or 2 or more, and validation.seeds name one seed "
            "or more."
        )
    if validation.ensemble and not validation.folds:
        raise TrainingError("validation.ensemble keeps the nets of folds: ask for folds, too.")
    if config.bags.scaling == "all" and config.grids:
        raise TrainingError(
            "bags.scaling 'all' looks at test bags, too: it is for comparisons after a published "
            "protocol, and no model is made of it; use 'training'."
        )


def _check_scheme(config: MilConfig, scheme: Mhim | ScMil) -> None:
    name = config.aggregator.name
    if name in WITHOUT[scheme.name]:
        lacks = "attention to mask by" if scheme.name == "mhim" else "one vector of a bag"
        raise TrainingError(
            f"scheme {scheme.name!r} does not fit the aggregator {name!r}, which has no {lacks}: "
            f"name another aggregator, or leave the scheme out."
        )
    if scheme.temperature <= 0:
        raise TrainingError("scheme.temperature must be more than 0.")
    if isinstance(scheme, ScMil):
        if config.schedule.batch < 2 or scheme.projection < 1:
            raise TrainingError(
                "scheme 'sc-mil' compares the bags of a step: schedule.batch must be 2 or more, "
                "and scheme.projection 1 or more."
            )
        return
    if min(scheme.high, scheme.low, scheme.random) < 0 or not (
        max(scheme.high + scheme.low, scheme.random) < 1
        and scheme.high <= scheme.high_part <= 1
        and scheme.high_part > 0
    ):
        raise TrainingError(
            "scheme.high, scheme.low and scheme.random are shares of 0 to less than 1, high and "
            "low together too; scheme.high_part is a share above 0, of at least scheme.high."
        )
    if scheme.consistency < 0 or not 0 <= scheme.momentum < 1:
        raise TrainingError(
            "scheme.consistency must be 0 or more, and scheme.momentum 0 to less than 1."
        )
