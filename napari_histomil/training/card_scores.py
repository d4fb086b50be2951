"""The parts of a card that show scores; every number is one of the block that is shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Block = Mapping[str, Any]
"""Scores of one set of answers, as `scores.py` makes them."""


def block_lines(block: Block, *, unmixed: float) -> list[str]:
    """Return what a block says of a model, in Markdown.

    Parameters
    ----------
    block
        With ``unmixed`` and ``all`` (a classifier's cells) or ``pixels``; more where it has more.
    unmixed
        Largest share of another side in an unmixed cell.
    """
    lines = _pixels(block) if "pixels" in block else _cells(block, unmixed)
    if block.get("chain"):
        lines += _chain(block)
    if block.get("slides"):
        lines += _slides(block["slides"])
    if block.get("calibration"):
        lines += _calibration(block["calibration"])
    return lines


def number(value: float | None) -> str:
    """Return a score as the card writes it."""
    return "-" if value is None else f"{value:.3f}"


def spread(score: Mapping[str, Any], key: str) -> str:
    """Return a score with its interval."""
    low, high = score[f"{key}_95"]
    return f"{number(score[key])} ({number(low)} to {number(high)})"


def _cells(block: Block, unmixed: float) -> list[str]:
    rows = [
        (f"cells at most {100 * unmixed:g} % mixed", block.get("unmixed")),
        ("all cells, truth = share of at least half", block.get("all")),
        ("unmixed, mean of the seeds' nets", block.get("unmixed_ensemble")),
    ]
    lines = [
        "| | cells (positive) | groups | AUROC (95 %) | average precision (95 %) |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, score in rows:
        if score is not None:
            values = [spread(score, key) for key in ("auroc", "average_precision")]
            lines.append(
                f"| {name} | {score['cells']} ({score['positive']}) | {score['groups']} | "
                f"{' | '.join(values)} |"
            )
    lines.append("")
    if "fields" in block:
        each = block["unmixed"]["auroc_each_seed"]
        if len(each) > 1:
            words = ", ".join(number(v) for v in each)
            lines += [f"AUROC on unmixed cells of each seed: {words}.", ""]
        if any(value is not None for value in block["fields"].values()):
            lines += ["AUROC within single pictures (unmixed cells):", ""]
            lines += [_each(block["fields"]), ""]
    whole = block.get("all") or {}
    if "kappa" in whole:
        agreement = ", ".join(
            f"{words} {spread(whole, key)}"
            for words, key in (
                ("Cohen's kappa", "kappa"),
                ("balanced accuracy", "balanced_accuracy"),
            )
        )
        lines += [f"Likeliest class against that with the largest share: {agreement}.", ""]
    return lines


def _pixels(block: Block) -> list[str]:
    pixels = block["pixels"]
    extent = (
        f"{pixels['fields']} pictures in {pixels['groups']} groups, {pixels['pixels']} labelled "
        f"pixels. Dice is of the pixels of all pictures together; beside it the mean over single "
        f"pictures."
    )
    lines = [
        extent,
        "",
        "| class | pixels | Dice (95 %) | mean over pictures | IoU (95 %) | precision | recall |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, score in pixels["classes"].items():
        lines.append(
            f"| {name} | {score['pixels']} | {spread(score, 'dice')} | "
            f"{number(score['dice_fields'])} | {spread(score, 'iou')} | "
            f"{number(score['precision'])} | {number(score['recall'])} |"
        )
    means = (
        f"Mean Dice without background {spread(pixels, 'mean_dice')}; AUROC of the positive "
        f"class, pixel by pixel, {spread(pixels, 'auroc')} ({pixels['sampled']} pixels on a "
        f"regular grid)."
    )
    lines += ["", means, ""]
    each = pixels["mean_dice_each_seed"]
    if len(each) > 1:
        lines += [f"Mean Dice of each seed: {', '.join(number(v) for v in each)}.", ""]
    if pixels.get("objects"):
        lines += [
            "Connected pieces, matched where more than half of their union is common:",
            "",
            "| class | true | found | matched | F1 (95 %) | panoptic quality (95 %) |",
            "| --- | --- | --- | --- | --- | --- |",
        ]
        lines += [
            f"| {name} | {o['true']} | {o['found']} | {o['matched']} | {spread(o, 'f1')} | "
            f"{spread(o, 'panoptic_quality')} |"
            for name, o in pixels["objects"].items()
        ]
        lines.append("")
    if block.get("fields"):
        lines += ["Dice of single pictures:", ""]
        own = [
            name for name in pixels["classes"] if any(name in f for f in block["fields"].values())
        ]
        for name in own:
            dice = {field: values.get(name) for field, values in block["fields"].items()}
            lines += [f"{name}: {_each(dice)}" if len(own) > 1 else _each(dice), ""]
    return lines


def _chain(block: Block) -> list[str]:
    """Return what a chain spared, and how it does beside its last model alone."""
    chain, pixels = block["chain"], block["pixels"]
    alone = chain["alone"]
    spared = (
        f"Of {chain['slides']} slides the last model looked at {chain['fine_tiles']} of "
        f"{chain['tiles']} tiles ({100 * chain['spared']:.0f} % were spared), after the detector "
        f"had looked at {chain['detector_tiles']}. Beside it {alone['model']} alone, on all of "
        f"the tissue; what lies outside of it is called {chain['elsewhere']} in both:"
    )
    lines = [spared, "", "| class | Dice of the chain | alone | IoU of the chain | alone |"]
    lines.append("| --- | --- | --- | --- | --- |")
    for name, own in pixels["classes"].items():
        other = alone["pixels"]["classes"][name]
        cells = (spread(score, key) for key in ("dice", "iou") for score in (own, other))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    means = (
        f"Mean Dice without background {spread(pixels, 'mean_dice')} of the chain, "
        f"{spread(alone['pixels'], 'mean_dice')} alone."
    )
    return [*lines, "", means, ""]


def _slides(slides: Block) -> list[str]:
    extent = (
        f"{slides['slides']} slides ({slides['positive']} positive) of {slides['patients']} "
        f"patients, answered from their tiles; intervals by bootstrap over patients:"
    )
    lines = [extent, "", "| rule | AUROC (95 %) | right at 0.5 |", "| --- | --- | --- |"]
    lines += [
        f"| {rule} | {spread(score, 'auroc')} | {number(score['accuracy'])} |"
        for rule, score in slides["rules"].items()
    ]
    return [*lines, ""]


def _calibration(found: Block) -> list[str]:
    if "brier" not in found:
        return []
    fitted = f", fitted on {found['fitted_on']}" if found.get("fitted_on") else ""
    said = (
        f"Calibration: Brier score {number(found['brier'])} with the temperature "
        f"{found['temperature']:g}{fitted} ({number(found['brier_before'])} without), on "
        f"{found['answers']} answers of {found['cases']} independent cases."
    )
    if "reason" in found:
        said += f" No expected calibration error is given: {found['reason']}."
    else:
        said += (
            f" Expected calibration error {number(found['ece_width'])} with 15 bins of equal "
            f"width, {number(found['ece_mass'])} with bins of equal mass."
        )
    lines = [said, "", *_bins(found["curve"]), ""]
    if found.get("mass_bins"):
        lines += ["Bins of equal mass:", "", *_bins(found["mass_bins"]), ""]
    return lines


def _bins(bins: Sequence[Block]) -> list[str]:
    lines = [
        "| probability | answers | groups | mean | observed (95 % over groups) |",
        "| --- | --- | --- | --- | --- |",
    ]
    for b in bins:
        between = ""
        if b["interval"]:
            between = f" ({number(b['interval'][0])} to {number(b['interval'][1])})"
        lines.append(
            f"| {b['low']:.3g} to {b['high']:.3g} | {b['count']} | {b['groups']} | "
            f"{number(b['mean'])} | {number(b['observed'])}{between} |"
        )
    return lines


def _each(values: Mapping[str, float | None]) -> str:
    words = (f"{name} {'-' if v is None else format(v, '.2f')}" for name, v in values.items())
    return ", ".join(words) + "."
