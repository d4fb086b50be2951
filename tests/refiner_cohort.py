"""Annotated synthetic slides with a poor detector, for refiners and chains."""

from __future__ import annotations

from pathlib import Path

import torch
from model_folders import TINY_UNET, make_model_folder, make_segmenter_folder, script_model
from shapely.geometry import box

from napari_histomil.annotations.geojson import write_geojson
from napari_histomil.annotations.model import AnnotationClass, Region, SlideFrame
from napari_histomil.slides.readers import open_slide
from napari_histomil.slides.synthetic import write_synthetic

MPP, TILE, MARGIN = 8.0, 32, 4
SIZE_PX0 = 1536, 1280

TOY = """
name = "toy-refiner"
description = "Mends what a poor detector says."
licence = "BSD-3-Clause"
task = "segment"
positive_class = "tumor"
background_class = "normal"
inputs = ["overview", "heatmap"]

[detector]
model = "blue"
class_name = "tumor"

[[classes]]
name = "normal"
color = [120, 160, 220]

[[classes]]
name = "tumor"
color = [200, 0, 0]

[grid]
mpp = 8.0
tile_px = 32
stride_px = 16
margin_px = 4

[normalisation]
mean = [0.7, 0.5, 0.7, 0.2]
std = [0.2, 0.2, 0.2, 0.3]

[network]
architecture = "smp/unet"

[network.arguments]
encoder_name = "tu-resnet10t"
encoder_depth = 2
decoder_channels = [16, 8]
channels = [16, 16, 16, 16]
stem_width = 8

[schedule]
steps = 24
warm_up = 4
batch = 4
learning_rate = 5e-3
checkpoint_every = 4

[split]
test_groups = ["c.tif"]

[validation]
bootstraps = 20

[[sources]]
kind = "slide"
name = "slides"
licence = "CC0-1.0"
slides = ["?.tif"]
annotations = "{stem}.geojson"
class_names = { Tumor = "tumor" }
"""


class Blue(torch.nn.Module):
    """A poor detector: the bluer a tile, the likelier is tumour."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        blue = (x[:, 2] - x[:, 1]).mean((1, 2))[:, None] * 12 - 2
        return torch.cat([-blue, blue], 1)


def write_models(folder: Path) -> None:
    """Write the detector ``blue``, a segmenter ``unet``, and an untrained ``refiner``."""
    script_model(make_model_folder(folder / "blue"), Blue())
    make_segmenter_folder(folder / "unet", background_class="normal")
    make_segmenter_folder(
        folder / "refiner",
        arguments={**TINY_UNET, "in_channels": 4},
        inputs=["overview", "heatmap"],
        grid={"mpp": MPP, "tile_px": TILE, "stride_px": 16, "margin_px": MARGIN},
        normalisation={"mean": [0.7, 0.5, 0.7, 0.0], "std": [0.2, 0.2, 0.2, 1.0]},
    )


def write_slides(folder: Path, names: str) -> None:
    """Write slides ``a.tif``, ..., with all of their tumour drawn, and ``train.toml``."""
    width, height = SIZE_PX0
    for seed, name in enumerate(names, start=3):
        path = folder / f"{name}.tif"
        truth = write_synthetic(path, width=width, height=height, mpp=0.5, seed=seed, pen="")
        drawn = [Region(box(0, 0, width, height), AnnotationClass("Region*", (0, 0, 0)))]
        drawn += [Region(shape, AnnotationClass("Tumor", (200, 0, 0))) for shape in truth.tumour]
        with open_slide(path) as slide:
            write_geojson(path.with_suffix(".geojson"), drawn, frame=SlideFrame.of(slide.info))
    (folder / "train.toml").write_text(TOY, encoding="utf-8")
