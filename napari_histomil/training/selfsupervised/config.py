"""What to pretrain and how: a TOML file, checked member by member as a training's is.

A file looks like this::

    name = "lymph-node-encoder"
    description = "..."
    licence = "BSD-3-Clause"
    method = "simclr"              # or "byol", "mocov3", "dino"

    [grid]
    mpp = 1.0
    tile_px = 96
    stride_px = 96                 # what a job over a slide takes, unless it says otherwise

    [normalisation]
    mean = [0.70, 0.54, 0.70]
    std = [0.20, 0.22, 0.15]

    [backbone]
    name = "resnet18"              # any name of timm
    arguments = { channels = [32, 64, 128, 256] }

    [schedule]
    steps = 2000

    [[sources]]
    kind = "slides"                # or "pictures"
    name = "our slides"
    licence = "..."
    path = "slides"                # a slide, or a folder of slides at any depth

Paths are relative to the data folder that the person names.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from napari_histomil.errors import TrainingError
from napari_histomil.tiling import GridSpec
from napari_histomil.training.config import Scaling
from napari_histomil.training.toml import read_as


@dataclass(frozen=True, slots=True)
class Backbone:
    """The net that learns to embed tiles."""

    name: str
    """As timm knows it."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """Keywords of ``timm.create_model``; weights are random whatever they say."""


@dataclass(frozen=True, slots=True)
class TileSource:
    """Where unlabelled pixels come from.

    ``pictures``: every picture below the folder `path`. ``slides``: the slide `path`, or every
    slide below the folder `path`; tiles are read on the fly where there is tissue.
    """

    kind: Literal["pictures", "slides"]
    name: str
    licence: str
    path: str
    share: float = 1.0
    """How often a tile comes from here, against the other sources."""
    mpp: float | None = None
    """Of pictures, µm/px; of slides that do not say their own."""
    channel_order: Literal["rgb", "bgr"] = "rgb"
    """Of pictures."""
    leave_out: tuple[str, ...] = ()
    """Names (without suffix) of pictures or slides that are not looked at: those that a later
    evaluation holds out."""
    min_tissue: float = 0.5
    """Least share of tissue in the square that the views of a slide's tile are cut from."""


@dataclass(frozen=True, slots=True)
class Views:
    """How views of a place differ; a probability or an amount of 0 switches a variation off.

    A square `field` times as wide as a tile is read; a view is cut from it at any place, zoomed,
    turned by quarters and mirrored. Colours vary as stains do.
    """

    field: float = 1.5
    zoom: tuple[float, float] = (0.7, 1.4)
    """Least and largest magnification against the grid's µm/px; evenly in its logarithm."""
    color_probability: float = 0.8
    stain: float = 0.25
    """Amount of hematoxylin, eosin and the rest is multiplied by 1 plus or minus at most this."""
    stain_shift: float = 0.05
    """Optical density that is added to each of them, at most, both ways."""
    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.2
    grey_probability: float = 0.05
    blur_probability: float = 0.3
    blur_sigma_px: tuple[float, float] = (0.1, 1.5)
    solarise_probability: float = 0.0
    """Inverting bright pixels makes colours that no stain has; the papers on photographs do it."""
    local_views: int = 6
    """Further, smaller views of each place: DINO only."""
    local_px: int = 0
    """Their side; 0 for half of the tile's."""


@dataclass(frozen=True, slots=True)
class PretrainSchedule:
    """Optimisation: AdamW, linear warm-up, then a half cosine to 0.

    The papers train thousands of tiles at once and need LARS for that; at the batches of one
    machine AdamW does as well (MoCo v3 and DINO use it themselves).
    """

    steps: int
    batch: int = 64
    """Places in a step; each has two views or more."""
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warm_up: int = 50
    bf16: Literal["auto", True, False] = "auto"
    """Forward and backward in bfloat16 (autocast); weights and losses stay
    float32. ``auto``: where the device computes it by itself, settled at the beginning."""
    checkpoint_every: int = 100
    """So many steps apart all that is needed to go on is written."""


@dataclass(frozen=True, slots=True)
class SimclrOptions:
    """SimCLR's own settings."""

    hidden: int = 512
    projection: int = 128
    temperature: float = 0.2


@dataclass(frozen=True, slots=True)
class ByolOptions:
    """BYOL's own settings."""

    hidden: int = 512
    projection: int = 128
    momentum: float = 0.99
    """Of the teacher at the beginning; it grows to 1 along a half cosine."""


@dataclass(frozen=True, slots=True)
class MocoOptions:
    """MoCo v3's own settings."""

    hidden: int = 512
    projection: int = 128
    temperature: float = 0.2
    momentum: float = 0.99
    """Of the teacher at the beginning; it grows to 1 along a half cosine."""


@dataclass(frozen=True, slots=True)
class DinoOptions:
    """DINO's own settings."""

    hidden: int = 512
    bottleneck: int = 256
    """Width before the prototypes. The temperatures suit this: in fewer dimensions cosines are
    larger, and the teacher's first answers, still random, too sharp."""
    prototypes: int = 4096
    """Outputs of the head."""
    student_temperature: float = 0.1
    teacher_temperature: float = 0.04
    centre_momentum: float = 0.9
    momentum: float = 0.99
    """Of the teacher at the beginning; it grows to 1 along a half cosine."""
    frozen_part: float = 0.02
    """Part of the steps in which the head's last layer stays as it is."""


@dataclass(frozen=True, slots=True)
class PretrainConfig:
    """All that decides a pretraining, but the data's pixels."""

    name: str
    description: str
    licence: str
    method: Literal["simclr", "byol", "mocov3", "dino"]
    grid: GridSpec
    normalisation: Scaling
    backbone: Backbone
    schedule: PretrainSchedule
    sources: tuple[TileSource, ...]
    views: Views = field(default_factory=Views)
    simclr: SimclrOptions = field(default_factory=SimclrOptions)
    byol: ByolOptions = field(default_factory=ByolOptions)
    mocov3: MocoOptions = field(default_factory=MocoOptions)
    dino: DinoOptions = field(default_factory=DinoOptions)
    notes: tuple[str, ...] = ()
    """Paragraphs for the card: what the encoder is good for and what not, what is known of the
    data."""

    def __post_init__(self) -> None:
        schedule, views = self.schedule, self.views
        if {len(self.normalisation.mean), len(self.normalisation.std)} != {3}:
            raise TrainingError("normalisation needs three numbers of mean and of std.")
        if not self.sources:
            raise TrainingError("There is nothing to learn from: add a table [[sources]].")
        if min(s.share for s in self.sources) < 0 or sum(s.share for s in self.sources) <= 0:
            raise TrainingError("The shares of the sources must be 0 or more, and one above 0.")
        for source in self.sources:
            if source.kind == "pictures" and not (source.mpp and source.mpp > 0):
                raise TrainingError(
                    f"The pictures of {source.name!r} do not say their µm/px: add mpp, above 0."
                )
        if schedule.batch < 2 or schedule.steps < 1 or schedule.checkpoint_every < 1:
            raise TrainingError(
                "schedule.steps and schedule.checkpoint_every must be 1 or more, and "
                "schedule.batch 2 or more."
            )
        if not 0 < views.zoom[0] <= views.zoom[1]:
            raise TrainingError("views.zoom must be two numbers above 0, the smaller one first.")
        if views.field * views.zoom[0] < 1:
            raise TrainingError(
                f"A view at a zoom of {views.zoom[0]:g} does not fit into a square of "
                f"{views.field:g} tiles: make views.field at least {1 / views.zoom[0]:.3g}."
            )
        if not 0 < views.blur_sigma_px[0] <= views.blur_sigma_px[1]:
            raise TrainingError(
                "views.blur_sigma_px must be two numbers above 0, the smaller one first."
            )
        if not 0 <= self.local_px <= self.grid.tile_px:
            raise TrainingError("views.local_px must be 0 to grid.tile_px.")

    @property
    def local_views(self) -> int:
        """How many smaller views of each place there are."""
        return self.views.local_views if self.method == "dino" else 0

    @property
    def local_px(self) -> int:
        """Side of the smaller views."""
        return self.views.local_px or self.grid.tile_px // 2


def read_pretrain_config(path: Path) -> PretrainConfig:
    """Read a pretraining's TOML file.

    Raises
    ------
    TrainingError
        If the file cannot be read, or a member is missing, unknown or of the wrong kind.
    """
    return read_as(PretrainConfig, path)
