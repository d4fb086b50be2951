"""The answer of a MIL model, with its warnings: the same in the Run and the Overlay dock."""

from __future__ import annotations

from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_histomil.results.mil import MilRun
from napari_histomil.ui.answers import answer_html
from napari_histomil.ui.widgets.panel import plain_label


class Answer(QWidget):
    """The likeliest class with its probability, the others, what they are worth, warnings."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.label = plain_label(tooltip="The answer for the whole slide, not for a place on it")
        self.warnings = plain_label(
            tooltip="Reasons not to believe this answer without a second look"
        )
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(6)
        column.addWidget(self.label)
        column.addWidget(self.warnings)
        self.show_run(None)

    def show_run(self, run: MilRun | None) -> None:
        """Say what a run answered; nothing is shown without one."""
        self.setVisible(run is not None)
        self.label.setText("" if run is None else answer_html(run))
        sentences = () if run is None else run.warnings
        self.warnings.setText("\n".join(f"⚠ {sentence}" for sentence in sentences))
        self.warnings.setVisible(bool(sentences))
