"""The Review dock: which cases, the one that is read, and what others add below in folds.

`Reviewing` knows what is under review; the parts of the dock only show it and pass on what is
clicked. The keys of a review belong to the window as long as a case is read (`ReviewKeys`).
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from qtpy.QtCore import QObject, QSignalBlocker, Qt, Slot
from qtpy.QtGui import QKeySequence, QShortcut, QShowEvent
from qtpy.QtWidgets import (
    QApplication,
    QCheckBox,
    QDockWidget,
    QFileDialog,
    QLineEdit,
    QMainWindow,
    QMenu,
    QPlainTextEdit,
    QPushButton,
    QWidget,
)
from superqt import QCollapsible

from napari_histomil.annotations.stamps import system_user
from napari_histomil.errors import HistomilError, ReviewError
from napari_histomil.review.project import SUFFIX
from napari_histomil.ui.annotator import annotator
from napari_histomil.ui.camera import focus_canvas
from napari_histomil.ui.dialogs import show_error
from napari_histomil.ui.keys import REVIEW_KEYS
from napari_histomil.ui.layers import to_px0
from napari_histomil.ui.preferences import keep_author, preferred_author
from napari_histomil.ui.review_press import keys_of, press
from napari_histomil.ui.reviewing import Reviewing, reviewing
from napari_histomil.ui.widgets.case import CasePart
from napari_histomil.ui.widgets.cases import CaseTable
from napari_histomil.ui.widgets.forms import fold, form
from napari_histomil.ui.widgets.gallery_part import GalleryPart
from napari_histomil.ui.widgets.icon_button import row
from napari_histomil.ui.widgets.panel import Panel, follow, plain_label
from napari_histomil.ui.widgets.recording import RecordingPart
from napari_histomil.ui.widgets.report_button import ReportButton
from napari_histomil.ui.widgets.stain_change import StainChangePart
from napari_histomil.ui.widgets.truth import AgainstTruth

CLICK_PX = 5
"""A press that moves the pointer by more is a drag of the view."""


class ReviewWidget(Panel):
    """Dock about the review in one viewer.

    Attributes
    ----------
    state
        What is under review.
    cases, case
        The table, and the case that is read.
    """

    def __init__(self, napari_viewer: Any, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.state = reviewing(napari_viewer)
        self._viewer = self.state.session.viewer
        self._keys: ReviewKeys | None = None
        self._table_dock: QDockWidget | None = None
        self.folds: dict[str, QCollapsible] = {}
        self._make_head()
        self.cases = CaseTable(self.state)
        self.case = CasePart(self.state)
        self.table_button = QPushButton("All columns…")
        self.table_button.setToolTip("Show the table with all columns below the slide")
        self.table_button.clicked.connect(self.show_table)
        self.resume_button = QPushButton("Go on where I stopped")
        self.resume_button.clicked.connect(self.state.resume)
        self.add_fold("Cases", self.cases, "The slides under review").expand(animate=False)
        self.report_button = ReportButton(self.state)
        buttons = row(self.resume_button, self.table_button, self.report_button)
        self.cases.layout().addWidget(buttons)
        self.add_fold("This case", self.case, "Answer, judge, go on").expand(animate=False)
        self.truth = AgainstTruth(self._viewer)
        self.add_fold("Against the truth", self.truth, "Where the shown run is right and wrong")
        self.stains = StainChangePart(self._viewer)
        self.add_fold("Stained otherwise", self.stains, "What the model would say then")
        self.stains.map_shown.connect(self.truth.hide_maps)  # one map at a time
        self.truth.map_shown.connect(lambda: self.stains.map_box.setChecked(False))
        self.gallery = GalleryPart(self.state)
        self.add_fold("Gallery and embedding", self.gallery, "Tiles worth a look, of all cases")
        self.add_fold("How I read", RecordingPart(self.state), "Viewing time, if you agree to it")
        follow(self, self.state.project_changed, self._on_project)
        follow(self, self.state.case_changed, self._on_case)
        follow(self, self.state.failed, self._on_failed)
        follow(self, self.state.told, self._tell)
        pressed = _held_weakly(self._on_press)
        self._viewer.mouse_drag_callbacks.append(pressed)
        self.destroyed.connect(partial(_let_go, weakref.ref(self.state), pressed))
        self._on_project()

    def add_fold(self, title: str, widget: QWidget, tooltip: str) -> QCollapsible:
        """Add a part of the dock at its bottom; it is closed at first."""
        self.folds[title] = fold(title, widget, tooltip=tooltip)
        self.add(self.folds[title])
        return self.folds[title]

    def _make_head(self) -> None:
        column = self.section("Review")
        self.open_button = QPushButton("Open…")
        self.open_button.setToolTip("Choose what is reviewed")
        menu = QMenu(self.open_button)
        menu.addAction("A folder of slides…").triggered.connect(self._ask_folder)
        menu.addAction("A table (CSV) or a project…").triggered.connect(self._ask_file)
        self.open_button.setMenu(menu)
        self.source_label = plain_label()
        self.reader_box = QLineEdit()
        self.reader_box.setPlaceholderText("your name")
        self.reader_box.setToolTip("Every answer is kept under this name")
        self.reader_box.setText(preferred_author() or system_user())
        self.blind_box = QCheckBox("blind: own answer first")
        self.blind_box.setToolTip(
            "You lock your own answer and how sure you are before the model's is shown; cases "
            "come in a drawn order. It is kept in the project"
        )
        self.blind_box.clicked.connect(self._set_blind)
        column.addLayout(form(("Reader", self.reader_box)))
        column.addWidget(row(self.open_button, self.blind_box))
        column.addWidget(self.source_label)

    # --- opening ---

    def open(self, source: Path, *, blind_reading: bool | None = None) -> bool:
        """Review a project, a folder or a table; what is wrong comes as a dialog."""
        reader = self.reader_box.text().strip()
        try:
            self.state.open(source, reader, blind_reading=blind_reading)
        except HistomilError as error:
            show_error(error, self)
            return False
        if reader != system_user():
            keep_author(reader)
        self.state.resume()
        return True

    def _ask_folder(self) -> None:
        dialog = QFileDialog(self, "Folder of slides")
        dialog.setFileMode(QFileDialog.FileMode.Directory)
        self._ask(dialog)

    def _ask_file(self) -> None:
        dialog = QFileDialog(self, "Table or project", "", f"Table or project (*.csv *{SUFFIX})")
        dialog.setFileMode(QFileDialog.FileMode.ExistingFile)
        self._ask(dialog)

    def _ask(self, dialog: QFileDialog) -> None:
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.fileSelected.connect(lambda path: self.open(Path(path)))
        dialog.open()

    def _set_blind(self, on: bool) -> None:
        if self.state.project is not None:
            self.open(self.state.project.path, blind_reading=on)

    # --- what changes ---

    def _on_project(self) -> None:
        project, log = self.state.project, self.state.log
        self.source_label.setText(
            "Open a folder of slides, or a table with the columns slide and, if known, patient "
            "and label." if project is None else
            f"{project.path.name}, read by {log.reader if log else ''}"
        )  # fmt: skip
        self.source_label.setToolTip("" if project is None else str(project.path))
        with QSignalBlocker(self.blind_box):
            self.blind_box.setChecked(project is not None and project.blind)
        self.blind_box.setEnabled(project is not None)
        self.resume_button.setEnabled(project is not None)
        self.table_button.setEnabled(project is not None)

    def _on_case(self) -> None:
        if self._keys is not None:
            self._keys.update()
        focused = QApplication.focusWidget()
        if not isinstance(focused, QLineEdit | QPlainTextEdit):
            focus_canvas(self._viewer)

    def _on_failed(self, error: Exception) -> None:
        show_error(error, self)

    def _tell(self, sentence: str) -> None:
        annotator(self._viewer).tell(sentence)

    def showEvent(self, event: QShowEvent) -> None:
        """Take the keys of the window once there is one."""
        super().showEvent(event)
        window = self.window()
        if self._keys is None and isinstance(window, QMainWindow):
            self._keys = ReviewKeys(self, window)
            self._keys.update()

    def show_table(self) -> None:
        """Show the table with all columns at the bottom of the window."""
        window = getattr(self._viewer, "window", None)
        if window is None:
            return
        if self._table_dock is None:
            table = CaseTable(self.state, wide=True)
            self._table_dock = window.add_dock_widget(table, name="Cases", area="bottom")
            self._table_dock.destroyed.connect(self._forget_table)
        self._table_dock.show()
        self._table_dock.raise_()

    def _forget_table(self) -> None:
        self._table_dock = None

    # --- the mouse ---

    def _on_press(self, viewer: Any, event: Any) -> Any:
        """Mark what the model missed where one clicks, if that was asked for."""
        slide = self.state.session.active
        if not self.state.marking or slide is None:
            return
        start = event.pos
        yield
        while event.type == "mouse_move":
            yield
        moved = max(abs(a - b) for a, b in zip(event.pos, start, strict=True))
        if moved <= CLICK_PX:
            x, y = to_px0(event.position[-2:], slide.info)
            try:
                self.state.mark_missed((float(x), float(y)))
            except HistomilError as error:
                show_error(error, self)


def _held_weakly(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a callback of the viewer that keeps no dock alive."""
    held = weakref.WeakMethod(method)

    def pressed(viewer: Any, event: Any) -> Any:
        alive = held()
        if alive is not None:
            yield from alive(viewer, event)

    return pressed


def _let_go(held: weakref.ref[Reviewing], pressed: Callable[..., Any]) -> None:
    """Close the review: the dock that showed it is gone."""
    state = held()
    if state is None:
        return
    state.close()
    viewer = state.session.viewer
    if viewer is not None and pressed in viewer.mouse_drag_callbacks:
        viewer.mouse_drag_callbacks.remove(pressed)


class ReviewKeys(QObject):
    """Keys of the window while a case is read and no tool of drawing is held.

    They are Qt's and not napari's: layers have digits, N and Enter for themselves.
    """

    def __init__(self, dock: ReviewWidget, window: QMainWindow) -> None:
        super().__init__(dock)
        self._dock = dock
        self._window = weakref.ref(window)  # else it would outlive its own end
        self._shortcuts: dict[str, list[QShortcut]] = {}
        follow(dock, annotator(dock._viewer).tool_changed, self.update)
        follow(dock, dock.state.project_changed, self.update)
        dock.destroyed.connect(self._delete)

    def update(self) -> None:
        """Take the keys that are needed now, and give the others back."""
        state = self._dock.state
        held = annotator(self._dock._viewer).tool != "move"
        active = state.current is not None and not held
        window = self._window()
        if window is None:
            return
        wanted = {key.key for key in REVIEW_KEYS.values()} | set(keys_of(state.project))
        for key in wanted - set(self._shortcuts):
            names = ("Return", "Enter") if key == "Enter" else (key.replace("-", "+"),)
            self._shortcuts[key] = [QShortcut(QKeySequence(n), window) for n in names]
            for shortcut in self._shortcuts[key]:
                shortcut.setObjectName(key)
                shortcut.setAutoRepeat(False)  # a key held too long is no second answer
                shortcut.activated.connect(self._on_activated)  # a method: held weakly
        for key, shortcuts in self._shortcuts.items():
            for shortcut in shortcuts:
                shortcut.setEnabled(active and key in wanted)

    @Slot()
    def _on_activated(self) -> None:
        self._press(self.sender().objectName())

    def _press(self, key: str) -> None:
        state, case = self._dock.state, self._dock.case
        focused = QApplication.focusWidget()
        if isinstance(focused, QLineEdit | QPlainTextEdit):
            focused.clearFocus()  # what was written is kept; keys judge again
            focus_canvas(self._dock._viewer)
            return
        for part, about in ((case.place_form, "place"), (case.case_form, "case")):
            found = None if state.project is None else state.project.form.answer_of(key, about)
            writes = found is not None and found[1] is None and part.isVisible()
            if found is not None and writes and part.write(found[0].name):
                return
        try:
            press(state, key)
        except ReviewError as error:  # said where one looks, without stopping anything
            case.say(str(error))
        except HistomilError as error:
            show_error(error, self._dock)

    def _delete(self) -> None:
        for shortcuts in self._shortcuts.values():
            for shortcut in shortcuts:
                shortcut.deleteLater()
        self._shortcuts = {}
