"""A mask of the slide: at which µm/px, which classes with which values, where to."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

from qtpy.QtCore import Qt, QTimer, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDialog,
    QDialogButtonBox,
    QDoubleSpinBox,
    QFileDialog,
    QHeaderView,
    QProgressBar,
    QSpinBox,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_histomil.annotations import raster
from napari_histomil.annotations.mask_facts import MaskFacts
from napari_histomil.annotations.mask_files import check_mask_format, write_mask
from napari_histomil.annotations.masks import LabelImage, LabelTable, MaskGrid
from napari_histomil.annotations.model import REGION, AnnotationClass, Region
from napari_histomil.annotations.raster import Priority
from napari_histomil.errors import HistomilError
from napari_histomil.slides.slide import SlideInfo
from napari_histomil.ui import jobs
from napari_histomil.ui.annotator import Annotator
from napari_histomil.ui.dialogs import show_error
from napari_histomil.ui.tool_icons import class_icon
from napari_histomil.ui.widgets.forms import form
from napari_histomil.ui.widgets.icon_button import IconButton, row
from napari_histomil.ui.widgets.panel import plain_label
from napari_histomil.ui.widgets.rows import NUMBER, give_room, without_icons
from napari_histomil.ui.words import count

MPP = 2.0
_ROLE = Qt.ItemDataRole.UserRole
_PROGRESS_MS = 200
_FILES = "OME-TIFF (*.ome.tif);;OME-Zarr (*.zarr);;PNG (*.png);;TIFF of ASAP (*.tif)"


@dataclass(frozen=True, slots=True)
class MaskJob:
    """All that a mask is made of."""

    regions: tuple[Region, ...]
    info: SlideInfo
    mpp: float
    table: LabelTable
    priority: Priority
    fully_annotated: bool
    mend: bool

    @property
    def facts(self) -> MaskFacts:
        """Pixels and values, for the file."""
        return MaskFacts.of(MaskGrid.cover(self.info, self.mpp), self.table, self.info)


class _Stopped(Exception):
    """The person has cancelled; raised where the bands come from."""


class MaskRun:
    """Writes a mask in a thread, and says how far it is."""

    def __init__(self, job: MaskJob, path: Path) -> None:
        self._job, self._path = job, path
        self.rows_done = 0
        self.rows = job.facts.grid.rows

    def work(self, cancel: threading.Event) -> Generator[None, None, tuple[str, ...] | None]:
        """Write the mask; returns notes, or None if it was cancelled: nothing is left then."""
        yield from ()
        job = self._job
        facts = job.facts
        check_mask_format(self._path, facts)
        painting = raster.prepare(
            job.regions,
            facts.grid,
            job.table,
            priority=job.priority,
            fully_annotated=job.fully_annotated,
            mend=job.mend,
        )
        try:
            write_mask(self._path, self._bands(painting, cancel), facts)
        except _Stopped:
            return None
        return painting.notes

    def _bands(self, painting: raster.Painting, cancel: threading.Event) -> Iterator[LabelImage]:
        for band in raster.bands(painting):
            if cancel.is_set():
                raise _Stopped
            yield band
            self.rows_done += len(band)


class MaskDialog(QDialog):
    """Asks for what a mask needs, and writes it beside the window."""

    said = Signal(str)
    """Sentences about what was written."""

    def __init__(self, annotator: Annotator, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setWindowTitle("Mask")
        slide = annotator.slide
        assert slide is not None, "the button is disabled without a slide"
        self._info, self._regions = slide.info, tuple(annotator.regions or ())
        self._job: jobs.JobHandle | None = None
        self._run: MaskRun | None = None
        self._make_classes(annotator)
        self._make_fields()
        self.bar = QProgressBar()
        self.bar.hide()
        self._timer = QTimer(self)
        self._timer.setInterval(_PROGRESS_MS)
        self._timer.timeout.connect(self._show_progress)
        self.words = plain_label()
        buttons = QDialogButtonBox()
        self.write_button = buttons.addButton("Write…", QDialogButtonBox.ButtonRole.AcceptRole)
        self.cancel_button = buttons.addButton(QDialogButtonBox.StandardButton.Cancel)
        without_icons(buttons)
        buttons.accepted.connect(self._ask_file)
        buttons.rejected.connect(self.reject)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(16, 16, 16, 12)
        layout.setSpacing(8)
        layout.addWidget(plain_label("Classes in the order of their values 1, 2, 3, …"))
        layout.addWidget(self.tree, 1)
        layout.addWidget(row(self.up_button, self.down_button))
        layout.addLayout(
            form(
                ("Size of a pixel", self.mpp_box),
                ("Value of background", self.background_box),
                ("Value of unlabelled", self.unlabelled_box),
                ("Where regions overlap", self.priority_box),
            )
        )
        layout.addWidget(self.full_box)
        layout.addWidget(self.mend_box)
        layout.addWidget(self.words)
        layout.addWidget(self.bar)
        layout.addWidget(buttons)
        self._say()

    # --- the widgets ---

    def _make_classes(self, annotator: Annotator) -> None:
        self.tree = QTreeWidget()
        self.tree.setRootIsDecorated(False)
        self.tree.setHeaderLabels(["Class", "Value"])
        self.tree.setMinimumSize(360, 180)
        give_room(self.tree)
        header = self.tree.header()
        header.setStretchLastSection(False)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        header.setSectionResizeMode(1, QHeaderView.ResizeMode.ResizeToContents)
        found = LabelTable.of_regions(self._regions).classes
        order = [each.name for each in annotator.classes.classes]
        kinds = sorted(
            found, key=lambda each: order.index(each.name) if each.name in order else len(order)
        )
        for each in kinds:
            item = QTreeWidgetItem([each.name])
            item.setIcon(0, class_icon(each.color))
            item.setCheckState(0, Qt.CheckState.Checked)
            item.setData(0, _ROLE, each)
            item.setTextAlignment(1, NUMBER)
            item.setToolTip(0, "Untick a class to leave it out of the mask")
            self.tree.addTopLevelItem(item)
        self.tree.itemChanged.connect(lambda *_: self._say())
        self.up_button = IconButton(annotator.viewer, "up", "Give the chosen class a lower value")
        self.down_button = IconButton(
            annotator.viewer, "down", "Give the chosen class a higher value"
        )
        self.up_button.clicked.connect(lambda: self.move(-1))
        self.down_button.clicked.connect(lambda: self.move(+1))

    def _make_fields(self) -> None:
        self.mpp_box = QDoubleSpinBox()
        self.mpp_box.setDecimals(3)
        self.mpp_box.setRange(min(self._info.mpp, 0.05), 1000.0)
        self.mpp_box.setSuffix(" µm")
        self.mpp_box.setValue(max(MPP, self._info.mpp))
        self.mpp_box.setToolTip(
            f"What a pixel of the mask spans; a pixel of the slide spans {self._info.mpp:.4g} µm"
        )
        self.mpp_box.valueChanged.connect(lambda _: self._say())
        self.background_box, self.unlabelled_box = QSpinBox(), QSpinBox()
        for box, value, words in (
            (self.background_box, 0, f"Value of what lies in {REGION} and has no annotation"),
            (self.unlabelled_box, 255, f"Value of what nothing is known of: outside of {REGION}"),
        ):
            box.setRange(0, 65535)
            box.setValue(value)
            box.setToolTip(words)
        self.priority_box = QComboBox()
        self.priority_box.addItem("the one drawn later counts", "drawn")
        self.priority_box.addItem("the class with the higher value counts", "classes")
        self.full_box = QCheckBox("The whole slide is annotated")
        self.full_box.setToolTip("All that has no annotation is background, not unlabelled")
        self.full_box.toggled.connect(lambda _: self._say())
        self.mend_box = QCheckBox("Mend broken outlines on the way")
        self.mend_box.setToolTip("Without, a broken outline stops the mask with a sentence")

    def move(self, by: int) -> None:
        """Move the chosen class in the list: its value changes."""
        item = self.tree.currentItem()
        place = self.tree.indexOfTopLevelItem(item) if item is not None else -1
        if item is not None and 0 <= place + by < self.tree.topLevelItemCount():
            self.tree.takeTopLevelItem(place)
            self.tree.insertTopLevelItem(place + by, item)
            self.tree.setCurrentItem(item)
            self._say()

    @property
    def classes(self) -> list[AnnotationClass]:
        """The classes that are ticked, in the order of their values."""
        items = [self.tree.topLevelItem(n) for n in range(self.tree.topLevelItemCount())]
        return [
            item.data(0, _ROLE) for item in items if item.checkState(0) == Qt.CheckState.Checked
        ]

    def _say(self) -> None:
        self.tree.blockSignals(True)
        value = 0
        for n in range(self.tree.topLevelItemCount()):
            item = self.tree.topLevelItem(n)
            ticked = item.checkState(0) == Qt.CheckState.Checked
            value += ticked
            item.setText(1, str(value) if ticked else "–")
        self.tree.blockSignals(False)
        wide = round(self._info.width_px0 * self._info.mpp_xy[0] / self.mpp_box.value())
        high = round(self._info.height_px0 * self._info.mpp_xy[1] / self.mpp_box.value())
        words = f"The mask has {count(wide)} x {count(high)} pixels."
        has_region = any(region.class_name == REGION for region in self._regions)
        if not has_region and not self.full_box.isChecked():
            words += f" There is no {REGION}: all that has no annotation is unlabelled."
        self.words.setText(words)

    def job(self) -> MaskJob:
        """Return what was asked for.

        Raises
        ------
        AnnotationError
            If two things have one value.
        """
        table = LabelTable.of(
            self.classes,
            background=self.background_box.value(),
            unlabelled=self.unlabelled_box.value(),
        )
        return MaskJob(
            self._regions,
            self._info,
            self.mpp_box.value(),
            table,
            self.priority_box.currentData(),
            self.full_box.isChecked(),
            self.mend_box.isChecked(),
        )

    # --- writing ---

    def _ask_file(self) -> None:
        dialog = QFileDialog(self, "Mask", f"{self._info.path.stem}.ome.tif", _FILES)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
        dialog.fileSelected.connect(lambda file: self.write(Path(file)))
        dialog.open()

    def write(self, path: Path) -> None:
        """Write the mask beside the window; the dialog closes when it is there."""
        try:
            run = MaskRun(self.job(), path)
        except HistomilError as error:
            show_error(error, self)
            return

        def done(notes: tuple[str, ...] | None) -> None:
            self._ended()
            if notes is not None:
                self.said.emit("\n".join([f"The mask is in {path.name}.", *notes]))
                self.accept()

        def failed(error: Exception) -> None:
            self._ended()
            show_error(error, self)

        self._run = run
        self.write_button.setEnabled(False)
        self.bar.setRange(0, run.rows)
        self.bar.setValue(0)
        self.bar.show()
        self._timer.start()
        self._job = jobs.start(
            run.work,
            on_progress=lambda _: None,
            on_done=done,
            on_error=failed,
            title=f"writing {path.name}",
            owner=self,
        )

    def _show_progress(self) -> None:
        if self._run is not None:
            self.bar.setValue(self._run.rows_done)

    def _ended(self) -> None:
        self._timer.stop()
        self._job = self._run = None
        self.bar.hide()
        self.write_button.setEnabled(True)

    def reject(self) -> None:
        """Cancel the mask that is being written; without one, close."""
        if self._job is not None:
            self._job.cancel()
        else:
            super().reject()
