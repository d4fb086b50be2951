"""The verbs ``models export`` (another form of a model) and ``models fetch`` (the WSInfer zoo)."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from napari_histomil.cli.shared import add_models, add_verb, find_model_near, say
from napari_histomil.errors import ModelError, OutputError

if TYPE_CHECKING:
    from napari_histomil.cli.shared import Subparsers
    from napari_histomil.manifest import ModelManifest
    from napari_histomil.slides.slide import Uint8Image


def add_export(verbs: Subparsers) -> None:
    """Add the verb ``export``."""
    parser = add_verb(
        verbs,
        "export",
        export_verb,
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


def add_fetch(verbs: Subparsers) -> None:
    """Add the verb ``fetch``."""
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


def export_verb(args: argparse.Namespace) -> int:
    """Write a model as a graph and say how far its answers are."""
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
) -> tuple[Uint8Image, str]:
    from napari_histomil.inference import export as exporting

    if folder is not None:
        return exporting.folder_tiles(model, folder), f"pictures of {folder.name}"
    if slide is not None:
        return exporting.slide_tiles(model, slide), f"tissue of {slide.name}"
    return exporting.sample_tiles(model), "tissue of the packaged slide"
