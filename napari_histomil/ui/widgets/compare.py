"""The Compare dock: a second view of the same place, and two slides aligned by pairs of points."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QSignalBlocker, Qt
from qtpy.QtWidgets import QCheckBox, QComboBox, QHBoxLayout, QPushButton, QWidget

from napari_histomil.ui.keys import bind, hint
from napari_histomil.ui.linked import linked
from napari_histomil.ui.widgets.linked import SecondView, show_second
from napari_histomil.ui.widgets.pairs import PairsEditor
from napari_histomil.ui.widgets.panel import Panel, follow, plain_label

_NO_SLIDE = "Open a slide first"


class CompareWidget(Panel):
    """Dock about the second view of one viewer.

    Attributes
    ----------
    second
        The second canvas in the window, or None while there is none.
    """

    def __init__(self, napari_viewer: Any, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._linked = linked(napari_viewer)
        self.second: SecondView | None = None
        self._make_second_view()
        self._make_alignment()
        follow(self, self._linked.changed, self._update)
        follow(self, self._linked.opened, self._on_opened)
        follow(self, self._linked.closed, self._on_closed)
        bind(napari_viewer, "compare.toggle", self.toggle)
        self.destroyed.connect(lambda: self._let_go())
        if self._linked.view is not None:
            self._on_opened()
        self._update()

    def _make_second_view(self) -> None:
        column = self.section("Second view")
        self.shown_box = QComboBox()
        self.shown_box.setToolTip("What is shown beside the first view, at the same place")
        self.shown_box.setSizeAdjustPolicy(
            QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
        )
        self.shown_box.activated.connect(self._choose)
        self.open_button = QPushButton()
        self.open_button.clicked.connect(self.toggle)
        row = QHBoxLayout()
        row.setSpacing(4)
        row.addWidget(self.shown_box, 1)
        row.addWidget(self.open_button)
        self.joined_box = QCheckBox("Move together")
        self.joined_box.setToolTip(
            "Both views show one place at one magnification; without, each moves by itself"
        )
        self.joined_box.toggled.connect(self._join)
        self.words = plain_label()
        # Room for two lines: what is below stays where it is.
        self.words.setMinimumHeight(2 * self.words.fontMetrics().lineSpacing())
        self.words.setAlignment(Qt.AlignmentFlag.AlignTop)
        column.addLayout(row)
        column.addWidget(self.joined_box)
        column.addWidget(self.words)

    def _make_alignment(self) -> None:
        column = self.section("Alignment of two slides")
        self.pairs = PairsEditor(self._linked)
        self.pairs.changed.connect(self._show_pairs)
        column.addWidget(self.pairs)

    def toggle(self) -> None:
        """Open the second view with what is chosen, or close it."""
        if self._linked.view is not None:
            self._linked.close()
        else:
            self._linked.open(self.shown_box.currentData())

    def _choose(self, index: int) -> None:
        """Show what was chosen; choosing opens the view as well."""
        self._linked.open(self.shown_box.itemData(index))

    def _join(self, joined: bool) -> None:
        self._linked.joined = joined

    def _on_opened(self) -> None:
        self.second = show_second(self._linked)
        self._show_pairs()

    def _on_closed(self) -> None:
        self.second = None

    def _let_go(self) -> None:
        """Take the second view along: no dock is left to close it."""
        self._linked.close()
        self.second = None

    def _show_pairs(self) -> None:
        if self.second is not None:
            self.second.show_pairs(self.pairs.pairs, self.pairs.half)

    def _update(self) -> None:
        choices = self._linked.choices()
        is_open = self._linked.view is not None
        wanted = self._linked.shown if is_open else self._linked.best_choice()
        with QSignalBlocker(self.shown_box):
            self.shown_box.clear()
            for words, shown in choices:
                self.shown_box.addItem(words, shown)
            shown_ones = [shown for _, shown in choices]
            self.shown_box.setCurrentIndex(
                shown_ones.index(wanted) if wanted in shown_ones else -1
            )
        self.shown_box.setEnabled(bool(choices))
        self.open_button.setEnabled(bool(choices))
        self.open_button.setText("Close" if is_open else "Open")
        self.open_button.setToolTip(
            f"{'Close the second view' if is_open else 'Open it beside the first'}"
            f"{hint('compare.toggle')}"
            if choices
            else _NO_SLIDE
        )
        self.joined_box.setEnabled(is_open)
        with QSignalBlocker(self.joined_box):
            self.joined_box.setChecked(self._linked.joined)
        self.words.setText(self._say(bool(choices), is_open))

    def _say(self, can_open: bool, is_open: bool) -> str:
        if not can_open:
            return f"{_NO_SLIDE}."
        if is_open and not self._linked.joined:
            return "Each view moves by itself; joined again, the right one goes to the left one."
        if is_open:
            return "The cross in each view is the pointer of the other."
        return "The same place side by side: with its heatmap, or in another open slide."
