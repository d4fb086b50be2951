"""The tables of a training's TOML file, each a frozen dataclass with its defaults.

What they are together, and which do not go together, is in `config.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Network:
    """The net, as `model.json` names it."""

    architecture: str
    """``smp/<name>`` segments; ``timm/<name>`` and ``histomil/centre-patch`` classify."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """Of the net's builder. `start.py` fetches the weights that ``encoder_weights`` (smp) or
    ``pretrained = true`` (timm) asks for; without it training starts from random weights."""
    encoder: str = ""
    """Name or folder of an encoder (`histomil pretrain` makes one) whose weights the backbone
    starts with."""


@dataclass(frozen=True, slots=True)
class Scaling:
    """``(pixel / 255 - mean) / std`` for each of red, green and blue, and a heatmap after them."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Detector:
    """The patch classifier whose heatmaps a refiner is given."""

    model: str
    """Its name or folder."""
    class_name: str = ""
    """Whose probability the heatmap holds; the class that the model shows first if empty."""


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
    """Class in the annotations (or name of a folder, or in the ``classes.json`` that ``histomil
    annotations tiles`` writes beside its tiles) -> class of the model; others are left out.
    Empty where the names are the same."""
    unannotated: str = ""
    """Class of what no region covers, if all of the slide was looked at; empty for left out."""
    resize_px: int = 0
    """Of folders: every picture is shrunk or enlarged to a square of this side, whatever its
    scale, and answers as a whole; 0 to cut tiles out of it."""
    labels: str = ""
    """CSV file with a column ``file`` (a path, or a file name, with or without suffix), or
    ``tile`` as in the ``manifest.csv`` of ``histomil annotations tiles``: columns ``patient`` and
    ``slide`` make groups, ``label`` replaces the name of the folder, and every column can be
    balanced."""
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
    heat_gamma: float = 0.7
    """Of a refiner: its heatmap is taken to the power e^±this at most."""
    heat_noise: float = 0.15
    """Standard deviation of what is added to each square of it."""
    heat_drop: float = 0.3
    """At most so many of its squares are 0, as if the detector had missed what is there."""


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
    bf16: Literal["auto", True, False] = "auto"
    """Forward and backward in bfloat16 (autocast); weights stay float32. ``auto``: where the
    device computes it by itself, which a training settles at its beginning and keeps."""
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
