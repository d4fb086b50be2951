"""Vary training tiles: place, turn, zoom, colours of stains, sharpness, JPEG, white edges.

Everything happens on whole batches in torch. Pixels and labels turn together; colours are varied
as stains are: as optical density along the hematoxylin and eosin vectors of Ruifrok and Johnston
(2001), after Tellez et al. (2018, "Whole-slide mitosis detection in H&E breast histology using
PHH3 as a reference to train distilled stain-invariant convolutional networks").
"""

from __future__ import annotations

import math

import numpy as np
import simplejpeg
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from napari_histomil.errors import RunError
from napari_histomil.stain import StainFit, fit_stain, normalise_stain
from napari_histomil.training.config import Augmentation

STAINS = ((0.650, 0.704, 0.286), (0.072, 0.990, 0.105), (0.268, 0.570, 0.776))
"""Optical density of hematoxylin, eosin and the rest, for red, green, blue (unit length)."""

STAIN_PIXELS = 4096
"""So many pixels of a tile tell its stains."""

JPEG_QUALITY = (30, 91)

HEAT_SQUARES = 16
"""Along a tile's side: what is added to a heatmap, or missing in it, is so in squares."""


def margin(options: Augmentation) -> float:
    """Return how much larger than a tile the square must be that it is cut from."""
    return math.sqrt(2) * math.exp(options.zoom + options.stretch)


def warp(
    images: Tensor, labels: Tensor, size_px: int, options: Augmentation, random: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Cut tiles, turned, mirrored, zoomed and stretched at random, from the middle of squares.

    Parameters
    ----------
    images
        float32 [B, 3 or 4, S, S].
    labels
        float32 [B, K, S, S], share of each class in each pixel; all 0 where unlabelled.
    size_px
        Side T of the tiles.

    Returns
    -------
    images float32 [B, 3 or 4, T, T], labels float32 [B, K, T, T]
    """
    n, side = len(images), images.shape[-1]
    angle = uniform((n,), 0, 2 * math.pi, random)
    zoom = torch.exp(uniform((n,), -options.zoom, options.zoom, random))
    stretch = torch.exp(uniform((n,), -options.stretch / 2, options.stretch / 2, random))
    flip = torch.where(torch.rand(n, generator=random) < 0.5, -1.0, 1.0)
    part = size_px / side / zoom
    cos, sin = torch.cos(angle), torch.sin(angle)
    zero = torch.zeros(n)
    matrix = torch.stack(
        [
            torch.stack([part * cos * flip * stretch, -part * sin / stretch, zero], dim=1),
            torch.stack([part * sin * flip * stretch, part * cos / stretch, zero], dim=1),
        ],
        dim=1,
    )  # (n, 2, 3)
    both = torch.cat([images, labels], dim=1)
    grid = functional.affine_grid(
        matrix, [n, both.shape[1], size_px, size_px], align_corners=False
    )
    moved = functional.grid_sample(both, grid, padding_mode="reflection", align_corners=False)
    channels = images.shape[1]
    return moved[:, :channels].clamp(0, 1), moved[:, channels:]


def recolor(images: Tensor, options: Augmentation, random: torch.Generator) -> Tensor:
    """Give some of the tiles other colours: float32 [B, 3, H, W], 0 to 1, both ways."""
    n = len(images)
    stains = torch.tensor(STAINS)
    amount = 1 + uniform((n, 3), -options.stain, options.stain, random)
    change = torch.linalg.inv(stains) @ torch.diag_embed(amount) @ stains  # (n, 3, 3)
    density = -torch.log(images * (254 / 255) + 1 / 255)
    other = torch.exp(-torch.einsum("bchw,bcd->bdhw", density, change)).clamp(1e-4, 1)
    other = other ** torch.exp(uniform((n, 1, 1, 1), -options.gamma, options.gamma, random))
    grey = other.mean(dim=1, keepdim=True)
    saturation = 1 + uniform((n, 1, 1, 1), -options.saturation, options.saturation, random)
    other = grey + (other - grey) * saturation
    other = other * (1 + uniform((n, 3, 1, 1), -options.tint, options.tint, random))
    chosen = torch.rand(n, generator=random) < options.color_probability
    return torch.where(chosen[:, None, None, None], other.clamp(0, 1), images)


def jitter_stains(images: Tensor, options: Augmentation, random: torch.Generator) -> Tensor:
    """Multiply and shift the density of each stain of each tile: float32 [B, 3, H, W], 0 to 1.

    HED jitter after Tellez et al. (2018, 2019): hematoxylin, eosin and the rest each get a factor
    of 1 plus or minus `hed` and a shift of at most `hed`.
    """
    if not options.hed:
        return images
    n, stains = len(images), torch.tensor(STAINS)
    factor = 1 + uniform((n, 3, 1, 1), -options.hed, options.hed, random)
    shift = uniform((n, 3, 1, 1), -options.hed, options.hed, random)
    density = -torch.log(images * (254 / 255) + 1 / 255)
    amount = torch.einsum("bchw,cs->bshw", density, torch.linalg.inv(stains))
    other = torch.einsum("bshw,sc->bchw", amount * factor + shift, stains)
    return ((torch.exp(-other) - 1 / 255) * (255 / 254)).clamp(0, 1)


def mix_stains(images: Tensor, options: Augmentation, random: torch.Generator) -> Tensor:
    """Give some tiles stains between their own and those of the tile before them in the batch.

    Stain vectors and strengths are those of Macenko et al. (2009), see `stain.py`; after "stain
    mix-up" (Chang et al. 2021). A tile that shows no two stains stays, and gives none.
    """
    if not options.stain_mix_probability:
        return images
    pixels = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    fits = [_fitted(tile) for tile in pixels]
    result = images.clone()
    chances = torch.rand(len(images), generator=random).tolist()
    parts = torch.rand(len(images), generator=random).tolist()
    for i, (chance, part) in enumerate(zip(chances, parts, strict=True)):
        own, other = fits[i], fits[i - 1]
        if chance >= options.stain_mix_probability or own is None or other is None:
            continue
        values = [(1 - part) * a + part * b for a, b in zip(own.values, other.values, strict=True)]
        mixed = normalise_stain(pixels[i], own, StainFit("macenko", tuple(values)))
        result[i] = torch.from_numpy(mixed).permute(2, 0, 1) / 255
    return result


def _fitted(tile: NDArray[np.uint8]) -> StainFit | None:
    """Return the stains of a tile uint8 [H, W, 3]; None where it does not show two."""
    every = max(tile.shape[0] * tile.shape[1] // STAIN_PIXELS, 1)
    try:
        return fit_stain(tile.reshape(-1, 3)[::every], "macenko")
    except RunError:  # glass, fat, or one stain only
        return None


def compress(images: Tensor, options: Augmentation, random: torch.Generator) -> Tensor:
    """Compress some tiles as JPEG, as scanners do: float32 [B, 3, H, W], 0 to 1, both ways."""
    result = images.clone()
    chances = torch.rand(len(images), generator=random).tolist()
    qualities = torch.randint(*JPEG_QUALITY, (len(images),), generator=random).tolist()
    for i, (chance, quality) in enumerate(zip(chances, qualities, strict=True)):
        if chance < options.jpeg_probability:
            pixels = (images[i] * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous()
            data = simplejpeg.encode_jpeg(pixels.numpy(), quality=quality)
            back = torch.from_numpy(simplejpeg.decode_jpeg(data))
            result[i] = back.permute(2, 0, 1) / 255
    return result


def disturb(images: Tensor, options: Augmentation, random: torch.Generator) -> Tensor:
    """Blur some tiles and put noise on others: float32 [B, 3, H, W], 0 to 1, both ways."""
    result = images.clone()
    for i, chance in enumerate(torch.rand(len(images), generator=random).tolist()):
        if chance < options.blur_probability:
            sigma = float(uniform((1,), 0.4, 1.1, random))
            kernel = torch.exp(-((torch.arange(7) - 3.0) ** 2) / (2 * sigma**2))
            kernel = kernel / kernel.sum()
            padded = functional.pad(images[i : i + 1], (3, 3, 3, 3), mode="reflect")
            across = functional.conv2d(padded, kernel.expand(3, 1, 1, 7), groups=3)
            down = kernel[:, None].expand(3, 1, 7, 1)
            result[i] = functional.conv2d(across, down, groups=3)[0]
        elif chance < options.blur_probability + options.noise_probability:
            amount = float(uniform((1,), 0.0, 0.04, random))
            noise = torch.randn(images[i].shape, generator=random)
            result[i] = (images[i] + amount * noise).clamp(0, 1)
    return result


def distrust_heat(heat: Tensor, options: Augmentation, random: torch.Generator) -> Tensor:
    """Make heatmaps fainter or stronger, noisy, and blind in places: float32 [B, 1, H, W].

    A refiner that always learnt from one detector's heatmaps as they are would repeat it. What
    is added and what is missed is so in squares, as the detector's own cells are.
    """
    n, height, width = len(heat), *heat.shape[2:]
    power = torch.exp(uniform((n, 1, 1, 1), -options.heat_gamma, options.heat_gamma, random))
    shape = n, 1, HEAT_SQUARES, HEAT_SQUARES
    noise = options.heat_noise * torch.randn(shape, generator=random)
    missed = uniform((n, 1, 1, 1), 0, options.heat_drop, random)
    seen = (torch.rand(shape, generator=random) >= missed).float()
    noise, seen = (functional.interpolate(each, (height, width)) for each in (noise, seen))
    return (heat**power + noise).clamp(0, 1) * seen


def whiten_edges(
    images: Tensor,
    labels: Tensor,
    options: Augmentation,
    random: torch.Generator,
    glass: int | None = 0,
) -> tuple[Tensor, Tensor]:
    """Put glass along one side of some tiles.

    A heatmap is 0 there. Glass belongs to the class `glass`, by default the first; it is
    unlabelled if that is None.
    """
    images, labels = images.clone(), labels.clone()
    side = images.shape[-1]
    for i in range(len(images)):
        if float(torch.rand(1, generator=random)) >= options.edge_probability:
            continue
        width = int(torch.randint(side // 8, side // 2, (1,), generator=random))
        turn = int(torch.randint(4, (1,), generator=random))
        color = float(uniform((1,), 0.92, 1.0, random))
        for tensor, value in ((images, color), (labels, 0.0)):
            view = torch.rot90(tensor[i], turn, (1, 2)).clone()
            view[:, :, :width] = value
            if tensor is images:
                view[3:, :, :width] = 0.0  # no detector looks at glass
            if tensor is labels and glass is not None:
                view[glass, :, :width] = 1.0
            tensor[i] = torch.rot90(view, -turn, (1, 2))
    return images, labels


def augment(
    images: Tensor,
    labels: Tensor,
    size_px: int,
    options: Augmentation,
    random: torch.Generator,
    glass: int | None = 0,
) -> tuple[Tensor, Tensor]:
    """Do all of it: squares [B, 3, 4 or K, S, S] in, tiles [B, 3, 4 or K, T, T] out.

    Of four channels the last is a heatmap, which has no colours.
    """
    moved, labels = warp(images, labels, size_px, options, random)
    images, heat = moved[:, :3], moved[:, 3:]
    for vary in (recolor, jitter_stains, mix_stains, disturb, compress):
        images = vary(images, options, random)
    if heat.shape[1]:
        images = torch.cat([images, distrust_heat(heat, options, random)], dim=1)
    return whiten_edges(images, labels, options, random, glass)


def uniform(shape: tuple[int, ...], low: float, high: float, random: torch.Generator) -> Tensor:
    """Return random numbers between two, drawn on the CPU."""
    return torch.rand(shape, generator=random) * (high - low) + low
