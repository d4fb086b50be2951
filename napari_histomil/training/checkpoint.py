"""A fit on the disk: one file of tensors with the rest as JSON in its header, written whole.

Random numbers are not kept: those of a step come from the seed and the step's number
(`loop.py`), so a fit that goes on draws what it would have drawn.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from napari_histomil.errors import TrainingError
from napari_histomil.files import whole_file

FILE = "checkpoint.safetensors"

DAMAGES = (OSError, ValueError, TypeError, KeyError, safetensors.SafetensorError)
"""What reading a file raises that `write` did not write, or not to its end."""

_OPTIMISER = "optimiser"


@dataclass(slots=True)
class Fitting:
    """All that a fit has learnt after so many steps."""

    net: nn.Module
    kept: nn.Module
    """Moving average of the net's weights."""
    optimiser: torch.optim.Optimizer
    beside: nn.Module = field(default_factory=nn.Module)
    """What is learnt beside the net, for the training only."""
    step: int = 0
    loss: float = math.nan
    """Mean of the last steps."""
    seconds: float = 0.0
    over: bool = False
    best: dict[str, Tensor] = field(default_factory=dict)
    """Weights of the look at the validation that was best."""
    best_score: float = -math.inf
    best_step: int = 0
    waited: int = 0
    """Looks since then."""
    scores: dict[str, float] = field(default_factory=dict)
    """Of the last look."""

    def looked(self, scores: dict[str, float], score: float, weights: nn.Module) -> None:
        """Keep what a look at the validation found, and the weights if they are the best so far.

        Parameters
        ----------
        scores
            Figure -> value.
        score
            By which looks are compared; larger is better.
        weights
            The net that was looked at.
        """
        self.scores = scores
        if score > self.best_score:
            self.best_score, self.best_step, self.waited = score, self.step, 0
            self.best = {
                name: tensor.detach().to("cpu", copy=True)
                for name, tensor in weights.state_dict().items()
            }
        else:
            self.waited += 1


_NUMBERS = ("step", "loss", "seconds", "over", "best_score", "best_step", "waited", "scores")


def save(fitting: Fitting, path: Path) -> None:
    """Write a fit; the file is there whole or as it was before.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    parts = {
        "net": fitting.net.state_dict(),
        "kept": fitting.kept.state_dict(),
        "beside": fitting.beside.state_dict(),
        "best": fitting.best,
    }
    write(path, parts, fitting.optimiser, {name: getattr(fitting, name) for name in _NUMBERS})


def load(fitting: Fitting, path: Path) -> None:
    """Bring a fit of the same net to where it was.

    Raises
    ------
    TrainingError
        If the file is damaged or of another net.
    """
    try:
        parts, facts = read(path)
        fitting.net.load_state_dict(parts["net"])
        fitting.kept.load_state_dict(parts["kept"])
        fitting.beside.load_state_dict(parts.get("beside", {}))
        restore(fitting.optimiser, parts)
        numbers = {name: facts[name] for name in _NUMBERS}
    except (*DAMAGES, RuntimeError) as error:
        raise TrainingError(
            f"{path} cannot be used to go on: begin anew with --fresh, or remove its folder."
        ) from error
    fitting.best = parts.get("best", {})
    for name, number in numbers.items():
        setattr(fitting, name, number)


# --- the file, whatever is learnt ---------------------------------------------------------------


def write(
    path: Path,
    parts: Mapping[str, Mapping[str, Tensor]],
    optimiser: torch.optim.Optimizer,
    facts: Mapping[str, Any],
) -> None:
    """Write states by name, an optimiser, and facts (plain JSON values), all or nothing.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    tensors = {f"{part}/{name}": t for part, state in parts.items() for name, t in state.items()}
    for number, values in optimiser.state_dict()["state"].items():
        tensors |= {f"{_OPTIMISER}/{number}/{name}": t for name, t in values.items()}
    plain = {name: t.detach().to("cpu", copy=True).contiguous() for name, t in tensors.items()}
    with whole_file(path) as file:
        file.write_bytes(safetensors.torch.save(plain, {"facts": json.dumps(facts)}))


def read(path: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Return the states and facts that `write` wrote; one of `DAMAGES` if it is not whole."""
    with safetensors.safe_open(path, "pt") as file:
        facts: dict[str, Any] = json.loads(file.metadata()["facts"])
        names: list[str] = list(file.keys())
        tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in names}
    parts: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        part, _, name = key.partition("/")
        parts.setdefault(part, {})[name] = tensor
    return parts, facts


def restore(optimiser: torch.optim.Optimizer, parts: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Bring an optimiser that has taken no step to where it was."""
    states: dict[int, dict[str, Tensor]] = {}
    for key, tensor in parts.get(_OPTIMISER, {}).items():
        number, _, name = key.partition("/")
        states.setdefault(int(number), {})[name] = tensor
    optimiser.load_state_dict({**optimiser.state_dict(), "state": states})
