"""From a model folder to a module that answers: weights are verified, loaded, never unpickled."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import safetensors
import safetensors.torch
import timm
import torch
from torch import Tensor, nn

from napari_histomil.errors import ModelError
from napari_histomil.manifest import ModelManifest, verify_model
from napari_histomil.nets.headless import take_head_off
from napari_histomil.nets.onnx_graph import OnnxGraph, read_graph
from napari_histomil.nets.patch import CentrePatch
from napari_histomil.nets.segmenters import build_segmenter
from napari_histomil.nets.token_encoder import TokenEncoder


def _build_timm(name: str, classes: int, arguments: Mapping[str, Any]) -> nn.Module:
    module: nn.Module = timm.create_model(
        name, **{**arguments, "num_classes": classes, "pretrained": False}
    )
    return module


def _build_own(name: str, classes: int, arguments: Mapping[str, Any]) -> nn.Module:
    if name == "centre-patch":
        return CentrePatch(classes, **arguments)
    if name == "token-encoder":
        return TokenEncoder(**arguments)
    raise ValueError(
        f"no net of this program is called {name!r} (known: centre-patch, token-encoder)"
    )


BUILDERS: dict[str, Callable[[str, int, Mapping[str, Any]], nn.Module]] = {
    "timm": _build_timm,
    "histomil": _build_own,
    "smp": build_segmenter,
}
"""Family (an architecture's name before the slash) -> (name, classes, arguments) -> net."""


def load_module(manifest: ModelManifest) -> nn.Module:
    """Load a model: float32, on the CPU, in evaluation mode.

    Returns
    -------
    nn.Module
        Takes float32 [B, 3, H, W], gives logits [B, C], or [B, C, H, W] if it segments, or
        features [B, D] if it embeds.

    Raises
    ------
    ModelError
        If the weights are not those of the manifest, or do not fit the architecture, or a graph
        cannot be trusted or run.
    """
    if manifest.mil is not None:
        raise ModelError(
            f"{manifest.name} takes features of tiles, not tiles (its task is 'mil'): run it as a "
            f"MIL model."
        )
    verify_model(manifest)
    if manifest.weights_format == "torchscript":
        return _load_torchscript(manifest)
    if manifest.weights_format == "onnx":
        return OnnxGraph(read_graph(manifest.weights)).eval()
    module = build_module(manifest.architecture, len(manifest.classes), manifest.arguments)
    return fill_module(module, manifest)


def fill_module(module: nn.Module, manifest: ModelManifest) -> nn.Module:
    """Give a net the weights of a model that were verified: float32, in evaluation mode.

    Raises
    ------
    ModelError
        If they do not fit the net, or are no safetensors.
    """
    try:
        state = safetensors.torch.load_file(manifest.weights)
    except (OSError, safetensors.SafetensorError) as error:
        raise ModelError(f"{manifest.weights} is no file of safetensors: {error}.") from error
    problems = misfit(module.state_dict(), state)
    if problems:
        raise ModelError(
            f"{manifest.weights} does not fit {manifest.architecture} with "
            f"{len(manifest.classes)} classes: {problems}."
        )
    module.load_state_dict(state)
    if manifest.task == "embed" and manifest.classes:  # see headless.as_encoder
        take_head_off(module)
    return module.float().eval()


def build_module(architecture: str, classes: int, arguments: Mapping[str, Any]) -> nn.Module:
    """Build a net with random weights.

    Parameters
    ----------
    architecture
        ``timm/<name>``, ``smp/<name>`` or ``histomil/<name>``.
    classes
        Number of outputs.
    arguments
        Keywords of the builder, e.g. of ``timm.create_model``.

    Raises
    ------
    ModelError
        If there is no such net, or it does not take these arguments.
    """
    family, _, name = architecture.partition("/")
    if family not in BUILDERS:
        raise ModelError(
            f"There is no family of nets {family!r} (known: {', '.join(BUILDERS)}): update "
            f"napari-histomil, or correct 'architecture' in model.json."
        )
    try:
        return BUILDERS[family](name, classes, arguments)
    except (RuntimeError, TypeError, ValueError, KeyError) as error:
        raise ModelError(
            f"The net {architecture} cannot be built with {dict(arguments)}: {error}."
        ) from error


def _load_torchscript(manifest: ModelManifest) -> nn.Module:
    """Load a graph; `torch.jit.load` runs no Python of the file, unlike a pickle."""
    try:
        with warnings.catch_warnings():
            # the models of the WSInfer zoo stay as they are, whatever PyTorch advises
            warnings.filterwarnings("ignore", r"`torch\.jit\.load` is", FutureWarning)
            module: nn.Module = torch.jit.load(  # type: ignore[no-untyped-call]
                str(manifest.weights), map_location="cpu"
            )
    except (RuntimeError, ValueError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else "unknown reason"
        raise ModelError(
            f"{manifest.weights} is no TorchScript file ({reason[:120]}): a checkpoint must be "
            f"converted first, pickles are not loaded."
        ) from error
    return module.float().eval()


def misfit(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    """Return in what the names and shapes of weights are not those wanted, "" if they are.

    So that the message is a sentence and not a page.
    """
    missing = [name for name in wanted if name not in given]
    unexpected = [name for name in given if name not in wanted]
    odd = [
        f"{name} has {list(given[name].shape)} instead of {list(wanted[name].shape)}"
        for name in wanted
        if name in given and given[name].shape != wanted[name].shape
    ]
    problems = [
        *([f"{len(missing)} tensors are missing ({missing[0]}, ...)"] if missing else []),
        *([f"{len(unexpected)} are unknown ({unexpected[0]}, ...)"] if unexpected else []),
        *odd[:1],
    ]
    return "; ".join(problems)
