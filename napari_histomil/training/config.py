"""What to train and how: a TOML file, checked member by member.

A file looks like this (``models/metastasis-patch-small/train.toml`` is one)::

    name = "metastasis-unet"
    description = "..."
    licence = "BSD-3-Clause"
    task = "segment"               # or "classify", which is meant where nothing is said
    positive_class = "tumor"
    background_class = "normal"

    [grid]
    mpp = 1.0
    tile_px = 256
    stride_px = 128
    margin_px = 32

    [network]
    architecture = "smp/unet"
    arguments = { encoder_name = "resnet18" }

    [[classes]]
    name = "normal"
    color = [120, 160, 220]

    [[sources]]
    kind = "tiles"                 # pictures with masks; or "slide", "folders", "synthetic"
    ...

Paths are relative to the data folder that the person names. ``docs/training.md`` explains the
members one by one.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

from napari_histomil.errors import TrainingError
from napari_histomil.manifest import ClassSpec
from napari_histomil.tiling import GridSpec
from napari_histomil.training.labels import NONE, UNLABELLED, Labels
from napari_histomil.training.options import (
    Augmentation,
    Detector,
    Loss,
    Network,
    Sampling,
    Scaling,
    Schedule,
    Source,
    Split,
    Tracking,
    Validation,
)
from napari_histomil.training.toml import plain, plain_member, read_as, write_text

__all__ = [
    "Augmentation",
    "Detector",
    "Loss",
    "Network",
    "Sampling",
    "Scaling",
    "Schedule",
    "Source",
    "Split",
    "Tracking",
    "TrainingConfig",
    "Validation",
    "config_to_toml",
    "read_config",
]

REFINER = ("overview", "heatmap")
"""What is stacked to the input of a refiner."""


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """All that decides a training, but the data's pixels."""

    name: str
    description: str
    licence: str
    positive_class: str
    grid: GridSpec
    network: Network
    normalisation: Scaling
    classes: tuple[ClassSpec, ...]
    sources: tuple[Source, ...]
    schedule: Schedule
    task: Literal["classify", "segment"] = "classify"
    background_class: str = ""
    """Of a segmentation with softmax: the class that means none of the others."""
    activation: Literal["softmax", "sigmoid"] = "softmax"
    """``sigmoid`` for classes of a segmentation that do not exclude one another."""
    inputs: tuple[str, ...] = ()
    """``("overview", "heatmap")`` of a refiner: the slide from afar, and what a detector says."""
    detector: Detector | None = None
    """Of a refiner."""
    loss: Loss = field(default_factory=Loss)
    sampling: Sampling = field(default_factory=Sampling)
    split: Split = field(default_factory=Split)
    augmentation: Augmentation = field(default_factory=Augmentation)
    validation: Validation = field(default_factory=Validation)
    tracking: Tracking = field(default_factory=Tracking)
    notes: tuple[str, ...] = ()
    """Paragraphs for the model's card: what it is good for and what not."""
    data_facts: tuple[str, ...] = ()
    """Paragraphs for the card on what is known of the data."""

    def __post_init__(self) -> None:
        for check in (_check_classes, _check_task, _check_inputs, _check_sources, _check_numbers):
            check(self)

    @property
    def class_names(self) -> list[str]:
        """Names of the classes in the order of the outputs."""
        return [c.name for c in self.classes]

    @property
    def channels(self) -> int:
        """Number of what a pixel can be: the classes, and with sigmoid none of them."""
        return len(self.classes) + (self.activation == "sigmoid")

    @property
    def image_channels(self) -> int:
        """Number of channels that the net takes."""
        return 4 if self.inputs else 3

    @property
    def labels(self) -> Labels:
        """Labels of pixels.

        Background is a classifier's first class; of a segmentation its `background_class`,
        `NONE` with sigmoid, and `UNLABELLED` where it has neither.
        """
        names = tuple(self.class_names)
        if self.task == "classify":
            background = 0
        elif self.background_class:
            background = names.index(self.background_class)
        else:
            background = NONE if self.activation == "sigmoid" else UNLABELLED
        return Labels(names, names.index(self.positive_class), background)

    def hash(self) -> str:
        """Return the SHA-256 of all members that decide the net: names and texts do not."""
        texts = ("name", "description", "licence", "notes", "data_facts", "tracking")
        decisive = {
            f.name: plain_member(getattr(self, f.name))
            for f in fields(self)
            if f.name not in texts
            and (f.name not in ("inputs", "detector") or self.inputs)  # others keep their hash
        }
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def _check_classes(config: TrainingConfig) -> None:
    names = config.class_names
    fewest = 1 if config.activation == "sigmoid" else 2
    if len(names) < fewest or len(set(names)) < len(names):
        raise TrainingError(
            f"A model of this kind needs {fewest} or more different classes, not {names}."
        )
    if config.positive_class not in names:
        raise TrainingError(f"positive_class {config.positive_class!r} is none of {names}.")
    if config.background_class and config.background_class not in names:
        raise TrainingError(f"background_class {config.background_class!r} is none of {names}.")
    if config.labels.background == config.labels.positive:
        raise TrainingError(f"positive_class {config.positive_class!r} is the background.")
    for name in config.loss.class_weights:
        if name not in names:
            raise TrainingError(f"loss.class_weights: {name!r} is none of {names}.")


def _check_task(config: TrainingConfig) -> None:
    grid, segments = config.grid, config.task == "segment"
    if config.network.architecture.startswith("smp/") != segments:
        raise TrainingError(
            f"{config.network.architecture} does not {config.task}: nets of the family smp "
            f"segment, all others classify."
        )
    if not segments and (config.activation == "sigmoid" or grid.margin_px):
        raise TrainingError("sigmoid and grid.margin_px are for a model that segments.")
    if config.background_class and (config.activation == "sigmoid" or not segments):
        raise TrainingError(
            "background_class is for a segmentation with softmax: with sigmoid, background is "
            "where no class is likely, and a classifier's first class is its background."
        )
    if (grid.tile_px - grid.stride_px) % 2:
        raise TrainingError(
            f"A tile of {grid.tile_px} px cannot be centred on a cell of {grid.stride_px} px: "
            f"make their difference even."
        )


def _check_inputs(config: TrainingConfig) -> None:
    inputs, scaling = config.inputs, config.normalisation
    if bool(inputs) != (config.detector is not None) or inputs not in ((), REFINER):
        raise TrainingError(
            f"A refiner of heatmaps has inputs = {list(REFINER)} and a table [detector] that "
            f"names the model whose heatmaps it is given; another model has neither."
        )
    numbers = {len(scaling.mean), len(scaling.std)}
    if numbers != {config.image_channels} or min(scaling.std) <= 0:
        raise TrainingError(
            "normalisation needs three numbers of mean and of std, for red, green and blue (four "
            "of a refiner, the last for its heatmap), and those of std above 0."
        )
    if inputs and config.task != "segment":
        raise TrainingError('A refiner of heatmaps segments: add task = "segment".')
    if inputs and (
        config.validation.synthetic_seeds or any(s.kind != "slide" for s in config.sources)
    ):
        raise TrainingError(
            "A refiner of heatmaps learns from, and is scored on, annotated slides: sources of "
            'kind "slide".'
        )


def _check_sources(config: TrainingConfig) -> None:
    sources = config.sources
    if not sources:
        raise TrainingError("There is nothing to train on: add a table [[sources]].")
    if min(s.share for s in sources) < 0 or sum(s.share for s in sources) <= 0:
        raise TrainingError("The shares of the sources must be 0 or more, and one above 0.")
    names = [s.name for s in sources]
    if len(set(names)) < len(names):
        raise TrainingError(f"Two sources have the same name: give each of {names} its own.")
    trained = {seed for s in sources for seed in s.seeds}
    both = sorted(trained & set(config.validation.synthetic_seeds))
    if both:
        raise TrainingError(
            f"The synthetic slides of seeds {both} are in the training and in the "
            f"validation: choose other seeds for one of them."
        )
    whole = (config.grid.tile_px, config.grid.stride_px)
    for source in sources:
        if source.resize_px and (source.kind != "folders" or {*whole} != {source.resize_px}):
            raise TrainingError(
                f"{source.name}: resize_px {source.resize_px} is for folders of pictures that "
                f"answer as a whole: tile_px and stride_px of the grid must be the same."
            )
        if source.kind == "folders" and config.task == "segment":
            raise TrainingError(
                f"{source.name}: pictures in folders have no outlines: a segmentation needs "
                f"tiles with masks, or annotated slides."
            )


def _check_numbers(config: TrainingConfig) -> None:
    split, schedule = config.split, config.schedule
    if min(split.validation, split.test) < 0 or split.validation + split.test >= 1:
        raise TrainingError(
            "split.validation and split.test are shares of the groups: 0 or more, together less "
            "than 1."
        )
    if min(schedule.steps, schedule.batch, schedule.checkpoint_every, config.validation.tiles) < 1:
        raise TrainingError(
            "schedule.steps, schedule.batch, schedule.checkpoint_every and validation.tiles must "
            "be 1 or more."
        )
    if min(config.validation.every, config.validation.patience, config.loss.dice) < 0:
        raise TrainingError("validation.every, validation.patience and loss.dice must be >= 0.")


def read_config(path: Path) -> TrainingConfig:
    """Read a training's TOML file.

    Raises
    ------
    TrainingError
        If the file cannot be read, or a member is missing, unknown or of the wrong kind.
    """
    return read_as(TrainingConfig, path)


def config_to_toml(config: TrainingConfig) -> str:
    """Return a training as TOML text that `read_config` reads back to an equal one.

    Members that are as by default are left out.
    """
    return write_text(plain(config))
