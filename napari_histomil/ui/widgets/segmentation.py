"""The Overlay dock's part about a segmentation: classes, areas, how it is drawn, steps, files."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, TypeVar

from qtpy.QtCore import QSignalBlocker, Qt
from qtpy.QtWidgets import (
    QCheckBox,
    QDoubleSpinBox,
    QHBoxLayout,
    QHeaderView,
    QProgressBar,
    QPushButton,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_histomil.annotations.model import SlideFrame
from napari_histomil.exchange.labels import Turn
from napari_histomil.ui import jobs
from napari_histomil.ui.annotator import annotator
from napari_histomil.ui.colours import COLOUR_MAPS
from napari_histomil.ui.dialogs import show_error
from napari_histomil.ui.keys import KEYS, hint
from napari_histomil.ui.overlays import Overlays
from napari_histomil.ui.run_layers import DEFAULT_OPACITY
from napari_histomil.ui.segmentation_picture import overview_level
from napari_histomil.ui.segmentation_view import Facts, SegmentationView
from napari_histomil.ui.segmentation_work import (
    Taken,
    exact_facts,
    stoppable,
    take_regions,
    tissue_mm2,
)
from napari_histomil.ui.session import RunView, SlideSession
from napari_histomil.ui.tool_icons import class_icon
from napari_histomil.ui.widgets.colour_bar import ColourBar
from napari_histomil.ui.widgets.forms import choice_box, form
from napari_histomil.ui.widgets.panel import follow, heading, plain_label
from napari_histomil.ui.widgets.rows import NUMBER, give_room
from napari_histomil.ui.widgets.segmentation_file import SegmentationFileDialog
from napari_histomil.ui.widgets.slider_spin import SliderSpin
from napari_histomil.ui.words import regions_text

MOST_ROWS = 8
"""Of the list of classes; more are scrolled to."""

_CLASSES, _PROBABILITY = "Classes", "Probability of one class"
_FILLED, _OUTLINE = "filled", "outlines"
_ONLY_CLASSES = "Steps change where classes are: choose “Classes” under Show"

Result = TypeVar("Result")


class SegmentationPart(QWidget):
    """Widgets that steer the current segmentation; hidden while another result is current."""

    def __init__(self, overlays: Overlays, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._overlays = overlays
        self._run: RunView | None = None
        self._job: jobs.JobHandle | None = None
        self._tissue: weakref.WeakKeyDictionary[SlideSession, float] = weakref.WeakKeyDictionary()
        self._looking_for_tissue: SlideSession | None = None
        self._column = QVBoxLayout(self)
        self._column.setContentsMargins(0, 0, 0, 0)
        self._column.setSpacing(6)
        self._make_appearance()
        self._make_classes()
        self._make_steps()
        self._make_work()
        follow(self, overlays.shown_changed, self._update_shown)
        self.destroyed.connect(lambda: self._let_go())

    # -------------------------------------------------------------------- the widgets

    def _make_appearance(self) -> None:
        self._column.addWidget(heading("Segmentation"))
        self.visible_box = QCheckBox("Show over the slide")
        self.visible_box.setToolTip(f"Show or hide the segmentation{hint('overlay.toggle')}")
        self.visible_box.toggled.connect(self._set_visible)
        self.show_box = choice_box("Where each class is, or how sure the model is of one class")
        self.show_box.addItems([_CLASSES, _PROBABILITY])
        self.show_box.activated.connect(self._set_show)
        self.draw_box = choice_box("Fill the classes, or draw only where they end")
        self.draw_box.addItems([_FILLED, _OUTLINE])
        self.draw_box.activated.connect(self._set_draw)
        self.class_box = choice_box("The class whose probability is shown")
        self.class_box.activated.connect(lambda index: self._change(class_index=index))
        self.colours_box = choice_box("The colours from low to high")
        for name, words in COLOUR_MAPS.items():
            self.colours_box.addItem(name)
            last = self.colours_box.count() - 1
            self.colours_box.setItemData(last, words, Qt.ItemDataRole.ToolTipRole)
        self.colours_box.activated.connect(
            lambda _: self._change(colours=self.colours_box.currentText())
        )
        self.opacity = SliderSpin(0, 100, step=5, suffix=" %")
        self.opacity.setToolTip(
            f"How strongly the segmentation covers the tissue (keys: "
            f"{KEYS['overlay.fainter'].text} fainter, {KEYS['overlay.stronger'].text} stronger)"
        )
        self.opacity.value_changed.connect(self._set_opacity)
        self._form = form(
            ("Show", self.show_box),
            ("Draw", self.draw_box),
            ("Class", self.class_box),
            ("Colours", self.colours_box),
            ("Opacity", self.opacity),
        )
        self.colour_bar = ColourBar()
        self.colour_bar.setToolTip("What the colours mean; below the mark nothing is shown")
        self._column.addWidget(self.visible_box)
        self._column.addLayout(self._form)
        self._column.addWidget(self.colour_bar)

    def _make_classes(self) -> None:
        self._column.addWidget(heading("Classes and areas"))
        self.tree = QTreeWidget()
        self.tree.setRootIsDecorated(False)
        self.tree.setHeaderLabels(["Class", "mm²", "of tissue"])
        self.tree.setToolTip("Untick a class to hide it, and to leave it out of regions and files")
        self.tree.setSelectionMode(QTreeWidget.SelectionMode.NoSelection)
        self.tree.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        give_room(self.tree)
        header = self.tree.header()
        header.setStretchLastSection(False)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        for column in (1, 2):
            header.setSectionResizeMode(column, QHeaderView.ResizeMode.ResizeToContents)
            self.tree.headerItem().setTextAlignment(column, NUMBER)
        self.tree.itemChanged.connect(self._set_class)
        self.areas_label = plain_label()
        self.measure_button = QPushButton("Measure")
        self._measure_tip = (
            "Count the areas on the finest pixels, after all steps; you can go on meanwhile"
        )
        self.measure_button.clicked.connect(self.measure)
        row = QHBoxLayout()
        row.setSpacing(8)
        row.addWidget(self.areas_label, 1)
        row.addWidget(self.measure_button, 0, Qt.AlignmentFlag.AlignTop)
        self._column.addWidget(self.tree)
        self._column.addLayout(row)

    def _make_steps(self) -> None:
        self._column.addWidget(heading("Steps"))
        self.threshold = SliderSpin(0, 1, step=0.01, decimals=2)
        self.threshold.value_changed.connect(self._set_threshold)
        self.holes_box = _size(" µm²", 0, "Holes in objects of a smaller area are filled")
        self.smooth_box = _size(
            " µm", 1, "Notches and spikes narrower than twice this are closed and cut off"
        )
        self.objects_box = _size(" µm²", 0, "Objects of a smaller area are left out")
        self._sizes = {
            "fill_holes_um2": self.holes_box,
            "smooth_um": self.smooth_box,
            "remove_objects_um2": self.objects_box,
        }
        self._size_tips = {name: box.toolTip() for name, box in self._sizes.items()}
        for name, box in self._sizes.items():
            box.valueChanged.connect(lambda value, name=name: self._change_steps(**{name: value}))
        self.steps_label = plain_label()
        self._column.addLayout(
            form(
                ("Threshold", self.threshold),
                ("Fill holes under", self.holes_box),
                ("Smooth outlines by", self.smooth_box),
                ("Remove objects under", self.objects_box),
            )
        )
        self._column.addWidget(self.steps_label)

    def _make_work(self) -> None:
        self.annotate_button = QPushButton("To annotations")
        self.annotate_button.clicked.connect(self.to_annotations)
        self.save_button = QPushButton("Save as…")
        self.save_button.clicked.connect(self._ask_save)
        self.cancel_button = QPushButton("Cancel")
        self.cancel_button.setToolTip("Stop this; nothing is changed then")
        self.cancel_button.clicked.connect(self._cancel)
        self.bar = QProgressBar()
        self.bar.setRange(0, 0)
        self.words = plain_label()
        buttons = QHBoxLayout()
        buttons.setSpacing(6)
        buttons.setContentsMargins(0, 4, 0, 0)
        buttons.addWidget(self.annotate_button, 1)
        buttons.addWidget(self.save_button, 1)
        going = QHBoxLayout()
        going.setSpacing(6)
        going.addWidget(self.bar, 1)
        going.addWidget(self.cancel_button)
        self._column.addLayout(buttons)
        self._column.addLayout(going)
        self._column.addWidget(self.words)
        self._show_job("")

    # ------------------------------------------------------------- from the run to here

    @property
    def view(self) -> SegmentationView | None:
        """The segmentation that is steered."""
        return self._run.segmentation if self._run is not None else None

    def show_run(self, run: RunView | None) -> None:
        """Steer another segmentation, or none."""
        self._cancel()
        self._let_go()
        self._run = run if run is not None and run.segmentation is not None else None
        self.setVisible(self._run is not None)
        self._say("")
        view = self.view
        if view is None:
            return
        with QSignalBlocker(self.tree):
            self.tree.clear()
            for kind in view.store.classes:
                item = QTreeWidgetItem([kind.name, "", ""])
                item.setIcon(0, class_icon(kind.color))
                item.setFlags(item.flags() | Qt.ItemFlag.ItemIsUserCheckable)
                for column in (1, 2):
                    item.setTextAlignment(column, NUMBER)
                self.tree.addTopLevelItem(item)
        rows = min(len(view.class_names), MOST_ROWS)
        high = max(self.tree.sizeHintForRow(0), 1) * rows + self.tree.header().sizeHint().height()
        self.tree.setFixedHeight(high + 2 * self.tree.frameWidth() + 2)
        self.class_box.clear()
        self.class_box.addItems(view.class_names)
        for signal, slot in self._signals():
            signal.connect(slot)
        self.refresh()
        self._look_for_tissue()

    def _let_go(self) -> None:
        for signal, slot in self._signals():
            signal.disconnect(slot)
        self._run = None

    def _signals(self) -> list[tuple[Any, Callable[[], None]]]:
        """Return the signals of the segmentation that is shown, each with what follows it."""
        run, view = self._run, self.view
        if run is None or view is None:
            return []
        return [
            (view.changed, self.refresh),
            (view.measured, self._show_areas),
            (run.painter.painted, self._say_steps),
        ]

    def refresh(self) -> None:
        """Show how the segmentation is shown."""
        view = self.view
        if view is None:
            return
        style = view.style
        self.show_box.setCurrentText(_PROBABILITY if style.probability else _CLASSES)
        self.draw_box.setCurrentText(_OUTLINE if style.outline else _FILLED)
        self.class_box.setCurrentIndex(style.class_index)
        self.colours_box.setCurrentText(style.colours)
        for row, (widget, of_probability) in enumerate(
            ((self.draw_box, False), (self.class_box, True), (self.colours_box, True)), 1
        ):
            self._form.setRowVisible(row, style.probability == of_probability)
            widget.setEnabled(True)
        self.colour_bar.setVisible(style.probability)
        cut = style.steps.threshold or 0.0
        self.colour_bar.show_scale(style.colours, ("0", "1"), view.title, cut)
        with QSignalBlocker(self.tree):
            for index, on in enumerate(style.on):
                state = Qt.CheckState.Checked if on else Qt.CheckState.Unchecked
                self.tree.topLevelItem(index).setCheckState(0, state)
        self.threshold.set_value(cut if style.probability else view.threshold)
        self.threshold.setToolTip(
            "Least probability of a class; at 0 the most likely class counts"
            if view.exclusive
            else "Least probability of a class; several classes may be at one place"
        )
        for name, box in self._sizes.items():
            with QSignalBlocker(box):
                box.setValue(getattr(style.steps, name))
            box.setEnabled(not style.probability)
            box.setToolTip(_ONLY_CLASSES if style.probability else self._size_tips[name])
        self._say_steps()
        self._show_areas()
        self._update_shown()
        self._update_buttons()

    def _say_steps(self) -> None:
        """Say what the steps come to, and whether the picture shows it yet."""
        run, view = self._run, self.view
        if run is None or view is None:
            return
        style = view.style
        if style.steps.on_outlines and not style.probability and not run.painter.complete:
            text = "Working on what is in view…"
        elif style.probability:
            text = "Below the threshold the tissue is bare."
        elif style.steps.on_outlines:
            text = "A preview of what is in view; Measure, regions and files are exact."
        elif view.exclusive and not style.steps.threshold:
            text = "The most likely class counts."
        else:
            text = f"A class counts from a probability of {view.threshold:.2f} on."
        self.steps_label.setText(text)

    def _show_areas(self) -> None:
        """Show the newest areas and shares."""
        view = self.view
        if view is None:
            return
        facts, whole = view.facts, view.share_of_mm2
        self.tree.headerItem().setText(2, "of area" if view.of_chosen_region else "of tissue")
        with QSignalBlocker(self.tree):
            for index, name in enumerate(view.class_names):
                item = self.tree.topLevelItem(index)
                area = None if facts is None else facts.areas_mm2.get(name)
                item.setText(1, "…" if area is None else _mm2(area))
                background = name == view.store.model.get("background_class")
                if background and not view.of_chosen_region:  # it is on glass too
                    share = "–"
                else:
                    share = "…" if area is None or not whole else f"{100 * area / whole:.1f} %"
                item.setText(2, share)
                item.setToolTip(2, "The background lies on glass too" if share == "–" else "")
        self.areas_label.setText(self._areas_text(view, facts))
        self.areas_label.setToolTip(
            "Shares are of the area that the model looked at, as you chose where"
            if view.of_chosen_region
            else "Shares are of the tissue that was found on the slide, whatever the model saw"
        )

    def _areas_text(self, view: SegmentationView, facts: Facts | None) -> str:
        if facts is None:
            return "Counting…"
        if facts.exact:
            how = "Exact, after all steps."
        else:
            level = overview_level(view.store)
            um = view.store.grid.spec.mpp * 2**level
            before = ", before outlines are changed" if view.style.steps.on_outlines else ""
            how = f"About, on pixels of {um:.3g}\u00a0µm{before}."
        whole = f"Looked at: {_mm2(facts.looked_at_mm2)}\u00a0mm²."
        if not view.of_chosen_region and view.tissue_mm2 is not None:
            whole = f"Tissue: {_mm2(view.tissue_mm2)}\u00a0mm²."
        part = "" if facts.done_tiles == len(view.store.grid) else " The run is not finished."
        return f"{how} {whole}{part}"

    def _update_shown(self) -> None:
        if self._run is None:
            return
        with QSignalBlocker(self.visible_box):
            self.visible_box.setChecked(self._run.layer.visible)
        self.opacity.set_value(round(100 * self._run.layer.opacity))

    def _update_buttons(self) -> None:
        """Enable what can be done now; what cannot says why."""
        view = self.view
        busy = "Wait until the work below is done, or cancel it" if self._job is not None else ""
        none = "" if view is None or view.names_on else "Tick a class above first"
        for button, words, why_not in (
            (self.measure_button, self._measure_tip, busy),
            (
                self.annotate_button,
                "Make regions of the objects of the ticked classes; one step, that can be undone",
                busy or none,
            ),
            (
                self.save_button,
                "Write regions, labels, outlines or probabilities for other programs",
                busy or none,
            ),
        ):
            button.setEnabled(not why_not)
            button.setToolTip(why_not or words)

    # ------------------------------------------------------------- from here to the run

    def _change(self, **changes: Any) -> None:
        if self.view is not None:
            self.view.change(**changes)

    def _change_steps(self, **changes: Any) -> None:
        if self.view is not None:
            self.view.change_steps(**changes)

    def _set_visible(self, visible: bool) -> None:
        if self._run is not None:
            self._run.layer.visible = visible

    def _set_opacity(self, percent: float) -> None:
        if self._run is not None:
            self._run.layer.opacity = percent / 100

    def _set_show(self) -> None:
        self._change(probability=self.show_box.currentText() == _PROBABILITY)

    def _set_draw(self) -> None:
        outline = self.draw_box.currentText() == _OUTLINE
        view = self.view
        if self._run is None or view is None or outline == view.style.outline:
            return
        view.change(outline=outline)
        self._run.layer.opacity = 1.0 if outline else DEFAULT_OPACITY  # lines hide no tissue

    def _set_class(self, item: QTreeWidgetItem, column: int) -> None:
        if self.view is not None and column == 0:
            index = self.tree.indexOfTopLevelItem(item)
            self.view.show_class(index, on=item.checkState(0) == Qt.CheckState.Checked)

    def _set_threshold(self, value: float) -> None:
        view = self.view
        if view is not None:
            view.change_steps(threshold=None if view.exclusive and value == 0 else value)

    # ------------------------------------------------------------------- beside the window

    def _look_for_tissue(self) -> None:
        """Have the slide's tissue found, for shares of it."""
        run, view = self._run, self.view
        if run is None or view is None or view.tissue_mm2 is not None or view.of_chosen_region:
            return
        slide = run.slide
        known = self._tissue.get(slide)
        if known is not None:
            view.take_tissue(known)
            return
        if self._looking_for_tissue is slide:
            return
        self._looking_for_tissue = slide

        def done(mm2: float | None) -> None:
            self._looking_for_tissue = None
            if mm2 is None:
                return
            self._tissue[slide] = mm2
            for each in self._overlays.session.runs_of(slide):
                if each.segmentation is not None:
                    each.segmentation.take_tissue(mm2)
            self._look_for_tissue()  # of the slide that is shown by now

        def failed(error: Exception) -> None:
            self._looking_for_tissue = None
            if slide in self._overlays.session.slides:  # else it was closed meanwhile
                show_error(error, self, info=slide.info)

        jobs.start(
            stoppable(lambda _turn: tissue_mm2(slide.slide)),
            on_progress=lambda _: None,
            on_done=done,
            on_error=failed,
            title=f"the search for tissue on {slide.name}",
            owner=self,
        )

    def measure(self) -> None:
        """Count the areas exactly, beside the window."""
        view = self.view
        if view is None:
            return
        style = view.style

        def done(facts: Facts) -> None:
            if view.style == style:  # else they are those of other steps
                view.take(facts)

        self._start("Measuring", lambda turn: exact_facts(view.store, style.steps, turn), done)

    def to_annotations(self) -> None:
        """Take the objects over as regions, beside the window; one step."""
        run, view = self._run, self.view
        if run is None or view is None:
            return
        slide, state = run.slide, annotator(self._overlays.session.viewer)
        steps, names, classes = view.style.steps, view.names_on, state.classes
        shift = SlideFrame.of(slide.info).origin_px0

        def done(taken: Taken) -> None:
            found = len(taken.command.added)
            if state.slide is not slide:
                self._say("Another slide is shown: nothing was taken over.")
            elif not found:
                self._say("There is no object of these classes after the steps.")
            elif state.do(taken.command, ready=True):
                state.set_classes(state.classes.with_all(taken.classes))
                self._say(
                    f"{regions_text(found)} of {view.store.model['name']} "
                    f"{'is' if found == 1 else 'are'} in the annotations now."
                )

        self._start(
            "Tracing objects",
            lambda turn: take_regions(view.store, steps, names, shift, classes, turn),
            done,
        )

    def _ask_save(self) -> None:
        if self._run is not None:
            dialog = SegmentationFileDialog(self._run, self)
            dialog.said.connect(self._say)
            dialog.open()

    def _start(
        self, what: str, work: Callable[[Turn], Result], then: Callable[[Result], None]
    ) -> None:
        """Do something with the whole segmentation beside the window."""
        if self._job is not None:
            return
        info = self._run.slide.info if self._run is not None else None

        def done(result: Result | None) -> None:
            cancelled = job.cancelled
            self._job = None
            self._show_job("Cancelled." if cancelled else "")
            if result is not None and not cancelled:
                then(result)

        def failed(error: Exception) -> None:
            self._job = None
            self._show_job("")
            show_error(error, self, info=info)

        job = jobs.start(
            stoppable(work),
            on_progress=lambda _: None,
            on_done=done,
            on_error=failed,
            title=f"{what[0].lower()}{what[1:]} in a segmentation",
            owner=self,
        )
        self._job = job
        self._show_job(f"{what}… you can go on meanwhile.")

    def _cancel(self) -> None:
        if self._job is not None:
            self._job.cancel()

    def _show_job(self, text: str) -> None:
        for widget in (self.bar, self.cancel_button):
            widget.setVisible(self._job is not None)
        self._say(text)
        self._update_buttons()

    def _say(self, text: str) -> None:
        """Say what is going on or was done; without that, no room is taken."""
        self.words.setText(text)
        self.words.setVisible(bool(text))


def _mm2(area: float) -> str:
    """Return an area with the digits that mean something."""
    return f"{area:.2f}" if area >= 1 else f"{area:.4f}"


def _size(suffix: str, decimals: int, tooltip: str) -> QDoubleSpinBox:
    box = QDoubleSpinBox()
    box.setDecimals(decimals)
    box.setRange(0, 1e9 if suffix == " µm²" else 1000)
    box.setSuffix(suffix)
    box.setSpecialValueText("off")  # at 0
    box.setStepType(QDoubleSpinBox.StepType.AdaptiveDecimalStepType)
    box.setKeyboardTracking(False)
    box.setToolTip(tooltip)
    return box
