"""The gallery and the embedding measured in a window.

1. A thousand patches all over a slide of a gigapixel are listed: how long until all thumbnails of
   the first screen are there. Nothing of the slide was read before.
2. A hundred thousand points are drawn, in turns with none: how long one redraw takes.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from qtpy.QtCore import QEventLoop, QTimer
from qtpy.QtWidgets import QApplication

from napari_histomil.bench.figures import AT_MOST, Figure, ratio
from napari_histomil.errors import RunError
from napari_histomil.slides.cache import shared_cache
from napari_histomil.slides.readers import open_slide
from napari_histomil.ui.scatter_picture import View
from napari_histomil.ui.widgets.scatter import Scatter
from napari_histomil.ui.widgets.thumbnail_list import Item, ThumbnailList

PATCHES, POINTS = 1_000, 100_000
SCREEN = (1280, 400)
"""Size of both panels, logical pixels."""
CELL_UM = 112.0
FIRST_LIMIT_S, REDRAW_LIMIT = 0.5, 2.0
REDRAWS = 40
TIMEOUT_S = 60.0


def measure_review(
    path: Path, *, rounds: int = 3, say: Callable[[str], None] = print
) -> list[Figure]:
    """Measure the first screen of a gallery, and redraws of an embedding.

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
        If the thumbnails do not come.
    """
    app = QApplication.instance() or QApplication([])
    assert app is not None
    say(f"{PATCHES:,} thumbnails of {path.name} ...")
    items = _items(path)
    seconds, count = [], 0
    for _ in range(rounds):
        shared_cache().clear()
        took, count = _first_screen(items)
        seconds.append(took)
    figures = [
        Figure(
            f"gallery of {PATCHES:,} thumbnails, first screen",
            min(seconds),
            AT_MOST,
            FIRST_LIMIT_S,
            "s",
            f"{count} thumbnails",
        )
    ]
    say(f"{POINTS:,} points, redrawn ...")
    rng = np.random.default_rng(0)
    layout = rng.standard_normal((POINTS, 2), np.float32)
    colours = rng.random((POINTS, 3), np.float32)
    full, none = _scatter(layout, colours), _scatter(layout[:0], colours[:0])
    many, empty = [], []
    for _ in range(REDRAWS):
        many.append(_redraw(full))
        empty.append(_redraw(none))
    moved = []
    view = full.view
    for n in range(REDRAWS):
        full.look(View((view.center[0] + n / 100, view.center[1]), view.scale))
        moved.append(_redraw(full))
    redraw, nothing = statistics.median(many), statistics.median(empty)
    figures += [
        Figure(
            f"embedding of {POINTS:,} points, redraw",
            ratio(redraw, nothing),
            AT_MOST,
            REDRAW_LIMIT,
            note=f"{redraw * 1e3:.2f} ms of {nothing * 1e3:.2f} ms for an empty one",
        ),
        Figure("embedding, a step of a pan", statistics.median(moved) * 1e3, unit="ms"),
    ]
    for widget in (full, none):
        widget.close()
        widget.deleteLater()
    _turn(0.05)
    return figures


def _items(path: Path) -> list[Item]:
    with open_slide(path) as slide:
        info = slide.info
    side = CELL_UM / info.mpp
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 1, (PATCHES, 2)) * (info.width_px0 - side, info.height_px0 - side)
    return [Item(path, (float(x), float(y)), (side, side), "", "") for x, y in corners]


def _first_screen(items: list[Item]) -> tuple[float, int]:
    shown = ThumbnailList()
    shown.resize(*SCREEN)
    shown.show()
    _turn(0.3)
    start = time.perf_counter()
    shown.show_items(items)
    while not (shown.in_view() and shown.is_complete()):
        if time.perf_counter() - start > TIMEOUT_S:
            raise RunError(f"The thumbnails of {items[0].slide.name} were not read in time.")
        _turn(0.005)
    shown.viewport().repaint()
    took, count = time.perf_counter() - start, len(shown.in_view())
    shown.close()
    shown.deleteLater()
    _turn(0.3)
    return took, count


def _scatter(layout: np.ndarray, colours: np.ndarray) -> Scatter:
    shown = Scatter()
    shown.resize(*SCREEN)
    shown.show()
    shown.show_points(layout, colours)
    _turn(0.3)
    return shown


def _redraw(shown: Scatter) -> float:
    start = time.perf_counter()
    shown.repaint()
    return time.perf_counter() - start


def _turn(seconds: float) -> None:
    """Let the window work for a while."""
    loop = QEventLoop()
    QTimer.singleShot(int(seconds * 1000), loop.quit)
    loop.exec()
