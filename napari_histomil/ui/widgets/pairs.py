"""Two slides aligned by hand: pairs of points placed in both views, their list, apply, forget."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

from qtpy.QtCore import QEvent, QObject, Qt, Signal
from qtpy.QtWidgets import (
    QComboBox,
    QHBoxLayout,
    QHeaderView,
    QPushButton,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_histomil.errors import AlignmentError
from napari_histomil.slides.alignment import Alignment, PointPair, align
from napari_histomil.slides.alignment_files import (
    forget_alignment,
    recall_alignment,
    save_alignment,
)
from napari_histomil.slides.slide import Slide, SlideInfo
from napari_histomil.ui import jobs
from napari_histomil.ui.dialogs import show_error
from napari_histomil.ui.joined import Side
from napari_histomil.ui.linked import Linked
from napari_histomil.ui.orientation import look_at_world
from napari_histomil.ui.widgets.forms import form
from napari_histomil.ui.widgets.panel import follow, plain_label

FLIPS = {
    "as the pairs say": None,
    "not flipped": False,
    "flipped": True,
}
"""What a person can say about the flip, and what `align` is told."""

_ROWS = 4
_PLACE = "Click a place in one view, then the same place in the other"
_DELETE = "Delete the selected pairs (key: Del)"
_APPLY = "Lay the second slide on the first, and keep the pairs with both slides"
_FORGET = "Delete all pairs, also those kept with the two slides"
_NEEDS_TWO = "Show another open slide in the second view to align the two."


class PairsEditor(QWidget):
    """Pairs of points of the two slides shown, and the alignment that they make.

    Attributes
    ----------
    pairs
        As placed so far; applied or not.
    half
        The side and place of the first click of a pair, before the second one.
    """

    changed = Signal()
    """Pairs were placed, found or deleted."""

    def __init__(self, linked: Linked, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._linked = linked
        self.pairs: list[PointPair] = []
        self.half: tuple[Side, tuple[float, float]] | None = None
        self._slides: tuple[Slide, Slide] | None = None
        self._fit: Alignment | None = None
        self._looking: jobs.JobHandle | None = None
        self._make_list()
        self._make_buttons()
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(6)
        self._tools = QWidget()
        column.addWidget(self._tools)
        column.addWidget(self.words)  # below: buttons stay where they are while it changes
        tools = QVBoxLayout(self._tools)
        tools.setContentsMargins(0, 0, 0, 0)
        tools.setSpacing(6)
        tools.addLayout(self._row(self.place_button, self.delete_button))
        tools.addWidget(self.list)
        tools.addLayout(form(("Second slide", self.flip_box)))
        tools.addLayout(self._row(self.apply_button, self.forget_button))
        follow(self, linked.changed, self._follow)
        follow(self, linked.clicked, self._on_clicked)
        self._follow()
        self._update()

    def _make_list(self) -> None:
        self.words = plain_label()
        self.list = QTreeWidget()
        self.list.setRootIsDecorated(False)
        self.list.setHeaderLabels(["Pair", "Apart"])
        self.list.headerItem().setToolTip(
            1, "How far the two points of a pair lie apart after the alignment"
        )
        self.list.header().setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        self.list.header().setSectionResizeMode(1, QHeaderView.ResizeMode.ResizeToContents)
        self.list.header().setStretchLastSection(False)
        self.list.setFixedHeight((_ROWS + 1) * (self.fontMetrics().lineSpacing() + 8))
        self.list.itemSelectionChanged.connect(self._update_buttons)
        self.list.itemDoubleClicked.connect(self._go_to)
        self.list.installEventFilter(self)

    def _make_buttons(self) -> None:
        self.place_button = QPushButton("Place pair")
        self.place_button.setCheckable(True)
        self.place_button.toggled.connect(self._place)
        self.delete_button = QPushButton("Delete")
        self.delete_button.clicked.connect(self._delete)
        self.flip_box = QComboBox()
        self.flip_box.addItems(list(FLIPS))
        self.flip_box.setToolTip(
            "Whether one section lies upside down on its glass; two pairs cannot tell, three can"
        )
        self.flip_box.activated.connect(self._update)
        self.apply_button = QPushButton("Apply")
        self.apply_button.clicked.connect(self._apply)
        self.forget_button = QPushButton("Forget")
        self.forget_button.clicked.connect(self._forget)

    @staticmethod
    def _row(*buttons: QPushButton) -> QHBoxLayout:
        row = QHBoxLayout()
        row.setSpacing(4)
        for button in buttons:
            row.addWidget(button)
        return row

    # ------------------------------------------------------------------------- which slides

    @property
    def infos(self) -> tuple[SlideInfo, SlideInfo] | None:
        """The facts of the two slides that are shown, or None while they are not two."""
        return None if self._slides is None else tuple(each.info for each in self._slides)

    def _follow(self) -> None:
        """Speak of the slides that are shown now; look for what is kept about them."""
        left, right = self._linked.left, self._linked.right
        two = left is not None and right is not None and left is not right
        slides = (left.slide, right.slide) if two else None
        if slides != self._slides:
            self._slides = slides
            self.place_button.setChecked(False)
            self._set_pairs([])
            self.flip_box.setCurrentIndex(0)
            self._look()
        self._update_buttons()

    def _look(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None
        infos = self.infos
        if infos is None:
            return

        def found(alignment: Alignment | None) -> None:
            if self._looking is not job:  # else other slides are shown by now
                return
            self._looking = None
            if alignment is not None and not self.pairs:
                if alignment.flip == "given":
                    self.flip_box.setCurrentIndex(2 if alignment.mirrored else 1)
                self._set_pairs(list(alignment.pairs))
                self._linked.alignment = alignment

        job = self._beside(lambda: recall_alignment(*infos), found)
        self._looking = job

    def _beside(
        self, work: Callable[[], Any], done: Callable[[Any], None] = lambda _: None
    ) -> jobs.JobHandle:
        """Read or write small files beside the window; an error comes as a dialog."""

        def generate(_cancel: threading.Event) -> Iterator[None]:
            yield from ()
            return work()

        return jobs.start(
            generate,
            on_progress=lambda _: None,
            on_done=done,
            on_error=lambda error: show_error(error, self),
            title="the alignment of two slides",
            owner=self,
        )

    # ------------------------------------------------------------------------------- pairs

    def _set_pairs(self, pairs: list[PointPair]) -> None:
        self.pairs, self.half = pairs, None
        self._update()
        self.changed.emit()

    def _place(self, placing: bool) -> None:
        """Wait for a click in each view; the views move by themselves meanwhile."""
        self._linked.picking = placing
        if placing:
            self._linked.joined = False
        else:
            self.half = None
        self._update()
        self.changed.emit()

    def _on_clicked(self, side: Side, xy_px0: tuple[float, float]) -> None:
        if self.half is None or self.half[0] == side:
            self.half = side, xy_px0  # a second click in one view corrects the first
            self._update()
            self.changed.emit()
            return
        places = dict([self.half, (side, xy_px0)])
        self._set_pairs([*self.pairs, PointPair(places["left"], places["right"])])
        self.place_button.setChecked(False)

    def _delete(self) -> None:
        gone = {self.list.indexOfTopLevelItem(item) for item in self.list.selectedItems()}
        self._set_pairs([pair for i, pair in enumerate(self.pairs) if i not in gone])

    def _go_to(self, item: QTreeWidgetItem) -> None:
        """Bring both points of a pair into the middle of their views."""
        pair = self.pairs[self.list.indexOfTopLevelItem(item)]
        linked = self._linked
        for side, viewer, place in (
            ("right", linked.view, pair.second_px0),
            ("left", linked.viewer, pair.first_px0),
        ):
            look_at_world(viewer, linked.to_world(side, place))

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Delete what is selected by the Delete key."""
        pressed = watched is self.list and event.type() == QEvent.Type.KeyPress
        if pressed and event.key() == Qt.Key.Key_Delete:
            self._delete()
            return True
        return super().eventFilter(watched, event)

    # --------------------------------------------------------------------------- alignment

    def _apply(self) -> None:
        infos, fit = self.infos, self._fit
        if infos is None or fit is None:
            return
        self.place_button.setChecked(False)
        self._linked.alignment = fit
        self._linked.joined = True
        self._beside(lambda: save_alignment(fit, *infos))

    def _forget(self) -> None:
        infos = self.infos
        if infos is None:
            return
        self.place_button.setChecked(False)
        self._set_pairs([])
        self._linked.alignment = None
        self._beside(lambda: forget_alignment(*infos))

    def _update(self) -> None:
        """Show the pairs, and what they say."""
        self._fit, refusal = None, ""
        infos = self.infos
        if infos is not None and len(self.pairs) >= 2:
            try:
                self._fit = align(self.pairs, *infos, mirrored=FLIPS[self.flip_box.currentText()])
            except AlignmentError as error:
                refusal = str(error)
        self.list.clear()
        for index in range(len(self.pairs)):
            apart = ""
            if self._fit is not None:
                apart = f"{self._fit.residuals[index]:.3g} {self._fit.residual_unit}"
            self.list.addTopLevelItem(QTreeWidgetItem([str(index + 1), apart]))
        self.words.setText(refusal or self._say())
        self._update_buttons()

    def _say(self) -> str:
        if self._slides is None:
            return _NEEDS_TWO
        if self.place_button.isChecked():
            if self.half is None:
                return "Click one place in the left view, then the same place in the right one."
            other = "right" if self.half[0] == "left" else "left"
            return f"Now click the same place in the {other} view."
        if self._fit is None:
            return "Place two pairs far from each other; a third one also tells a flip."
        return describe(self._fit)

    def _update_buttons(self) -> None:
        self._tools.setVisible(self._slides is not None)
        nothing_to_apply = ""
        if self._fit is None:
            nothing_to_apply = "Two pairs far from each other are needed"
        elif self._fit == self._linked.alignment:
            nothing_to_apply = "These pairs are applied"
        nothing_selected = "" if self.list.selectedItems() else "Select pairs in the list first"
        known = bool(self.pairs) or self._linked.alignment is not None
        for button, why_not, words in (
            (self.place_button, "", _PLACE),
            (self.delete_button, nothing_selected, _DELETE),
            (self.apply_button, nothing_to_apply, _APPLY),
            (self.forget_button, "" if known else "There are no pairs", _FORGET),
        ):
            button.setEnabled(not why_not)
            button.setToolTip(why_not or words)


def describe(alignment: Alignment) -> str:
    """Return what an alignment does, and what there is to doubt in it, in short sentences."""
    flipped = "flipped and " if alignment.mirrored else ""
    words = [f"{flipped}turned by {alignment.angle_deg:.1f}°.".capitalize()]
    if alignment.scale_estimated:
        words.append(
            f"Scale {alignment.scale:.3g}, estimated from the pairs: a slide's µm/px is unknown."
        )
    elif alignment.sizes_disagree:
        words.append(
            f"⚠ The pairs say that the second slide is {alignment.apparent_scale:.2f} times as "
            f"large: check the pairs and both slides' µm/px."
        )
    if alignment.flip == "assumed":
        words.append("Two pairs cannot tell a flip: taken as not flipped.")
    return " ".join(words)
