"""Nets that give every pixel its classes: U-Net (Ronneberger et al. 2015) and its relatives.

They are those of segmentation-models-pytorch, by its names: ``unet``, ``unetplusplus``, ``manet``,
``linknet``, ``fpn``, ``pspnet``, ``pan``, ``deeplabv3``, ``deeplabv3plus``, ``upernet``,
``segformer``, ``dpt``; their encoders too, those of timm as ``tu-<name>``.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

SETTLED = ("activation", "aux_params")
"""Arguments that a model folder cannot choose: logits come out, nothing else."""

CHANNELS = (3, 4)
"""RGB comes in, or RGB of an overview with a heatmap."""


def build_segmenter(name: str, classes: int, arguments: Mapping[str, Any]) -> nn.Module:
    """Build ``smp/<name>`` with random weights: [B, 3, H, W] -> logits [B, classes, H, W].

    With ``in_channels`` 4 it refines heatmaps: [B, 4, H, W].

    Parameters
    ----------
    name
        Of the architecture.
    classes
        Number of outputs of each pixel.
    arguments
        Keywords of ``segmentation_models_pytorch.create_model``, e.g. ``encoder_name``; weights
        are not fetched whatever they say.

    Raises
    ------
    ValueError
        If there is no such architecture, or an argument would change what goes in or comes out.
    """
    # a second of imports that patch classifiers need not pay
    import segmentation_models_pytorch as smp

    known = sorted(smp.MODEL_ARCHITECTURES_MAPPING)
    if name not in known:
        raise ValueError(
            f"segmentation-models-pytorch has no {name!r} (known: {', '.join(known)})"
        )
    odd = [key for key in SETTLED if key in arguments]
    if odd:
        raise ValueError(f"{odd[0]} cannot be chosen")
    if arguments.get("in_channels", 3) not in CHANNELS:
        raise ValueError("in_channels must be 3, or 4 to refine heatmaps")
    taken = inspect.signature(smp.MODEL_ARCHITECTURES_MAPPING[name]).parameters
    unknown = [key for key in arguments if key not in taken]
    if unknown and not str(arguments.get("encoder_name", "")).startswith("tu-"):
        raise ValueError(f"{name} takes no {unknown[0]!r}")  # smp itself passes it over silently
    net: nn.Module = smp.create_model(
        name, **{"in_channels": 3, **arguments, "encoder_weights": None, "classes": classes}
    )
    return net
