"""Verbs about models: ``models list``, ``show``, ``verify``, ``export``, ``fetch``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
        description="List, show, verify, export and fetch models. A model is a folder: model.json "
        "with its weights, or WSInfer's config.json with a TorchScript file.",
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

    parser = add_verb(
        verbs,
        "export",
        export,
        "a model as ONNX or TorchScript, in a folder of its own",
        "Write a model's net as a graph that other programs run too, with all its facts, as a new "
        "model. Its probabilities are compared with the model's own on tiles, and what differs is "
        "printed and stands in the new model.json; more than 0.001 is refused. With --int8 the "
        "graph computes in whole numbers, whose ranges are found on tiles that you name: it is "
        "faster, and how much the answers change is stated.",
        "  histomil models export my-model --format onnx\n"
        "  histomil models export my-model --format onnx --int8 --slide slide.svs",
    )
    parser.add_argument("model", metavar="MODEL", help="name, or folder")
    parser.add_argument(
        "--format", choices=("onnx", "torchscript"), required=True, help="what is written"
    )
    parser.add_argument("--int8", action="store_true", help="compute in int8 (ONNX only)")
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--tiles",
        metavar="FOLDER",
        type=Path,
        help="pictures at the model's µm/px, cut into tiles to compare on",
    )
    source.add_argument(
        "--slide", metavar="SLIDE", type=Path, help="slide on whose tissue to compare"
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="FOLDER",
        type=Path,
        help="the new model; its name is the folder's. Among your own models by default, where "
        "'histomil run' finds it",
    )
    parser.add_argument("--force", action="store_true", help="write over a model that exists")
    add_models(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object")

    parser = add_verb(
        verbs,
        "fetch",
        fetch_verb,
        "a model of the WSInfer zoo, or which ones it has",
        "Download a model of the WSInfer zoo and keep it among your own, checked against the hash "
        "that the hub states; what is kept is not downloaded again. 'histomil run' does so by "
        "itself. Without a name, list the zoo.",
        "  histomil models fetch\n"
        "  histomil models fetch breast-tumor-resnet34.tcga-brca\n"
        "  histomil models fetch breast-tumor-resnet34.tcga-brca --from /media/stick/wsinfer",
    )
    parser.add_argument("model", metavar="NAME", nargs="?", help="as the zoo calls it")
    parser.add_argument(
        "--from",
        dest="source",
        metavar="FOLDER",
        type=Path,
        help="take it from this folder, without a network: the model's own, one that holds it, "
        "or the one in which QuPath keeps models",
    )


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
            print(f"{model.name:<{width}}  {_needs(model)}  {', '.join(model.class_names)}")
            print(f"{'':<{width}}  {model.description}")
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
        ("classes", ", ".join(model.class_names) + f" ({model.activation})"),
        ("needs", _needs(model)),
        ("stain", model.stain),
        ("licence", model.licence),
        ("weights", f"{model.weights.name}, sha256 {model.weights_sha256}"),
    ]
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


def export(args: argparse.Namespace) -> int:
    """Write a model as a graph and say how far its answers are."""
    from napari_histomil.errors import OutputError
    from napari_histomil.manifest import load_manifest
    from napari_histomil.resources import user_data_dir

    if args.int8 and args.format != "onnx":
        raise ModelError("int8 is for ONNX: add --format onnx.")
    if args.int8 and args.tiles is None and args.slide is None:
        raise ModelError(
            "The ranges of int8 are found on tiles like those that the model will see: name them "
            "with --tiles FOLDER, or a slide with --slide."
        )
    model = find_model_near(args.model, args.models)
    suffix = f"{args.format}-int8" if args.int8 else args.format
    folder = args.output or user_data_dir() / "models" / f"{model.name}-{suffix}"
    if folder.exists() and not args.force:
        raise OutputError(f"{folder} exists already: choose another with -o, or add --force.")
    from napari_histomil.inference import export as exporting

    tiles, tiles_from = _export_tiles(model, args.tiles, args.slide)
    say(f"Exporting {model.name}: this takes some seconds ...")
    exporting.export_model(
        model, args.format, folder, tiles=tiles, tiles_from=tiles_from, int8=args.int8
    )
    facts = load_manifest(folder).export
    if args.json:
        print(json.dumps({"path": str(folder), **facts}, indent=1))
    else:
        print(
            f"{folder}: on {facts['tiles']} tiles a probability differs from {model.name}'s by "
            f"{facts['mean_difference']:.2g} on average and {facts['largest_difference']:.2g} at "
            f"most; {facts['argmax_changed']:.2%} of the answers have another first class"
        )
    return 0


def fetch_verb(args: argparse.Namespace) -> int:
    """Download a model of the zoo and print its folder; without a name, print the zoo."""
    from napari_histomil.manifest import zoo

    if args.model is None:
        models = zoo.registry()
        width = max((len(name) for name in models), default=0)
        for name, model in sorted(models.items()):
            print(f"{name:<{width}}  {model.description}")
        return 0
    print(zoo.fetch(args.model, source=args.source))
    return 0


def _export_tiles(
    model: ModelManifest, folder: Path | None, slide: Path | None
) -> tuple[Any, str]:
    from napari_histomil.inference import export as exporting

    if folder is not None:
        return exporting.folder_tiles(model, folder), f"pictures of {folder.name}"
    if slide is not None:
        return exporting.slide_tiles(model, slide), f"tissue of {slide.name}"
    return exporting.sample_tiles(model), "tissue of the packaged slide"


def model_json(model: ModelManifest) -> dict[str, Any]:
    """Return what a model says of itself as plain JSON values."""
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
        "mpp": model.grid.mpp,
        "tile_px": model.grid.tile_px,
        "stride_px": model.grid.stride_px,
        "margin_px": model.grid.margin_px,
        "stain": model.stain,
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


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
