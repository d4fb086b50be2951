"""The memory that a slide costs, measured in processes of their own: `bench slides`, part 4.

The peak of a process never falls, so each case has a process: the window alone, and the same with
a slide over which the camera goes until the cache is full and long after.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from napari_histomil.bench.peak import peak_bytes
from napari_histomil.bench.views import View, anchors
from napari_histomil.slides.cache import shared_cache
from napari_histomil.slides.slide import SlideInfo
from napari_histomil.tissue import find_tissue
from napari_histomil.ui.bench_canvas import BenchWindow, bench_window
from napari_histomil.ui.camera import fit_slide
from napari_histomil.ui.painting import painting
from napari_histomil.ui.session import session

BUDGET_BYTES = 256 << 20
"""What the cache is given: little enough to be full after a while of looking around."""

VIEWS = 120
REVISITED = 12
SETTLE_S = 1.0


def window_peak() -> int:
    """Return the peak memory of this process once the window stands, in bytes."""
    with bench_window() as window:
        window.rest(SETTLE_S)
        return peak_bytes()


def slide_peak(path: Path, budget_bytes: int = BUDGET_BYTES) -> tuple[int, int, int]:
    """Return peak memory after looking around in a slide, the cache's bytes, tiles decoded again.

    Parameters
    ----------
    path
        The slide.
    budget_bytes
        What the cache may take.
    """
    with bench_window() as window:
        opened = session(window.viewer).open_slide(path)
        shared_cache().set_budget(budget_bytes)
        mask = find_tissue(opened.slide)
        again = look_around(window, opened, anchors(mask, opened.info.rect_px0, VIEWS))
        used = shared_cache().used_bytes
        return peak_bytes(), used, again


def look_around(window: BenchWindow, opened: Any, places: list[tuple[float, float]]) -> int:
    """Visit places closely and from afar, then some of them again; return tiles decoded again.

    Parameters
    ----------
    window
        The open window.
    opened
        The `SlideSession` that is looked at.
    places
        Middles of views (x, y) in level-0 pixels.
    """
    info: SlideInfo = opened.info
    paints = painting(opened.layer)

    def complete() -> bool:
        return bool(paints.complete)

    for number, place in enumerate(places):
        window.show(View(place, (1.0, 0.5, 0.26, 1.0)[number % 4]), info, complete)
    fit_slide(window.viewer, info)
    seen = [View(place, 1.0) for place in places[:REVISITED]]
    for view in seen:
        window.show(view, info, complete)
    window.rest(SETTLE_S)  # what was fetched ahead is there
    before = shared_cache().misses
    for view in reversed(seen):
        window.show(view, info, complete)
    return shared_cache().misses - before
