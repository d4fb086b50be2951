"""Done with a slide: what has to be mended first, each thing a key away; then the next slide."""

from __future__ import annotations

import threading
from collections.abc import Generator
from pathlib import Path

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QFileDialog,
    QHeaderView,
    QPushButton,
    QTreeWidget,
    QTreeWidgetItem,
    QWidget,
)

from napari_histomil.annotations import commands
from napari_histomil.annotations.checks import Finding, Kind, findings
from napari_histomil.annotations.commands import counted
from napari_histomil.errors import HistomilError
from napari_histomil.ui import jobs
from napari_histomil.ui.annotator import Annotator
from napari_histomil.ui.dialogs import show_error
from napari_histomil.ui.flight import fly_to_rect
from napari_histomil.ui.session import SlideSession
from napari_histomil.ui.widgets.annotate_part import Part
from napari_histomil.ui.widgets.icon_button import row
from napari_histomil.ui.widgets.panel import plain_label
from napari_histomil.ui.widgets.rows import give_room
from napari_histomil.ui.words import count
from napari_histomil.ui.worklist import Worklist, slides_in

MOST_LISTED = 2000
_KINDS: dict[Kind, str] = {
    "empty": "No shape",
    "broken": "Broken outline",
    "outside": "Beyond the slide",
    "unclassified": "No class",
    "foreign": "Foreign class",
    "overlap": "Overlap",
}
"""How the list calls what has to be mended; the sentence is below it."""

_ROLE = Qt.ItemDataRole.UserRole
_ROWS = 5


class DonePart(Part):
    """Check, list, call reviewed, go on."""

    def __init__(self, annotator: Annotator, parent: QWidget | None = None) -> None:
        super().__init__(annotator, parent)
        self.worklist = Worklist(annotator.session)
        self.found: list[Finding] = []
        self._slide: SlideSession | None = None
        self._checking = False
        self.done_button = QPushButton("Done with this slide")
        self.done_button.clicked.connect(self.check)
        self.next_button = QPushButton("Next slide")
        self.next_button.clicked.connect(self.next_slide)
        self.folder_button = QPushButton("Folder…")
        self.folder_button.setToolTip("Annotate the slides of a folder one after the other")
        self.folder_button.clicked.connect(self._ask_folder)
        self.words = plain_label()
        self.tree = QTreeWidget()
        self.tree.setRootIsDecorated(False)
        self.tree.setHeaderHidden(True)
        self.tree.setUniformRowHeights(True)
        self.tree.header().setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        self.tree.setToolTip("Click one, or move by arrow keys, to fly there")
        self.tree.setFixedHeight(_ROWS * (self.fontMetrics().lineSpacing() + 8))
        self.tree.currentItemChanged.connect(lambda *_: self._go())
        self.tree.itemClicked.connect(lambda *_: self._go())
        give_room(self.tree)
        self.tree.hide()
        self.sentence = plain_label()
        self.sentence.hide()
        self.list_label = plain_label()
        self.column.addWidget(row(self.done_button, stretch=0))
        self.column.addWidget(self.words)
        self.column.addWidget(self.tree)
        self.column.addWidget(self.sentence)
        self.column.addWidget(row(self.next_button, self.folder_button, stretch=0))
        self.column.addWidget(self.list_label)
        session = annotator.session
        self.follow(
            annotator.slide_changed, annotator.changed, annotator.class_changed,
            session.slide_opened, session.slide_closed,
        )  # fmt: skip

    def refresh(self) -> None:
        """Enable what can be done now; what was mended meanwhile is ticked off."""
        slide = self.annotator.slide
        if slide is not self._slide:
            self._slide = slide
            self._list([])
            self.words.setText("")
        why_not = self.why_not()
        if why_not is None and not len(self.annotator.regions or ()):
            why_not = "Nothing is drawn yet"
        if self._checking:
            why_not = "The regions are being checked"
        self.done_button.setEnabled(why_not is None)
        self.done_button.setToolTip(
            why_not
            or "Check that every region has a class, a sound outline on the slide, and no "
            "overlap with an exclusive class; then call all of them reviewed by you"
        )
        place = self.worklist.place()
        following = place.following
        self.next_button.setEnabled(following is not None and not self.worklist.busy)
        self.next_button.setToolTip(
            f"Show {following.name}" if following else "This is the last slide of the list"
        )
        where = "of the folder" if self.worklist.paths else "open"
        words = f"Slide {place.number} of {place.total} {where}" if place.number else ""
        if self.worklist.busy and following is not None:
            words = f"Opening {following.name}…"
        elif following is not None:
            words = f"{words}, next: {following.name}" if words else f"Next: {following.name}"
        self.list_label.setText(words)

    # --- checking ---

    def check(self) -> None:
        """Look for what has to be mended, beside the window; without any, call all reviewed."""
        slide, regions = self.annotator.slide, self.annotator.regions
        if slide is None or regions is None or self._checking:
            return
        given, classes, rect = tuple(regions), self.annotator.classes, slide.info.rect_px0
        self._checking = True
        self.refresh()

        def work(_cancel: threading.Event) -> Generator[None, None, list[Finding]]:
            yield from ()
            return findings(given, classes, rect)

        def done(found: list[Finding] | None) -> None:
            self._checking = False
            if found is not None and self.annotator.slide is slide:
                self._judge(found)
            self.later()

        def failed(error: Exception) -> None:
            self._checking = False
            self.later()
            show_error(error, self)

        jobs.start(
            work,
            on_progress=lambda _: None,
            on_done=done,
            on_error=failed,
            title="the check of the annotations",
            owner=self,
        )

    def _judge(self, found: list[Finding]) -> None:
        self._list(found)
        if found:
            things = "1 thing has" if len(found) == 1 else f"{count(len(found))} things have"
            self.words.setText(f"⚠ Not done yet: {things} to be mended.")
            self.tree.setFocus()
            self.tree.setCurrentItem(self.tree.topLevelItem(0))
            return
        annotator = self.annotator
        regions = annotator.regions
        drafts = [r.id for r in regions or () if r.state == "draft" and r.object_type != "root"]
        stamp = annotator.stamp()
        if drafts and not annotator.attempt(
            lambda all_: commands.set_state(all_, drafts, "reviewed", stamp)
        ):
            return
        by = f" by {stamp.author}" if stamp.author else ""
        newly = f"{counted(drafts)} reviewed{by}" if drafts else "all regions were reviewed before"
        self.words.setText(f"✓ Done: {newly}.")

    def _list(self, found: list[Finding]) -> None:
        self.found = found
        self.tree.clear()
        for finding in found[:MOST_LISTED]:
            item = QTreeWidgetItem([f"{_KINDS[finding.kind]}: {self._names(finding)}"])
            item.setToolTip(0, finding.sentence)
            item.setData(0, _ROLE, finding)
            self.tree.addTopLevelItem(item)
        self.tree.setVisible(bool(found))
        self.sentence.setVisible(bool(found))

    def _names(self, finding: Finding) -> str:
        """Return what the regions of a finding are called, as briefly as the list is narrow."""
        names = [
            " ".join(filter(None, [region.class_name or "no class", region.name]))
            for region in self.annotator.pick(finding.ids)
        ]
        return " and ".join(names)

    def _go(self) -> None:
        """Fly to what is chosen in the list, and select its regions."""
        item, slide = self.tree.currentItem(), self.annotator.slide
        if item is None or slide is None:
            return
        finding: Finding = item.data(0, _ROLE)
        self.sentence.setText(finding.sentence)
        self.annotator.select(finding.ids)
        if finding.bounds_px0 is not None:
            fly_to_rect(self.annotator.viewer, slide.info, finding.bounds_px0)

    # --- the next slide ---

    def _ask_folder(self) -> None:
        dialog = QFileDialog(self, "Slides of a folder")
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.setFileMode(QFileDialog.FileMode.Directory)
        dialog.fileSelected.connect(lambda folder: self.take_folder(Path(folder)))
        dialog.open()

    def take_folder(self, folder: Path) -> None:
        """Annotate the slides of a folder; its first one is shown if none of them is."""
        try:
            self.worklist.paths = slides_in(folder)
        except HistomilError as error:
            show_error(error, self)
            return
        if not self.worklist.place().number:
            self.next_slide()
        self.later()

    def next_slide(self) -> None:
        """Show the next slide of the list."""
        self.worklist.advance(self, self.later, self._failed)
        self.refresh()

    def _failed(self, error: Exception) -> None:
        self.later()
        show_error(error, self)
