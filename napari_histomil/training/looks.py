"""Looks at the validation while a net is fitted: a few numbers to choose the best weights by.

They are of a fixed set of tiles. What a finished model is worth is worked out elsewhere, on whole
fields.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from napari_histomil.errors import TrainingError
from napari_histomil.training.batches import to_shares, to_unit
from napari_histomil.training.config import TrainingConfig
from napari_histomil.training.fields import Field, Uint8
from napari_histomil.training.losses import KNOWN
from napari_histomil.training.sampling import sampler
from napari_histomil.training.tasks import in_bf16, loss_of, scale

BATCH = 8

ODDS_BINS = np.linspace(-20, 20, 4001)
"""Log odds are counted in bins of a hundredth: AUROC of millions of pixels in constant memory."""


class Looks:
    """Fixed validation tiles, and what a net makes of them.

    Parameters
    ----------
    config
        The training.
    fields
        The validation; the tiles are drawn from them like those of the training, not varied.
    """

    def __init__(self, config: TrainingConfig, fields: Sequence[Field]) -> None:
        self._config = config
        shares = {source.name: max(source.share, 1e-6) for source in config.sources}
        tags = [name for name in config.sampling.balance if name in ("class", "slide", "group")]
        draw = sampler(fields, shares, tags)
        rng = np.random.default_rng(config.split.seed)
        self._tiles: list[tuple[Uint8, Uint8]] = [
            draw.cut(config.grid.tile_px, rng) for _ in range(config.validation.tiles)
        ]

    @torch.inference_mode()
    def look(self, net: nn.Module, device: str) -> dict[str, float]:
        """Return loss, AUROC of the positive class, Dice and Cohen's kappa of a net.

        Dice is the mean over the classes that occur, without the background; NaN stands for what
        the tiles do not allow.
        """
        config, counts = self._config, _Counts(self._config)
        losses = []
        was_training = net.training
        net.eval()
        for start in range(0, len(self._tiles), BATCH):
            part = self._tiles[start : start + BATCH]
            images = scale(config, to_unit(np.stack([image for image, _ in part])).to(device))
            labels = to_shares(config, np.stack([index for _, index in part])).to(device)
            losses.append(float(loss_of(config, net, images, labels)) * len(part))
            low = in_bf16(config.schedule, images.device)
            with torch.autocast(images.device.type, torch.bfloat16, enabled=low):
                logits = net(images)
            counts.add(logits.float().cpu(), labels.cpu())
        net.train(was_training)
        return {"loss": sum(losses) / len(self._tiles), **counts.scores()}


def better(config: TrainingConfig, scores: dict[str, float]) -> float:
    """Return the number by which weights are chosen: higher is better.

    Raises
    ------
    TrainingError
        If the validation does not allow it.
    """
    metric = config.validation.metric
    value = scores[metric]
    if math.isnan(value):
        raise TrainingError(
            f"validation.metric {metric!r} cannot be worked out: the validation holds too few "
            f"classes; keep more groups for it, or choose 'loss'."
        )
    return -value if metric == "loss" else value


class _Counts:
    """Right and wrong answers, added up."""

    def __init__(self, config: TrainingConfig) -> None:
        self._config = config
        classes = len(config.classes)
        self._confusion = np.zeros((classes, classes), np.int64)  # truth, answer
        self._binary = np.zeros((classes, 2, 2), np.int64)  # class, truth, answer
        self._odds = np.zeros((2, len(ODDS_BINS) + 1), np.int64)  # truth, bin

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Add a batch: logits [B, K] or [B, K, H, W], shares [B, L, H, W]."""
        config, classes = self._config, len(self._config.classes)
        if logits.ndim == 2:  # a tile answers for its own cell
            edge = (config.grid.tile_px - config.grid.stride_px) // 2
            inner = labels[..., edge : labels.shape[-1] - edge, edge : labels.shape[-1] - edge]
            shares = inner.mean(dim=(2, 3))
            known = shares.sum(dim=1) >= 0.5
        else:
            edge = config.grid.margin_px
            rows = slice(edge, labels.shape[-1] - edge)
            logits, labels = logits[..., rows, rows], labels[..., rows, rows]
            logits = logits.movedim(1, -1).reshape(-1, classes)
            shares = labels.movedim(1, -1).reshape(-1, labels.shape[1])
            known = shares.sum(dim=1) > KNOWN
        logits, truth = logits[known], shares[known].argmax(dim=1).numpy()
        positive = config.labels.positive
        if config.activation == "sigmoid":
            answers = (logits > 0).numpy()
            odds = logits[:, positive]
        else:
            chosen = logits.argmax(dim=1).numpy()
            answers = chosen[:, None] == np.arange(classes)
            others = [i for i in range(classes) if i != positive]
            odds = logits[:, positive] - logits[:, others].logsumexp(dim=1)
            np.add.at(self._confusion, (truth, chosen), 1)
        for number in range(classes):
            pair = 2 * (truth == number) + answers[:, number]
            self._binary[number] += np.bincount(pair, minlength=4).reshape(2, 2)
        bins = np.digitize(odds.numpy(), ODDS_BINS)
        for value in (0, 1):
            own = bins[(truth == positive) == value]
            self._odds[value] += np.bincount(own, minlength=self._odds.shape[1])

    def scores(self) -> dict[str, float]:
        config = self._config
        dice = []
        for number, ((_, false), (missed, hit)) in enumerate(self._binary.tolist()):
            if number != config.labels.background and hit + missed:
                dice.append(2 * hit / (2 * hit + false + missed))
        if config.activation == "sigmoid":
            kappas = [_kappa(table) for table in self._binary]
            kappa = float(np.nanmean(kappas)) if np.isfinite(kappas).any() else math.nan
        else:
            kappa = _kappa(self._confusion)
        return {
            "auroc": _area(self._odds),
            "dice": float(np.mean(dice)) if dice else math.nan,
            "kappa": kappa,
        }


def _kappa(confusion: NDArray[np.int64]) -> float:
    """Cohen's kappa (1960) of a table [truth, answer]; NaN where chance alone agrees."""
    total = confusion.sum()
    if not total:
        return math.nan
    agreed = np.trace(confusion) / total
    chance = float((confusion.sum(axis=0) / total) @ (confusion.sum(axis=1) / total))
    return float((agreed - chance) / (1 - chance)) if chance < 1 else math.nan


def _area(odds: NDArray[np.int64]) -> float:
    """Area under the ROC curve of counts [truth, bin]; equal bins count half."""
    negative, positive = odds.astype(np.float64)
    if not negative.sum() or not positive.sum():
        return math.nan
    below = np.cumsum(negative) - negative
    won = (positive * (below + negative / 2)).sum()
    return float(won / (negative.sum() * positive.sum()))
