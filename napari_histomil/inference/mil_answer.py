"""A bag is asked of one model or of several: answers become arrays, and several become one.

Of an ensemble, logits, contributions and attention are means over the members: contributions then
still add up to the logits, and attention is the weight that a patch has in the mean of the
members' pools, 0 in that of a member that zooms and did not look there. Probabilities are the
mean of the members'. Passes with dropout only say how far probabilities spread: the answer and
the maps stay those of the whole model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from napari_histomil.errors import RunError
from napari_histomil.inference.devices import is_out_of_memory
from napari_histomil.inference.mil_models import Asked
from napari_histomil.nets.mil import MILModel, MILOutput
from napari_histomil.results.bag import Bag
from napari_histomil.results.mil import MilAnswer, MilContributions, MilMap

Ask = Callable[[MILModel], MILOutput]
"""Asks one model about the bag."""


class Missing(Exception):
    """Features that a model that zooms needs next are not there; caught by whoever gets them."""

    def __init__(self, level: int, rows: NDArray[np.int64]) -> None:
        super().__init__(level)
        self.level = level
        """Which level's tiles are zoomed into."""
        self.rows = rows
        """int64 [R], which of them."""


@dataclass(frozen=True, slots=True, eq=False)
class Answered:
    """What a run keeps of an answer; rows of levels are those of the bag."""

    answer: MilAnswer
    maps: tuple[MilMap, ...]
    contributions: tuple[MilContributions, ...]
    bias: NDArray[np.float32] | None
    instance_scores: NDArray[np.float32] | None


def ask_models(asked: Asked, ask: Ask, *, passes: int = 0) -> Answered:
    """Ask each model, with dropout as often as said.

    Raises
    ------
    Missing
        If some model needs features that are not there: what all of them need at the lowest such
        level.
    RunError
        If passes are wanted of models without dropout, or memory does not suffice.
    """
    outputs: list[MILOutput] = []
    probabilities: list[NDArray[np.float32]] = []
    missing: list[Missing] = []
    try:
        with torch.inference_mode():
            for net in asked.nets:
                with _caught(missing):
                    outputs.append(ask(net))
                if passes:
                    for output in _passes(net, ask, passes, missing):
                        probabilities.append(_array(output.probabilities))
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise RunError(
            "The memory does not suffice for the bag: close other programs, or choose the device "
            "cpu."
        ) from error
    if missing:
        level = min(each.level for each in missing)
        rows = [each.rows for each in missing if each.level == level]
        raise Missing(level, np.unique(np.concatenate(rows)))
    return _together(outputs, probabilities)


def bag_tensors(bag: Bag, device: torch.device) -> Tensor | list[Tensor]:
    """Return a bag's features as a model takes them, in the type they are stored in."""
    levels = [tensor_of(np.asarray(level.features), device) for level in bag.levels]
    return levels[0] if len(levels) == 1 else levels


def tensor_of(features: NDArray[Any], device: torch.device) -> Tensor:
    """Return features as a tensor on a device, in the type they are stored in."""
    if not features.flags.writeable:  # torch would warn, and we write to none
        features = features.copy()
    return torch.from_numpy(features).to(device)


def finer_map(asked: Asked, bag: Tensor, finer: Tensor, level: int) -> MilMap:
    """Return the attention of tiles at a smaller stride, as if each were one of the bag's.

    Its softmax is over the bag's tiles: a tile that is one of them has the value that it has
    there.

    Parameters
    ----------
    asked
        Models whose attention to a tile depends on that tile alone.
    bag, finer
        Features [N, D] of the bag and [M, D] of the tiles at the smaller stride.
    level
        Of the finer tiles in the run.
    """
    values, raws, kind = [], [], ""
    with torch.inference_mode():
        for net in asked.nets:
            coarse, fine = (net(features).maps[-1] for features in (bag, finer))
            assert coarse.raw is not None
            assert fine.raw is not None
            norm = coarse.raw.logsumexp(1, keepdim=True)
            values.append(_array((fine.raw - norm).exp()))
            raws.append(_array(fine.raw))
            kind = fine.kind
    value = np.asarray(np.mean(values, axis=0), np.float32)
    raw = raws[0] if len(raws) == 1 else None
    return MilMap(level, kind, raw, value, np.arange(value.shape[1]))


@contextmanager
def _caught(missing: list[Missing]) -> Iterator[None]:
    try:
        yield
    except Missing as error:
        missing.append(error)


def _passes(net: MILModel, ask: Ask, passes: int, missing: list[Missing]) -> list[MILOutput]:
    """Return answers with dropout on; the same every time."""
    found: list[MILOutput] = []
    layers = [m for m in net.modules() if isinstance(m, nn.Dropout) and m.p > 0]
    if not layers:
        raise RunError("The model has no dropout, so passes with it are all the same: leave them.")
    device = next(net.parameters()).device
    try:
        for layer in layers:
            layer.train()
        for number in range(passes):
            with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
                torch.manual_seed(number)
                with _caught(missing):
                    found.append(ask(net))
    finally:
        for layer in layers:
            layer.eval()
    return found


def _together(outputs: Sequence[MILOutput], passes: list[NDArray[np.float32]]) -> Answered:
    own = np.stack([_array(output.probabilities) for output in outputs])
    how = "dropout" if passes else "ensemble" if len(outputs) > 1 else "one model"
    answer = MilAnswer(
        np.mean([_array(o.logits) for o in outputs], axis=0, dtype=np.float32),
        own.mean(axis=0, dtype=np.float32),
        np.stack(passes) if passes else own,
        how,
    )
    kinds = dict.fromkeys((m.magnification, m.kind) for o in outputs for m in o.maps)
    return Answered(
        answer,
        tuple(_map(outputs, level, kind) for level, kind in kinds),
        _contributions(outputs),
        _mean([o.bias for o in outputs]),
        _mean([o.instance_scores for o in outputs]),
    )


def _map(outputs: Sequence[MILOutput], level: int, kind: str) -> MilMap:
    maps = [m for o in outputs for m in o.maps if (m.magnification, m.kind) == (level, kind)]
    rows = [_array(m.index, np.int64) for m in maps]
    if len(outputs) == 1:
        raw, value = (None if v is None else _array(v) for v in (maps[0].raw, maps[0].value))
        return MilMap(level, kind, raw, value, rows[0])
    index = np.unique(np.concatenate(rows))
    values = [None if m.value is None else _array(m.value) for m in maps]
    known = [value for value in values if value is not None]
    if len(known) < len(maps):
        return MilMap(level, kind, None, None, index)
    return MilMap(level, kind, None, _spread(known, rows, index, len(outputs)), index)


def _contributions(outputs: Sequence[MILOutput]) -> tuple[MilContributions, ...]:
    if any(o.contributions is None for o in outputs):
        return ()
    parts = [part for o in outputs for part in o.contributions_of()]
    found = []
    for level in dict.fromkeys(part[0] for part in parts):
        rows = [_array(index, np.int64) for at, index, _ in parts if at == level]
        values = [_array(value) for at, _, value in parts if at == level]
        index = np.unique(np.concatenate(rows)) if len(outputs) > 1 else rows[0]
        summed = _spread(values, rows, index, len(outputs)) if len(outputs) > 1 else values[0]
        found.append(MilContributions(level, index, summed))
    return tuple(found)


def _spread(
    values: Sequence[NDArray[np.float32]],
    rows: Sequence[NDArray[np.int64]],
    index: NDArray[np.int64],
    count: int,
) -> NDArray[np.float32]:
    """Return the mean over members of values [K, M] at their rows, laid out at `index`."""
    total = np.zeros((values[0].shape[0], len(index)), np.float64)
    for value, at in zip(values, rows, strict=True):
        total[:, np.searchsorted(index, at)] += value
    return (total / count).astype(np.float32)


def _mean(values: Sequence[Tensor | None]) -> NDArray[np.float32] | None:
    known = [_array(value) for value in values if value is not None]
    return np.mean(known, axis=0, dtype=np.float32) if len(known) == len(values) else None


def _array(tensor: Tensor, dtype: Any = np.float32) -> NDArray[Any]:
    return tensor.detach().cpu().numpy().astype(dtype, copy=False)
