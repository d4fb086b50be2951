"""Scores on other data, put into a model's own folder: `model.json`, and the card anew."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from napari_histomil.errors import ModelError
from napari_histomil.files import whole_file
from napari_histomil.manifest import ModelManifest, find_steps
from napari_histomil.manifest.model import MODEL_FILE
from napari_histomil.manifest.steps import chain_card
from napari_histomil.training.card import CARD_FILE, card, named_block
from napari_histomil.training.config import Validation, read_config

RECIPE = "train.toml"


def check_card(model: ModelManifest) -> None:
    """Make sure that a model's card can be made again.

    Raises
    ------
    ModelError
        If it cannot.
    """
    if model.chain is None and not (model.path / RECIPE).is_file():
        raise ModelError(
            f"{model.path} has no {RECIPE}, of which its card is made: only a model that was "
            f"trained by this program, or a chain, can be given scores."
        )


def add_apart(
    model: ModelManifest, block: Mapping[str, Any], *, models: Sequence[Path] = ()
) -> None:
    """Put scores among those apart from the training's, in place of those of the same command.

    Parameters
    ----------
    model
        Whose folder is written.
    block
        ``command``, ``what`` (empty to keep what those of the same command said, or else what
        the data is called), ``data``, and scores.
    models
        Folders in which a chain's models are looked for first.

    Raises
    ------
    ModelError
        As `check_card`.
    OutputError
        If a file cannot be written.
    """
    check_card(model)
    file = model.path / MODEL_FILE
    raw = json.loads(file.read_text(encoding="utf-8"))
    scores = raw.setdefault("scores", {})
    before = scores.get("apart", [])
    place = next(
        (n for n, each in enumerate(before) if each.get("command") == block["command"]),
        len(before),
    )
    old = before[place]["what"] if place < len(before) else f"on {', '.join(block['data'])}"
    scores["apart"] = [
        *before[:place],
        {**block, "what": block["what"] or old},
        *before[place + 1 :],
    ]
    if model.chain is not None:
        lines = [
            line
            for each in scores["apart"]
            for line in named_block(each, unmixed=Validation().unmixed)
        ]
        text = chain_card(model, find_steps(model, models), lines)
    else:
        text = card(read_config(model.path / RECIPE), raw)
    for path, content in (
        (model.path / CARD_FILE, text),
        (file, json.dumps(raw, indent=2, ensure_ascii=False) + "\n"),
    ):
        with whole_file(path) as part:
            part.write_text(content, encoding="utf-8")
