"""What embeds tiles: models as encoders, and nets that begin with the weights of one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import nn

from napari_histomil.errors import ModelError
from napari_histomil.manifest import ModelManifest
from napari_histomil.nets.headless import take_head_off
from napari_histomil.nets.load import build_module, load_module


@dataclass(frozen=True, slots=True)
class Taken:
    """What a net has of an encoder."""

    tensors: int
    """How many of the net's weights and statistics are the encoder's now."""
    where: str
    """Which part of the net they are in; ``""`` for the net itself."""
    left_out: tuple[str, ...]
    """Names of the encoder's tensors that the net has no place for: its last stages, as a rule."""


def as_encoder(manifest: ModelManifest) -> ModelManifest:
    """Return a model as one that embeds tiles; an encoder is returned as it is.

    What is returned for a patch classifier has the task ``embed`` and still its classes:
    `load.load_module` takes off its last layer. Its hash stays that of the classifier.

    Raises
    ------
    ModelError
        If the model is neither an encoder nor a patch classifier whose layers are known.
    """
    if manifest.task == "embed":
        return manifest
    if manifest.task != "classify" or manifest.weights_format != "safetensors":
        kind = manifest.task if manifest.task != "classify" else manifest.weights_format
        raise ModelError(
            f"{manifest.name} cannot embed tiles ({kind}): name an encoder, or a patch classifier "
            f"with safetensors, whose last layer can be taken off."
        )
    module = build_module(manifest.architecture, len(manifest.classes), manifest.arguments)
    return replace(manifest, task="embed", embedding_dim=take_head_off(module))


def load_encoder_weights(net: nn.Module, manifest: ModelManifest) -> Taken:
    """Put an encoder's weights into the backbone of a classifier or a segmentation.

    A classifier of timm, the backbone of `nets.patch.CentrePatch`, and the encoder of a net of
    segmentation-models-pytorch are known; all of the part must be covered but a classifier's own
    last layer. A backbone that ends early has no place for the encoder's last stages.

    Parameters
    ----------
    net
        Is changed, but only if all fits.
    manifest
        The encoder's.

    Returns
    -------
    Taken
        What was taken.

    Raises
    ------
    ModelError
        If the model is no encoder, its weights are not those that it states, or the
        architectures do not fit.
    """
    if manifest.task != "embed":
        raise ModelError(
            f"{manifest.name} is no encoder (its task is {manifest.task!r}): name a model of the "
            f"task 'embed', as 'histomil pretrain' makes it."
        )
    if manifest.weights_format != "safetensors":
        raise ModelError(
            f"{manifest.name} is a finished graph, whose weights cannot be put into another net: "
            f"name an encoder with safetensors."
        )
    given = {_plain(name): (name, t) for name, t in load_module(manifest).state_dict().items()}
    problems = []
    for where, part, free in _parts(net):
        wanted = {n: t for n, t in part.state_dict().items() if not n.startswith(free)}
        missing = [n for n in wanted if _plain(n) not in given]
        odd = [
            f"{n} is {list(given[_plain(n)][1].shape)} there and {list(t.shape)} here"
            for n, t in wanted.items()
            if _plain(n) in given and given[_plain(n)][1].shape != t.shape
        ]
        if wanted and not missing and not odd:
            with torch.no_grad():
                for name, tensor in wanted.items():
                    tensor.copy_(given[_plain(name)][1])
            taken = {_plain(name) for name in wanted}
            left = tuple(name for plain, (name, _) in given.items() if plain not in taken)
            return Taken(len(wanted), where, left)
        problems.append(odd[0] if odd else f"the encoder has no {missing[0]}" if missing else "")
    raise ModelError(
        f"The encoder {manifest.name} ({manifest.architecture}, {dict(manifest.arguments)}) does "
        f"not fit this net: {problems[0]}. Give both the same backbone with the same arguments."
    )


def _parts(net: nn.Module) -> Iterator[tuple[str, nn.Module, tuple[str, ...]]]:
    """Yield where a backbone may be, the likeliest first, and what in it is no backbone's."""
    for where in ("backbone", "encoder"):
        part = getattr(net, where, None)
        if isinstance(part, nn.Module):
            inner = getattr(part, "model", None)  # timm's, wrapped by timm or by smp
            if isinstance(inner, nn.Module):
                deeper = getattr(inner, "model", None)
                if isinstance(deeper, nn.Module):
                    yield f"{where}.model.model", deeper, _head(deeper)
                yield f"{where}.model", inner, _head(inner)
            yield where, part, _head(part)
            return
    yield "", net, _head(net)


def _head(net: nn.Module) -> tuple[str, ...]:
    """Return how the names of a timm net's last layer begin."""
    config = getattr(net, "default_cfg", None) or {}
    names = config.get("classifier") or ()
    return tuple(f"{name}." for name in ([names] if isinstance(names, str) else names))


def _plain(name: str) -> str:
    """Spell a name alike in whole nets and in those that give feature maps.

    timm joins the names of stages there: ``stages.0.weight`` becomes ``stages_0.weight``.
    """
    return name.replace("_", ".")
