"""Labelled pixels lie where they belong, and groups never lie on both sides."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from napari_histomil.errors import TrainingError
from napari_histomil.training.config import read_config
from napari_histomil.training.data import make_synthetic, read_sources, read_tiles
from napari_histomil.training.fields import UNLABELLED, array_field


def test_tiles_are_read_with_groups_and_threshold(toy: Path) -> None:
    fields = read_sources(read_config(toy / "train.toml"), toy)
    assert [f.group for f in fields] == [
        "toy tiles/a+b", "toy tiles/a+b", "toy tiles/c", "toy tiles/d",
    ]  # fmt: skip
    _, labels = fields[0].cut((0, 0), 128)
    assert labels[:, :64].max() == 0
    assert labels[:, 64:].min() == 1


def test_channels_stored_as_bgr_are_turned(toy: Path) -> None:
    source = read_config(toy / "train.toml").sources[0]
    Image.new("RGB", (128, 128), (10, 20, 30)).save(toy / "tiles" / "images" / "a.png")
    image, _ = read_tiles(replace(source, channel_order="bgr"), toy, 1.0)[0].cut((0, 0), 4)
    assert image[0, 0].tolist() == [30, 20, 10]


def test_tiles_of_another_resolution_are_averaged(toy: Path) -> None:
    source = read_config(toy / "train.toml").sources[0]
    field = read_tiles(replace(source, mpp=0.5), toy, 1.0)[0]
    assert field.size_px == (64, 64)
    assert field.cut((0, 0), 64)[1].mean() == 0.5


def test_a_mask_without_its_picture_is_refused(toy: Path) -> None:
    (toy / "tiles" / "images" / "c.png").unlink()
    with pytest.raises(TrainingError, match="c has no partner"):
        read_sources(read_config(toy / "train.toml"), toy)


def test_a_group_of_a_missing_picture_is_refused(toy: Path) -> None:
    source = replace(read_config(toy / "train.toml").sources[0], groups=(("a", "nobody"),))
    with pytest.raises(TrainingError, match="nobody"):
        read_tiles(source, toy, 1.0)


def test_no_data_is_one_sentence(toy: Path) -> None:
    with pytest.raises(TrainingError, match="name the data's folder with --data"):
        read_sources(read_config(toy / "train.toml"), toy / "elsewhere")


def test_pieces_are_mirrored_and_slides_end_in_glass() -> None:
    image = np.arange(16, dtype=np.uint8).reshape(4, 4)[..., None].repeat(3, axis=2)
    labels = np.ones((4, 4), np.uint8)
    piece = array_field("p", "g", "s", image, labels, mirrored=True)
    pixels, _ = piece.cut((-2, 0), 4)
    assert pixels[0, :, 0].tolist() == [2, 1, 0, 1]
    slide = array_field("p", "g", "s", image, labels, mirrored=False)
    pixels, found = slide.cut((-2, 2), 4)
    assert pixels[0, :, 0].tolist() == [255, 255, 8, 9]
    assert found[:2].tolist() == [[0, 0, 1, 1]] * 2
    assert pixels[2:].min() == 255


def test_a_synthetic_field_knows_tumour_and_glass() -> None:
    size = (512, 512)
    whole = make_synthetic(3, "s", 1.0, size)
    tissue = make_synthetic(3, "s", 1.0, size, only_tissue=True)
    assert whole.size_px == (256, 256)
    assert 0 < whole.labels.mean() < 1
    np.testing.assert_array_equal(whole.image, tissue.image)
    glass = tissue.labels == UNLABELLED
    assert glass.any()
    assert whole.labels[glass].max() == 0
    np.testing.assert_array_equal(whole.labels[~glass], tissue.labels[~glass])
    assert whole.image[glass].mean() > whole.image[~glass].mean()
