"""What to train and how: a TOML file, checked member by member.

A file looks like this (``models/metastasis-patch-small/train.toml`` is one)::

    name = "metastasis-patch-small"
    description = "..."
    licence = "BSD-3-Clause"

    [grid]
    mpp = 1.0
    tile_px = 192
    stride_px = 64

    [network]
    architecture = "histomil/centre-patch"
    arguments = { backbone = "resnet18", cell_px = 64 }

    [[classes]]                    # the first is the background class
    name = "normal"
    color = [120, 160, 220]

    [[sources]]
    kind = "tiles"                 # pictures with masks; or "slide", or "synthetic"
    ...

Paths are relative to the data folder that the person names.
"""

from __future__ import annotations

import tomllib
import types
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from napari_histomil.errors import HistomilError, TrainingError
from napari_histomil.manifest import ClassSpec
from napari_histomil.tiling import GridSpec


@dataclass(frozen=True, slots=True)
class Network:
    """The net, as `model.json` names it."""

    architecture: str
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Scaling:
    """``(pixel / 255 - mean) / std`` for each of red, green and blue."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Source:
    """Where labelled pixels come from.

    ``tiles``: ``path/images`` and ``path/masks`` with equal file names; a mask is 0 for the
    first class and brighter than `threshold` for the second. ``slide``: the slide `path` with
    regions in `annotations`. ``synthetic``: procedural slides, one a seed.
    """

    kind: Literal["tiles", "slide", "synthetic"]
    name: str
    licence: str
    share: float
    """How often a training tile comes from here, against the other sources."""
    path: str = ""
    channel_order: Literal["rgb", "bgr"] = "rgb"
    mpp: float | None = None
    """Of tiles, µm/px; of a slide that does not say its own."""
    threshold: int = 127
    groups: tuple[tuple[str, ...], ...] = ()
    """File names (without suffix) that belong together; each other file is its own group."""
    annotations: str = ""
    class_names: dict[str, str] = field(default_factory=dict)
    """Class in the annotations -> class of the model; others are left out."""
    unannotated: str = ""
    """Class of what no region covers; empty for left out."""
    seeds: tuple[int, ...] = ()
    size_px: tuple[int, int] = (3072, 2560)
    """Of a synthetic slide, (width, height) at 0.5 µm/px."""
    evaluate: bool = False
    """Whether groups of this source are left out in turn to score the recipe."""


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
    blur_probability: float = 0.2
    noise_probability: float = 0.2
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


@dataclass(frozen=True, slots=True)
class Validation:
    """Scores on groups that the net has not seen."""

    folds: int = 5
    seeds: tuple[int, ...] = (0,)
    """One cross-validation for each."""
    unmixed: float = 0.05
    """A cell with at most this share of the positive class, or of the others, is unmixed."""
    bootstraps: int = 2000
    synthetic_seeds: tuple[int, ...] = ()
    """Synthetic slides on which the finished model is scored; none that it was trained on."""


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
    augmentation: Augmentation = field(default_factory=Augmentation)
    validation: Validation = field(default_factory=Validation)
    notes: tuple[str, ...] = ()
    """Paragraphs for the model's card: what it is good for and what not."""
    data_facts: tuple[str, ...] = ()
    """Paragraphs for the card on what is known of the data."""

    def __post_init__(self) -> None:
        names = [c.name for c in self.classes]
        if len(names) < 2 or len(set(names)) < len(names):
            raise TrainingError(f"A classifier needs two or more different classes, not {names}.")
        if self.positive_class not in names:
            raise TrainingError(f"positive_class {self.positive_class!r} is none of {names}.")
        if not self.sources:
            raise TrainingError("There is nothing to train on: add a table [[sources]].")
        if min(s.share for s in self.sources) < 0 or sum(s.share for s in self.sources) <= 0:
            raise TrainingError("The shares of the sources must be 0 or more, and one above 0.")
        trained = {seed for s in self.sources for seed in s.seeds}
        both = sorted(trained & set(self.validation.synthetic_seeds))
        if both:
            raise TrainingError(
                f"The synthetic slides of seeds {both} are in the training and in the "
                f"validation: choose other seeds for one of them."
            )
        if (self.grid.tile_px - self.grid.stride_px) % 2:
            raise TrainingError(
                f"A tile of {self.grid.tile_px} px cannot be centred on a cell of "
                f"{self.grid.stride_px} px: make their difference even."
            )


def read_config(path: Path) -> TrainingConfig:
    """Read a training's TOML file.

    Raises
    ------
    TrainingError
        If the file cannot be read, or a member is missing, unknown or of the wrong kind.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TrainingError(f"{path} cannot be read as TOML: {error}.") from error
    try:
        config = _build(TrainingConfig, raw, "")
    except HistomilError as error:
        raise TrainingError(f"{path}: {error}") from error
    assert isinstance(config, TrainingConfig)
    return config


def _build(kind: type, raw: Any, where: str) -> Any:
    """Make a dataclass of a table; members are checked against their annotations."""
    if not isinstance(raw, Mapping):
        raise TrainingError(f"{where} must be a table.")
    hints = get_type_hints(kind)
    known = {f.name: f for f in fields(kind)}
    prefix = f"{where}." if where else ""
    for name in raw:
        if name not in known:
            raise TrainingError(
                f"{prefix}{name} is unknown here: use one of {', '.join(sorted(known))}."
            )
    for name, f in known.items():
        required = f.default is MISSING and f.default_factory is MISSING
        if required and name not in raw:
            raise TrainingError(f"{prefix}{name} is missing.")
    return kind(**{name: _value(hints[name], raw[name], prefix + name) for name in raw})


def _value(hint: Any, raw: Any, where: str) -> Any:
    origin, args = get_origin(hint), get_args(hint)
    if is_dataclass(hint):
        return _build(hint, raw, where)  # type: ignore[arg-type]
    if origin is Literal:
        if raw not in args:
            raise TrainingError(f"{where} must be one of {', '.join(map(str, args))}, not {raw}.")
        return raw
    if origin in (Union, types.UnionType):  # only "number or nothing" occurs; TOML has no nothing
        return _value(args[0], raw, where)
    if origin is tuple:
        if not isinstance(raw, list):
            raise TrainingError(f"{where} must be a list.")
        if args[-1] is not Ellipsis and len(raw) != len(args):
            raise TrainingError(f"{where} must hold {len(args)} values, not {len(raw)}.")
        kinds = [args[0]] * len(raw) if args[-1] is Ellipsis else list(args)
        pairs = zip(kinds, raw, strict=True)
        return tuple(_value(k, v, f"{where}[{n}]") for n, (k, v) in enumerate(pairs))
    if origin is dict:
        if not isinstance(raw, Mapping):
            raise TrainingError(f"{where} must be a table.")
        return {str(k): v if args[1] is Any else _value(args[1], v, where) for k, v in raw.items()}
    accepted = (int, float) if hint is float else (hint,)
    if not isinstance(raw, accepted) or (isinstance(raw, bool) and hint is not bool):
        word = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}
        raise TrainingError(f"{where} must be {word[hint]}, not {raw!r}.")
    return float(raw) if hint is float else raw
