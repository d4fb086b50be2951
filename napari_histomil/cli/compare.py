"""The verb ``compare``: encoders x aggregators x magnifications on one table of slides."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from napari_histomil.cli.shared import add_models, add_verb, say
from napari_histomil.cli.train import DATA_VARIABLE, tell, watch

if TYPE_CHECKING:
    from napari_histomil.cli.shared import Subparsers
    from napari_histomil.training.loop import TrainingProgress


def add_parser(subparsers: Subparsers) -> None:
    """Add the verb of this file."""
    parser = add_verb(
        subparsers,
        "compare",
        compare,
        "compare encoders, aggregators and magnifications on one table of slides",
        "Cross-validate every combination of the features and the MIL models that a TOML file "
        "names, with the same patients in the same folds, and write comparison.md, .csv and "
        ".json. Features that are missing are made. Stopped (Ctrl-C) or killed, the same command "
        "goes on with the next fold. Prints the table; docs/mil.md explains the file.",
        "  histomil compare compare.toml --data DATA -o comparison",
    )
    parser.add_argument("config", metavar="CONFIG.toml", type=Path, help="what to compare")
    parser.add_argument(
        "-o", "--output", metavar="FOLDER", type=Path, required=True, help="folder of the results"
    )
    parser.add_argument(
        "--data",
        metavar="FOLDER",
        type=Path,
        help=f"folder that the paths in CONFIG.toml are relative to; by default {DATA_VARIABLE}, "
        "or else the folder of CONFIG.toml",
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda or mps; cpu by default")
    add_models(parser)


def compare(args: argparse.Namespace) -> int:
    """Compare and write the tables."""
    from napari_histomil.cli import FAILED
    from napari_histomil.training.loop import TrainingCancelled
    from napari_histomil.training.mil import compare as comparing
    from napari_histomil.training.mil.fit import Watched

    comparison = comparing.read_comparison(args.config)
    data = args.data or Path(os.environ.get(DATA_VARIABLE) or args.config.parent)
    try:
        rows = watch(
            lambda cancel: comparing.compare(
                comparison,
                data,
                args.output,
                watched=Watched(device=args.device, cancel=cancel),
                models=args.models,
            ),
            _tell,
        )
    except TrainingCancelled as error:
        say(f"{error} Run the same command again to go on.")
        return FAILED
    warning = comparing.peek_warning(rows)
    if warning:
        say(f"Warning: {warning}")
    print(comparing.as_markdown(comparison, rows), end="")
    return 0


def _tell(now: TrainingProgress) -> None:
    """Say that a fold, or a slide's features, are done."""
    if now.step == now.steps:
        tell(now)
