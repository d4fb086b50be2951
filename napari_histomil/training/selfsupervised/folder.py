"""Write a pretrained backbone as a model folder of task ``embed``: weights, facts, card, curve."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from napari_histomil.training.model_folder import described, pack, versions, write_files
from napari_histomil.training.selfsupervised.config import PretrainConfig
from napari_histomil.training.selfsupervised.loop import (
    COLLAPSED,
    CurvePoint,
    Pretrained,
    collapse_sentence,
)
from napari_histomil.training.selfsupervised.tiles import Pool

CURVES_FILE = "curves.csv"
COLUMNS = ("step", "loss", "spread", "learning_rate", "momentum")

METHODS = {
    "simclr": "SimCLR (Chen et al. 2020)",
    "byol": "BYOL (Grill et al. 2020)",
    "mocov3": "MoCo v3 (Chen, Xie and He 2021)",
    "dino": "DINO (Caron et al. 2021)",
}


def write_encoder(
    folder: Path, config: PretrainConfig, pretrained: Pretrained, pool: Pool, *, seed: int
) -> Path:
    """Write a model folder that `load_manifest` accepts and return its path.

    Parameters
    ----------
    folder
        Is there; other files in it stay.
    config, pool, seed
        What the encoder was made from.
    pretrained
        The encoder.

    Raises
    ------
    OutputError
        If a file cannot be written.
    """
    packed = pack(pretrained.backbone)
    arguments = {k: v for k, v in config.backbone.arguments.items() if k != "pretrained"}
    model = described(
        config,
        packed,
        task="embed",
        architecture=f"timm/{config.backbone.name}",
        arguments=arguments,
        answers={"embedding_dim": pretrained.embedding_dim},
    )
    model |= {
        "training": {
            "command": "histomil pretrain pretrain.toml --data DATA -o FOLDER",
            "method": config.method,
            "seed": seed,
            "steps": config.schedule.steps,
            "batch": config.schedule.batch,
            "parameters": sum(p.numel() for p in pretrained.backbone.parameters()),
            "loss": round(pretrained.loss, 4),
            "spread": round(pretrained.spread, 4),
            "versions": versions(),
            "data_sha256": pool.fingerprint,
            "data": [
                {
                    "name": source.name,
                    "kind": source.kind,
                    "licence": source.licence,
                    "share": source.share,
                    "files": len(pieces),
                }
                for source, pieces in zip(config.sources, pool.pieces, strict=True)
            ],
        },
    }
    curves = {CURVES_FILE: curve_text(pretrained.curve).encode()}
    write_files(folder, model, packed, card(config, model), curves)
    return folder


def curve_text(curve: Sequence[CurvePoint]) -> str:
    """Return the learning curve as CSV, a row a step; momentum is empty without a teacher."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    for point in curve:
        momentum = "" if point.momentum is None else f"{point.momentum:.6g}"
        numbers = (point.loss, point.spread, point.learning_rate)
        writer.writerow([point.step, *(f"{n:.6g}" for n in numbers), momentum])
    return stream.getvalue()


def card(config: PretrainConfig, model: Mapping[str, Any]) -> str:
    """Return the card in Markdown; every number in it is one of `model` or of the settings."""
    grid, training, views = model["grid"], model["training"], config.views
    arguments = json.dumps(model["architecture"]["arguments"])
    sources = [
        f"- **{d['name']}** ({d['files']} {d['kind']}, {d['licence']}), share {d['share']:g}."
        for d in training["data"]
    ]
    versions = ", ".join(f"{name} {value}" for name, value in training["versions"].items())
    net = (
        f"`{model['architecture']['name']}` with `{arguments}`, "
        f"{training['parameters'] / 1e6:.2f} million parameters, float32"
    )
    learning = (
        f"{METHODS[config.method]}, from random weights (seed {training['seed']}), "
        f"{training['steps']} steps of {training['batch']} places. AdamW, learning rate "
        f"{config.schedule.learning_rate:g} with warm-up and half cosine, weight decay "
        f"{config.schedule.weight_decay:g}. Views are cut at any place of a square "
        f"{views.field:g} tiles wide, zoomed by {views.zoom[0]:g} to {views.zoom[1]:g}, turned by "
        f"quarters and mirrored; {100 * views.color_probability:g} % are stained otherwise "
        f"(hematoxylin and eosin ±{100 * views.stain:g} %), {100 * views.blur_probability:g} % "
        f"blurred, {100 * views.grey_probability:g} % made grey, "
        f"{100 * views.solarise_probability:g} % solarised."
    )
    went = (
        f"The loss ended at {training['loss']:g} and the spread of the embeddings at "
        f"{training['spread']:g} (1: even over the sphere, 0: all in one place); `{CURVES_FILE}` "
        f"holds every step. A loss says nothing of what the encoder is worth: compare trainings "
        f"with and without it."
    )
    again = f"`{training['command']}` on the configuration beside this card makes it again"
    use = "A training begins with it where its table `[network]` says `encoder`."
    side_um = grid["tile_px"] * grid["mpp"]
    paragraphs = [
        f"# {model['name']}",
        f"{model['description']} For research, not for diagnosis.",
        *(note.strip() for note in config.notes),
        "## What it is",
        f"An encoder: it turns a tile into {model['embedding_dim']} values and tells no classes.",
        use,
        f"Tiles of {grid['tile_px']} px at {grid['mpp']:g} µm/px ({side_um:g} µm). Net: {net}.",
        f"Weights: `{model['weights']['file']}`, sha256 `{model['weights']['sha256']}`.",
        f"Licence of the weights: {model['licence']}.",
        "## Data",
        "\n".join(sources),
        f"No label was seen. sha256 of the files' names and sizes: `{training['data_sha256']}`.",
        "## Method",
        learning,
        f"{again} ({versions}).",
        "## How it went",
        went,
        *([collapse_sentence(training["spread"])] if training["spread"] < COLLAPSED else []),
    ]
    return "\n\n".join(paragraphs) + "\n"
