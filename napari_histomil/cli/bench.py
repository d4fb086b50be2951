"""The verb ``bench``: ``run`` (also plain), ``slides``, ``annotations``, ``mil``, ``review``."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from napari_histomil.cli.shared import (
    add_models,
    add_verb,
    find_model_near,
    positive,
    say,
    window_problem,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from napari_histomil.bench.slides_report import SlidesBenchmark
    from napari_histomil.cli.shared import Subparsers
    from napari_histomil.manifest import ModelManifest

DEFAULT_SLIDE = "synthetic-lymph-node.tiff"
PARTS = ("reading", "viewer", "memory")
RUN_PARTS = ("speed", "memory", "chains")
MEASURED_TASKS = ("classify", "segment", "chain")
CHAIN_TILES = 600
"""Of the last model of a chain, on the large slide: half a minute where it looks at all."""


def add_parser(subparsers: Subparsers) -> None:
    """Add the verb of this file."""
    parser = add_verb(
        subparsers,
        "bench",
        bench_run,
        "how fast the engine, reading and the window are on this machine",
        "Measure this machine, as ratios. Without a subject, or with `run`: the engine. With "
        "`slides`: reading, and moving around in the window. With `annotations`: masks. Leave "
        "the machine alone meanwhile.",
        "  histomil bench\n"
        "  histomil bench --model my-model --slide slide.svs --results RESULTS.md\n"
        "  histomil bench slides",
    )
    _add_run_options(parser)
    subjects = parser.add_subparsers(metavar="SUBJECT", dest="subject")
    run_parser = add_verb(
        subjects,
        "run",
        bench_run,
        "the engine (what plain `bench` measures)",
        "Run every network that came with the program over tissue of a slide of a gigapixel, its "
        "net alone by each backend and its reading alone in turns, and print how near whole runs "
        "come to what the machine can do; the memory that a run takes, and whether it grows with "
        "the slide; what a chain spares against its last model everywhere, with Dice on a slide "
        "whose truth is known. A few minutes. The exit code is 0 even where targets are missed.",
        "  histomil bench run\n  histomil bench run --model my-model --only speed",
    )
    _add_run_options(run_parser)
    _add_slides(subjects)
    _add_annotations(subjects)
    _add_mil(subjects)
    _add_review(subjects)


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        action="append",
        metavar="MODEL",
        help="name or folder, may be given several times; all that came with the program by "
        "default",
    )
    parser.add_argument(
        "--slide", type=Path, metavar="SLIDE", help="a made slide of a gigapixel by default"
    )
    parser.add_argument(
        "--region", choices=("tissue", "all"), default="tissue", help="tissue by default"
    )
    parser.add_argument("--device", default="auto", help="auto, cuda, mps or cpu")
    parser.add_argument(
        "--rounds", type=positive(int), default=3, help="how often to measure, 3 by default"
    )
    parser.add_argument(
        "--seconds",
        type=positive(float),
        default=8.0,
        help="of a network that takes longer for the slide a sample is run; 8 by default",
    )
    parser.add_argument(
        "--only", choices=RUN_PARTS, help="one part: speed of networks; memory; chains"
    )
    _add_results(parser)
    add_models(parser)


def _add_results(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--results", type=Path, metavar="FILE.md", help="add a dated section to this file"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")


def _add_slides(subparsers: Subparsers) -> None:
    parser = add_verb(
        subparsers,
        "slides",
        bench_slides,
        "reading slides, and moving around in the window",
        "Measure sweeps and random reads against raw decoding and other readers, moves of the "
        "camera against the same pixels as arrays in memory, how soon a slide is seen, and "
        "memory; each as a ratio with its target. Without a slide, one of a gigapixel is made of "
        "real texture, twice (with and without a pyramid): 300 MB under your data folder, kept "
        "for the next time. About six minutes, and up to a quarter of the memory. The exit code "
        "is 0 even where targets are missed.",
        "  histomil bench slides\n"
        "  histomil bench slides slide.svs --only reading\n"
        "  histomil bench slides --results RESULTS.md",
    )
    parser.add_argument(
        "slide", type=Path, metavar="SLIDE", nargs="?", help="a slide; one is made by default"
    )
    parser.add_argument(
        "--only",
        choices=PARTS,
        help="one part: reading; viewer (moves of the camera); memory (and first pictures)",
    )
    parser.add_argument(
        "--rounds", type=positive(int), default=3, help="how often to measure, 3 by default"
    )
    parser.add_argument(
        "--folder", type=Path, metavar="FOLDER", help="where the made slides are kept"
    )
    parser.add_argument(
        "--texture", type=Path, metavar="FILE", help="slide whose tissue the made slides show"
    )
    _add_results(parser)


def _add_annotations(subparsers: Subparsers) -> None:
    parser = add_verb(
        subparsers,
        "annotations",
        bench_annotations,
        "masks of whole slides, and the window with 100,000 regions",
        "Open 100,000 regions in the window, pan over them, change and undo the class of all. "
        "Fill 5,000 polygons into the mask of a slide of 100,000 x 80,000 px at 1 µm/px, in turns "
        "with rasterio's own filling of the same bands, and measure the memory it takes to write "
        "the mask. About two minutes.",
        "  histomil bench annotations\n  histomil bench annotations --results RESULTS.md",
    )
    parser.add_argument(
        "--rounds", type=positive(int), default=5, help="how often to measure, 5 by default"
    )
    _add_results(parser)


def _add_mil(subparsers: Subparsers) -> None:
    parser = add_verb(
        subparsers,
        "mil",
        bench_mil,
        "models of whole slides: attention, memory, zooming",
        "Ask gated attention about 100,000 patches, in turns with the matrix products it consists "
        "of, and TransMIL in a process of its own; go from CLAM's features and checkpoint to the "
        "heatmap; run ZoomMIL and gated attention over a slide, from its pixels to the answer. "
        "Nets have random weights. A few minutes.",
        "  histomil bench mil\n  histomil bench mil --encoder my-encoder --slide slide.svs",
    )
    parser.add_argument(
        "--encoder",
        default="metastasis-patch-small",
        metavar="MODEL",
        help="whose features whole runs take; metastasis-patch-small by default",
    )
    parser.add_argument(
        "--slide", type=Path, metavar="SLIDE", help="a made slide of a gigapixel by default"
    )
    parser.add_argument("--device", default="auto", help="auto, cuda, mps or cpu")
    parser.add_argument(
        "--rounds", type=positive(int), default=5, help="how often to measure, 5 by default"
    )
    _add_results(parser)
    add_models(parser)


def _add_review(subparsers: Subparsers) -> None:
    parser = add_verb(
        subparsers,
        "review",
        bench_review,
        "galleries and embeddings of results",
        "Lay 100,000 features out along their principal components; list 1,000 thumbnails of a "
        "slide of a gigapixel, until the first screen is there; redraw an embedding of 100,000 "
        "points in turns with an empty one; move a threshold over 100,000 tiles. A minute or two.",
        "  histomil bench review\n  histomil bench review --slide slide.svs",
    )
    parser.add_argument(
        "--slide", type=Path, metavar="SLIDE", help="a made slide of a gigapixel by default"
    )
    parser.add_argument(
        "--rounds", type=positive(int), default=3, help="how often to measure, 3 by default"
    )
    _add_results(parser)


def bench_run(args: argparse.Namespace) -> int:
    """Measure the engine, print, and write down where that is wanted."""
    from napari_histomil.bench.chains import measure_chain
    from napari_histomil.bench.run import measure_network
    from napari_histomil.bench.run_memory import measure_memory
    from napari_histomil.bench.run_report import RunBenchmark, append_results, as_json, report
    from napari_histomil.inference.job import RegionSpec
    from napari_histomil.resources import packaged
    from napari_histomil.slides.readers import open_slide

    models = _bench_models(args)
    path = args.slide or _gigapixel()
    with open_slide(path) as slide:
        result = RunBenchmark(path.name, (slide.info.width_px0, slide.info.height_px0))
    parts = RUN_PARTS if args.only is None else (args.only,)
    for model in models:
        if model.chain is None and "speed" in parts:
            say(f"{model.name}: end to end, alone, and reading alone, in turns ...")
            result.networks.append(
                measure_network(
                    model,
                    path,
                    device=args.device,
                    region=RegionSpec(args.region),
                    rounds=args.rounds,
                    seconds=args.seconds,
                )
            )
        if model.chain is None and "memory" in parts:
            say(f"{model.name}: memory, in processes of their own ...")
            figures = measure_memory(
                model, path, device=args.device, in_own_process=_in_own_process
            )
            result.memory.append(figures)
        if model.chain is not None and "chains" in parts:
            say(f"{model.name}: against its last model everywhere ...")
            sample = packaged("sample_data") / DEFAULT_SLIDE
            truth = sample.with_suffix(".geojson")
            options = {"device": args.device, "models": args.models}
            result.chains += [
                measure_chain(model, sample, truth=truth, **options),
                measure_chain(model, path, tiles=CHAIN_TILES, **options),
            ]
    print(json.dumps(as_json(result)) if args.json else report(result))
    if args.results is not None:
        words = ["histomil bench run", *(f"--model {name}" for name in args.model or ())]
        words += [f"--slide {path.name}"] if args.slide else []
        words += [f"--only {args.only}"] if args.only else []
        words += [f"--region {args.region} --device {args.device} --rounds {args.rounds}"]
        append_results(args.results, result, " ".join(words))
    return 0


def _bench_models(args: argparse.Namespace) -> list[ModelManifest]:
    """Return the models that the person names, or those that came with the program."""
    from napari_histomil.manifest import load_manifest
    from napari_histomil.manifest.model import is_model
    from napari_histomil.resources import packaged

    if args.model:
        found = [find_model_near(name, args.models) for name in args.model]
    else:
        folders = sorted(each for each in packaged("models").iterdir() if is_model(each))
        found = [load_manifest(folder) for folder in folders]
    return [model for model in found if model.task in MEASURED_TASKS and not model.inputs]


def _gigapixel() -> Path:
    from napari_histomil.bench.test_slide import DISK_MB, bench_folder, made_slides

    folder = bench_folder()
    say(f"The test slide is kept in {folder} ({DISK_MB} MB; made in about half a minute).")
    return made_slides(folder).slide


def bench_slides(args: argparse.Namespace) -> int:
    """Measure reading and the window, print, and write down where that is wanted."""
    from napari_histomil.bench.slides_report import (
        SlidesBenchmark,
        append_results,
        as_json,
        describe_machine,
        report,
    )
    from napari_histomil.bench.test_slide import DISK_MB, bench_folder, made_slides
    from napari_histomil.slides.readers import open_slide

    path, one_level, texture = args.slide, None, ""
    if path is None:
        folder = args.folder or bench_folder()
        say(f"The test slides are kept in {folder} ({DISK_MB} MB; made in about half a minute).")
        made = made_slides(folder, args.texture)
        path, one_level, texture = made.slide, made.one_level, made.texture
    with open_slide(path) as slide:
        size_px0 = slide.info.width_px0, slide.info.height_px0
    result = SlidesBenchmark(path.name, size_px0, texture, args.rounds, describe_machine())
    wanted = PARTS if args.only is None else (args.only,)
    if "reading" in wanted:
        from napari_histomil.bench.slides import measure_reading

        result.reading = measure_reading(path, rounds=args.rounds, say=say)
    if wanted != ("reading",):
        problem = window_problem()
        if problem is None:
            _measure_window(result, path, one_level, wanted)
        else:
            result.left_out = f"The window was not measured: {problem[0].lower()}{problem[1:]}"
            say(result.left_out)
    print(json.dumps(as_json(result)) if args.json else report(result))
    if args.results is not None:
        words = ["histomil bench slides", *([path.name] if args.slide else [])]
        words += ["--only", args.only] if args.only else []
        append_results(args.results, result, " ".join([*words, "--rounds", str(args.rounds)]))
    return 0


def bench_annotations(args: argparse.Namespace) -> int:
    """Measure masks and the window, print, and write down where that is wanted."""
    from napari_histomil.bench.figures import append_section, table, verdict
    from napari_histomil.bench.masks import as_json, measure_masks, report

    masks = measure_masks(rounds=args.rounds, say=say, in_own_process=_in_own_process)
    document: dict[str, Any] = {"masks": as_json(masks)}
    text = report(masks)
    problem = window_problem()
    if problem is None:
        from napari_histomil.ui.bench_annotations import CELLS, measure_annotations

        figures = _in_own_process(measure_annotations, say=say)
        document["window"] = [figure.as_dict() for figure in figures]
        text += (
            f"\n\n- the window with {CELLS:,} regions\n- **{verdict(figures)}**\n\n"
            f"{table(figures)}"
        )
    else:
        text += f"\n\nThe window was not measured: {problem[0].lower()}{problem[1:]}"
    print(json.dumps(document) if args.json else text)
    if args.results is not None:
        command = f"histomil bench annotations --rounds {args.rounds}"
        append_section(args.results, "annotations", command, text)
    return 0


def bench_mil(args: argparse.Namespace) -> int:
    """Measure models of whole slides, print, and write down where that is wanted."""
    from napari_histomil.bench.figures import append_section, table, verdict
    from napari_histomil.bench.mil import measure_mil
    from napari_histomil.inference.devices import describe_device

    path = args.slide or _gigapixel()
    figures = measure_mil(
        find_model_near(args.encoder, args.models),
        path,
        device=args.device,
        models=args.models,
        rounds=args.rounds,
        say=say,
        in_own_process=_in_own_process,
    )
    problem = window_problem()
    if problem is None:
        from napari_histomil.ui.bench_mil import measure_click

        os.environ["HISTOMIL_REOPEN_VIEWS"] = "0"  # a map of before would be there at once
        figures.append(_in_own_process(measure_click, say=say))
    else:
        say(f"The window was not measured: {problem[0].lower()}{problem[1:]}")
    text = (
        f"- {path.name}; device: {describe_device(args.device)}; medians of {args.rounds} rounds\n"
        f"- **{verdict(figures)}**\n\n{table(figures)}"
    )
    print(json.dumps([figure.as_dict() for figure in figures]) if args.json else text)
    if args.results is not None:
        words = ["histomil bench mil", *([f"--slide {path.name}"] if args.slide else [])]
        command = " ".join([*words, f"--encoder {args.encoder} --rounds {args.rounds}"])
        append_section(args.results, "mil", command, text)
    return 0


def bench_review(args: argparse.Namespace) -> int:
    """Measure galleries and embeddings, print, and write down where that is wanted."""
    from napari_histomil.bench.figures import append_section, table, verdict
    from napari_histomil.bench.review import measure_pca

    path = args.slide or _gigapixel()
    figures = [_in_own_process(measure_pca, rounds=args.rounds, say=say)]
    problem = window_problem()
    left_out = ""
    if problem is None:
        from napari_histomil.ui.bench_review import measure_review
        from napari_histomil.ui.bench_truth import measure_slider

        figures += _in_own_process(measure_review, path, rounds=args.rounds, say=say)
        figures += _in_own_process(measure_slider, path, rounds=args.rounds, say=say)
    else:
        left_out = f"\n\nThe window was not measured: {problem[0].lower()}{problem[1:]}"
    text = (
        f"- {path.name}; {args.rounds} rounds\n- **{verdict(figures)}**\n\n"
        f"{table(figures)}{left_out}"
    )
    print(json.dumps([figure.as_dict() for figure in figures]) if args.json else text)
    if args.results is not None:
        words = ["histomil bench review", *([f"--slide {path.name}"] if args.slide else [])]
        command = " ".join([*words, "--rounds", str(args.rounds)])
        append_section(args.results, "review", command, text)
    return 0


def _measure_window(
    result: SlidesBenchmark, path: Path, one_level: Path | None, wanted: tuple[str, ...]
) -> None:
    """Measure the parts that need a window, each in a process of its own."""
    from napari_histomil.bench.views import MemoryFigures
    from napari_histomil.ui import bench, bench_memory

    # What is shown by a script is no view that a person would come back to.
    os.environ["HISTOMIL_REOPEN_VIEWS"] = "0"
    if "memory" in wanted:
        say("memory, by looking around in a process of its own ...")
        window = _in_own_process(bench_memory.window_peak)
        peak, used, again = _in_own_process(bench_memory.slide_peak, path)
        result.memory = MemoryFigures(
            window=window,
            slide=peak,
            budget=bench_memory.BUDGET_BYTES,
            used=used,
            revisited_views=bench_memory.REVISITED,
            decoded_again=again,
        )
        result.painting = _in_own_process(
            bench.measure_first_paint, path, one_level, rounds=result.rounds, say=say
        )
    if "viewer" in wanted:
        result.viewer = _in_own_process(bench.measure_viewer, path, rounds=result.rounds, say=say)


def _in_own_process(measure: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Call a function in a fresh Python: what was measured before leaves no traces there."""
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool

    from napari_histomil.errors import RunError

    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        try:
            return pool.submit(measure, *args, **options).result()
        except BrokenProcessPool as error:
            raise RunError(
                "The process that measures ended before it was done: it may have run "
                "out of memory; close other programs, or take a smaller slide."
            ) from error
