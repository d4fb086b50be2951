"""How far a training is, how it goes, and what came of it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QHBoxLayout, QProgressBar, QPushButton, QVBoxLayout, QWidget

from napari_histomil.manifest import ModelManifest
from napari_histomil.training.config import TrainingConfig
from napari_histomil.ui.training_job import score_lines
from napari_histomil.ui.widgets.curves import METRICS, CurvesView
from napari_histomil.ui.widgets.model_picker import CardDialog
from napari_histomil.ui.widgets.panel import plain_label
from napari_histomil.ui.words import count, duration

if TYPE_CHECKING:
    from napari_histomil.training.loop import TrainingProgress

FIRST_STEPS = 5
"""Steps after which the time that is left is estimated: the first are slow."""


class TrainProgress(QWidget):
    """A bar, a sentence, the learning curves; at the end the scores and what to do next."""

    use_wanted = Signal(str)
    """The model of that name is to be run."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.model: ModelManifest | None = None
        self._last: TrainingProgress | None = None
        self._metric, self._every = "loss", 1
        self.bar = QProgressBar()
        self.bar.setToolTip("Steps of this stage that are done")
        self.label = plain_label()
        self.curves = CurvesView()
        self.scores = plain_label(tooltip="Scores on slides that the model has not learnt from")
        self.card_button = QPushButton("Open card")
        self.card_button.setToolTip(
            "What the model was trained on, how well it did, and what it is not good for"
        )
        self.card_button.clicked.connect(self.show_card)
        self.use_button = QPushButton("Use it in Run")
        self.use_button.setToolTip("Choose this model in the Run dock")
        self.use_button.clicked.connect(self._use)
        self.buttons = QWidget()
        row = QHBoxLayout(self.buttons)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(6)
        row.addWidget(self.use_button, 2)
        row.addWidget(self.card_button, 1)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(6)
        for widget in (self.bar, self.label, self.curves, self.scores, self.buttons):
            column.addWidget(widget)
        self.clear()

    def clear(self) -> None:
        """Say nothing."""
        self.model = self._last = None
        for widget in (self.bar, self.label, self.curves, self.scores, self.buttons):
            widget.hide()

    def prepare(self, config: TrainingConfig, rows: list[Mapping[str, float]]) -> None:
        """Nothing is learnt yet: data is read and the net is made.

        Parameters
        ----------
        config
            The training.
        rows
            Curves of what was done before.
        """
        self.clear()
        self._metric = config.validation.metric
        # as the trainer has it: between two looks the scores are those of the last one
        self._every = config.validation.every or max(config.schedule.steps // 10, 1)
        self.bar.setRange(0, 0)  # a bar that moves without an end
        self.bar.show()
        self._say("Preparing: reading the slides, making the network…")
        self.curves.begin(config.schedule.steps, self._metric)
        if rows:
            self.curves.add(rows)
            self.curves.show()

    def show_steps(self, steps: list[TrainingProgress]) -> None:
        """Show how far a training is."""
        for stage, rows in _by_stage(steps, self._every):
            if self._last is not None and stage != self._last.stage:
                self.curves.begin(steps[-1].steps, self._metric)  # the next net
            self.curves.add(rows)
        now = self._last = steps[-1]
        if now.best is not None:
            self.curves.best = (now.best_step, now.best)
        # A bar paints itself at once, and the sentence only when the window has time.
        self.bar.setUpdatesEnabled(False)
        self.bar.setRange(0, now.steps)
        self.bar.setValue(now.step)
        self.bar.setUpdatesEnabled(True)
        self.bar.show()
        self.curves.show()
        left = "time left is estimated…"
        if now.step >= FIRST_STEPS:
            left = f"{duration(now.seconds_left)} left"
        stage = now.stage[:1].upper() + now.stage[1:]
        if math.isnan(now.loss):  # a refiner's detector looks first
            self._say(f"{stage}: {count(now.step)} of {count(now.steps)} tiles, {left}")
            return
        lines = [f"{stage}: step {count(now.step)} of {count(now.steps)}, {left}"]
        if now.step == now.steps:
            lines = [f"{stage}: all {count(now.steps)} steps are done, being scored and written…"]
        lines.append(f"Loss {now.loss:.3f}{self._best_text()}")
        self._say("\n".join(lines))

    def _best_text(self) -> str:
        now = self._last
        if now is None or now.best is None:
            return ""
        word = METRICS[self._metric]
        return f", best validation {word} {now.best:.3f} at step {count(now.best_step)}"

    def cancelling(self) -> None:
        """Say that the training is about to stop."""
        self._say("Cancelling after this step…")

    def cancelled(self) -> None:
        """Say how far it came."""
        now = self._last
        self.bar.hide()
        self._say(
            "Cancelled before the first step."
            if now is None
            else f"Cancelled at step {count(now.step)} of {count(now.steps)}: Resume goes on "
            f"from there."
        )

    def failed(self) -> None:
        """Say that an error stopped it."""
        self.bar.hide()
        self._say("Stopped by an error; what was learnt up to the last checkpoint is kept.")

    def finished(self, model: ModelManifest) -> None:
        """Show what came of it."""
        self.model = model
        self.bar.hide()
        now = self._last
        time = "" if now is None else f" in {duration(now.seconds)}"
        self._say(f"Done{time}: {model.name} is listed in the Run dock.")
        self.scores.setText("\n".join(score_lines(model)) or self._no_test_text())
        self.scores.show()
        self.buttons.show()

    def _no_test_text(self) -> str:
        now = self._last
        if now is None or now.best is None:
            return (
                "Nothing was kept from the training, so no score says how good it is: look at "
                "slides whose answer you know."
            )
        return (
            f"Validation, on which the weights were chosen: {METRICS[self._metric]} "
            f"{now.best:.3f} at step {count(now.best_step)}. No slides were kept for a test, so "
            f"there is no score of slides that nothing was chosen on."
        )

    def show_card(self) -> CardDialog | None:
        """Open the card of the finished model."""
        if self.model is None:
            return None
        dialog = CardDialog(self.model, self)
        dialog.open()
        return dialog

    def _use(self) -> None:
        if self.model is not None:
            self.use_wanted.emit(self.model.name)

    def _say(self, text: str) -> None:
        self.label.setText(text)
        self.label.show()


def _by_stage(
    steps: list[TrainingProgress], every: int
) -> Iterator[tuple[str, list[Mapping[str, float]]]]:
    """Yield the rows of curves of each stage; the scores of a look at the validation only once."""
    for stage, group in itertools.groupby(steps, key=lambda now: now.stage):
        rows: list[Mapping[str, float]] = []
        for now in group:
            if math.isnan(now.loss):
                continue
            looked = now.step % every == 0 or now.step == now.steps
            found = now.scores.items() if looked else ()
            scores = {f"validation_{name}": v for name, v in found if math.isfinite(v)}
            rows.append({"step": float(now.step), "loss": now.loss, **scores})
        yield stage, rows
