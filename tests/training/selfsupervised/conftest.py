"""A toy pretraining: pictures of bands of noise, coarse and fine, in all kinds of light."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from napari_histomil.training.selfsupervised.config import PretrainConfig, read_pretrain_config

TOY = """
name = "toy-encoder"
description = "Tells bands of noise."
licence = "BSD-3-Clause"
method = "simclr"
notes = ["Not good for anything."]

[grid]
mpp = 1.0
tile_px = 32
stride_px = 32

[normalisation]
mean = [0.5, 0.5, 0.5]
std = [0.2, 0.2, 0.2]

[backbone]
name = "resnet10t"
arguments = { channels = [8, 16, 32, 64], stem_width = 8 }

[schedule]
steps = 6
batch = 4
warm_up = 2
checkpoint_every = 2
bf16 = false

[views]
field = 2.5
zoom = [1.0, 1.0]
color_probability = 1.0
stain = 0.5
stain_shift = 0.3
brightness = 0.5
contrast = 0.6
saturation = 0.8
grey_probability = 0.2
blur_probability = 0.0
local_views = 2
local_px = 16

[simclr]
hidden = 128
projection = 64

[byol]
hidden = 128
projection = 64
momentum = 0.9

[mocov3]
hidden = 128
projection = 64
momentum = 0.9

[dino]
hidden = 128
bottleneck = 64
prototypes = 64
momentum = 0.9

[[sources]]
kind = "pictures"
name = "toy pictures"
licence = "CC0-1.0"
path = "pictures"
mpp = 1.0
"""


@dataclass(frozen=True, slots=True, eq=False)
class Textures:
    """Pictures [N, 96, 96, 3] of four kinds."""

    pictures: NDArray[np.uint8]
    kinds: NDArray[np.int64]


def textures(count: int, seed: int) -> Textures:
    """Make pictures; light and contrast tell nothing of the kind."""
    rng = np.random.default_rng(seed)
    kinds = np.arange(count) % 4
    pictures = []
    for kind in kinds:
        fine, coarse = ((0.6, 1.2), (1.0, 2.0), (1.6, 3.2), (2.6, 5.2))[kind]
        noise = rng.normal(size=(96, 96))
        band = ndimage.gaussian_filter(noise, fine, mode="wrap")
        band -= ndimage.gaussian_filter(noise, coarse, mode="wrap")
        light = rng.uniform(0.35, 0.7) * rng.uniform(0.75, 1.25, 3)
        picture = light + rng.uniform(0.07, 0.18) * (band / band.std())[..., None]
        pictures.append((255 * picture).clip(0, 255).astype(np.uint8))
    return Textures(np.stack(pictures), kinds)


@pytest.fixture
def make_textures() -> Callable[[int, int], Textures]:
    """Give `textures` to tests."""
    return textures


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """Folder with ``pretrain.toml`` and eight pictures."""
    (tmp_path / "pictures").mkdir()
    for number, picture in enumerate(textures(8, 0).pictures):
        Image.fromarray(picture).save(tmp_path / "pictures" / f"{number}.png")
    (tmp_path / "pretrain.toml").write_text(TOY, encoding="utf-8")
    return tmp_path


@pytest.fixture
def config(toy: Path) -> PretrainConfig:
    """What ``pretrain.toml`` says."""
    return read_pretrain_config(toy / "pretrain.toml")
