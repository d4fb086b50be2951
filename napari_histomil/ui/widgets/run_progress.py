"""How far a run is: a bar, tiles, speed, time left."""

from __future__ import annotations

from qtpy.QtWidgets import QProgressBar, QVBoxLayout, QWidget

from napari_histomil.inference.job import Progress
from napari_histomil.ui.widgets.panel import plain_label
from napari_histomil.ui.words import count, duration, rate


class RunProgress(QWidget):
    """A progress bar with a sentence below it."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.bar = QProgressBar()
        self.bar.setToolTip("Tiles that are computed and safely on disk")
        self.label = plain_label()
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        column.addWidget(self.bar)
        column.addWidget(self.label)
        self.idle("")

    def idle(self, text: str) -> None:
        """Say something while nothing runs; the bar is out of the way."""
        self.bar.hide()
        self.label.setText(text)
        self.label.setVisible(bool(text))

    def prepare(self, text: str = "Preparing: loading the model, looking for tissue…") -> None:
        """Nothing is computed yet: model and tissue are being prepared."""
        self.bar.setRange(0, 0)  # a bar that moves without an end
        self.bar.show()
        self.label.setText(text)
        self.label.show()

    def show_progress(self, progress: Progress) -> None:
        """Show how far a run is, and which part of it is going on."""
        # A bar paints itself at once, and the sentence only when the window has time: they would
        # say two things.
        self.bar.setUpdatesEnabled(False)
        self.bar.setRange(0, max(progress.total, 1))
        self.bar.setValue(progress.done)
        self.bar.setUpdatesEnabled(True)
        self.bar.show()
        self.label.setText(_sentence(progress))
        self.label.show()

    def end(self, progress: Progress, *, cancelled: bool) -> None:
        """Say how a run ended."""
        done, total = count(progress.done), count(progress.total)
        if progress.done < progress.total:
            how = "Cancelled" if cancelled else "Stopped"
            self.idle(f"{how}: {done} of {total} tiles are done and kept.")
        elif progress.done == progress.resumed:
            self.idle(f"All {total} tiles were done already.")
        else:
            speed = rate(progress.tiles_per_second)
            self.idle(f"Done: {total} tiles in {duration(progress.seconds)}, {speed} tiles/s.")


def _sentence(progress: Progress) -> str:
    """Say what is going on."""
    done, total, stage = count(progress.done), count(progress.total), progress.stage
    if stage == "answer":
        return f"The model is asked about {done} tiles…"
    if stage == "checks":
        return f"The model has answered about {done} tiles; scale and attention are checked…"
    text = f"{stage[0].upper()}{stage[1:]}: " if stage else ""
    text += f"{done} of {total} tiles"
    left = progress.seconds_left
    if left is None:
        return f"{text}, preparing the model…"
    return f"{text}, {rate(progress.tiles_per_second)} tiles/s, {duration(left)} left"
