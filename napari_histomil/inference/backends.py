"""A net made ready for a device: folded, in the right layout and precision.

fp32 here is true float32 (TF32 is off), so that two runs agree to 1e-6.
"""

from __future__ import annotations

import copy
import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from napari_histomil.errors import ModelError
from napari_histomil.manifest import ModelManifest, Normalisation
from napari_histomil.nets.fold import first_convolution, fold_batch_norm, fold_scaling
from napari_histomil.nets.load import load_module
from napari_histomil.nets.onnx_graph import OnnxGraph, graph_flops

Precision = Literal["fp32", "bf16"]

Backend = Literal["eager", "torchscript", "onnxruntime"]
"""What runs a net: torch layer by layer, a TorchScript graph, ONNX Runtime."""

FOLD_TOLERANCE = 1e-4
"""Largest difference that folding may make, relative to the largest logit."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Net:
    """A net that takes uint8 tiles: what was folded, and what is left to do to its input."""

    module: nn.Module
    device: torch.device
    precision: Precision
    pad: tuple[int, int]
    """(vertical, horizontal) px of `border` around each tile; 0 where scaling is not folded."""
    border: Tensor | None
    """float32 (3,), 255 * mean where scaling is folded, else None."""
    scale: Tensor
    """float32 (3,): applied to pixels before `shift` where scaling is not folded."""
    shift: Tensor
    batch_norms_folded: int
    flops: float
    """Of one tile, a multiply-add counted as two."""

    @property
    def dtype(self) -> torch.dtype:
        """What the net computes in."""
        return torch.bfloat16 if self.precision == "bf16" else torch.float32

    @property
    def backend(self) -> Backend:
        """What runs it."""
        if isinstance(self.module, OnnxGraph):
            return "onnxruntime"
        return "torchscript" if isinstance(self.module, torch.jit.ScriptModule) else "eager"

    @property
    def scaling_folded(self) -> bool:
        """Whether the first convolution takes pixels of 0 to 255 as they are."""
        return self.border is not None

    def logits(self, tiles: Tensor) -> Tensor:
        """Answer uint8 [B, H, W, 3] on the net's device with float32 [B, C] or [B, C, H, W]."""
        with torch.inference_mode(), _true_float32(self.device):
            answer: Tensor = self.module(self.prepared(tiles))  # (B, C) or (B, C, H, W)
            return answer.float()

    def prepared(self, tiles: Tensor) -> Tensor:
        """Return uint8 [B, H, W, 3] as the module takes it; good until the thread's next call."""
        return self._pad(tiles) if self.border is not None else self.scaled(tiles)

    def scaled(self, tiles: Tensor) -> Tensor:
        """Return uint8 [B, H, W, 3] as the net was trained to get it, [B, 3, H, W]."""
        x = tiles.permute(0, 3, 1, 2).to(torch.float32)  # (B, 3, H, W), channels last
        return x.mul_(self.scale[:, None, None]).add_(self.shift[:, None, None]).to(self.dtype)

    def _pad(self, tiles: Tensor) -> Tensor:
        """Cast and pad with the mean colour, in one pass over the pixels."""
        (vertical, horizontal), (count, height, width, _) = self.pad, tiles.shape
        if not (vertical or horizontal):
            return tiles.to(self.dtype).permute(0, 3, 1, 2)
        shape = (count, height + 2 * vertical, width + 2 * horizontal, 3)
        padded = _buffers.get(shape, self)
        padded[:, vertical : vertical + height, horizontal : horizontal + width] = tiles
        return padded.permute(0, 3, 1, 2)  # (B, 3, H + 2v, W + 2h), channels last


@contextmanager
def _true_float32(device: torch.device) -> Iterator[None]:
    """Keep cuDNN from rounding float32 to 10 bits of mantissa; other devices do not."""
    if device.type != "cuda":  # the setting is one of the process: only its one feeder touches it
        yield
        return
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


class _Buffers(threading.local):
    """One padded input a thread: its border is painted once, only its inside changes."""

    def __init__(self) -> None:
        self._net: Net | None = None
        self._tensor: Tensor | None = None

    def get(self, shape: tuple[int, ...], net: Net) -> Tensor:
        if self._net is not net or self._tensor is None or self._tensor.shape != shape:
            assert net.border is not None  # only nets with folded scaling are padded here
            border = net.border.to(net.dtype)
            self._tensor = border.expand(shape).clone(memory_format=torch.contiguous_format)
            self._net = net
        return self._tensor


_buffers = _Buffers()


def prepare_net(model: ModelManifest, shape: tuple[int, int], device: torch.device) -> Net:
    """Load a model and make it ready in float32, with all that can be folded folded.

    Parameters
    ----------
    model
        The model.
    shape
        (height, width) of the tiles it will get.
    device
        Where it shall compute.

    Raises
    ------
    ModelError
        If it cannot be loaded, or does not take such tiles, or gives other outputs than stated.
    """
    module = load_module(model)
    normalisation = _normalisation(model)
    generator = torch.Generator().manual_seed(0)
    size = (2, *shape, model.channels)
    tiles = torch.randint(0, 256, size, dtype=torch.uint8, generator=generator)
    plain = bare_net(module, model)
    wanted = _first_answer(plain, model, tiles)
    plain = replace(plain, flops=_count_flops(plain, tiles))
    limit = FOLD_TOLERANCE * max(float(wanted.abs().max()), 1e-3)
    # What segments answers in the size of its input, which must not be padded beforehand.
    foldings = (False,) if model.task == "segment" else (True, False)
    for net in _cheaper(plain, normalisation, tiles, foldings):
        if float((net.logits(tiles) - wanted).abs().max()) <= limit:
            return _to_device(net, device)
    if plain.backend != "onnxruntime":
        _logger.info("folding changes the answers of %s: it is left as it is", model.name)
    return _to_device(plain, device)


def bare_net(module: nn.Module, model: ModelManifest) -> Net:
    """Return a module as a net on the CPU in which nothing is folded.

    Raises
    ------
    ModelError
        If the model states its scaling in a way that is none.
    """
    normalisation = _normalisation(model)
    mean = torch.tensor(normalisation.mean, dtype=torch.float64)
    std = torch.tensor(normalisation.std, dtype=torch.float64)
    return Net(
        module=module,
        device=torch.device("cpu"),
        precision="fp32",
        pad=(0, 0),
        border=None,
        scale=(1 / (255 * std)).float(),
        shift=(-mean / std).float(),
        batch_norms_folded=0,
        flops=0.0,
    )


def _normalisation(model: ModelManifest) -> Normalisation:
    """Return how pixels of 0..1 are scaled: the model's own way, WSInfer's Normalize, or not."""
    if model.normalisation is not None:
        return model.normalisation
    for transform in model.transforms:
        if transform["name"] == "Normalize":
            arguments = transform.get("arguments", {})
            try:
                mean, std = (tuple(float(v) for v in arguments[key]) for key in ("mean", "std"))
            except (KeyError, TypeError, ValueError) as error:
                raise ModelError(
                    f"{model.path}: Normalize needs mean and std as lists."
                ) from error
            if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
                raise ModelError(f"{model.path}: Normalize needs 3 means and 3 std above 0.")
            return Normalisation(mean, std)
    return Normalisation((0.0,) * model.channels, (1.0,) * model.channels)


def _first_answer(net: Net, model: ModelManifest, tiles: Tensor) -> Tensor:
    height, width = tiles.shape[1:3]
    try:
        answer = net.logits(tiles)
    except (RuntimeError, AssertionError, ValueError, IndexError) as error:
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else "no reason given"
        raise ModelError(
            f"The model {model.name} does not take tiles of {width} x {height} px: {reason[:200]}."
        ) from error
    pixels = (height, width) if model.task == "segment" else ()
    embeds = model.task == "embed"
    values = model.embedding_dim if embeds else len(model.classes)
    expected = (len(tiles), values, *pixels)
    if tuple(answer.shape) != expected:
        raise ModelError(
            f"The model {model.name} gives outputs of the shape {tuple(answer.shape)} for "
            f"{expected[0]} tiles and {values} {'values' if embeds else 'classes'}: its "
            f"description does not fit it."
        )
    return answer


def _count_flops(net: Net, tiles: Tensor) -> float:
    if isinstance(net.module, OnnxGraph):  # torch does not see what happens in it
        return graph_flops(net.module.data, (tiles.shape[3], *tiles.shape[1:3]))
    with FlopCounterMode(display=False) as counter:
        net.logits(tiles[:1])
    return float(counter.get_total_flops())


def _cheaper(
    plain: Net, normalisation: Normalisation, tiles: Tensor, foldings: tuple[bool, ...]
) -> Iterator[Net]:
    """Yield what should answer as `plain` does, the cheapest first."""
    if plain.backend == "torchscript":
        yield _freeze(plain)
        return
    if plain.backend == "onnxruntime":  # which folds by itself
        return
    for scaling in foldings:
        yield _fold(plain, normalisation, tiles, scaling=scaling)


def _fold(plain: Net, normalisation: Normalisation, tiles: Tensor, *, scaling: bool) -> Net:
    """Return a copy with batch norms, and the scaling of pixels, folded where that is possible."""
    module = copy.deepcopy(plain.module)
    example = plain.scaled(tiles)
    folded = fold_batch_norm(module, example)
    conv = first_convolution(module, example) if scaling else None
    if conv is None:
        return replace(plain, module=module, batch_norms_folded=folded)
    pad = (int(conv.padding[0]), int(conv.padding[1]))
    fold_scaling(conv, normalisation.mean, normalisation.std)
    border = 255 * torch.tensor(normalisation.mean)
    return replace(plain, module=module, batch_norms_folded=folded, pad=pad, border=border)


def _freeze(plain: Net) -> Net:
    """Make a TorchScript graph's weights constants, which folds its batch norms too."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is", FutureWarning)
        try:
            module = torch.jit.freeze(plain.module)
        except RuntimeError as error:  # a graph may keep attributes that freezing cannot inline
            _logger.info("TorchScript graph is not frozen: %s", error)
            return plain
    return replace(plain, module=module)


def _to_device(net: Net, device: torch.device) -> Net:
    graph = net.module
    module = graph.moved(device) if isinstance(graph, OnnxGraph) else graph.to(device)
    if net.backend == "eager":
        module = module.to(memory_format=torch.channels_last)
    return replace(
        net,
        module=module,
        device=device,
        border=None if net.border is None else net.border.to(device),
        scale=net.scale.to(device),
        shift=net.shift.to(device),
    )


def in_bf16(net: Net) -> Net:
    """Return a copy of the net that computes in bfloat16."""
    module = copy.deepcopy(net.module).to(torch.bfloat16)
    return replace(net, module=module, precision="bf16")
