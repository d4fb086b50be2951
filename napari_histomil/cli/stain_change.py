"""The verb ``stain-change``: how a model's answers depend on how a slide was stained."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from napari_histomil.cli.shared import add_verb, new_file

if TYPE_CHECKING:
    from napari_histomil.cli.shared import Subparsers

EXAMPLES = """\
  histomil run metastasis-patch-small slide.svs -o out
  histomil run metastasis-patch-small slide.svs -o out --stain-condition "hue near"
  histomil run metastasis-patch-small slide.svs -o out --stain-condition "hue far"
  histomil stain-change out/slide.svs.histomil/runs/*.zarr

Runs of the same slide, model, tiles and region are compared, the one without
a condition first."""


def add_parser(subparsers: Subparsers) -> None:
    """Add the verb of this file."""
    parser = add_verb(
        subparsers,
        "stain-change",
        stain_change,
        "compare runs of a slide under stain conditions",
        "Print what a patch classifier says of a slide as it is and as if it had been stained "
        "otherwise: the slide's answer and its range, tiles that are called otherwise, and how "
        "far tiles' answers move.",
        EXAMPLES,
    )
    parser.add_argument(
        "runs", metavar="RUN", type=Path, nargs="+", help="runs of one slide, folders <id>.zarr"
    )
    parser.add_argument("--class", dest="answer", default="", help="by default the positive class")
    parser.add_argument("--threshold", type=float, default=0.5, help="0.5 by default")
    parser.add_argument(
        "--rule", default="top10%", help="how tiles become the slide's answer, top10%% by default"
    )
    parser.add_argument("--json", metavar="OUT.json", type=Path, help="write the figures there")
    parser.add_argument("--force", action="store_true", help="write over a file that exists")


def stain_change(args: argparse.Namespace) -> int:
    """Compare runs under stain conditions."""
    from napari_histomil.files import whole_file
    from napari_histomil.results import RunStore
    from napari_histomil.review.slide_answers import read_rule
    from napari_histomil.review.stain_change import compare_stains, condition_of

    if args.json is not None:
        new_file(args.json, force=args.force)
    runs = {condition_of(run): run for run in map(RunStore.open, args.runs)}
    first = next(iter(runs.values()))
    answer = args.answer or str(first.model.get("positive_class") or first.class_names[-1])
    found = compare_stains(runs, answer, rule=read_rule(args.rule), threshold=args.threshold)
    print(f"{first.model['name']}, {answer}, slide answered by {found.rule}")
    print(f"{'':16}  slide   mean   tiles  to pos.  to neg.  difference")
    for each in found.conditions:
        print(
            f"{each.condition:16}  {each.answer:.3f}  {each.mean:.3f}  {each.called:6,}  "
            f"{each.to_positive:7,}  {each.to_negative:7,}  {each.difference:10.3f}"
        )
    low, high = found.answers
    print(
        f"the slide's answer lies between {low:.3f} and {high:.3f}; {found.unstable:,} tiles are "
        f"called otherwise under some condition"
    )
    if args.json is not None:
        with whole_file(args.json) as part:
            part.write_text(json.dumps(found.document(), indent=2) + "\n", encoding="utf-8")
    return 0
