"""Ask a net about labelled fields, as a run would: what was asked, what it answered.

What the answers are worth is worked out in `scores.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from napari_histomil.errors import TrainingError
from napari_histomil.training.config import TrainingConfig
from napari_histomil.training.fields import UNLABELLED, Field
from napari_histomil.training.loop import scale

ASK_BATCH = 32

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """What was asked and answered, one row a cell."""

    field: NDArray[np.str_]
    group: NDArray[np.str_]
    share: Floats
    """True share of the positive class."""
    logit: Floats
    """Log odds of the positive class."""

    def __len__(self) -> int:
        return len(self.share)

    @property
    def truth(self) -> NDArray[np.bool_]:
        """Whether the positive class has at least half of the cell."""
        return self.share >= 0.5

    def where(self, keep: NDArray[np.bool_]) -> Answers:
        """Return some of the rows."""
        return Answers(self.field[keep], self.group[keep], self.share[keep], self.logit[keep])

    def unmixed(self, tolerance: float) -> Answers:
        """Return the cells that hold (nearly) nothing else than one side."""
        return self.where((self.share <= tolerance) | (self.share >= 1 - tolerance))


def join(parts: Sequence[Answers]) -> Answers:
    """Put answers one after the other."""
    if not parts:
        raise TrainingError("There are no answers to score.")
    return Answers(
        np.concatenate([p.field for p in parts]),
        np.concatenate([p.group for p in parts]),
        np.concatenate([p.share for p in parts]),
        np.concatenate([p.logit for p in parts]),
    )


@torch.inference_mode()
def ask(config: TrainingConfig, net: nn.Module, field: Field) -> Answers:
    """Return the net's answer for every whole cell of a field, tile by tile as a run would.

    Cells of which less than half is labelled are left out.
    """
    grid = config.grid
    names = [c.name for c in config.classes]
    positive = names.index(config.positive_class)
    edge = (grid.tile_px - grid.stride_px) // 2
    width, height = field.size_px
    corners = [
        (x, y)
        for y in range(0, height - grid.stride_px + 1, grid.stride_px)
        for x in range(0, width - grid.stride_px + 1, grid.stride_px)
    ]
    shares, logits = [], []
    for start in range(0, len(corners), ASK_BATCH):
        tiles = []
        for x, y in corners[start : start + ASK_BATCH]:
            image, labels = field.cut((x - edge, y - edge), grid.tile_px)
            cell = labels[edge : edge + grid.stride_px, edge : edge + grid.stride_px]
            known = cell != UNLABELLED
            if known.mean() >= 0.5:
                tiles.append(image)
                shares.append(float((cell[known] == positive).mean()))
        if tiles:
            pixels = torch.from_numpy(np.stack(tiles)).permute(0, 3, 1, 2) / 255
            answer = net(scale(config, pixels)).double()
            others = [i for i in range(len(names)) if i != positive]
            odds = answer[:, positive] - answer[:, others].logsumexp(dim=1)
            logits += odds.tolist()
    n = len(shares)
    return Answers(
        np.array([field.name] * n, dtype=np.str_),
        np.array([field.group] * n, dtype=np.str_),
        np.array(shares),
        np.array(logits),
    )
