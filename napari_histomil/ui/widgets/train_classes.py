"""Which classes a model is to tell apart, which of them is positive, and what background is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtWidgets import (
    QComboBox,
    QHeaderView,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_histomil.annotations.model import RGB
from napari_histomil.manifest import ClassSpec
from napari_histomil.ui.tool_icons import class_icon
from napari_histomil.ui.training_choices import Task
from napari_histomil.ui.training_data import BACKGROUND
from napari_histomil.ui.widgets.forms import form
from napari_histomil.ui.widgets.rows import NUMBER, fit_rows, give_room

BACKGROUND_COLOR: RGB = (120, 160, 220)
"""Of all else, as in the shipped models."""

LIKELY_POSITIVE = ("tumor", "tumour", "metasta", "cancer", "carcinoma", "nucle")
"""A class whose name begins so is positive until a person says otherwise."""

_ROWS = (2, 6)
_ALL_ELSE, _NOTHING = "all else inside Region*", "nothing"


class TrainClasses(QWidget):
    """A list of classes with ticks, and two questions about them."""

    changed = Signal()
    """The person chose something else."""
    renamed = Signal(str, str)
    """The person gave a class of a folder another name: the old one, the new one."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._unticked: set[str] = set()
        self._colors: dict[str, RGB] = {}
        self._task: Task = "segment"
        self._bounded = self._given = False
        self._wanted_background: str | None = None  # what the person chose
        self._wanted_positive: str | None = None
        self.tree = QTreeWidget()
        self.tree.setRootIsDecorated(False)
        self.tree.setHeaderLabels(("Class to tell apart", "Regions"))
        self.tree.headerItem().setToolTip(
            0, "Regions of classes without a tick are left out: neither learnt nor background"
        )
        self.tree.setUniformRowHeights(True)
        give_room(self.tree)
        header = self.tree.header()
        header.setStretchLastSection(False)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        header.setSectionResizeMode(1, QHeaderView.ResizeMode.ResizeToContents)
        fit_rows(self.tree, *_ROWS)
        self.tree.itemChanged.connect(self._on_edit)
        self.positive_box = QComboBox()
        self.positive_box.setToolTip(
            "The class that is looked for: shown first, and scores such as AUROC are of it"
        )
        self.positive_box.activated.connect(self._on_positive)
        self.background_box = QComboBox()
        self.background_box.activated.connect(self._on_background)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(6)
        column.addWidget(self.tree)
        self.form = form(("Positive", self.positive_box), ("Background", self.background_box))
        column.addLayout(self.form)

    # --- what is chosen -----------------------------------------------------------------------

    @property
    def classes(self) -> tuple[ClassSpec, ...]:
        """What the model is to tell apart."""
        found = [ClassSpec(name, self._colors[name]) for name in self._ticked()]
        if self.background == BACKGROUND and BACKGROUND not in self._colors:
            found.insert(0, ClassSpec(BACKGROUND, BACKGROUND_COLOR))
        return tuple(found)

    @property
    def positive(self) -> str:
        """Name of the positive class; empty where there is none."""
        return self.positive_box.currentText()

    @property
    def background(self) -> str:
        """Name of the background class; empty for none."""
        return str(self.background_box.currentData() or "")

    def _ticked(self) -> list[str]:
        return [name for name in self._colors if self._given or name not in self._unticked]

    # --- what there is ------------------------------------------------------------------------

    def show_found(
        self, found: Mapping[str, tuple[RGB, int]], *, bounded: bool, task: Task
    ) -> None:
        """Show the classes that are drawn.

        Parameters
        ----------
        found
            Class -> colour and number of regions.
        bounded
            Whether there is a ``Region*``.
        task
            What the model is to do: a classifier always has a background.
        """
        self._given, self._bounded, self._task = False, bounded, task
        self._fill([(name, color, str(number)) for name, (color, number) in found.items()])
        self._update()

    def show_given(
        self,
        classes: Sequence[ClassSpec],
        background: str,
        positive: str = "",
        *,
        editable: bool = False,
    ) -> None:
        """Show classes that a folder or a file has settled.

        Parameters
        ----------
        classes
            All are told apart.
        background
            Their background; empty for none.
        positive
            The positive one; empty for what is likely.
        editable
            Whether they can be renamed and another one be positive.
        """
        self._given = True
        self._fill([(each.name, each.color, "") for each in classes], editable=editable)
        names = [name for name in self._colors if name != background]
        if editable and self._wanted_positive in names:
            positive = self._wanted_positive or ""
        with QSignalBlocker(self.positive_box), QSignalBlocker(self.background_box):
            self.background_box.clear()
            self.background_box.addItem(background or _NOTHING, background)
            self.positive_box.clear()
            self.positive_box.addItems(names)
            self.positive_box.setCurrentText(positive or self._likely(names))
        self.background_box.setEnabled(False)
        self.background_box.setToolTip("Settled by the data")
        self.positive_box.setEnabled(editable)

    def _fill(self, rows: Sequence[tuple[str, RGB, str]], *, editable: bool = False) -> None:
        """Show the classes; those of a folder or a file have no ticks."""
        self._colors = {name: color for name, color, _ in rows}
        with QSignalBlocker(self.tree):
            self.tree.clear()
            for name, color, number in rows:
                item = QTreeWidgetItem(self.tree, [name, number])
                item.setIcon(0, class_icon(color))
                item.setTextAlignment(1, NUMBER)
                item.setData(0, Qt.ItemDataRole.UserRole, name)
                if not self._given:
                    ticked = name not in self._unticked
                    state = Qt.CheckState.Checked if ticked else Qt.CheckState.Unchecked
                    item.setCheckState(0, state)
                elif editable:
                    item.setFlags(item.flags() | Qt.ItemFlag.ItemIsEditable)
                    item.setToolTip(0, "Double-click to give the class its name")
        fit_rows(self.tree, *_ROWS)

    def _update(self) -> None:
        """Offer what fits to the ticks."""
        ticked = self._ticked()
        choices = [] if self._task == "classify" else [(_NOTHING, "")]
        if self._bounded:
            choices.append((_ALL_ELSE, BACKGROUND))
        choices += [(name, name) for name in ticked if name != BACKGROUND]
        usual = BACKGROUND if self._bounded else ""
        wanted = usual if self._wanted_background is None else self._wanted_background
        values = [value for _, value in choices]
        if wanted not in values:
            wanted = usual if usual in values else self._unlikely(ticked)
        with QSignalBlocker(self.background_box):
            self.background_box.clear()
            for words, value in choices:
                self.background_box.addItem(words, value)
            self.background_box.setCurrentIndex(values.index(wanted) if wanted in values else -1)
        self.background_box.setEnabled(bool(choices))
        self.background_box.setToolTip(
            "What none of the classes is: all that is not drawn inside Region*, or one of the "
            "classes, to which all that is added"
            if self._bounded
            else "No slide has a Region*: draw one around what is annotated completely, and all "
            "that is not drawn inside it is background"
        )
        names = [name for name in ticked if name != self.background]
        positive = self._wanted_positive
        with QSignalBlocker(self.positive_box):
            self.positive_box.clear()
            self.positive_box.addItems(names)
            self.positive_box.setCurrentText(
                positive if positive in names else self._likely(names)
            )
        self.positive_box.setEnabled(bool(names))

    def _likely(self, names: Sequence[str]) -> str:
        """Return the name that is positive by default."""
        return next(
            (name for name in names if name.casefold().startswith(LIKELY_POSITIVE)),
            names[0] if names else "",
        )

    def _unlikely(self, names: Sequence[str]) -> str:
        """Return the name that is a classifier's background by default."""
        return next((name for name in names if name != self._likely(names)), "")

    def _on_edit(self, item: QTreeWidgetItem, _column: int) -> None:
        name, before = item.text(0).strip(), item.data(0, Qt.ItemDataRole.UserRole)
        if self._given:
            if name and name not in self._colors:
                self.renamed.emit(before, name)
            else:
                item.setText(0, before)  # a name that is taken, or none
            return
        ticked = item.checkState(0) == Qt.CheckState.Checked
        (self._unticked.discard if ticked else self._unticked.add)(before)
        self._update()
        self.changed.emit()

    def _on_positive(self) -> None:
        self._wanted_positive = self.positive
        self.changed.emit()

    def _on_background(self) -> None:
        self._wanted_background = self.background
        self._update()
        self.changed.emit()
