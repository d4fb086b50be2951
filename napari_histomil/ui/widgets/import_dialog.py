"""What the groups and layers of a file shall become: a class, a hole, nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QComboBox,
    QDialog,
    QDialogButtonBox,
    QFileDialog,
    QHeaderView,
    QPushButton,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_histomil.annotations.files import AnnotationFile
from napari_histomil.annotations.formats import FORMATS
from napari_histomil.annotations.mapping import (
    BUILT_IN,
    NONE,
    ClassMapping,
    Ignored,
    Mapped,
    Subtracted,
    Target,
    read_mapping,
)
from napari_histomil.annotations.model import RGB, UNCLASSIFIED_COLOR, Region, walk
from napari_histomil.errors import HistomilError
from napari_histomil.ui.annotator import Annotator
from napari_histomil.ui.dialogs import show_error
from napari_histomil.ui.tool_icons import class_icon
from napari_histomil.ui.widgets.forms import form
from napari_histomil.ui.widgets.icon_button import row
from napari_histomil.ui.widgets.panel import plain_label
from napari_histomil.ui.widgets.rows import NUMBER, give_room, without_icons
from napari_histomil.ui.words import count, regions_text

_KNOWN = (
    ("come in as copies", "copy"),
    ("replace those that are here", "replace"),
    ("are left out", "skip"),
)
_NAME, _COUNT, _BECOMES = range(3)


@dataclass(frozen=True, slots=True)
class Group:
    """Regions of one class, group or layer of a file."""

    name: str
    """As a mapping calls it; ``none`` for what has no class."""
    color: RGB
    count: int
    samples: tuple[Region, ...] = ()
    """One region of each colour that there is."""


def groups_of(file: AnnotationFile) -> list[Group]:
    """Return the groups of a file in the order in which they come."""
    found: dict[str, list[Region]] = {}
    for region in walk(file.regions):
        found.setdefault(region.class_name or NONE, []).append(region)
    return [
        Group(name, each[0].shown_color, len(each), _of_each_colour(each))
        for name, each in found.items()
    ]


def _of_each_colour(regions: Iterable[Region]) -> tuple[Region, ...]:
    """Return the last region in each colour: a mapping tells regions of a group by no more."""
    return tuple({(each.classification, each.color): each for each in regions}.values())


class ImportDialog(QDialog):
    """A row for each group of a file, with what it shall become.

    Parameters
    ----------
    annotator
        Of the viewer that the file comes into.
    path, file
        What was read from where.
    groups
        `groups_of` the file; many regions take a while.
    parent
        Over which the dialog opens.
    """

    chosen = Signal(object, str)
    """What the groups become (a `ClassMapping`, or None where all stay as they are), and what
    becomes of regions that are here already."""

    def __init__(
        self,
        annotator: Annotator,
        path: Path,
        file: AnnotationFile,
        groups: list[Group],
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setWindowTitle(f"Import {path.name}")
        self._annotator = annotator
        self.groups = groups
        total = sum(group.count for group in self.groups)
        title = FORMATS[file.format].title if file.format in FORMATS else file.format
        groups = "1 group" if len(self.groups) == 1 else f"{len(self.groups)} groups"
        self.words = plain_label(f"{title}: {regions_text(total)} in {groups}.")
        self.boxes: dict[str, QComboBox] = {}
        self._make_tree()
        self.notes_label = plain_label("\n".join(f"• {note}" for note in file.notes))
        self.notes_label.setVisible(bool(file.notes))
        self.mapping_button = QPushButton("Mapping file…")
        self.mapping_button.setToolTip("Read from a file (JSON or CSV) what the groups become")
        self.mapping_button.clicked.connect(self._ask_mapping)
        self.camelyon_button = QPushButton("CAMELYON")
        self.camelyon_button.setToolTip("_0, _1 and metastases are Tumor; _2 is cut out of them")
        self.camelyon_button.clicked.connect(lambda: self.show_mapping(BUILT_IN["camelyon"]))
        self.known_box = QComboBox()
        for words, choice in _KNOWN:
            self.known_box.addItem(words, choice)
        regions = annotator.regions
        again = sum(regions is not None and each.id in regions for each in file.regions)
        self.known_box.setEnabled(bool(again))
        self.known_box.setToolTip(
            f"{regions_text(again)} of the file are here already"
            if again
            else "No region of the file is here yet"
        )
        buttons = QDialogButtonBox()
        self.import_button = buttons.addButton("Import", QDialogButtonBox.ButtonRole.AcceptRole)
        buttons.addButton(QDialogButtonBox.StandardButton.Cancel)
        without_icons(buttons)
        buttons.accepted.connect(self._accept)
        buttons.rejected.connect(self.reject)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(16, 16, 16, 12)
        layout.setSpacing(8)
        layout.addWidget(self.words)
        layout.addWidget(self.tree, 1)
        layout.addLayout(
            form(
                ("Fill in from", row(self.mapping_button, self.camelyon_button)),
                ("Regions that are here already", self.known_box),
            )
        )
        layout.addWidget(self.notes_label)
        layout.addWidget(buttons)

    def _make_tree(self) -> None:
        self.tree = QTreeWidget()
        self.tree.setRootIsDecorated(False)
        self.tree.setMinimumSize(460, 200)
        give_room(self.tree)
        self.tree.setHeaderLabels(["In the file", "Regions", "Becomes"])
        header = self.tree.header()
        header.setStretchLastSection(False)
        header.setSectionResizeMode(_NAME, QHeaderView.ResizeMode.Stretch)
        header.setSectionResizeMode(_COUNT, QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(_BECOMES, QHeaderView.ResizeMode.Fixed)
        header.resizeSection(_BECOMES, 190)
        for group in self.groups:
            shown = "without a class" if group.name == NONE else group.name
            item = QTreeWidgetItem([shown, count(group.count)])
            color = UNCLASSIFIED_COLOR if group.name == NONE else group.color
            item.setIcon(_NAME, class_icon(color))
            item.setTextAlignment(_COUNT, NUMBER)
            self.tree.addTopLevelItem(item)
            self.boxes[group.name] = box = self._box(group)
            self.tree.setItemWidget(item, _BECOMES, box)

    def _box(self, group: Group) -> QComboBox:
        box = QComboBox()
        same = "stays without a class" if group.name == NONE else "stays as it is"
        box.addItem(same, None)
        for each in self._annotator.classes.classes:
            if each.name != group.name:
                box.addItem(class_icon(each.color), each.name, Mapped(each))
        box.addItem("is cut out of the others", Subtracted())
        box.addItem("is left out", Ignored())
        box.setToolTip(f"What {regions_text(group.count)} of {group.name} become")
        return box

    # --- mappings ---

    def _ask_mapping(self) -> None:
        dialog = QFileDialog(
            self, "Mapping of groups", "", "Mappings (*.json *.csv);;All files (*)"
        )
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.fileSelected.connect(lambda file: self.load_mapping(Path(file)))
        dialog.open()

    def load_mapping(self, path: Path) -> None:
        """Show what a mapping's file says of the groups."""
        try:
            self.show_mapping(read_mapping(path))
        except HistomilError as error:
            show_error(error, self)

    def show_mapping(self, mapping: ClassMapping) -> None:
        """Show what a mapping says of the groups; a person may still change it."""
        for group in self.groups:
            for region in group.samples:
                target = mapping.target(region)
                if target is not None:
                    self._choose(self.boxes[group.name], target)

    def _choose(self, box: QComboBox, target: Target) -> None:
        for index in range(box.count()):
            if _alike(box.itemData(index), target):
                box.setCurrentIndex(index)
                return
        words = "is cut out of the others"
        if isinstance(target, Subtracted):
            words = f"is cut out of {', '.join(target.classes)}"
        if isinstance(target, Mapped):
            words = target.classification.name
        box.addItem(words, target)
        box.setItemData(box.count() - 1, words, Qt.ItemDataRole.ToolTipRole)
        box.setCurrentIndex(box.count() - 1)

    @property
    def targets(self) -> Mapping[str, Target]:
        """What was chosen, for the groups that do not stay as they are."""
        chosen = {name: box.currentData() for name, box in self.boxes.items()}
        return {name: target for name, target in chosen.items() if target is not None}

    def _accept(self) -> None:
        self.accept()
        mapping = ClassMapping(self.targets) if self.targets else None
        self.chosen.emit(mapping, self.known_box.currentData())


def _alike(entry: Target | None, target: Target) -> bool:
    """Say whether an entry of a box stands for a target: a class by its name."""
    if isinstance(entry, Mapped) and isinstance(target, Mapped):
        return entry.classification.name == target.classification.name
    return entry == target
