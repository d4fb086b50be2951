"""The card of a model, for people: Markdown of a configuration and of `model.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from napari_histomil.training.card_scores import block_lines
from napari_histomil.training.config import TrainingConfig
from napari_histomil.training.start import first_weights

CARD_FILE = "README.md"
ERRORS_FILE = "errors.jpg"
CURVES_FILE = "curves.png"


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
    scores, mixed = model["scores"], config.validation.unmixed
    if "all" in scores or "pixels" in scores:
        lines += [f"**{_capital(scores['what'])}.**", "", f"{_capital(scores['method'])}.", ""]
        lines += block_lines(scores, unmixed=mixed)
        for name, block in scores.get("sources", {}).items():
            lines += [f"The same of {name} alone:", "", *block_lines(block, unmixed=mixed)]
    else:
        lines += ["It was not scored on groups left out.", ""]
    for block in (scores.get("test"), *scores.get("apart", ()), scores.get("synthetic")):
        if block:
            lines += named_block(block, unmixed=mixed)
    lines += _pictures(model["training"])
    return "\n".join(lines).rstrip() + "\n"


def named_block(block: Mapping[str, Any], *, unmixed: float) -> list[str]:
    """Return a block of scores under a line that says what they are of, and by which command."""
    by = f" (`{block['command']}`)" if "command" in block else ""
    return [f"{_capital(block['what'])}{by}:", "", *block_lines(block, unmixed=unmixed)]


def _pictures(training: Mapping[str, Any]) -> list[str]:
    examples = training.get("examples", {})
    lines = []
    if "file" in examples:
        lines += [
            "## Worst errors",
            "",
            "Of each picture left out the place with the largest cross-entropy, the worst first.",
            "",
            f"![Worst errors among the groups left out]({examples['file']})",
            "",
        ]
    elif "reason" in examples:
        lines += ["## Worst errors", "", f"They are not shown: {examples['reason']}.", ""]
    if "curves" in training:
        lines += [
            "## Learning curves",
            "",
            f"![Loss and scores by step]({training['curves']})",
            "",
        ]
    return lines


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
        f"trained on.{_extent(d)}"
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
    if config.inputs:
        variation += (
            f" The heatmap has no colours: it is taken to the power of e^±{varied.heat_gamma:g} "
            f"at most, gets noise ({varied.heat_noise:g}), and up to "
            f"{100 * varied.heat_drop:.0f} % of its squares are 0."
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
        *_paragraphs(_detector(training)),
        "## Method",
        "",
        *_paragraphs((f"{learning} {variation}", temperature, again)),
    ]


def _detector(training: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what is known of the model whose heatmaps a refiner was given."""
    if "detector" not in training:
        return ()
    own = training["detector"]
    counts = {key.replace("_", " "): count for key, count in own["slides"].items()}
    known = (
        f"Of the {sum(counts.values())} slides, {own['name']} is known to have learnt from "
        f"{counts['learnt from']}, and known not to have from {counts['not learnt from']}; of "
        f"{counts['unknown']} nothing is known. A heatmap of a slide that its detector has learnt "
        f"from is better than one of a new slide; none that is known to be so was scored."
    )
    given = (
        f"What it is given: the slide from afar, and the heatmap of {own['class']} by "
        f"{own['name']} (sha256 `{own['sha256']}`) over the slide's tissue."
    )
    return (f"{given} {known}",)


def _extent(data: Mapping[str, Any]) -> str:
    """Return how much there was of a source, and its fingerprint."""
    if "sha256" not in data:
        return ""
    return (
        f" {data['fields']} pictures or slides in {data['groups']} groups, sha256 of names, "
        f"pixels and labels `{data['sha256']}`."
    )


def _paragraphs(texts: tuple[str, ...]) -> list[str]:
    return [line for text in texts for line in (text.strip(), "")]


def _versions(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in versions.items())


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
