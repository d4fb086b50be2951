"""A classifier's answers about the cells of labelled fields, tile by tile as a run would."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from napari_histomil.inference.backends import Net
from napari_histomil.review.calibration import cross_entropies, tempered
from napari_histomil.training.asking import Described, answerer, positive_index
from napari_histomil.training.fields import UNLABELLED, Field

ASK_BATCH = 32

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """What was asked and answered, one row a cell (or a pixel)."""

    field: NDArray[np.str_]
    group: NDArray[np.str_]
    xy_px: NDArray[np.int32]
    """[n, 2], first pixel of the cell in its field, at the model's µm/px."""
    shares: Floats
    """[n, K], true share of each class."""
    logits: Floats
    """[n, K]"""
    positive: int = 1
    """Index of the positive class."""
    activation: str = "softmax"

    def __len__(self) -> int:
        return len(self.shares)

    @property
    def share(self) -> Floats:
        """True share of the positive class."""
        return self.shares[:, self.positive]

    @property
    def truth(self) -> NDArray[np.bool_]:
        """Whether the positive class has at least half of the cell."""
        return self.share >= 0.5

    @property
    def logit(self) -> Floats:
        """Log odds of the positive class."""
        if self.activation == "sigmoid":
            return self.logits[:, self.positive]
        others = np.delete(self.logits, self.positive, axis=1)
        odds: Floats = self.logits[:, self.positive] - np.logaddexp.reduce(others, axis=1)
        return odds

    @property
    def losses(self) -> Floats:
        """Cross-entropy of each row."""
        return cross_entropies(self.logits, self.shares, self.activation)

    def probabilities(self, temperature: float | Floats = 1.0) -> Floats:
        """Return [n, K]; the logits are divided by the temperature (one, or one a row)."""
        return tempered(self.logits, temperature, self.activation)

    def where(self, keep: NDArray[np.bool_]) -> Answers:
        """Return some of the rows."""
        return Answers(
            self.field[keep],
            self.group[keep],
            self.xy_px[keep],
            self.shares[keep],
            self.logits[keep],
            self.positive,
            self.activation,
        )

    def unmixed(self, tolerance: float) -> Answers:
        """Return the cells that hold (nearly) nothing else than one side."""
        return self.where((self.share <= tolerance) | (self.share >= 1 - tolerance))


def join_cells(parts: Sequence[Answers]) -> Answers:
    """Put answers of one model (or of models alike) one after the other."""
    return Answers(
        np.concatenate([p.field for p in parts]),
        np.concatenate([p.group for p in parts]),
        np.concatenate([p.xy_px for p in parts]),
        np.concatenate([p.shares for p in parts]),
        np.concatenate([p.logits for p in parts]),
        parts[0].positive,
        parts[0].activation,
    )


def ask_cells(model: Described, net: nn.Module | Net, field: Field) -> Answers:
    """Return a classifier's answer for every whole cell of a field, tile by tile as a run would.

    Cells of which less than half is labelled are left out.

    Parameters
    ----------
    model
        A training's configuration, or a finished model.
    net
        A module in evaluation mode, wherever it computes, or one made ready for a run.
    field
        What is asked about.
    """
    grid, classes = model.grid, len(model.classes)
    edge = (grid.tile_px - grid.stride_px) // 2
    width, height = field.size_px
    corners = [
        (x, y)
        for y in range(0, height - grid.stride_px + 1, grid.stride_px)
        for x in range(0, width - grid.stride_px + 1, grid.stride_px)
    ]
    logits_of = answerer(model, net)
    places, shares, logits = [], [], []
    for start in range(0, len(corners), ASK_BATCH):
        tiles = []
        for x, y in corners[start : start + ASK_BATCH]:
            image, labels = field.cut((x - edge, y - edge), grid.tile_px)
            cell = labels[edge : edge + grid.stride_px, edge : edge + grid.stride_px]
            known = cell[cell != UNLABELLED]
            if 2 * known.size >= cell.size:
                tiles.append(image)
                places.append((x, y))
                shares.append(np.bincount(known, minlength=256)[:classes] / known.size)
        if tiles:
            logits.append(logits_of(np.stack(tiles)).double().cpu().numpy())
    count = len(places)
    return Answers(
        np.full(count, field.name),
        np.full(count, field.group),
        np.array(places, np.int32).reshape(count, 2),
        np.array(shares, float).reshape(count, classes),
        np.concatenate(logits) if logits else np.zeros((0, classes)),
        positive_index(model),
        model.activation,
    )
