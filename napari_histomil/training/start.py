"""The net that training starts from: random weights, or fetched ones where they are asked for."""

from __future__ import annotations

import urllib.error
from collections.abc import Mapping
from typing import Any

import timm
import torch
from torch import Tensor, nn

from napari_histomil.errors import TrainingError, brief
from napari_histomil.manifest import ModelManifest, find_model, verify_model
from napari_histomil.nets.encoders import load_encoder_weights
from napari_histomil.nets.load import build_module
from napari_histomil.nets.patch import CentrePatch
from napari_histomil.training.config import Network, TrainingConfig
from napari_histomil.training.repeatable import seeded


def initial_net(config: TrainingConfig, seed: int) -> nn.Module:
    """Return the net before the first step, float32, on the CPU.

    Parameters
    ----------
    config
        The training. ``encoder_weights = "imagenet"`` among the arguments of an smp net, or
        ``pretrained = true`` among those of a timm net or backbone, fetches weights.
    seed
        Decides the random weights.

    Raises
    ------
    ModelError
        If there is no such net, or no such encoder, or they do not fit each other.
    TrainingError
        If the weights that are asked for cannot be fetched, or the net does not take the tiles.
    """
    network, classes = config.network, len(config.classes)
    with seeded(seed, "cpu"):
        net = build_module(network.architecture, classes, built_arguments(config))
    _fetch(config, net)
    encoder = first_encoder(network)
    if encoder is not None:
        verify_model(encoder)
        load_encoder_weights(net, encoder)
    _try(config, net)
    return net


def kept_arguments(network: Network) -> dict[str, Any]:
    """Return the arguments that `model.json` states: those that say how the net is built."""
    kept = {
        k: v for k, v in network.arguments.items() if k not in ("encoder_weights", "pretrained")
    }
    if isinstance(kept.get("backbone_arguments"), Mapping):
        inner = {k: v for k, v in kept["backbone_arguments"].items() if k != "pretrained"}
        kept["backbone_arguments"] = inner
    return kept


def built_arguments(config: TrainingConfig) -> dict[str, Any]:
    """Return `kept_arguments` with the channels that a refiner takes."""
    channels = {"in_channels": config.image_channels} if config.inputs else {}
    return kept_arguments(config.network) | channels


def first_weights(network: Network) -> str:
    """Return in words what training starts from."""
    encoder, given = first_encoder(network), _asked(network)
    if encoder is not None:
        return f"the encoder {encoder.name} ({encoder.weights_sha256[:12]})"
    return "random weights" if not given else f"{given} weights of the encoder"


def first_encoder(network: Network) -> ModelManifest | None:
    """Return the encoder whose weights the backbone starts with; None for none.

    Raises
    ------
    ModelError
        If there is none of that name.
    """
    return find_model(network.encoder) if network.encoder else None


def _asked(network: Network) -> str:
    """Return the name of the weights to fetch; empty for none."""
    arguments = network.arguments
    if network.architecture.startswith("smp/"):
        return str(arguments.get("encoder_weights") or "")
    inner = arguments.get("backbone_arguments", arguments)
    wanted = isinstance(inner, Mapping) and inner.get("pretrained")
    return "pretrained" if wanted or arguments.get("pretrained") else ""


def _fetch(config: TrainingConfig, net: nn.Module) -> None:
    """Put fetched weights into the part of the net that they belong to."""
    network = config.network
    given = _asked(network)
    if not given:
        return
    family, _, name = network.architecture.partition("/")
    try:
        if family == "smp":
            state = _smp_encoder(name, network.arguments, given, config.image_channels)
            net.get_submodule("encoder").load_state_dict(state)
        elif isinstance(net, CentrePatch):
            arguments = dict(network.arguments.get("backbone_arguments", {}))
            backbone = timm.create_model(
                network.arguments["backbone"],
                **{
                    **arguments,
                    "pretrained": True,
                    "features_only": True,
                    "out_indices": (network.arguments.get("level", 3),),
                },
            )
            net.backbone.load_state_dict(backbone.state_dict())
        else:
            _load_but_head(
                net, timm.create_model(name, **{**network.arguments, "pretrained": True})
            )
    except (OSError, RuntimeError, ValueError, KeyError, urllib.error.URLError) as error:
        raise TrainingError(
            f"The {given} weights of {network.architecture} cannot be had ({brief(error)}): "
            f"connect to the network, choose others, or leave them out to start from random "
            f"weights."
        ) from error


def _smp_encoder(
    name: str, arguments: Mapping[str, Any], weights: str, channels: int
) -> Mapping[str, Tensor]:
    import segmentation_models_pytorch as smp

    fetched: nn.Module = smp.create_model(
        name, **{**arguments, "encoder_weights": weights, "in_channels": channels, "classes": 1}
    )
    return fetched.get_submodule("encoder").state_dict()


def _load_but_head(net: nn.Module, fetched: nn.Module) -> None:
    """Take all weights of the same name and shape: all but those of another number of classes."""
    own = net.state_dict()
    state = {
        name: tensor
        for name, tensor in fetched.state_dict().items()
        if name in own and own[name].shape == tensor.shape
    }
    net.load_state_dict(state, strict=False)


@torch.inference_mode()
def _try(config: TrainingConfig, net: nn.Module) -> None:
    """Ask once, so that a net that cannot take the tiles says so in a sentence."""
    tile = config.grid.tile_px
    net.eval()
    try:
        shape = tuple(net(torch.zeros(1, config.image_channels, tile, tile)).shape)
    except (AssertionError, RuntimeError, ValueError) as error:  # timm asserts
        raise TrainingError(
            f"{config.network.architecture} does not take tiles of {tile} px "
            f"({brief(error)}): choose another grid.tile_px."
        ) from error
    wanted = (1, len(config.classes)) + ((tile, tile) if config.task == "segment" else ())
    if shape != wanted:
        raise TrainingError(
            f"{config.network.architecture} answers to a tile with {list(shape)} instead of "
            f"{list(wanted)}: it cannot {config.task}."
        )
