"""A classifier without its last layer: what it knows of a tile before it names a class."""

from __future__ import annotations

from typing import Any

from torch import nn

from napari_histomil.errors import ModelError
from napari_histomil.nets.patch import CentrePatch


def take_head_off(module: nn.Module) -> int:
    """Take a classifier's last layer off; returns how many values it gives then.

    Raises
    ------
    ModelError
        If it is not known which layer that is.
    """
    if isinstance(module, CentrePatch):
        values = module.head.in_features
        module.head = nn.Identity()  # type: ignore[assignment]
        return values
    net: Any = module
    if not hasattr(net, "reset_classifier"):
        raise ModelError(f"The last layer of a {type(module).__name__} is not known.")
    net.reset_classifier(0)
    return int(getattr(net, "head_hidden_size", None) or net.num_features)
