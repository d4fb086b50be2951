"""Verbs about models: ``models list``, ``show``, ``verify``.

``chain`` is in `chains.py`, ``export`` and ``fetch`` are in `model_forms.py`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_histomil.cli.chains import add_chain
from napari_histomil.cli.model_forms import add_export, add_fetch
from napari_histomil.cli.shared import add_models, add_verb, find_model_near, say
from napari_histomil.errors import ModelError

if TYPE_CHECKING:
    from napari_histomil.cli.shared import Subparsers
    from napari_histomil.manifest import ModelManifest


def add_parser(subparsers: Subparsers) -> None:
    """Add the verbs of this file."""
    parser = subparsers.add_parser(
        "models",
        help="which models there are, what they are, whether they are whole; export, fetch",
        description="List, show, chain, verify, export and fetch models. A model is a folder: "
        "model.json with its weights or the steps of a chain, or WSInfer's config.json with a "
        "TorchScript file.",
    )
    verbs = parser.add_subparsers(metavar="VERB", required=True)

    parser = add_verb(
        verbs,
        "list",
        list_verb,
        "which models there are",
        "List the models that 'histomil run' finds by name, with what each needs.",
        "  histomil models list\n  histomil models list --models ~/zoo --json",
    )
    add_models(parser)
    parser.add_argument("--json", action="store_true", help="a JSON list of objects")

    parser = add_verb(
        verbs,
        "show",
        show,
        "all about one model",
        "Show a model's classes, resolution, licence, training data and held-out scores.",
        "  histomil models show metastasis-patch-small\n  histomil models show ./my-model --json",
    )
    parser.add_argument("model", metavar="MODEL", help="name, or folder")
    add_models(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object")

    add_chain(verbs)

    parser = add_verb(
        verbs,
        "verify",
        verify,
        "whether the weights are those that were published",
        "Compare the sha256 of each model's weights with the one it states; 1 is returned if "
        "any differs or a model is broken.",
        "  histomil models verify\n  histomil models verify metastasis-patch-small",
    )
    parser.add_argument("model", metavar="MODEL", nargs="*", help="name or folder; all by default")
    add_models(parser)
    parser.add_argument("--json", action="store_true", help="a JSON list of objects")
    add_export(verbs)
    add_fetch(verbs)

    parser = add_verb(
        verbs,
        "encoders",
        encoders,
        "which published encoders 'histomil features' knows by name",
        "List the encoders of pathology that 'histomil features' gets from the Hugging Face hub, "
        "with what each gives and needs. Those that are gated are given to whom their authors "
        "have granted access: ask on the page that is named, then 'hf auth login'. Besides these, "
        "any net of timm is an encoder (timm/<net>), and any model folder.",
        "  histomil models encoders\n  histomil models encoders --json",
    )
    parser.add_argument("--json", action="store_true", help="a JSON list of objects")


def list_verb(args: argparse.Namespace) -> int:
    """Print the models there are; broken ones are told on stderr."""
    from napari_histomil.inference.remembered import recall_model
    from napari_histomil.manifest import list_models

    found, broken = list_models(args.models)
    if args.json:
        print(json.dumps([model_json(model) for model in found], indent=1))
    else:
        width = max((len(model.name) for model in found), default=0)
        for model in found:
            print(f"{model.name:<{width}}  {_needs(model)}  {_gives(model)}")
            print(f"{'':<{width}}  {model.description}")
            for number, words in enumerate(model.chain.words() if model.chain else (), 1):
                print(f"{'':<{width}}  {number}. {words}")
            for measured in recall_model(model.sha256):
                print(f"{'':<{width}}  fastest: {measured.sentence()}")
    for error in broken:
        say(f"histomil: {error}")
    if not found:
        say("There are no models: give a folder with --models.")
    return 0


def show(args: argparse.Namespace) -> int:
    """Print all that a model says of itself, and what runs it fastest here."""
    from napari_histomil.inference.remembered import recall_model

    model = find_model_near(args.model, args.models)
    facts = model_json(model)
    if args.json:
        print(json.dumps(facts, indent=1))
        return 0
    rows = [
        ("model", model.name),
        ("", model.description),
        ("folder", str(model.path)),
        ("kind", f"{model.kind}, {model.architecture or model.weights_format}"),
        ("task", model.task),
        *_outputs(model),
        ("needs", _needs(model)),
        ("stain", model.stain),
        ("licence", model.licence),
    ]
    if model.chain is not None:
        rows += [("step", words) for words in model.chain.words()]
    else:
        rows.append(("weights", f"{model.weights.name}, sha256 {model.weights_sha256}"))
    rows.append(("content", f"sha256 {model.sha256}"))
    rows += [("training", f"{name}: {_plain(value)}") for name, value in model.training.items()]
    rows += [("scores", f"{name}: {_plain(value)}") for name, value in model.scores.items()]
    rows += [("export", f"{name}: {_plain(value)}") for name, value in model.export.items()]
    rows += [("fastest", measured.sentence()) for measured in recall_model(model.sha256)]
    for name, value in rows:
        print(f"{name:<12}{value}")
    if (model.path / "README.md").is_file():
        print(f"{'card':<12}{model.path / 'README.md'}")
    return 0


def verify(args: argparse.Namespace) -> int:
    """Check the weights of models; 1 if any is not what it should be."""
    from napari_histomil.manifest import list_models, verify_model

    if args.model:
        found = [find_model_near(name, args.models) for name in args.model]
        broken: list[ModelError] = []
    else:
        found, broken = list_models(args.models)
    results = []
    for model in found:
        try:
            verify_model(model)
            for step in _steps(model, args.models):
                verify_model(step)
        except ModelError as error:
            results.append({"name": model.name, "ok": False, "reason": str(error)})
        else:
            results.append({"name": model.name, "ok": True, "reason": None})
    if args.json:
        print(json.dumps(results, indent=1))
    else:
        for result in results:
            print(f"{result['name']}: {'ok' if result['ok'] else result['reason']}")
    for reason in broken:
        say(f"histomil: {reason}")
    return 0 if not broken and all(result["ok"] for result in results) else 1


def encoders(args: argparse.Namespace) -> int:
    """Print the published encoders that are known."""
    from napari_histomil.nets.foundation import FOUNDATIONS

    if args.json:
        rows = [
            {
                "name": each.name,
                "title": each.title,
                "dim": each.dim,
                "tile_px": each.tile_px,
                "mpp": each.mpp,
                "pooling": each.pooling,
                "licence": each.licence,
                "gated": each.gated,
                "page": each.page,
            }
            for each in FOUNDATIONS.values()
        ]
        print(json.dumps(rows, indent=1))
        return 0
    width = max(len(name) for name in FOUNDATIONS)
    for each in FOUNDATIONS.values():
        access = "gated: ask there, then 'hf auth login'" if each.gated else "open"
        print(
            f"{each.name:<{width}}  {each.dim:>4} values, tiles of {each.tile_px} px at "
            f"{each.mpp:g} µm/px  {each.title}"
        )
        print(f"{'':<{width}}  {each.page}  {each.licence}, {access}")
    return 0


def _steps(model: ModelManifest, models: Sequence[Path]) -> list[ModelManifest]:
    """Return the models of a chain; none of another model."""
    from napari_histomil.manifest import find_steps

    if model.chain is None:
        return []
    steps = find_steps(model, models)
    return [each for each in (steps.detect, steps.refine, steps.segment) if each is not None]


def model_json(model: ModelManifest) -> dict[str, Any]:
    """Return what a model says of itself as plain JSON values."""
    from napari_histomil.manifest.chain import chain_json

    return {
        "name": model.name,
        "path": str(model.path),
        "kind": model.kind,
        "description": model.description,
        "task": model.task,
        "architecture": model.architecture,
        "classes": [{"name": c.name, "color": list(c.color)} for c in model.classes],
        "positive_class": model.positive_class,
        "background_class": model.background_class,
        "activation": model.activation,
        "embedding_dim": model.embedding_dim,
        "mpp": model.grid.mpp,
        "tile_px": model.grid.tile_px,
        "stride_px": model.grid.stride_px,
        "margin_px": model.grid.margin_px,
        "stain": model.stain,
        "inputs": list(model.inputs),
        "steps": [] if model.chain is None else chain_json(model.chain),
        "licence": model.licence,
        "weights": model.weights.name,
        "weights_format": model.weights_format,
        "weights_sha256": model.weights_sha256,
        "sha256": model.sha256,
        "training": dict(model.training),
        "scores": dict(model.scores),
        "export": dict(model.export),
    }


def _needs(model: ModelManifest) -> str:
    grid = model.grid
    margin = f", margins of {grid.margin_px} px" if grid.margin_px else ""
    return f"{grid.mpp:g} µm/px, tiles of {grid.tile_px} px every {grid.stride_px} px{margin}"


def _gives(model: ModelManifest) -> str:
    if model.task == "embed":
        return f"embeddings of {model.embedding_dim} values"
    return ", ".join(model.class_names)


def _outputs(model: ModelManifest) -> list[tuple[str, str]]:
    if model.task == "embed":
        return [("gives", _gives(model))]
    return [("classes", f"{_gives(model)} ({model.activation})")]


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
