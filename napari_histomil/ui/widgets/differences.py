"""A second reader's annotations: how far one agrees, and differences settled by key."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Literal

from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtGui import QColor
from qtpy.QtWidgets import (
    QCheckBox,
    QDoubleSpinBox,
    QFileDialog,
    QHeaderView,
    QLabel,
    QPushButton,
    QTreeWidget,
    QTreeWidgetItem,
    QWidget,
)

from napari_histomil.annotations.collection import AnnotationSet
from napari_histomil.annotations.files import AnnotationFile
from napari_histomil.annotations.listing import local_time_text
from napari_histomil.annotations.model import Region
from napari_histomil.errors import HistomilError
from napari_histomil.review.agreement import Agreement
from napari_histomil.review.decisions import Decided, keep_decision
from napari_histomil.review.second_reader import Compared, compare_readers
from napari_histomil.review.settling import Choice, Disagreement, settle
from napari_histomil.slides.slide import SlideInfo
from napari_histomil.ui import jobs
from napari_histomil.ui.annotator import Annotator
from napari_histomil.ui.dialogs import show_error
from napari_histomil.ui.session import SlideSession
from napari_histomil.ui.widgets.agreement_table import AgreementTable
from napari_histomil.ui.widgets.annotate_files import READABLE, read_for
from napari_histomil.ui.widgets.annotate_part import Part
from napari_histomil.ui.widgets.difference_map import DifferenceMap
from napari_histomil.ui.widgets.icon_button import row
from napari_histomil.ui.widgets.panel import follow, plain_label
from napari_histomil.ui.widgets.reader_layer import ReaderLayer
from napari_histomil.ui.widgets.rows import give_room
from napari_histomil.ui.words import count

MPP = 4.0
"""µm/px at which readers are compared at first."""

MOST_LISTED = 2000
"""Differences that are listed at once; the rest come when these are settled."""

Decision = Literal["mine", "theirs", "both", "skip"]

_DECISIONS: tuple[tuple[Decision, str, str, str], ...] = (
    ("mine", "Mine", "M", "Leave it as it is here"),
    (
        "theirs",
        "Theirs",
        "T",
        "Take the other reader's class and outline, or delete what they lack",
    ),
    ("both", "Both", "B", "Keep what either has; outlines are joined"),
    ("skip", "Skip", "S", "Decide later"),
)
_ROLE = Qt.ItemDataRole.UserRole
_ROWS = 7


class Differences(Part):
    """Load, compare, settle."""

    def __init__(self, annotator: Annotator, parent: QWidget | None = None) -> None:
        super().__init__(annotator, parent)
        self.reader = ""
        self.theirs: tuple[Region, ...] = ()
        self.found: list[Disagreement] = []
        self._slide: SlideSession | None = None
        # With each decision, what its step changed: the regions as they were before it.
        self._settled: dict[int, tuple[Decision, Mapping[str, Region | None]]] = {}
        self._keys: list[str] = []
        # What was decided on an earlier day and changed no region, by the place in the list.
        self._kept: dict[int, Decided] = {}
        self._busy = ""
        self._layer = ReaderLayer(annotator)
        self._make_loading()
        self._make_list()
        self.follow(annotator.slide_changed, annotator.changed, annotator.saving_changed)
        follow(self, annotator.slide_changed, self._on_slide)
        self.destroyed.connect(self._layer.clear)

    def _make_loading(self) -> None:
        self.load_button = QPushButton("Load second reader…")
        self.load_button.clicked.connect(self._ask_file)
        self.reader_label = plain_label()
        self.mpp_box = QDoubleSpinBox()
        self.mpp_box.setRange(0.1, 100.0)
        self.mpp_box.setDecimals(2)
        self.mpp_box.setValue(MPP)
        self.mpp_box.setSuffix(" µm")
        self.mpp_box.setToolTip("Pixels of this size are compared")
        self.full_box = QCheckBox("whole slide")
        self.full_box.setToolTip(
            "Both have annotated all of the slide. Without, only what both marked as Region* is "
            "compared: elsewhere it is not known what is missing"
        )
        self.compare_button = QPushButton("Compare")
        self.compare_button.clicked.connect(self.compare)
        self.table = AgreementTable()
        self.table.hide()
        self.column.addWidget(row(self.load_button))
        self.column.addWidget(self.reader_label)
        self._options = row(QLabel("at"), self.mpp_box, self.full_box, self.compare_button)
        self.map = DifferenceMap(self.annotator)
        self.column.addWidget(self._options)
        self.column.addWidget(self.map)
        self.column.addWidget(self.table)

    def _make_list(self) -> None:
        self.tree = QTreeWidget()
        self.tree.setRootIsDecorated(False)
        self.tree.setUniformRowHeights(True)
        self.tree.setHeaderLabels(["Difference", "Settled"])
        give_room(self.tree)
        header = self.tree.header()
        header.setStretchLastSection(False)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        header.setSectionResizeMode(1, QHeaderView.ResizeMode.ResizeToContents)
        self.tree.setFixedHeight((_ROWS + 1) * (self.fontMetrics().lineSpacing() + 8))
        self.tree.currentItemChanged.connect(lambda *_: self._go())
        self.tree.itemClicked.connect(lambda *_: self._go())
        self.buttons: dict[Decision, QPushButton] = {}
        for decision, words, key, tooltip in _DECISIONS:
            button = QPushButton(words)
            button.setToolTip(f"{tooltip} (key: {key}, while the list has the keys)")
            button.clicked.connect(partial(self.decide, decision))
            self.buttons[decision] = button
        self.tree.installEventFilter(self)
        self.words = plain_label()
        self.column.addWidget(self.tree)
        self._decisions = row(*self.buttons.values())
        self.column.addWidget(self._decisions)
        self.column.addWidget(self.words)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Settle by key while the list has the keys, which else would look for a row."""
        kind = event.type()
        if watched is self.tree and kind in (QEvent.Type.KeyPress, QEvent.Type.ShortcutOverride):
            for decision, _, key, _ in _DECISIONS:
                if event.text().upper() == key and not event.modifiers():
                    if kind == QEvent.Type.KeyPress:
                        self.decide(decision)
                    event.accept()
                    return True
        return super().eventFilter(watched, event)

    # --- what is shown ---

    def refresh(self) -> None:
        """Enable what can be done now, and see which decisions still hold."""
        slide = self.annotator.slide
        why_not = "Open a slide first" if slide is None else (self._busy or None)
        self.load_button.setEnabled(why_not is None)
        self.load_button.setToolTip(
            why_not or "Read what somebody else drew on this slide, in any format"
        )
        has_set = bool(self.reader)
        self.reader_label.setText(
            f"<b>{self.reader}</b>: {count(len(self.theirs))} regions" if has_set else ""
        )
        scale = slide is None or slide.has_mpp
        self.compare_button.setEnabled(has_set and scale and not self._busy)
        self.compare_button.setToolTip(
            self._busy
            or ("Load a second reader's annotations first" if not has_set else "")
            or ("" if scale else "The slide's µm/px are not known")
            or "Count where both agree, and list where they differ"
        )
        for part in (self.reader_label, self._options, self.map):
            part.setVisible(has_set)
        for part in (self.tree, self._decisions):
            part.setVisible(bool(self.found))
        self._take_back()
        self._show_settled()

    def _on_slide(self) -> None:
        """Forget the reader of another slide, seen or not: their outlines lie on this one else."""
        if self.annotator.slide is not self._slide:
            self._forget()
            self._slide = self.annotator.slide

    def _forget(self) -> None:
        self.reader, self.theirs, self.found = "", (), []
        self._settled.clear()
        self._kept.clear()
        self.tree.clear()
        self.table.hide()
        self.map.clear()
        self.words.setText("")
        self._layer.clear()

    def _take_back(self) -> None:
        """Open decisions again whose step was undone."""
        regions = self.annotator.regions
        for n, (_, before) in list(self._settled.items()):
            if regions is not None and before and _now(regions, before) == before:
                del self._settled[n]

    def _show_settled(self) -> None:
        for n in range(self.tree.topLevelItemCount()):
            item = self.tree.topLevelItem(n)
            place = item.data(0, _ROLE)
            decision = self._settled[place][0] if place in self._settled else ""
            if item.text(1) != decision:
                item.setText(1, decision)
                kept = self._kept.get(place) if decision else None
                item.setToolTip(
                    1, f"By {kept.author}, {local_time_text(kept.time)}" if kept else ""
                )
                color = QColor(128, 128, 128) if decision else self.palette().text().color()
                item.setForeground(0, color)
        if self.found:
            left = sum(n not in self._settled for n in range(len(self.found)))
            self.words.setText(
                f"{count(left)} of {count(len(self.found))} differences are left to settle."
                if left
                else "All differences are settled."
            )

    # --- a second set ---

    def _ask_file(self) -> None:
        dialog = QFileDialog(
            self, "Annotations of a second reader", "", f"Annotations ({READABLE});;All files (*)"
        )
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.fileSelected.connect(lambda file: self.load(Path(file)))
        dialog.open()

    def load(self, path: Path) -> None:
        """Read a second reader's annotations beside the window."""
        slide = self.annotator.slide
        if slide is None:
            return
        self._set_busy(f"{path.name} is being read")

        def done(file: AnnotationFile | None) -> None:
            self._set_busy("")
            if file is not None and self.annotator.slide is slide:
                self._forget()
                self._slide = slide
                self.reader, self.theirs = _reader_name(path, file), file.regions
                self.words.setText("\n".join(file.notes))
                self.refresh()

        jobs.start(
            partial(read_for, slide, path),
            on_progress=lambda _: None,
            on_done=done,
            on_error=self._failed,
            title=f"reading {path.name}",
            owner=self,
        )

    def _set_busy(self, what: str) -> None:
        self._busy = what
        self.later()

    def _failed(self, error: Exception) -> None:
        self._set_busy("")
        show_error(error, self)

    # --- comparing ---

    def compare(self) -> None:
        """Count where both agree and list where they differ, beside the window."""
        slide, regions = self.annotator.slide, self.annotator.regions
        if slide is None or regions is None or not self.reader:
            return
        mine, theirs, info = tuple(regions), self.theirs, slide.info
        mpp, full = self.mpp_box.value(), self.full_box.isChecked()
        raters = (self.annotator.stamp().author or "me", self.reader)
        self._set_busy("The two are being compared")

        def work(cancel: threading.Event) -> Generator[None, None, Compared | None]:
            yield from ()
            return compare_readers(
                mine, theirs, info, mpp, raters=raters, fully_annotated=full, cancel=cancel
            )

        def done(compared: Compared | None) -> None:
            self._set_busy("")
            still = self.annotator.slide is slide and self.theirs is theirs
            if compared is not None and still:
                self._show(compared, info)

        jobs.start(
            work,
            on_progress=lambda _: None,
            on_done=done,
            on_error=self._failed,
            title="the comparison with a second reader",
            owner=self,
        )

    def _show(self, compared: Compared, info: SlideInfo) -> None:
        found, agreement = compared.found, compared.agreement
        self.found, self._keys = found, compared.keys
        decided = [compared.decided.get(key) for key in compared.keys]
        self._kept = {n: each for n, each in enumerate(decided) if each is not None}
        self._settled = {
            n: (each.decision, {}) for n, each in self._kept.items() if each.decision != "open"
        }
        self.map.set_picture(compared.picture, info, "No figures: there is nothing to map")
        self.table.show()
        self.table.tree.setVisible(isinstance(agreement, Agreement))
        if isinstance(agreement, Agreement):
            self.table.show_agreement(agreement, self.annotator.classes)
        else:
            self.table.words.setText(f"⚠ No figures: {agreement}")
        self.tree.clear()
        asked = sorted(range(len(found)), key=lambda n: n in self._settled)[:MOST_LISTED]
        for n in sorted(asked):
            each = found[n]
            item = QTreeWidgetItem([each.sentence(self.reader), ""])
            item.setData(0, _ROLE, n)
            item.setToolTip(0, f"{each.sentence(self.reader)}: {each.shown.label}")
            self.tree.addTopLevelItem(item)
        if not found:
            self.words.setText("No region differs.")
        self.refresh()
        if found:
            self._next()
            if self.tree.currentItem() is None:  # all are settled
                self.tree.setCurrentItem(self.tree.topLevelItem(0))
            self.tree.setFocus()

    # --- settling ---

    @property
    def current(self) -> int | None:
        """Which difference is looked at, as a place in `found`."""
        item = self.tree.currentItem()
        return None if item is None else item.data(0, _ROLE)

    def _go(self) -> None:
        """Fly to the difference; the other reader's outline is shown."""
        place, slide = self.current, self.annotator.slide
        if place is None or slide is None:
            return
        each = self.found[place]
        self._layer.show(each.theirs, slide.info, self.reader)
        regions = self.annotator.regions
        if each.mine is not None and regions is not None and each.mine.id in regions:
            self.annotator.select([each.mine.id], fly=True)
        else:
            self.annotator.select(())
            self._layer.fly(each.shown, slide.info)

    def decide(self, decision: Decision) -> None:
        """Settle the difference that is looked at, and go on to the next one."""
        place, regions = self.current, self.annotator.regions
        if place is None or regions is None:
            return
        if decision != "skip":
            before = self._settle(place, decision)
            if before is None:
                return
            self._settled[place] = decision, before
            self._remember(place, decision, changed=bool(before))
        self._show_settled()
        self._next()

    def _settle(self, place: int, choice: Choice) -> Mapping[str, Region | None] | None:
        """Do the step; return what it changed as it was before, None if it was refused."""
        annotator, each = self.annotator, self.found[place]
        regions = annotator.regions
        if regions is None:
            return None
        if place in self._settled and self._settled[place][1]:
            annotator.tell("This is settled already: undo that step first.")
            return None
        try:
            command = settle(regions, each, choice, self.reader, annotator.stamp())
        except HistomilError as error:
            show_error(error, self)
            return None
        if command is None:
            return {}
        before = _now(regions, {**command.removed, **command.added})
        return before if annotator.do(command) else None

    def _remember(self, place: int, decision: Choice, *, changed: bool) -> None:
        """Keep a decision that no region shows; take one back that a step has overruled."""
        slide = self.annotator.slide
        if slide is None or (changed and place not in self._kept):
            return
        word = "open" if changed or decision == "theirs" else decision
        author = self.annotator.stamp().author or "me"
        decided = Decided.now(self.reader, self._keys[place], word, author)
        keep_decision(slide.info, decided)
        if word == "open":
            self._kept.pop(place, None)
        else:
            self._kept[place] = decided

    def _next(self) -> None:
        at = self.tree.indexOfTopLevelItem(self.tree.currentItem())
        total = self.tree.topLevelItemCount()
        for n in [*range(at + 1, total), *range(at + 1)]:
            if self.tree.topLevelItem(n).data(0, _ROLE) not in self._settled:
                self.tree.setCurrentItem(self.tree.topLevelItem(n))
                return


def _now(regions: AnnotationSet, ids: Iterable[str]) -> dict[str, Region | None]:
    """Return regions as they are; None for those that are not there."""
    return {each: regions.get(each) if each in regions else None for each in ids}


def _reader_name(path: Path, file: AnnotationFile) -> str:
    """Return what the other reader is called: the one author of the file, else its name."""
    authors = {region.author for region in file.regions if region.author}
    return authors.pop() if len(authors) == 1 else path.name.split(".")[0]
