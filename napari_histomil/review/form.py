"""What a reader is asked about a place or a case: a form, as JSON of a review project.

A question is answered by one key where it can be. What was answered is in `verdicts.py`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from napari_histomil.errors import HistomilError, ReviewError, brief, listed
from napari_histomil.files import whole_file

SCHEMA_VERSION = 1

Kind = Literal["choice", "tags", "scale", "flag", "note"]
About = Literal["place", "case"]

KINDS: dict[str, str] = {
    "choice": "one of the choices",
    "tags": "any number of the choices, and words of one's own",
    "scale": "one of the choices, which are whole numbers in order",
    "flag": "yes or no",
    "note": "free words",
}

RESERVED = ("status", "own answer", "confidence", "revealed", "final answer", "seconds",
            "position")  # fmt: skip
"""Names of what the program itself keeps among the verdicts."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One possible answer."""

    name: str
    key: str = ""
    """The key that gives it, as napari writes keys; empty for none."""


@dataclass(frozen=True, slots=True)
class Question:
    """One question of a form."""

    name: str
    """Short, unique in the form: the column of its answers."""
    kind: Kind
    text: str = ""
    """What is asked, in words; empty for the name itself."""
    choices: tuple[Choice, ...] = ()
    """Of a choice, tags and a scale."""
    key: str = ""
    """Of a flag the key that turns it over, of a note and tags the key that begins to write."""
    about: About = "place"

    @property
    def asked(self) -> str:
        """The question in words."""
        return self.text or self.name

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the choices."""
        return tuple(choice.name for choice in self.choices)

    def checked(self, answer: object) -> Any:
        """Return an answer in the form in which it is kept.

        Raises
        ------
        ReviewError
            If it does not answer the question.
        """
        good: object = None
        if self.kind == "flag" and isinstance(answer, bool):
            good = answer
        elif self.kind == "note" and isinstance(answer, str):
            good = answer.strip()
        elif self.kind == "choice" and answer in self.names:
            good = answer
        elif self.kind == "scale" and not isinstance(answer, bool) and str(answer) in self.names:
            good = int(str(answer))
        elif self.kind == "tags" and isinstance(answer, list | tuple):
            good = tuple(dict.fromkeys(str(each).strip() for each in answer if str(each).strip()))
        if good is None:
            allowed = f": {listed(self.names)}" if self.names else ""
            raise ReviewError(
                f"{answer!r} does not answer {self.name!r}, which takes {KINDS[self.kind]}"
                f"{allowed}."
            )
        return good


@dataclass(frozen=True, slots=True)
class Form:
    """The questions of a review.

    Raises
    ------
    ReviewError
        If two questions or keys are the same, or a question has no choices where it needs some.
    """

    questions: tuple[Question, ...]

    def __post_init__(self) -> None:
        names = Counter(question.name for question in self.questions)
        _refuse_twice(names, "questions are called")
        taken = [name for name in names if name in RESERVED]
        if taken:
            raise ReviewError(f"No question may be called {taken[0]!r}: choose another name.")
        for question in self.questions:
            _check(question)
        for about in get_args(About):
            _refuse_twice(Counter(self._keys(about)), f"answers about a {about} have the key")

    def __getitem__(self, name: str) -> Question:
        for question in self.questions:
            if question.name == name:
                return question
        raise ReviewError(
            f"The form asks nothing called {name!r}; it asks "
            f"{listed([question.name for question in self.questions])}."
        )

    def about(self, about: About) -> tuple[Question, ...]:
        """Return the questions about a place, or about a case."""
        return tuple(question for question in self.questions if question.about == about)

    def answer_of(self, key: str, about: About = "place") -> tuple[Question, str | None] | None:
        """Return what a key answers.

        Returns
        -------
        tuple or None
            The question and the choice; the choice is None for the key of a question itself
            (a flag turns over, words are begun). None if the key answers nothing.
        """
        for question in self.about(about):
            if key and question.key == key:
                return question, None
            for choice in question.choices:
                if key and choice.key == key:
                    return question, choice.name
        return None

    def _keys(self, about: About) -> list[str]:
        own = [question.key for question in self.about(about)]
        of_choices = [c.key for question in self.about(about) for c in question.choices]
        return [key for key in (*own, *of_choices) if key]


def _refuse_twice(times: Counter[str], words: str) -> None:
    twice = [name for name, count in times.items() if count > 1]
    if twice:
        raise ReviewError(f"Two {words} {twice[0]!r}: give one of them another.")


def _check(question: Question) -> None:
    if question.kind not in KINDS:
        raise ReviewError(
            f"The question {question.name!r} is of the kind {question.kind!r}; there are "
            f"{listed(list(KINDS))}."
        )
    if question.about not in get_args(About):
        raise ReviewError(f"The question {question.name!r} must be about a place or a case.")
    if not question.name.strip():
        raise ReviewError("A question has no name.")
    if question.kind in ("choice", "scale") and not question.choices:
        raise ReviewError(f"The question {question.name!r} has no choices: name some.")
    if question.kind in ("flag", "note") and question.choices:
        raise ReviewError(
            f"The question {question.name!r} takes {KINDS[question.kind]}, and has choices: "
            f"take them away, or make it a choice."
        )
    _refuse_twice(Counter(question.names), f"choices of {question.name!r} are called")
    if question.kind == "scale" and not all(n.lstrip("-").isdecimal() for n in question.names):
        raise ReviewError(f"The choices of the scale {question.name!r} must be whole numbers.")


# --- the form of a new project ----------------------------------------------------------------

DEFAULT = Form(
    (
        Question("right", "choice", "Is the model right here?", (
            Choice("right", "1"), Choice("partly", "2"), Choice("wrong", "3"),
        )),
        Question("region", "choice", "What is it?", (
            Choice("lesion", "4"), Choice("part of a lesion", "5"), Choice("mimic", "6"),
            Choice("artefact", "7"), Choice("nothing", "8"),
        )),
        Question("artefact", "choice", "Which artefact?", (
            Choice("fold", "Alt-1"), Choice("pen", "Alt-2"), Choice("blur", "Alt-3"),
            Choice("ink", "Alt-4"), Choice("out of focus", "Alt-5"), Choice("other", "Alt-6"),
        )),
        Question("missed", "flag", "Did the model miss it?", key="9"),
        Question("tags", "tags", "Tags", (
            Choice("germinal centre"), Choice("histiocytes"), Choice("necrosis"),
            Choice("vessel"), Choice("nerve"), Choice("inflammation"),
        ), key="T"),
        Question("note", "note", "Note"),
        Question("map quality", "scale", "How good is the map? (0 useless, 5 as drawn by hand)",
                 tuple(Choice(str(n)) for n in range(6)), about="case"),
        Question("case note", "note", "Note about the case", about="case"),
    )
)  # fmt: skip
"""What a new project asks."""


# --- JSON -------------------------------------------------------------------------------------


def form_as_json(form: Form) -> dict[str, Any]:
    """Return a form as plain values."""
    return {
        "schema_version": SCHEMA_VERSION,
        "questions": [
            {
                "name": question.name,
                "kind": question.kind,
                **({"text": question.text} if question.text else {}),
                **(
                    {"choices": [_choice_json(choice) for choice in question.choices]}
                    if question.choices
                    else {}
                ),
                **({"key": question.key} if question.key else {}),
                "about": question.about,
            }
            for question in form.questions
        ],
    }


def _choice_json(choice: Choice) -> dict[str, str] | str:
    return {"name": choice.name, "key": choice.key} if choice.key else choice.name


def form_from_json(document: object, where: str) -> Form:
    """Return the form that plain values describe.

    Parameters
    ----------
    document
        As `form_as_json`; a choice without a key may be its name alone.
    where
        What it is from, for the sentence of an error.

    Raises
    ------
    ReviewError
        If it describes none.
    """
    if not isinstance(document, Mapping) or not isinstance(document.get("questions"), list):
        raise ReviewError(f"{where} is no form: it needs a list called questions.")
    version = document.get("schema_version", SCHEMA_VERSION)
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        raise ReviewError(
            f"{where} was written by a newer version of this program: update napari-histomil."
        )
    try:
        return Form(tuple(_question(each) for each in document["questions"]))
    except (HistomilError, TypeError, KeyError, ValueError, AttributeError) as error:
        raise ReviewError(f"{where} is no form: {brief(error)}.") from error


def _question(member: Mapping[str, Any]) -> Question:
    unknown = set(member) - {"name", "kind", "text", "choices", "key", "about"}
    if unknown:
        raise ReviewError(f"a question has no {sorted(unknown)[0]!r}")
    choices = [
        Choice(each) if isinstance(each, str) else Choice(str(each["name"]), str(each["key"]))
        for each in member.get("choices", ())
    ]
    return Question(
        name=str(member["name"]),
        kind=member["kind"],
        text=str(member.get("text", "")),
        choices=tuple(choices),
        key=str(member.get("key", "")),
        about=member.get("about", "place"),
    )


def read_form(path: Path) -> Form:
    """Read a form from a JSON file.

    Raises
    ------
    ReviewError
        If it cannot be read, or is none.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ReviewError(f"{path} cannot be read as a form (JSON): {brief(error)}.") from error
    return form_from_json(document, str(path))


def write_form(form: Form, path: Path) -> None:
    """Write a form to a JSON file.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    with whole_file(path) as part:
        text = json.dumps(form_as_json(form), indent=1, ensure_ascii=False)
        part.write_text(text + "\n", encoding="utf-8")
