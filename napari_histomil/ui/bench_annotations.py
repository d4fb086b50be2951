"""Annotating measured on napari's own canvas with as many regions as a slide has cells.

The cycle:

1. A slide is made and looked at; then 100,000 cells are drawn on it by a file that QuPath could
   have written.
2. It is opened again: how long until the regions are read, and until they are seen.
3. The view is panned at several zooms, with the regions and with nothing at all shown; the longest
   silence of the window in each step is its stall.
4. All regions get another class, which is undone.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import shapely

from napari_histomil.annotations import commands
from napari_histomil.annotations.geojson import write_geojson
from napari_histomil.annotations.model import STANDARD_CLASSES, Region, SlideFrame
from napari_histomil.annotations.recovery import FILE_NAME
from napari_histomil.bench.figures import AT_MOST, Figure, Spread, ratio
from napari_histomil.bench.test_slide import tissue_texture, write_slide
from napari_histomil.bench.views import View
from napari_histomil.errors import RunError
from napari_histomil.resources import sidecar
from napari_histomil.slides.slide import SlideInfo
from napari_histomil.ui.annotator import annotator
from napari_histomil.ui.bench_canvas import BenchWindow, bench_window
from napari_histomil.ui.camera import set_magnification
from napari_histomil.ui.drawing.canvas import attach_drawing
from napari_histomil.ui.painting import painting
from napari_histomil.ui.region_layers import region_layers
from napari_histomil.ui.session import SlideSession, session

CELLS = 100_000
VERTICES = 20
SIZE = 14_400, 11_200
"""(width, height) of the slide in pixels."""

PAN_STEPS, PAN_PX = 16, 100

POWERS = (2.5, 10.0, 40.0)
"""Magnifications at which the view is panned."""

PAN_LIMIT, OPEN_LIMIT_S, UNDO_LIMIT_S = 2.0, 5.0, 0.5

SEED = 4


def measure_annotations(
    *,
    cells: int = CELLS,
    rounds: int = 2,
    size: tuple[int, int] = SIZE,
    say: Callable[[str], None] = lambda _: None,
) -> list[Figure]:
    """Measure the window with many regions.

    Parameters
    ----------
    cells
        How many regions the slide has.
    rounds
        The pans are repeated so often; the best of each figure counts, for both sides.
    size
        (width, height) of the slide in pixels.
    say
        Told what goes on.

    Returns
    -------
    list of Figure

    Raises
    ------
    RunError
        If the regions are not read, or a picture does not become complete.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cells.svs"
        say(f"a slide with {cells:,} cells ...")
        write_slide(path, tissue_texture(), size)
        return _measure(path, cells, rounds, say)


def _write_cells(info: SlideInfo, count: int) -> None:
    """Write regions in the shapes of cells to the slide's sidecar."""
    rng = np.random.default_rng(SEED)
    angles = np.linspace(0, 2 * math.pi, VERTICES, endpoint=False)
    radius = rng.uniform(6, 14, (count, 1)) * rng.uniform(0.8, 1.2, (count, VERTICES))  # px
    middle = rng.uniform(0, 1, (count, 2)) * (info.width_px0, info.height_px0)
    around = np.stack([np.cos(angles) * radius, np.sin(angles) * radius], axis=2)
    shapes = shapely.polygons(np.round(middle[:, None] + around, 2))
    kinds = STANDARD_CLASSES[:3]
    regions = [
        Region(shape, kinds[n % len(kinds)], object_type="detection")
        for n, shape in enumerate(shapes)
    ]
    folder = sidecar(info.path, info.fingerprint)
    folder.mkdir(parents=True, exist_ok=True)
    write_geojson(folder / FILE_NAME, regions, frame=SlideFrame.of(info))


def _measure(path: Path, cells: int, rounds: int, say: Callable[[str], None]) -> list[Figure]:
    with bench_window() as window:
        viewer = window.viewer
        dock = next(iter(viewer.window.dock_widgets.values()))
        attach_drawing(viewer, dock)
        state, layers = annotator(viewer), region_layers(viewer)
        # The first picture of a window takes a second by itself: shaders, fonts.
        first = session(viewer).open_slide(path)
        window.rest(1)
        session(viewer).close_slide(first)
        _write_cells(first.info, cells)
        opened: list[SlideSession] = []
        read: list[float] = []
        painted_then: list[bool] = []
        layers.painted.connect(lambda: painted_then.append(bool(read)))
        began = time.perf_counter()

        def finished() -> bool:
            if not opened or state.regions is None or state.is_reading:
                return False
            if not read:
                read.append(time.perf_counter() - began)
            return any(painted_then) and layers.complete

        took = window.time(lambda: opened.append(session(viewer).open_slide(path)), finished)
        regions, slide = state.regions, opened[0]
        if regions is None or len(regions) != cells:
            raise RunError("The regions of the benchmark's slide were not read.")
        painted = painting(slide.layer)
        assert painted is not None
        painted.wait(30)
        say(f"read in {read[0]:.2f} s, seen after {took.complete:.2f} s")
        figures = [
            Figure(f"opening a slide with {cells:,} regions", read[0], AT_MOST, OPEN_LIMIT_S, "s"),
            Figure("until they are seen", took.complete, AT_MOST, OPEN_LIMIT_S, "s"),
            Figure("longest stall of the window meanwhile", took.stall, unit="s"),
        ]
        for power in POWERS:
            figures.append(_pan_figure(window, slide.info, power, rounds, painted.wait))
            say(f"panned at {power:g}x: {figures[-1].value:.2f} times an empty redraw")
        ids = [region.id for region in regions]
        began = time.perf_counter()
        state.attempt(
            lambda each: commands.set_class(each, ids, STANDARD_CLASSES[3], state.stamp())
        )
        set_s = time.perf_counter() - began
        window.rest(1)
        began = time.perf_counter()
        state.undo()
        undone_s = time.perf_counter() - began
        figures += [
            Figure("class of all", set_s, unit="s", note="until the window is free"),
            Figure("undo of class of all", undone_s, AT_MOST, UNDO_LIMIT_S, "s"),
        ]
        window.rest(0.2)
        state.close()
        return figures


def _pan_figure(
    window: BenchWindow,
    info: SlideInfo,
    power: float,
    rounds: int,
    wait: Callable[[float], bool],
) -> Figure:
    """Pan at a magnification, with the regions shown and with no layer shown."""
    viewer, layers = window.viewer, region_layers(window.viewer)
    set_magnification(viewer, power)
    zoom = viewer.scene.camera.zoom * (info.mpp_x or 1.0)
    step = PAN_PX / zoom
    x0, y0 = info.width_px0 / 2 - PAN_STEPS / 2 * step, info.height_px0 / 2
    views = [View((x0 + n * step, y0), zoom) for n in range(PAN_STEPS + 1)]
    shown, empty = [], []
    for _ in range(rounds):
        for into, visible in ((shown, True), (empty, False)):
            others = [layer for layer in viewer.layers if layer.visible] if not visible else []
            for layer in others:
                layer.visible = False
            window.look(views[0], info)
            if visible:
                wait(30)
            window.rest(0.6)
            stalls = [
                window.show(
                    view, info, lambda visible=visible: not visible or layers.complete
                ).stall
                for view in views[1:]
            ]
            into.append(Spread.of(stalls))
            for layer in others:
                layer.visible = True
    ours, least = Spread.best(shown), Spread.best(empty)
    return Figure(
        f"pan at {power:g}x, stall p95",
        ratio(ours.p95, least.p95),
        AT_MOST,
        PAN_LIMIT,
        note=f"{ours} ms of {least} ms for an empty redraw",
    )
