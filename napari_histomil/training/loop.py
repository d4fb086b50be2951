"""Fit one net: a generator that can be watched and stopped after every step."""

from __future__ import annotations

import copy
import math
import threading
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_histomil.errors import TrainingError
from napari_histomil.nets.load import build_module
from napari_histomil.nets.patch import CentrePatch
from napari_histomil.training.augment import augment, margin
from napari_histomil.training.config import Schedule, TrainingConfig
from napari_histomil.training.fields import UNLABELLED, Field, cut_around
from napari_histomil.training.losses import cell_shares, share_loss


@dataclass(frozen=True, slots=True)
class TrainingProgress:
    """One more step is done."""

    stage: str
    """What is being fitted, in words: ``fold 2 of 5``, ``final model``."""
    step: int
    steps: int
    loss: float
    """Mean of the last steps."""
    seconds: float
    """Since the stage began."""

    @property
    def seconds_left(self) -> float:
        """Estimated time to the end of the stage."""
        return self.seconds / max(self.step, 1) * (self.steps - self.step)


class TrainingCancelled(TrainingError):
    """The person stopped the training; nothing was written."""


def fit(
    config: TrainingConfig,
    fields: Sequence[Field],
    *,
    seed: int,
    stage: str = "",
    device: str = "cpu",
    cancel: threading.Event | None = None,
) -> Generator[TrainingProgress, None, nn.Module]:
    """Fit the configured net to the fields.

    The same seed on the same machine gives the same net.

    Parameters
    ----------
    config
        The training.
    fields
        What to learn from.
    seed
        Decides the first weights, the order and the variation of the tiles.
    stage
        Put into the progress.
    device
        ``cpu``, ``cuda`` or ``mps``.
    cancel
        Set it to stop before the next step.

    Yields
    ------
    TrainingProgress
        After every step.

    Returns
    -------
    nn.Module
        The averaged net, on the CPU, in evaluation mode (the generator's value).

    Raises
    ------
    TrainingCancelled
        If `cancel` was set.
    TrainingError
        If the loss is no number any more.
    """
    schedule, places = config.schedule, np.random.default_rng([seed, 1])
    random = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = build_module(
            config.network.architecture, len(config.classes), config.network.arguments
        )
    net = net.to(device).to(memory_format=torch.channels_last)
    kept: nn.Module = copy.deepcopy(net)
    optimiser = torch.optim.AdamW(_decayed(net, schedule.weight_decay), lr=schedule.learning_rate)
    started, mean_loss = time.monotonic(), math.nan
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + 1)  # dropout
        for step in range(schedule.steps):
            if cancel is not None and cancel.is_set():
                raise TrainingCancelled(f"The training was stopped in {stage or 'its course'}.")
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(schedule, step)
            images, labels = draw_batch(config, fields, places, random)
            loss = _loss(net.train(), config, images.to(device), labels.to(device))
            value = float(loss.detach())
            if not math.isfinite(value):
                raise TrainingError(
                    f"The loss became {value} in step {step + 1}: lower schedule.learning_rate."
                )
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimiser.step()
            _average(kept, net, min(schedule.average, (1 + step) / (10 + step)))
            mean_loss = value if step == 0 else 0.95 * mean_loss + 0.05 * value
            yield TrainingProgress(
                stage, step + 1, schedule.steps, mean_loss, time.monotonic() - started
            )
    return kept.cpu().eval()


def learning_rate(schedule: Schedule, step: int) -> float:
    """Return the rate of a step: linear warm-up times a half cosine to 0."""
    warm = min(1.0, (step + 1) / max(schedule.warm_up, 1))
    return schedule.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * step / schedule.steps))


def draw_batch(
    config: TrainingConfig,
    fields: Sequence[Field],
    places: np.random.Generator,
    random: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Cut and vary a batch: scaled pixels [B, 3, T, T] and shares of classes [B, K, T, T]."""
    size_px, classes = config.grid.tile_px, len(config.classes)
    side = math.ceil(size_px * margin(config.augmentation))
    shares = {source.name: source.share for source in config.sources}
    cuts = [cut_around(fields, shares, side, places) for _ in range(config.schedule.batch)]
    images = torch.from_numpy(np.stack([image for image, _ in cuts])).permute(0, 3, 1, 2) / 255
    index = torch.from_numpy(np.stack([label for _, label in cuts])).long()
    known = index != UNLABELLED
    hot = functional.one_hot(torch.where(known, index, 0), classes) * known[..., None]
    labels = hot.permute(0, 3, 1, 2).float()
    images, labels = augment(images, labels, size_px, config.augmentation, random)
    return scale(config, images), labels


def scale(config: TrainingConfig, images: Tensor) -> Tensor:
    """Scale pixels of 0 to 1 as the net wants them."""
    mean = torch.tensor(config.normalisation.mean, device=images.device)[:, None, None]
    std = torch.tensor(config.normalisation.std, device=images.device)[:, None, None]
    return (images - mean) / std


def _loss(net: nn.Module, config: TrainingConfig, images: Tensor, labels: Tensor) -> Tensor:
    """Ask all cells inside the tiles if the net can answer for them, else the tiles' own cell."""
    schedule, cell_px = config.schedule, config.grid.stride_px
    images = images.contiguous(memory_format=torch.channels_last)
    with torch.autocast(images.device.type, torch.bfloat16, enabled=schedule.bf16):
        if isinstance(net, CentrePatch):
            logits = net.cells(images, schedule.step_px)
        else:
            logits = net(images)[:, :, None, None]
    if not isinstance(net, CentrePatch):
        edge = (config.grid.tile_px - cell_px) // 2
        labels = labels[..., edge : edge + cell_px, edge : edge + cell_px]
    shares, known = cell_shares(labels, cell_px, schedule.step_px)
    return share_loss(
        logits.float(),
        shares,
        known,
        smoothing=schedule.label_smoothing,
    )


def _decayed(net: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Weights decay; biases and norms do not."""
    matrices = [p for p in net.parameters() if p.ndim > 1]
    others = [p for p in net.parameters() if p.ndim <= 1]
    return [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]


@torch.no_grad()
def _average(kept: nn.Module, net: nn.Module, decay: float) -> None:
    """Move the kept weights and statistics a little towards the net's."""
    for mine, theirs in zip(kept.state_dict().values(), net.state_dict().values(), strict=True):
        if mine.dtype.is_floating_point:
            mine.lerp_(theirs, 1 - decay)
        else:
            mine.copy_(theirs)
