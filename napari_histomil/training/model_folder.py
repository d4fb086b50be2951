"""Write a trained net as a model folder: weights, `model.json`, the card and its pictures."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import safetensors.torch
from torch import nn

from napari_histomil.files import make_folder, whole_file
from napari_histomil.manifest.model import MODEL_FILE
from napari_histomil.manifest.schema import SCHEMA_VERSION
from napari_histomil.tiling import GridSpec
from napari_histomil.training.card import CARD_FILE, CURVES_FILE, ERRORS_FILE, card
from napari_histomil.training.config import Scaling, Source, TrainingConfig
from napari_histomil.training.curve_picture import curve_picture
from napari_histomil.training.fields import Field
from napari_histomil.training.start import built_arguments
from napari_histomil.training.worst import Sheet

WEIGHTS_FILE = "weights.safetensors"

NOT_SHOWN = "no source of the scored groups is marked as one whose pieces may be shown"


def write_model(
    folder: Path,
    config: TrainingConfig,
    net: nn.Module,
    *,
    temperature: float,
    scores: Mapping[str, Any],
    seed: int,
    data: Mapping[str, Mapping[str, Any]] | None = None,
    slides: Sequence[str] = (),
    detector: Mapping[str, Any] | None = None,
    errors: Sheet | None = None,
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
        The finished net, float32, on the CPU.
    temperature
        Logits are divided by it.
    scores
        Held-out results for `model.json` and the card.
    seed
        Of the finished net.
    data
        As `describe_data` gives it.
    slides
        As `heatmap_fields.learnt_slides` gives them.
    detector
        Of a refiner, as `heatmap_fields.describe_detector` gives it.
    errors
        Picture of the worst errors among the scored groups.
    curves
        ``curves.csv`` of the finished net.

    Raises
    ------
    OutputError
        If the folder cannot be made or written.
    """
    make_folder(folder)
    drawn = curve_picture(curves) if curves is not None else None
    packed = pack(net)
    model: dict[str, Any] = described(
        config,
        packed,
        task=config.task,
        architecture=config.network.architecture,
        arguments=built_arguments(config),
        answers={
            "classes": [{"name": c.name, "color": list(c.color)} for c in config.classes],
            "positive_class": config.positive_class,
            "activation": config.activation,
            "temperature": round(temperature, 4),
        },
    )
    model |= {
        "training": {
            "command": "histomil train train.toml --data DATA -o FOLDER",
            "seed": seed,
            "steps": config.schedule.steps,
            "batch": config.schedule.batch,
            "bf16": config.schedule.bf16,
            "parameters": sum(p.numel() for p in net.parameters()),
            "versions": versions(),
            "data": [
                _source(s, config) | dict((data or {}).get(s.name, {})) for s in config.sources
            ],
            "examples": (
                {"file": ERRORS_FILE, "shown": list(errors.facts)}
                if errors is not None
                else {"reason": NOT_SHOWN}
            ),
        },
        "scores": dict(scores),
    }
    if slides:
        model["training"]["slides"] = list(slides)
    if detector is not None:
        model["training"]["detector"] = dict(detector)
    if drawn is not None:
        model["training"]["curves"] = CURVES_FILE
    if config.inputs:
        model["inputs"] = list(config.inputs)
    if config.background_class:
        model["background_class"] = config.background_class
    pictures = {CURVES_FILE: drawn, ERRORS_FILE: errors.jpeg if errors is not None else None}
    write_files(folder, model, packed, card(config, model), pictures)
    return folder


class Named(Protocol):
    """What every configuration says that ends in a model."""

    @property
    def name(self) -> str:
        """Of the model."""

    @property
    def description(self) -> str:
        """A sentence or two."""

    @property
    def licence(self) -> str:
        """Of the weights."""

    @property
    def grid(self) -> GridSpec:
        """Of the tiles."""

    @property
    def normalisation(self) -> Scaling:
        """How pixels are scaled."""


def pack(net: nn.Module) -> bytes:
    """Return a net's weights and statistics as safetensors."""
    state = {name: tensor.contiguous() for name, tensor in net.state_dict().items()}
    return safetensors.torch.save(state)


def described(
    config: Named,
    packed: bytes,
    *,
    task: str,
    architecture: str,
    arguments: Mapping[str, Any],
    answers: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the members of `model.json` that say what a net is.

    Parameters
    ----------
    config
        Of whatever training.
    packed
        As `pack` gives it.
    task, architecture, arguments
        How the net is built.
    answers
        Members that say what it answers to a tile.
    """
    grid = config.grid
    return {
        "schema_version": SCHEMA_VERSION,
        "name": config.name,
        "description": config.description,
        "task": task,
        "architecture": {"name": architecture, "arguments": dict(arguments)},
        "weights": {
            "file": WEIGHTS_FILE,
            "format": "safetensors",
            "sha256": hashlib.sha256(packed).hexdigest(),
        },
        **answers,
        "grid": {
            "mpp": grid.mpp,
            "tile_px": grid.tile_px,
            "stride_px": grid.stride_px,
            **({"margin_px": grid.margin_px} if grid.margin_px else {}),
        },
        "normalisation": {
            "mean": list(config.normalisation.mean),
            "std": list(config.normalisation.std),
        },
        "stain": "none",
        "licence": config.licence,
    }


def versions() -> dict[str, str]:
    """Return the versions of the programs that decide what a net becomes."""
    return {name: version(name) for name in ("napari-histomil", "torch", "timm")}


def write_files(
    folder: Path,
    model: Mapping[str, Any],
    packed: bytes,
    card_text: str,
    others: Mapping[str, bytes | None],
) -> None:
    """Write the files of a model, each whole; of `others` what is None is removed.

    The description comes last: until it is there, the folder is no model, or the old one.

    Raises
    ------
    OutputError
        If a file cannot be written.
    """
    text = json.dumps(model, indent=2, ensure_ascii=False) + "\n"
    for name, content in {
        WEIGHTS_FILE: packed,
        **others,
        CARD_FILE: card_text.encode(),
        MODEL_FILE: text.encode(),
    }.items():
        if content is None:
            (folder / name).unlink(missing_ok=True)  # of a model that lay here before
            continue
        with whole_file(folder / name) as part:
            part.write_bytes(content)


def describe_data(fields: Sequence[Field]) -> dict[str, dict[str, Any]]:
    """Return how much there is of each source, and the SHA-256 of it.

    The hash is of names, groups, pixels and labels of all fields of the source (of a slide, of its
    fingerprint and its regions): with other data it is another.
    """
    found: dict[str, dict[str, Any]] = {}
    for source in dict.fromkeys(f.source for f in fields):
        own = [f for f in fields if f.source == source]
        lines = sorted(
            f"{f.name} {f.group} {hashlib.sha256(f.fingerprint).hexdigest()}" for f in own
        )
        found[source] = {
            "fields": len(own),
            "groups": len({f.group for f in own}),
            "sha256": hashlib.sha256("\n".join(lines).encode()).hexdigest(),
        }
    return found


def _source(source: Source, config: TrainingConfig) -> dict[str, Any]:
    total = sum(s.share for s in config.sources)
    facts: dict[str, Any] = {
        "name": source.name,
        "kind": source.kind,
        "licence": source.licence,
        "part": round(source.share / total, 4),
    }
    if source.resize_px:
        facts["resize_px"] = source.resize_px
    if source.seeds:
        facts["seeds"] = list(source.seeds)
    return facts
