"""Write a trained MIL model as a model folder: weights, `model.json`, card, members, curves."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from napari_histomil.files import make_folder
from napari_histomil.manifest import load_manifest
from napari_histomil.manifest.mil import MilEncoder
from napari_histomil.manifest.schema import SCHEMA_VERSION
from napari_histomil.nets.mil import MILModel
from napari_histomil.training.card import CURVES_FILE
from napari_histomil.training.curve_picture import curve_picture
from napari_histomil.training.mil.card import card
from napari_histomil.training.mil.config import MilConfig
from napari_histomil.training.mil.crossval import Member
from napari_histomil.training.model_folder import WEIGHTS_FILE, pack, versions, write_files
from napari_histomil.training.toml import plain_member

COMMAND = "histomil train train.toml --data DATA -o FOLDER"
MEMBERS = "members"


def write_mil_model(
    folder: Path,
    config: MilConfig,
    net: MILModel,
    encoder: MilEncoder,
    *,
    temperature: float,
    scores: Mapping[str, Any],
    reference: Mapping[str, Any],
    data: Mapping[str, Any],
    seed: int,
    members: Sequence[Member] = (),
    curves: Path | None = None,
) -> Path:
    """Write a model folder that `load_manifest` accepts and return its path.

    Parameters
    ----------
    folder
        Made if it is missing; other files in it stay.
    config
        The training.
    net
        The finished net, on the CPU.
    encoder
        Whose features it takes.
    temperature
        Logits are divided by it.
    scores, reference, data
        For `model.json` and the card.
    seed
        Of the finished net.
    members
        Nets of the folds; each becomes a model folder of its own below ``members``.
    curves
        ``curves.csv`` of the finished net.

    Raises
    ------
    OutputError
        If the folder cannot be made or written.
    """
    make_folder(folder)
    packed = pack(net)
    drawn = curve_picture(curves) if curves is not None else None
    model = _model(config, net, packed, encoder, temperature)
    if (folder / MEMBERS).is_dir():
        shutil.rmtree(folder / MEMBERS)  # of a model that lay here before
    listed = []
    for number, member in enumerate(members, 1):
        own = folder / MEMBERS / str(number)
        make_folder(own)
        content = pack(member.net)
        said = _model(config, member.net, content, encoder, member.temperature)
        said["name"] = f"{config.name}-{number}"
        text = f"# {said['name']}\n\nThe net of fold {number}, a member of {config.name}.\n"
        write_files(own, said, content, text, {})
        listed.append({"folder": f"{MEMBERS}/{number}", "sha256": load_manifest(own).sha256})
    if listed:
        model["mil"]["members"] = listed
    model["mil"]["reference"] = dict(reference)
    model["training"] = {
        "command": COMMAND,
        "seed": seed,
        "epochs": config.schedule.epochs,
        "parameters": sum(p.numel() for p in net.parameters()),
        "versions": versions(),
        "data": dict(data),
    }
    if drawn is not None:
        model["training"]["curves"] = CURVES_FILE
    model["scores"] = dict(scores)
    write_files(folder, model, packed, card(config, model), {CURVES_FILE: drawn})
    return folder


def _model(
    config: MilConfig, net: MILModel, packed: bytes, encoder: MilEncoder, temperature: float
) -> dict[str, Any]:
    """Return the members of `model.json` that decide an answer."""
    grids = [{"mpp": g.mpp, "tile_px": g.tile_px, "stride_px": g.stride_px} for g in config.grids]
    mil: dict[str, Any] = {"encoder": asdict(encoder), "grids": grids}
    if config.bags.clinical:
        mil["clinical"] = list(config.bags.clinical)
    return {
        "schema_version": SCHEMA_VERSION,
        "name": config.name,
        "description": config.description,
        "task": "mil",
        "architecture": {
            "name": f"mil/{config.aggregator.name}",
            "arguments": plain_member(config.aggregator.arguments),
        },
        "weights": {
            "file": WEIGHTS_FILE,
            "format": "safetensors",
            "sha256": hashlib.sha256(packed).hexdigest(),
        },
        "classes": [{"name": c.name, "color": list(c.color)} for c in config.classes],
        "positive_class": config.positive_class,
        "activation": net.activation,
        "temperature": round(temperature, 4),
        "grid": grids[-1],
        "stain": "none",
        "licence": config.licence,
        "mil": mil,
    }


def data_facts(config: MilConfig, names: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Return how many slides there were on each side, and a hash of who they were."""
    text = json.dumps({side: sorted(own) for side, own in names.items()})
    return {
        "slides": {side: len(own) for side, own in names.items()},
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
        "encoder": config.bags.encoder,
    }
