"""A first score of a segmentation: Dice of every field that was left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from napari_histomil.training.batches import to_unit
from napari_histomil.training.config import TrainingConfig
from napari_histomil.training.fields import UNLABELLED, Field
from napari_histomil.training.tasks import scale

BATCH = 8


@dataclass(frozen=True, slots=True, eq=False)
class Overlap:
    """Pixels of a field, by class: [K, 3] of truth and answer both, truth, answer."""

    field: str
    group: str
    pixels: NDArray[np.int64]


@torch.inference_mode()
def overlap(config: TrainingConfig, net: nn.Module, field: Field) -> Overlap:
    """Ask about a field tile by tile, each for the cell in its middle, and count pixels."""
    grid, classes = config.grid, len(config.classes)
    edge = (grid.tile_px - grid.stride_px) // 2
    width, height = field.size_px
    counts = np.zeros((classes, 3), np.int64)
    corners = [
        (x, y) for y in range(0, height, grid.stride_px) for x in range(0, width, grid.stride_px)
    ]
    for start in range(0, len(corners), BATCH):
        tiles, truths = [], []
        for x, y in corners[start : start + BATCH]:
            image, labels = field.cut((x - edge, y - edge), grid.tile_px)
            cell = labels[edge : edge + grid.stride_px, edge : edge + grid.stride_px].copy()
            cell[max(height - y, 0) :], cell[:, max(width - x, 0) :] = UNLABELLED, UNLABELLED
            if (cell != UNLABELLED).any():
                tiles.append(image)
                truths.append(cell)
        if not tiles:
            continue
        logits = net(scale(config, to_unit(np.stack(tiles)))).float()
        logits = logits[..., edge : edge + grid.stride_px, edge : edge + grid.stride_px]
        truth = np.stack(truths)
        if config.activation == "sigmoid":
            answers = (logits > 0).numpy()
        else:
            chosen = logits.argmax(dim=1).numpy()
            answers = chosen[:, None] == np.arange(classes)[:, None, None]
        for number in range(classes):
            answer, true = answers[:, number] & (truth != UNLABELLED), truth == number
            counts[number] += [(answer & true).sum(), true.sum(), answer.sum()]
    return Overlap(field.name, field.group, counts)


def summary(config: TrainingConfig, runs: Sequence[Sequence[Overlap]]) -> dict[str, Any]:
    """Return Dice of each field, their mean, and that of all pixels together.

    Parameters
    ----------
    config
        The training.
    runs
        Of every seed.
    """
    fields = {
        one.field: _mean(
            [_dice(config, of.pixels) for run in runs for of in run if of.field == one.field]
        )
        for one in runs[0]
    }
    together = [_dice(config, np.sum([of.pixels for of in run], axis=0)) for run in runs]
    return {
        "dice": _mean(list(fields.values())),
        "dice_together": _mean(together),
        "dice_together_each_seed": together,
        "groups": len({of.group for of in runs[0]}),
        "fields": fields,
    }


def _dice(config: TrainingConfig, pixels: NDArray[np.int64]) -> float | None:
    """Return the mean over classes that occur or were answered, without the background."""
    values = [
        2 * both / (true + answer)
        for number, (both, true, answer) in enumerate(pixels.tolist())
        if number != config.labels.background and true + answer
    ]
    return round(float(np.mean(values)), 4) if values else None


def _mean(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return round(float(np.mean(there)), 4) if there else None


def lines(scores: Mapping[str, Any]) -> list[str]:
    """Return the paragraphs of the card."""
    fields = ", ".join(
        f"{name} {'-' if value is None else format(value, '.2f')}"
        for name, value in scores["fields"].items()
    )
    mean, together = _text(scores["dice"]), _text(scores["dice_together"])
    first = (
        f"Dice without the background: mean of the pictures {mean}, all pixels together "
        f"{together} ({scores['groups']} groups)."
    )
    return [
        first,
        "",
        f"Single pictures: {fields}.",
        "",
    ]


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
