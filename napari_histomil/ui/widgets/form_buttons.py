"""The questions of a form as buttons and fields, each with its key."""

from __future__ import annotations

import html
from functools import partial
from typing import Any

from qtpy.QtCore import QSignalBlocker
from qtpy.QtWidgets import QLineEdit, QPushButton, QVBoxLayout, QWidget

from napari_histomil.errors import HistomilError
from napari_histomil.review.form import About, Question
from napari_histomil.review.project import Project
from napari_histomil.ui.dialogs import show_error
from napari_histomil.ui.reviewing import Reviewing
from napari_histomil.ui.widgets.flow import FlowRow
from napari_histomil.ui.widgets.panel import plain_label


class FormButtons(QWidget):
    """The questions about a place, or about the case.

    Parameters
    ----------
    state
        The review.
    about
        Which questions.
    """

    def __init__(self, state: Reviewing, about: About, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._state = state
        self._about = about
        self._project: Project | None = None
        self.buttons: dict[tuple[str, str | None], QPushButton] = {}
        self.fields: dict[str, QLineEdit] = {}
        self._column = QVBoxLayout(self)
        self._column.setContentsMargins(0, 0, 0, 0)
        self._column.setSpacing(3)

    def make(self, project: Project | None) -> None:
        """Ask what the form of a project asks."""
        if (
            project is not None
            and self._project is not None
            and project.form == self._project.form
        ):
            self._project = project
            return
        self._project = project
        while (item := self._column.takeAt(0)) is not None:
            if item.widget() is not None:
                item.widget().deleteLater()
        self.buttons, self.fields = {}, {}
        for question in () if project is None else project.form.about(self._about):
            self._ask(question)

    def _ask(self, question: Question) -> None:
        row = FlowRow()
        if question.kind == "flag":
            row.add(self._button(question, None, question.asked, question.key))
        else:
            label = plain_label(html.escape(question.asked))
            self._column.addWidget(label)
            for choice in question.choices:
                row.add(self._button(question, choice.name, choice.name, choice.key))
        if question.kind in ("tags", "note"):
            field = QLineEdit()
            key = f" (key: {question.key})" if question.key else ""
            words = "Own tags, with commas between" if question.kind == "tags" else question.asked
            field.setPlaceholderText(words + key)
            field.setToolTip(words + key)
            field.editingFinished.connect(partial(self._write, question, field))
            self.fields[question.name] = field
            if question.kind == "tags":
                self._column.addWidget(row)
            self._column.addWidget(field)
        else:
            self._column.addWidget(row)

    def _button(self, question: Question, choice: str | None, words: str, key: str) -> QPushButton:
        shown = key.replace("-", "+")
        button = QPushButton(f"{shown}  {words}" if key else words)
        button.setCheckable(True)
        button.setToolTip(f"{words} (key: {shown})" if key else words)
        button.clicked.connect(lambda *_: self._press(question, choice))
        self.buttons[question.name, choice] = button
        return button

    @property
    def _place(self) -> Any:
        return self._state.place if self._about == "place" else None

    def _press(self, question: Question, choice: str | None) -> None:
        before = self._state.answer_to(question, self._place)
        answer: Any = choice
        if question.kind == "flag":
            answer = before is not True
        elif question.kind == "tags":
            tags = before if isinstance(before, tuple) else ()
            answer = [t for t in tags if t != choice] if choice in tags else [*tags, choice]
        elif str(before) == choice:  # a second click takes it back
            answer = None
        self._judge(question, answer)

    def _write(self, question: Question, field: QLineEdit) -> None:
        before = self._state.answer_to(question, self._place)
        text = field.text().strip()
        answer: Any = text
        if question.kind == "tags":
            named = [t for t in _words(before) if t in question.names]
            answer = [*named, *(part.strip() for part in text.split(",") if part.strip())]
            if tuple(answer) == _words(before):
                return
        elif text == (before or ""):
            return
        self._judge(question, answer)

    def _judge(self, question: Question, answer: Any) -> None:
        try:
            self._state.judge(question, answer)
        except HistomilError as error:
            show_error(error, self)
        self.refresh()

    def write(self, name: str) -> bool:
        """Let the person write the answer to a question; False if it has no field."""
        if name not in self.fields:
            return False
        self.fields[name].setFocus()
        return True

    def refresh(self) -> None:
        """Show what was answered about the place, or the case."""
        if self._project is None:
            return
        for question in self._project.form.about(self._about):
            answer = self._state.answer_to(question, self._place)
            for (name, choice), button in self.buttons.items():
                if name == question.name:
                    button.setChecked(_is_chosen(answer, choice))
            field = self.fields.get(question.name)
            if field is not None and not field.hasFocus():
                own = [t for t in _words(answer) if t not in question.names]
                text = ", ".join(own) if question.kind == "tags" else str(answer or "")
                with QSignalBlocker(field):
                    field.setText(text)


def _words(answer: Any) -> tuple[str, ...]:
    return answer if isinstance(answer, tuple) else ()


def _is_chosen(answer: Any, choice: str | None) -> bool:
    if choice is None:
        return answer is True
    return choice in _words(answer) if isinstance(answer, tuple) else str(answer) == choice
