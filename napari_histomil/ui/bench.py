"""The viewer measured on napari's own canvas: `bench slides`, parts 3 and 4.

The cycle of one script:

1. The layer of one side is shown, all others are hidden; ours begins with an empty cache.
2. The camera goes to the script's start, and the picture becomes complete.
3. The camera makes each step of the script; stall and completion of each are kept.
4. The next side takes its turn with the very same views.

The sides are our slide; the same pixels as ready numpy arrays of all powers of two, which is the
least that napari needs to show these views; the canvas with nothing shown; at the worst zoom also
tifffile's Zarr store through dask, which is how napari is given slides otherwise.
"""

from __future__ import annotations

import contextlib
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import zarr

from napari_histomil.bench.slides import RawTiles
from napari_histomil.bench.views import (
    ARRAYS,
    DASK,
    EMPTY,
    KEPT,
    ONE_LEVEL,
    OURS,
    PYRAMID,
    WORST,
    WORST_JUMP,
    PaintFigures,
    Script,
    Times,
    ViewerFigures,
    ViewTime,
    anchors,
    region_of,
    scripts,
)
from napari_histomil.errors import RunError
from napari_histomil.geometry import Rect
from napari_histomil.inference.job import plan_job
from napari_histomil.manifest import find_model
from napari_histomil.resources import sidecars
from napari_histomil.slides import overview_store
from napari_histomil.slides.cache import shared_cache
from napari_histomil.slides.memory import machine_memory_bytes
from napari_histomil.slides.pyramid import levels
from napari_histomil.slides.readers import open_slide
from napari_histomil.slides.resample import Uint8Image, mean_of_blocks
from napari_histomil.slides.slide import SlideInfo
from napari_histomil.slides.tiles import TiledSlide
from napari_histomil.tissue import find_tissue
from napari_histomil.ui import jobs
from napari_histomil.ui.bench_canvas import BenchWindow, bench_window
from napari_histomil.ui.camera import fit_rect
from napari_histomil.ui.layers import to_world_um, world_scale
from napari_histomil.ui.painting import painting
from napari_histomil.ui.run_job import RunUpdate, ViewPoint, run_updates
from napari_histomil.ui.session import session

MODEL = "metastasis-patch-small"
ROUNDS = 3
BAND_PX = 1024
JOB_START_S = 90.0
NEAR_GREY = 12.0
"""A picture whose blocks differ by no more than this on average shows the slide as it is."""
BLOCK_PX = 32

IDLE, BUSY = "idle", "while a job runs"

Say = Callable[[str], None]


def measure_viewer(
    path: Path,
    *,
    rounds: int = ROUNDS,
    circumstances: Sequence[str] = (IDLE, BUSY),
    say: Say = lambda text: None,
) -> ViewerFigures:
    """Measure moves of the camera over one slide; see the module.

    Parameters
    ----------
    path
        The slide.
    rounds
        How often everything is measured.
    circumstances
        `IDLE`, `BUSY` or both.
    say
        Told what is going on.

    Raises
    ------
    RunError
        If a picture does not become complete.
    """
    with bench_window() as window:
        return viewer_figures(window, path, rounds, circumstances, say)


def viewer_figures(
    window: BenchWindow, path: Path, rounds: int, circumstances: Sequence[str], say: Say
) -> ViewerFigures:
    """Measure as `measure_viewer` in a window that is open."""
    with contextlib.ExitStack() as shown:
        say("the same pixels as arrays in memory ...")
        opened = session(window.viewer).open_slide(path)
        shown.callback(session(window.viewer).close_slide, opened)
        info = opened.info
        region = region_of(info, machine_memory_bytes() // 4)
        mask = find_tissue(opened.slide)
        arrays = window.viewer.add_image(
            arrays_of(path, region), **_attributes(opened.layer, region, info, ARRAYS)
        )
        arrays.visible = False
        sides: dict[str, Any] = {OURS: opened.layer, ARRAYS: arrays, EMPTY: None}
        figures = ViewerFigures(
            slide=path.name,
            canvas=window.size,
            rounds=rounds,
            region="" if region == info.rect_px0 else _size_words(region),
        )
        try:
            dask_levels = shown.enter_context(_dask_levels(path))
        except (ValueError, tifffile.TiffFileError) as error:
            figures.notes.append(f"{DASK} does not open this slide: {error}")
        else:
            sides[DASK] = window.viewer.add_image(
                dask_levels, **_attributes(opened.layer, info.rect_px0, info, DASK)
            )
            sides[DASK].visible = False
        shown.callback(_remove, window, [arrays, *filter(None, [sides.get(DASK)])])
        fit_rect(window.viewer, info, region)
        fit_zoom = window.viewer.scene.camera.zoom * world_scale(info)[1]
        places = anchors(mask, region, 8 * rounds)
        for when in circumstances:
            with contextlib.ExitStack() as stack:
                if when == BUSY:
                    progress = stack.enter_context(_job(path, window))
                figures.times[when] = _rounds(
                    window, info, sides, places, region, fit_zoom, rounds, when, say
                )
                if when == BUSY:
                    figures.job_tiles = progress()
            places = places[4 * rounds :]
    return figures


def _rounds(
    window: BenchWindow,
    info: SlideInfo,
    sides: dict[str, Any],
    places: Sequence[tuple[float, float]],
    region: Rect,
    fit_zoom: float,
    rounds: int,
    when: str,
    say: Say,
) -> dict[str, dict[str, Times]]:
    taken: dict[str, dict[str, list[list[ViewTime]]]] = {}
    for number in range(rounds):
        say(f"the viewer {when}, round {number + 1} of {rounds} ...")
        for name in _sides_in_turn(sides, number):
            for script in scripts(places[4 * number : 4 * number + 4], region, fit_zoom):
                if (name == DASK and script.name not in (WORST, WORST_JUMP)) or (
                    name == EMPTY and number
                ):
                    continue
                times = _play(window, script, info, sides, name)
                taken.setdefault(script.name, {}).setdefault(name, []).append(times)
    return {
        script: {name: Times.of(times) for name, times in by_side.items()}
        for script, by_side in taken.items()
    }


def _sides_in_turn(sides: dict[str, Any], number: int) -> list[str]:
    """Return the sides' names, each round beginning with another."""
    names = list(sides)
    first = number % len(names)
    return names[first:] + names[:first]


def _play(
    window: BenchWindow, script: Script, info: SlideInfo, sides: dict[str, Any], name: str
) -> list[ViewTime]:
    """Show one side, and time it through one script."""
    for each, layer in sides.items():
        if layer is not None:
            layer.visible = each == name
    if name == OURS and script.cold:
        shared_cache().clear()
    finished = _finished(sides[name])
    window.show(script.start, info, finished)
    return [window.show(view, info, finished) for view in script.views]


def _finished(layer: Any) -> Callable[[], bool]:
    """Return whether a layer shows all there is; others than ours do so with each frame."""
    paints = None if layer is None else painting(layer)
    return (lambda: True) if paints is None else (lambda: paints.complete)


# --- the other sides ----------------------------------------------------------------------------


def arrays_of(path: Path, region: Rect) -> list[Uint8Image]:
    """Read a region into memory, and halve it down to a screen's size.

    Returns
    -------
    list of uint8 [h, w, 3]
        Each half as large as the one before, as the levels that our layer has.
    """
    x0, y0 = int(region.x_px0), int(region.y_px0)
    with open_slide(path) as slide:
        fine = levels(slide)
        whole = region == slide.info.rect_px0
        height = fine[0].shape[0] if whole else int(region.height_px0)
        width = fine[0].shape[1] if whole else int(region.width_px0)
        made = [np.empty((height, width, 3), np.uint8)]
        for top in range(0, height, BAND_PX):
            stop = min(top + BAND_PX, height)
            made[0][top:stop] = np.asarray(fine[0][y0 + top : y0 + stop, x0 : x0 + width])
        shared_cache().clear()
        while len(made) < len(fine) and not any(side % 2 for side in made[-1].shape[:2]):
            finer = made[-1]
            half = np.empty((finer.shape[0] // 2, finer.shape[1] // 2, 3), np.uint8)
            for top in range(0, half.shape[0], BAND_PX):
                half[top : top + BAND_PX] = mean_of_blocks(finer[2 * top : 2 * (top + BAND_PX)], 2)
            made.append(half)
        return made


@contextlib.contextmanager
def _dask_levels(path: Path) -> Iterator[list[Any]]:
    """Give the stored levels as napari is given them by way of tifffile and dask."""
    import dask.array  # napari's own; slow to import

    with contextlib.closing(tifffile.imread(path, aszarr=True)) as store:
        opened = zarr.open(store, mode="r")
        if isinstance(opened, zarr.Array):
            yield [dask.array.from_zarr(opened)]
        else:
            yield [dask.array.from_zarr(opened[key]) for key in sorted(opened, key=int)]


def _remove(window: BenchWindow, added: Sequence[Any]) -> None:
    for layer in added:
        window.viewer.layers.remove(layer)


def _attributes(ours: Any, region: Rect, info: SlideInfo, name: str) -> dict[str, Any]:
    """Return the attributes of a layer whose pixels lie where ours do; no metadata: no slide."""
    corner = to_world_um((region.x_px0, region.y_px0), info)
    return {
        "name": name,
        "rgb": True,
        "multiscale": True,
        "contrast_limits": (0, 255),
        "interpolation2d": str(ours.interpolation2d),
        "scale": tuple(ours.scale),
        "translate": tuple(np.add(ours.translate, corner)),
        "units": ours.units,
        "axis_labels": ours.axis_labels,
    }


# --- a job meanwhile ----------------------------------------------------------------------------


@contextlib.contextmanager
def _job(path: Path, window: BenchWindow) -> Iterator[Callable[[], float]]:
    """Run the shipped model over the slide meanwhile, as the Run dock does it.

    Yields
    ------
    callable
        Tiles a second since the first.
    """
    updates: list[RunUpdate] = []
    problem: list[Exception] = []
    with open_slide(path) as slide:
        job = plan_job(slide.info, find_model(MODEL))
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:

        def generate(cancel: threading.Event) -> Iterator[RunUpdate]:
            return run_updates(
                job, ViewPoint(), cancel, device="auto", batch=None, models=(), out=Path(folder)
            )

        handle = jobs.start(
            generate, on_progress=updates.extend, on_done=lambda _: None, on_error=problem.append
        )
        try:
            for _ in range(int(JOB_START_S / 0.2)):
                if problem or (updates and updates[-1].progress.done):
                    break
                window.rest(0.2)
            if problem:
                raise problem[0]
            if not updates or not updates[-1].progress.done:
                raise RunError(f"The job in the background did not begin in {JOB_START_S:.0f} s.")
            first = updates[-1].progress

            def rate() -> float:
                last = updates[-1].progress
                return (last.done - first.done) / max(last.seconds - first.seconds, 1e-3)

            yield rate
            if not handle.running:
                raise RunError("The job ended before the measurement: take a larger slide.")
        finally:
            handle.cancel()
            while handle.running:
                window.rest(0.1)


# --- how soon a slide is seen -------------------------------------------------------------------


def measure_first_paint(
    pyramid: Path, one_level: Path | None, *, rounds: int = ROUNDS, say: Say = lambda text: None
) -> PaintFigures:
    """Measure how soon slides are seen that were not open before.

    Parameters
    ----------
    pyramid
        A slide with coarser levels.
    one_level
        A slide without; what is kept beside it of its overview is made anew. None to leave out.
    rounds
        How often; the best counts.
    say
        Told what is going on.
    """
    with bench_window() as window:
        return paint_figures(window, pyramid, one_level, rounds, say)


def paint_figures(
    window: BenchWindow, pyramid: Path, one_level: Path | None, rounds: int, say: Say
) -> PaintFigures:
    """Measure as `measure_first_paint` in a window that is open."""
    first: dict[str, float] = {}
    overview: dict[str, float] = {}
    scaled: list[float] = []
    cases = {PYRAMID: pyramid}
    if one_level is not None:
        cases |= {ONE_LEVEL: one_level, KEPT: one_level}
    for number in range(rounds):
        say(f"first pictures, round {number + 1} of {rounds} ...")
        for case, path in cases.items():
            if case == ONE_LEVEL:
                _forget_overview(path)
            painted, complete = _first_paint(window, path)
            first[case] = min(first.get(case, painted), painted)
            overview[case] = min(overview.get(case, complete), complete)
        if one_level is not None:
            scaled += _scaled(one_level)
    return PaintFigures(first, overview, min(scaled) if scaled else None)


def _first_paint(window: BenchWindow, path: Path) -> tuple[float, float]:
    """Open a slide; return the seconds to its first picture, and to its complete overview."""
    shared_cache().clear()
    frames: list[tuple[float, Uint8Image]] = []
    opened: list[Any] = []
    done: list[float] = []
    seen = session(window.viewer)
    start = time.perf_counter()
    grabbing = 0.0

    def look() -> None:
        nonlocal grabbing
        shown = window.last_frame - start - grabbing
        before = time.perf_counter()
        if not done:
            frames.append((shown, _blocks(window.picture())))
        grabbing += time.perf_counter() - before

    def finished() -> bool:
        paints = painting(opened[0].layer) if opened else None
        if paints is None or not paints.pyramid.overview.complete or not paints.complete:
            return False
        if not done:
            done.append(time.perf_counter() - start - grabbing)
        return True

    window.time(lambda: opened.append(seen.open_slide(path)), finished, on_frame=look)
    window.rest(0.3)  # what is kept beside the slide is written
    final = _blocks(window.picture())
    seen.close_slide(opened[0])
    window.rest(0.3)
    near = [
        at
        for at, picture in frames
        if picture.shape == final.shape and np.abs(picture - final).mean() <= NEAR_GREY
    ]
    return (near[0] if near else done[0]), done[0]


def _blocks(picture: Uint8Image) -> Any:
    """Return means of blocks: what one sees of a picture at a glance."""
    rows, columns = (side // BLOCK_PX for side in picture.shape[:2])
    cut = picture[: rows * BLOCK_PX, : columns * BLOCK_PX]
    return cut.reshape(rows, BLOCK_PX, columns, BLOCK_PX, 3).mean((1, 3))


def _forget_overview(path: Path) -> None:
    with open_slide(path) as slide:
        info = slide.info
    for folder in sidecars(path, info.fingerprint):
        (folder / overview_store.NAME).unlink(missing_ok=True)


def _scaled(path: Path) -> list[float]:
    """Return the seconds that decoding all tiles at 1/8 takes with nothing around."""
    with open_slide(path) as slide:
        raw = RawTiles.of(path, slide) if isinstance(slide, TiledSlide) else None
    if raw is None:
        return []
    with raw:
        return [raw.sweep(2, scaled=True).seconds]


def _size_words(region: Rect) -> str:
    return (
        f"{region.width_px0:.0f} x {region.height_px0:.0f} px in its middle, for as much as "
        f"arrays may take of this machine's memory"
    )
