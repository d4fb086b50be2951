"""What is under review in one viewer: project, rows, which case is read, and how far one is.

The cycle of a case:

1. `go` shows its slide, fitted to the tissue and without any result; a thread has opened it while
   the case before was read (`review_ahead.py`);
2. blindly read, the reader gives an own answer and says how sure it is, and `enter` locks both;
3. the main model's result is laid over the slide, and its answer is told;
4. `step` flies through its top places at 20x; a key judges a place and goes on to the next;
5. `enter` calls the case done and shows the next one.

Everything judged is on the disk at once, so that a window that was killed goes on where it was.
Nothing here shows dialogs: docks do that.
"""

from __future__ import annotations

import time
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from psygnal import Signal
from shapely import box

from napari_histomil.annotations import commands
from napari_histomil.annotations.model import Region, class_named
from napari_histomil.annotations.stamps import Stamp
from napari_histomil.errors import HistomilError, ReviewError
from napari_histomil.review import blind, cases
from napari_histomil.review.form import Question
from napari_histomil.review.places import Spot
from napari_histomil.review.predictions import Prediction
from napari_histomil.review.project import Case, open_project, write_project
from napari_histomil.review.verdicts import Answer, Place, Verdict, VerdictLog
from napari_histomil.ui.annotator import annotator
from napari_histomil.ui.camera import fit_rect
from napari_histomil.ui.case_list import CaseList
from napari_histomil.ui.layers import world_scale
from napari_histomil.ui.overlays import overlays
from napari_histomil.ui.per_viewer import PerViewer
from napari_histomil.ui.review_ahead import Ahead, Opened
from napari_histomil.ui.session import RunView, Session, SlideSession, session
from napari_histomil.ui.view_keeper import view_keeper

MISSED = "missed"
MISSED_CLASS = "Missed"
MISSED_UM = 200.0
"""Side of the region that a click on something missed makes; it is an annotation like others."""

Stage = Literal["none", "own", "shown"]


class Reviewing(CaseList):
    """The review in one viewer; get it with `reviewing`."""

    project_changed = Signal()
    """Another project is under review, or none."""
    case_changed = Signal()
    """Another case is read, or the same is at another stage or place."""
    finished = Signal()
    """All cases are done."""
    told = Signal(str)
    """A sentence for the person."""
    failed = Signal(Exception)

    def __init__(self, viewer: Any) -> None:
        super().__init__()
        self._session: weakref.ref[Session] = weakref.ref(session(viewer))
        self.current: Case | None = None
        self.stage: Stage = "none"
        self.given: str | None = None
        """The own answer that is not locked yet, and how sure."""
        self.confidence: int | None = None
        self.places: list[Spot] = []
        self.at: int | None = None
        """Which of the places is looked at; None for the whole slide."""
        self.goes_on = True
        """Whether a key that judges a place goes on to the next one."""
        self.marking = False
        """Whether the next click marks what the model missed."""
        self._slide: SlideSession | None = None
        self._is_mine = False
        """Whether the slide was opened here, and is closed with the next one."""
        self._run: RunView | None = None
        self._opened: Opened | None = None
        self._ahead = Ahead(self._on_opened, self._on_failed)
        self._wanted: Case | None = None
        self._since = 0.0
        self.session.runs_changed.connect(self._keep_blind)
        self.session.slide_closed.connect(self._on_closed)

    @property
    def session(self) -> Session:
        """Open slides and shown runs."""
        held = self._session()
        assert held is not None, "a viewer's review outlives its session"
        return held

    # --- the project ----------------------------------------------------------------------------

    def open(self, source: Path, reader: str, *, blind_reading: bool | None = None) -> None:
        """Review a project, a folder or a table; the case where one stopped is shown by `resume`.

        Parameters
        ----------
        source
            As in `project.open_project`.
        reader
            Who reads.
        blind_reading
            Read blindly, whatever the project says, or not; None for what it says.

        Raises
        ------
        HistomilError
            If it cannot be opened; what was under review before stays.
        """
        project = open_project(source)
        if blind_reading is not None and blind_reading != project.blind:
            project = replace(project, blind=blind_reading)
            write_project(project)
        log = self.log
        if log is not None and (log.folder, log.reader) == (project.verdicts, reader.strip()):
            self.close()  # it is locked by this very window
        log = VerdictLog.open(project.verdicts, reader=reader)
        self.close()
        for note in log.notes:
            self.told.emit(note)
        self._begin(project, log)
        self.project_changed.emit()

    def close(self) -> None:
        """Let the project go; its slide stays open."""
        had = self.project is not None
        self._ahead.clear()
        self._end()
        self.current = self._wanted = None
        self._slide = self._run = self._opened = None
        self.stage = "none"
        self.places, self.at, self.marking = [], None, False
        if had:
            self.project_changed.emit()
            self.rows_changed.emit()
            self.case_changed.emit()

    def _update_row(self, case: Case) -> None:
        facts, regions = self._facts.get(case.name), None
        if case is self.current and self.session.active is self._slide is not None:
            regions = annotator(self.session.viewer).regions
        if facts is not None and regions is not None:  # more may be drawn by now
            self._facts[case.name] = replace(facts, annotations=len(regions))
        super()._update_row(case)

    # --- which case -----------------------------------------------------------------------------

    def following(self, by: int = 1, *, undone: bool = False) -> Case | None:
        """Return the next case (or the one before); with `undone` the next that is to be read."""
        order = self.reading_order()
        names = [case.name for case in order]
        here = (
            names.index(self.current.name) if self.current and self.current.name in names else -1
        )
        if undone:
            around = order[here + 1 :] + order[: max(here, 0)]
            return next((c for c in around if self.row(c).values["status"] != "done"), None)
        place = here + by
        return order[place] if 0 <= place < len(order) else None

    def resume(self) -> None:
        """Show the case where this reader stopped: that in work last, else the first undone."""
        if self.log is None:
            return
        order = self.reading_order()
        states = {case.name: self.row(case).values["status"] for case in order}
        last = next(
            (
                v.case
                for v in reversed(self.log.all())
                if v.reader == self.log.reader and states.get(v.case) == "in work"
            ),
            None,
        )
        undone = [case for case in order if states[case.name] != "done"]
        wanted = next(
            (case for case in undone if case.name == last), undone[0] if undone else None
        )
        if wanted is None:
            self.finished.emit()
        else:
            self.go(wanted)

    def go(self, case: Case) -> None:
        """Show a case, as soon as its slide is open."""
        if self.project is None or (self.current is case and self._slide is not None):
            return
        self._wanted = case
        self._ahead.want(case, self.project)

    def go_on(self, by: int) -> None:
        """Show the next case, or the one before; neither is called done."""
        case = self.following(by)
        if case is not None:
            self.go(case)

    @property
    def waits(self) -> bool:
        """Whether a slide is being opened that is wanted."""
        return self._wanted is not None

    def _on_failed(self, case: Case, error: Exception) -> None:
        self._problems[case.name] = str(error)
        self._update_row(case)
        if self._wanted is case:
            self._wanted = None
            self.failed.emit(error)

    def _on_opened(self, opened: Opened) -> None:
        if self._wanted is not None and opened.case.name == self._wanted.name:
            self._ahead.take(opened.case)
            self._show(opened)

    def _show(self, opened: Opened) -> None:
        assert self.project is not None
        assert self.log is not None
        viewer, before, case = self.session.viewer, self._slide, opened.case
        self._wanted, self.current = None, case
        self._facts[case.name] = opened.facts
        own = blind.own_answer(self.log, case.name)
        self.stage = "own" if self.project.blind and own is None else "shown"
        self.given, self.confidence, self.marking, self.at = None, None, False, None
        self.places, self._run, self._opened = opened.places, None, opened
        mine, self._slide = self._is_mine, self._open_already(opened)
        self._is_mine = self._slide is None
        if self._slide is None:
            view_keeper(viewer).leave_plain(opened.slide.info.path)
            self._slide = self.session.add_slide(opened.layer_data)
        else:
            opened.close()
            self.session.show_only(self._slide)
        if mine and before in self.session.slides and before is not self._slide:
            self.session.close_slide(before)
        self._keep_blind()
        self._since = time.monotonic()
        if self.stage == "shown":
            self._reveal()
            self.at = self._first_unjudged()
        self._look()
        self._update_row(case)
        self.case_changed.emit()
        following = self.following(undone=True)
        self._ahead.only(following, self.project)

    def _open_already(self, opened: Opened) -> SlideSession | None:
        """Return the slide of a case if somebody has opened it: it is not opened twice."""
        info = opened.slide.info
        return next(
            (
                slide
                for slide in self.session.slides
                if (slide.info.path.absolute(), slide.info.fingerprint)
                == (info.path.absolute(), info.fingerprint)
            ),
            None,
        )

    def _on_closed(self, slide: SlideSession) -> None:
        if slide is self._slide and self.current is not None:
            self._slide = self._run = None
            self.current, self.stage = None, "none"
            self.case_changed.emit()

    # --- the own answer -------------------------------------------------------------------------

    def give(self, answer: str) -> None:
        """Choose the own answer, or, once the model's is shown, the one that one ends with."""
        if self.project is None or self.log is None or self.current is None:
            return
        if self.stage == "own":
            self.given = answer
        else:
            blind.decide(self.log, self.project, self.current.name, answer)
            self._update_row(self.current)
        self.case_changed.emit()

    def rate(self, confidence: int) -> None:
        """Say how sure the own answer is, 1 to 5."""
        self.confidence = confidence
        self.case_changed.emit()

    def lock(self) -> None:
        """Lock the own answer and show the model's.

        Raises
        ------
        HistomilError
            If there is no answer, or no confidence, or they cannot be written.
        """
        if self.project is None or self.log is None or self.current is None:
            return
        if self.given is None or self.confidence is None:
            raise ReviewError(
                "Give your own answer and say how sure you are, 1 to 5, before you lock them."
            )
        seconds = time.monotonic() - self._since
        blind.lock(
            self.log, self.project, self.current.name, self.given, self.confidence, seconds=seconds
        )
        self.stage = "shown"
        self._reveal()
        self._update_row(self.current)
        self.case_changed.emit()

    @property
    def main(self) -> Prediction | None:
        """The main model's answer for the case, once it may be seen."""
        if self.current is None or self.stage != "shown":
            return None
        facts = self._facts.get(self.current.name)
        return facts.predictions[0] if facts is not None and facts.predictions else None

    def _reveal(self) -> None:
        """Lay the main model's result over the slide."""
        main = self.main
        store = None if self._opened is None else self._opened.store
        if main is None or store is None or self.current is None:
            return
        assert self.project is not None
        assert self.log is not None
        if self.project.blind:
            answer = main.classes[main.predicted(self.project.threshold)]
            blind.reveal(self.log, self.project, self.current.name, answer, main.run_id)
        try:
            self._run = overlays(self.session.viewer).add(store)
        except HistomilError as error:
            self.failed.emit(error)

    def _keep_blind(self) -> None:
        """Take away a result that something laid over a slide that is read blindly."""
        if self.stage != "own" or self._slide is None:
            return
        laid = self.session.runs_of(self._slide)
        for run in laid:
            self.session.remove_run(run)
        if laid:
            self.told.emit("Results are shown once your own answer is locked.")

    # --- places ---------------------------------------------------------------------------------

    @property
    def place(self) -> Place | None:
        """The place that is looked at."""
        return None if self.at is None else self.places[self.at].place

    def step(self, by: int) -> None:
        """Go to the next place to judge, or back; after the last one the whole slide is seen."""
        if self.stage != "shown" or not self.places:
            return
        here = -1 if self.at is None else self.at
        if self.at is None and by < 0:
            here = len(self.places)
        there = here + by
        self.at = there if 0 <= there < len(self.places) else None
        self._look()
        self.case_changed.emit()

    def _look(self) -> None:
        viewer, slide = self.session.viewer, self._slide
        if slide is None:
            return
        place = self.place
        if place is None:
            rect = None if self._opened is None else self._opened.rect
            if rect is None:
                self.session.fit(slide.info)
            else:
                fit_rect(viewer, slide.info, rect)
        elif self._run is not None:
            rects = [(*place.xy_px0, *place.size_px0)]
            overlays(viewer).look_closely(self._run, rects)

    def _first_unjudged(self) -> int | None:
        """Return the first place to judge if judging has begun, else None: the whole slide."""
        judged = [self.is_judged(n) for n in range(len(self.places))]
        return judged.index(False) if any(judged) and not all(judged) else None

    def is_judged(self, number: int) -> bool:
        """Whether this reader has answered something about a place."""
        return any(self.answer_to(q, self.places[number].place) is not None for q in self._asked)

    @property
    def _asked(self) -> tuple[Question, ...]:
        return () if self.project is None else self.project.form.about("place")

    def answer_to(self, question: Question, place: Place | None = None) -> Answer:
        """Return what this reader answered to a question about a place, or about the case."""
        if self.log is None or self.current is None:
            return None
        return self.log.answer(self.current.name, question.name, place, model=self._model)

    @property
    def _model(self) -> str | None:
        return None if self.main is None else self.main.run_id

    def judge(self, question: Question, answer: Any, *, go_on: bool = False) -> None:
        """Answer a question of the form, about the place that is looked at, or about the case.

        Parameters
        ----------
        question
            Of the project's form.
        answer
            As `Question.checked`; None takes the answer back.
        go_on
            Go to the next place afterwards.

        Raises
        ------
        HistomilError
            If it does not answer the question, no place is looked at, or it cannot be written.
        """
        if self.log is None or self.current is None or self.stage != "shown":
            raise ReviewError("Lock your own answer first: then places are judged.")
        place = self.place if question.about == "place" else None
        if question.about == "place" and place is None:
            raise ReviewError("Go to a place first (key: N): what is judged is a place.")
        kept = None if answer is None else question.checked(answer)
        self.log.append(Verdict(self.current.name, place, question.name, kept, model=self._model))
        self._update_row(self.current)
        if go_on and self.goes_on:
            self.step(1)
        else:
            self.case_changed.emit()

    def keep(self, *verdicts: Verdict) -> None:
        """Keep verdicts about places of any case, as one step: galleries and lassos do.

        Raises
        ------
        HistomilError
            If nothing is under review, a case is read blindly and its own answer is not locked,
            or they cannot be written.
        """
        if self.project is None or self.log is None:
            raise ReviewError("Open a review first: what is judged belongs to it.")
        named = [self.project[each.case] for each in verdicts]
        hidden = [case.name for case in named if self.row(case).hidden]
        if hidden:
            raise ReviewError(f"Lock your own answer for {hidden[0]} first.")
        self.log.append(*verdicts)
        for name in dict.fromkeys(case.name for case in named):
            self._update_row(self.project[name])
        self.case_changed.emit()

    def mark(self) -> None:
        """Let the next click mark what the model missed, or not."""
        if self.stage == "shown":
            self.marking = not self.marking
            self.case_changed.emit()

    def mark_missed(self, xy_px0: tuple[float, float]) -> None:
        """Keep that the model missed something, and draw a region there."""
        slide = self._slide
        if self.log is None or self.current is None or slide is None or self.stage != "shown":
            return
        unit_y, unit_x = world_scale(slide.info)
        size = MISSED_UM / unit_x, MISSED_UM / unit_y
        corner = xy_px0[0] - size[0] / 2, xy_px0[1] - size[1] / 2
        place = Place(slide.info.fingerprint, corner, size)
        self.log.append(Verdict(self.current.name, place, MISSED, True, model=self._model))
        self.marking = False
        shape = box(*corner, corner[0] + size[0], corner[1] + size[1])
        state = annotator(self.session.viewer)
        stamp = Stamp.now(self.log.reader)
        state.do(commands.add([Region(shape, class_named(MISSED_CLASS))], stamp))
        self._update_row(self.current)
        self.case_changed.emit()

    def take_back(self) -> None:
        """Take back the last judgement, and go to its place."""
        if self.stage == "own":
            self.given, self.confidence = (None, None) if self.confidence is None else (
                self.given, None,
            )  # fmt: skip
            self.case_changed.emit()
            return
        if self.log is None or self.current is None:
            return
        undone = self.log.take_back()
        if not undone:
            self.told.emit("There is no judgement to take back.")
            return
        spots = [spot.place for spot in self.places]
        if undone[0].case == self.current.name and undone[0].place in spots:
            self.at = spots.index(undone[0].place)
            self._look()
        self._update_row(self.current)
        self.case_changed.emit()

    # --- done -----------------------------------------------------------------------------------

    def finish(self) -> None:
        """Call the case done and show the next one that is to be read.

        Raises
        ------
        HistomilError
            If it is read blindly and no answer is locked, or it cannot be written.
        """
        if self.log is None or self.current is None:
            return
        if self.stage == "own":
            raise ReviewError("Lock your own answer first: then the case can be done.")
        if self.row(self.current).values["status"] != "done":
            self.log.append(Verdict(self.current.name, None, cases.STATUS, "done"), for_good=True)
        self._update_row(self.current)
        following = self.following(undone=True)
        if following is None:
            self.case_changed.emit()
            self.finished.emit()
        else:
            self.go(following)


_REVIEWS = PerViewer(Reviewing)


def reviewing(viewer: Any) -> Reviewing:
    """Return the review of a viewer, begun at the first call.

    Parameters
    ----------
    viewer
        A napari viewer, a ``ViewerModel``, or the proxy of one that napari gives to plugins.
    """
    return _REVIEWS.of(viewer)
