"""The Run dock: a model, where it looks, start; the result fills in while the person goes on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QHBoxLayout, QPushButton, QSizePolicy, QWidget
from superqt import QElidingLabel

from napari_histomil.errors import HistomilError, RunError
from napari_histomil.inference.job import Job, plan_job
from napari_histomil.results import MilRun, open_result, run_path
from napari_histomil.slides.slide import SlideInfo
from napari_histomil.ui import jobs
from napari_histomil.ui.dialogs import ask_mpp, show_error
from napari_histomil.ui.layers import center_of_view_px0
from napari_histomil.ui.overlays import overlays
from napari_histomil.ui.run_facts import AnyStore
from napari_histomil.ui.run_job import RunUpdate, ViewPoint, run_updates
from napari_histomil.ui.session import RunView, SlideSession, session
from napari_histomil.ui.widgets.answer import Answer
from napari_histomil.ui.widgets.device_picker import DevicePicker
from napari_histomil.ui.widgets.forms import fold
from napari_histomil.ui.widgets.from_file import FromFileButton
from napari_histomil.ui.widgets.model_picker import ModelPicker
from napari_histomil.ui.widgets.panel import Panel, follow, plain_label
from napari_histomil.ui.widgets.region_picker import RegionPicker
from napari_histomil.ui.widgets.run_options import RunOptions
from napari_histomil.ui.widgets.run_progress import RunProgress
from napari_histomil.ui.words import count

_ANSWER = "Answer"
_PREPARING_MIL = "Preparing: loading model and encoder, looking for tissue…"

_LOOK_MS = 300
"""Rest after the last change before the disk is asked for an earlier run of the same job."""


class RunWidget(Panel):
    """Dock that runs models on the active slide of one viewer."""

    def __init__(self, napari_viewer: Any, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session(napari_viewer)
        self._overlays = overlays(napari_viewer)
        self._job: jobs.JobHandle | None = None
        self._slide: SlideSession | None = None  # the one that the job looks at
        self._run: RunView | None = None  # the result that fills in
        self._last: RunUpdate | None = None
        self._view_point = ViewPoint()
        self._earlier: AnyStore | None = None

        self.models = ModelPicker()
        self.section("Model").addWidget(self.models)
        self.slide_label = QElidingLabel()  # a file name has no blanks to wrap at
        self.slide_label.setElideMode(Qt.TextElideMode.ElideMiddle)
        self.slide_label.setEllipsesWidth(14)  # and the padding of napari's labels
        self.slide_label.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.size_label = plain_label(tooltip="Its size, and how much a pixel spans")
        column = self.section("Slide")
        column.setSpacing(0)
        column.addWidget(self.slide_label)
        column.addWidget(self.size_label)
        self.region = RegionPicker(self._session.viewer)
        self.section("Where to look").addWidget(self.region)
        self.devices = DevicePicker()
        self.section("Device").addWidget(self.devices)
        self.options = RunOptions()
        self.more = fold(
            "More options", self.options, tooltip="Settings other than the model's own"
        )
        self.add(self.more)
        self.earlier_label = plain_label(tooltip="The same job, with the same choices, on disk")
        self.progress = RunProgress()
        self.add(self._make_buttons())  # above what comes and goes, so that they stay in place
        self.add(self.earlier_label)
        self.add(self.progress)
        self.from_file = FromFileButton(self._overlays, self.models, self.devices)
        self.add(self.from_file)
        self.answer = Answer()
        self.section(_ANSWER).addWidget(self.answer)
        self._show_answer(self._overlays.current)

        self._asker = QTimer(self)
        self._asker.setSingleShot(True)
        self._asker.setInterval(_LOOK_MS)
        self._asker.timeout.connect(self._look_for_earlier)
        self._follower = QTimer(self)
        self._follower.setInterval(jobs.REFRESH_MS)
        self._follower.timeout.connect(self._follow_view)

        self.models.changed.connect(self._take_model)
        self.region.changed.connect(self._changed)
        self.options.changed.connect(self._changed)
        follow(self, self._overlays.current_changed, self._show_answer)
        follow(self, self._session.active_changed, self._changed)
        follow(self, self._session.slide_changed, self._changed)
        follow(self, self._session.runs_changed, self._changed)
        follow(self, self._session.models_changed, self.models.look)
        follow(self, self._session.model_wanted, self.models.choose)
        self._changed()

    def _make_buttons(self) -> QWidget:
        self.start_button = QPushButton("Start")
        self.start_button.clicked.connect(self.start)
        self.cancel_button = QPushButton("Cancel")
        self.cancel_button.setToolTip(
            "Stop within a second; the tiles that are done are kept, and Resume goes on from there"
        )
        self.cancel_button.clicked.connect(self.cancel)
        holder = QWidget()
        row = QHBoxLayout(holder)
        row.setContentsMargins(0, 8, 0, 0)
        row.setSpacing(6)
        row.addWidget(self.start_button, 2)
        row.addWidget(self.cancel_button, 1)
        return holder

    # ---------------------------------------------------------------- what could be run

    @property
    def running(self) -> bool:
        """Whether a job is running."""
        return self._job is not None

    def _take_model(self) -> None:
        model = self.models.model
        if model is not None:
            self.options.take_from(model)
        self._changed()

    def _changed(self, _: Any = None) -> None:
        """Show what the choices come to; the disk is asked when they have come to rest."""
        self._earlier = None
        self.earlier_label.setText("")
        if self._job is None:
            self.progress.idle("")  # how the last run ended says nothing of these choices
        # A run goes on when the person turns to another slide, and says which one it is of.
        slide = self._session.active if self._job is None else self._slide
        self.slide_label.setText("No slide is open." if slide is None else slide.name)
        self.slide_label.setToolTip("" if slide is None else str(slide.info.path))
        self.size_label.setText("" if slide is None else _size_text(slide.info))
        self._asker.start()
        self._update()

    def _update(self) -> None:
        """Enable what is possible now; what is not says why."""
        why_not = self._why_not()
        earlier = self._earlier
        self.start_button.setText(
            "Start" if earlier is None else "Show result" if _is_whole(earlier) else "Resume"
        )
        self.start_button.setEnabled(not why_not)
        self.start_button.setToolTip(why_not or "Look at every tile; you can go on meanwhile")
        self.cancel_button.setEnabled(self._job is not None and not self._job.cancelled)
        self.earlier_label.setVisible(bool(self.earlier_label.text()) and self._job is None)
        for widget in (self.models, self.region, self.devices, self.more):
            widget.setEnabled(self._job is None)

    def _why_not(self) -> str:
        if self._job is not None:
            return "A model is running: cancel it, or wait until it is done"
        if self._session.active is None:
            return "Open a slide first"
        if self.models.model is None:
            return "Choose a model first"
        return ""

    def plan(self) -> Job:
        """Return the job that the choices describe.

        Raises
        ------
        HistomilError
            If they describe none, in one sentence.
        """
        slide, model = self._session.active, self.models.model
        if slide is None or model is None:
            raise RunError(f"{self._why_not()}.")
        if model.mil is not None:
            return plan_job(
                slide.info,
                model,
                region=self.region.region(slide.info),
                stain=self.options.stain,
                mil=self.options.mil.spec,
            )
        return plan_job(
            slide.info,
            model,
            region=self.region.region(slide.info),
            stain=self.options.stain,
            mpp=self.options.mpp,
            stride_px=self.options.stride_px,
        )

    def _look_for_earlier(self) -> None:
        """Find out, beside the window, whether this job has been run before."""
        slide = self._session.active
        if self._job is not None or slide is None or not slide.has_mpp:
            return
        try:
            job = self.plan()
        except HistomilError:
            return  # said when the person presses Start; while choosing it is no news
        info = slide.info

        def look(cancel: threading.Event) -> Iterator[AnyStore]:
            path = run_path(info.path, job.run_id, fingerprint=info.fingerprint)
            if path.is_dir():
                yield open_result(path)

        jobs.start(
            look,
            on_progress=lambda stores: self._found_earlier(job.run_id, stores[0]),
            on_done=lambda _: None,
            on_error=self._earlier_is_damaged,
            title="the search for an earlier run",
            owner=self,
        )

    def _found_earlier(self, run_id: str, store: AnyStore) -> None:
        try:
            current = self._job is None and self.plan().run_id == run_id
        except HistomilError:
            current = False
        if not current:
            return  # the person has chosen something else meanwhile
        self._earlier = store
        if isinstance(store, MilRun):
            shown = any(run.store.run_id == run_id for run in self._session.runs)
            self.earlier_label.setText("" if shown else "This has been answered already.")
            self._update()
            return
        done, total = count(int(store.done_tiles.sum())), count(len(store.grid))
        if not store.complete:
            text = f"{done} of {total} tiles are already done: Resume goes on from there."
        elif any(run.store.run_id == run_id for run in self._session.runs):
            text = ""
        else:
            text = f"This has been computed already: all {total} tiles are stored."
        self.earlier_label.setText(text)
        self._update()

    def _earlier_is_damaged(self, error: Exception) -> None:
        self.earlier_label.setText(str(error))
        self._update()

    # ----------------------------------------------------------------------- running it

    def start(self) -> None:
        """Run what is chosen; asks for the slide's µm/px where they are unknown."""
        slide = self._session.active
        if slide is None or self._job is not None:
            return
        if not slide.has_mpp:
            ask_mpp(slide.info, partial(self._set_mpp_and_start, slide), self)
            return
        try:
            job = self.plan()
        except HistomilError as error:
            show_error(error, self, info=slide.info)
            return
        earlier = self._earlier
        if earlier is not None and earlier.run_id == job.run_id and _is_whole(earlier):
            self._overlays.add(earlier)
            return
        self._slide, self._run, self._last = slide, None, None
        self._follow_view()
        self.progress.prepare(*([_PREPARING_MIL] if job.task == "mil" else []))
        self._job = jobs.start(
            partial(
                run_updates,
                job,
                self._view_point,
                device=self.devices.device,
                batch=self.options.batch,
                models=tuple(self.models.folders),
            ),
            on_progress=self._show_updates,
            on_done=self._end,
            on_error=self._fail,
            title=f"the run of {job.model.name} on {slide.name}",
            owner=self,
        )
        self._follower.start()
        self._show_answer(None)  # an earlier one would seem to be that of this run
        self._update()

    def cancel(self) -> None:
        """Stop the running job."""
        if self._job is not None:
            self._job.cancel()
            self.progress.label.setText("Cancelling…")
            self._update()

    def _show_answer(self, run: RunView | None) -> None:
        """Say what a MIL model has answered for the slide, where such a run is shown."""
        shown = run is not None and run.attention is not None and self._job is None
        answered = run.store if shown else None
        self.answer.show_run(answered)
        self.show_section(_ANSWER, shown=answered is not None)

    def _set_mpp_and_start(self, slide: SlideSession, mpp: float) -> None:
        try:
            self._session.set_mpp(slide, mpp)
        except HistomilError as error:
            show_error(error, self, info=slide.info)
            return
        self.start()

    def _follow_view(self) -> None:
        """Tell the engine where the person looks."""
        if self._slide is not None and self._session.active is self._slide:
            viewer = self._session.viewer
            self._view_point.xy_px0 = center_of_view_px0(viewer, self._slide.info)

    def _show_updates(self, updates: list[RunUpdate]) -> None:
        self._last = updates[-1]
        if self._job is not None and not self._job.cancelled:
            self.progress.show_progress(self._last.progress)
        if self._last.store is None:
            return  # a MIL model has not answered yet
        if self._run is None:
            try:
                self._run = self._overlays.add(self._last.store)
            except RunError:
                return  # its slide was closed or scaled anew meanwhile; the disk has it all
            self._run.store = self._last.store  # the one that goes on being read
        if self._run not in self._session.runs:
            return
        scores = [update.scores for update in updates if update.scores is not None]
        if self._run.segmentation is not None:
            self._run.segmentation.fill([update.progress.rect_px0 for update in updates])
        elif scores:
            self._run.heatmap.fill(scores[-1])

    def _end(self, _: Any) -> None:
        cancelled = self._job is not None and self._job.cancelled
        last = self._last
        self._stop()
        if last is not None:
            self.progress.end(last.progress, cancelled=cancelled)
        else:
            self.progress.idle("Cancelled before the first tile." if cancelled else "")

    def _fail(self, error: Exception) -> None:
        slide, run = self._slide, self._run
        self._stop()
        if run is not None and not run.store.path.exists():
            self._session.remove_run(run)  # nothing was done, and nothing was left behind
        self.progress.idle("Stopped by an error; the tiles that were done are kept.")
        show_error(error, self, info=slide.info if slide is not None else None)

    def _stop(self) -> None:
        """Leave the running state, whatever the reason."""
        self._follower.stop()
        self._job = self._slide = self._run = self._last = None
        self._changed()
        self._show_answer(self._overlays.current)


def _is_whole(store: AnyStore) -> bool:
    """Return whether nothing is left to compute; a MIL run is there whole, or not at all."""
    return isinstance(store, MilRun) or store.complete


def _size_text(info: SlideInfo) -> str:
    if info.mpp_x is None or info.mpp_y is None:
        return "µm/px unknown: you will be asked"
    width, height = info.width_px0 * info.mpp_x / 1000, info.height_px0 * info.mpp_y / 1000
    return f"{width:.3g} x {height:.3g} mm at {info.mpp:.3g} µm/px"
