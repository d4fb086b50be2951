"""The verb ``run``: a model over slides."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_histomil.cli.running import (
    Stop,
    add_run_options,
    over_slides,
    region_spec,
    run_job,
)
from napari_histomil.cli.shared import (
    add_icc,
    add_models,
    add_reader,
    add_slide_mpp,
    add_verb,
    find_model_near,
    open_slide_with,
    positive,
    say,
)
from napari_histomil.errors import RunError

if TYPE_CHECKING:
    from napari_histomil.cli.shared import Subparsers
    from napari_histomil.inference.job import Progress
    from napari_histomil.manifest import ModelManifest
    from napari_histomil.results import RunStore, SegmentationStore

EXAMPLES = """\
  histomil run metastasis-patch-small slide.svs -o out
  histomil run metastasis-patch-small *.svs -o out   one failing, the rest go on
  histomil run ./my-model scan.tif --slide-mpp 0.25 --device cuda -o out
  histomil run ./my-model slide.svs --region 20000,15000,4096,4096 -o out
  histomil run ./my-model slide.svs --region regions.geojson --stride 64 -o out

Cancelled (Ctrl-C) or killed, the same command goes on where it stopped; a run
that is done costs nothing. The path of each run is printed on stdout; see
'histomil export' and 'histomil view', for models that segment
'histomil segmentation'."""


def add_parser(subparsers: Subparsers) -> None:
    """Add the verb of this file."""
    parser = add_verb(
        subparsers,
        "run",
        run_verb,
        "run a model over slides",
        "Run a patch classifier, a model that segments or a chain of them over the tissue of "
        "slides (or another region) and keep what it says as a run: one folder <id>.zarr a slide, "
        "model and settings.",
        EXAMPLES,
    )
    parser.add_argument(
        "model", metavar="MODEL", help="name (see 'histomil models list') or folder"
    )
    parser.add_argument("slides", metavar="SLIDE", type=Path, nargs="+", help="slides to look at")
    parser.add_argument(
        "-o",
        "--out",
        metavar="OUT",
        type=Path,
        help="folder for the results; beside each slide by default",
    )
    add_slide_mpp(parser)
    add_reader(parser)
    add_icc(parser, "only for models that were trained on such; it is another run")
    parser.add_argument(
        "--mpp",
        metavar="MPP",
        type=positive(float),
        help="µm/px to work at, other than the model's: for experiments; here, and below, of a "
        "chain its last model's",
    )
    parser.add_argument(
        "--stride",
        metavar="PX",
        type=positive(int),
        help="distance between tiles in their own pixels: the side of a heatmap cell, or less "
        "than a tile where tiles shall overlap; the model's own by default",
    )
    add_run_options(parser)
    add_models(parser)
    parser.add_argument(
        "--json",
        action="store_true",
        help="one JSON line a slide on stdout instead of the run's path: run, model, tiles, "
        "seconds, tiles_per_second, device",
    )


# --- run --------------------------------------------------------------------------------------


def run_verb(args: argparse.Namespace) -> int:
    """Run a model over slides, one after the other; a failing slide does not stop the rest."""
    model = find_model_near(args.model, args.models, zoo=True)
    return over_slides(args.slides, lambda path, stop: _run_slide(args, model, path, stop))


def _run_slide(args: argparse.Namespace, model: ModelManifest, path: Path, stop: Stop) -> None:
    """Run the model over one slide and print where the run is."""
    from napari_histomil.inference.job import plan_job

    if model.task == "embed":
        raise RunError(
            f"{model.name} is an encoder: it embeds tiles and tells no classes, so there is "
            f"nothing to show. Its features come from 'histomil features', a classifier from a "
            f"training that names it as `encoder` in its table [network]."
        )
    with open_slide_with(path, args.slide_mpp, reader=args.reader, icc=args.icc) as slide:
        info = slide.info
    job = plan_job(
        info,
        model,
        region=region_spec(args.region, info),
        stain=args.stain,
        condition=args.stain_condition,
        mpp=args.mpp,
        stride_px=args.stride,
        reader=args.reader,
        icc=args.icc,
    )
    last = run_job(args, job, path.name, stop)
    if last is None:
        return
    from napari_histomil.results import RunStore, SegmentationStore

    store: RunStore | SegmentationStore
    if model.segments:
        store = SegmentationStore.open(last.store)
        found = _areas(store)
    else:
        store = RunStore.open(last.store)
        found = _hot_area(store)
    device = str(store.sessions[-1]["device"])
    for line in _summary(store, last, device, found):
        say(f"{path.name}: {line}")
    if args.json:
        print(
            json.dumps(
                {
                    "run": str(last.store),
                    "model": model.name,
                    "tiles": last.total,
                    "seconds": round(last.seconds, 3),
                    "tiles_per_second": round(last.tiles_per_second, 3),
                    "device": device,
                }
            ),
            flush=True,
        )
    else:
        print(last.store, flush=True)


def _summary(
    store: RunStore | SegmentationStore, last: Progress, device: str, found: str
) -> Iterator[str]:
    from napari_histomil.results import SegmentationStore

    new = last.total - last.resumed
    if new:
        resumed = f", {last.resumed} were done before" if last.resumed else ""
        yield (
            f"{new} tiles in {last.seconds:.1f} s, {last.tiles_per_second:.0f} tiles/s on "
            f"{device}{resumed}"
        )
    else:
        yield f"all {last.total} tiles were done before"
    if isinstance(store, SegmentationStore) and store.chain is not None:
        yield _spared(store.chain, store.stage_seconds)
    yield found
    if store.skipped:
        yield f"{len(store.skipped)} tiles were skipped because they could not be read"
    yield from (f"note: {text}" for text in store.warnings)


def _spared(chain: Mapping[str, Any], seconds: Mapping[str, float]) -> str:
    """Return what a chain spared, and how long its steps took."""
    fine, all_tiles = chain["fine_tiles"], chain["tiles"]
    took = ", ".join(f"{step} {value:.1f} s" for step, value in seconds.items())
    return (
        f"fine segmenter on {fine:,} of {all_tiles:,} tiles ({100 * fine / all_tiles:.0f} %); "
        f"{took}"
    )


def _hot_area(store: RunStore) -> str:
    """Return how much of what was looked at is likely of the class that is shown first."""
    from napari_histomil.exchange.facts import class_column, default_class
    from napari_histomil.heatmaps import threshold_stats

    name = default_class(store)
    stats = threshold_stats(store.grid, store.scores[:, class_column(store, name)], 0.5)
    return (
        f"{name} at 0.5 or more: {stats.tiles} tiles, {stats.area_mm2:.3g} mm², "
        f"{stats.percent:.1f} % of {stats.looked_at_mm2:.3g} mm² looked at"
    )


def _areas(store: SegmentationStore) -> str:
    """Return the area of each class of a segmentation."""
    from napari_histomil.exchange.labels import Steps, class_areas_mm2

    areas, looked_at = class_areas_mm2(store, Steps())
    found = ", ".join(f"{name} {area:.3g} mm²" for name, area in areas.items())
    return f"{found} of {looked_at:.3g} mm² looked at"
