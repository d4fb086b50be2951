"""The verbs ``gallery`` and ``drift``: tiles worth a look; slides unlike those a model knows."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

from napari_histomil.cli.shared import add_verb, new_file, positive, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_histomil.cli.shared import Subparsers
    from napari_histomil.review.gallery import Patch

GALLERY_EXAMPLES = """\
  histomil gallery slide.svs.histomil/runs/*.zarr -o hottest.csv
  histomil gallery */runs/0123456789abcdef.zarr --list "false negatives" --annotated \\
      -o missed.csv --sheet missed.png
  histomil gallery RUN.zarr --list random --seed 3 --count 200 --per-slide 20 -o drawn.csv"""

DRIFT_EXAMPLES = """\
  histomil drift trained/*.svs --make reference.json
  histomil drift new/*.svs --reference reference.json"""

SHOWN = 10
"""Patches of which a line is printed."""

SHEET_MOST = 200


def add_parser(subparsers: Subparsers) -> None:
    """Add the verbs of this file."""
    parser = add_verb(
        subparsers,
        "gallery",
        gallery,
        "tiles of stored runs that are worth a look, as a table and a sheet of pictures",
        "List false positives and negatives, the most uncertain, the most confidently wrong, the "
        "highest and the lowest, or tiles drawn at random, over one or many runs, a run a slide. "
        "Neighbours and tiles that look alike are listed once.",
        GALLERY_EXAMPLES,
    )
    parser.add_argument(
        "runs", metavar="RUN", type=Path, nargs="+", help="folder of a run, <id>.zarr"
    )
    parser.add_argument(
        "--list",
        default="highest",
        metavar="WHICH",
        help="false positives, false negatives, confidently wrong, most uncertain, highest, "
        "lowest or random; highest by default",
    )
    parser.add_argument("--class", dest="class_name", metavar="NAME", help="class of the scores")
    parser.add_argument(
        "--annotated",
        action="store_true",
        help="take the slides' annotations for the truth, inside Region*",
    )
    parser.add_argument(
        "--fully-annotated",
        action="store_true",
        help="as --annotated; all of each slide was annotated",
    )
    parser.add_argument(
        "--threshold", type=float, default=0.5, help="a score from it on is positive; 0.5"
    )
    parser.add_argument(
        "--count", type=positive(int), default=100, help="patches at most, 100 by default"
    )
    parser.add_argument(
        "--per-slide", type=positive(int), default=10, help="of one slide at most, 10 by default"
    )
    parser.add_argument("--each-tile", action="store_true", help="list neighbours one by one, too")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn at random")
    parser.add_argument("-o", "--output", metavar="FILE.csv", type=Path, help="write the list")
    parser.add_argument("--sheet", metavar="FILE.png", type=Path, help="write the pictures")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.add_argument("--force", action="store_true", help="write over files that exist")
    _add_drift(subparsers)


def _add_drift(subparsers: Subparsers) -> None:
    parser = add_verb(
        subparsers,
        "drift",
        drift,
        "whether slides look like those that a model knows",
        "Measure stain, brightness and focus of the tissue of slides, and the mean of their "
        "features where some are stored, and hold them against a reference; or make the "
        "reference.",
        DRIFT_EXAMPLES,
    )
    parser.add_argument("slides", metavar="SLIDE", type=Path, nargs="+", help="a slide")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "--reference", metavar="FILE.json", type=Path, help="what the slides are held against"
    )
    which.add_argument(
        "--make",
        metavar="FILE.json",
        type=Path,
        help="take these slides for usual; three at least",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.add_argument("--force", action="store_true", help="write over a file that exists")


def gallery(args: argparse.Namespace) -> int:
    """List tiles of runs."""
    from napari_histomil.review.gallery import Choice, select, write_patches
    from napari_histomil.review.sources import gather

    choice = Choice(
        args.list,
        count=args.count,
        a_slide=args.per_slide,
        threshold=args.threshold,
        group=not args.each_tile,
        seed=args.seed,
    )
    for path in (args.output, args.sheet):
        if path is not None:
            new_file(path, force=args.force)
    annotated = args.annotated or args.fully_annotated
    tiles = list(
        gather(
            args.runs,
            args.class_name,
            annotated=annotated,
            fully_annotated=args.fully_annotated,
        )
    )
    patches = select(tiles, choice)
    if args.output is not None:
        write_patches(patches, args.output, None)
    if args.sheet is not None:
        _write_sheet(args.sheet, patches, [f"{tiles[0].what}, {tiles[0].model}: {choice.kind}"])
    if args.json:
        print(json.dumps([_as_json(patch) for patch in patches]))
        return 0
    number = sum(len(each) for each in tiles)
    print(f"{len(patches)} {choice.kind} of {number:,} tiles of {len(tiles)} slides")
    for patch in patches[:SHOWN]:
        x, y = patch.xy_px0
        print(f"{patch.slide.name}  x {x:.0f}  y {y:.0f}  {patch.why}")
    if len(patches) > SHOWN:
        print(f"and {len(patches) - SHOWN} more")
    return 0


def _as_json(patch: Patch) -> dict[str, object]:
    numbers = {"score": patch.score, "truth": patch.truth}
    return {
        "slide": str(patch.slide),
        "xy_px0": patch.xy_px0,
        "size_px0": patch.size_px0,
        **{name: _number(value) for name, value in numbers.items()},
        "why": patch.why,
        "alike": len(patch.alike),
    }


def _number(value: float) -> float | None:
    """Return a number as JSON has it, which knows no NaN."""
    return None if math.isnan(value) else value


def _write_sheet(path: Path, patches: Sequence[Patch], heading: list[str]) -> None:
    from napari_histomil.exchange.contact_sheet import PATCH_PX, SheetPatch, write_contact_sheet
    from napari_histomil.slides.readers import open_slide
    from napari_histomil.slides.slide import read_rect

    chosen = patches[:SHEET_MOST]
    if len(patches) > SHEET_MOST:
        say(f"The sheet holds the first {SHEET_MOST} of them.")
    pictures: dict[int, SheetPatch] = {}
    for slide_path in dict.fromkeys(patch.slide for patch in chosen):
        with open_slide(slide_path) as slide:
            for n, patch in enumerate(chosen):
                if patch.slide == slide_path:
                    size = (PATCH_PX, PATCH_PX)
                    pixels = read_rect(slide, patch.xy_px0, patch.size_px0, size)
                    x, y = patch.xy_px0
                    lines = (
                        f"{n + 1}   {patch.score:.3g}",
                        patch.slide.name,
                        f"x {x:.0f}, y {y:.0f} px",
                    )
                    pictures[n] = SheetPatch(pixels, lines)
    write_contact_sheet(path, [pictures[n] for n in range(len(chosen))], heading)


def drift(args: argparse.Namespace) -> int:
    """Hold slides against a reference, or make one."""
    from napari_histomil.review.drift import (
        drift_of,
        read_reference,
        reference_of,
        verdict_of,
        write_reference,
    )
    from napari_histomil.review.sources import look_at

    reference = None if args.reference is None else read_reference(args.reference)
    if args.make is not None:
        new_file(args.make, force=args.force)
    looks = []
    for path in args.slides:
        say(f"{path.name} ...")
        looks.append(look_at(path))
    if reference is None:
        write_reference(reference_of(looks), args.make)
        print(f"{len(looks)} slides are the reference in {args.make}")
        return 0
    found = [(look, drift_of(look, reference)) for look in looks]
    if args.json:
        document = [
            {
                "slide": look.slide,
                "verdict": verdict_of(look, drifts),
                "numbers": [
                    {
                        "name": each.name,
                        "value": _number(each.value),
                        "usual": _number(each.usual),
                        "verdict": each.verdict,
                    }
                    for each in drifts
                ],
            }
            for look, drifts in found
        ]
        print(json.dumps(document))
        return 0
    for look, drifts in found:
        print(verdict_of(look, drifts))
    return 0
