"""How a reader went over slides: what was on the screen, how large, for how long.

That is viewing time, not gaze: nobody knows where on the screen the eye was. So the time of a view
is spread over its area, and a view at a low magnification, which shows much, says little of each
place in it. Nothing is recorded unless the reader has consented, which is recorded itself.

Steps are those of Pathology-CoT's session records (Wang et al., arXiv 2510.04587, 2025): a stay at
one of the discrete magnifications is *inspect*, a glance is *peek*, each with the box that was
seen. Their thresholds are named here: what they used is not all published.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from shapely.geometry import box

from napari_histomil.annotations.geojson import write_geojson
from napari_histomil.annotations.model import Region, SlideFrame, class_named
from napari_histomil.annotations.stamps import Stamp
from napari_histomil.errors import JournalError, ReviewError
from napari_histomil.files import whole_file
from napari_histomil.geometry import Rect, magnification
from napari_histomil.journal import GAP, Journal, read_log
from napari_histomil.review.project import SUFFIX, Project
from napari_histomil.review.verdicts import file_name
from napari_histomil.slides.slide import SlideInfo
from napari_histomil.tissue import TissueMask

SCHEMA_VERSION = 1
OF = "viewing"

POWERS = (1.25, 2.5, 5.0, 10.0, 20.0, 40.0)
"""The discrete magnifications; a view counts as the nearest of them, by ratio."""

INSPECT_S = 2.0
"""A step that lasts so long is *inspect*, a shorter one *peek*."""

SAME_VIEW = 0.5
"""Views that share this part of what they show together are one step."""

SEEN_S = 0.5
"""A place counts as seen once it has been on the screen for so long."""

TOLERANCE = 0.01
"""A view at 9.99x counts as one at 10x."""

CONSENT = (
    "While this is on, the program records which part of a slide your window shows, at which "
    "magnification and for how long, with your name and the time of day. It is viewing time and "
    "not gaze: no camera is used. The record lies beside the project, in the folder {folder}; "
    "nothing is sent anywhere. It shows how you work: ask whoever runs the study who reads it. "
    "You can stop at any time, and delete the folder."
)
"""What a reader agrees to; where the record lies is filled in."""


@dataclass(frozen=True, slots=True)
class View:
    """What the window showed for a while."""

    case: str
    slide: str
    """Fingerprint."""
    xy_px0: tuple[float, float]
    """(x, y) of the corner of what was seen of the slide, level-0 px."""
    size_px0: tuple[float, float]
    um_per_px: float
    """µm that a physical screen pixel showed."""
    seconds: float
    at: str
    """When it began, UTC in ISO 8601."""
    overlay: bool = False
    """Whether a result lay over the slide."""

    @property
    def power(self) -> float:
        """Magnification on the screen."""
        return magnification(self.um_per_px)

    @property
    def rect_px0(self) -> Rect:
        """What was seen."""
        return Rect(*self.xy_px0, *self.size_px0)


# --- the record ---------------------------------------------------------------------------------


def folder_of(project: Project) -> Path:
    """Return where the records of a project lie."""
    return project.path.with_name(project.path.name.removesuffix(SUFFIX) + ".viewing")


class ViewingLog:
    """Writes one reader's views; each is on the disk when `add` returns.

    Parameters
    ----------
    folder
        Of the records of a project, `folder_of`.
    reader
        Who reads, and has consented.

    Raises
    ------
    BusyError, JournalError, OutputError
        As `Journal`.
    """

    def __init__(self, folder: Path, reader: str) -> None:
        head = {"reader": reader}
        self._journal = Journal(folder / file_name(reader), OF, SCHEMA_VERSION, head=head)
        if not self._journal.is_whole:
            entries = self._journal.entries
            self._journal.rewrite([(e.kind, e.text()) for e in entries if e.kind != GAP])
        self._journal.append("consent", {"at": Stamp.now(reader).time, "to": CONSENT})

    def add(self, view: View) -> None:
        """Keep a view.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        self._journal.append("view", asdict(view))

    def close(self) -> None:
        """Give the file back; does nothing the second time."""
        self._journal.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_views(project: Project, reader: str | None = None) -> dict[str, list[View]]:
    """Return the views that were recorded, by reader, in the order of time.

    Parameters
    ----------
    project
        The project.
    reader
        Only this one's; the others are not looked at.

    Raises
    ------
    JournalError
        If a record is of something else, or of a newer version.
    """
    found: dict[str, list[View]] = {}
    for path in sorted(folder_of(project).glob("*.journal")):
        if reader is not None and path.name != file_name(reader):
            continue
        log = read_log(path, OF, SCHEMA_VERSION)
        name = str(log.head.get("reader", path.stem))
        found[name] = [_view(e.data(), path) for e in log.entries if e.kind == "view"]
    return found


def _view(data: Mapping[str, Any], path: Path) -> View:
    try:
        (x, y), (width, height) = data["xy_px0"], data["size_px0"]
        place = {"xy_px0": (float(x), float(y)), "size_px0": (float(width), float(height))}
        return View(**{**data, **place})
    except (TypeError, ValueError, KeyError) as error:
        raise JournalError(f"{path} holds a line that is no view: move the file away.") from error


# --- steps --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Step:
    """A stay at one place, at one magnification."""

    kind: Literal["inspect", "peek"]
    case: str
    slide: str
    power: float
    """One of `POWERS`."""
    rect_px0: Rect
    """Around all that was seen during it."""
    seconds: float
    at: str


def nearest_power(power: float) -> float:
    """Return the discrete magnification that is nearest, by ratio."""
    return min(POWERS, key=lambda each: abs(np.log2(power / each)))


def steps_of(views: Iterable[View]) -> list[Step]:
    """Join views that show about the same at the same magnification to steps.

    Parameters
    ----------
    views
        In the order of time.
    """
    steps: list[Step] = []
    last: View | None = None
    for view in views:
        power = nearest_power(view.power)
        step = steps[-1] if steps else None
        if (
            step is not None
            and last is not None
            and (step.case, step.power) == (view.case, power)
            and _shared(last.rect_px0, view.rect_px0) >= SAME_VIEW
        ):
            seconds = step.seconds + view.seconds
            rect = _around(step.rect_px0, view.rect_px0)
            steps[-1] = _step(view, power, rect, seconds, step.at)
        else:
            steps.append(_step(view, power, view.rect_px0, view.seconds, view.at))
        last = view
    return steps


def _step(view: View, power: float, rect: Rect, seconds: float, at: str) -> Step:
    kind: Literal["inspect", "peek"] = "inspect" if seconds >= INSPECT_S else "peek"
    return Step(kind, view.case, view.slide, power, rect, seconds, at)


def _shared(one: Rect, other: Rect) -> float:
    """Return what two rectangles share of what they cover together."""
    both = one.intersection(other)
    area = 0.0 if both is None else both.width_px0 * both.height_px0
    total = sum(rect.width_px0 * rect.height_px0 for rect in (one, other)) - area
    return area / total if total else 0.0


def _around(one: Rect, other: Rect) -> Rect:
    x, y = min(one.x_px0, other.x_px0), min(one.y_px0, other.y_px0)
    right, bottom = max(one.right_px0, other.right_px0), max(one.bottom_px0, other.bottom_px0)
    return Rect(x, y, right - x, bottom - y)


# --- coverage -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Coverage:
    """What was seen of a slide's tissue."""

    seconds: NDArray[np.float64]
    """float64 [rows, columns]: how long each pixel of the tissue mask was on the screen at the
    wanted magnification or a higher one."""
    density: NDArray[np.float64]
    """float64 [rows, columns]: seconds per mm² of all views, each view's time spread over its
    area: a high magnification counts for more."""
    tissue: NDArray[np.bool_]
    at_least: float
    """The wanted magnification."""

    @property
    def seen(self) -> NDArray[np.bool_]:
        """Bool [rows, columns]: tissue that was on the screen for `SEEN_S` or longer."""
        found: NDArray[np.bool_] = self.tissue & (self.seconds >= SEEN_S)
        return found

    @property
    def share(self) -> float:
        """Share of the tissue that was seen; NaN without tissue."""
        total = int(self.tissue.sum())
        return float(self.seen.sum()) / total if total else float("nan")

    @property
    def sentence(self) -> str:
        """What was never seen, in words."""
        if not self.tissue.any():
            return "No tissue was found."
        return f"{1 - self.share:.0%} of the tissue was never seen at {self.at_least:g}x or more."


def coverage_of(
    views: Sequence[View], tissue: TissueMask, mpp_xy: tuple[float, float], at_least: float
) -> Coverage:
    """Return what views show of a slide's tissue at a magnification or a higher one.

    A pixel of the mask counts with the view that holds its middle.

    Parameters
    ----------
    views
        Of this slide.
    tissue
        Its tissue.
    mpp_xy
        µm/px of the slide.
    at_least
        The magnification.
    """
    seconds, density = np.zeros(tissue.mask.shape), np.zeros(tissue.mask.shape)
    wide, high = tissue.scale_px0
    for view in views:
        rect = view.rect_px0
        columns = slice(*_middles(rect.x_px0 / wide, rect.right_px0 / wide, tissue.mask.shape[1]))
        rows = slice(*_middles(rect.y_px0 / high, rect.bottom_px0 / high, tissue.mask.shape[0]))
        area_mm2 = rect.width_px0 * mpp_xy[0] * rect.height_px0 * mpp_xy[1] * 1e-6
        if area_mm2 > 0:
            density[rows, columns] += view.seconds / area_mm2
        if view.power >= at_least * (1 - TOLERANCE):
            seconds[rows, columns] += view.seconds
    return Coverage(seconds, density, tissue.mask, at_least)


def _middles(low: float, high: float, count: int) -> tuple[int, int]:
    """Return the first pixel whose middle lies in a stretch, and the first behind it."""
    first, behind = int(np.ceil(low - 0.5)), int(np.ceil(high - 0.5))
    return min(max(first, 0), count), min(max(behind, 0), count)


# --- files --------------------------------------------------------------------------------------


def write_steps_json(path: Path, views: Mapping[str, Sequence[View]]) -> None:
    """Write steps and views of readers as JSON.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    document = {
        "schema_version": SCHEMA_VERSION,
        "what": "viewing time, not gaze",
        "inspect_seconds": INSPECT_S,
        "same_view_iou": SAME_VIEW,
        "readers": {
            reader: {
                "steps": [asdict(step) for step in steps_of(own)],
                "views": [asdict(view) for view in own],
            }
            for reader, own in views.items()
        },
    }
    with whole_file(path) as part:
        text = json.dumps(document, indent=1, ensure_ascii=False)
        part.write_text(text + "\n", encoding="utf-8")


def write_steps_geojson(path: Path, views: Sequence[View], info: SlideInfo, reader: str) -> None:
    """Write the steps over one slide as QuPath's GeoJSON: a box each, with time and magnification.

    Raises
    ------
    ReviewError
        If nothing of the slide was viewed.
    OutputError
        If the file cannot be written.
    """
    own = [view for view in views if view.slide == info.fingerprint]
    if not own:
        raise ReviewError(f"{reader} has viewed nothing of {info.path.name} while recording.")
    regions = [
        Region(
            box(
                step.rect_px0.x_px0,
                step.rect_px0.y_px0,
                step.rect_px0.right_px0,
                step.rect_px0.bottom_px0,
            ),
            class_named(f"{step.kind} {step.power:g}x"),
            name=f"{number}",
            measurements={"seconds": step.seconds, "magnification": step.power},
            metadata={"author": reader, "created": step.at},
        )
        for number, step in enumerate(steps_of(own), 1)
    ]
    write_geojson(path, regions, frame=SlideFrame.of(info))
