"""A pretraining on the disk; how the file is written is in `training/checkpoint.py`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from napari_histomil.errors import TrainingError
from napari_histomil.training import checkpoint

CHECKPOINT_FILE = checkpoint.FILE


def save_checkpoint(
    path: Path, net: nn.Module, optimiser: torch.optim.Optimizer, facts: Mapping[str, Any]
) -> None:
    """Write net, optimiser and facts (plain JSON values).

    Raises
    ------
    OutputError
        If the file cannot be written; the checkpoint before stays.
    """
    checkpoint.write(path, {"net": net.state_dict()}, optimiser, facts)


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
        parts, facts = checkpoint.read(path)
    except checkpoint.DAMAGES as error:
        raise TrainingError(
            f"{path} is no whole checkpoint: delete it to begin anew ({error})."
        ) from error
    if facts.get("run") != run:
        raise TrainingError(
            f"{path} is the checkpoint of another training (settings, data, seed or device "
            f"differ): choose another folder, or delete it to begin anew."
        )
    net.load_state_dict(parts["net"])
    checkpoint.restore(optimiser, parts)
    return facts
