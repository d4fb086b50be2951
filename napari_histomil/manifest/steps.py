"""The models of a chain: found by name, compared by content; and chains written from models."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from napari_histomil.errors import ModelError, OutputError
from napari_histomil.files import make_folder, whole_file
from napari_histomil.manifest.chain import Chain, Look, Step, chain_json, grid_json
from napari_histomil.manifest.model import (
    MODEL_FILE,
    ModelManifest,
    is_model,
    load_manifest,
    read_manifest,
)
from napari_histomil.manifest.schema import SCHEMA_VERSION
from napari_histomil.manifest.search import find_model

CARD_FILE = "README.md"


@dataclass(frozen=True, slots=True)
class StepModels:
    """The models that a chain names."""

    detect: ModelManifest
    refine: ModelManifest | None
    segment: ModelManifest


def find_steps(chain: ModelManifest, models: Sequence[Path] = ()) -> StepModels:
    """Return the models of a chain: on the search path, then beside the chain's folder.

    Raises
    ------
    ModelError
        If one is missing, is another than the chain was made with, or cannot do its step.
    """
    steps = chain.chain
    if steps is None:
        raise ModelError(f"{chain.name} is no chain: it has no steps.")
    places = [*models, chain.path.absolute().parent]
    found = StepModels(
        _find(chain, steps.detect, places),
        _find(chain, steps.refine, places) if steps.refine is not None else None,
        _find(chain, steps.segment, places),
    )
    _check(steps, found, chain.name)
    last, grid = found.segment, chain.grid
    if (last.class_names, last.activation) != (chain.class_names, chain.activation) or (
        last.grid.tile_px,
        last.grid.margin_px,
    ) != (grid.tile_px, grid.margin_px):
        raise ModelError(
            f"The chain {chain.name} states other classes, activation, tile_px or margin_px than "
            f"its last model {last.name}: make it again with 'histomil models chain'."
        )
    return found


def _find(chain: ModelManifest, step: Step, places: Sequence[Path]) -> ModelManifest:
    try:
        model = find_model(step.model, places)
    except ModelError as error:
        raise ModelError(f"The chain {chain.name} cannot be used: {error}") from error
    if model.sha256 != step.sha256:
        raise ModelError(
            f"The model {model.name} in {model.path} is not the one that the chain {chain.name} "
            f"was made with (sha256 {model.sha256[:12]}... instead of {step.sha256[:12]}...): get "
            f"that one, or make the chain again with 'histomil models chain'."
        )
    return model


def _check(steps: Chain, found: StepModels, name: str) -> None:
    """Refuse models that cannot do their step."""
    tasks = [
        ("detect", steps.detect, found.detect, "classifies", found.detect.task == "classify"),
        ("refine", steps.refine, found.refine, "takes overview and heatmap as inputs",
         bool(found.refine is None or found.refine.inputs)),
        ("segment", None, found.segment, "segments tiles of a slide",
         found.segment.task == "segment" and not found.segment.inputs),
    ]  # fmt: skip
    for verb, look, model, does, fits in tasks:
        if model is None:
            continue
        if not fits:
            raise ModelError(
                f"The chain {name} cannot {verb} with {model.name}: that step needs a model that "
                f"{does}."
            )
        if look is not None and look.class_name not in model.class_names:
            raise ModelError(
                f"The chain {name} wants to {verb} {look.class_name!r}, which is none of the "
                f"classes of {model.name}: {', '.join(model.class_names)}."
            )


def write_chain(
    folder: Path,
    name: str,
    models: StepModels,
    *,
    detect_class: str | None = None,
    refine_class: str | None = None,
    background_class: str | None = None,
    threshold: float,
    margin_um: float,
) -> ModelManifest:
    """Write a chain of models as a model folder with its card.

    Parameters
    ----------
    folder
        Made if it is missing.
    name
        Of the chain.
    models
        Its steps; grids and stain normalisation are the models' own.
    detect_class, refine_class
        What to look for; by default the class that the model shows first.
    background_class
        What the result says where the last model does not look; by default the one that it
        names. Not for sigmoid.
    threshold, margin_um
        See `Chain`.

    Raises
    ------
    ModelError
        If the models make no chain; nothing is left then.
    OutputError
        If the folder cannot be written, or holds another model.
    """
    last = models.segment
    steps = Chain(
        _look_with(models.detect, detect_class),
        _look_with(models.refine, refine_class) if models.refine is not None else None,
        Step(last.name, last.sha256),
        threshold,
        margin_um,
    )
    _check(steps, models, name)
    if last.activation == "softmax" and not (background_class or last.background_class):
        raise ModelError(
            f"{last.name} does not say which of its classes means none of the others: give one of "
            f"{', '.join(last.class_names)} as the background."
        )
    description = {
        "schema_version": SCHEMA_VERSION,
        "name": name,
        "description": f"Segments with {last.name}, only where {models.detect.name} finds "
        f"{steps.detect.class_name}.",
        "task": "chain",
        "steps": chain_json(steps),
        "classes": [{"name": c.name, "color": list(c.color)} for c in last.classes],
        "positive_class": last.positive_class,
        "background_class": background_class or last.background_class,
        "activation": last.activation,
        "grid": grid_json(last.grid),
        "stain": last.stain,
        "licence": " and ".join(
            dict.fromkeys(m.licence for m in _all(models) if m.licence)
        ) or "not stated",
    }  # fmt: skip
    file = folder / MODEL_FILE
    written = read_manifest(description, file)  # a chain that cannot be used is not written
    if is_model(folder) and load_manifest(folder).chain is None:
        raise OutputError(f"{folder} holds another model: choose another folder for the chain.")
    make_folder(folder)
    with whole_file(folder / CARD_FILE) as part:
        part.write_text(chain_card(written, models), encoding="utf-8")
    with whole_file(file) as part:
        text = json.dumps(description, indent=2, ensure_ascii=False)
        part.write_text(text + "\n", encoding="utf-8")
    return written


def _look_with(model: ModelManifest, class_name: str | None) -> Look:
    chosen = class_name or model.positive_class or model.class_names[-1]
    return Look(model.name, model.sha256, chosen, model.grid, model.stain)


def _all(models: StepModels) -> list[ModelManifest]:
    return [m for m in (models.detect, models.refine, models.segment) if m is not None]


def chain_card(chain: ModelManifest, models: StepModels, scores: Sequence[str] = ()) -> str:
    """Return the card in Markdown; what the models are worth stands in their own.

    Parameters
    ----------
    chain, models
        The chain, and what it names.
    scores
        Lines on how good the chain as a whole is.
    """
    assert chain.chain is not None
    elsewhere = chain.background_class or "that no class is likely"
    lines = [
        f"# {chain.name}",
        "",
        f"{chain.description} For research, not for diagnosis.",
        "",
        "## Steps",
        "",
        *(f"{number}. {words}" for number, words in enumerate(chain.chain.words(), 1)),
        "",
        f"Everywhere else the last step is left out, and the result says {elsewhere}.",
        "Each run tells how many tiles that spared, and which cells.",
        "",
        "## Models",
        "",
        *(f"* {m.name} (sha256 `{m.sha256}`): {m.description}" for m in _all(models)),
        "",
        "What they are worth stands in their own cards"
        + (". " if scores else "; the chain as a whole has not been scored.\n")
        + "What the detector misses is missed.",
        "",
        *(("## Scores", "", *scores) if scores else ()),
        f"Licence: {chain.licence}",
    ]
    return "\n".join(lines) + "\n"
