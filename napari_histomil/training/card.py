"""Write a trained net as a model folder: weights, `model.json`, and the card for people."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import nn

from napari_histomil.errors import OutputError
from napari_histomil.files import whole_file
from napari_histomil.manifest.model import MODEL_FILE
from napari_histomil.manifest.schema import SCHEMA_VERSION
from napari_histomil.training import dense
from napari_histomil.training.config import Source, TrainingConfig
from napari_histomil.training.start import first_weights, kept_arguments

WEIGHTS_FILE = "weights.safetensors"
CARD_FILE = "README.md"


def write_model(
    folder: Path,
    config: TrainingConfig,
    net: nn.Module,
    *,
    temperature: float,
    scores: Mapping[str, Any],
    seed: int,
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

    Raises
    ------
    OutputError
        If the folder cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be made: {error.strerror or error}.") from error
    state = {name: tensor.contiguous() for name, tensor in net.state_dict().items()}
    packed = safetensors.torch.save(state)
    model = {
        "schema_version": SCHEMA_VERSION,
        "name": config.name,
        "description": config.description,
        "task": config.task,
        "architecture": {
            "name": config.network.architecture,
            "arguments": kept_arguments(config.network),
        },
        "weights": {
            "file": WEIGHTS_FILE,
            "format": "safetensors",
            "sha256": hashlib.sha256(packed).hexdigest(),
        },
        "classes": [{"name": c.name, "color": list(c.color)} for c in config.classes],
        "positive_class": config.positive_class,
        "activation": config.activation,
        "temperature": round(temperature, 4),
        "grid": {
            "mpp": config.grid.mpp,
            "tile_px": config.grid.tile_px,
            "stride_px": config.grid.stride_px,
            **({"margin_px": config.grid.margin_px} if config.grid.margin_px else {}),
        },
        "normalisation": {
            "mean": list(config.normalisation.mean),
            "std": list(config.normalisation.std),
        },
        "stain": "none",
        "licence": config.licence,
        "training": {
            "command": "histomil train train.toml --data DATA -o FOLDER",
            "seed": seed,
            "steps": config.schedule.steps,
            "batch": config.schedule.batch,
            "parameters": sum(p.numel() for p in net.parameters()),
            "versions": {name: version(name) for name in ("napari-histomil", "torch", "timm")},
            "data": [_source(s, config) for s in config.sources],
        },
        "scores": dict(scores),
    }
    if config.background_class:
        model["background_class"] = config.background_class
    # The description comes last: until it is there, the folder is no model, or the old one.
    with whole_file(folder / WEIGHTS_FILE) as part:
        part.write_bytes(packed)
    with whole_file(folder / CARD_FILE) as part:
        part.write_text(card(config, model), encoding="utf-8")
    with whole_file(folder / MODEL_FILE) as part:
        part.write_text(json.dumps(model, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return folder


def card(config: TrainingConfig, model: Mapping[str, Any]) -> str:
    """Return the card in Markdown; every number in it is one of `model`."""
    lines = [
        f"# {model['name']}",
        "",
        f"{model['description']} For research, not for diagnosis.",
        "",
        *_paragraphs(config.notes),
        *_what_it_is(model),
        *_data_and_method(config, model),
        "## Scores",
        "",
    ]
    scores = model["scores"]
    if model["task"] == "segment" and scores.get("fields"):
        lines += [f"**{_capital(scores['what'])}.**", "", f"{_capital(scores['method'])}.", ""]
        lines += dense.lines(scores)
    elif scores.get("unmixed"):
        lines += [f"**{_capital(scores['what'])}.**", "", f"{_capital(scores['method'])}.", ""]
        lines += _table(
            [
                (f"cells at most {100 * config.validation.unmixed:g} % mixed", scores["unmixed"]),
                ("all cells, truth = share of at least half", scores["all"]),
                ("unmixed, mean of the seeds' nets", scores.get("unmixed_ensemble")),
            ]
        )
        each = ", ".join(f"{v:.3f}" for v in scores["unmixed"]["auroc_each_seed"])
        lines += ["", f"AUROC on unmixed cells of each seed: {each}.", ""]
        lines += ["AUROC within single pictures (unmixed cells, left out):", ""]
        lines += [
            ", ".join(
                f"{name} {'-' if value is None else format(value, '.2f')}"
                for name, value in scores["fields"].items()
            )
            + ".",
            "",
        ]
    else:
        lines += ["It was not scored on groups left out.", ""]
    if scores.get("test"):
        lines += [f"{_capital(scores['test']['what'])}:", ""]
        if model["task"] == "segment":
            lines += dense.lines(scores["test"])
        else:
            lines += [*_table([("all", scores["test"]["all"])]), ""]
    if scores.get("synthetic"):
        lines += [f"{_capital(scores['synthetic']['what'])}:", ""]
        lines += _table(
            [("unmixed", scores["synthetic"]["unmixed"]), ("all", scores["synthetic"]["all"])]
        )
        lines += [""]
    return "\n".join(lines).rstrip() + "\n"


def _what_it_is(model: Mapping[str, Any]) -> list[str]:
    grid, net, weights = model["grid"], model["architecture"], model["weights"]
    context, cell = grid["tile_px"] * grid["mpp"], grid["stride_px"] * grid["mpp"]
    classes = ", ".join(c["name"] for c in model["classes"])
    tiles = (
        f"Tiles of {grid['tile_px']} px at {grid['mpp']:g} µm/px ({context:g} µm), one every "
        f"{grid['stride_px']} px: a tile answers for the {cell:g} µm cell in its middle."
    )
    if model["task"] == "segment":
        inner = grid["tile_px"] - 2 * grid.get("margin_px", 0)
        tiles = (
            f"Tiles of {grid['tile_px']} px at {grid['mpp']:g} µm/px ({context:g} µm), one every "
            f"{grid['stride_px']} px; the {inner} px in the middle of each are answered for, "
            f"pixel by pixel, and blended."
        )
    resized = [d["resize_px"] for d in model["training"]["data"] if d.get("resize_px")]
    if resized:
        tiles = f"Whole pictures, resized to {resized[0]} x {resized[0]} px whatever their scale."
    built = (
        f"Net: `{net['name']}` with `{json.dumps(net['arguments'])}`, "
        f"{model['training']['parameters'] / 1e6:.2f} million parameters, float32."
    )
    return [
        "## What it is",
        "",
        f"- Classes: {classes}; the positive class is {model['positive_class']}.",
        f"- {tiles}",
        f"- {built}",
        f"- Weights: `{weights['file']}`, sha256 `{weights['sha256']}`.",
        f"- Licence of the weights: {model['licence']}.",
        "",
    ]


def _data_and_method(config: TrainingConfig, model: Mapping[str, Any]) -> list[str]:
    training, schedule, varied = model["training"], config.schedule, config.augmentation
    sources = [
        f"- **{d['name']}** ({d['kind']}, {d['licence']}): {100 * d['part']:.0f} % of the tiles "
        "trained on."
        for d in training["data"]
    ]
    asked = (
        f"In every tile all {config.grid.stride_px} px cells {schedule.step_px} px apart are "
        f"asked for the share of each class in them (cross-entropy against the share, label "
        f"smoothing {schedule.label_smoothing:g})."
    )
    if config.task == "segment":
        entropy = "binary cross-entropy" if config.activation == "sigmoid" else "cross-entropy"
        asked = (
            f"Every labelled pixel is asked for its class ({entropy} plus {config.loss.dice:g} "
            f"times soft Dice, label smoothing {schedule.label_smoothing:g})."
        )
    learning = (
        f"Trained from {first_weights(config.network)} (seed {training['seed']}) for "
        f"{training['steps']} steps of {training['batch']} tiles, cut anywhere from the training "
        f"tissue. {asked} AdamW, learning rate "
        f"{schedule.learning_rate:g} with warm-up and half cosine, weight decay "
        f"{schedule.weight_decay:g}; the moving average of the weights is kept."
    )
    variation = (
        f"Tiles are turned by any angle, mirrored, zoomed (by up to e^±{varied.zoom:g}) and "
        f"stretched; {100 * varied.color_probability:.0f} % get other colours (hematoxylin and "
        f"eosin ±{100 * varied.stain:.0f} %, gamma, saturation, tint); some are blurred, "
        f"noisy, or end in glass."
    )
    temperature = (
        f"Logits are divided by {model['temperature']:g} (temperature, fitted on the answers for "
        f"groups left out)."
        if model["scores"].get("unmixed")
        else "No temperature was fitted."
    )
    again = (
        f"`{training['command']}` on the configuration beside this card does all of it, scores "
        f"included ({_versions(training['versions'])})."
    )
    return [
        "## Data",
        "",
        *sources,
        "",
        *_paragraphs(config.data_facts),
        "## Method",
        "",
        *_paragraphs((f"{learning} {variation}", temperature, again)),
    ]


def number(value: float | None) -> str:
    """Return a score as the card writes it."""
    return "-" if value is None else f"{value:.3f}"


def _table(rows: list[tuple[str, Mapping[str, Any] | None]]) -> list[str]:
    lines = [
        "| | cells (positive) | groups | AUROC (95 %) | average precision (95 %) |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, score in rows:
        if score is None:
            continue
        values = [
            f"{number(score[key])} ({number(score[f'{key}_95'][0])} to "
            f"{number(score[f'{key}_95'][1])})"
            for key in ("auroc", "average_precision")
        ]
        lines.append(
            f"| {name} | {score['cells']} ({score['positive']}) | {score['groups']} | "
            f"{' | '.join(values)} |"
        )
    return lines


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


def _paragraphs(texts: tuple[str, ...]) -> list[str]:
    return [line for text in texts for line in (text.strip(), "")]


def _versions(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in versions.items())


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
