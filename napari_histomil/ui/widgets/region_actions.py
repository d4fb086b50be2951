"""What can be done with the selected regions: a row of buttons, and the same as a menu."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from qtpy.QtCore import QPoint
from qtpy.QtWidgets import QInputDialog, QMenu, QPushButton, QWidget

from napari_histomil.annotations import bulk, commands
from napari_histomil.annotations.collection import AnnotationSet, Command
from napari_histomil.annotations.model import STATES, State
from napari_histomil.annotations.spatial import rect_of
from napari_histomil.ui.annotator import Annotator
from napari_histomil.ui.layers import world_scale
from napari_histomil.ui.tool_icons import class_icon
from napari_histomil.ui.widgets.annotate_part import Part
from napari_histomil.ui.widgets.annotate_tools import key_hint
from napari_histomil.ui.widgets.icon_button import IconButton, row

ASIDE = 0.1
"""A copy lies beside its original by this share of its size."""

TOLERANCE_UM = 1.0
"""What is offered for simplifying."""

_STATE_WORDS: dict[State, str] = {
    "draft": "still to be judged",
    "reviewed": "looked at and found right",
    "locked": "the last word: shape, class and name stay",
}

Make = Callable[[AnnotationSet], Command]


class RegionActions(Part):
    """Class, state, lock, delete and more, of what is selected."""

    def __init__(self, annotator: Annotator, parent: QWidget | None = None) -> None:
        super().__init__(annotator, parent)
        viewer = annotator.viewer
        self.class_button, self.state_button = QPushButton("Class "), QPushButton("State ")
        self.class_menu, self.state_menu = QMenu(self.class_button), QMenu(self.state_button)
        for button, menu, words in (
            (self.class_button, self.class_menu, "Give the selected regions a class"),
            (self.state_button, self.state_menu, "Say how far the selected regions are judged"),
        ):
            button.setMenu(menu)
            menu.setToolTipsVisible(True)
            button.setToolTip(words)
        self.class_menu.aboutToShow.connect(self._fill_classes)
        for state, words in _STATE_WORDS.items():
            action = self.state_menu.addAction(state, partial(self.set_state, state))
            action.setToolTip(words)
        self.lock_button = IconButton(
            viewer, "lock", "Lock the selected regions against changes, or unlock them"
        )
        self.delete_button = IconButton(viewer, "bin", f"Delete the selected regions{_key('Del')}")
        self.more_button = IconButton(viewer, "more", "Merge, duplicate, fill holes, simplify…")
        self.previous_button = IconButton(
            viewer, "up", f"Fly to the region before in the list{key_hint('region.previous')}"
        )
        self.next_button = IconButton(
            viewer, "down", f"Fly to the next region in the list{key_hint('region.next')}"
        )
        self.lock_button.clicked.connect(self.toggle_lock)
        self.delete_button.clicked.connect(annotator.delete_selected)
        self.previous_button.clicked.connect(lambda: annotator.step(-1))
        self.next_button.clicked.connect(lambda: annotator.step(+1))
        self.more_menu = QMenu(self.more_button)
        self._fill_more(self.more_menu)
        self.more_button.setMenu(self.more_menu)
        self.column.addWidget(
            row(
                self.previous_button, self.next_button, self.class_button, self.state_button,
                self.lock_button, self.delete_button, self.more_button,
            )
        )  # fmt: skip
        self.follow(annotator.selection_changed, annotator.changed, annotator.slide_changed)

    def _fill_more(self, menu: QMenu) -> None:
        for words, make in (
            ("Merge into one region", bulk.merge),
            ("Take parts apart", bulk.take_apart),
            ("Fill holes", bulk.fill_holes),
            ("Mend broken outlines", bulk.mend),
        ):
            menu.addAction(words, partial(self._bulk, make))
        menu.addAction("Simplify…", self._ask_tolerance)
        menu.addAction("Duplicate", self.duplicate)
        menu.addSeparator()
        menu.addAction("Bring to the front", partial(self.restack, on_top=True))
        menu.addAction("Bring to the back", partial(self.restack, on_top=False))

    def popup(self, at: QPoint) -> None:
        """Show everything as one menu."""
        if not self.annotator.selected:
            return
        menu = QMenu(self)
        menu.aboutToHide.connect(menu.deleteLater)
        classes, states = menu.addMenu("Class"), menu.addMenu("State")
        self._add_classes(classes)
        for state in STATES:
            states.addAction(state, partial(self.set_state, state))
        menu.addAction("Lock or unlock", self.toggle_lock)
        menu.addAction("Delete", self.annotator.delete_selected)
        menu.addSeparator()
        self._fill_more(menu)
        menu.popup(at)

    def _fill_classes(self) -> None:
        self.class_menu.clear()
        self._add_classes(self.class_menu)

    def _add_classes(self, menu: QMenu) -> None:
        for each in self.annotator.classes.classes:
            action = menu.addAction(each.name, partial(self.set_class, each.name))
            action.setIcon(class_icon(each.color))
        menu.addAction("unclassified", partial(self.set_class, None))

    def refresh(self) -> None:
        """Enable what can be done now."""
        chosen = self.annotator.selected
        why_not = self.why_not() or (None if chosen else "Select regions first")
        for button in (self.lock_button, self.delete_button, self.more_button):
            button.allow(why_not)
        for button, words in (
            (self.class_button, "Give the selected regions a class"),
            (self.state_button, "Say how far the selected regions are judged"),
        ):
            button.setEnabled(why_not is None)
            button.setToolTip(why_not or words)
        empty = not self.annotator.regions
        for button in (self.previous_button, self.next_button):
            button.allow("Nothing is drawn yet" if empty else None)

    # --- steps ---

    def _do(self, make: Make) -> None:
        self.annotator.attempt(make)

    def set_class(self, name: str | None) -> None:
        """Give the selected regions a class, or none."""
        ids, stamp = self.annotator.selected, self.annotator.stamp()
        given = None if name is None else self.annotator.classes.named(name)
        self._do(lambda regions: commands.set_class(regions, ids, given, stamp))

    def set_state(self, state: State) -> None:
        """Say how far the selected regions are judged."""
        ids, stamp = self.annotator.selected, self.annotator.stamp()
        self._do(lambda regions: commands.set_state(regions, ids, state, stamp))

    def toggle_lock(self) -> None:
        """Lock the selected regions; unlock them if all are locked."""
        ids, stamp = self.annotator.selected, self.annotator.stamp()
        locked = all(region.locked for region in self.annotator.pick())
        self._do(lambda regions: commands.set_locked(regions, ids, not locked, stamp))

    def _bulk(self, make: Callable[..., Command]) -> None:
        ids, stamp = self.annotator.selected, self.annotator.stamp()
        self._do(lambda regions: make(regions, ids, stamp))

    def duplicate(self) -> None:
        """Put copies of the selected regions beside them, and select these."""
        rect = rect_of(self.annotator.pick())
        aside = 10.0 if rect is None else max(ASIDE * max(rect.width_px0, rect.height_px0), 10.0)
        ids, stamp = self.annotator.selected, self.annotator.stamp()
        made: list[str] = []

        def make(regions: AnnotationSet) -> Command:
            command = commands.duplicate(regions, ids, (aside, aside), stamp)
            made.extend(command.added)
            return command

        if self.annotator.attempt(make):
            self.annotator.select(made)

    def restack(self, *, on_top: bool) -> None:
        """Bring the selected regions to the front, or to the back."""
        ids = self.annotator.selected
        self._do(lambda regions: commands.restack(regions, ids, on_top=on_top))

    def _ask_tolerance(self) -> None:
        slide = self.annotator.slide
        if slide is None:
            return
        unit = "µm" if slide.has_mpp else "pixels"
        dialog = QInputDialog(self)
        dialog.setWindowTitle("Simplify outlines")
        dialog.setLabelText(f"An outline may move by so many {unit}:")
        dialog.setInputMode(QInputDialog.InputMode.DoubleInput)
        dialog.setDoubleRange(0.01, 1000.0)
        dialog.setDoubleDecimals(2)
        dialog.setDoubleValue(TOLERANCE_UM)
        dialog.doubleValueSelected.connect(self.simplify)
        dialog.finished.connect(dialog.deleteLater)
        dialog.open()

    def simplify(self, tolerance_um: float) -> None:
        """Leave out vertices of the selected regions, by no more than the tolerance."""
        slide = self.annotator.slide
        if slide is None:
            return
        tolerance_px0 = tolerance_um / max(world_scale(slide.info))
        ids, stamp = self.annotator.selected, self.annotator.stamp()
        self._do(lambda regions: bulk.simplify(regions, ids, tolerance_px0, stamp))


def _key(name: str) -> str:
    return f" (key: {name})"
