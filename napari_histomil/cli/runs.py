"""The verb ``run``: a model over slides."""

from __future__ import annotations

import argparse
import json
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

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
from napari_histomil.errors import HistomilError, RunError

if TYPE_CHECKING:
    from napari_histomil.cli.shared import Subparsers
    from napari_histomil.inference.job import Progress, RegionSpec
    from napari_histomil.manifest import ModelManifest
    from napari_histomil.results import RunStore, SegmentationStore
    from napari_histomil.slides.slide import SlideInfo

STAINS = ("none", "macenko", "reinhard")

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
        "--region",
        metavar="WHERE",
        type=_region,
        default="tissue",
        help="tissue (the default), all, a rectangle x,y,width,height in pixels of the full "
        "resolution (--region=-9,0,99,99 where x is below 0), or a GeoJSON file: its areas, "
        "without those of class Ignore*",
    )
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
    parser.add_argument(
        "--stain",
        choices=STAINS,
        help="stain normalisation, fitted once on each slide's tissue; the model's own by default",
    )
    parser.add_argument(
        "--device",
        metavar="DEVICE",
        default="auto",
        help="auto (the default), cuda, cuda:1, mps or cpu",
    )
    parser.add_argument(
        "--batch",
        metavar="N",
        type=positive(int),
        help="tiles predicted at once; found by itself by default",
    )
    parser.add_argument(
        "--skip-errors",
        action="store_true",
        help="leave tiles out that cannot be read, and list them in the run, instead of stopping",
    )
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
    from napari_histomil.cli import FAILED, OK, USAGE, exit_code

    model = find_model_near(args.model, args.models, zoo=True)
    failed: list[str] = []
    codes: list[int] = []
    with _cancelled_by_ctrl_c() as stop:
        for path in args.slides:
            try:
                _run_slide(args, model, path, stop)
                codes.append(OK)
            except HistomilError as error:
                say(f"histomil: {error}")
                failed.append(path.name)
                codes.append(exit_code(error))
            if stop.cancel.is_set():
                say("Cancelled: run the same command again to go on.")
                return FAILED
    if failed and len(args.slides) > 1:
        say(f"{len(failed)} of {len(args.slides)} slides failed: {', '.join(failed)}.")
    if all(code == USAGE for code in codes):
        return USAGE
    return FAILED if failed else OK


def _run_slide(args: argparse.Namespace, model: ModelManifest, path: Path, stop: _Stop) -> None:
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
        region=_region_spec(args.region, info),
        stain=args.stain,
        mpp=args.mpp,
        stride_px=args.stride,
        reader=args.reader,
        icc=args.icc,
    )
    from napari_histomil.inference.engine import run  # torch: seconds, so after what can fail
    from napari_histomil.results import RunStore, SegmentationStore

    last: Progress | None = None
    with _progress_bar(path.name) as show:
        for progress in run(
            job,
            out=args.out,
            device=args.device,
            cancel=stop.cancel,
            batch=args.batch,
            models=args.models,
            on_error="skip" if args.skip_errors else "raise",
        ):
            show(progress)
            last = progress
            stop.gently = progress.done > progress.resumed
    stop.gently = False
    if last is None or stop.cancel.is_set():
        return
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


def _region(text: str) -> str | tuple[float, float, float, float] | Path:
    """Read ``tissue``, ``all``, ``x,y,width,height`` or the path of a file."""
    if text in ("tissue", "all"):
        return text
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        if Path(text).is_file():
            return Path(text)
        raise argparse.ArgumentTypeError(
            f"'{text}' is neither tissue, all, four numbers x,y,width,height nor a file"
        ) from None
    if (
        len(numbers) != 4
        or not all(abs(n) < float("inf") for n in numbers)
        or min(numbers[2:]) <= 0
    ):
        raise argparse.ArgumentTypeError(
            f"'{text}' is no rectangle: it needs x,y,width,height, the last two above 0"
        )
    return numbers[0], numbers[1], numbers[2], numbers[3]


def _region_spec(
    where: str | tuple[float, float, float, float] | Path, info: SlideInfo
) -> RegionSpec:
    from napari_histomil.geometry import Rect
    from napari_histomil.inference.job import RegionSpec

    if where == "tissue":
        return RegionSpec("tissue")
    if where == "all":
        return RegionSpec("all")
    if isinstance(where, tuple):
        return RegionSpec("rect", rect_px0=Rect(*where))
    from napari_histomil.annotations.geojson import read_geojson
    from napari_histomil.annotations.model import SlideFrame, areal_polygons

    file = read_geojson(Path(where), frame=SlideFrame.of(info))
    for note in file.notes:
        say(f"{Path(where).name}: {note}")
    polygons = areal_polygons(file.regions)
    if not polygons:
        raise RunError(f"{Path(where).name} holds no area to look at: draw one, or choose tissue.")
    return RegionSpec("polygons", polygons_wkt=tuple(polygon.wkt for polygon in polygons))


@dataclass(slots=True)
class _Stop:
    """What Ctrl-C does: interrupt at once, or, when blocks are being written, cancel the run."""

    gently: bool = False
    cancel: threading.Event = field(default_factory=threading.Event)


@contextmanager
def _cancelled_by_ctrl_c() -> Iterator[_Stop]:
    """Let the first Ctrl-C cancel while a run goes gently; others interrupt as usual.

    Before that, while torch and the model are loaded, nobody would look at the event for seconds.
    """
    stop = _Stop()

    def handle(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, before)
        if not stop.gently:
            raise KeyboardInterrupt
        stop.cancel.set()

    if threading.current_thread() is not threading.main_thread():
        yield stop  # only the main thread may handle signals
        return
    before = signal.signal(signal.SIGINT, handle)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _progress_bar(name: str) -> Iterator[Callable[[Progress], None]]:
    """Give a function that shows progress on stderr, if that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    bar = Bar(
        TextColumn("{task.description}", markup=False),  # names may hold [brackets]
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with bar:
        task = bar.add_task(name, total=None, speed="loading the model")

        def show(progress: Progress) -> None:
            left = progress.seconds_left
            speed = f"{progress.tiles_per_second:.0f} tiles/s"
            if left is not None:
                speed += f", {_duration(left)} left"
            bar.update(task, completed=progress.done, total=progress.total, speed=speed)

        yield show


def _duration(seconds: float) -> str:
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
