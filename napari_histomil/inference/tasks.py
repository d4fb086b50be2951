"""From what a net answers to what a run stores: one function a task."""

from __future__ import annotations

from collections.abc import Callable

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


TASKS: dict[str, Callable[[Tensor, ModelManifest], Tensor]] = {
    "classify": classify,
    "segment": segment,
}
