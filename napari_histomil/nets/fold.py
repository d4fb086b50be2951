"""Make a net cheaper without changing its answer: norms and scaling go into convolutions.

Which layer feeds which is found by watching one forward pass, not by reading the net's code, so
any net of plain modules is served. Whatever the watching cannot see (a tensor used twice) shows
as a different answer: the caller compares, and keeps the net as it was.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class _Step:
    module: nn.Module
    given: Tensor | None
    result: Tensor | None


def fold_batch_norm(module: nn.Module, example: Tensor) -> int:
    """Fold every batch norm that directly follows a convolution into it, in place.

    Parameters
    ----------
    module
        A net in evaluation mode.
    example
        An input that the net takes, [B, 3, H, W].

    Returns
    -------
    int
        How many were folded.
    """
    steps = _watch(module, example)
    uses = Counter(id(step.module) for step in steps)
    parents = {
        id(child): (parent, name)
        for parent in module.modules()
        for name, child in parent.named_children()
    }
    maker = {id(s.result): s.module for s in steps if isinstance(s.module, nn.Conv2d)}
    folded = 0
    for step in steps:
        norm, conv = step.module, maker.get(id(step.given))
        if not isinstance(norm, nn.BatchNorm2d) or not isinstance(conv, nn.Conv2d):
            continue
        if uses[id(norm)] > 1 or uses[id(conv)] > 1 or norm.running_var is None:
            continue
        _fold_pair(conv, norm)
        parent, name = parents[id(norm)]
        setattr(parent, name, _rest_of(norm))
        folded += 1
    return folded


def first_convolution(module: nn.Module, example: Tensor) -> nn.Conv2d | None:
    """Return the convolution that takes the net's input as it is, padded with zeros or not."""
    for step in _watch(module, example):
        if step.given is example and type(step.module) is nn.Conv2d:
            conv = step.module
            plain = conv.padding_mode == "zeros" and not isinstance(conv.padding, str)
            return conv if plain else None
    return None


def fold_scaling(conv: nn.Conv2d, mean: Sequence[float], std: Sequence[float]) -> None:
    """Let a net's first convolution take pixels of 0 to 255 instead of ``(x / 255 - mean) / std``.

    Zero padding of scaled pixels is padding with the mean colour of unscaled ones: the padding
    is taken from the convolution, the caller pads with ``255 * mean``.
    """
    scale = 1 / (255 * torch.tensor(std, dtype=torch.float64))  # (3,)
    shift = -torch.tensor(mean, dtype=torch.float64) / torch.tensor(std, dtype=torch.float64)
    weight = conv.weight.detach().double()  # (out, 3, kh, kw)
    bias = (weight * shift[:, None, None]).sum(dim=(1, 2, 3))  # (out,)
    if conv.bias is not None:
        bias = bias + conv.bias.detach().double()
    conv.weight = nn.Parameter((weight * scale[:, None, None]).to(conv.weight.dtype))
    conv.bias = nn.Parameter(bias.to(conv.weight.dtype))
    conv.padding = (0, 0)


def _watch(module: nn.Module, example: Tensor) -> list[_Step]:
    """Run once and note what every convolution and batch norm took and gave."""
    steps: list[_Step] = []

    def note(layer: nn.Module, given: tuple[Any, ...], result: Any) -> None:
        steps.append(_Step(layer, given[0] if given else None, result))

    layers = [m for m in module.modules() if isinstance(m, (nn.Conv2d, nn.BatchNorm2d))]
    hooks = [layer.register_forward_hook(note) for layer in layers]
    try:
        with torch.inference_mode():
            module(example)
    finally:
        for hook in hooks:
            hook.remove()
    return steps


def _fold_pair(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """``gamma * (conv(x) - mean) / sqrt(var + eps) + beta`` as one convolution."""
    mean, var = norm.running_mean, norm.running_var
    assert mean is not None  # both or neither are tracked
    assert var is not None
    scale = 1 / torch.sqrt(var.double() + norm.eps)  # (out,)
    if norm.weight is not None:
        scale = scale * norm.weight.detach().double()
    shift = -mean.double() * scale
    if norm.bias is not None:
        shift = shift + norm.bias.detach().double()
    if conv.bias is not None:
        shift = shift + conv.bias.detach().double() * scale
    weight = conv.weight.detach().double() * scale[:, None, None, None]
    conv.weight = nn.Parameter(weight.to(conv.weight.dtype))
    conv.bias = nn.Parameter(shift.to(conv.weight.dtype))


def _rest_of(norm: nn.BatchNorm2d) -> nn.Module:
    """Return what a batch norm does besides normalising: timm's also drops and activates."""
    drop, act = getattr(norm, "drop", None), getattr(norm, "act", None)
    rest = [layer for layer in (drop, act) if isinstance(layer, nn.Module)]
    rest = [layer for layer in rest if not isinstance(layer, nn.Identity)]
    if not rest:
        return nn.Identity()
    return rest[0] if len(rest) == 1 else nn.Sequential(*rest)
