"""The threshold slider measured in a window: map, matrix and scores of 100,000 tiles together.

Each change is followed by what the window then has to draw, so that the figure is what a person
sees move.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import napari
import numpy as np
from qtpy.QtWidgets import QApplication
from shapely.geometry import Point, box

from napari_histomil.annotations.geojson import write_geojson
from napari_histomil.annotations.model import Region, SlideFrame, class_named
from napari_histomil.bench.figures import AT_LEAST, Figure
from napari_histomil.errors import RunError
from napari_histomil.manifest import ClassSpec
from napari_histomil.results import RunStore
from napari_histomil.slides.readers import open_slide
from napari_histomil.slides.slide import SlideInfo
from napari_histomil.tiling import GridSpec, TileGrid
from napari_histomil.ui.overlays import overlays
from napari_histomil.ui.session import session
from napari_histomil.ui.widgets.truth import AgainstTruth

TILES = 100_000
LEAST_PER_SECOND = 20.0
CHANGES = 60
TIMEOUT_S = 60.0


def measure_slider(
    path: Path, *, rounds: int = 3, say: Callable[[str], None] = print
) -> list[Figure]:
    """Measure how often a second the threshold can change over 100,000 tiles.

    Parameters
    ----------
    path
        A slide of a gigapixel.
    rounds
        The best of so many counts.
    say
        Told what goes on.

    Raises
    ------
    RunError
        If the run is not scored in time.
    """
    with tempfile.TemporaryDirectory() as folder, open_slide(path) as slide:
        info = slide.info
        store = _run(Path(folder), info)
        truth = _truth(Path(folder), info)
        say(f"a threshold over {len(store.grid):,} tiles of {path.name} ...")
        viewer = napari.Viewer(show=True)
        try:
            viewer.window._qt_window.resize(1280, 800)
            fold = AgainstTruth(viewer)
            viewer.window.add_dock_widget(fold, name="Against the truth", area="right")
            session(viewer).open_slide(path)
            overlays(viewer).add(store)
            fold.use("annotations", truth)
            _until(lambda: fold.outcome is not None)
            _turn(2.0)
            best = max(_changes(fold) for _ in range(rounds))
        finally:
            viewer.close()
    name = f"threshold over {len(store.grid):,} tiles, map, matrix and scores"
    return [Figure(name, best, AT_LEAST, LEAST_PER_SECOND, "changes/s")]


def _changes(fold: AgainstTruth) -> float:
    slider = fold.threshold.slider
    start = time.perf_counter()
    for n in range(CHANGES):
        slider.setValue(200 + (n * 37) % 600)
        QApplication.processEvents()
    return CHANGES / (time.perf_counter() - start)


def _run(folder: Path, info: SlideInfo) -> RunStore:
    """Store a run of so many tiles over a slide, with scores that a lesion raises."""
    side_um = (info.width_px0 * info.mpp * info.height_px0 * info.mpp / TILES) ** 0.5
    grid = TileGrid.cover(info, GridSpec(side_um / 16, 16, 16))
    grid = grid.select(np.arange(len(grid)) < TILES)
    x, y = (grid.cell_rects_px0[:, :2] / (info.width_px0, info.height_px0)).T
    near = np.exp(-(((x - 0.5) ** 2 + (y - 0.5) ** 2) / 0.02))
    score = np.clip(near + np.random.default_rng(0).normal(0, 0.15, len(grid)), 0, 1)
    facts = {
        "name": info.path.name,
        "path": str(info.path),
        "fingerprint": info.fingerprint,
        "width_px0": info.width_px0,
        "height_px0": info.height_px0,
        "mpp_xy": list(info.mpp_xy),
        "bounds_px0": None,
    }
    classes = (ClassSpec("normal", (90, 90, 180)), ClassSpec("tumor", (200, 0, 0)))
    with RunStore.create(
        folder / "bench.zarr",
        run_id="bench",
        job={},
        slide=facts,
        model={"name": "bench", "positive_class": "tumor"},
        classes=classes,
        grid=grid,
    ) as store:
        values = np.column_stack([1 - score, score]).astype(np.float32)
        store.write_blocks({n: values[tiles] for n, tiles in enumerate(grid.blocks())})
    return RunStore.open(folder / "bench.zarr")


def _truth(folder: Path, info: SlideInfo) -> Path:
    width, height = info.width_px0, info.height_px0
    path = folder / "truth.geojson"
    lesion = Point(width / 2, height / 2).buffer(min(width, height) / 8)
    regions = [
        Region(box(0, 0, width, height), class_named("Region*")),
        Region(lesion, class_named("Tumor")),
    ]
    write_geojson(path, regions, frame=SlideFrame.of(info))
    return path


def _until(what: Callable[[], bool]) -> None:
    end = time.perf_counter() + TIMEOUT_S
    while not what():
        if time.perf_counter() > end:
            raise RunError("The run was not scored in time.")
        _turn(0.05)


def _turn(seconds: float) -> None:
    """Let the window work for a while."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        QApplication.processEvents()
        time.sleep(0.002)
