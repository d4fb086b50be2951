"""The verb ``evaluate``: how good a model is on labelled data."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from napari_histomil.cli.shared import (
    add_models,
    add_verb,
    find_model_near,
    new_file,
    positive,
    say,
)

if TYPE_CHECKING:
    from napari_histomil.cli.shared import Subparsers
    from napari_histomil.inference.job import Progress
    from napari_histomil.manifest import ModelManifest
    from napari_histomil.training.config import Validation
    from napari_histomil.training.evaluate import Evaluation
    from napari_histomil.training.fields import Field

DATA = "DATA"
"""What a card calls the folder of the data, wherever it lies."""

EXAMPLES = """\
  histomil evaluate metastasis-patch-small DATA/seg-camelyon-tumor --channel-order bgr --mpp 0.97
                                        a folder with images/ and masks/
  histomil evaluate my-model other/train.toml --data DATA --json scores.json
                                        the sources of a training
  histomil evaluate my-model DATA/breakhis --class malignant=tumor --class benign=normal
                                        a folder of pictures for each class
  histomil evaluate my-unet slide.svs --annotations slide.geojson --errors errors.jpg
                                        an annotated slide
  histomil evaluate my-chain cohort.toml --runs runs
                                        a chain: it is run over each annotated slide
  histomil evaluate my-unet DATA/other-organ --data DATA --card "Slides of another organ"
                                        and put the scores into the model's card"""


def add_parser(subparsers: Subparsers) -> None:
    """Add the verb of this file."""
    parser = add_verb(
        subparsers,
        "evaluate",
        evaluate,
        "score a model on labelled data",
        "Ask a model about all labelled tissue, as a run would, and print how good the answers "
        "are: areas, Dice and agreement with 95 % intervals over groups (patients, slides, pieces "
        "that belong together), calibration, and answers for whole slides where slides are "
        "named. The scores are those of the model's card, worked out by the same code.",
        EXAMPLES,
    )
    parser.add_argument("model", metavar="MODEL", help="name, or folder")
    parser.add_argument(
        "labelled",
        metavar="DATA",
        type=Path,
        help="a training's TOML file, a folder with images/ and masks/, a folder of pictures for "
        "each class (with labels.csv where patients and slides are known), or a slide",
    )
    parser.add_argument(
        "--data",
        metavar="FOLDER",
        type=Path,
        help="of a TOML file: folder that its paths are relative to; by default HISTOMIL_DATA, "
        "or else its own. A card calls it DATA",
    )
    parser.add_argument(
        "--mpp",
        metavar="MPP",
        type=positive(float),
        help="µm that one pixel of the pictures spans; by default as the model wants them",
    )
    parser.add_argument(
        "--channel-order",
        choices=("rgb", "bgr"),
        default="rgb",
        help="bgr for pictures whose red and blue are exchanged",
    )
    parser.add_argument(
        "--threshold",
        metavar="VALUE",
        type=int,
        default=127,
        help="brighter pixels of a mask are of the positive class, 127 by default",
    )
    parser.add_argument(
        "--annotations",
        metavar="FILE",
        default="",
        help="of a slide; by default what was drawn in this program",
    )
    parser.add_argument(
        "--class",
        metavar="THEIRS=OURS",
        dest="classes",
        action="append",
        type=_pair,
        default=[],
        help="what a class of the data is called by the model; empty after the = to leave it out",
    )
    parser.add_argument(
        "--objects", action="store_true", help="match connected pieces (nuclei) too"
    )
    parser.add_argument(
        "--bootstraps",
        metavar="N",
        type=positive(int),
        help="rounds behind the intervals; by default 2000, or what a TOML file says",
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda or mps; cpu by default")
    parser.add_argument(
        "--runs",
        metavar="FOLDER",
        type=Path,
        help="of a chain: keep its runs here, and go on with them after a stop; by default they "
        "are not kept",
    )
    parser.add_argument(
        "--card",
        metavar="WHAT",
        nargs="?",
        const="",
        help="put the scores into the model's own card and model.json, as those of WHAT; those "
        "that the same command has put there are replaced, and keep their WHAT if none is given",
    )
    parser.add_argument("--json", metavar="OUT", type=Path, help="write all figures as JSON")
    parser.add_argument(
        "--errors", metavar="OUT.jpg", type=Path, help="write a picture of the worst errors"
    )
    parser.add_argument("--force", action="store_true", help="write over files that exist")
    add_models(parser)


def evaluate(args: argparse.Namespace) -> int:
    """Score a model on labelled data."""
    from napari_histomil.files import whole_file
    from napari_histomil.training.apart import add_apart, check_card
    from napari_histomil.training.card_scores import block_lines
    from napari_histomil.training.evaluate import Reading, read_data
    from napari_histomil.training.evaluate import evaluate as score_model
    from napari_histomil.training.model_folder import describe_data

    for target in (args.json, args.errors):
        if target is not None:
            new_file(target, force=args.force)
    model = find_model_near(args.model, args.models)
    if args.card is not None:
        check_card(model)
    reading = Reading(
        args.mpp, args.channel_order, args.threshold, args.annotations, dict(args.classes)
    )
    variable = os.environ.get("HISTOMIL_DATA")
    folder = args.data or (Path(variable) if variable else None)
    fields = read_data(model, args.labelled, reading, folder)
    _tell(args, model, fields)
    validation = _validation(args)
    if model.chain is not None:
        found = _score_chain(args, model, fields, validation)
    else:
        found = score_model(model, fields, validation=validation, device=args.device)
    for line in block_lines(found.scores, unmixed=validation.unmixed):
        print(line)
    if args.json is not None:
        report = {
            "what": f"{model.name} on {args.labelled.name}",
            "command": f"histomil evaluate {_words(args)}",
            "model": {"name": model.name, "sha256": model.sha256},
            "data": describe_data(fields),
            **found.scores,
        }
        with whole_file(args.json) as part:
            part.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", "utf-8")
    if args.errors is not None and found.errors is not None:
        found.errors.write(args.errors)
    if args.card is not None:
        command = f"histomil evaluate {_words_of_card(args, model, folder)} --card"
        block = {"what": args.card, "command": command, "data": describe_data(fields)}
        add_apart(model, block | found.scores, models=args.models)
        say(f"The card in {model.path} has the scores.")
    return 0


def _score_chain(
    args: argparse.Namespace, model: ModelManifest, fields: list[Field], validation: Validation
) -> Evaluation:
    """Run a chain over slides, with a line for every tenth of each run, and score it."""
    from napari_histomil.training.chains import evaluate_chain

    told: dict[str, int] = {}

    def tell(what: str, now: Progress) -> None:
        tenth = 10 * now.done // max(now.total, 1)
        if told.get(what) != tenth:
            told[what] = tenth
            say(f"{what}: tile {now.done} of {now.total}")

    with tempfile.TemporaryDirectory(prefix="histomil-") as folder:
        return evaluate_chain(
            model,
            fields,
            validation=validation,
            runs=args.runs or Path(folder),
            device=args.device,
            models=args.models,
            tell=tell,
        )


def _tell(args: argparse.Namespace, model: ModelManifest, fields: list[Field]) -> None:
    """Say what was read, and what a person may not have thought of."""
    from napari_histomil.training.model_folder import describe_data

    groups = len({f.group for f in fields})
    say(f"{len(fields)} pictures or slides in {groups} groups.")
    if args.mpp is None and args.labelled.is_dir():
        say(
            f"They are taken to have {model.grid.mpp:g} µm/px, as {model.name} wants them: say "
            f"what they have with --mpp."
        )
    learnt = {d.get("sha256") for d in model.training.get("data", ())} - {None}
    if any(d["sha256"] in learnt for d in describe_data(fields).values()):
        say(
            f"{model.name} has learnt from this very data: the scores say nothing of tissue that "
            f"it has not seen."
        )


def _validation(args: argparse.Namespace) -> Validation:
    from dataclasses import replace

    from napari_histomil.training.config import Validation, read_config

    own = Validation()
    if args.labelled.suffix == ".toml":
        own = read_config(args.labelled).validation
    return replace(
        own,
        bootstraps=args.bootstraps or own.bootstraps,
        objects=args.objects or own.objects,
    )


def _pair(text: str) -> tuple[str, str]:
    """Read ``malignant=tumor``."""
    theirs, sign, ours = text.partition("=")
    if not (theirs and sign):
        raise argparse.ArgumentTypeError(f"'{text}' is not like THEIRS=OURS")
    return theirs.strip(), ours.strip()


def _words_of_card(args: argparse.Namespace, model: ModelManifest, data: Path | None) -> str:
    """Return what decides the scores without the places of this machine, as cards write it."""
    own = {**vars(args), "model": model.name}
    root = data and data.resolve()
    for name in ("labelled", "annotations"):
        path = Path(getattr(args, name)).resolve()
        if getattr(args, name) and root is not None and path.is_relative_to(root):
            own[name] = str(Path(DATA, path.relative_to(root)))
    return _words(argparse.Namespace(**own | {"data": DATA if data is not None else None}))


def _words(args: argparse.Namespace) -> str:
    """Return the arguments that decide the scores, as they would be typed."""
    words = [args.model, str(args.labelled)]
    for name in ("data", "mpp", "annotations", "bootstraps"):
        if getattr(args, name):
            words += [f"--{name}", str(getattr(args, name))]
    if args.channel_order != "rgb":
        words += ["--channel-order", args.channel_order]
    if args.threshold != 127:
        words += ["--threshold", str(args.threshold)]
    for pair in args.classes:
        words += ["--class", "=".join(pair)]
    return shlex.join([*words, *(["--objects"] if args.objects else [])])
