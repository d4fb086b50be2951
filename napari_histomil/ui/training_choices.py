"""What is chosen in the Train dock, and the networks that one word stands for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from napari_histomil.manifest import ClassSpec
from napari_histomil.training.config import (
    Network,
    TrainingConfig,
)
from napari_histomil.ui.training_data import AnnotatedSlide, TileFolder

Task = Literal["segment", "classify"]
Kept = Literal["validation", "test", "none"]
"""What is kept from the training: a validation, a validation and a test, nothing."""


@dataclass(frozen=True, slots=True)
class Preset:
    """A network that is chosen by one word."""

    title: str
    tooltip: str
    architecture: str
    arguments: Mapping[str, Any]


_THIN = {"channels": [32, 64, 128, 256]}

PRESETS: Mapping[Task, tuple[Preset, ...]] = {
    "segment": (
        Preset(
            "Small",
            "U-Net on a thin ResNet-18, 3 million weights: trained in an hour or two on a CPU",
            "smp/unet",
            {
                "encoder_name": "tu-resnet18",
                **_THIN,
                "decoder_channels": [128, 64, 48, 32, 16],
            },
        ),
        Preset(
            "Medium",
            "U-Net on a whole ResNet-34, 24 million weights: for many slides and a GPU",
            "smp/unet",
            {"encoder_name": "tu-resnet34"},
        ),
    ),
    "classify": (
        Preset(
            "Small",
            "Thin ResNet-18 that looks at the middle of the tile and sees what is around it, "
            "as metastasis-patch-small",
            "histomil/centre-patch",
            {"backbone": "resnet18", "backbone_arguments": _THIN, "level": 3, "dropout": 0.2},
        ),
        Preset(
            "Medium",
            "The same with a whole ResNet-34: for many slides and a GPU",
            "histomil/centre-patch",
            {"backbone": "resnet34", "level": 3, "dropout": 0.2},
        ),
    ),
}

TILES_PX: Mapping[Task, int] = {"segment": 256, "classify": 192}
"""Side of a tile that is right by default."""

CELL_STEP_PX = 32
"""Tiles are whole numbers of these: nets halve their picture five times."""


@dataclass(frozen=True, slots=True)
class Choices:
    """All that is chosen in the dock."""

    name: str
    task: Task = "segment"
    slides: tuple[AnnotatedSlide, ...] = ()
    """Those that are ticked."""
    groups: Mapping[Path, str] = field(default_factory=dict)
    """Patient (or whatever belongs together) of a slide, where one was typed."""
    tiles: TileFolder | None = None
    """Instead of slides."""
    classes: tuple[ClassSpec, ...] = ()
    """What the model is to tell apart."""
    positive: str = ""
    background: str = ""
    """Class of all else inside ``Region*``; empty for none."""
    kept: Kept = "validation"
    split_seed: int = 0
    mpp: float = 1.0
    tiles_mpp: float = 1.0
    """Of a folder of tiles."""
    tile_px: int = TILES_PX["segment"]
    network: Network | None = None
    """None for the small preset."""
    steps: int = 1000
    batch: int = 12
    base: TrainingConfig | None = None
    """A training from a file: all that the dock does not show is taken from it."""
