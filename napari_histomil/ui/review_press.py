"""What a key means while a case is read; which keys there are is in `keys.REVIEW_KEYS`."""

from __future__ import annotations

from napari_histomil.review import blind
from napari_histomil.review.project import Project
from napari_histomil.ui.reviewing import Reviewing


def press(state: Reviewing, key: str) -> None:
    """Do what a key means now.

    Raises
    ------
    HistomilError
        If it cannot be done, in one sentence.
    """
    if state.project is None or state.current is None:
        return
    fixed = {
        "Enter": state.lock if state.stage == "own" else state.finish,
        "N": lambda: state.step(1),
        "Shift-N": lambda: state.step(-1),
        "A": state.mark,
        "Backspace": state.take_back,
        "Alt-Right": lambda: state.go_on(1),
        "Alt-Left": lambda: state.go_on(-1),
    }
    if key in fixed:
        fixed[key]()
    elif state.stage == "own":
        _answer(state, state.project, key)
    elif state.place is not None:
        _judge_place(state, state.project, key)
    else:
        _judge_case(state, state.project, key)


def _answer(state: Reviewing, project: Project, key: str) -> None:
    """Take the first number as the own answer, the second as how sure it is."""
    answers = project.possible_answers
    if not key.isdecimal():
        return
    if state.given is None:
        if int(key) <= len(answers):
            state.give(answers[int(key) - 1])
    elif int(key) in blind.CONFIDENCES:
        state.rate(int(key))


def _judge_place(state: Reviewing, project: Project, key: str) -> None:
    found = project.form.answer_of(key)
    if found is None:
        return
    question, choice = found
    if question.kind == "flag":
        state.judge(question, state.answer_to(question, state.place) is not True)
    elif choice is not None and question.kind == "tags":
        before = state.answer_to(question, state.place)
        tags = before if isinstance(before, tuple) else ()
        rest = [tag for tag in tags if tag != choice]
        state.judge(question, rest if choice in tags else [*tags, choice])
    elif choice is not None:
        state.judge(question, choice, go_on=True)


def _judge_case(state: Reviewing, project: Project, key: str) -> None:
    found = project.form.answer_of(key, "case")
    answers = project.possible_answers
    if found is not None and found[1] is not None:
        state.judge(found[0], found[1])
    elif found is not None and found[0].kind == "flag":
        state.judge(found[0], state.answer_to(found[0]) is not True)
    elif project.blind and key.isdecimal() and int(key) <= len(answers):
        state.give(answers[int(key) - 1])


def keys_of(project: Project | None) -> list[str]:
    """Return the keys of a project's form."""
    if project is None:
        return []
    found = [
        key
        for question in project.form.questions
        for key in (question.key, *(choice.key for choice in question.choices))
    ]
    return [key for key in dict.fromkeys(found) if key]
