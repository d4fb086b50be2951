"""How one reads: recording on and off, with consent; what was seen of the tissue; export."""

from __future__ import annotations

import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any

from qtpy.QtCore import QSignalBlocker, Qt
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDialog,
    QDialogButtonBox,
    QFileDialog,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_histomil.errors import HistomilError
from napari_histomil.review.viewing import (
    CONSENT,
    POWERS,
    Coverage,
    coverage_of,
    folder_of,
    read_views,
    write_steps_geojson,
    write_steps_json,
)
from napari_histomil.tissue import find_tissue
from napari_histomil.ui import jobs
from napari_histomil.ui.dialogs import show_error
from napari_histomil.ui.layers import heatmap_layer
from napari_histomil.ui.recorder import recorder
from napari_histomil.ui.reviewing import Reviewing
from napari_histomil.ui.widgets.icon_button import row
from napari_histomil.ui.widgets.panel import follow, plain_label
from napari_histomil.ui.widgets.rows import without_icons

LAYER = "viewing time"


class ConsentDialog(QDialog):
    """Says what is recorded, and asks."""

    def __init__(self, folder: Path, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setWindowTitle("Record how I read?")
        self.words = plain_label(CONSENT.format(folder=folder))
        self.words.setMinimumWidth(420)
        buttons = QDialogButtonBox()
        self.agree_button = buttons.addButton(
            "I agree: record", QDialogButtonBox.ButtonRole.AcceptRole
        )
        self.refuse_button = buttons.addButton(
            "Do not record", QDialogButtonBox.ButtonRole.RejectRole
        )
        without_icons(buttons)
        buttons.accepted.connect(self.accept)
        buttons.rejected.connect(self.reject)
        self.refuse_button.setDefault(True)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(16, 16, 16, 12)
        layout.setSpacing(12)
        layout.addWidget(self.words)
        layout.addWidget(buttons)


class RecordingPart(QWidget):
    """The fold about viewing time."""

    def __init__(self, state: Reviewing, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._state = state
        self._recorder = recorder(state.session.viewer)
        self._job: jobs.JobHandle | None = None
        self.record_box = QCheckBox("Record what my window shows")
        self.record_box.setToolTip("Off until you agree, in every window anew")
        self.record_box.clicked.connect(self._switch)
        self.power_box = QComboBox()
        for power in POWERS:
            self.power_box.addItem(f"{power:g}x", power)
        self.power_box.setCurrentText("10x")
        self.power_box.setToolTip("What was seen at this magnification or a higher one")
        self.map_button = QPushButton("Show what I saw")
        self.map_button.setToolTip("A map of viewing time over this slide: not of gaze")
        self.map_button.clicked.connect(self.show_coverage)
        self.export_button = QPushButton("Export…")
        self.export_button.setToolTip(
            "Steps (inspect, peek) as GeoJSON of this slide, or JSON of all"
        )
        self.export_button.clicked.connect(self._ask_file)
        self.words = plain_label()
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(5)
        column.addWidget(self.record_box)
        column.addWidget(row(self.power_box, self.map_button, self.export_button))
        column.addWidget(self.words)
        follow(self, self._recorder.changed, self.refresh)
        follow(self, self._recorder.failed, self._on_failed)
        follow(self, state.case_changed, self.refresh)
        follow(self, state.project_changed, self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Show whether something is recorded."""
        with QSignalBlocker(self.record_box):
            self.record_box.setChecked(self._recorder.on)
        self.record_box.setEnabled(self._state.project is not None)
        for button in (self.map_button, self.export_button):
            button.setEnabled(self._state.current is not None)
        self.record_box.setText(
            "● Recording what my window shows" if self._recorder.on else
            "Record what my window shows"
        )  # fmt: skip

    def _on_failed(self, error: Exception) -> None:
        show_error(error, self)

    def _switch(self, on: bool) -> None:
        if not on:
            self._recorder.stop()
            return
        self.refresh()  # it is not on before one has agreed
        assert self._state.project is not None
        dialog = ConsentDialog(folder_of(self._state.project), self)
        dialog.accepted.connect(self._start)
        dialog.open()

    def _start(self) -> None:
        try:
            self._recorder.start()
        except HistomilError as error:
            show_error(error, self)

    # --- what was seen ---

    def show_coverage(self) -> None:
        """Lay the map of viewing time over the slide, and say what was never seen."""
        state, slide = self._state, self._state.session.active
        if state.project is None or state.log is None or slide is None or self._job is not None:
            return
        project, reader, power = state.project, state.log.reader, self.power_box.currentData()
        opened, info = slide.slide, slide.info

        def work(_cancel: threading.Event) -> Generator[None, None, tuple[Coverage, Any]]:
            yield from ()
            views = read_views(project, reader).get(reader, [])
            own = [view for view in views if view.slide == info.fingerprint]
            tissue = find_tissue(opened)
            return coverage_of(own, tissue, info.mpp_xy, power), tissue

        def done(found: tuple[Coverage, Any] | None) -> None:
            self._job = None
            if found is not None and slide in state.session.slides:
                self._lay(*found, info)

        def failed(error: Exception) -> None:
            self._job = None
            show_error(error, self)

        self._job = jobs.start(
            work,
            on_progress=lambda _: None,
            on_done=done,
            on_error=failed,
            title="looking up what was seen",
            owner=self,
        )

    def _lay(self, coverage: Coverage, tissue: Any, info: Any) -> None:
        viewer = self._state.session.viewer
        wide, high = tissue.scale_px0
        mpp_x, mpp_y = info.mpp_xy
        image = coverage.density.astype("float32")
        image[~coverage.tissue] = float("nan")
        for layer in [layer for layer in viewer.layers if layer.name == LAYER]:
            viewer.layers.remove(layer)
        data, attributes, _ = heatmap_layer(
            image,
            pixel_um=(high * mpp_y, wide * mpp_x),
            name=LAYER,
            metadata={},
            colormap="viridis",
            opacity=0.6,
        )
        highest = float(coverage.density.max())
        viewer.add_image(data, **(attributes | {"contrast_limits": (0, highest or 1)}))
        self.words.setText(f"{coverage.sentence} (viewing time, not gaze)")

    def _ask_file(self) -> None:
        dialog = QFileDialog(
            self, "Export viewing time", "viewing.geojson", "GeoJSON (*.geojson);;JSON (*.json)"
        )
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
        dialog.fileSelected.connect(lambda path: self.export(Path(path)))
        dialog.open()

    def export(self, path: Path) -> None:
        """Write this reader's steps: over the slide as GeoJSON, or of all cases as JSON."""
        state, slide = self._state, self._state.session.active
        if state.project is None or state.log is None or slide is None:
            return
        reader = state.log.reader
        try:
            views = read_views(state.project, reader)
            if path.suffix == ".json":
                write_steps_json(path, views)
            else:
                write_steps_geojson(path, views.get(reader, []), slide.info, reader)
        except HistomilError as error:
            show_error(error, self)
        else:
            self.words.setText(f"Steps are in {path.name}.")
