"""Against the truth: the shown run beside what is true of its slide, at any threshold, live.

What is counted lives in `review/outcome_map.py`; it is made once, beside the window, and a slider
only looks things up. Below it a second model on the same tissue, which is `two_models.py`'s.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFileDialog,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_histomil.errors import HistomilError
from napari_histomil.results import MilRun, RunStore, SegmentationStore
from napari_histomil.review.outcome_map import SlideOutcome, slide_outcome
from napari_histomil.review.scoring import TITLES
from napari_histomil.review.truth import BACKGROUND, Truth, positive_indices
from napari_histomil.review.truth_files import DRAWN_HERE, Case, open_truth
from napari_histomil.review.truth_sources import RegionTruth
from napari_histomil.ui import jobs
from napari_histomil.ui.annotator import annotator
from napari_histomil.ui.dialogs import show_error
from napari_histomil.ui.overlays import overlays
from napari_histomil.ui.review_layers import OUTCOMES, legend_html, outcome_layer
from napari_histomil.ui.session import RunView
from napari_histomil.ui.widgets.panel import follow, heading, plain_label
from napari_histomil.ui.widgets.slider_spin import SliderSpin
from napari_histomil.ui.widgets.two_models import TwoModels
from napari_histomil.ui.words import count

SOURCES = (
    ("What is drawn here", "The annotations of this slide in this program"),
    ("A file of annotations…", "GeoJSON of QuPath, XML of ASAP or ImageScope, ..."),
    ("A mask…", "A label mask: TIFF, PNG or OME-Zarr"),
    ("Another run…", "What another model, or the same in another way, said of this slide"),
)

LIVE = (
    "recall", "specificity", "precision", "f1", "iou", "accuracy", "balanced_accuracy", "kappa",
)  # fmt: skip
"""Scores that the threshold moves, in the order in which they are shown."""

FIXED = ("auroc", "average_precision", "brier", "ece_width")

AREAS = ("judged", "positive", "called", "both")


@dataclass(frozen=True, slots=True)
class _Found:
    """What the thread brings back."""

    outcome: SlideOutcome
    names: tuple[str, ...]
    positive: str
    notes: tuple[str, ...]


class AgainstTruth(QWidget):
    """Choose the truth, move the threshold; map, matrix and scores follow.

    Attributes
    ----------
    outcome
        What is shown, None before.
    """

    map_shown = Signal()
    """A map of right and wrong, or of a difference, was laid over the slide."""

    def __init__(self, napari_viewer: Any, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._overlays = overlays(napari_viewer)
        self._annotator = annotator(napari_viewer)
        self.outcome: SlideOutcome | None = None
        self.map = outcome_layer(self._overlays.session.viewer)
        self._run: RunView | None = None
        self._image: Any = None
        self._case: tuple[str, str] = ("annotations", DRAWN_HERE)
        self._job: jobs.JobHandle | None = None
        self._column = QVBoxLayout(self)
        self._column.setContentsMargins(0, 0, 0, 0)
        self._column.setSpacing(6)
        self._make_question()
        self._make_answer()
        self._make_second()
        follow(self, self._overlays.current_changed, self._on_run)
        self.destroyed.connect(self.map.clear)
        self._on_run(self._overlays.current)

    # --- widgets ------------------------------------------------------------------------------

    def _make_question(self) -> None:
        self.source_box = QComboBox()
        for name, tooltip in SOURCES:
            self.source_box.addItem(name)
            self.source_box.setItemData(
                self.source_box.count() - 1, tooltip, Qt.ItemDataRole.ToolTipRole
            )
        self.source_box.activated.connect(self._on_source)
        self.class_box = QComboBox()
        self.class_box.setToolTip("Class of the truth that counts as positive")
        self.class_box.activated.connect(lambda _: self.score())
        grid = QGridLayout()
        grid.setSpacing(6)
        for row, (words, box) in enumerate(
            (("Truth", self.source_box), ("Positive", self.class_box))
        ):
            box.setSizeAdjustPolicy(
                QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
            )
            grid.addWidget(QLabel(words), row, 0)
            grid.addWidget(box, row, 1)
        grid.setColumnStretch(1, 1)
        self.full_box = QCheckBox("I declare the slide fully annotated")
        self.full_box.setToolTip(
            "Without it only what lies inside Region* and outside Ignore* is judged.\n"
            "With it all that is not drawn counts as negative; the scores say that it was declared"
        )
        self.score_button = QPushButton("Score")
        self.score_button.clicked.connect(self.score)
        self.words = plain_label()
        self._column.addLayout(grid)
        self._column.addWidget(self.full_box)
        self._column.addWidget(self.score_button)
        self._column.addWidget(self.words)

    def _make_answer(self) -> None:
        self.answer = QWidget()
        column = QVBoxLayout(self.answer)
        column.setContentsMargins(0, 4, 0, 0)
        column.setSpacing(6)
        self.level_box = QComboBox()
        self.level_box.setToolTip(
            "Tiles are positive by half of their judged area; mixed ones have 5 to 95 %.\n"
            "Pixels count each µm² once, also where the run has no tile"
        )
        self.level_box.activated.connect(lambda _: self._on_level())
        self.points_box = QComboBox()
        self.points_box.setToolTip("Go to a threshold with a name")
        self.points_box.activated.connect(self._on_point)
        line = QHBoxLayout()
        line.addWidget(self.level_box, 1)
        line.addWidget(self.points_box, 1)
        self.threshold = SliderSpin(0.0, 1.0, step=0.01, decimals=3)
        self.threshold.setToolTip("Called positive from this probability on")
        self.threshold.value_changed.connect(self._on_threshold)
        column.addLayout(line)
        column.addWidget(self.threshold)
        column.addLayout(self._make_matrix())
        column.addLayout(self._make_table())
        self.areas = plain_label()
        self.map_box = QCheckBox("Map on the slide")
        self.map_box.setChecked(True)
        self.map_box.toggled.connect(self.map.set_shown)
        legend = plain_label(
            legend_html(), "\n".join(f"{name}: {words}" for name, _, words in OUTCOMES)
        )
        column.addWidget(self.areas)
        column.addWidget(self.map_box)
        column.addWidget(legend)
        self._column.addWidget(self.answer)
        self.answer.hide()

    def _make_second(self) -> None:
        """Compare with a second model below; one map lies over the slide at a time."""
        self.second = TwoModels(
            self._overlays.session.viewer,
            lambda: None if self.outcome is None else self.outcome.truth,
        )
        self._column.addWidget(heading("Two models on the same tissue"))
        self._column.addWidget(self.second)
        self.second.map_shown.connect(lambda: self.map_box.setChecked(False))
        self.second.map_shown.connect(self.map_shown)
        self.map_box.toggled.connect(lambda on: on and self._only_this_map())

    def _only_this_map(self) -> None:
        self.second.map_box.setChecked(False)
        if self.outcome is not None:
            self.map_shown.emit()

    def hide_maps(self) -> None:
        """Take the maps off the slide: another one is shown."""
        self.map_box.setChecked(False)
        self.second.map_box.setChecked(False)

    def _make_matrix(self) -> QGridLayout:
        grid = QGridLayout()
        grid.setSpacing(4)
        self.matrix: dict[str, QLabel] = {}
        for column, words in enumerate(("called positive", "called negative"), 1):
            grid.addWidget(_centred(QLabel(words)), 0, column)
        for row, words in enumerate(("is positive", "is negative"), 1):
            grid.addWidget(QLabel(words), row, 0)
        places = {"tp": (1, 1), "fn": (1, 2), "fp": (2, 1), "tn": (2, 2)}
        colours = dict(zip(("tp", "fp", "fn", "tn"), (c for _, c, _ in OUTCOMES), strict=True))
        for name, place in places.items():
            label = _centred(QLabel())
            r, g, b, _ = colours[name]
            label.setStyleSheet(
                f"border: 2px solid rgb({r}, {g}, {b}); border-radius: 3px; padding: 3px;"
            )
            self.matrix[name] = label
            grid.addWidget(label, *place)
        grid.setColumnStretch(1, 1)
        grid.setColumnStretch(2, 1)
        return grid

    def _make_table(self) -> QGridLayout:
        grid = QGridLayout()
        grid.setHorizontalSpacing(8)
        grid.setVerticalSpacing(2)
        self.figures: dict[str, QLabel] = {}
        for place, name in enumerate((*LIVE, *FIXED)):
            row, column = place % 6, 2 * (place // 6)
            grid.addWidget(QLabel(TITLES[name].replace(", 15 equal bins", "")), row, column)
            label = QLabel()
            label.setAlignment(Qt.AlignmentFlag.AlignRight)
            label.setMinimumWidth(label.fontMetrics().horizontalAdvance("0.000") + 12)
            self.figures[name] = label
            grid.addWidget(label, row, column + 1)
        grid.setColumnStretch(0, 1)
        grid.setColumnStretch(2, 1)
        return grid

    # --- asking -------------------------------------------------------------------------------

    def _on_run(self, run: RunView | None) -> None:
        """Speak of another run, or none: what is shown of the last one goes."""
        if run is self._run and run is not None:
            return
        self._run = run
        self._forget()
        why = self._why_not()
        self.score_button.setEnabled(not why)
        self.score_button.setToolTip(why or "Count where the run is right, beside the window")
        self.words.setText(why)

    def _why_not(self) -> str:
        if self._run is None:
            return "Show a run over its slide first (Run or Overlay dock)."
        if isinstance(self._run.store, MilRun):
            return (
                "A MIL model answers for the whole slide: it is scored over slides, with "
                "'histomil score' or the cases above."
            )
        return ""

    def _forget(self) -> None:
        if self._job is not None:
            self._job.cancel()
            self._job = None
        self.outcome = self._image = None
        self.answer.hide()
        self.map.clear()
        with QSignalBlocker(self.class_box):
            self.class_box.clear()

    def _on_source(self, index: int) -> None:
        """Ask for the file or folder that a choice needs."""
        with QSignalBlocker(self.class_box):
            self.class_box.clear()
        if index == 0:
            self._case = ("annotations", DRAWN_HERE)
            return
        kind = ("annotations", "mask", "truth_run")[index - 1]
        dialog = QFileDialog(self, SOURCES[index][0].rstrip("…"))
        if kind == "truth_run":
            dialog.setFileMode(QFileDialog.FileMode.Directory)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.fileSelected.connect(lambda path: self.use(kind, Path(path)))
        dialog.rejected.connect(lambda: self.source_box.setCurrentIndex(self._source_index))
        dialog.open()

    @property
    def _source_index(self) -> int:
        kind, value = self._case
        if value == DRAWN_HERE:
            return 0
        return 1 + ("annotations", "mask", "truth_run").index(kind)

    def use(self, kind: str, path: Path) -> None:
        """Take a file as truth and score by it.

        Parameters
        ----------
        kind
            ``annotations``, ``mask`` or ``truth_run``.
        path
            File, or folder of a run.
        """
        self._case = kind, str(path)
        with QSignalBlocker(self.source_box), QSignalBlocker(self.class_box):
            self.source_box.setCurrentIndex(self._source_index)
            self.class_box.clear()
        self.source_box.setToolTip(str(path))
        self.score()

    def score(self) -> None:
        """Lay the run beside its truth, beside the window."""
        run = self._run
        if run is None or self._why_not():
            return
        store, wanted = run.store, self.class_box.currentText()
        assert isinstance(store, RunStore | SegmentationStore)
        answer = str(store.model.get("positive_class") or store.class_names[-1])
        if run.heatmap is not None:
            answer = run.heatmap.class_name
        truth_of = self._truth_of(store, answer)
        if truth_of is None:
            return
        self.words.setText("The run is being scored …")
        self.score_button.setEnabled(False)

        def work(cancel: threading.Event) -> Iterator[_Found]:
            yield from truth_of(wanted)

        def done(values: list[_Found]) -> None:
            if self._job is job and self._run is run:
                self._show(run, values[-1])

        def over(_: Any) -> None:
            if self._job is job:
                self.score_button.setEnabled(True)

        def failed(error: Exception) -> None:
            over(None)
            self.words.setText(str(error) if isinstance(error, HistomilError) else "")
            if not isinstance(error, HistomilError):
                show_error(error, self)

        if self._job is not None:
            self._job.cancel()
        job = jobs.start(
            work,
            on_progress=done,
            on_done=over,
            on_error=failed,
            title="the scoring of a run",
            owner=self,
        )
        self._job = job

    def _truth_of(
        self, store: RunStore | SegmentationStore, answer: str
    ) -> Callable[[str], Iterator[_Found]] | None:
        """Return what the thread does; what is drawn in the window is taken as it is now."""
        kind, value = self._case
        full = self.full_box.isChecked()
        drawn = None
        if value == DRAWN_HERE:
            regions = self._annotator.regions
            drawn = tuple(regions) if regions is not None else ()
            if not drawn:
                self.words.setText("Nothing is drawn on this slide yet: annotate it, or choose "
                                   "another truth.")  # fmt: skip
                return None
        case = Case(store.path, **{kind: value})

        def work(wanted: str) -> Iterator[_Found]:
            if drawn is not None:
                truth = RegionTruth(drawn, "what is drawn here", full)
                yield _scored(store, truth, wanted, answer)
                return
            with open_truth(case, store, positive=answer, fully_annotated=full) as found:
                assert found is not None, "a truth was named"
                yield _scored(store, found, wanted, answer)

        return work

    # --- showing ------------------------------------------------------------------------------

    def _show(self, run: RunView, found: _Found) -> None:
        self.outcome = found.outcome
        with QSignalBlocker(self.class_box), QSignalBlocker(self.level_box):
            self.class_box.clear()
            self.class_box.addItems([n for n in found.names if n != BACKGROUND] or [BACKGROUND])
            self.class_box.setCurrentText(found.positive)
            level = self.level_box.currentText()
            self.level_box.clear()
            for name in found.outcome.tables:
                self.level_box.addItem(name.capitalize(), name)
            self.level_box.setCurrentText(level)
            self.level_box.setCurrentIndex(max(self.level_box.currentIndex(), 0))
        self.threshold.set_value(0.5)
        self._image = found.outcome.picture(0.5)
        self.answer.show()
        self.words.setText("\n".join([f"Truth: {found.outcome.rule}.", *found.notes]))
        self.map.show(
            self._image,
            found.outcome.grid.cell_size_px0,
            run.slide.info,
            on=self.map_box.isChecked(),
        )
        if self.map_box.isChecked():
            run.layer.visible = False
            self._only_this_map()
        self._on_level()

    @property
    def level(self) -> str:
        """Tiles, tiles without mixed, or pixels."""
        return str(self.level_box.currentData())

    def _on_level(self) -> None:
        outcome = self.outcome
        if outcome is None:
            return
        with QSignalBlocker(self.points_box):
            self.points_box.clear()
            self.points_box.addItem("Operating points")
            for point in outcome.points(self.level):
                self.points_box.addItem(f"{point.name}: {point.threshold:.3f}", point)
                words = (
                    f"{point.how}: sensitivity {point.sensitivity:.3f}, specificity "
                    f"{point.specificity:.3f}. Chosen on this slide, it flatters this slide."
                )
                at = self.points_box.count() - 1
                self.points_box.setItemData(at, words, Qt.ItemDataRole.ToolTipRole)
        calibration = outcome.calibration(self.level)
        ranked = outcome.ranked(self.level)
        for name in FIXED:
            score = ranked.get(name)
            value = calibration.get(name) if score is None else score.value
            self.figures[name].setText(_number(value))
            self.figures[name].setToolTip("" if score is None else score.reason)
        self._show_threshold()

    def _on_point(self, index: int) -> None:
        point = self.points_box.itemData(index)
        if point is not None:
            # below the threshold by a hair: the number that is shown has three digits
            self.threshold.set_value(point.threshold)
            self._at(point.threshold)

    def _on_threshold(self, value: float) -> None:
        self._at(value)
        with QSignalBlocker(self.points_box):
            self.points_box.setCurrentIndex(0)

    def _at(self, threshold: float) -> None:
        """Show everything at a threshold: the map, the matrix and the scores together."""
        outcome = self.outcome
        if outcome is None:
            return
        self._image[tuple(outcome.grid.cells.T)] = outcome.outcome(threshold)
        self.map.repaint()
        self._show_threshold(threshold)

    def _show_threshold(self, threshold: float | None = None) -> None:
        outcome = self.outcome
        assert outcome is not None, "somebody has scored"
        at = self.threshold.value if threshold is None else threshold
        level = self.level
        counts = outcome.counts[level].at(at)
        um2 = outcome.tables[level].case_um2
        for name, value in zip(("tp", "fp", "fn", "tn"), counts, strict=True):
            text = f"{value * um2 / 1e6:.3f} mm²" if um2 else count(round(value))
            self.matrix[name].setText(text)
        for name, score in outcome.figures(level, at).items():
            self.figures[name].setText(_number(score.value))
            self.figures[name].setToolTip(score.reason)
        tp, fp, fn, tn = outcome.counts["pixels"].at(at)
        pixel = outcome.tables["pixels"].case_um2 / 1e6
        parts = ((tp + fp + fn + tn), tp + fn, tp + fp, tp)
        self.areas.setText(
            ", ".join(f"{v * pixel:.3f} mm² {n}" for n, v in zip(AREAS, parts, strict=True))
        )


def _scored(store: RunStore | SegmentationStore, truth: Truth, wanted: str, answer: str) -> _Found:
    """Lay a run beside a truth; the class that counts is the wanted one, or the model's."""
    classes = [name for name in truth.names if name != BACKGROUND]
    positive = wanted if wanted in classes else ""
    if not positive:
        own = positive_indices(classes, answer)
        positive = classes[own[0]] if own else (classes[0] if len(classes) == 1 else answer)
    notes = []
    if not positive_indices(classes, positive):
        notes.append(f"It has no {positive}: all that was judged is negative.")
    outcome = slide_outcome(store, truth, positive, answer=answer)
    if not outcome.known.any():
        notes.append("No tile of the run lies where anything was judged.")
    return _Found(outcome, truth.names, positive, tuple(notes))


def _number(value: Any) -> str:
    return "–" if value is None else f"{value:.3f}"


def _centred(label: QLabel) -> QLabel:
    label.setAlignment(Qt.AlignmentFlag.AlignCenter)
    return label
