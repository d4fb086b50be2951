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
from typing import Any, Literal

from napari_histomil.errors import HistomilError, TrainingError
from napari_histomil.manifest import ClassSpec
from napari_histomil.tiling import GridSpec
from napari_histomil.training.labels import NONE, UNLABELLED, Labels
from napari_histomil.training.toml import build, plain, plain_member, read_toml, write_text


@dataclass(frozen=True, slots=True)
class Network:
    """The net, as `model.json` names it."""

    architecture: str
    """``smp/<name>`` segments; ``timm/<name>`` and ``histomil/centre-patch`` classify."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """Of the net's builder. `start.py` fetches the weights that ``encoder_weights`` (smp) or
    ``pretrained = true`` (timm) asks for; without it training starts from random weights."""


@dataclass(frozen=True, slots=True)
class Scaling:
    """``(pixel / 255 - mean) / std`` for each of red, green and blue."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Source:
    """Where labelled pixels come from.

    ``tiles``: ``path/images`` and ``path/masks`` with equal file names. ``folders``: a folder of
    pictures for each class. ``slide``: one or many slides with annotations, read on the fly.
    ``synthetic``: procedural slides, one a seed.
    """

    kind: Literal["tiles", "folders", "slide", "synthetic"]
    name: str
    licence: str
    share: float = 1.0
    """How often a training tile comes from here, against the other sources."""
    path: str = ""
    channel_order: Literal["rgb", "bgr"] = "rgb"
    mpp: float | None = None
    """Of pictures, µm/px; of slides that do not say their own."""
    threshold: int = 127
    """A brighter pixel of a mask is of the positive class, another is background."""
    values: dict[str, str] = field(default_factory=dict)
    """Value in a mask -> class, ``background`` or ``unlabelled``, instead of the threshold. Values
    that are not named are unlabelled; a mask stored as JPEG takes the nearest that is."""
    groups: tuple[tuple[str, ...], ...] = ()
    """File names (without suffix) that belong together; each other file is its own group."""
    slides: tuple[str, ...] = ()
    """Slides besides `path`: paths, or patterns such as ``cohort/*.svs``."""
    annotations: str = ""
    """File of regions; ``{stem}`` in it stands for the slide's file name without suffix. Empty
    for what was drawn in this program and lies beside each slide."""
    class_names: dict[str, str] = field(default_factory=dict)
    """Class in the annotations (or name of a folder) -> class of the model; others are left out.
    Empty where the names are the same."""
    unannotated: str = ""
    """Class of what no region covers, if all of the slide was looked at; empty for left out."""
    resize_px: int = 0
    """Of folders: every picture is shrunk or enlarged to a square of this side, whatever its
    scale, and answers as a whole; 0 to cut tiles out of it."""
    labels: str = ""
    """CSV file with a column ``file`` (a path, or a file name, with or without suffix): columns
    ``patient`` and ``slide`` make groups, ``label`` replaces the name of the folder, and every
    column can be balanced."""
    tags: dict[str, str] = field(default_factory=dict)
    """What else is known of all of it, to be balanced: ``{ center = "A" }``."""
    seeds: tuple[int, ...] = ()
    size_px: tuple[int, int] = (3072, 2560)
    """Of a synthetic slide, (width, height) at 0.5 µm/px."""
    evaluate: bool = False
    """Whether groups of this source are left out in turn to score the recipe."""
    examples: bool = False
    """Whether its licence lets pieces of it be shown in the card (of the worst errors)."""


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How training tiles are varied; 0 switches a variation off."""

    zoom: float = 0.22
    """Largest natural logarithm of the zoom, both ways."""
    stretch: float = 0.1
    """The same of the ratio of both sides."""
    color_probability: float = 0.5
    """How many tiles get other colours; the others keep theirs."""
    stain: float = 0.15
    """Amount of hematoxylin and eosin is multiplied by 1 plus or minus at most this."""
    gamma: float = 0.2
    saturation: float = 0.25
    tint: float = 0.06
    hed: float = 0.0
    """Hematoxylin, eosin and the rest are each multiplied by 1 plus or minus, and shifted by,
    at most this (optical density)."""
    stain_mix_probability: float = 0.0
    """How many tiles get stains on the way to those of another tile of the batch."""
    blur_probability: float = 0.2
    noise_probability: float = 0.2
    jpeg_probability: float = 0.0
    """How many tiles are compressed as JPEG, of quality 30 to 90."""
    edge_probability: float = 0.1
    """How many tiles get a white edge, as at the edge of a slide."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """Optimisation: AdamW, warm-up, then a half cosine; an average of the weights is kept."""

    steps: int
    batch: int = 12
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    warm_up: int = 20
    label_smoothing: float = 0.04
    average: float = 0.99
    """Decay of the exponential moving average of the weights; the average is what is kept."""
    step_px: int = 32
    """Distance of the cells inside a training tile that the net has to answer for."""
    bf16: bool = True
    """Forward and backward in bfloat16 (autocast); weights stay float32."""
    checkpoint_every: int = 100
    """Steps after which everything is put on the disk, to go on after a kill."""


@dataclass(frozen=True, slots=True)
class Loss:
    """What is minimised: cross-entropy, for a segmentation plus soft Dice."""

    class_weights: dict[str, float] = field(default_factory=dict)
    """Class -> weight in the cross-entropy; 1 where nothing is said."""
    dice: float = 1.0
    """Weight of the Dice term of a segmentation."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """Which tiles are cut."""

    balance: tuple[str, ...] = ("class", "slide")
    """Labels whose values are to come equally often, all at once: ``class``, ``slide``, ``group``
    and any column of `Source.labels` or member of `Source.tags`. The last counts most where not
    all can be met. Empty: every field equally often, wherever in it."""


@dataclass(frozen=True, slots=True)
class Split:
    """What is kept from training. Groups (patients, slides, abutting tiles) stay whole."""

    validation: float = 0.0
    """Share of the groups on which the best weights and the temperature are chosen."""
    test: float = 0.0
    """Share of the groups that the finished net is asked about, once."""
    validation_groups: tuple[str, ...] = ()
    """These instead of a share: groups, patients, slides or file names."""
    test_groups: tuple[str, ...] = ()
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Validation:
    """Scores on groups that the net has not seen."""

    every: int = 0
    """Steps between two looks at the validation groups; 0 for a tenth of all."""
    metric: Literal["auroc", "dice", "kappa", "loss"] = "loss"
    """The weights that are best by it are kept."""
    patience: int = 0
    """Training stops after so many looks in a row that were no better; 0 for never."""
    tiles: int = 64
    """Tiles that are looked at, always the same ones."""
    folds: int = 5
    seeds: tuple[int, ...] = (0,)
    """One cross-validation for each."""
    unmixed: float = 0.05
    """A cell with at most this share of the positive class, or of the others, is unmixed."""
    bootstraps: int = 2000
    synthetic_seeds: tuple[int, ...] = ()
    """Synthetic slides on which the finished model is scored; none that it was trained on."""
    objects: bool = False
    """Whether connected pieces of a segmentation (nuclei) are counted and matched too."""
    what: str = "same slide or slides, spatially separate: not an estimate of generalisation"
    """What scores on groups left out are, and are not."""


@dataclass(frozen=True, slots=True)
class Tracking:
    """Where the curves go besides ``curves.csv``."""

    tensorboard: bool = False
    """Events into the working folder."""
    mlflow: str = ""
    """Address (or folder) of an MLflow server; empty for none."""


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
        for check in (_check_classes, _check_task, _check_sources, _check_numbers):
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
    raw = read_toml(path)
    try:
        config = build(TrainingConfig, raw)
    except HistomilError as error:
        raise TrainingError(f"{path}: {error}") from error
    assert isinstance(config, TrainingConfig)
    return config


def config_to_toml(config: TrainingConfig) -> str:
    """Return a training as TOML text that `read_config` reads back to an equal one.

    Members that are as by default are left out.
    """
    return write_text(plain(config))
