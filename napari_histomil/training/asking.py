"""How a net is asked: what decides it, and tiles in, logits out. Both tasks share this."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from napari_histomil.inference.backends import Net
from napari_histomil.manifest import ClassSpec
from napari_histomil.tiling import GridSpec

Logits = Callable[[NDArray[np.uint8]], Tensor]
"""uint8 [n, T, T, 3 or 4] -> float32 [n, K] or [n, K, T, T]."""


class Scaled(Protocol):
    """``(pixel / 255 - mean) / std``."""

    @property
    def mean(self) -> tuple[float, ...]:
        """Of red, green and blue."""

    @property
    def std(self) -> tuple[float, ...]:
        """Of red, green and blue."""


class Described(Protocol):
    """What a training's configuration and a finished model both say: how a net is asked."""

    @property
    def task(self) -> str:
        """``classify`` or ``segment``."""

    @property
    def grid(self) -> GridSpec:
        """Of the tiles."""

    @property
    def classes(self) -> tuple[ClassSpec, ...]:
        """In the order of the outputs."""

    @property
    def positive_class(self) -> str | None:
        """What areas under curves are of; the last class where there is none."""

    @property
    def background_class(self) -> str | None:
        """Of a segmentation: what is none of the others."""

    @property
    def activation(self) -> str:
        """``softmax`` or ``sigmoid``."""

    @property
    def normalisation(self) -> Scaled | None:
        """How pixels are scaled; not at all, but to 0..1, if None."""


def positive_index(model: Described) -> int:
    """Return the index of the class that areas under curves are of."""
    names = [c.name for c in model.classes]
    return names.index(model.positive_class) if model.positive_class else len(names) - 1


def answerer(model: Described, net: nn.Module | Net) -> Logits:
    """Return what answers tiles in uint8: a module is given them scaled, as in its training."""
    if isinstance(net, Net):
        return lambda tiles: net.logits(torch.from_numpy(tiles).to(net.device))
    device = next((p.device for p in net.parameters()), torch.device("cpu"))
    scaling = model.normalisation
    mean, std = (scaling.mean, scaling.std) if scaling is not None else ((0.0,) * 3, (1.0,) * 3)
    shift, scale = (torch.tensor(v, device=device)[:, None, None] for v in (mean, std))

    def logits(tiles: NDArray[np.uint8]) -> Tensor:
        with torch.inference_mode():
            pixels = torch.from_numpy(tiles).to(device).permute(0, 3, 1, 2) / 255
            answer: Tensor = net((pixels - shift) / scale)
            return answer.float()

    return logits
