"""What the gallery of one viewer lists, where one is in it, and what was judged of it.

The panel of thumbnails, the embedding and the slide speak through the `Gallery` of their viewer,
and none of them to another. It draws nothing; which tiles are worth a look is decided in
`review/gallery.py`, and what is asked of each by the form of the review.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from psygnal import Signal
from shapely import box

from napari_histomil.annotations import commands
from napari_histomil.annotations.model import AnnotationClass, Region
from napari_histomil.errors import ReviewError
from napari_histomil.geometry import Rect
from napari_histomil.results import open_result
from napari_histomil.review.form import DEFAULT, Form, Question
from napari_histomil.review.gallery import Choice, Patch, select
from napari_histomil.review.tile_scores import TileScores
from napari_histomil.review.verdicts import Answer, Place, Verdict, VerdictLog
from napari_histomil.ui.annotator import annotator
from napari_histomil.ui.flight import fly_to_rect
from napari_histomil.ui.frames import Frames
from napari_histomil.ui.overlays import overlays
from napari_histomil.ui.per_viewer import PerViewer
from napari_histomil.ui.session import Session, SlideSession, session

FRAME_NAME, MARKS_NAME = "patch", "marked patches"
MARKS_COLOUR = "#ffd54a"

MOST_MARKS = 2000
"""Frames that are drawn on a slide at once."""


def place_of(patch: Patch) -> Place:
    """Return what is judged where a patch is."""
    return Place(patch.fingerprint, patch.xy_px0, patch.size_px0)


class Gallery:
    """The gallery of one viewer; get it with `gallery`.

    Attributes
    ----------
    form
        What is asked about a patch.
    case_of
        Name of the case that a patch belongs to; its slide's file name by default.
    """

    tiles_changed = Signal()
    """There are other tiles to choose from."""
    listed = Signal()
    """Other patches are listed."""
    judged = Signal()
    """Something was judged, or is asked otherwise."""
    stepped = Signal()
    """Another patch is looked at."""
    marked_changed = Signal()
    """Other patches are marked, by a lasso or in the list."""

    def __init__(self, viewer: Any) -> None:
        self._session: weakref.ref[Session] = weakref.ref(session(viewer))
        self.form: Form = DEFAULT
        self.case_of: Callable[[Patch], str] = lambda patch: patch.slide.name
        self._log: VerdictLog | None = None
        self._tiles: tuple[TileScores, ...] = ()
        self._runs: dict[str, TileScores] = {}
        self._patches: list[Patch] = []
        self._marked: frozenset[Place] = frozenset()
        self._title = ""
        self._current: int | None = None
        self._opened: SlideSession | None = None
        self._frame = Frames(self.session.viewer, FRAME_NAME)
        self._marks = Frames(self.session.viewer, MARKS_NAME, MARKS_COLOUR)
        self.session.active_changed.connect(self._on_slide)

    @property
    def session(self) -> Session:
        """Open slides."""
        held = self._session()
        assert held is not None, "a viewer's gallery outlives its session"
        return held

    # --- what there is, and what is listed ----------------------------------------------------

    @property
    def tiles(self) -> tuple[TileScores, ...]:
        """The tiles of each slide that can be listed."""
        return self._tiles

    def set_tiles(self, tiles: Sequence[TileScores]) -> None:
        """Choose from other tiles from now on; what is listed stays until `choose`."""
        self._tiles = tuple(tiles)
        self._runs = {each.fingerprint: each for each in tiles}
        self.tiles_changed.emit()

    @property
    def patches(self) -> Sequence[Patch]:
        """What is listed."""
        return self._patches

    @property
    def title(self) -> str:
        """What is listed, in words."""
        return self._title

    def choose(self, choice: Choice, *, fingerprint: str | None = None) -> None:
        """List a selection.

        Parameters
        ----------
        choice
            Which tiles.
        fingerprint
            Of one slide only.

        Raises
        ------
        RunError
            As `review.gallery.select`.
        """
        tiles = [each for each in self._tiles if fingerprint in (None, each.fingerprint)]
        self.show(select(tiles, choice), choice.kind)

    def show(self, patches: Sequence[Patch], title: str) -> None:
        """List patches that were chosen elsewhere."""
        self._patches, self._title, self._current = list(patches), title, None
        self._frame.clear()
        self.mark(())
        self.listed.emit()

    # --- going there --------------------------------------------------------------------------

    @property
    def current(self) -> int | None:
        """Which of the patches is looked at; None before the first."""
        return self._current

    def go(self, n: int) -> None:
        """Look at one of the patches: its slide is opened, the result lies over it, framed.

        Raises
        ------
        HistomilError
            If its slide or run cannot be opened.
        """
        patch = self._patches[n]
        slide = self._open(patch)
        viewer = self.session.viewer
        (x, y), (width, height) = patch.xy_px0, patch.size_px0
        fly_to_rect(viewer, slide.info, Rect(x - width / 2, y - height / 2, 2 * width, 2 * height))
        self._frame.show(slide.info, [(x, y, width, height)])
        self._current = n
        self.stepped.emit()

    def step(self, by: int) -> None:
        """Go to the next patch (+1) or the one before (-1); stay at the ends."""
        if not self._patches:
            return
        at = -1 if self._current is None else self._current
        self.go(min(max(at + by, 0), len(self._patches) - 1))

    def _open(self, patch: Patch) -> SlideSession:
        held = self.session
        found = [each for each in held.slides if each.info.fingerprint == patch.fingerprint]
        slide = found[-1] if found else self._open_file(patch.slide)
        if slide is not held.active or not slide.layer.visible:
            held.show_only(slide)
        run = self._runs.get(patch.fingerprint)
        if run is not None and run.run is not None:
            shown = overlays(held.viewer)
            over = [r for r in held.runs_of(slide) if r.store.run_id == run.run.stem]
            if over:
                if shown.current is not over[0]:
                    shown.choose(over[0])
            else:
                shown.add(open_result(run.run))
        return slide

    def _open_file(self, path: Path) -> SlideSession:
        """Open a slide; the one that the gallery itself opened before is closed."""
        held, before = self.session, self._opened
        self._opened = held.open_slide(path)
        if before is not None and before in held.slides:
            held.close_slide(before)
        return self._opened

    def _on_slide(self, slide: SlideSession | None) -> None:
        self._frame.clear()
        self._show_marks()

    # --- marked -------------------------------------------------------------------------------

    @property
    def marked(self) -> frozenset[Place]:
        """What is marked in all views of the same tiles."""
        return self._marked

    def mark(self, places: Collection[Place]) -> None:
        """Mark other places; those of the slide that is shown are framed on it."""
        if frozenset(places) != self._marked:
            self._marked = frozenset(places)
            self._show_marks()
            self.marked_changed.emit()

    def _show_marks(self) -> None:
        slide = self.session.active
        if slide is None or not self._marked:
            self._marks.clear()
            return
        own = [p for p in self._marked if p.slide == slide.info.fingerprint]
        rects = sorted((*place.xy_px0, *place.size_px0) for place in own)
        if rects:
            self._marks.show(slide.info, rects[:MOST_MARKS])
        else:
            self._marks.clear()

    # --- judging ------------------------------------------------------------------------------

    @property
    def log(self) -> VerdictLog | None:
        """Where verdicts go; None as long as no review is open."""
        return self._log

    def review(
        self,
        log: VerdictLog | None,
        form: Form = DEFAULT,
        case_of: Callable[[Patch], str] | None = None,
    ) -> None:
        """Judge in a review from now on.

        Parameters
        ----------
        log
            Where verdicts go; it stays the caller's to close.
        form
            What is asked.
        case_of
            Name of the case that a patch belongs to; its slide's file name by default.
        """
        self._log, self.form = log, form
        self.case_of = case_of or (lambda patch: patch.slide.name)
        self.judged.emit()

    def answers(self, patch: Patch) -> dict[str, Answer]:
        """Return what this reader has answered about a patch, by question."""
        if self._log is None:
            return {}
        found = {each.name: self._answer(patch, each) for each in self.form.about("place")}
        return {name: answer for name, answer in found.items() if answer not in (None, (), "")}

    def answer(self, patches: Collection[Patch], question: Question, answer: Any = None) -> None:
        """Answer a question about patches: one record each, all of them one step.

        A choice that all of them have already is taken back, as is a tag; a flag turns over.

        Parameters
        ----------
        patches
            Which.
        question
            Of the form.
        answer
            A choice or tag, words of a note; not for a flag.

        Raises
        ------
        ReviewError
            If no review is open, or it does not answer the question.
        OutputError
            If it cannot be written.
        """
        if self._log is None:
            raise ReviewError(
                "No review is open that could keep a verdict: open or begin one in the Review "
                "dock."
            )
        now = [self._answer(patch, question) for patch in patches]
        given: list[Answer]
        if question.kind == "tags":
            word = str(answer).strip()
            lists = [each if isinstance(each, tuple) else () for each in now]
            if all(word in each for each in lists):
                given = [tuple(w for w in each if w != word) for each in lists]
            else:
                given = [question.checked([*each, word]) for each in lists]
        elif question.kind == "flag":
            given = [None if all(now) else True] * len(now)
        else:
            wanted = question.checked(answer)
            taken_back = question.kind != "note" and all(each == wanted for each in now)
            given = [None if taken_back or wanted == "" else wanted] * len(now)
        self._log.append(
            *(
                Verdict(
                    self.case_of(patch),
                    place_of(patch),
                    question.name,
                    each,
                    model=self._model(patch),
                )
                for patch, each in zip(patches, given, strict=True)
            )
        )
        self.judged.emit()

    def take_back(self) -> bool:
        """Undo the last step of judging; False if there is none."""
        if self._log is None or not self._log.take_back():
            return False
        self.judged.emit()
        return True

    def _answer(self, patch: Patch, question: Question) -> Answer:
        assert self._log is not None, "asked only in a review"
        return self._log.answer(
            self.case_of(patch), question.name, place_of(patch), model=self._model(patch)
        )

    def _model(self, patch: Patch) -> str | None:
        run = self._runs.get(patch.fingerprint)
        return None if run is None or run.run is None else run.run.stem

    # --- corrections --------------------------------------------------------------------------

    def correct(self, patches: Collection[Patch], kind: AnnotationClass) -> int:
        """Draw patches of the slide that is shown as regions of a class, one step to undo.

        Returns how many were drawn: those of other slides are not.
        """
        state = annotator(self.session.viewer)
        slide = state.slide
        own = [p for p in patches if slide is not None and p.fingerprint == slide.info.fingerprint]
        regions = [
            Region(box(*p.xy_px0, p.xy_px0[0] + p.size_px0[0], p.xy_px0[1] + p.size_px0[1]), kind)
            for p in own
        ]
        if regions and state.do(commands.add(regions, state.stamp(), f"correct {len(regions)}")):
            return len(regions)
        return 0


_GALLERIES = PerViewer(Gallery)


def gallery(viewer: Any) -> Gallery:
    """Return the gallery of a viewer, begun at the first call.

    Parameters
    ----------
    viewer
        A napari viewer, a ``ViewerModel``, or the proxy of one that napari gives to plugins.
    """
    return _GALLERIES.of(viewer)
