"""Checkpoints of other programs, as models of ours: nothing but tensors is loaded.

What a checkpoint is, is told by the names of its tensors, and how large by their shapes
(`checkpoint_keys.py`). What neither says can stand in a JSON file of the same name beside it:
``k`` of ZoomMIL, ``activation`` of MHIM's attention, ``swapped`` where V and U of gated attention
are. A bias that is missing is 0.
"""

from __future__ import annotations

import json
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from napari_histomil.errors import ModelError, brief
from napari_histomil.nets.mil.abmil import ACTIVATIONS
from napari_histomil.nets.mil.build import build_mil
from napari_histomil.nets.mil.checkpoint_keys import READERS, Hints
from napari_histomil.nets.mil.model import MILModel

_WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "teacher")
_PREFIXES = ("module.", "model.", "_orig_mod.", "net.")
_OF_TRAINING = ("instance_loss_fn.", "loss", "criterion")


def load_checkpoint(path: Path | str, *, k: int | None = None) -> MILModel:
    """Load a checkpoint of another program: float32, on the CPU, in evaluation mode.

    CLAM (SB and MB, gated or not, any size, old and new names), MIL-Lab (ABMIL, CLAM, TransMIL),
    TransMIL, DSMIL, ZoomMIL, attention models in the way of AMLab's, torchmil's ABMIL and those of
    MHIM-MIL are known. Which encoder, magnification and classes they are for, no checkpoint says.

    Parameters
    ----------
    path
        A file of `torch.save` (of any age) or safetensors: a state dict, bare or wrapped.
    k
        For ZoomMIL, whose checkpoints do not say it: how many patches are zoomed into.

    Raises
    ------
    ModelError
        If the file cannot be read without running what is in it, is of no known model, or does
        not say something that decides the answer.
    """
    path = Path(path)
    state = _plain(_unwrap(_read(path), path))
    if not state:
        raise ModelError(f"{path} holds no tensors with names: save the model's state_dict().")
    hints = _hints(path, k)
    for reader in READERS:
        found = reader(state, hints, path)
        if found is not None:
            break
    else:
        raise ModelError(
            f"{path} is of no MIL model that this program knows (its tensors are "
            f"{', '.join(list(state)[:4])}, ...): see the guide for those that can be read."
        )
    model = build_mil(found.name, found.dim, found.classes, **found.arguments)
    wanted = model.state_dict()
    given = dict(found.state)
    for name, tensor in wanted.items():
        if name.endswith(".bias") and name not in given:
            given[name] = torch.zeros_like(tensor)
    problems = [
        *(f"{name} is missing" for name in wanted if name not in given),
        *(f"{name} is unknown" for name in given if name not in wanted),
        *(
            f"{name} is {list(given[name].shape)} instead of {list(wanted[name].shape)}"
            for name in wanted
            if name in given and given[name].shape != wanted[name].shape
        ),
    ]
    if problems:
        raise ModelError(
            f"{path} looks like a checkpoint of {found.name} and is another model or a part of "
            f"one: {problems[0]}."
        )
    model.load_state_dict(given)
    if found.classes == 1:
        model.activation = "sigmoid"
    return model.float().eval()


def _read(path: Path) -> Any:
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        with warnings.catch_warnings():  # that a pickle is of another age
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path} holds more than tensors, or is no file of PyTorch, and pickled objects are "
            f"never loaded: save the model's state_dict() alone."
        ) from error
    except safetensors.SafetensorError as error:
        raise ModelError(f"{path} is no file of safetensors: {brief(error)}.") from error
    except Exception as error:  # a damaged pickle makes its reader stumble in any way
        raise ModelError(f"{path} cannot be read as a checkpoint: {brief(error)}.") from error


def _unwrap(content: Any, path: Path) -> Mapping[str, Any]:
    """Return the innermost state dict."""
    if not isinstance(content, Mapping):
        raise ModelError(
            f"{path} holds a {type(content).__name__} and no state dict: save the model's "
            f"state_dict()."
        )
    for name in _WRAPPERS:
        if isinstance(content.get(name), Mapping):
            return _unwrap(content[name], path)
    return content


def _plain(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the tensors without what wraps their names, and without those of a loss."""
    state = {
        str(name): tensor
        for name, tensor in content.items()
        if isinstance(tensor, Tensor) and not str(name).startswith(_OF_TRAINING)
    }
    prefix = next((p for p in _PREFIXES if state and all(n.startswith(p) for n in state)), None)
    return _plain({n[len(prefix) :]: t for n, t in state.items()}) if prefix else state


def _hints(path: Path, k: int | None) -> Hints:
    """Return what is said beside a checkpoint; what the caller says goes first."""
    file = path.with_suffix(".json")
    if not file.is_file():
        return Hints(k=k)
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{file} cannot be read as JSON: {brief(error)}.") from error
    if not isinstance(said, dict):
        raise ModelError(f"{file} must hold an object, with members as k.")
    number = k if k is not None else said.get("k", said.get("k_sample"))
    if number is not None and (not isinstance(number, int) or number < 1):
        raise ModelError(f"{file}: k must be a whole number of at least 1, not {number!r}.")
    activation = said.get("activation")
    return Hints(
        k=number,
        activation=activation if activation in tuple(ACTIVATIONS) else None,
        swapped=said.get("swapped") is True,
    )
