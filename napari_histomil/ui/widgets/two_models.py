"""Two models on the same tissue: the map of their difference and a list of where they disagree."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QHBoxLayout,
    QHeaderView,
    QPushButton,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_histomil.errors import HistomilError, RunError
from napari_histomil.heatmaps import score_image
from napari_histomil.results import RunStore, find_runs
from napari_histomil.review.compare_runs import Disagreement, RunsCompared, compare_runs
from napari_histomil.review.truth import TileTruth
from napari_histomil.slides.slide import SlideInfo
from napari_histomil.ui import jobs
from napari_histomil.ui.camera import go_to_px0, set_magnification
from napari_histomil.ui.dialogs import show_error
from napari_histomil.ui.overlays import LOOK_CLOSELY, overlays
from napari_histomil.ui.review_layers import difference_layer
from napari_histomil.ui.run_facts import title
from napari_histomil.ui.session import RunView
from napari_histomil.ui.widgets.panel import follow, plain_label
from napari_histomil.ui.widgets.rows import NUMBER, fit_rows, give_room
from napari_histomil.ui.widgets.slider_spin import SliderSpin
from napari_histomil.ui.words import count

APART_UM = 200.0
"""Two listed places lie at least so far apart: about half a screen at 20x."""

MOST_LISTED = 200

_COLUMNS = ("First", "Second", "Right")
_TOOLTIPS = (
    "What the shown run says",
    "What the other run says",
    "Who is right by the truth above, where it was judged",
)


class TwoModels(QWidget):
    """Choose a second run of the slide; its difference to the shown one is mapped and listed.

    Parameters
    ----------
    napari_viewer
        The viewer.
    truth
        Gives the truth of the shown run's tiles, or None.

    Attributes
    ----------
    compared
        What is shown, None before.
    """

    map_shown = Signal()
    """The map of the difference was laid over the slide."""

    def __init__(
        self,
        napari_viewer: Any,
        truth: Callable[[], TileTruth | None] = lambda: None,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self._overlays = overlays(napari_viewer)
        self._truth = truth
        self.compared: RunsCompared | None = None
        self.rows: list[Disagreement] = []
        self._run: RunView | None = None
        self._job: jobs.JobHandle | None = None
        self.map = difference_layer(self._overlays.session.viewer)
        self._make_widgets()
        follow(self, self._overlays.current_changed, self._on_run)
        self.destroyed.connect(self.map.clear)
        self._on_run(self._overlays.current)

    def _make_widgets(self) -> None:
        self.run_box = QComboBox()
        self.run_box.setSizeAdjustPolicy(
            QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
        )
        self.run_box.setToolTip("The other run of this slide")
        self.button = QPushButton("Compare")
        self.button.clicked.connect(lambda: self.open(self.run_box.currentData()))
        line = QHBoxLayout()
        line.addWidget(self.run_box, 1)
        line.addWidget(self.button)
        self.words = plain_label()
        self.threshold = SliderSpin(0.0, 1.0, step=0.01, decimals=2)
        self.threshold.set_value(0.5)
        self.threshold.setToolTip("Both are called positive from this probability on")
        self.threshold.value_changed.connect(lambda _: self._list())
        self.map_box = QCheckBox("Difference on the slide")
        self.map_box.setToolTip("Red where the shown run says more")
        self.map_box.setChecked(True)
        self.map_box.toggled.connect(self._show_map)
        self.tree = QTreeWidget()
        self.tree.setRootIsDecorated(False)
        self.tree.setHeaderLabels(_COLUMNS)
        give_room(self.tree)
        header = self.tree.header()
        header.setStretchLastSection(False)
        for column, words in enumerate(_TOOLTIPS):
            self.tree.headerItem().setToolTip(column, words)
            header.setSectionResizeMode(column, QHeaderView.ResizeMode.Stretch)
        self.tree.currentItemChanged.connect(self._go)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(6)
        column.addLayout(line)
        column.addWidget(self.words)
        self._answer = (self.threshold, self.map_box, self.tree)
        for widget in self._answer:
            column.addWidget(widget)

    # --- choosing -----------------------------------------------------------------------------

    def _on_run(self, run: RunView | None) -> None:
        """Speak of another run: what was compared goes, others of its slide are looked for."""
        if run is self._run and run is not None:
            return
        if self._job is not None:
            self._job.cancel()
            self._job = None
        self._run, self.compared = run, None
        self.map.clear()
        self.run_box.clear()
        self._set_shown(False)
        tiles = run is not None and isinstance(run.store, RunStore)
        self.button.setEnabled(False)
        self.words.setText("" if tiles else "Show the run of a patch classifier first.")
        if run is None or not tiles:
            return
        info, own = run.slide.info, run.store.run_id

        def find(cancel: threading.Event) -> Iterator[list[tuple[str, Path]]]:
            yield _others(info, own, cancel)

        def found(lists: list[list[tuple[str, Path]]]) -> None:
            if self._run is run:
                self._fill(lists[-1])

        self._start(find, found, "the search for other runs")

    def _fill(self, runs: list[tuple[str, Path]]) -> None:
        for name, path in runs:
            self.run_box.addItem(name, path)
        self.button.setEnabled(bool(runs))
        if not runs:
            self.words.setText("No other patch classifier has run over this slide.")

    def open(self, path: Path) -> None:
        """Compare the shown run with another one of the slide, beside the window."""
        run = self._run
        if run is None or not isinstance(run.store, RunStore):
            return
        store, truth = run.store, self._truth()
        heatmap = run.heatmap
        assert heatmap is not None, "a patch classifier has a heatmap"
        name = heatmap.class_name

        def work(cancel: threading.Event) -> Iterator[RunsCompared]:
            found = compare_runs(store, RunStore.open(path), name, truth)
            if not found.common.any():
                raise RunError("The two runs have no tile in common: nothing can be compared.")
            yield found

        def done(values: list[RunsCompared]) -> None:
            if self._run is run:
                self._show(run, values[-1])

        self.words.setText("The two are being compared …")
        self._start(work, done, "the comparison of two runs")

    def _start(self, work: Any, done: Callable[[list[Any]], None], what: str) -> None:
        self._job = jobs.start(
            work,
            on_progress=done,
            on_done=lambda _: None,
            on_error=self._failed,
            title=what,
            owner=self,
        )

    def _failed(self, error: Exception) -> None:
        self.words.setText(str(error) if isinstance(error, HistomilError) else "")
        if not isinstance(error, HistomilError):
            show_error(error, self)

    # --- showing ------------------------------------------------------------------------------

    def _show(self, run: RunView, found: RunsCompared) -> None:
        self.compared = found
        self._set_shown(True)
        with QSignalBlocker(self.map_box):
            self.map_box.setChecked(True)
        image = score_image(found.grid, found.difference)
        self.map.show(image, found.grid.cell_size_px0, run.slide.info, on=True)
        run.layer.visible = False
        self.map_shown.emit()
        self._list()

    def _show_map(self, on: bool) -> None:
        self.map.set_shown(on)
        if on and self.compared is not None:
            self.map_shown.emit()

    def _set_shown(self, shown: bool) -> None:
        for widget in self._answer:
            widget.setVisible(shown)

    def _list(self) -> None:
        """Count and list where the two disagree at the threshold."""
        found = self.compared
        if found is None:
            return
        at = self.threshold.value
        counts = found.agreement(at).counts
        self.rows = found.disagreements(at, most=MOST_LISTED, apart_um=APART_UM)
        self.words.setText(
            f"Of {count(int(counts.sum()))} tiles both call {count(int(counts[0, 0]))} positive, "
            f"only {found.names[0]} {count(int(counts[0, 1]))}, only {found.names[1]} "
            f"{count(int(counts[1, 0]))}; κ {found.kappa(at)}, mean difference "
            f"{np.nanmean(np.abs(found.difference)):.3f}."
        )
        right = {"first": found.names[0], "second": found.names[1], "unknown": ""}
        with QSignalBlocker(self.tree):
            self.tree.clear()
            for row in self.rows:
                item = QTreeWidgetItem([f"{row.first:.3f}", f"{row.second:.3f}", right[row.right]])
                for column in (0, 1):
                    item.setTextAlignment(column, NUMBER)
                item.setData(0, Qt.ItemDataRole.UserRole, row.xy_px0)
                self.tree.addTopLevelItem(item)
        fit_rows(self.tree, 3, 8)

    def _go(self, item: QTreeWidgetItem | None, _: Any = None) -> None:
        """Fly to where the two disagree."""
        run, viewer = self._run, self._overlays.session.viewer
        if item is not None and run is not None:
            set_magnification(viewer, LOOK_CLOSELY)
            go_to_px0(viewer, run.slide.info, item.data(0, Qt.ItemDataRole.UserRole))


def _others(info: SlideInfo, own: str, cancel: threading.Event) -> list[tuple[str, Path]]:
    """Return the slide's other runs of patch classifiers that can be opened: words, folder."""
    found = []
    for path in find_runs(info):
        if cancel.is_set():
            break
        try:
            run = RunStore.open(path)
        except RunError:
            continue  # the Overlay dock's list says what is the matter with it
        if run.run_id != own:
            found.append((title(run), path))
    return found
