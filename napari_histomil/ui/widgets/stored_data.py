"""What is stored about slides: a list by size, and buttons that clean it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QAbstractItemView,
    QCheckBox,
    QComboBox,
    QDialog,
    QDialogButtonBox,
    QHBoxLayout,
    QHeaderView,
    QMessageBox,
    QPushButton,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_histomil.errors import HistomilError
from napari_histomil.resources import fallback_sidecar, seen_sidecars, sidecar
from napari_histomil.results.stored import (
    Cleaned,
    Part,
    Sidecar,
    clean,
    known_sidecars,
    sidecars_under,
    size_text,
)
from napari_histomil.slides.slide import SlideInfo
from napari_histomil.ui import jobs
from napari_histomil.ui.dialogs import show_error
from napari_histomil.ui.widgets.panel import plain_label

_OPEN, _ALL = "of the open slides", "of all slides known here"

_PARTS: tuple[tuple[str, tuple[Part, ...], str], ...] = (
    ("Overviews", ("overviews",), "Small pictures made of slides; made again when needed"),
    ("Runs", ("runs",), "Scores of models; a run that is being written is kept"),
    (
        "Everything, also what was drawn",
        ("overviews", "runs", "answers", "drawn"),
        "µm/px, views, annotations with their journals, and reviews: they cannot be made again",
    ),
)


class StoredDataDialog(QDialog):
    """Lists the folders of work on slides, largest first, and cleans the selected ones."""

    def __init__(self, infos: Sequence[SlideInfo], parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setWindowTitle("Stored data")
        self._infos = tuple(infos)
        self._job: jobs.JobHandle | None = None
        self.which_box = QComboBox()
        self.which_box.addItems([_OPEN, _ALL])
        self.which_box.setCurrentText(_OPEN if infos else _ALL)
        self.which_box.currentTextChanged.connect(self.look)
        self.tree = QTreeWidget()
        self.tree.setHeaderLabels(["Slide", "Size", "Runs", "Last used", "Folder"])
        self.tree.setRootIsDecorated(False)
        self.tree.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.tree.setMinimumSize(620, 220)
        self.tree.itemSelectionChanged.connect(self._update)
        header = self.tree.header()
        header.setStretchLastSection(True)
        for column in range(4):
            header.setSectionResizeMode(column, QHeaderView.ResizeMode.ResizeToContents)
        self.part_boxes: dict[str, QCheckBox] = {}
        parts = QHBoxLayout()
        parts.setSpacing(12)
        for words, _, tooltip in _PARTS:
            box = QCheckBox(words)
            box.setToolTip(tooltip)
            box.toggled.connect(self._update)
            self.part_boxes[words] = box
            parts.addWidget(box)
        parts.addStretch(1)
        self.total_label = plain_label()
        self.delete_button = QPushButton("Delete…")
        self.delete_button.setToolTip("Delete the ticked parts of the selected folders")
        self.delete_button.clicked.connect(self._ask)
        buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Close)
        buttons.rejected.connect(self.reject)
        bottom = QHBoxLayout()
        bottom.addWidget(self.total_label, 1)
        bottom.addWidget(self.delete_button)
        bottom.addWidget(buttons)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(16, 16, 16, 12)
        layout.setSpacing(8)
        layout.addWidget(self.which_box)
        layout.addWidget(self.tree, 1)
        layout.addWidget(plain_label("Delete of the selected folders:"))
        layout.addLayout(parts)
        layout.addLayout(bottom)
        self.look()

    def look(self) -> None:
        """List the folders; the disk is read beside the window."""
        if self._job is not None:
            self._job.cancel()
        infos = self._infos if self.which_box.currentText() == _OPEN else None
        self.total_label.setText("Looking…")

        def find(_cancel: threading.Event) -> Iterator[list[Sidecar]]:
            yield _of_slides(infos) if infos is not None else known_sidecars()

        def found(lists: list[list[Sidecar]]) -> None:
            if self._job is job:
                self._fill(lists[-1])

        job = jobs.start(
            find,
            on_progress=found,
            on_done=lambda _: None,
            on_error=lambda error: show_error(error, self),
            title="the search for stored data",
            owner=self,
        )
        self._job = job

    def _fill(self, found: list[Sidecar]) -> None:
        self.tree.clear()
        for each in found:
            there = "" if each.slide_there else " (gone)"
            day = datetime.fromtimestamp(each.last_used).astimezone()
            item = QTreeWidgetItem(
                [
                    f"{each.slide.name}{there}",
                    size_text(each.size),
                    str(each.runs),
                    f"{day:%Y-%m-%d}",
                    str(each.path.parent),
                ]
            )
            item.setData(0, Qt.ItemDataRole.UserRole, each)
            item.setTextAlignment(1, Qt.AlignmentFlag.AlignRight)
            item.setToolTip(0, str(each.path))
            item.setToolTip(4, str(each.path))
            self.tree.addTopLevelItem(item)
        total = size_text(sum(each.size for each in found))
        self.total_label.setText(f"{total} in all" if found else "Nothing is stored.")
        self._update()

    def _selected(self) -> list[Sidecar]:
        return [item.data(0, Qt.ItemDataRole.UserRole) for item in self.tree.selectedItems()]

    def _parts(self) -> list[Part]:
        ticked = [parts for words, parts, _ in _PARTS if self.part_boxes[words].isChecked()]
        return list(dict.fromkeys(part for parts in ticked for part in parts))

    def _update(self) -> None:
        self.delete_button.setEnabled(bool(self._selected() and self._parts()))

    def _ask(self) -> None:
        """Say what would go, and delete it if the person says yes."""
        paths, parts = [each.path for each in self._selected()], self._parts()
        try:
            trial = [clean(path, parts, really=False) for path in paths]
        except HistomilError as error:
            show_error(error, self)
            return
        files = sum(len(answer.deleted) for answer in trial)
        kept = [why for answer in trial for why in answer.kept]
        box = QMessageBox(self)
        box.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        box.setIcon(QMessageBox.Icon.Warning)
        box.setWindowTitle("Delete stored data?")
        size = size_text(sum(answer.size for answer in trial))
        box.setText(
            f"{files} item{'s' if files != 1 else ''} with {size} would be deleted of "
            f"{len(paths)} folder{'s' if len(paths) != 1 else ''}. This cannot be undone."
        )
        box.setInformativeText("\n".join(kept))
        box.setStandardButtons(QMessageBox.StandardButton.Cancel)
        yes = box.addButton("Delete", QMessageBox.ButtonRole.DestructiveRole)
        yes.clicked.connect(lambda: self.delete(paths, parts))
        box.open()

    def delete(self, paths: Sequence[Path], parts: Sequence[Part]) -> None:
        """Delete parts of folders beside the window, and list again what is there."""

        def work(cancel: threading.Event) -> Iterator[Cleaned]:
            for path in paths:
                if cancel.is_set():
                    return
                yield clean(path, parts, really=True)

        def failed(error: Exception) -> None:
            show_error(error, self)
            self.look()

        self.delete_button.setEnabled(False)
        jobs.start(
            work,
            on_progress=lambda _: None,
            on_done=lambda _: self.look(),
            on_error=failed,
            title="the deletion of stored data",
            owner=self,
        )


def _of_slides(infos: Sequence[SlideInfo]) -> list[Sidecar]:
    """Return the folders of the open slides, largest first."""
    folders = set()
    for info in infos:
        folders |= {sidecar(info.path, info.fingerprint), fallback_sidecar(info.fingerprint)}
        folders |= {seen.folder for seen in seen_sidecars(info.fingerprint)}
    there = [folder for folder in folders if folder.is_dir()]
    return sidecars_under(*there) if there else []
