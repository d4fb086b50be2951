"""The verb ``bench``."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from napari_histomil.cli.shared import add_models, add_verb, find_model_near, positive, say

if TYPE_CHECKING:
    from napari_histomil.cli.shared import Subparsers

DEFAULT_MODEL = "metastasis-patch-small"
DEFAULT_SLIDE = "synthetic-lymph-node.tiff"


def add_parser(subparsers: Subparsers) -> None:
    """Add the verb of this file."""
    parser = add_verb(
        subparsers,
        "bench",
        bench,
        "how fast the engine is on this machine",
        "Run a model over a slide several times, its net alone and its reading alone in turns, "
        "and print how near whole runs come to what the machine can do, and random reads beside "
        "those of openslide-python. A minute or two; leave the machine alone meanwhile.",
        "  histomil bench\n"
        "  histomil bench --model my-model --slide slide.svs --results RESULTS.md",
    )
    parser.add_argument(
        "--model", default=DEFAULT_MODEL, help=f"name or folder; {DEFAULT_MODEL} by default"
    )
    parser.add_argument("--slide", type=Path, metavar="SLIDE", help="the sample slide by default")
    parser.add_argument(
        "--region", choices=("tissue", "all"), default="tissue", help="tissue by default"
    )
    parser.add_argument("--device", default="auto", help="auto, cuda, mps or cpu")
    parser.add_argument(
        "--rounds", type=positive(int), default=5, help="how often to measure, 5 by default"
    )
    parser.add_argument(
        "--results", type=Path, metavar="FILE.md", help="add a dated section to this file"
    )
    add_models(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")


def bench(args: argparse.Namespace) -> int:
    """Measure, print, and write down where that is wanted."""
    from napari_histomil.resources import packaged

    model = find_model_near(args.model, args.models)
    slide = args.slide or packaged("sample_data") / DEFAULT_SLIDE
    from napari_histomil.bench.run import append_results, report, run_benchmark
    from napari_histomil.inference.job import RegionSpec

    say("Measuring: this takes a minute or two ...")
    result = run_benchmark(
        model, slide, device=args.device, region=RegionSpec(args.region), rounds=args.rounds
    )
    print(json.dumps(asdict(result)) if args.json else report(result))
    if args.results is not None:
        command = (
            f"histomil bench --model {args.model} --slide {slide.name} --region {args.region} "
            f"--device {args.device} --rounds {args.rounds}"
        )
        append_results(args.results, result, command)
    return 0
