"""Files in the Annotate dock: import, export, masks, and a file that another program changed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path
from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog, QPushButton, QWidget

from napari_histomil.annotations.arriving import Arrival, arrival
from napari_histomil.annotations.commands import Known
from napari_histomil.annotations.files import AnnotationFile
from napari_histomil.annotations.foreign import Choice, Settlement, settlement
from napari_histomil.annotations.formats import check_slide, read_annotations
from napari_histomil.annotations.mapping import ClassMapping
from napari_histomil.annotations.model import SlideFrame
from napari_histomil.annotations.recovery import FILE_NAME
from napari_histomil.ui import jobs
from napari_histomil.ui.annotator import Annotator
from napari_histomil.ui.dialogs import show_error
from napari_histomil.ui.session import SlideSession
from napari_histomil.ui.widgets.annotate_part import Part
from napari_histomil.ui.widgets.export_dialog import ExportDialog
from napari_histomil.ui.widgets.icon_button import row
from napari_histomil.ui.widgets.import_dialog import Group, ImportDialog, groups_of
from napari_histomil.ui.widgets.mask_dialog import MaskDialog
from napari_histomil.ui.widgets.panel import follow, plain_label

READABLE = "*.geojson *.json *.xml *.annotations *.csv *.gz *.zip"

_CHOICES: tuple[tuple[Choice, str, str], ...] = (
    ("theirs", "Theirs", "Take what is in the file instead of what is here; that can be undone"),
    ("ours", "Ours", "Write what is here to the file; what was in it is kept beside it"),
    ("both", "Both", "Bring in what only the file has, and copies of what differs"),
)


_NOTHING_CAME: dict[Choice, str] = {
    "theirs": "The file holds what is here already.",
    "ours": "What is here counts; what the other program wrote is kept beside the file.",
    "both": "The file holds nothing that is not here already.",
}
"""What is said of a choice that changes nothing here."""


class FilePart(Part):
    """Buttons for files, and the question when another program has changed ours."""

    def __init__(self, annotator: Annotator, parent: QWidget | None = None) -> None:
        super().__init__(annotator, parent)
        self.import_button = QPushButton("Import…")
        self.import_button.clicked.connect(self._ask_import)
        self.export_button = QPushButton("Export…")
        self.export_button.clicked.connect(self._ask_export)
        self.mask_button = QPushButton("Mask…")
        self.mask_button.clicked.connect(self._ask_mask)
        self.words = plain_label()
        self.words.hide()
        self.conflict_label = plain_label()
        self.choice_buttons: dict[Choice, QPushButton] = {}
        for choice, words, tooltip in _CHOICES:
            button = QPushButton(words)
            button.setToolTip(tooltip)
            button.clicked.connect(partial(self.resolve, choice))
            self.choice_buttons[choice] = button
        self._choices = row(*self.choice_buttons.values())
        self.column.addWidget(self.conflict_label)
        self.column.addWidget(self._choices)
        self.column.addWidget(row(self.import_button, self.export_button, self.mask_button))
        self.column.addWidget(self.words)
        self._job: jobs.JobHandle | None = None
        self._job_slide: SlideSession | None = None
        follow(self, annotator.session.slide_closed, self._on_closed)
        self.follow(annotator.slide_changed, annotator.changed, annotator.saving_changed)

    def refresh(self) -> None:
        """Enable what can be done now; ask if another program changed the file."""
        keeper, slide = self.annotator.keeper, self.annotator.slide
        conflict = None if keeper is None else keeper.conflict
        self.conflict_label.setVisible(conflict is not None)
        self._choices.setVisible(conflict is not None)
        self._choices.setEnabled(self._job is None)
        if conflict is not None and keeper is not None:
            self.conflict_label.setText(f"⚠ {conflict} Whose shall count?")
            self.conflict_label.setToolTip(str(keeper.folder))
        why_not = self.why_not()
        if self._job is not None:
            why_not = "A file is being read, or brought in"
        self.import_button.setEnabled(why_not is None)
        self.import_button.setToolTip(
            why_not or "Bring in regions: QuPath GeoJSON, ASAP, ImageScope, HALO, DSA, WSInfer"
        )
        empty = "Open a slide first" if slide is None else None
        if slide is not None and not len(self.annotator.regions or ()):
            empty = "Nothing is drawn yet"
        self.export_button.setEnabled(empty is None)
        self.export_button.setToolTip(empty or "Write regions for another program")
        no_scale = slide is not None and not slide.has_mpp
        mask = empty or ("The slide's µm/px are not known" if no_scale else None)
        self.mask_button.setEnabled(mask is None)
        self.mask_button.setToolTip(mask or "Write a picture whose values are the classes")

    def say(self, text: str) -> None:
        """Show sentences about what was read or written."""
        self.words.setText(text)
        self.words.setVisible(bool(text))

    # --- import ---

    def _ask_import(self) -> None:
        dialog = QFileDialog(
            self, "Import annotations", "", f"Annotations ({READABLE});;All files (*)"
        )
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.fileSelected.connect(lambda file: self.import_file(Path(file)))
        dialog.open()

    def import_file(self, path: Path) -> None:
        """Read a file beside the window, then ask what its groups shall become."""
        slide = self.annotator.slide
        if slide is None or self._job is not None:
            return

        def work(
            cancel: threading.Event,
        ) -> Generator[None, None, tuple[AnnotationFile, list[Group]]]:
            file = yield from read_for(slide, path, cancel)
            return file, groups_of(file)

        def done(found: tuple[AnnotationFile, list[Group]]) -> None:
            if self.annotator.slide is slide:
                file, groups = found
                dialog = ImportDialog(self.annotator, path, file, groups, self)
                dialog.chosen.connect(partial(self._bring_in, slide, path, file))
                dialog.open()

        self._start(slide, f"Reading {path.name}", work, done)

    def _bring_in(
        self,
        slide: SlideSession,
        path: Path,
        file: AnnotationFile,
        mapping: ClassMapping | None,
        known: Known,
    ) -> None:
        """Have the step made beside the window, then do it."""
        regions = self.annotator.regions
        if self.annotator.slide is not slide or regions is None:
            self.say(f"Another slide is shown: {path.name} was not brought in.")
            return
        shift = SlideFrame.of(slide.info).origin_px0

        def work(_cancel: threading.Event) -> Generator[None, None, Arrival]:
            yield from ()
            return arrival(regions, file, mapping, path.name, known=known, shift=shift)

        def done(came: Arrival) -> None:
            if self.annotator.slide is not slide:
                self.say(f"Another slide is shown: {path.name} was not brought in.")
            else:
                self._take_in(path, came)

        self._start(slide, f"Bringing in {path.name}", work, done)

    def _take_in(self, path: Path, came: Arrival) -> None:
        command, annotator = came.command, self.annotator
        if not command.added and command.extra is None:
            said = f"{path.name} has no regions left to bring in."
        elif annotator.do(command, ready=True):
            annotator.set_classes(annotator.classes.with_all(came.classes))
            said = f"Done: {command.text}."
        else:
            return
        self.say("\n".join([said, *came.notes]))

    def _start(
        self,
        slide: SlideSession,
        what: str,
        work: Callable[[threading.Event], Generator[None, None, Any]],
        then: Callable[[Any], None],
    ) -> None:
        """Do something for a slide beside the window; its result counts while that is open."""

        def ended() -> None:
            self._job = None
            self.say("")
            self.later()

        def done(result: Any) -> None:
            cancelled = job.cancelled
            ended()
            if result is not None and not cancelled:
                then(result)

        def failed(error: Exception) -> None:
            cancelled = job.cancelled
            ended()
            if not cancelled:
                show_error(error, self)

        job = jobs.start(
            work,
            on_progress=lambda _: None,
            on_done=done,
            on_error=failed,
            title=what[0].lower() + what[1:],
            owner=self,
        )
        self._job, self._job_slide = job, slide
        self.say(f"{what}…")
        self.refresh()

    def _on_closed(self, slide: SlideSession) -> None:
        if self._job is not None and slide is self._job_slide:
            self._job.cancel()

    # --- export, mask ---

    def _ask_export(self) -> None:
        dialog = ExportDialog(self.annotator, self)
        dialog.said.connect(self.say)
        dialog.open()

    def _ask_mask(self) -> None:
        dialog = MaskDialog(self.annotator, self)
        dialog.said.connect(self.say)
        dialog.open()

    # --- another program ---

    def resolve(self, choice: Choice) -> None:
        """Settle whose regions count when another program has changed the file."""
        keeper, slide = self.annotator.keeper, self.annotator.slide
        if keeper is None or slide is None or self._job is not None:
            return
        regions, path, frame = keeper.annotations, keeper.folder / FILE_NAME, keeper.frame

        def work(_cancel: threading.Event) -> Generator[None, None, Settlement]:
            yield from ()
            return settlement(choice, regions, path, frame)

        def done(found: Settlement) -> None:
            def settle() -> None:
                step = keeper.resolve(choice, found)
                said = f"Done: {step.text}." if step is not None else _NOTHING_CAME[choice]
                self.say("\n".join([said, *keeper.notes]))

            self.attempt(settle)
            self.later()

        self._start(slide, f"Reading {path.name}", work, done)


def read_for(
    slide: SlideSession, path: Path, _cancel: threading.Event
) -> Generator[None, None, AnnotationFile]:
    """Read a file that is meant for a slide; refuse one of another slide. Runs in a thread."""
    yield from ()
    file = read_annotations(path, frame=SlideFrame.of(slide.info))
    check_slide(file, slide.info)
    return file
