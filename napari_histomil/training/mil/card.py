"""The card of a MIL model, for people: every number is one of `model.json` or of the settings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from napari_histomil.training.mil.config import MilConfig
from napari_histomil.training.toml import plain

FIGURES = {
    "auroc": "AUROC",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "kappa": "Cohen's kappa",
}


def card(config: MilConfig, model: Mapping[str, Any]) -> str:
    """Return the card in Markdown."""
    training, scores = model["training"], model["scores"]
    lines = [
        f"# {model['name']}",
        "",
        f"{model['description']} For research, not for diagnosis.",
        "",
        *(line for note in config.notes for line in (note.strip(), "")),
        *_what_it_is(model),
        "## Data",
        "",
        *(line for fact in config.data_facts for line in (fact.strip(), "")),
        *_method(config, model),
        "## Scores",
        "",
        *_scores(config, scores),
    ]
    if "curves" in training:
        lines += ["## Learning curves", "", f"![Loss and scores by step]({training['curves']})"]
    return "\n".join(lines).rstrip() + "\n"


def _what_it_is(model: Mapping[str, Any]) -> list[str]:
    facts, net, weights = model["mil"], model["architecture"], model["weights"]
    encoder = facts["encoder"]
    grids = "; ".join(
        f"{g['tile_px']} px at {g['mpp']:g} µm/px ({g['tile_px'] * g['mpp']:g} µm), one every "
        f"{g['stride_px']} px"
        for g in facts["grids"]
    )
    known = f", sha256 `{encoder['sha256']}`" if encoder["sha256"] else ""
    lines = [
        "## What it is",
        "",
        "It answers for a whole slide, from the features of its tiles.",
        "",
        (
            f"- Classes: {', '.join(c['name'] for c in model['classes'])}; the positive class is "
            f"{model['positive_class']}."
        ),
        f"- Encoder: {encoder['name']}, {encoder['dim']} values a tile{known}.",
        f"- Tiles: {grids}.",
        (
            f"- Net: `{net['name']}` with `{json.dumps(net['arguments'])}`, "
            f"{model['training']['parameters']:,} parameters, float32."
        ),
        f"- Weights: `{weights['file']}`, sha256 `{weights['sha256']}`.",
        f"- Licence of the weights: {model['licence']}.",
    ]
    if facts.get("clinical"):
        lines.append(f"- Clinical variables, fused late: {', '.join(facts['clinical'])}.")
    if facts.get("members"):
        lines.append(
            f"- {len(facts['members'])} nets of the folds lie beside it: their spread says how "
            f"sure it is."
        )
    return [*lines, ""]


def _method(config: MilConfig, model: Mapping[str, Any]) -> list[str]:
    schedule, training = config.schedule, model["training"]
    optimiser = "AdamW" if schedule.optimiser == "adamw" else "SGD (Nesterov, 0.9)"
    dropped = (
        f" In each step {100 * schedule.instance_dropout:g} % of a bag's tiles are left out."
        if schedule.instance_dropout
        else ""
    )
    helped = {
        "none": "",
        "weights": " Rare classes have a higher weight in the loss.",
        "sampling": " Rare classes are drawn as often as others.",
    }[schedule.imbalance]
    scheme = (
        f" What is made of the bags of a step: `{json.dumps(plain(config.scheme))}`."
        if config.scheme is not None
        else ""
    )
    slides = ", ".join(f"{n} for {side}" for side, n in training["data"]["slides"].items() if n)
    chosen = (
        "The epoch that is best on the validation is kept, and the temperature fitted there."
        if config.split.validation or training["data"]["slides"].get("validation")
        else "The last epoch is kept."
    )
    versions = ", ".join(f"{name} {value}" for name, value in training["versions"].items())
    learning = (
        f"Cross-entropy, {optimiser}, learning rate {schedule.learning_rate:g}, weight decay "
        f"{schedule.weight_decay:g}, at most {schedule.epochs} epochs, {schedule.batch} bag(s) a "
        f"step, seed {training['seed']}.{dropped}{helped}{scheme} {chosen} Logits are divided by "
        f"{model['temperature']:g}."
    )
    again = (
        f"`{training['command']}` on the configuration beside this card does all of it, scores "
        f"included ({versions})."
    )
    return [f"Slides (bags): {slides}.", "", "## Method", "", learning, "", again, ""]


def _scores(config: MilConfig, scores: Mapping[str, Any]) -> list[str]:
    if not scores:
        return ["It was not scored on patients left out.", ""]
    lines: list[str] = []
    for block in scores.values():
        lines += [
            (
                f"{block['what']}: {block['bags']} bags of {block['patients']} patients "
                f"({', '.join(f'{n} {c}' for n, c in block['classes'].items())})."
            ),
            "",
            "| figure | value | 95 % interval over patients |",
            "|---|---|---|",
        ]
        for name, words in FIGURES.items():
            figure = block[name]
            low, high = figure["interval"]
            words += " (quadratic)" if name == "kappa" and config.validation.ordered else ""
            lines.append(f"| {words} | {_number(figure['value'])} | {_number(low)} to "
                         f"{_number(high)} |")  # fmt: skip
        lines += ["", f"Brier score {_number(block['calibration']['brier'])}.", ""]
    return lines


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"
