"""The Slide dock: open slides, see what they are, move about in them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from qtpy.QtCore import Qt, QTimer
from qtpy.QtGui import QDragEnterEvent, QDropEvent, QKeySequence, QShortcut, QShowEvent
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from napari_histomil.errors import HistomilError
from napari_histomil.slides.cache import shared_cache
from napari_histomil.ui import jobs
from napari_histomil.ui.dialogs import ask_mpp, show_error
from napari_histomil.ui.keys import KEY_SHEET, KEYS, KeySheet, hint
from napari_histomil.ui.layers import LayerData
from napari_histomil.ui.opening import opening
from napari_histomil.ui.overlays import overlays
from napari_histomil.ui.preferences import apply_memory_budget
from napari_histomil.ui.reader import SLIDE_SUFFIXES
from napari_histomil.ui.session import SlideSession, session
from napari_histomil.ui.view_keeper import view_keeper
from napari_histomil.ui.widgets.associated import AssociatedImages
from napari_histomil.ui.widgets.display import Display
from napari_histomil.ui.widgets.figure_dialog import FigureDialog
from napari_histomil.ui.widgets.navigation import Navigation
from napari_histomil.ui.widgets.panel import Panel, follow, plain_label
from napari_histomil.ui.widgets.slide_facts import SlideFacts
from napari_histomil.ui.widgets.stored_data import StoredDataDialog

MEMORY_MS = 1000
"""The line about memory is brought up to date so often."""


class SlideWidget(Panel):
    """Dock about the slides of one viewer."""

    def __init__(self, napari_viewer: Any, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session(napari_viewer)
        self.setAcceptDrops(True)
        self.add(self._make_openers())
        self.empty_label = plain_label(
            "Open a slide here, or drop its file on the window. Without one of your own: "
            "File > Open Sample > HistoMIL."
        )
        self.add(self.empty_label)
        self.slide_box = QComboBox()
        self.slide_box.setToolTip(
            "The open slides; the chosen one is shown, the others are hidden"
        )
        self.slide_box.setSizeAdjustPolicy(
            QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
        )
        self.slide_box.activated.connect(self._choose)
        self.close_button = QPushButton("Close")
        self.close_button.setToolTip("Close this slide and take its heatmaps off the window")
        self.close_button.clicked.connect(self._close)
        self._chooser = _row(self.slide_box, self.close_button)
        self.add(self._chooser)
        self.navigation = Navigation(self._session.viewer)
        self._view = self._section("View", self.navigation, self._make_figure())
        self.display = Display(self._session.viewer)
        self._display = self._section("Display", self.display)
        self.facts = SlideFacts()
        self.facts.mpp_button.clicked.connect(self._ask_active)
        self._about = self._section("About this slide", self.facts)
        self.associated = AssociatedImages()
        self._pictures = self._section("Pictures in the file", self.associated)
        self.add(self._make_stored())
        self._opening: list[Path] = []
        self._without_scale: list[SlideSession] = []
        self._sheet_key: QShortcut | None = None
        self._keeper = view_keeper(self._session.viewer)
        apply_memory_budget()
        follow(self, self._session.slide_opened, self._on_opened)
        follow(self, self._session.slide_closed, self._refresh)
        follow(self, self._session.slide_changed, self._refresh)
        follow(self, self._session.active_changed, self._refresh)
        self._refresh()

    def showEvent(self, event: QShowEvent) -> None:
        """Take the key of the sheet once there is a window to take it in."""
        super().showEvent(event)
        self._keeper.watch(self.window())
        self._memory_timer.start()
        if self._sheet_key is None:
            self._sheet_key = QShortcut(QKeySequence(KEYS[KEY_SHEET].key), self.window())
            self._sheet_key.activated.connect(self._show_keys)
            self.destroyed.connect(self._sheet_key.deleteLater)

    # --- parts ---

    def _make_openers(self) -> QWidget:
        self.open_button = QPushButton("Open slide…")
        self.open_button.setToolTip(
            "Open a slide: SVS, NDPI, MRXS, SCN, BIF, tiled TIFF, OME-TIFF, DICOM"
        )
        self.open_button.clicked.connect(self._ask_file)
        self.folder_button = QPushButton("Folder…")
        self.folder_button.setToolTip("Open a slide that is a folder: OME-Zarr")
        self.folder_button.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
        self.folder_button.clicked.connect(self._ask_folder)
        self.keys_button = QPushButton("Keys")
        self.keys_button.setToolTip(f"Show the sheet of keys{hint(KEY_SHEET)}")
        self.keys_button.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
        self.keys_button.clicked.connect(self._show_keys)
        return _row(self.open_button, self.folder_button, self.keys_button)

    def _make_figure(self) -> QWidget:
        self.figure_button = QPushButton("Save view as figure…")
        self.figure_button.setToolTip(
            "Write what you see as PNG, TIFF or PDF, with scale bar, magnification and the "
            "colours of the heatmap"
        )
        self.figure_button.clicked.connect(self._ask_figure)
        return self.figure_button

    def _make_stored(self) -> QWidget:
        self.memory_label = plain_label(
            tooltip="What decoded pixels of the open slides take, of what they may take: see "
            "File > Preferences > HistoMIL"
        )
        self.stored_button = QPushButton("Stored data…")
        self.stored_button.setToolTip(
            "See what is kept on disk about slides (overviews, runs, annotations), and delete it"
        )
        self.stored_button.clicked.connect(self._show_stored)
        self._memory_timer = QTimer(self)
        self._memory_timer.setInterval(MEMORY_MS)
        self._memory_timer.timeout.connect(self._update_memory)
        row = _row(self.memory_label, self.stored_button)
        row.layout().setContentsMargins(0, 8, 0, 0)
        self._update_memory()
        return row

    def _section(self, title: str, *contents: QWidget) -> QWidget:
        section = QWidget()
        column = QVBoxLayout(section)
        column.setContentsMargins(0, 8, 0, 0)
        column.setSpacing(6)
        column.addWidget(QLabel(f"<b>{title}</b>"))
        for content in contents:
            column.addWidget(content)
        self.add(section)
        return section

    # --- opening ---

    def open_path(
        self,
        path: Path,
        *,
        reader: str | None = None,
        icc: bool = False,
        then: Callable[[], None] = lambda: None,
    ) -> None:
        """Open a slide beside the window's own work; errors come as a dialog.

        Parameters
        ----------
        path, reader, icc
            As in `readers.open_slide`.
        then
            Called when the slide is in the window; what it raises comes as a dialog too.
        """
        self._opening.append(path)
        self._show_opening()

        def ended() -> None:
            self._opening.remove(path)
            self._show_opening()

        def done(layer_data: LayerData | None) -> None:
            ended()
            if layer_data is None:
                return
            self._session.add_slide(layer_data)
            try:
                then()
            except HistomilError as error:
                show_error(error, self)

        def failed(error: Exception) -> None:
            ended()
            show_error(error, self)

        jobs.start(
            opening(path, reader=reader, icc=icc),
            on_progress=lambda _: None,
            on_done=done,
            on_error=failed,
            title=f"opening {path.name}",
            owner=self,
        )

    def _show_opening(self) -> None:
        busy = bool(self._opening)
        self.open_button.setText(f"Opening {self._opening[-1].name}…" if busy else "Open slide…")
        self.open_button.setEnabled(not busy)
        self.folder_button.setEnabled(not busy)

    def _ask_file(self) -> None:
        patterns = " ".join(f"*{suffix}" for suffix in SLIDE_SUFFIXES)
        dialog = QFileDialog(self, "Open slide", "", f"Slides ({patterns});;All files (*)")
        dialog.setFileMode(QFileDialog.FileMode.ExistingFiles)
        self._choose_files(dialog)

    def _ask_folder(self) -> None:
        dialog = QFileDialog(self, "Open a slide that is a folder")
        dialog.setFileMode(QFileDialog.FileMode.Directory)
        self._choose_files(dialog)

    def _choose_files(self, dialog: QFileDialog) -> None:
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.filesSelected.connect(self._open_all)
        dialog.open()

    def _open_all(self, files: list[str]) -> None:
        for file in files:
            self.open_path(Path(file))

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        """Take files that lie on this computer."""
        if any(url.isLocalFile() for url in event.mimeData().urls()):
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent) -> None:
        """Open what was dropped on the dock."""
        self._open_all([url.toLocalFile() for url in event.mimeData().urls() if url.isLocalFile()])

    # --- what is open ---

    def _choose(self, index: int) -> None:
        self._session.show_only(self._session.slides[index])

    def _close(self) -> None:
        if self._session.active is not None:
            self._session.close_slide(self._session.active)

    def _on_opened(self, slide: SlideSession) -> None:
        self._refresh()
        if not slide.has_mpp:
            self._without_scale.append(slide)
            QTimer.singleShot(0, self._ask_all)  # not from within napari's adding of the layer

    def _ask_all(self) -> None:
        """Ask for the µm/px of the slides that were opened without, one dialog each."""
        while self._without_scale:
            self._ask(self._without_scale.pop(0))

    def _ask_active(self) -> None:
        if self._session.active is not None:
            self._ask(self._session.active)

    def _ask(self, slide: SlideSession) -> None:
        if slide in self._session.slides:
            ask_mpp(slide.info, lambda mpp: self._set_mpp(slide, mpp), self)

    def _set_mpp(self, slide: SlideSession, mpp: float) -> None:
        if slide not in self._session.slides:
            return  # closed while the question stood
        try:
            self._session.set_mpp(slide, mpp)
        except HistomilError as error:
            show_error(error, self, info=slide.info)

    def _refresh(self, _changed: Any = None) -> None:
        slides, active = self._session.slides, self._session.active
        for widget in (self._view, self._display, self._about, self._pictures):
            widget.setVisible(active is not None)
        self.empty_label.setVisible(active is None)
        self._chooser.setVisible(bool(slides))
        self.slide_box.clear()
        self.slide_box.addItems([slide.name for slide in slides])
        self.navigation.show_info(active.info if active is not None else None)
        if active is None:
            return
        self.slide_box.setCurrentIndex(slides.index(active))
        self.display.show_slide(active)
        self.facts.show_info(active.info)
        self.associated.show_slide(active.slide)

    def _update_memory(self) -> None:
        """Say how much of its memory is used, while somebody may see it."""
        if not self.isVisible():
            self._memory_timer.stop()
        cache = shared_cache()
        used_mb, may_gb = cache.used_bytes / (1 << 20), cache.budget_bytes / (1 << 30)
        used = f"{used_mb:.0f} MB" if used_mb < 100 else f"{used_mb / 1024:.1f}"
        self.memory_label.setText(f"Memory: {used} of {may_gb:.1f} GB")

    def _show_keys(self) -> None:
        KeySheet(self.window()).open()

    def _show_stored(self) -> None:
        StoredDataDialog([slide.info for slide in self._session.slides], self.window()).open()

    def _ask_figure(self) -> None:
        active = self._session.active
        if active is None:
            return
        run = overlays(self._session.viewer).current
        heatmap = run is not None and run.slide is active and run.layer.visible
        FigureDialog(self._session.viewer, active, heatmap=heatmap, parent=self.window()).open()


def _row(*widgets: QWidget) -> QWidget:
    """Return the widgets side by side; the first takes what room is left."""
    holder = QWidget()
    row = QHBoxLayout(holder)
    row.setContentsMargins(0, 0, 0, 0)
    row.setSpacing(4)
    for index, widget in enumerate(widgets):
        row.addWidget(widget, 1 if index == 0 else 0)
    return holder
