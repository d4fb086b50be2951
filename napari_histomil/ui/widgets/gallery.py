"""The panel of the gallery: what is listed, thumbnails, verdicts by key, corrections."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qtpy.QtCore import QEvent, QObject, QSignalBlocker, Qt
from qtpy.QtGui import QKeyEvent
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QFileDialog,
    QInputDialog,
    QLabel,
    QLineEdit,
    QPushButton,
    QSizePolicy,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from napari_histomil.annotations.model import class_named
from napari_histomil.errors import HistomilError
from napari_histomil.results import MilRun, RunStore
from napari_histomil.results.mil import TASK as MIL_TASK
from napari_histomil.review.form import Question
from napari_histomil.review.gallery import KINDS, Choice, Patch, write_patches
from napari_histomil.review.sources import gather, lesion_patches, runs_of_model
from napari_histomil.review.tile_scores import TileScores
from napari_histomil.review.verdicts import Answer
from napari_histomil.ui import jobs
from napari_histomil.ui.annotator import annotator
from napari_histomil.ui.cloud import cloud
from napari_histomil.ui.dialogs import show_error
from napari_histomil.ui.gallery import Gallery, gallery, place_of
from napari_histomil.ui.gallery_groups import GROUPINGS, grouped
from napari_histomil.ui.overlays import overlays
from napari_histomil.ui.widgets.icon_button import row
from napari_histomil.ui.widgets.panel import follow, plain_label
from napari_histomil.ui.widgets.thumbnail_list import Badge, Item, ThumbnailList
from napari_histomil.ui.words import count

COLOURS = ("#2e9e4f", "#e0a100", "#d3302f", "#4c6fd8", "#8e44ad")
"""Of the answers of the form's first choice, in their order: right, partly, wrong, ..."""
OTHER = "#5f7fa8"
"""Of a patch about which something else was said."""

LESIONS = "lesions"
LESIONS_WORDS = "what is annotated, with its size and the best score in it, the worst missed first"
"""Name of a list that is none of tiles, with what it lists."""

CORRECT_KEY = "A"
LIKE_KEY = "L"
UNDO_KEY = "Control-Z"


class GalleryPanel(QWidget):
    """Thumbnails of what is worth a look.

    Parameters
    ----------
    viewer
        Whose gallery it shows.
    """

    def __init__(self, viewer: Any, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._gallery: Gallery = gallery(viewer)
        self._annotator = annotator(viewer)
        self._overlays = overlays(viewer)
        self._cloud = cloud(viewer)
        self._order: list[int] = []
        self._reading: jobs.JobHandle | None = None
        self.list = ThumbnailList()
        self.list.badge_of = self._badge
        self.list.went.connect(self._go)
        self.list.chosen.connect(self._mark)
        self.list.installEventFilter(self)
        self.words = plain_label()
        # One line, cut off where the window is narrow: the tooltip has all of it.
        self.keys = QLabel()
        self.keys.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        column = QVBoxLayout(self)
        column.setContentsMargins(8, 4, 8, 2)
        column.setSpacing(3)
        column.addWidget(self._make_sources())
        column.addWidget(self._make_choice())
        column.addWidget(self.list, 1)
        column.addWidget(self.keys)
        column.addWidget(self.words)
        follow(self, self._gallery.tiles_changed, self._on_tiles)
        follow(self, self._gallery.listed, self._on_listed)
        follow(self, self._gallery.judged, self._on_judged)
        follow(self, self._gallery.stepped, self._on_stepped)
        follow(self, self._annotator.class_changed, self._fill_classes)
        follow(self, self._overlays.current_changed, self._on_run)
        self._fill_classes()
        self._on_tiles()
        self._on_listed()
        self._on_judged()

    # --- what it is made of -------------------------------------------------------------------

    def _make_sources(self) -> QWidget:
        self.take_button = QPushButton("Take the result shown")
        self.take_button.setToolTip(
            "Choose among the tiles of the result that lies over the slide, and of the same "
            "model's results of all other open slides"
        )
        self.take_button.clicked.connect(lambda: self.take_shown())
        self.truth_box = QCheckBox("annotations are the truth")
        self.truth_box.setToolTip("Inside Region* and without Ignore*: elsewhere nothing is known")
        self.full_box = QCheckBox("whole slides annotated")
        self.full_box.setToolTip("Somebody has annotated everything on all of these slides")
        self.truth_box.toggled.connect(self.full_box.setEnabled)
        self.full_box.setEnabled(False)
        self.kind_box = _named_box("What is listed")
        for name, words in {**KINDS, LESIONS: LESIONS_WORDS}.items():
            self.kind_box.addItem(name)
            last = self.kind_box.count() - 1
            self.kind_box.setItemData(last, words, Qt.ItemDataRole.ToolTipRole)
        self.kind_box.setPlaceholderText("chosen elsewhere")
        self.where_box = _named_box("Of which slides")
        self.where_box.addItems(["all slides", "this slide"])
        self.group_by_box = _named_box("In which order: as found, or by groups")
        self.group_by_box.addItems(list(GROUPINGS))
        for box in (self.kind_box, self.where_box):
            box.activated.connect(lambda _: self.list_patches())
        self.group_by_box.activated.connect(lambda _: self._on_listed())
        return row(
            self.take_button,
            self.truth_box,
            self.full_box,
            self.kind_box,
            self.where_box,
            self.group_by_box,
            stretch=3,
            spacing=6,
        )

    def _make_choice(self) -> QWidget:
        given = Choice()
        self.threshold_box = QDoubleSpinBox()
        self.threshold_box.setRange(0.0, 1.0)
        self.threshold_box.setSingleStep(0.05)
        self.threshold_box.setValue(given.threshold)
        self.threshold_box.setPrefix("threshold ")
        self.count_box = QSpinBox()
        self.count_box.setRange(1, 10_000)
        self.count_box.setValue(given.count)
        self.count_box.setSuffix(" patches")
        self.slide_box = QSpinBox()
        self.slide_box.setRange(0, 10_000)
        self.slide_box.setValue(given.a_slide or 0)
        self.slide_box.setSpecialValueText("all of a slide")
        self.slide_box.setSuffix(" a slide")
        self.slide_box.setToolTip("So many of one slide at most; 0 is any number")
        self.group_box = QCheckBox("neighbours as one")
        self.group_box.setChecked(True)
        self.group_box.setToolTip(
            "Tiles side by side, and such that look alike by their features, are one thumbnail"
        )
        for spin in (self.threshold_box, self.count_box, self.slide_box):
            spin.setKeyboardTracking(False)
            spin.valueChanged.connect(lambda _: self.list_patches())
        self.group_box.toggled.connect(lambda _: self.list_patches())
        self.class_box = _named_box("Class of corrections")
        self.correct_button = QPushButton("Annotate")
        self.correct_button.setToolTip(
            f"Draw the selected patches of this slide as regions of the class (key: {CORRECT_KEY})"
        )
        self.correct_button.clicked.connect(self.correct)
        self.tag_box = QLineEdit()
        self.tag_box.setPlaceholderText("tag, Enter")
        self.tag_box.setToolTip("Give all selected patches a tag; once more takes it away")
        self.tag_box.returnPressed.connect(self._tag)
        self.undo_button = QPushButton("Take back")
        self.undo_button.setToolTip("Undo the last verdict (key: Ctrl+Z, in the list)")
        self.undo_button.clicked.connect(self._undo)
        self.save_button = QPushButton("Save list…")
        self.save_button.setToolTip("Write what is listed, with verdicts, as a table (CSV)")
        self.save_button.clicked.connect(self._ask_file)
        return row(
            self.threshold_box,
            self.count_box,
            self.slide_box,
            self.group_box,
            self.class_box,
            self.correct_button,
            self.tag_box,
            self.undo_button,
            self.save_button,
            stretch=6,
            spacing=6,
        )

    # --- where tiles come from ----------------------------------------------------------------

    def take_shown(self) -> None:
        """Take the tiles of the current result, and of its model's of all open slides."""
        run = self._overlays.current
        if run is None or not isinstance(run.store, RunStore | MilRun):
            self.words.setText("Lay a heatmap or the answer of a MIL model over the slide first.")
            return
        task = MIL_TASK if isinstance(run.store, MilRun) else RunStore.TASK
        sha = str(run.store.model.get("sha256"))
        others = [each.info for each in self._gallery.session.slides if each is not run.slide]
        first, truth = run.store.path, self.truth_box.isChecked()
        full = self.full_box.isChecked()
        class_name = None
        if isinstance(run.store, RunStore) and run.heatmap is not None:
            class_name = run.heatmap.class_name

        def read(cancel: threading.Event) -> Iterator[TileScores]:
            paths = [first, *runs_of_model(others, sha, task=task)]
            for each in gather(paths, class_name, annotated=truth, fully_annotated=full):
                if cancel.is_set():
                    return
                yield each

        self.read(read)

    def read_runs(self, runs: list[Path], **options: Any) -> None:
        """Take the tiles of runs on disk; options as of `review.sources.gather`."""
        self.read(lambda _cancel: gather(runs, **options))

    def read(self, generate: jobs.Generate) -> None:
        """Take the tiles that a generator yields, in a thread."""
        if self._reading is not None:
            self._reading.cancel()
        found: list[TileScores] = []

        def done(_: Any) -> None:
            if self._reading is job:
                self._reading = None
                self._gallery.set_tiles(found)
                self.list_patches()

        def failed(error: Exception) -> None:
            if self._reading is job:
                self._reading = None
                self._on_tiles()
                show_error(error, self)

        job = jobs.start(
            generate,
            on_progress=found.extend,
            on_done=done,
            on_error=failed,
            title="the reading of results",
            owner=self,
        )
        self._reading = job
        self._on_tiles()

    def choice(self) -> Choice:
        """Return what is chosen to be listed."""
        return Choice(
            self.kind_box.currentText(),
            count=self.count_box.value(),
            a_slide=self.slide_box.value() or None,
            threshold=self.threshold_box.value(),
            group=self.group_box.isChecked(),
        )

    def list_patches(self) -> None:
        """List what is chosen."""
        if not self._gallery.tiles or self.kind_box.currentIndex() < 0:
            return  # or what is listed was chosen elsewhere
        slide = self._gallery.session.active
        here = self.where_box.currentText() == "this slide" and slide is not None
        only = slide.info.fingerprint if here and slide is not None else None
        try:
            if self.kind_box.currentText() == LESIONS:
                tiles = [t for t in self._gallery.tiles if only in (None, t.fingerprint)]
                self._gallery.show(lesion_patches(tiles), LESIONS)
            else:
                self._gallery.choose(self.choice(), fingerprint=only)
        except HistomilError as error:
            self._gallery.show([], self.kind_box.currentText())
            self.words.setText(str(error))

    # --- showing ------------------------------------------------------------------------------

    def _on_run(self, _: Any = None) -> None:
        self.take_button.setEnabled(self._overlays.current is not None and self._reading is None)

    def _on_tiles(self) -> None:
        self._on_run()
        self._say()

    def _on_listed(self) -> None:
        patches = self._gallery.patches
        self.kind_box.setCurrentIndex(self.kind_box.findText(self._gallery.title))
        self._order, names = grouped(self._gallery, self.group_by_box.currentText())
        items = []
        for n, name in zip(self._order, names, strict=True):
            patch = patches[n]
            caption = f"{patch.score:.3g}" + (f"  {name}" if name else "")
            words = f"{patch.slide.name}\n{patch.why}\nx {patch.xy_px0[0]:.0f}, "
            words += f"y {patch.xy_px0[1]:.0f} px of level 0"
            if patch.alike:
                words += f"\n{count(len(patch.alike))} others beside it or alike"
            items.append(
                Item(patch.slide, patch.xy_px0, patch.size_px0, caption, words, len(patch.alike))
            )
        self.list.show_items(items)
        self.correct_button.setEnabled(False)
        self._say()

    def _say(self) -> None:
        tiles, patches = self._gallery.tiles, self._gallery.patches
        if self._reading is not None:
            self.words.setText("Reading results…")
            return
        judged = sum(bool(self._gallery.answers(patch)) for patch in patches)
        words = f"{count(len(patches))} {self._gallery.title or 'patches'}"
        if tiles:
            number = sum(len(each) for each in tiles)
            slides = f"{count(len(tiles))} slide{'s' if len(tiles) > 1 else ''}"
            words += f" of {count(number)} tiles of {slides} ({tiles[0].what}, {tiles[0].model})"
        behind = sum(len(patch.alike) for patch in patches)
        if behind:
            words += f", {count(behind)} more stand behind them"
        if judged:
            words += f"; {count(judged)} judged"
        self.words.setText(f"{words}.")

    def _on_judged(self) -> None:
        parts = []
        for question in self._gallery.form.about("place"):
            keyed = [f"<b>{c.key}</b> {c.name}" for c in question.choices if c.key]
            if question.key:
                keyed.append(f"<b>{question.key}</b> {question.name}")
            parts += ["&nbsp; ".join(keyed)] if keyed else []
        parts.append(f"<b>{CORRECT_KEY}</b> annotate&nbsp; <b>{LIKE_KEY}</b> more like this")
        self.keys.setText(" &nbsp;|&nbsp; ".join(parts))
        self.keys.setToolTip("<br>".join(parts))
        can = self._gallery.log is not None
        self.tag_box.setEnabled(can)
        self.undo_button.setEnabled(can)
        self.list.viewport().update()
        self._say()

    def _badge(self, n: int) -> Badge | None:
        answers = self._gallery.answers(self.patch(n))
        if not answers:
            return None
        return Badge(self._colour(answers), ", ".join(_word(*each) for each in answers.items()))

    def _colour(self, answers: dict[str, Answer]) -> str:
        for question in self._gallery.form.about("place"):
            if question.kind == "choice":
                given = answers.get(question.name)
                if given in question.names:
                    return COLOURS[question.names.index(str(given)) % len(COLOURS)]
                break
        return OTHER

    def patch(self, n: int) -> Patch:
        """Return the patch of a thumbnail."""
        return self._gallery.patches[self._order[n]]

    def selected(self) -> list[Patch]:
        """Return the selected patches."""
        return [self.patch(n) for n in self.list.selected()]

    # --- going and marking --------------------------------------------------------------------

    def _go(self, n: int) -> None:
        try:
            self._gallery.go(self._order[n])
        except HistomilError as error:
            show_error(error, self)

    def _on_stepped(self) -> None:
        current = self._gallery.current
        if current is not None:
            n = self._order.index(current)
            if self.list.selected() != [n] and n not in self.list.selected():
                with QSignalBlocker(self.list):
                    self.list.select(n)

    def _mark(self) -> None:
        chosen = self.selected()
        self.correct_button.setEnabled(bool(chosen))
        self._gallery.mark([place_of(patch) for patch in chosen])

    # --- judging ------------------------------------------------------------------------------

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Judge by key while the list has the keys."""
        kinds = (QEvent.Type.KeyPress, QEvent.Type.ShortcutOverride)
        if watched is self.list and event.type() in kinds and isinstance(event, QKeyEvent):
            act = self._action(key_text(event))
            if act is not None:
                if event.type() == QEvent.Type.KeyPress:
                    self._try(act)
                event.accept()
                return True
        return super().eventFilter(watched, event)

    def _action(self, key: str) -> Any:
        own = {
            CORRECT_KEY: self.correct,
            LIKE_KEY: self.more_like_this,
            UNDO_KEY: self._undo,
        }
        found = self._gallery.form.answer_of(key)
        if found is None:
            return own.get(key)
        question, answer = found
        return lambda: self.answer(question, answer)

    def _try(self, act: Any) -> None:
        try:
            act()
        except HistomilError as error:
            show_error(error, self)

    def answer(self, question: Question, answer: str | None) -> None:
        """Answer about the selected patches; words are asked for where they are needed.

        Raises
        ------
        HistomilError
            As `Gallery.answer`.
        """
        chosen = self.selected()
        if not chosen:
            return
        if answer is None and question.kind == "tags":
            self.tag_box.setFocus()
            return
        if answer is None and question.kind == "note":
            self._ask_note(question, chosen)
            return
        self._gallery.answer(chosen, question, answer)

    def _ask_note(self, question: Question, chosen: list[Patch]) -> None:
        dialog = QInputDialog(self)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.setLabelText(question.asked)
        before = self._gallery.answers(chosen[0]).get(question.name, "")
        dialog.setTextValue(str(before))
        dialog.textValueSelected.connect(
            lambda text: self._try(lambda: self._gallery.answer(chosen, question, text))
        )
        dialog.open()

    def _tag(self) -> None:
        tags = [q for q in self._gallery.form.about("place") if q.kind == "tags"]
        word, chosen = self.tag_box.text().strip(), self.selected()
        if word and chosen and tags:
            self._try(lambda: self._gallery.answer(chosen, tags[0], word))
            self.tag_box.clear()
            self.list.setFocus()

    def _undo(self) -> None:
        self._try(self._gallery.take_back)

    # --- out of the window --------------------------------------------------------------------

    def _ask_file(self) -> None:
        dialog = QFileDialog(self, "Save the list", "gallery.csv", "Table (*.csv)")
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
        dialog.setDefaultSuffix("csv")
        dialog.fileSelected.connect(lambda file: self.write_list(Path(file)))
        dialog.open()

    def write_list(self, path: Path) -> None:
        """Write what is listed as a table, in the order that is seen."""
        patches = [self.patch(n) for n in range(len(self._order))]
        self._try(lambda: write_patches(patches, path, self._gallery.answers))
        self.words.setText(f"{count(len(patches))} patches are in {path.name}.")

    # --- corrections, and others like it ------------------------------------------------------

    def _fill_classes(self) -> None:
        before = self.class_box.currentText()
        names = [each.name for each in self._annotator.classes.classes]
        self.class_box.clear()
        self.class_box.addItems(names or ["Tumor"])
        self.class_box.setCurrentIndex(max(self.class_box.findText(before), 0))

    def correct(self) -> None:
        """Draw the selected patches of the shown slide as regions of the chosen class."""
        chosen = self.selected()
        name = self.class_box.currentText()
        known = {each.name for each in self._annotator.classes.classes}
        kind = self._annotator.classes.named(name) if name in known else class_named(name)
        drawn = self._gallery.correct(chosen, kind)
        words = f"{count(drawn)} drawn as {name}"
        left = len(chosen) - drawn
        if left:
            words += f"; {count(left)} are on other slides: click one to go there first"
        self.words.setText(f"{words}.")

    def more_like_this(self) -> None:
        """List the nearest of all tiles by their features, which are read first."""
        chosen = self.selected()
        if not chosen:
            return
        patch = chosen[0]

        def ready() -> None:
            found = self._cloud.like(patch, self.count_box.value())
            if found:
                self._gallery.show(found, f"patches like the one of {patch.slide.name}")
            else:
                self.words.setText("This patch has no features, so nothing is like it.")

        self.words.setText("Reading features…")
        self._cloud.prepare(self, on_done=ready, on_error=lambda error: show_error(error, self))

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Let a key that means nothing here go on to the window."""
        event.ignore()


def _named_box(tooltip: str) -> QComboBox:
    """Return a list to choose from that is as wide as its longest entry."""
    box = QComboBox()
    box.setToolTip(tooltip)
    box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToContents)
    return box


def key_text(event: QKeyEvent) -> str:
    """Return a key as napari writes it: ``9``, ``T``, ``Alt-1``, ``Control-Z``."""
    held = event.modifiers()
    parts = [
        name
        for name, flag in (
            ("Control", Qt.KeyboardModifier.ControlModifier),
            ("Alt", Qt.KeyboardModifier.AltModifier),
            ("Shift", Qt.KeyboardModifier.ShiftModifier),
        )
        if held & flag
    ]
    code = event.key()
    last = chr(code) if 0x20 < code < 0x7F else ""
    return "-".join([*parts, last]) if last else ""


def _word(question: str, answer: Answer) -> str:
    if isinstance(answer, bool):
        return question
    if isinstance(answer, tuple):
        return ", ".join(answer)
    return str(answer)
