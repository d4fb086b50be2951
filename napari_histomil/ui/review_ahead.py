"""Cases opened by threads: the one that is wanted, the one after it, and facts of all of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

from napari_histomil.errors import HistomilError
from napari_histomil.geometry import Rect
from napari_histomil.results import open_result
from napari_histomil.review.places import Spot, looked_at, top_places
from napari_histomil.review.predictions import SlideFacts, stored_facts
from napari_histomil.review.project import Case, Project
from napari_histomil.slides.readers import open_slide
from napari_histomil.slides.slide import Slide, Uint8Image, read_rect
from napari_histomil.ui import jobs
from napari_histomil.ui.layers import LayerData, slide_layer
from napari_histomil.ui.run_facts import AnyStore

THUMBNAIL_PX = 64
"""Longer side of the picture of a case in the table."""

QUICK_PX = 4096
"""A slide whose smallest level is larger has no picture there: reading it would take long."""


@dataclass(eq=False)
class Opened:
    """A case whose slide is open, with its main model's run."""

    case: Case
    slide: Slide
    layer_data: LayerData
    facts: SlideFacts
    store: AnyStore | None
    places: list[Spot]
    rect: Rect | None
    """Around the tissue, where a model looked for it."""

    def close(self) -> None:
        """Close the slide: nobody shows it."""
        self.layer_data[0][0].pyramid.close()
        self.slide.close()


def prepare(case: Case, project: Project) -> Opened:
    """Open a case as far as no window is needed; called in a thread.

    Raises
    ------
    HistomilError
        If the slide cannot be opened. A run that cannot be is left out.
    """
    slide = open_slide(case.slide)
    try:
        layer_data = slide_layer(slide)
        layer_data[0][0].pyramid.coarse(1)  # begins to be fetched until it is shown
        facts = stored_facts(slide.info, project)
        store, places, rect = None, [], None
        if facts.predictions:
            store = open_result(facts.predictions[0].run)
            places, rect = top_places(store, project.target), looked_at(store)
    except BaseException:
        slide.close()
        raise
    return Opened(case, slide, layer_data, facts, store, places, rect)


class Ahead:
    """Opens cases in threads and keeps one until it is wanted.

    Parameters
    ----------
    opened, failed
        Called on the GUI thread, when a case is open or cannot be opened.
    """

    def __init__(
        self, opened: Callable[[Opened], None], failed: Callable[[Case, Exception], None]
    ) -> None:
        self._opened, self._failed = opened, failed
        self._jobs: dict[str, Any] = {}
        self._ready: dict[str, Opened] = {}

    @property
    def ready(self) -> tuple[str, ...]:
        """Names of the cases that are open and wait."""
        return tuple(self._ready)

    def want(self, case: Case, project: Project) -> None:
        """Have a case opened; `opened` is called at once if it is already."""
        if case.name in self._ready:
            self._opened(self._ready[case.name])
        elif case.name not in self._jobs:
            self._start(case, project)

    def take(self, case: Case) -> None:
        """Forget a case: it is shown now."""
        self._ready.pop(case.name, None)

    def only(self, case: Case | None, project: Project) -> None:
        """Have this case opened next, and let all others go."""
        keep = None if case is None else case.name
        for name in [name for name in self._ready if name != keep]:
            self._ready.pop(name).close()
        for name in [name for name in self._jobs if name != keep]:
            self._jobs.pop(name).cancel()
        if case is not None and keep not in self._ready and keep not in self._jobs:
            self._start(case, project)

    def clear(self) -> None:
        """Let all go."""
        for opened in self._ready.values():
            opened.close()
        for job in self._jobs.values():
            job.cancel()
        self._ready, self._jobs = {}, {}

    def _start(self, case: Case, project: Project) -> None:
        def work(_cancel: threading.Event) -> Generator[None, None, Opened]:
            yield from ()
            return prepare(case, project)

        def done(opened: Opened | None) -> None:
            if opened is None:
                return
            if self._jobs.get(case.name) is not job:  # nobody wants it any more
                opened.close()
                return
            del self._jobs[case.name]
            self._ready[case.name] = opened
            self._opened(opened)

        def failed(error: Exception) -> None:
            if self._jobs.get(case.name) is job:
                del self._jobs[case.name]
                self._failed(case, error)

        job = jobs.start(
            work,
            on_progress=lambda _: None,
            on_done=done,
            on_error=failed,
            title=f"opening {case.name}",
        )
        self._jobs[case.name] = job


def gather(
    cases: Sequence[Case], project: Project, arrived: Callable[[Sequence[Any]], None]
) -> jobs.JobHandle:
    """Look up what is stored of cases, beside the window, one after the other.

    Parameters
    ----------
    cases
        In the order in which they are looked at.
    project
        Whose they are.
    arrived
        Called on the GUI thread with tuples of name, facts, problem and thumbnail.
    """

    def work(cancel: threading.Event) -> Generator[Any, None, None]:
        for case in cases:
            if cancel.is_set():
                return
            try:
                with open_slide(case.slide) as slide:
                    found = (
                        case.name, stored_facts(slide.info, project), "", _thumbnail(slide),
                    )  # fmt: skip
            except HistomilError as error:
                found = (case.name, None, str(error), None)
            yield found

    return jobs.start(
        work,
        on_progress=arrived,
        on_done=lambda _: None,
        on_error=_raise,
        title="looking up the cases of a review",
    )


def _raise(error: Exception) -> None:
    raise error


def _thumbnail(slide: Slide) -> Uint8Image | None:
    """Return a small picture of a slide, [h, w, 3]; None where that would take long."""
    last = slide.info.levels[-1]
    if max(last.width, last.height) > QUICK_PX:
        return None
    rect = slide.info.bounds_px0 or slide.info.rect_px0
    scale = THUMBNAIL_PX / max(rect.width_px0, rect.height_px0)
    size = max(round(rect.width_px0 * scale), 1), max(round(rect.height_px0 * scale), 1)
    corner = rect.x_px0, rect.y_px0
    return read_rect(slide, corner, (rect.width_px0, rect.height_px0), size)
