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


@dataclass(slots=True)
class Fitting:
    """All that a fit has learnt after so many steps."""

    net: nn.Module
    kept: nn.Module
    """Moving average of the net's weights."""
    optimiser: torch.optim.Optimizer
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


_NUMBERS = ("step", "loss", "seconds", "over", "best_score", "best_step", "waited", "scores")


def save(fitting: Fitting, path: Path) -> None:
    """Write a fit; the file is there whole or as it was before.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    for part in ("net", "kept"):
        for name, tensor in getattr(fitting, part).state_dict().items():
            tensors[f"{part}/{name}"] = tensor
    for name, tensor in fitting.best.items():
        tensors[f"best/{name}"] = tensor
    for number, values in fitting.optimiser.state_dict()["state"].items():
        for name, tensor in values.items():
            tensors[f"optimiser/{number}/{name}"] = tensor
    about = json.dumps({name: getattr(fitting, name) for name in _NUMBERS})
    plain = {name: t.detach().to("cpu", copy=True).contiguous() for name, t in tensors.items()}
    with whole_file(path) as file:
        file.write_bytes(safetensors.torch.save(plain, {"fitting": about}))


def load(fitting: Fitting, path: Path) -> None:
    """Bring a fit of the same net to where it was.

    Raises
    ------
    TrainingError
        If the file is damaged or of another net.
    """
    try:
        with safetensors.safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {})["fitting"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        parts: dict[str, dict[str, Tensor]] = {"net": {}, "kept": {}, "best": {}, "optimiser": {}}
        for name, tensor in tensors.items():
            part, _, rest = name.partition("/")
            parts[part][rest] = tensor
        fitting.net.load_state_dict(parts["net"])
        fitting.kept.load_state_dict(parts["kept"])
        fitting.optimiser.load_state_dict(
            {
                "state": _states(parts["optimiser"]),
                "param_groups": fitting.optimiser.state_dict()["param_groups"],
            }
        )
    except (OSError, ValueError, KeyError, RuntimeError, safetensors.SafetensorError) as error:
        raise TrainingError(
            f"{path} cannot be used to go on: begin anew with --fresh, or remove its folder."
        ) from error
    fitting.best = parts["best"]
    for name in _NUMBERS:
        setattr(fitting, name, about[name])


def _states(flat: Mapping[str, Tensor]) -> dict[int, dict[str, Any]]:
    states: dict[int, dict[str, Any]] = {}
    for key, tensor in flat.items():
        number, _, name = key.partition("/")
        states.setdefault(int(number), {})[name] = tensor
    return states
