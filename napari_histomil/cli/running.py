"""What verbs that run models over slides share: where to look, going on after errors, Ctrl-C."""

from __future__ import annotations

import argparse
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from napari_histomil.cli.shared import positive, say
from napari_histomil.errors import HistomilError, RunError

if TYPE_CHECKING:
    from napari_histomil.inference.job import Job, Progress, RegionSpec
    from napari_histomil.slides.slide import SlideInfo

STAINS = ("none", "macenko", "reinhard")
CONDITIONS = ("intensity low", "intensity high", "hue near", "hue far")


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of all verbs that run a model: where to look, and on what to compute."""
    parser.add_argument(
        "--region",
        metavar="WHERE",
        type=region,
        default="tissue",
        help="tissue (the default), all, a rectangle x,y,width,height in pixels of the full "
        "resolution (--region=-9,0,99,99 where x is below 0), or a GeoJSON file: its areas, "
        "without those of class Ignore*",
    )
    parser.add_argument(
        "--stain",
        choices=STAINS,
        help="stain normalisation, fitted once on each slide's tissue; the model's own by default",
    )
    parser.add_argument(
        "--stain-condition",
        choices=CONDITIONS,
        help="as if the slide had been stained otherwise: weaker, stronger, with the colours of "
        "hematoxylin and eosin nearer to each other or farther apart; compare the runs with "
        "'histomil stain-change'",
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


Where = str | tuple[float, float, float, float] | Path


def region(text: str) -> Where:
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


def region_spec(where: Where, info: SlideInfo) -> RegionSpec:
    """Return what ``--region`` says as a region of this slide.

    Raises
    ------
    RunError
        If the file holds no area.
    """
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
class Stop:
    """What Ctrl-C does: interrupt at once, or, when blocks are being written, cancel the run."""

    gently: bool = False
    cancel: threading.Event = field(default_factory=threading.Event)


@contextmanager
def cancelled_by_ctrl_c() -> Iterator[Stop]:
    """Let the first Ctrl-C cancel while a run goes gently; others interrupt as usual.

    Before that, while torch and the model are loaded, nobody would look at the event for seconds.
    """
    stop = Stop()

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


def over_slides(slides: Sequence[Path], work: Callable[[Path, Stop], None]) -> int:
    """Do `work` on slides, one after the other; a failing one does not stop the rest.

    Returns
    -------
    int
        The exit code.
    """
    from napari_histomil.cli import FAILED, OK, USAGE, exit_code

    failed: list[str] = []
    codes: list[int] = []
    with cancelled_by_ctrl_c() as stop:
        for path in slides:
            try:
                work(path, stop)
                codes.append(OK)
            except HistomilError as error:
                say(f"histomil: {error}")
                failed.append(path.name)
                codes.append(exit_code(error))
            if stop.cancel.is_set():
                say("Cancelled: run the same command again to go on.")
                return FAILED
    if failed and len(slides) > 1:
        say(f"{len(failed)} of {len(slides)} slides failed: {', '.join(failed)}.")
    if all(code == USAGE for code in codes):
        return USAGE
    return FAILED if failed else OK


def run_job(args: argparse.Namespace, job: Job, name: str, stop: Stop) -> Progress | None:
    """Run a job as the options of `add_run_options` say, with a progress bar.

    Returns
    -------
    Progress or None
        The last one, of a run that is done; None where it was cancelled.
    """
    from napari_histomil.inference.engine import run  # torch: seconds, so after what can fail

    last: Progress | None = None
    with progress_bar(name) as show:
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
    return None if stop.cancel.is_set() else last


@contextmanager
def progress_bar(name: str) -> Iterator[Callable[[Progress], None]]:
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
            left, stage = progress.seconds_left, progress.stage
            speed = f"{progress.tiles_per_second:.0f} tiles/s"
            if left is not None:
                speed += f", {duration(left)} left"
            words = f"{name}: {stage}" if stage else name
            done, total = progress.done, progress.total
            bar.update(task, description=words, completed=done, total=total, speed=speed)

        yield show


def duration(seconds: float) -> str:
    """Return a time as ``m:ss`` or ``h:mm:ss``."""
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
