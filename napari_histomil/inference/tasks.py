"""From what a net answers to what a run stores: one function a task."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_histomil.manifest import ModelManifest


def classify(logits: Tensor, model: ModelManifest) -> Tensor:
    """Return the probabilities of the classes.

    Parameters
    ----------
    logits
        float [B, C].
    model
        Says which activation, and the temperature that logits are divided by (Guo et al. 2017,
        On Calibration of Modern Neural Networks).

    Returns
    -------
    float32 [B, C]
    """
    scaled = logits.float() / model.temperature
    if model.activation == "sigmoid":
        return torch.sigmoid(scaled)
    return torch.softmax(scaled, dim=1)


def segment(logits: Tensor, model: ModelManifest) -> Tensor:
    """Return the probabilities of the classes in each pixel, without a tile's margins.

    Parameters
    ----------
    logits
        float [B, C, h, w].
    model
        As of `classify`; its grid says how wide margins are.

    Returns
    -------
    float32 [B, C, h - 2 margin, w - 2 margin]
    """
    margin = model.grid.margin_px
    height, width = logits.shape[2:]
    return classify(logits[:, :, margin : height - margin, margin : width - margin], model)


def embed(features: Tensor, model: ModelManifest) -> Tensor:
    """Return the features, float32 [B, D], as they are."""
    return features.float()


TASKS: dict[str, Callable[[Tensor, ModelManifest], Tensor]] = {
    "classify": classify,
    "segment": segment,
    "embed": embed,
}

WAYS = tuple((turns, flipped) for flipped in (False, True) for turns in range(4))
"""The eight ways a square tile can lie: quarter turns, and whether it is mirrored first."""


def difference(exact: NDArray[np.float32], other: NDArray[np.float32], task: str) -> float:
    """Return how far answers of tiles differ at most; NaN where one is no number.

    Of probabilities that is their difference, of features that of two vectors divided by the
    length of the first: what they are compared by is their direction.
    """
    if task != "embed":
        return float(np.abs(exact - other).max())
    length = np.maximum(np.linalg.norm(exact, axis=1), 1e-12)
    return float((np.linalg.norm(exact - other, axis=1) / length).max())


def laid(tiles: Tensor, way: tuple[int, bool]) -> Tensor:
    """Return tiles [B, H, W, 3] as they lie that way (see `WAYS`)."""
    turns, flipped = way
    return torch.rot90(tiles.flip(2) if flipped else tiles, turns, (1, 2))
