"""What if it were stained otherwise: the shown run's model asked again under stain conditions.

The slide as it is and each condition are jobs over the same tiles, so they are stored, and asking
once more costs nothing. How they compare is `review/stain_change.py`'s.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QHBoxLayout,
    QPushButton,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)
from shapely.geometry import box

from napari_histomil.errors import HistomilError, RunError
from napari_histomil.heatmaps import hottest, score_image
from napari_histomil.inference.job import Job, RegionSpec, plan_job
from napari_histomil.manifest import find_model, load_manifest
from napari_histomil.results import RunStore
from napari_histomil.review.slide_answers import Rule
from napari_histomil.review.stain_change import (
    AS_IT_IS,
    StainChange,
    compare_stains,
    condition_of,
)
from napari_histomil.stain import CONDITIONS
from napari_histomil.ui import jobs
from napari_histomil.ui.dialogs import show_error
from napari_histomil.ui.layers import rect_in_view_px0
from napari_histomil.ui.overlays import overlays
from napari_histomil.ui.review_layers import stain_layer
from napari_histomil.ui.session import RunView
from napari_histomil.ui.torch_shield import shield_torch
from napari_histomil.ui.widgets.panel import follow, plain_label
from napari_histomil.ui.widgets.rows import NUMBER, explain_columns, fit_rows, give_room
from napari_histomil.ui.words import count

VIEW, TOP = "What the view shows", "The 50 hottest tiles"
TOP_TILES = 50

RULE = Rule("top", share=0.1)
"""How the tiles that were asked about become one answer."""

RANGE = "range"

_COLUMNS = ("Stained", "Answer", "Mean", "Tiles", "±")
_TOOLTIPS = (
    "Click to see the answers on the slide",
    f"Of the tiles asked about, by the rule {RULE}",
    "Mean of the tiles' answers",
    "Tiles called positive from 0.5 on",
    "Tiles called otherwise than on the slide as it is: to positive / to negative",
)


class StainChangePart(QWidget):
    """Ask again, see all answers side by side.

    Attributes
    ----------
    found
        What is shown, None before.
    """

    map_shown = Signal()
    """Answers were laid over the slide."""

    def __init__(self, napari_viewer: Any, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._overlays = overlays(napari_viewer)
        self.found: StainChange | None = None
        self._store: RunStore | None = None
        self._run: RunView | None = None
        self._job: jobs.JobHandle | None = None
        self.map = stain_layer(self._overlays.session.viewer)
        self.where_box = QComboBox()
        self.where_box.addItems([VIEW, TOP])
        self.where_box.setToolTip("Which tiles the model is asked about")
        self.button = QPushButton("Ask again")
        self.button.clicked.connect(self._on_button)
        line = QHBoxLayout()
        line.addWidget(self.where_box, 1)
        line.addWidget(self.button)
        self.words = plain_label()
        self.tree = QTreeWidget()
        self.tree.setRootIsDecorated(False)
        self.tree.setHeaderLabels(_COLUMNS)
        give_room(self.tree)
        explain_columns(self.tree, _TOOLTIPS)
        self.tree.currentItemChanged.connect(lambda item, _: self._lay(item))
        self.map_box = QCheckBox("Answers on the slide")
        self.map_box.setChecked(True)
        self.map_box.toggled.connect(self._show_map)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(6)
        column.addLayout(line)
        for widget in (self.words, self.tree, self.map_box):
            column.addWidget(widget)
        follow(self, self._overlays.current_changed, self._on_run)
        self.destroyed.connect(self.map.clear)
        self._on_run(self._overlays.current)

    def _on_run(self, run: RunView | None) -> None:
        if run is self._run and run is not None:
            return
        if self._job is not None:
            self._job.cancel()
            self._job = None
        self._run, self.found = run, None
        self.map.clear()
        self.tree.hide()
        self.map_box.hide()
        tiles = run is not None and isinstance(run.store, RunStore)
        self.button.setText("Ask again")
        self.button.setEnabled(tiles)
        self.words.setText("" if tiles else "Show the run of a patch classifier first.")

    def _on_button(self) -> None:
        if self._job is None:
            self.ask()
        else:
            self._job.cancel()
            self.words.setText("Cancelling …")

    def region(self) -> RegionSpec | None:
        """Return what is asked about; None where the view shows none of the slide."""
        run = self._run
        assert run is not None, "the button is enabled"
        if self.where_box.currentText() == VIEW:
            rect = rect_in_view_px0(self._overlays.session.viewer, run.slide.info)
            return None if rect is None else RegionSpec("rect", rect)
        heatmap = run.heatmap
        cells = hottest(heatmap.grid, heatmap.values, count=TOP_TILES)
        corners = heatmap.grid.cell_rects_px0[cells].tolist()
        shapes = [box(x, y, x + width, y + height).wkt for x, y, width, height in corners]
        return RegionSpec("polygons", polygons_wkt=tuple(shapes), min_fraction=0.5)

    def ask(self) -> None:
        """Ask the model again, as it is and under each condition, beside the window."""
        run = self._run
        region = None if run is None else self.region()
        if run is None or region is None:
            self.words.setText("The view shows none of the slide.")
            return
        store, name = run.store, run.heatmap.class_name

        def work(cancel: threading.Event) -> Iterator[Any]:
            shield_torch()
            from napari_histomil.inference.engine import run as compute

            made = {}
            for job in _jobs(store, run.slide.info, region):
                word = job.stain.condition or AS_IT_IS
                path = None
                for step in compute(job, cancel=cancel):
                    path = step.store
                    yield f"{word}: {count(step.done)} of {count(step.total)} tiles"
                if cancel.is_set() or path is None:
                    return
                opened = RunStore.open(path)
                made[condition_of(opened)] = opened
            yield made[AS_IT_IS], compare_stains(made, name, rule=RULE)

        def progress(values: list[Any]) -> None:
            if self._run is not run:
                return
            if isinstance(values[-1], str):
                self.words.setText(values[-1])
            else:
                self._show(*values[-1])

        def over(_: Any) -> None:
            self._job = None
            self.button.setText("Ask again")
            if self.found is None and self._run is run:
                self.words.setText("It was cancelled; what was asked is kept.")

        def failed(error: Exception) -> None:
            over(None)
            self.words.setText(str(error) if isinstance(error, HistomilError) else "")
            if not isinstance(error, HistomilError):
                show_error(error, self)

        self.found = None
        self.words.setText("The model is asked …")
        self.button.setText("Cancel")
        self._job = jobs.start(
            work,
            on_progress=progress,
            on_done=over,
            on_error=failed,
            title="the change of stains",
            owner=self,
        )

    def _show(self, store: RunStore, found: StainChange) -> None:
        self.found, self._store = found, store
        low, high = found.answers
        self.words.setText(
            f"The answer for these {count(len(store.grid))} tiles lies between {low:.3f} and "
            f"{high:.3f}; {count(found.unstable)} tiles are called otherwise under some staining."
        )
        with QSignalBlocker(self.tree):
            self.tree.clear()
            for row, each in enumerate(found.conditions):
                changes = "" if not row else f"+{each.to_positive} / −{each.to_negative}"
                self._add_row(
                    row, each.condition, f"{each.answer:.3f}", f"{each.mean:.3f}",
                    count(each.called), changes,
                )  # fmt: skip
            self._add_row(-1, RANGE, f"{high - low:.3f}", f"{np.nanmean(found.range):.3f}", "", "")
        self.tree.show()
        self.map_box.show()
        with QSignalBlocker(self.map_box):
            self.map_box.setChecked(True)
        fit_rows(self.tree, 6, 6)
        self.tree.setCurrentItem(self.tree.topLevelItem(0))

    def _add_row(self, row: int, *texts: str) -> None:
        item = QTreeWidgetItem(list(texts))
        item.setData(0, Qt.ItemDataRole.UserRole, row)
        for column in range(1, len(_COLUMNS)):
            item.setTextAlignment(column, NUMBER)
        self.tree.addTopLevelItem(item)

    def _lay(self, item: QTreeWidgetItem | None) -> None:
        """Show the answers under the condition of a row, or their range."""
        if item is None or self.found is None or self._run is None or self._store is None:
            return
        row = item.data(0, Qt.ItemDataRole.UserRole)
        values = self.found.range if row < 0 else self.found.scores[row]
        grid = self._store.grid
        image = score_image(grid, values)
        self.map.show(image, grid.cell_size_px0, self._run.slide.info, on=self.map_box.isChecked())
        if self.map_box.isChecked():
            self._run.layer.visible = False
            self.map_shown.emit()

    def _show_map(self, on: bool) -> None:
        self.map.set_shown(on)
        if on and self.found is not None:
            self.map_shown.emit()


def _jobs(store: RunStore, info: Any, region: RegionSpec) -> list[Job]:
    """Return the jobs of a run's model over a region: as it is, then under each condition."""
    path, name = Path(str(store.model.get("path", ""))), str(store.model["name"])
    model = load_manifest(path) if path.is_dir() else find_model(name)
    if model.sha256 != store.model["sha256"]:
        raise RunError(
            f"The model {name} is not the one that this run was made with: run it anew first."
        )
    spec = store.grid.spec
    return [
        plan_job(
            info,
            model,
            region=region,
            stain="none",
            condition=condition,
            mpp=spec.mpp,
            stride_px=spec.stride_px,
        )
        for condition in (None, *CONDITIONS)
    ]
