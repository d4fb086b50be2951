"""What differs between classifying and segmenting: how pixels are scaled, what the loss is."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from napari_histomil.nets.patch import CentrePatch
from napari_histomil.training.config import Scaling, TrainingConfig
from napari_histomil.training.labels import UNLABELLED
from napari_histomil.training.losses import cell_shares, pixel_loss, share_loss


class Normalised(Protocol):
    """A configuration that says how pixels are scaled."""

    @property
    def normalisation(self) -> Scaling:
        """Mean and standard deviation."""


def scale(config: Normalised, images: Tensor) -> Tensor:
    """Scale pixels of 0 to 1 as the net wants them."""
    mean = torch.tensor(config.normalisation.mean, device=images.device)[:, None, None]
    std = torch.tensor(config.normalisation.std, device=images.device)[:, None, None]
    return (images - mean) / std


def glass_channel(config: TrainingConfig) -> int | None:
    """Return the channel of labels that glass belongs to; None where it is unlabelled."""
    background = config.labels.background
    if background == UNLABELLED:
        return None
    return min(background, config.channels - 1)  # NONE is the last


def loss_of(config: TrainingConfig, net: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Ask a net about a batch and return the loss.

    Parameters
    ----------
    config
        The training.
    net
        On the images' device.
    images
        Scaled pixels, float32 [B, 3, T, T].
    labels
        Shares, float32 [B, config.channels, T, T].
    """
    schedule = config.schedule
    images = images.contiguous(memory_format=torch.channels_last)
    with torch.autocast(images.device.type, torch.bfloat16, enabled=schedule.bf16):
        inside = isinstance(net, CentrePatch)
        logits = net.cells(images, schedule.step_px) if inside else net(images)  # type: ignore[operator]
    given = config.loss.class_weights
    weights = (
        torch.tensor([given.get(name, 1.0) for name in config.class_names], device=images.device)
        if given
        else None
    )
    if config.task == "segment":
        background = config.labels.background
        return pixel_loss(
            logits.float(),
            labels,
            sigmoid=config.activation == "sigmoid",
            background=background if background < len(config.classes) else None,
            smoothing=schedule.label_smoothing,
            class_weights=weights,
            dice=config.loss.dice,
        )
    cell_px = config.grid.stride_px
    if not inside:  # only the tile's own cell can be asked for
        edge = (config.grid.tile_px - cell_px) // 2
        labels = labels[..., edge : edge + cell_px, edge : edge + cell_px]
        logits = logits[:, :, None, None]
    shares, known = cell_shares(labels, cell_px, schedule.step_px)
    return share_loss(
        logits.float(),
        shares,
        known,
        smoothing=schedule.label_smoothing,
        class_weights=weights,
    )
