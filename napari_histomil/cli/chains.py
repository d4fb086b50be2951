"""The verb ``models chain``: several models as one."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from napari_histomil.cli.shared import add_models, add_verb, find_model_near, say

if TYPE_CHECKING:
    from napari_histomil.cli.shared import Subparsers

EXAMPLES = """\
  histomil models chain cascade --detect metastasis-patch-small --class tumor \\
      --segment ./my-unet --threshold 0.2 --margin 100 -o models/cascade
  histomil run models/cascade slide.svs -o out

The models stay where they are: the chain names them, with their sha256. It
finds them as 'histomil run' finds any model, and beside its own folder."""


def add_chain(verbs: Subparsers) -> None:
    """Add the verb."""
    parser = add_verb(
        verbs,
        "chain",
        chain_verb,
        "make several models one, that looks closely only where needed",
        "Write a model that is a chain: a patch classifier looks at all of the tissue, a model "
        "that segments only where that found something. It is run like any other model, and "
        "its result is a segmentation.",
        EXAMPLES,
    )
    parser.add_argument("name", metavar="NAME", help="the chain's name")
    parser.add_argument(
        "--detect", metavar="MODEL", required=True, help="patch classifier that looks first"
    )
    parser.add_argument(
        "--class",
        dest="detect_class",
        metavar="CLASS",
        help="what it looks for; by default the class that it shows first",
    )
    parser.add_argument(
        "--refine",
        metavar="MODEL",
        help="model that refines the heatmap, with the inputs overview and heatmap; none by "
        "default",
    )
    parser.add_argument(
        "--refine-class",
        metavar="CLASS",
        help="what that one looks for; by default the class that it shows first",
    )
    parser.add_argument(
        "--segment", metavar="MODEL", required=True, help="model that segments what was found"
    )
    parser.add_argument(
        "--background",
        metavar="CLASS",
        help="class that the result has where the last model does not look; by default the one "
        "that it names itself (with sigmoid there is none)",
    )
    parser.add_argument(
        "--threshold",
        metavar="P",
        type=_at_least_zero,
        default=0.2,
        help="look closely where the probability is at least P, 0 to 1; 0.2 by default",
    )
    parser.add_argument(
        "--margin",
        metavar="UM",
        type=_at_least_zero,
        default=100.0,
        help="and so many µm around it; 100 by default",
    )
    parser.add_argument(
        "-o",
        "--out",
        metavar="FOLDER",
        type=Path,
        required=True,
        help="the chain's folder; a chain that is there is replaced",
    )
    add_models(parser)


def chain_verb(args: argparse.Namespace) -> int:
    """Write a chain and print where it is."""
    from napari_histomil.manifest import StepModels, write_chain

    refine = args.refine and find_model_near(args.refine, args.models)
    models = StepModels(
        find_model_near(args.detect, args.models),
        refine or None,
        find_model_near(args.segment, args.models),
    )
    chain = write_chain(
        args.out,
        args.name,
        models,
        detect_class=args.detect_class,
        refine_class=args.refine_class,
        background_class=args.background,
        threshold=args.threshold,
        margin_um=args.margin,
    )
    assert chain.chain is not None
    for words in chain.chain.words():
        say(words)
    print(args.out)
    return 0


def _at_least_zero(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of at least 0")
    return value
