"""From what a net answers to what a run stores: one function a task."""

from __future__ import annotations

import torch
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
