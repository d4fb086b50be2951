"""Variations: what they change, what they leave, and that no amount is no change."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from napari_histomil.stain import fit_stain
from napari_histomil.training.augment import (
    compress,
    disturb,
    jitter_stains,
    mix_stains,
    whiten_edges,
)
from napari_histomil.training.config import Augmentation

NOTHING = Augmentation(blur_probability=0, noise_probability=0)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def stained(*strengths: tuple[float, float], size_px: int = 48) -> Tensor:
    """Tiles of hematoxylin and eosin in varying amounts, of these strengths: [B, 3, s, s]."""
    vectors = np.array([[0.60, 0.72, 0.34], [0.20, 0.95, 0.24]])
    rng = np.random.default_rng(0)
    amounts = rng.uniform(0.1, 1, (size_px, size_px, 2))
    tiles = [np.exp(-(amounts * np.array(s)) @ vectors) for s in strengths]
    return torch.from_numpy(np.stack(tiles)).permute(0, 3, 1, 2).float()


def test_no_amount_is_no_change() -> None:
    images = torch.rand(3, 3, 16, 16)
    for vary in (jitter_stains, mix_stains, disturb, compress):
        assert torch.equal(vary(images, NOTHING, seeded()), images)


def test_stains_are_jittered_as_densities() -> None:
    images = stained((1.0, 0.8), (1.0, 0.8))
    other = jitter_stains(images, replace(NOTHING, hed=0.05), seeded())
    assert (other[0] - other[1]).abs().max() > 0.01  # each tile its own way
    # A factor and a shift of each stain keep the density in a plane: affine, exactly.
    density = [
        -torch.log(t[0].reshape(3, -1).T.double() * 254 / 255 + 1 / 255) for t in (images, other)
    ]
    ones = torch.ones(len(density[0]), 1, dtype=torch.float64)
    given = torch.cat([density[0], ones], dim=1)
    fitted = given @ torch.linalg.lstsq(given, density[1]).solution
    torch.testing.assert_close(fitted, density[1], atol=1e-4, rtol=0)
    small = jitter_stains(images, replace(NOTHING, hed=1e-4), seeded())
    torch.testing.assert_close(small, images, atol=1e-3, rtol=0)


def test_stains_are_mixed_with_those_of_another_tile() -> None:
    images = stained((2.0, 0.7), (1.0, 1.4))
    mixed = mix_stains(images, replace(NOTHING, stain_mix_probability=1.0), seeded())

    def strengths(tile: Tensor) -> list[float]:
        pixels = (tile * 255).round().to(torch.uint8).permute(1, 2, 0).reshape(-1, 3).numpy()
        return fit_stain(pixels, "macenko").strengths.tolist()

    own, other = strengths(images[0]), strengths(images[1])
    for tile in mixed:
        hematoxylin, eosin = strengths(tile)
        assert other[0] - 0.1 < hematoxylin < own[0] + 0.1
        assert own[1] - 0.1 < eosin < other[1] + 0.1
    assert (mixed - images).abs().mean() > 0.005


def test_glass_mixes_with_nothing() -> None:
    images = torch.cat([stained((2.0, 0.7)), torch.ones(1, 3, 48, 48)])
    options = replace(NOTHING, stain_mix_probability=1.0)
    assert torch.equal(mix_stains(images, options, seeded()), images)


def test_blur_takes_detail_and_keeps_the_mean() -> None:
    images = torch.rand(2, 3, 64, 64, generator=seeded())
    blurred = disturb(images, replace(NOTHING, blur_probability=1.0), seeded())
    assert blurred.std() < 0.8 * images.std()
    assert blurred.mean().item() == pytest.approx(images.mean().item(), abs=0.01)


def test_jpeg_is_near_and_not_the_same() -> None:
    images = stained((1.5, 1.0), (1.0, 1.0), size_px=64)
    smooth = torch.nn.functional.avg_pool2d(images, 9, 1, 4)
    packed = compress(smooth, replace(NOTHING, jpeg_probability=1.0), seeded())
    assert 0 < (packed - smooth).abs().mean() < 0.05


def test_glass_is_unlabelled_where_there_is_no_background() -> None:
    labels = torch.ones(2, 1, 32, 32)
    options = replace(NOTHING, edge_probability=1.0)
    white, found = whiten_edges(torch.zeros(2, 3, 32, 32), labels, options, seeded(), None)
    assert torch.equal(found[:, 0] == 0, white[:, 0] > 0.9)
