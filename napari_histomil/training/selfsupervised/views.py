"""Views of a place: cut, zoomed, turned, stained otherwise, blurred; whole batches in torch.

The recipe is that of Chen et al. (2020, "A simple framework for contrastive learning of visual
representations", appendix A) as pathology wants it (Kang et al. 2023, "Benchmarking
self-supervised learning on diverse pathology datasets"): tissue has no upright, so views are
turned and mirrored; its colours vary along the stains (Tellez et al. 2018, hematoxylin and eosin
of Ruifrok and Johnston 2001), not along the hue; grey is seldom and nothing is solarised.

Random numbers are drawn on the CPU wherever the pixels are, so that all devices see the same.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from napari_histomil.training.augment import STAINS, uniform
from napari_histomil.training.selfsupervised.config import PretrainConfig, Views
from napari_histomil.training.tasks import scale

BLUR_PX = 9
"""Side of the blur's kernel."""


def square_px(config: PretrainConfig) -> int:
    """Return the side of the square that is read for the views of one place."""
    return math.ceil(config.grid.tile_px * config.views.field)


def make_views(squares: Tensor, config: PretrainConfig, random: torch.Generator) -> list[Tensor]:
    """Make the views of a batch of places, scaled as the net wants them.

    Parameters
    ----------
    squares
        uint8 [B, S, S, 3] with S = `square_px`.
    random
        Of the CPU.

    Returns
    -------
    list of float32 [B, 3, T, T]
        Two of the tile's side, then the smaller ones.
    """
    images = squares.permute(0, 3, 1, 2).float() / 255
    sides = [config.grid.tile_px] * 2 + [config.local_px] * config.local_views
    views = [scale(config, vary(images, side, config.views, random)) for side in sides]
    return [view.contiguous(memory_format=torch.channels_last) for view in views]


def vary(images: Tensor, side_px: int, options: Views, random: torch.Generator) -> Tensor:
    """Return one view of each square: float32 [B, 3, S, S], 0 to 1 -> [B, 3, side, side]."""
    views = recolor(cut(images, side_px, options.zoom, random), options, random)
    blurred = blur(views, options.blur_sigma_px, random)
    views = _some(blurred, views, options.blur_probability, random)
    inverted = torch.where(views >= 0.5, 1 - views, views)
    return _some(inverted, views, options.solarise_probability, random)


def cut(
    images: Tensor, side_px: int, zoom: tuple[float, float], random: torch.Generator
) -> Tensor:
    """Cut a view out of each square: at any place inside, zoomed, turned by quarters, mirrored."""
    n, side = len(images), images.shape[-1]
    magnified = torch.exp(uniform((n,), math.log(zoom[0]), math.log(zoom[1]), random))
    part = side_px / magnified / side  # of the square's side
    place = uniform((n, 2), -1, 1, random) * (1 - part)[:, None]
    quarter = torch.randint(4, (n,), generator=random)
    cos = torch.tensor([1.0, 0.0, -1.0, 0.0])[quarter]
    sin = torch.tensor([0.0, 1.0, 0.0, -1.0])[quarter]
    flip = torch.where(torch.rand(n, generator=random) < 0.5, -1.0, 1.0)
    rows = (
        torch.stack([part * cos * flip, -part * sin, place[:, 0]], dim=1),
        torch.stack([part * sin * flip, part * cos, place[:, 1]], dim=1),
    )
    matrix = torch.stack(rows, dim=1).to(images.device)  # (n, 2, 3)
    grid = functional.affine_grid(matrix, [n, 3, side_px, side_px], align_corners=False)
    views = functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    return views.clamp(0, 1)


def recolor(images: Tensor, options: Views, random: torch.Generator) -> Tensor:
    """Stain and light some of the views otherwise, and make a few grey: 0 to 1, both ways."""
    n = len(images)
    stains = torch.tensor(STAINS)
    amount = 1 + uniform((n, 3), -options.stain, options.stain, random)
    shift = uniform((n, 3), -options.stain_shift, options.stain_shift, random) @ stains
    change = torch.linalg.inv(stains) @ torch.diag_embed(amount) @ stains  # (n, 3, 3)
    density = -torch.log(images * (254 / 255) + 1 / 255)
    density = torch.einsum("bchw,bcd->bdhw", density, change.to(images.device))
    other = torch.exp(-density - shift[:, :, None, None].to(images.device)).clamp(0, 1)
    light, contrast, colour = uniform((3, n, 1, 1, 1), -1, 1, random).to(images.device)
    other = other * (1 + options.brightness * light)
    middle = other.mean(dim=(1, 2, 3), keepdim=True)
    other = middle + (other - middle) * (1 + options.contrast * contrast)
    grey = _grey(other)
    other = (grey + (other - grey) * (1 + options.saturation * colour)).clamp(0, 1)
    other = _some(other, images, options.color_probability, random)
    return _some(_grey(other).expand_as(other), other, options.grey_probability, random)


def blur(images: Tensor, sigma_px: tuple[float, float], random: torch.Generator) -> Tensor:
    """Blur each view by a Gaussian of its own width."""
    n = len(images)
    sigma = uniform((n, 1), *sigma_px, random)
    place = torch.arange(BLUR_PX) - BLUR_PX // 2
    kernel = torch.exp(-(place**2) / (2 * sigma**2))  # (n, BLUR_PX)
    kernel = (kernel / kernel.sum(dim=1, keepdim=True)).repeat_interleave(3, dim=0)
    kernel = kernel.to(images.device)
    edge = BLUR_PX // 2
    flat = functional.pad(images, (edge, edge, edge, edge), mode="reflect")
    flat = flat.reshape(1, 3 * n, *flat.shape[-2:])
    flat = functional.conv2d(flat, kernel[:, None, None, :], groups=3 * n)
    flat = functional.conv2d(flat, kernel[:, None, :, None], groups=3 * n)
    return flat.reshape(images.shape)


def _grey(images: Tensor) -> Tensor:
    weights = torch.tensor([0.299, 0.587, 0.114], device=images.device)[:, None, None]
    return (images * weights).sum(dim=1, keepdim=True)


def _some(changed: Tensor, images: Tensor, probability: float, random: torch.Generator) -> Tensor:
    """Take the changed picture for that part of the batch."""
    chosen = torch.rand(len(images), generator=random) < probability
    return torch.where(chosen[:, None, None, None].to(images.device), changed, images)
