"""What differs between trainings: how pixels are scaled, in which precision, what the loss is."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from napari_histomil.inference.devices import has_fast_bf16
from napari_histomil.nets.patch import CentrePatch
from napari_histomil.training.config import Scaling, TrainingConfig
from napari_histomil.training.labels import UNLABELLED
from napari_histomil.training.losses import cell_shares, pixel_loss, share_loss


class Rounded(Protocol):
    """A schedule that says in which precision is computed."""

    @property
    def bf16(self) -> bool | str:
        """Whether in bfloat16, or ``auto``."""


def in_bf16(schedule: Rounded, device: str | torch.device) -> bool:
    """Whether a schedule computes in bfloat16 on a device."""
    if isinstance(schedule.bf16, bool):
        return schedule.bf16
    return has_fast_bf16(torch.device(device))


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
        Scaled pixels, float32 [B, 3 or 4, T, T].
    labels
        Shares, float32 [B, config.channels, T, T].
    """
    schedule = config.schedule
    images = images.contiguous(memory_format=torch.channels_last)
    low = in_bf16(schedule, images.device)
    with torch.autocast(images.device.type, torch.bfloat16, enabled=low):
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
