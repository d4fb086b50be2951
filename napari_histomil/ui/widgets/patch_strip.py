"""Thumbnails of a MIL run's patches: the top, the bottom or the middle; a click flies there."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qtpy.QtCore import QSignalBlocker, QSize, Qt
from qtpy.QtGui import QIcon, QPixmap, QResizeEvent
from qtpy.QtWidgets import (
    QFileDialog,
    QHBoxLayout,
    QListView,
    QListWidget,
    QListWidgetItem,
    QPushButton,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from napari_histomil.slides.slide import Uint8Image
from napari_histomil.ui import jobs
from napari_histomil.ui.attention_view import PICKED, PICKS
from napari_histomil.ui.dialogs import show_error
from napari_histomil.ui.keys import hint
from napari_histomil.ui.overlays import Overlays
from napari_histomil.ui.patches import Picked, heading, picked, read_thumbnails, write_sheet
from napari_histomil.ui.session import RunView
from napari_histomil.ui.widgets.forms import choice_box
from napari_histomil.ui.widgets.panel import follow, plain_label
from napari_histomil.ui.widgets.thumbnail_list import image_of

SIDE_PX = 72
"""Of a thumbnail, logical pixels: four of them are as wide as a dock."""

MOST_ROWS = 3
"""Of thumbnails that are seen at once; more are scrolled to."""

ROOM_PX = 8
"""Qt begins another row where the last thumbnail touches the edge."""

MOST = 100
"""Patches that can be listed."""


class PatchStrip(QWidget):
    """The list of patches, what it lists, and where one is in it."""

    def __init__(self, overlays: Overlays, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._overlays = overlays
        self._run: RunView | None = None
        self._listed: list[Picked] = []
        self._key: tuple[Any, ...] = ()
        self._reading: jobs.JobHandle | None = None
        self._saving: jobs.JobHandle | None = None
        self.which_box = choice_box("Which patches are listed")
        for name, words in PICKS.items():
            self.which_box.addItem(name)
            last = self.which_box.count() - 1
            self.which_box.setItemData(last, words, Qt.ItemDataRole.ToolTipRole)
        self.count_box = QSpinBox()
        self.count_box.setRange(1, MOST)
        self.count_box.setValue(PICKED)
        self.count_box.setSuffix(" patches")
        self.count_box.setKeyboardTracking(False)
        self.count_box.setToolTip("How many are listed")
        self.which_box.activated.connect(self._choose)
        self.count_box.valueChanged.connect(self._choose)
        self.list = QListWidget()
        self.list.setViewMode(QListView.ViewMode.IconMode)
        self.list.setMovement(QListView.Movement.Static)
        self.list.setResizeMode(QListView.ResizeMode.Adjust)
        self.list.setUniformItemSizes(True)
        self.list.setIconSize(QSize(SIDE_PX, SIDE_PX))
        line = self.list.fontMetrics().lineSpacing()
        self._cell = QSize(SIDE_PX + 6, SIDE_PX + line + 8)
        self.list.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.list.itemClicked.connect(
            lambda item: self._overlays.go_to_picked(self.list.row(item))
        )
        self.list.itemActivated.connect(
            lambda item: self._overlays.go_to_picked(self.list.row(item))
        )
        self.previous_button, self.next_button = QPushButton("Previous"), QPushButton("Next")
        for button, key, slot, words in (
            (self.previous_button, "patch.previous", overlays.previous_hottest, "Go back"),
            (self.next_button, "hottest.next", overlays.next_hottest, "Go on"),
        ):
            button.setToolTip(f"{words} in this list and fly to the patch{hint(key)}")
            button.clicked.connect(slot)
        self.sheet_button = QPushButton("Contact sheet…")
        self.sheet_button.setToolTip("Write these patches with values and coordinates as a PNG")
        self.sheet_button.clicked.connect(self._ask_file)
        self.words = plain_label()
        above, below = QHBoxLayout(), QHBoxLayout()
        for row, widgets in (
            (above, (self.which_box, self.count_box)),
            (below, (self.previous_button, self.next_button, self.sheet_button)),
        ):
            row.setSpacing(6)
            for widget in widgets:
                row.addWidget(widget, 1)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(6)
        column.addLayout(above)
        column.addWidget(self.list)
        column.addLayout(below)
        column.addWidget(self.words)
        follow(self, overlays.stepped, self._show_stop)
        self.destroyed.connect(lambda: self._let_go())

    def show_run(self, run: RunView | None) -> None:
        """List the patches of another MIL run, or none."""
        self._let_go()
        self._run = run
        self._key = ()
        if run is None:
            return
        run.attention.changed.connect(self.refresh)
        self.refresh()

    def _let_go(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None
        if self._run is not None:
            self._run.attention.changed.disconnect(self.refresh)
        self._run = None

    def refresh(self) -> None:
        """List the patches as they are chosen; what is listed already keeps its picture."""
        run = self._run
        if run is None:
            return
        view = run.attention
        with QSignalBlocker(self.count_box):
            self.count_box.setValue(view.most)
        self.which_box.setCurrentText(view.picks)
        self._listed = picked(view, run.slide.info)
        key = (view.level, *(each.tile for each in self._listed))
        if key == self._key:
            for n, each in enumerate(self._listed):
                self.list.item(n).setText(each.value)
                self.list.item(n).setToolTip(each.words)
        else:
            self._key = key
            self._list()
        self._show_stop()

    def _list(self) -> None:
        self.list.clear()
        empty = QPixmap(SIDE_PX, SIDE_PX)
        empty.fill(Qt.GlobalColor.lightGray)
        for each in self._listed:
            item = QListWidgetItem(_icon(empty), each.value)
            item.setToolTip(each.words)
            self.list.addItem(item)
        self._fit()
        self._read()

    def _fit(self) -> None:
        """Let the thumbnails fill the width, and be as high as their rows."""
        room = self.list.width() - 2 * self.list.frameWidth() - ROOM_PX
        across = max(room // self._cell.width(), 1)
        rows = max(-(-len(self._listed) // across), 1)
        bar = Qt.ScrollBarPolicy.ScrollBarAlwaysOff
        if rows > MOST_ROWS:
            bar = Qt.ScrollBarPolicy.ScrollBarAlwaysOn
            room -= self.list.verticalScrollBar().sizeHint().width()
            across = max(room // self._cell.width(), 1)
        self.list.setVerticalScrollBarPolicy(bar)
        self.list.setGridSize(QSize(room // across, self._cell.height()))
        high = min(rows, MOST_ROWS) * self._cell.height()
        self.list.setFixedHeight(high + 2 * self.list.frameWidth() + 2)

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Lay the thumbnails out anew."""
        super().resizeEvent(event)
        self._fit()

    def _read(self) -> None:
        """Read the pictures, beside the window."""
        run = self._run
        if run is None:
            return
        if self._reading is not None:
            self._reading.cancel()
        slide, frames = run.slide.slide, [each.frame_px0 for each in self._listed]
        ratio = self.devicePixelRatioF()
        side = round(SIDE_PX * ratio)

        def read(cancel: threading.Event) -> Iterator[tuple[int, Uint8Image]]:
            yield from read_thumbnails(slide, frames, side, cancel)

        def arrived(pictures: list[tuple[int, Uint8Image]]) -> None:
            if self._reading is not job:
                return  # others are listed by now
            for n, pixels in pictures:
                pixmap = QPixmap.fromImage(image_of(pixels))
                pixmap.setDevicePixelRatio(ratio)
                self.list.item(n).setIcon(_icon(pixmap))

        def failed(error: Exception) -> None:
            if self._reading is job:
                show_error(error, self, info=slide.info)

        job = jobs.start(
            read,
            on_progress=arrived,
            on_done=lambda _: None,
            on_error=failed,
            title="reading patches",
            owner=self,
        )
        self._reading = job

    def _choose(self, _: Any = None) -> None:
        if self._run is not None:
            self._run.attention.pick(self.which_box.currentText(), self.count_box.value())

    def _show_stop(self) -> None:
        run = self._run
        if run is None:
            return
        stop, stops = run.attention.stop, len(self._listed)
        with QSignalBlocker(self.list):
            self.list.setCurrentRow(-1 if stop is None else stop)
        self.previous_button.setEnabled(stop is not None and stop > 0)
        self.next_button.setEnabled(stops > 0 and (stop is None or stop < stops - 1))

    # --------------------------------------------------------------------- contact sheet

    def _ask_file(self) -> None:
        run = self._run
        if run is None:
            return
        name = f"{run.slide.info.path.stem}-{run.attention.picks}.png"
        dialog = QFileDialog(self, "Contact sheet", name, "PNG (*.png)")
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
        dialog.setDefaultSuffix("png")
        dialog.fileSelected.connect(lambda file: self.write_sheet(Path(file)))
        dialog.open()

    def write_sheet(self, path: Path) -> None:
        """Write the listed patches as one picture, beside the window."""
        run = self._run
        if run is None or self._saving is not None:
            return
        slide, patches = run.slide.slide, list(self._listed)
        above = heading(run.attention, slide.info)

        def write(cancel: threading.Event) -> Iterator[bool]:
            yield write_sheet(path, slide, patches, above, cancel)

        def ended(sentence: str) -> None:
            self._saving = None
            self.sheet_button.setEnabled(True)
            self.words.setText(sentence)

        def failed(error: Exception) -> None:
            ended("")
            show_error(error, self, info=slide.info)

        self.sheet_button.setEnabled(False)
        self._saving = jobs.start(
            write,
            on_progress=lambda _: None,
            on_done=lambda _: ended(f"{len(patches)} patches are in {path.name}."),
            on_error=failed,
            title=f"writing {path.name}",
            owner=self,
        )


def _icon(pixmap: QPixmap) -> QIcon:
    """Return a picture that keeps its colours while it is selected."""
    icon = QIcon(pixmap)
    icon.addPixmap(pixmap, QIcon.Mode.Selected)
    return icon
