"""Files in the Annotate dock: import, export, masks, and a file that another program changed."""

from __future__ import annotations

import threading
from collections.abc import Generator
from functools import partial
from pathlib import Path

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog, QPushButton, QWidget

from napari_histomil.annotations import commands
from napari_histomil.annotations.files import AnnotationFile
from napari_histomil.annotations.foreign import Choice
from napari_histomil.annotations.formats import check_slide, read_annotations
from napari_histomil.annotations.model import SlideFrame
from napari_histomil.ui import jobs
from napari_histomil.ui.annotator import Annotator
from napari_histomil.ui.dialogs import show_error
from napari_histomil.ui.session import SlideSession
from napari_histomil.ui.widgets.annotate_part import Part
from napari_histomil.ui.widgets.export_dialog import ExportDialog
from napari_histomil.ui.widgets.icon_button import row
from napari_histomil.ui.widgets.import_dialog import ImportDialog
from napari_histomil.ui.widgets.mask_dialog import MaskDialog
from napari_histomil.ui.widgets.panel import plain_label

READABLE = "*.geojson *.json *.xml *.annotations *.csv *.gz *.zip"

_CHOICES: tuple[tuple[Choice, str, str], ...] = (
    ("theirs", "Theirs", "Take what is in the file instead of what is here; that can be undone"),
    ("ours", "Ours", "Write what is here to the file; what was in it is kept beside it"),
    ("both", "Both", "Bring in what only the file has, and copies of what differs"),
)


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
        self._reading = False
        self.follow(annotator.slide_changed, annotator.changed, annotator.saving_changed)

    def refresh(self) -> None:
        """Enable what can be done now; ask if another program changed the file."""
        keeper, slide = self.annotator.keeper, self.annotator.slide
        conflict = None if keeper is None else keeper.conflict
        self.conflict_label.setVisible(conflict is not None)
        self._choices.setVisible(conflict is not None)
        if conflict is not None and keeper is not None:
            self.conflict_label.setText(f"⚠ {conflict} Whose shall count?")
            self.conflict_label.setToolTip(str(keeper.folder))
        why_not = self.why_not()
        if self._reading:
            why_not = "A file is being read"
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
        if slide is None or self._reading:
            return
        self._reading = True
        self.say(f"Reading {path.name}…")
        self.refresh()

        def done(file: AnnotationFile | None) -> None:
            self._reading = False
            self.say("")
            self.later()
            if file is not None and self.annotator.slide is slide:
                dialog = ImportDialog(self.annotator, path, file, self)
                dialog.mapped.connect(partial(self._bring_in, slide, path))
                dialog.open()

        def failed(error: Exception) -> None:
            self._reading = False
            self.say("")
            self.later()
            show_error(error, self)

        jobs.start(
            partial(read_for, slide, path),
            on_progress=lambda _: None,
            on_done=done,
            on_error=failed,
            title=f"reading {path.name}",
            owner=self,
        )

    def _bring_in(self, slide: SlideSession, path: Path, file: AnnotationFile, known: str) -> None:
        annotator = self.annotator
        if annotator.slide is not slide:
            self.say(f"Another slide is shown: {path.name} was not brought in.")
            return
        if not file.regions:
            self.say(f"{path.name} has no regions left to bring in.")
            return
        done = annotator.attempt(
            lambda regions: commands.bring_in(regions, file.regions, path.name, known=known)
        )
        if done:
            annotator.set_classes(annotator.classes.adopting(file.regions))
            regions = annotator.regions
            said = (regions.can_undo or "") if regions is not None else ""
            self.say("\n".join([f"Done: {said}.", *file.notes]))

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
        keeper = self.annotator.keeper
        if keeper is not None:
            self.attempt(lambda: keeper.resolve(choice))
            self.later()


def read_for(
    slide: SlideSession, path: Path, _cancel: threading.Event
) -> Generator[None, None, AnnotationFile]:
    """Read a file that is meant for a slide; refuse one of another slide. Runs in a thread."""
    yield from ()
    file = read_annotations(path, frame=SlideFrame.of(slide.info))
    check_slide(file, slide.info)
    return file
