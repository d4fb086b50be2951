"""The case that is read: the own answer, then the model's, places judged by the form, done."""

from __future__ import annotations

import html
from collections.abc import Callable
from functools import partial
from typing import Any

from qtpy.QtCore import QSignalBlocker
from qtpy.QtWidgets import QCheckBox, QPushButton, QVBoxLayout, QWidget

from napari_histomil.errors import HistomilError
from napari_histomil.review import blind
from napari_histomil.review.predictions import class_of_label
from napari_histomil.ui.dialogs import show_error
from napari_histomil.ui.keys import hint
from napari_histomil.ui.reviewing import Reviewing
from napari_histomil.ui.widgets.form_buttons import FormButtons
from napari_histomil.ui.widgets.icon_button import row
from napari_histomil.ui.widgets.panel import follow, plain_label
from napari_histomil.ui.words import count


class CasePart(QWidget):
    """All that one does with a case."""

    def __init__(self, state: Reviewing, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._state = state
        self._answers: tuple[str, ...] = ()
        self.title = plain_label()
        self.problem = plain_label()
        self.answer_words = plain_label()
        self.answer_row = QWidget()
        self.answer_buttons: list[QPushButton] = []
        self.confidence_buttons = [
            _toggle(str(n), f"{n} of 5: {words}", partial(state.rate, n))
            for n, words in zip(
                blind.CONFIDENCES,
                ("a guess", "unsure", "rather sure", "sure", "certain"),
                strict=True,
            )
        ]
        self.confidence_words = plain_label("How sure are you?")
        self.confidence_row = row(*self.confidence_buttons)
        self.lock_button = QPushButton("Lock answer (Enter)")
        self.lock_button.setToolTip(
            "Your answer and confidence are kept for good; then the model's is shown"
            + hint("review.enter")
        )
        self.lock_button.clicked.connect(self._attempting(state.lock))
        self.result = plain_label()
        self.place_words = plain_label()
        self.previous_button = QPushButton("Previous")
        self.next_button = QPushButton("Next")
        self.missed_button = QPushButton("Missed…")
        self.missed_button.setCheckable(True)
        for button, key, slot, words in (
            (self.previous_button, "review.place.previous", partial(state.step, -1), "Go back"),
            (self.next_button, "review.place.next", partial(state.step, 1), "Go on"),
            (
                self.missed_button,
                "review.missed",
                state.mark,
                "The next click on the slide marks what the model missed",
            ),
        ):
            button.setToolTip(f"{words}{hint(key)}")
            button.clicked.connect(slot)
        self.goes_on_box = QCheckBox("one key a place")
        self.goes_on_box.setToolTip("A key that judges a place goes on to the next one")
        self.goes_on_box.toggled.connect(lambda on: setattr(state, "goes_on", on))
        self.steps = row(
            self.previous_button, self.next_button, self.missed_button, self.goes_on_box
        )
        self.place_form = FormButtons(state, "place")
        self.case_form = FormButtons(state, "case")
        self.done_button = QPushButton("Done, next case (Enter)")
        self.done_button.clicked.connect(self._attempting(state.finish))
        self.end_words = plain_label()
        self._layout()
        follow(self, state.project_changed, self._on_project)
        follow(self, state.case_changed, self.refresh)
        follow(self, state.row_changed, self.refresh_result)
        follow(self, state.finished, self.show_end)
        self._on_project()

    def _layout(self) -> None:
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(5)
        for widget in (
            self.title,
            self.problem,
            self.answer_words,
            self.answer_row,
            self.confidence_words,
            self.confidence_row,
            self.lock_button,
            self.result,
            self.place_words,
            self.steps,
            self.place_form,
            self.case_form,
            self.done_button,
            self.end_words,
        ):
            column.addWidget(widget)

    def _attempting(self, step: Callable[[], Any]) -> Callable[[], None]:
        def attempt(*_: Any) -> None:
            try:
                step()
            except HistomilError as error:
                show_error(error, self)

        return attempt

    def _on_project(self) -> None:
        project = self._state.project
        answers = () if project is None else project.possible_answers
        if answers != self._answers:
            self._answers = answers
            self.answer_buttons = [
                _toggle(
                    f"{n}  {answer}", f"Answer {answer} (key: {n})", partial(self._give, answer)
                )
                for n, answer in enumerate(answers, 1)
            ]
            fresh = row(*self.answer_buttons)
            self.layout().replaceWidget(self.answer_row, fresh)
            self.answer_row.deleteLater()
            self.answer_row = fresh
        self.place_form.make(project)
        self.case_form.make(project)
        self.end_words.hide()
        self.refresh()

    def say(self, problem: str) -> None:
        """Say why something cannot be done, until something else is."""
        self.problem.setText(f"⚠ {problem}")
        self.problem.show()

    def _give(self, answer: str) -> None:
        self._attempting(partial(self._state.give, answer))()

    def refresh(self) -> None:
        """Show the case as it is now."""
        state = self._state
        self.problem.hide()
        case, project, stage = state.current, state.project, state.stage
        read = case is not None and project is not None
        own, shown = read and stage == "own", read and stage == "shown"
        blindly = project is not None and project.blind
        whole = state.place is None  # at a place there is room for its questions only
        for widget, visible in (
            (self.answer_words, own or (shown and blindly and whole)),
            (self.answer_row, own or (shown and blindly and whole)),
            (self.confidence_words, own),
            (self.confidence_row, own),
            (self.lock_button, own),
            (self.result, shown),
            (self.place_words, shown),
            (self.steps, shown),
            (self.place_form, shown and not whole),
            (self.case_form, shown and whole),
            (self.done_button, shown),
        ):
            widget.setVisible(bool(visible))
        if case is None or project is None:
            self.title.setText(
                "Open a folder of slides, a table or a project above." if project is None
                else "Open a case: a double click in the table."
            )  # fmt: skip
            return
        self.end_words.hide()
        self.title.setText(self._say_case())
        self.answer_words.setText(
            "Your own answer, before the model's is shown:" if own else
            "Your answer, having seen the model's (change it if you do):"
        )  # fmt: skip
        chosen = state.given if own else state.row(case).values["final"]
        for button, answer in zip(self.answer_buttons, self._answers, strict=True):
            button.setChecked(answer == chosen)
        for n, button in enumerate(self.confidence_buttons, 1):
            button.setChecked(n == state.confidence)
            button.setEnabled(state.given is not None)
        self.lock_button.setEnabled(state.given is not None and state.confidence is not None)
        with QSignalBlocker(self.goes_on_box):
            self.goes_on_box.setChecked(state.goes_on)
        self.missed_button.setChecked(state.marking)
        self.refresh_result()
        self._say_place()
        self.place_form.refresh()
        self.case_form.refresh()

    def _say_case(self) -> str:
        state = self._state
        assert state.current is not None
        order = [case.name for case in state.reading_order()]
        case = state.current
        where = order.index(case.name) + 1 if case.name in order else 0
        lines = [f"<b>{html.escape(case.name)}</b>"]
        if where:
            lines[0] += f", case {count(where)} of {count(len(order))}"
        facts = [f"{html.escape(k)}: {html.escape(v)}" for k, v in case.facts.items()]
        if case.patient != case.name:
            facts.insert(0, f"Patient {html.escape(case.patient)}")
        return "<br>".join([*lines, ", ".join(facts)] if facts else lines)

    def refresh_result(self, _: str = "") -> None:
        """Show what the models answered."""
        state = self._state
        if state.current is None or state.project is None or state.stage != "shown":
            return
        current, project = state.row(state.current), state.project
        lines = []
        for prediction in current.predictions:
            answer = prediction.classes[prediction.predicted(project.threshold)]
            name = prediction.classes[prediction.target]
            spread = "" if prediction.spread is None else f" ± {prediction.spread:.3f}"
            truth = class_of_label(state.current.label, prediction, project.positive)
            right = prediction.predicted(project.threshold) == truth
            mark = "" if truth is None else (" ✓" if right else " ✗")
            said = f"<b>{html.escape(answer)}</b>"
            if state.place is not None:
                lines.append(f"{said}{mark}, P({html.escape(name)}) {prediction.p:.3f}{spread}")
                break
            lines.append(
                f"<span style='font-size:large'>{said}</span>{mark}, "
                f"P({html.escape(name)}) {prediction.p:.3f}{spread}"
                f"<br>{html.escape(prediction.model)}, {html.escape(prediction.how)}"
                + ("" if prediction.complete else ", ⚠ not all of it is done")
            )
        if not lines:
            lines = ["No stored answer of a model for this slide: run one in the Run dock."]
        if state.place is not None:
            self.result.setText(lines[0])
            return
        if state.current.label:
            lines.append(f"Known answer: <b>{html.escape(state.current.label)}</b>")
        if current.values["own"]:
            own = html.escape(current.values["own"])
            lines.append(f"Your own answer was {own}, {current.values['confidence']} of 5 sure")
        notes = () if current.facts is None else current.facts.notes
        lines += [f"⚠ {html.escape(note)}" for note in notes]
        self.result.setText("<br>".join(lines))

    def _say_place(self) -> None:
        state = self._state
        total = len(state.places)
        judged = sum(state.is_judged(n) for n in range(total))
        if state.marking:
            words = "Click on the slide where the model missed something."
        elif not total:
            words = "No places to judge: the model left no map."
        elif state.at is None:
            words = f"{judged} of the top {total} places judged; N goes to the first."
        else:
            spot = state.places[state.at]
            words = f"Place {state.at + 1} of {total}, {spot.score:.3f}; {judged} judged."
        missed = state.row(state.current).values["missed"] if state.current else 0
        self.place_words.setText(words + (f" Missed: {missed}." if missed else ""))
        self.previous_button.setEnabled(total > 0)
        self.next_button.setEnabled(total > 0)

    def show_end(self) -> None:
        """Show what became of all cases: the last one is done."""
        state = self._state
        if state.log is None or state.project is None:
            return
        done = sum(each.values["status"] == "done" for each in state.rows)
        lines = [f"<b>All {count(done)} cases are done.</b>"]
        if state.project.blind:
            found = blind.changes(state.log, state.project)
            lines.append(changes_html(found))
        self.end_words.setText("<br>".join(lines))
        self.end_words.show()


def changes_html(found: blind.Changes) -> str:
    """Return the matrix of changed answers as rich text."""
    cells = "".join(f"<th>{html.escape(answer)}</th>" for answer in found.answers)
    body = "".join(
        f"<tr><th align='left'>{html.escape(answer)}</th>"
        + "".join(f"<td align='right'>{n}</td>" for n in counts)
        + "</tr>"
        for answer, counts in zip(found.answers, found.counts, strict=True)
    )
    return (
        f"{found.changed} of {found.total} own answers were changed after the model's was shown: "
        f"{found.to_model} to the model's, {found.from_model} away from it."
        f"<table cellpadding='3'><tr><th align='left'>own \\ final</th>{cells}</tr>{body}</table>"
    )


def _toggle(text: str, tooltip: str, slot: Callable[[], Any]) -> QPushButton:
    button = QPushButton(text)
    button.setCheckable(True)
    button.setToolTip(tooltip)
    button.clicked.connect(lambda *_: slot())
    return button
