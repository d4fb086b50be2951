"""All that a pretraining needs to go on, in one file: tensors by safetensors, the rest as JSON.

The JSON lies in the file's own metadata, so that both are replaced at once: a kill leaves the old
checkpoint or the new one, never a half. Nothing is pickled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from napari_histomil.errors import TrainingError
from napari_histomil.files import whole_file

CHECKPOINT_FILE = "checkpoint.safetensors"
NET, OPTIMISER = "net.", "optimiser."


def save_checkpoint(
    path: Path, net: nn.Module, optimiser: torch.optim.Optimizer, facts: Mapping[str, Any]
) -> None:
    """Write net, optimiser and facts (plain JSON values).

    Raises
    ------
    OutputError
        If the file cannot be written; the checkpoint before stays.
    """
    tensors = {NET + name: tensor for name, tensor in net.state_dict().items()}
    for number, state in optimiser.state_dict()["state"].items():
        tensors |= {f"{OPTIMISER}{number}.{name}": value for name, value in state.items()}
    plain = {name: t.detach().to("cpu", copy=True).contiguous() for name, t in tensors.items()}
    with whole_file(path) as part:
        part.write_bytes(safetensors.torch.save(plain, {"facts": json.dumps(facts)}))


def load_checkpoint(
    path: Path, net: nn.Module, optimiser: torch.optim.Optimizer, *, run: str
) -> dict[str, Any]:
    """Bring net and optimiser to where they were, and return the facts.

    Parameters
    ----------
    path
        What `save_checkpoint` wrote.
    net, optimiser
        Of the same kind and size; the optimiser has taken no step.
    run
        What ``facts["run"]`` must be: configuration, data and seed.

    Raises
    ------
    TrainingError
        If the file is damaged or of another run.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as opened:
            facts = json.loads(opened.metadata()["facts"])
            names: list[str] = list(opened.keys())
            tensors: dict[str, Tensor] = {name: opened.get_tensor(name) for name in names}
    except (OSError, ValueError, TypeError, KeyError, safetensors.SafetensorError) as error:
        raise TrainingError(
            f"{path} is no whole checkpoint: delete it to begin anew ({error})."
        ) from error
    if facts.get("run") != run:
        raise TrainingError(
            f"{path} is the checkpoint of another training (settings, data, seed or device "
            f"differ): choose another folder, or delete it to begin anew."
        )
    net.load_state_dict({k.removeprefix(NET): v for k, v in tensors.items() if k.startswith(NET)})
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith(OPTIMISER):
            number, _, name = key.removeprefix(OPTIMISER).partition(".")
            state.setdefault(int(number), {})[name] = value
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
    return dict(facts)
