"""A toy training: two kinds of texture in a handful of small pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

TOY = """
name = "toy"
description = "Dark against light."
licence = "BSD-3-Clause"
positive_class = "tumor"
notes = ["Not good for anything."]

[[classes]]
name = "normal"
color = [120, 160, 220]

[[classes]]
name = "tumor"
color = [200, 0, 0]

[grid]
mpp = 1.0
tile_px = 64
stride_px = 32

[normalisation]
mean = [0.7, 0.5, 0.7]
std = [0.2, 0.2, 0.2]

[network]
architecture = "histomil/centre-patch"

[network.arguments]
backbone = "resnet10t"
backbone_arguments = { channels = [8, 8, 16, 16] }
level = 3
cell_px = 32

[schedule]
steps = 12
batch = 4
learning_rate = 1e-2
step_px = 16
bf16 = false

[validation]
folds = 2
bootstraps = 50

[[sources]]
kind = "tiles"
name = "toy tiles"
licence = "CC0-1.0"
share = 1.0
path = "tiles"
groups = [["a", "b"]]
evaluate = true
"""


def write_toy(tmp_path: Path) -> None:
    """Write ``train.toml`` and four pictures: the right half is dark and is tumour."""
    rng = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (tmp_path / "tiles" / folder).mkdir(parents=True)
    for name in "abcd":
        mask = np.zeros((128, 128), np.uint8)
        mask[:, 64:] = 255
        image = rng.normal(190, 12, (128, 128, 3))
        image[:, 64:] -= 80
        picture = Image.fromarray(image.clip(0, 255).astype(np.uint8))
        picture.save(tmp_path / "tiles" / "images" / f"{name}.png")
        Image.fromarray(mask).save(tmp_path / "tiles" / "masks" / f"{name}.png")
    (tmp_path / "train.toml").write_text(TOY, encoding="utf-8")


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """Folder with ``train.toml`` and four pictures: the right half is dark and is tumour."""
    write_toy(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def toy_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same for all tests of a file: what is written into it stays."""
    folder = tmp_path_factory.mktemp("toy")
    write_toy(folder)
    return folder


SEGMENT = (
    TOY.replace('name = "toy"', 'name = "toy-unet"\ntask = "segment"\nbackground_class = "normal"')
    .replace("stride_px = 32", "stride_px = 32\nmargin_px = 8")
    .replace('"histomil/centre-patch"', '"smp/unet"')
    .split("[network.arguments]")[0]
    + """[network.arguments]
encoder_name = "tu-resnet10t"
encoder_depth = 3
decoder_channels = [16, 8, 8]

[schedule]"""
    + TOY.split("[schedule]")[1]
)


@pytest.fixture
def toy_unet(toy: Path) -> Path:
    """The same pictures, with the ``train.toml`` of a small U-Net."""
    (toy / "train.toml").write_text(SEGMENT, encoding="utf-8")
    return toy
