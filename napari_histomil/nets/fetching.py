"""Encoders by name become model folders: published ones, any net of timm, weights in a file.

Weights come from the Hugging Face hub, or from a file that the person has. They are read as
tensors and never as a pickle that could run code, renamed to what timm calls them, and kept as
safetensors among the person's models, with the encoder's own transforms and pooling.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import huggingface_hub
import safetensors.torch
import timm
import torch
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)
from torch import Tensor, nn

from napari_histomil.errors import ModelError, brief
from napari_histomil.files import make_folder, whole_folder
from napari_histomil.manifest import ModelManifest, Normalisation, load_manifest
from napari_histomil.manifest.model import MODEL_FILE
from napari_histomil.manifest.schema import SCHEMA_VERSION
from napari_histomil.nets.foundation import FOUNDATIONS, Foundation
from napari_histomil.nets.load import build_module, misfit
from napari_histomil.nets.weight_names import NAMES
from napari_histomil.resources import user_data_dir

WEIGHTS_FILE = "weights.safetensors"
TIMM = "timm/"
HUB = "https://huggingface.co"
TIMEOUT_SECONDS = 10

NATURAL_MPP = 0.5
"""µm/px at which a net that never saw a slide is used, unless the person says another: 20x."""

_WRAPPERS = ("state_dict", "model_state_dict", "model", "teacher")
"""Under which checkpoints keep their weights."""


def is_encoder_name(name: str) -> bool:
    """Whether a name is that of a published encoder or of a net of timm."""
    return name.lower() in FOUNDATIONS or name.startswith(TIMM)


def fetch_encoder(
    name: str, *, weights: Path | None = None, say: Callable[[str], None] = lambda text: None
) -> ModelManifest:
    """Return an encoder as a model of ours, made of published weights if it is not there yet.

    Parameters
    ----------
    name
        Of a published encoder (`foundation.FOUNDATIONS`), or ``timm/<net>``.
    weights
        The weights, safetensors or a checkpoint of torch; None for those of the hub.
    say
        Is told what is done, a sentence at a time.

    Raises
    ------
    ModelError
        If there is no such encoder, its weights cannot be had (no network; access is not granted
        yet), hold more than tensors, or are not those of this net.
    OutputError
        If the model cannot be kept.
    """
    folder = user_data_dir() / "models" / _folder_name(name, weights)
    if (folder / MODEL_FILE).is_file():
        return load_manifest(folder)
    known = FOUNDATIONS.get(name.lower())
    if known is None and not name.startswith(TIMM):
        raise ModelError(
            f"There is no encoder {name!r}: see 'histomil models encoders', or name timm/<net>."
        )
    if known is not None:
        if weights is None:
            say(
                f"{known.title}: getting its weights from {known.page} (licence: {known.licence})."
            )
        file = weights or _download(known)
        state = NAMES[known.names](read_weights(file))
        model, module = _described(known), _built(known)
    else:
        state, model, module = _of_timm(name.removeprefix(TIMM), weights)
        file = weights or Path(name)
    problem = misfit(module.state_dict(), state)
    if problem:
        raise ModelError(f"{file} does not hold the weights of {name}: {problem}.")
    _keep(folder, model, state)
    say(f"{name} is kept in {folder}.")
    return load_manifest(folder)


def read_weights(file: Path) -> dict[str, Tensor]:
    """Return the tensors of a file of safetensors or a checkpoint of torch; no code is run.

    Raises
    ------
    ModelError
        If it is neither, or holds more than tensors.
    """
    try:
        if file.suffix == ".safetensors":
            return dict(safetensors.torch.load_file(file))
        content: Any = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{file} holds more than tensors, which is not read because it could run code: save "
            f"its weights alone, best as safetensors."
        ) from error
    except (OSError, RuntimeError, ValueError, EOFError, safetensors.SafetensorError) as error:
        raise ModelError(f"{file} holds no weights that can be read: {brief(error)}.") from error
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not content:
        raise ModelError(f"{file} holds no table of weights by name.")
    state = {str(name): t for name, t in content.items() if isinstance(t, Tensor)}
    return {re.sub(r"^module\.", "", name): tensor for name, tensor in state.items()}


def _folder_name(name: str, weights: Path | None) -> str:
    plain = name.lower() if name.lower() in FOUNDATIONS else name.replace("/", "-")
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", plain) is None:
        raise ModelError(f"{name!r} is no name of a net: see 'histomil models encoders'.")
    if weights is None:
        return plain
    try:
        with weights.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"{weights} cannot be read: {error.strerror or error}.") from error
    return f"{plain}-{digest[:8]}"


def _download(known: Foundation) -> Path:
    """Return the weights of a published encoder, from the hub's own store or from the hub."""
    download, where = huggingface_hub.hf_hub_download, (known.repository, known.file)
    try:
        return Path(download(*where, local_files_only=True))
    except LocalEntryNotFoundError:
        pass  # not got yet
    access = (
        f"ask for access at {known.page} with your account, then 'hf auth login' (or HF_TOKEN), "
        f"or give the file with --weights"
    )
    endpoint = _reachable_hub(known.name, access if known.gated else "")
    try:
        return Path(download(*where, endpoint=endpoint))
    except (GatedRepoError, RepositoryNotFoundError) as error:
        raise ModelError(
            f"{known.name} is given to those who asked for it ({known.licence}): {access}."
        ) from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ModelError(
            f"{known.name} could not be got from {known.page}: {brief(error)}."
        ) from error


def _reachable_hub(name: str, access: str) -> str:
    """Return the hub's address; raise at once where there is no network, not after retries."""
    endpoint = os.environ.get("HF_ENDPOINT") or HUB
    try:
        with urlopen(Request(endpoint, method="HEAD"), timeout=TIMEOUT_SECONDS):
            return endpoint
    except HTTPError:
        return endpoint  # it answers
    except (URLError, OSError) as error:
        also = f" ({access})" if access else ", or give the file with --weights"
        raise ModelError(
            f"The weights of {name} are not here yet, and {endpoint} cannot be reached "
            f"({brief(error)}): try again with a network{also}."
        ) from error


def _built(known: Foundation) -> nn.Module:
    architecture = _architecture(known)
    return build_module(architecture["name"], 0, architecture["arguments"])


def _architecture(known: Foundation) -> dict[str, Any]:
    pooled = {"pooled_dim": known.dim} if known.pooling == "attention" else {}
    return {
        "name": "histomil/token-encoder",
        "arguments": {
            "backbone": known.backbone,
            "backbone_arguments": dict(known.arguments),
            "pooling": known.pooling,
            **pooled,
            "resize_px": known.resize_px,
            "crop_px": known.crop_px,
        },
    }


def _described(known: Foundation) -> dict[str, Any]:
    return _model(
        known.name,
        f"{known.title}: {known.page}",
        _architecture(known),
        known.dim,
        (known.mpp, known.tile_px),
        known.normalisation,
        known.licence,
    )


def _of_timm(
    net: str, weights: Path | None
) -> tuple[dict[str, Tensor], dict[str, Any], nn.Module]:
    """Return weights, description and a module of a net of timm without its last layer."""
    try:
        config = timm.get_pretrained_cfg(net)
        module = timm.create_model(net, pretrained=False, num_classes=0)
    except (RuntimeError, ValueError, KeyError) as error:
        raise ModelError(f"timm has no net {net!r}: {brief(error)}.") from error
    if config is None or not (weights or config.has_weights):
        raise ModelError(
            f"timm has no weights for {net!r}: name a variant of it (timm.list_pretrained), or "
            f"give a file with --weights."
        )
    if weights is None:
        _reachable_hub(f"{TIMM}{net}", "")
        try:
            module = timm.create_model(net, pretrained=True, num_classes=0)
        except (RuntimeError, OSError, HfHubHTTPError) as error:
            raise ModelError(f"{TIMM}{net} could not be got: {brief(error)}.") from error
        state = module.state_dict()
    else:
        last: Any = config.classifier or ()
        heads = (last,) if isinstance(last, str) else tuple(last)
        state = {
            name: tensor
            for name, tensor in read_weights(weights).items()
            if not name.startswith(tuple(f"{head}." for head in heads))
        }
    side = int(config.input_size[-1])
    with torch.inference_mode():
        dim = int(module.eval()(torch.zeros(1, 3, side, side)).shape[1])
    model = _model(
        _folder_name(f"{TIMM}{net}", weights),
        f"timm's {net} without its last layer"
        + (f", weights of {weights.name}" if weights else ""),
        {"name": f"{TIMM}{net}", "arguments": {}},
        dim,
        (NATURAL_MPP, side),
        Normalisation(tuple(config.mean), tuple(config.std)),
        config.license or "not stated",
    )
    return state, model, module


def _model(
    name: str,
    description: str,
    architecture: Mapping[str, Any],
    dim: int,
    tiles: tuple[float, int],
    normalisation: Normalisation,
    licence: str,
) -> dict[str, Any]:
    """Return `model.json` but for the weights; `tiles` are their µm/px and side in px."""
    return {
        "schema_version": SCHEMA_VERSION,
        "name": name,
        "description": description,
        "task": "embed",
        "architecture": dict(architecture),
        "embedding_dim": dim,
        "grid": {"mpp": tiles[0], "tile_px": tiles[1], "stride_px": tiles[1]},
        "normalisation": {"mean": list(normalisation.mean), "std": list(normalisation.std)},
        "licence": licence,
    }


def _keep(folder: Path, model: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
    make_folder(folder.parent)
    with whole_folder(folder, MODEL_FILE) as part:
        part.mkdir()
        tensors = {name: tensor.float().contiguous() for name, tensor in state.items()}
        safetensors.torch.save_file(tensors, part / WEIGHTS_FILE)
        with (part / WEIGHTS_FILE).open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        weights = {"file": WEIGHTS_FILE, "format": "safetensors", "sha256": digest}
        text = json.dumps({**model, "name": folder.name, "weights": weights}, indent=2)
        (part / MODEL_FILE).write_text(text + "\n", encoding="utf-8")
