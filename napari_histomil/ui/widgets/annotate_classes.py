"""The classes of the Annotate dock: choose one to draw in, hide, add, rename, recolour, order."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from qtpy.QtCore import QSignalBlocker, Qt
from qtpy.QtGui import QBrush, QColor
from qtpy.QtWidgets import (
    QAbstractItemView,
    QColorDialog,
    QFileDialog,
    QHeaderView,
    QInputDialog,
    QMenu,
    QTreeWidget,
    QTreeWidgetItem,
    QWidget,
)

from napari_histomil.annotations import commands, listing
from napari_histomil.annotations.model import IGNORE, REGION, AnnotationClass, class_named
from napari_histomil.errors import HistomilError
from napari_histomil.ui import class_store
from napari_histomil.ui.annotator import Annotator
from napari_histomil.ui.legend import UNCLASSIFIED
from napari_histomil.ui.preferences import shows_legend
from napari_histomil.ui.tool_icons import class_icon
from napari_histomil.ui.widgets.annotate_part import Part
from napari_histomil.ui.widgets.exclusive_dialog import ExclusiveDialog
from napari_histomil.ui.widgets.icon_button import IconButton, row
from napari_histomil.ui.widgets.panel import follow, plain_label
from napari_histomil.ui.words import count

MEANINGS = {
    REGION: "Region*: everything inside is annotated, so what has no annotation there is "
    "background. Outside of every Region* nothing is known: masks say “unlabelled” there, and "
    "neither training nor scores look at it.",
    IGNORE: "Ignore*: not to be looked at, whatever else is drawn there: folds, ink, blur. Masks "
    "say “unlabelled” there, and neither training nor scores look at it.",
}
"""What the classes that are no tissue are for."""

_NAME, _KEY, _COUNT, _AREA = range(4)
_ROLE = Qt.ItemDataRole.UserRole
_ROWS = 9
_NO_CLASS = "Choose a class in the list first"
_LOCKED = "The classes of this project are locked by its lead"


class ClassList(Part):
    """The list of classes with its buttons."""

    def __init__(self, annotator: Annotator, parent: QWidget | None = None) -> None:
        super().__init__(annotator, parent)
        self._make_tree()
        self._make_buttons()
        self.words = plain_label()
        self.column.addWidget(self.tree)
        self.column.addWidget(
            row(
                self.add_button, self.rename_button, self.color_button, self.remove_button,
                self.up_button, self.down_button, self.give_button, self.more_button,
            )
        )  # fmt: skip
        self.column.addWidget(self.words)
        self.follow(annotator.class_changed, annotator.changed, annotator.slide_changed)
        follow(self, annotator.selection_changed, self._update_buttons)
        try:
            class_store.load(annotator)
        except HistomilError as error:
            annotator.tell(f"{error} The standard classes are used.")

    # --- the widgets ---

    def _make_tree(self) -> None:
        self.tree = QTreeWidget()
        self.tree.setRootIsDecorated(False)
        self.tree.setUniformRowHeights(True)
        self.tree.setHeaderLabels(["Class", "Key", "Regions", "Area"])
        for column, words in (
            (_NAME, "What is drawn next gets the chosen class; untick one to hide its regions"),
            (_KEY, "The number key that chooses the class"),
            (_COUNT, "How many regions have the class"),
            (_AREA, "What they cover; overlaps count twice"),
        ):
            self.tree.headerItem().setToolTip(column, words)
        header = self.tree.header()
        header.setStretchLastSection(False)
        header.setMinimumSectionSize(30)
        header.setSectionResizeMode(_NAME, QHeaderView.ResizeMode.Stretch)
        for column in (_KEY, _COUNT, _AREA):
            header.setSectionResizeMode(column, QHeaderView.ResizeMode.ResizeToContents)
        self.tree.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.tree.setFixedHeight((_ROWS + 1) * (self.fontMetrics().lineSpacing() + 7))
        self.tree.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.tree.currentItemChanged.connect(self._choose)
        self.tree.itemChanged.connect(self._on_ticked)
        self.tree.itemDoubleClicked.connect(lambda *_: self._rename())

    def _make_buttons(self) -> None:
        viewer = self.annotator.viewer
        self.add_button = IconButton(viewer, "plus", "Add a class")
        self.rename_button = IconButton(viewer, "pencil", "Rename the class, on its regions too")
        self.color_button = IconButton(viewer, "palette", "Choose another colour for the class")
        self.remove_button = IconButton(
            viewer, "minus", "Take the class off the list; its regions keep it"
        )
        self.up_button = IconButton(viewer, "up", "Move the class up; number keys stay")
        self.down_button = IconButton(viewer, "down", "Move the class down; number keys stay")
        self.give_button = IconButton(viewer, "brush", "Give the class to the selected regions")
        self.more_button = IconButton(
            viewer,
            "more",
            "Load or save the project's classes, number keys, exclusive groups, the legend",
        )
        for button, slot in (
            (self.add_button, self._add),
            (self.rename_button, self._rename),
            (self.color_button, self._recolour),
            (self.remove_button, self._remove),
            (self.up_button, partial(self._move, -1)),
            (self.down_button, partial(self._move, +1)),
            (self.give_button, self._give),
        ):
            button.clicked.connect(lambda _=False, slot=slot: slot())
        menu = QMenu(self.more_button)
        self.load_action = menu.addAction("Load classes…", self._ask_load)
        self.save_action = menu.addAction("Save classes as…", self._ask_save)
        self.lead_action = menu.addAction("Save and lock as lead…", self._ask_lock)
        self.own_action = menu.addAction("Use classes of my own", self._use_own)
        menu.addSeparator()
        self.key_menu = menu.addMenu("Number key")
        self.exclusive_action = menu.addAction(
            "Classes that exclude each other…", self._ask_groups
        )
        menu.addSeparator()
        menu.addAction("Show all", lambda: self.annotator.set_hidden(()))
        menu.addAction("Show only this one", self._show_only)
        self.legend_action = menu.addAction("Legend on the slide")
        self.legend_action.setCheckable(True)
        self.legend_action.setChecked(shows_legend())
        self.legend_action.setToolTip("Names and colours of what is drawn, in a corner")
        menu.setToolTipsVisible(True)
        menu.aboutToShow.connect(self._fill_key_menu)
        self.more_button.setMenu(menu)

    # --- what is shown ---

    def refresh(self) -> None:
        """Show the classes as they are, with what is drawn in each."""
        annotator = self.annotator
        classes = annotator.classes
        regions, slide = annotator.regions, annotator.slide
        found = {} if regions is None else regions.totals()
        active = annotator.active_class
        known = [each.name for each in classes.classes]
        foreign = [name for name in found if name is not None and name not in known]
        with QSignalBlocker(self.tree):
            scroll = self.tree.verticalScrollBar().value()
            self.tree.clear()
            for each in classes.classes:
                self._add_row(each, found.get(each.name), slide)
            for name in foreign:
                item = self._add_row(classes.named(name), found[name], slide)
                item.setToolTip(_NAME, f"{name} is not among the classes of this project.")
                font = item.font(_NAME)
                font.setItalic(True)
                item.setFont(_NAME, font)
            self._add_row(None, found.get(None), slide)
            for n in range(self.tree.topLevelItemCount()):
                item = self.tree.topLevelItem(n)
                if item.data(_NAME, _ROLE) == (active.name if active else None):
                    self.tree.setCurrentItem(item)
            self.tree.verticalScrollBar().setValue(scroll)
        path = class_store.classes_file()
        locked = " (locked by the lead)" if classes.locked else ""
        self.words.setText(f"Classes of {path.name}{locked}" if path else "")
        self.words.setToolTip(str(path) if path else "")
        self.words.setVisible(path is not None)
        self._update_buttons()

    def _add_row(self, each: AnnotationClass | None, total: Any, slide: Any) -> QTreeWidgetItem:
        name = None if each is None else each.name
        color = (255, 0, 0) if each is None else each.color
        hidden = name in self.annotator.hidden
        item = QTreeWidgetItem([name or UNCLASSIFIED])
        item.setData(_NAME, _ROLE, name)
        item.setIcon(_NAME, class_icon(color, hollow=hidden))
        item.setCheckState(_NAME, Qt.CheckState.Unchecked if hidden else Qt.CheckState.Checked)
        item.setToolTip(_NAME, self._meaning(name, color))
        if name is not None:
            item.setText(_KEY, class_store.number_text(name, self.annotator.classes))
        item.setTextAlignment(_KEY, Qt.AlignmentFlag.AlignCenter)
        for column in (_COUNT, _AREA):
            item.setTextAlignment(
                column, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
            )
        if total is not None:
            item.setText(_COUNT, count(total.count))
            if total.area_px0 > 0 and slide is not None and slide.has_mpp:
                mpp_x, mpp_y = slide.info.mpp_xy
                item.setText(_AREA, listing.area_text(total.area_px0 * mpp_x * mpp_y * 1e-6))
            item.setToolTip(_AREA, f"{total.area_px0:,.0f} square pixels of level 0")
        if hidden:
            item.setForeground(_NAME, QBrush(QColor(128, 128, 128)))
        self.tree.addTopLevelItem(item)
        return item

    def _meaning(self, name: str | None, color: tuple[int, int, int]) -> str:
        if name is None:
            return "Regions without a class. “Done” asks for one."
        words = MEANINGS.get(name, f"{name}: red {color[0]}, green {color[1]}, blue {color[2]}")
        rivals = sorted(self.annotator.classes.rivals(name))
        return f"{words} May not overlap {', '.join(rivals)}." if rivals else words

    def _update_buttons(self) -> None:
        name = self.chosen
        classes = self.annotator.classes
        names = [each.name for each in classes.classes]
        locked = _LOCKED if classes.locked else None
        none = None if name in names else _NO_CLASS
        self.add_button.allow(locked)
        for button in (self.rename_button, self.color_button, self.remove_button):
            button.allow(locked or none)
        first, last = name in names[:1], name in names[-1:]
        self.up_button.allow(locked or none or ("It is the first already" if first else None))
        self.down_button.allow(locked or none or ("It is the last already" if last else None))
        chosen = self.annotator.selected
        self.give_button.allow(None if chosen else "Select regions first")
        self.exclusive_action.setEnabled(not classes.locked)
        self.key_menu.setEnabled(not classes.locked and name in names)
        self.own_action.setEnabled(class_store.classes_file() is not None)

    @property
    def chosen(self) -> str | None:
        """Name of the class that is chosen in the list; None for unclassified."""
        item = self.tree.currentItem()
        return None if item is None else item.data(_NAME, _ROLE)

    # --- what a person does ---

    def _choose(self, item: QTreeWidgetItem | None, _before: Any = None) -> None:
        if item is not None:
            self.annotator.set_class(item.data(_NAME, _ROLE))

    def _on_ticked(self, item: QTreeWidgetItem, column: int) -> None:
        if column == _NAME:
            name = item.data(_NAME, _ROLE)
            shown = item.checkState(_NAME) == Qt.CheckState.Checked
            hidden = self.annotator.hidden
            self.annotator.set_hidden(hidden - {name} if shown else hidden | {name})

    def _show_only(self) -> None:
        chosen = self.chosen
        everything = {each.name for each in self.annotator.classes.classes} | {None}
        regions = self.annotator.regions
        everything |= set() if regions is None else set(regions.totals())
        self.annotator.set_hidden(everything - {chosen})

    def _add(self) -> None:
        self._ask_name("Add a class", "Name of the class", "", self.add_class)

    def add_class(self, text: str) -> None:
        """Add a class and draw in it; its colour is made of its name."""

        def step() -> None:
            new = class_named(class_store.checked_name(text))
            class_store.edit(self.annotator, lambda classes: classes.with_class(new))
            self.annotator.set_class(new.name)

        self.attempt(step)

    def _rename(self) -> None:
        name = self.chosen
        if name is not None and self.rename_button.isEnabled():
            self._ask_name("Rename the class", "New name", name, partial(self.rename, name))

    def rename(self, name: str, text: str) -> None:
        """Give a class another name, on its regions too."""

        def step() -> None:
            old = self.annotator.classes.named(name)
            new = AnnotationClass(class_store.checked_name(text), old.color, old.alpha)
            if new != old:
                class_store.change_class(self.annotator, name, new)

        self.attempt(step)

    def _recolour(self) -> None:
        name = self.chosen
        if name is None:
            return
        dialog = QColorDialog(QColor(*self.annotator.classes.named(name).color), self)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.setWindowTitle(f"Colour of {name}")
        dialog.colorSelected.connect(lambda c: self.recolour(name, c.getRgb()[:3]))
        dialog.open()

    def recolour(self, name: str, color: tuple[int, int, int]) -> None:
        """Give a class another colour, on its regions too."""
        alpha = self.annotator.classes.named(name).alpha
        new = AnnotationClass(name, color, alpha)
        self.attempt(lambda: class_store.change_class(self.annotator, name, new))

    def _remove(self) -> None:
        name = self.chosen
        if name is not None:
            self.attempt(
                lambda: class_store.edit(self.annotator, lambda classes: classes.without(name))
            )

    def _move(self, by: int) -> None:
        name = self.chosen
        if name is None:
            return
        names = [each.name for each in self.annotator.classes.classes]
        place = names.index(name) + by
        self.attempt(
            lambda: class_store.edit(self.annotator, lambda classes: classes.moved(name, place))
        )

    def _give(self) -> None:
        name, ids, stamp = self.chosen, self.annotator.selected, self.annotator.stamp()
        given = None if name is None else self.annotator.classes.named(name)
        self.annotator.attempt(lambda regions: commands.set_class(regions, ids, given, stamp))

    def _fill_key_menu(self) -> None:
        self.key_menu.clear()
        name = self.chosen
        if name is None:
            return
        classes = self.annotator.classes
        for key in range(1, 10):
            holder = classes.by_key(key)
            text = f"{key}" if holder is None or holder.name == name else f"{key} ({holder.name})"
            action = self.key_menu.addAction(text, partial(self.give_key, name, key))
            action.setCheckable(True)
            action.setChecked(holder is not None and holder.name == name)

    def give_key(self, name: str, key: int) -> None:
        """Let a number key choose a class, and none other."""
        self.attempt(
            lambda: class_store.edit(self.annotator, lambda classes: classes.with_key(name, key))
        )

    def _ask_groups(self) -> None:
        ExclusiveDialog(self.annotator, self).open()

    # --- files ---

    def _ask_load(self) -> None:
        self._ask_file("Load classes", QFileDialog.AcceptMode.AcceptOpen, self.load)

    def _ask_save(self) -> None:
        self._ask_file("Save classes", QFileDialog.AcceptMode.AcceptSave, self.save)

    def _ask_lock(self) -> None:
        self._ask_file(
            "Save classes, locked",
            QFileDialog.AcceptMode.AcceptSave,
            partial(self.save, locked=True),
        )

    def _ask_file(
        self, title: str, mode: QFileDialog.AcceptMode, then: Callable[[Path], None]
    ) -> None:
        dialog = QFileDialog(self, title, "", "Classes (*.json);;All files (*)")
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.setAcceptMode(mode)
        dialog.setDefaultSuffix("json")
        dialog.fileSelected.connect(lambda file: then(Path(file)))
        dialog.open()

    def load(self, path: Path) -> None:
        """Annotate with the classes of a file from now on."""
        self.attempt(lambda: class_store.take_file(self.annotator, path))

    def save(self, path: Path, *, locked: bool = False) -> None:
        """Write the classes to a file for the project, locked if the lead says so."""
        self.attempt(lambda: class_store.save_as(self.annotator, path, locked=locked))

    def _use_own(self) -> None:
        class_store.keep_classes_file(None)
        self.attempt(lambda: class_store.load(self.annotator))
        self.refresh()

    def _ask_name(self, title: str, label: str, text: str, then: Callable[[str], None]) -> None:
        dialog = QInputDialog(self)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.setWindowTitle(title)
        dialog.setLabelText(label)
        dialog.setTextValue(text)
        dialog.textValueSelected.connect(then)
        dialog.open()
