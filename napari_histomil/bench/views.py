"""What the viewer is measured with: rows of views over a slide, and what their times say.

A script is a row of camera positions, as a person makes them. How they are shown and timed is the
matter of `ui/bench.py`; nothing here knows a window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from napari_histomil.bench.figures import AT_LEAST, AT_MOST, Figure, Spread, ratio
from napari_histomil.geometry import Rect
from napari_histomil.slides.slide import SlideInfo
from napari_histomil.tissue import TissueMask

ZOOM_STEPS = 12
PAN_STEPS = 16
PAN_PX = 100
JUMPS = 10
JUMP_PX = 800
WORST_ZOOM = 0.26
"""Screen pixels that a level-0 pixel takes: napari shows a 4x pyramid's level 0 down to 0.25."""
WORST_STEPS = 10
WORST_JUMPS = 6

OURS, ARRAYS, EMPTY, DASK = "ours", "arrays in memory", "empty redraw", "tifffile + dask"

ZOOM, PAN, REVISIT, JUMP = "zoom in", "pan", "revisit", "jumps"
WORST, WORST_JUMP = "worst zoom", "worst zoom, jumps"
SCRIPTS = {
    ZOOM: f"from the whole slide to 1:1 in {ZOOM_STEPS} steps",
    PAN: f"{PAN_STEPS} steps of {PAN_PX} px at 1:1",
    REVISIT: "the same views backwards",
    JUMP: f"{JUMPS} steps of {JUMP_PX} px at 1:1",
    WORST: f"{WORST_STEPS} steps of {PAN_PX} px at zoom {WORST_ZOOM}",
    WORST_JUMP: f"{WORST_JUMPS} steps of {JUMP_PX} px at zoom {WORST_ZOOM}",
}

STALL_LIMIT, COMPLETE_LIMIT, DASK_LIMIT = 1.3, 4.0, 3.0


@dataclass(frozen=True, slots=True)
class View:
    """Where the camera looks: the middle in level-0 pixels, screen pixels a level-0 pixel."""

    xy_px0: tuple[float, float]
    zoom: float


@dataclass(frozen=True, slots=True)
class Script:
    """Views one after the other; `start` is reached, and complete, before the clock runs."""

    name: str
    start: View
    views: tuple[View, ...]
    cold: bool = True
    """Whether nothing of what the program shows is in its cache."""


@dataclass(frozen=True, slots=True)
class ViewTime:
    """What happened between one move of the camera and the complete picture, in seconds."""

    stall: float
    """The longest time in which the window did not react."""
    complete: float
    """Until the last frame of the picture was on the screen."""


@dataclass(slots=True)
class Times:
    """Best spreads of one side in one script."""

    stall: Spread
    complete: Spread

    @classmethod
    def of(cls, rounds: Sequence[Sequence[ViewTime]]) -> Times:
        """Return the best of the rounds, figure by figure."""
        return cls(
            Spread.best([Spread.of([time.stall for time in each]) for each in rounds]),
            Spread.best([Spread.of([time.complete for time in each]) for each in rounds]),
        )


@dataclass(slots=True)
class ViewerFigures:
    """What was measured of the viewer.

    Attributes
    ----------
    times
        By circumstance (``idle``, ``while a job runs``), script and side.
    """

    slide: str
    canvas: tuple[int, int]
    rounds: int
    region: str
    """Which part of the slide, in words; empty for all of it."""
    times: dict[str, dict[str, dict[str, Times]]] = field(default_factory=dict)
    job_tiles: float = 0.0
    """Tiles a second of the job meanwhile."""
    notes: list[str] = field(default_factory=list)

    def figures(self) -> list[Figure]:
        """Return the ratios with their targets."""
        made: list[Figure] = []
        for when, scripts in self.times.items():
            for script, sides in scripts.items():
                ours, arrays = sides[OURS], sides.get(ARRAYS)
                for what, limit in (("stall", STALL_LIMIT), ("complete", COMPLETE_LIMIT)):
                    mine = getattr(ours, what)
                    other = getattr(arrays, what) if arrays is not None else None
                    made.append(
                        Figure(
                            f"{when}, {script}: {what} p95 against arrays in memory",
                            ratio(mine.p95, other.p95 if other is not None else None),
                            AT_MOST,
                            limit,
                            note=f"{mine} and {other} ms",
                        )
                    )
                dask = sides.get(DASK)
                if dask is None:
                    continue
                for what in ("stall", "complete"):
                    mine, other = getattr(ours, what), getattr(dask, what)
                    made.append(
                        Figure(
                            f"{when}, {script}: {DASK}'s {what} p95 against ours",
                            ratio(other.p95, mine.p95),
                            AT_LEAST,
                            DASK_LIMIT,
                            note=f"{other} and {mine} ms",
                        )
                    )
        return made


@dataclass(frozen=True, slots=True)
class PaintFigures:
    """How soon a slide is seen; times in seconds, the best of the rounds.

    Attributes
    ----------
    first
        From opening to the first frame that shows the slide as it is, coarsely, by case.
    overview
        Until nothing of the whole slide's picture is missing, by case.
    scaled
        Decoding all tiles of the one-level slide at 1/8 with nothing around, on all cores.
    """

    first: dict[str, float]
    overview: dict[str, float]
    scaled: float | None
    notes: tuple[str, ...] = ()

    def figures(self) -> list[Figure]:
        """Return the times and the ratio with their targets."""
        made = [
            Figure(f"first correct picture, {case}", value, AT_MOST, 0.5, unit="s")
            for case, value in self.first.items()
        ]
        for case, value in self.overview.items():
            if case == ONE_LEVEL and self.scaled is not None:
                made.append(
                    Figure(
                        f"complete overview against decoding all tiles at 1/8, {case}",
                        ratio(value, self.scaled),
                        AT_MOST,
                        1.3,
                        note=f"{value:.2f} and {self.scaled:.2f} s",
                    )
                )
            else:
                made.append(Figure(f"complete overview, {case}", value, unit="s"))
        return made


PYRAMID, ONE_LEVEL, KEPT = "a pyramid", "one level", "one level, overview kept beside it"


@dataclass(frozen=True, slots=True)
class MemoryFigures:
    """Peak memory of whole processes, in bytes, and what a second look decodes."""

    window: int
    """napari with the docks, and no slide."""
    slide: int
    """The same with the slide moved around until the cache was full."""
    budget: int
    used: int
    """What the cache held at the end."""
    revisited_views: int
    decoded_again: int

    def figures(self) -> list[Figure]:
        """Return both with their targets."""
        above = (self.slide - self.window) / 2**20
        return [
            Figure(
                "peak memory above napari's own, less the cache's budget",
                above - self.budget / 2**20,
                AT_MOST,
                300.0,
                unit="MB",
                note=f"{above:.0f} MB above {self.window / 2**20:.0f} MB; the cache held "
                f"{self.used / 2**20:.0f} of {self.budget / 2**20:.0f} MB",
            ),
            Figure(
                f"tiles decoded on seeing {self.revisited_views} views again",
                float(self.decoded_again),
                AT_MOST,
                0.0,
                unit="tiles",
            ),
        ]


def anchors(
    mask: TissueMask, region: Rect, count: int, seed: int = 0
) -> list[tuple[float, float]]:
    """Return places (x, y) amid tissue from which scripts start, `count` different ones."""
    rng = np.random.default_rng(seed)
    side = min(region.width_px0, region.height_px0) / 4
    room = max(region.width_px0 - side, 0), max(region.height_px0 - side, 0)
    corners = rng.random((max(50 * count, 500), 2)) * room + (region.x_px0, region.y_px0)
    share = mask.fraction(np.hstack([corners, np.full_like(corners, side)]))
    best = np.argsort(-share, kind="stable")[: 4 * count]
    chosen = corners[rng.permutation(best)[:count]] + side / 2
    return [(float(x), float(y)) for x, y in chosen]


def scripts(places: Sequence[tuple[float, float]], region: Rect, fit_zoom: float) -> list[Script]:
    """Return one round of scripts; each begins at a place of its own.

    Parameters
    ----------
    places
        Four places (x, y): where zooming ends, where panning, jumping and the worst zoom begin;
        jumps at the worst zoom begin where zooming ended.
    region
        What is fitted into the window at first.
    fit_zoom
        The zoom that shows `region`.
    """
    zoom_to, pan_from, jump_from, worst_from = places
    middle = region.center_px0
    zoomed = []
    for step in range(1, ZOOM_STEPS + 1):
        zoom = fit_zoom ** (1 - step / ZOOM_STEPS)
        left = fit_zoom / zoom  # the place stays where it is on the screen, as under a pointer
        if step == ZOOM_STEPS:
            left = 0.0
        zoomed.append(View(_between(zoom_to, middle, left), zoom))
    panned = _walk(pan_from, PAN_STEPS, PAN_PX, 1.0, region)
    return [
        Script(ZOOM, View(middle, fit_zoom), tuple(zoomed)),
        Script(PAN, panned[0], tuple(panned[1:])),
        Script(REVISIT, panned[-1], tuple(panned[-2::-1]), cold=False),
        _script(JUMP, _walk(jump_from, JUMPS, JUMP_PX, 1.0, region)),
        _script(WORST, _walk(worst_from, WORST_STEPS, PAN_PX, WORST_ZOOM, region)),
        _script(WORST_JUMP, _walk(zoom_to, WORST_JUMPS, JUMP_PX, WORST_ZOOM, region)),
    ]


def _script(name: str, views: Sequence[View]) -> Script:
    return Script(name, views[0], tuple(views[1:]))


def _between(
    near: tuple[float, float], far: tuple[float, float], share: float
) -> tuple[float, float]:
    return near[0] + (far[0] - near[0]) * share, near[1] + (far[1] - near[1]) * share


def _walk(
    start: tuple[float, float], steps: int, step_px: float, zoom: float, region: Rect
) -> list[View]:
    """Walk over the screen, mostly along the slide's rows, towards the region's middle."""
    x, y = start
    across = step_px / zoom
    directions = ((1, 0), (1, 0), (0, 1), (1, 0), (0, -1), (1, 0), (0, 1))
    sign = -1 if x > region.center_px0[0] else 1
    views = [View((x, y), zoom)]
    for step in range(steps):
        dx, dy = directions[step % len(directions)]
        x, y = x + sign * dx * across, y + dy * across
        views.append(View((x, y), zoom))
    return views


def region_of(info: SlideInfo, bytes_free: int) -> Rect:
    """Return the part of a slide that fits into memory as arrays of all powers of two.

    Parameters
    ----------
    bytes_free
        What the arrays may take; 4 bytes a level-0 pixel are needed.
    """
    whole = info.rect_px0
    share = min(1.0, (bytes_free / 4 / (info.width_px0 * info.height_px0)) ** 0.5)
    if share == 1.0:
        return whole
    # Whole blocks of 1024 px, so that every power of two of the part lies on the slide's.
    size = [
        max(int(side * share) // 1024 * 1024, 1024) for side in (whole.width_px0, whole.height_px0)
    ]
    corner = [
        int((side - part) / 2) // 1024 * 1024
        for side, part in zip((whole.width_px0, whole.height_px0), size, strict=True)
    ]
    return Rect(corner[0], corner[1], size[0], size[1])
