"""What the Train dock learns from: slides with what is drawn on them, or a folder of tiles."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from qtpy.QtCore import QSignalBlocker, Qt, QTimer, Signal
from qtpy.QtWidgets import (
    QAbstractItemView,
    QComboBox,
    QDoubleSpinBox,
    QFileDialog,
    QHBoxLayout,
    QPushButton,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_histomil.errors import HistomilError
from napari_histomil.training.config import TrainingConfig
from napari_histomil.ui import jobs
from napari_histomil.ui.annotator import annotator
from napari_histomil.ui.dialogs import show_error
from napari_histomil.ui.reader import SLIDE_SUFFIXES
from napari_histomil.ui.session import SlideSession, session
from napari_histomil.ui.training_data import (
    AnnotatedSlide,
    TileFolder,
    look_at_slide,
    look_at_tiles,
    slide_text,
)
from napari_histomil.ui.training_sides import TEST, TRAIN, VALIDATION
from napari_histomil.ui.widgets.forms import form
from napari_histomil.ui.widgets.panel import follow, plain_label
from napari_histomil.ui.widgets.rows import NUMBER, explain_columns, fit_rows, give_room
from napari_histomil.ui.worklist import slides_in

SLIDES, TILES, FILE = "slides", "tiles", "file"
"""Where the data comes from: slides, a folder of tiles, what a TOML file names."""

_NAME, _REGIONS, _GROUP, _SIDE = range(4)
_COLUMNS = ("Slide", "Regions", "Patient", "For")
_TOOLTIPS = (
    "Slides to learn from: those with a tick",
    "Regions with a class that are drawn on it",
    "Patient, or whatever belongs together and must stay on one side of the split: click to type",
    "Training, validation (the best weights are chosen on it), or test (asked once, at the end)",
)
_SHORT = {TRAIN: "training", VALIDATION: "validation", TEST: "test"}
_ROWS = (3, 8)
_REST_MS = 400
"""Rest after the last change of what is drawn before it is looked at again."""

Finder = Callable[[threading.Event], Iterator[Any]]


class TrainData(QWidget):
    """Slides, tiles, or the data of a TOML file."""

    changed = Signal()
    """Other data, or something else is drawn on it."""

    def __init__(self, viewer: Any, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session(viewer)
        self._annotator = annotator(viewer)
        self._slides: dict[Path, AnnotatedSlide] = {}
        self._added: set[Path] = set()  # by hand: they stay when their slide is closed
        self._unticked: set[Path] = set()
        self._looking = 0
        self.groups: dict[Path, str] = {}
        """Patient of a slide, where one was typed."""
        self.tiles: TileFolder | None = None
        self.base: TrainingConfig | None = None
        self._make()
        self._asker = QTimer(self)
        self._asker.setSingleShot(True)
        self._asker.setInterval(_REST_MS)
        self._asker.timeout.connect(self._look_at_drawn)
        self._drawn: set[Path] = set()  # slides on which something was drawn since
        follow(self, self._session.slide_opened, self._on_opened)
        follow(self, self._session.slide_changed, self._on_opened)
        follow(self, self._session.slide_closed, self._on_closed)
        follow(self, self._annotator.stepped, self._on_drawn)  # at once: of the active slide
        follow(self, self._annotator.saving_changed, self._on_drawn)
        self.look([slide.info.path for slide in self._session.slides])
        self._show_kind()

    def _make(self) -> None:
        self.kind_box = QComboBox()
        self.kind_box.addItem("Annotated slides", SLIDES)
        self.kind_box.addItem("A folder of tiles with masks", TILES)
        self.kind_box.setToolTip(
            "Slides are read on the fly, no tiles need be written; a folder of tiles holds "
            "pictures in 'images' and masks of the same names in 'masks'"
        )
        self.kind_box.activated.connect(self._show_kind)
        self.slides_part = self._make_slides()
        self.tiles_part = self._make_tiles()
        self.words = plain_label()
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(6)
        for widget in (self.kind_box, self.slides_part, self.tiles_part, self.words):
            column.addWidget(widget)

    def _make_slides(self) -> QWidget:
        self.tree = QTreeWidget()
        self.tree.setRootIsDecorated(False)
        self.tree.setHeaderLabels(_COLUMNS)
        self.tree.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.tree.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.tree.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        self.tree.setUniformRowHeights(True)
        give_room(self.tree)
        explain_columns(self.tree, _TOOLTIPS, least_px=48)
        fit_rows(self.tree, *_ROWS)
        self.tree.itemChanged.connect(self._on_edit)
        self.tree.itemClicked.connect(self._on_click)
        self.tree.currentItemChanged.connect(self._say)
        self.add_button = QPushButton("Add slides…")
        self.add_button.setToolTip(
            "Slides that need not be open; what was drawn on them in this program is found, or "
            "else a file of annotations of the same name beside them (GeoJSON, XML)"
        )
        self.add_button.clicked.connect(self._ask_files)
        self.folder_button = QPushButton("Add folder…")
        self.folder_button.setToolTip("All slides of a folder")
        self.folder_button.clicked.connect(self._ask_folder)
        self.remove_button = QPushButton("Remove")
        self.remove_button.clicked.connect(self.remove_selected)
        row = QHBoxLayout()
        row.setSpacing(6)
        for button in (self.add_button, self.folder_button, self.remove_button):
            row.addWidget(button)
        holder = QWidget()
        column = QVBoxLayout(holder)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(6)
        column.addWidget(self.tree)
        column.addLayout(row)
        return holder

    def _make_tiles(self) -> QWidget:
        self.choose_button = QPushButton("Choose folder…")
        self.choose_button.setToolTip(
            "A folder with 'images' and 'masks', such as 'histomil annotations tiles' writes"
        )
        self.choose_button.clicked.connect(self._ask_tiles)
        self.mpp_spin = QDoubleSpinBox()
        self.mpp_spin.setRange(0.05, 32)
        self.mpp_spin.setDecimals(3)
        self.mpp_spin.setSingleStep(0.05)
        self.mpp_spin.setValue(1.0)
        self.mpp_spin.setSuffix(" µm/px")
        self.mpp_spin.setToolTip("How many µm a pixel of the pictures spans")
        self.mpp_spin.valueChanged.connect(self.changed)
        holder = QWidget()
        column = QVBoxLayout(holder)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(6)
        column.addWidget(self.choose_button)
        self.tiles_form = form(("Pictures have", self.mpp_spin))
        column.addLayout(self.tiles_form)
        return holder

    # --- what is chosen -----------------------------------------------------------------------

    @property
    def kind(self) -> str:
        """`SLIDES`, `TILES` or `FILE`."""
        return str(self.kind_box.currentData())

    @property
    def known(self) -> tuple[AnnotatedSlide, ...]:
        """All slides of the list."""
        return tuple(self._slides.values())

    @property
    def chosen(self) -> tuple[AnnotatedSlide, ...]:
        """Slides to learn from: those that can be used and have a tick."""
        return tuple(s for s in self.known if s.usable and s.path not in self._unticked)

    @property
    def busy(self) -> bool:
        """Whether slides or tiles are being looked at."""
        return self._looking > 0

    @property
    def problem(self) -> str:
        """Why nothing can be learnt from what is chosen; empty where something can."""
        if self.kind == TILES:
            return "" if self.tiles is not None else "Choose a folder of tiles first."
        if self.kind == FILE or self.chosen:
            return ""
        if self.busy:
            return "The slides are being looked at: wait a moment."
        if not self._slides:
            return "Open a slide and draw on it, or add annotated slides."
        return "Tick a slide with regions, or draw some in the Annotate dock."

    def show_sides(self, sides: Mapping[Path, str]) -> None:
        """Say what each slide is for; nothing for those that are left out."""
        with QSignalBlocker(self.tree):
            for item in self._items():
                item.setText(_SIDE, _SHORT.get(sides.get(_path(item), ""), "–"))

    def show_file(self, base: TrainingConfig, name: str) -> None:
        """Learn from what a TOML file names."""
        self.base = base
        index = self.kind_box.findData(FILE)
        if index < 0:
            self.kind_box.addItem("", FILE)
            index = self.kind_box.count() - 1
        self.kind_box.setItemText(index, f"As in {name}")
        self.kind_box.setCurrentIndex(index)
        self._show_kind()

    # --- looking ------------------------------------------------------------------------------

    def look(self, paths: Iterable[Path]) -> None:
        """Find out, beside the window, what is drawn on slides; they are added to the list."""
        wanted = list(dict.fromkeys(paths))
        if not wanted:
            return

        def find(cancel: threading.Event) -> Iterator[AnnotatedSlide]:
            for path in wanted:
                if cancel.is_set():
                    return
                yield look_at_slide(path)

        self._start(find, self._take)

    def look_at_folder(self, folder: Path) -> None:
        """Learn from a folder of tiles with masks."""

        def find(cancel: threading.Event) -> Iterator[TileFolder]:
            yield look_at_tiles(folder)

        self._start(find, lambda found: self._take_tiles(found[-1]))

    def _start(self, find: Finder, take: Callable[[list[Any]], None]) -> None:
        def ended() -> None:
            self._looking -= 1
            self._say()
            self.changed.emit()

        self._looking += 1
        jobs.start(
            find,
            on_progress=take,
            on_done=lambda _: ended(),
            on_error=lambda error: (ended(), show_error(error, self)),
            title="a look at what can be learnt from",
            owner=self,
        )
        self._say()

    def add(self, paths: Sequence[Path]) -> None:
        """Add slides that need not be open."""
        self._added |= set(paths)
        self.look(paths)

    def remove_selected(self) -> None:
        """Take slides off the list that are not open."""
        for item in self.tree.selectedItems():
            self._added.discard(_path(item))
            if not self._is_open(_path(item)):
                self._slides.pop(_path(item), None)
        self._fill()
        self.changed.emit()

    def _take(self, found: Sequence[AnnotatedSlide]) -> None:
        for slide in found:
            if slide.path in self._added or self._is_open(slide.path):
                self._slides[slide.path] = slide
        self._fill()
        self.changed.emit()

    def _take_tiles(self, tiles: TileFolder) -> None:
        self.tiles = tiles
        with QSignalBlocker(self.mpp_spin):
            if tiles.mpp is not None:
                self.mpp_spin.setValue(tiles.mpp)
        self.mpp_spin.setEnabled(tiles.mpp is None)
        self._say()
        self.changed.emit()

    def _is_open(self, path: Path) -> bool:
        return any(slide.info.path == path for slide in self._session.slides)

    def _on_opened(self, slide: SlideSession) -> None:
        self.look([slide.info.path])

    def _on_closed(self, slide: SlideSession) -> None:
        path = slide.info.path
        if path not in self._added and not self._is_open(path):
            self._slides.pop(path, None)
            self._fill()
            self.changed.emit()

    def _on_drawn(self, *_: Any) -> None:
        slide = self._annotator.slide
        if slide is not None:
            self._drawn.add(slide.info.path)
            self._asker.start()

    def _look_at_drawn(self) -> None:
        drawn, self._drawn = self._drawn, set()
        self.look([slide.info.path for slide in self._session.slides if slide.info.path in drawn])

    # --- the list -----------------------------------------------------------------------------

    def _items(self) -> list[QTreeWidgetItem]:
        return [self.tree.topLevelItem(n) for n in range(self.tree.topLevelItemCount())]

    def _fill(self) -> None:
        """Show the slides; rows that are there already stay, with what is selected of them."""
        with QSignalBlocker(self.tree):
            there = {_path(item): item for item in self._items()}
            for path, item in there.items():
                if path not in self._slides:
                    self.tree.takeTopLevelItem(self.tree.indexOfTopLevelItem(item))
            for path, slide in self._slides.items():
                item = there.get(path)
                if item is None:
                    item = QTreeWidgetItem(self.tree)
                    item.setData(_NAME, Qt.ItemDataRole.UserRole, str(path))
                    item.setTextAlignment(_REGIONS, NUMBER)
                self._show(item, slide)
            fit_rows(self.tree, *_ROWS)
            if self.tree.currentItem() is None and self._slides:
                self.tree.setCurrentItem(self.tree.topLevelItem(0))
        self._say()

    def _show(self, item: QTreeWidgetItem, slide: AnnotatedSlide) -> None:
        ticked = slide.usable and slide.path not in self._unticked
        flags = Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable
        if slide.usable:
            flags |= Qt.ItemFlag.ItemIsUserCheckable | Qt.ItemFlag.ItemIsEditable
        item.setFlags(flags)
        state = Qt.CheckState
        item.setCheckState(_NAME, state.Checked if ticked else state.Unchecked)
        item.setText(_NAME, slide.path.name)
        item.setText(_REGIONS, str(sum(slide.counts.values())))
        item.setText(_GROUP, self.groups.get(slide.path, ""))
        words = f"{slide.path}\n{slide_text(slide)}"
        for column in (_NAME, _REGIONS):
            item.setToolTip(column, words)
        item.setToolTip(_GROUP, _TOOLTIPS[_GROUP])

    def _on_click(self, item: QTreeWidgetItem, column: int) -> None:
        if column == _GROUP and item.flags() & Qt.ItemFlag.ItemIsEditable:
            self.tree.editItem(item, column)

    def _on_edit(self, item: QTreeWidgetItem, column: int) -> None:
        path = _path(item)
        if column == _GROUP:
            self.groups[path] = item.text(_GROUP).strip()
        elif column == _NAME and item.checkState(_NAME) == Qt.CheckState.Checked:
            self._unticked.discard(path)
        elif column == _NAME:
            self._unticked.add(path)
        self.changed.emit()

    def _show_kind(self, _: int = 0) -> None:
        self.slides_part.setVisible(self.kind == SLIDES)
        self.tiles_part.setVisible(self.kind == TILES)
        self._say()
        self.changed.emit()

    def _say(self, *_: Any) -> None:
        """Say in a line what the selected slide, the tiles or the file hold."""
        item = self.tree.currentItem()
        slide = None if item is None else self._slides.get(_path(item))
        if self.kind == TILES and self.tiles is not None:
            tiles = self.tiles
            text = f"{tiles.path.name}: {tiles.pictures} pictures in {tiles.group_count} groups."
        elif self.kind == FILE and self.base is not None:
            names = ", ".join(source.name for source in self.base.sources)
            text = f"Data, classes and split are those of the file: {names}."
        elif self.kind == SLIDES and slide is not None and not self.problem:
            text = f"{slide.path.name}: {slide_text(slide)}" if slide.usable else slide.problem
        else:
            text = self.problem
        self.words.setText(text)
        opened = item is not None and self._is_open(_path(item))
        self.remove_button.setEnabled(item is not None and not opened)
        self.remove_button.setToolTip(
            "Take the selected slides off the list; nothing is deleted"
            if item is not None and not opened
            else "Slides that are open stay in the list: take their tick away"
            if opened
            else "Select a slide of the list first"
        )

    # --- dialogs ------------------------------------------------------------------------------

    def _ask_files(self) -> None:
        patterns = " ".join(f"*{suffix}" for suffix in SLIDE_SUFFIXES)
        dialog = self._dialog("Slides to learn from", QFileDialog.FileMode.ExistingFiles)
        dialog.setNameFilters([f"Slides ({patterns})", "All files (*)"])
        dialog.filesSelected.connect(lambda files: self.add([Path(file) for file in files]))
        dialog.open()

    def _ask_folder(self) -> None:
        dialog = self._dialog("A folder of slides", QFileDialog.FileMode.Directory)
        dialog.fileSelected.connect(lambda folder: self.add_folder(Path(folder)))
        dialog.open()

    def _ask_tiles(self) -> None:
        dialog = self._dialog("A folder of tiles with masks", QFileDialog.FileMode.Directory)
        dialog.fileSelected.connect(lambda folder: self.look_at_folder(Path(folder)))
        dialog.open()

    def add_folder(self, folder: Path) -> None:
        """Add all slides of a folder."""
        try:
            self.add(slides_in(folder))
        except HistomilError as error:
            show_error(error, self)

    def _dialog(self, title: str, mode: QFileDialog.FileMode) -> QFileDialog:
        dialog = QFileDialog(self, title)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.setFileMode(mode)
        return dialog


def _path(item: QTreeWidgetItem) -> Path:
    """Return the slide of a row."""
    return Path(item.data(_NAME, Qt.ItemDataRole.UserRole))
