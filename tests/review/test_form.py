"""The form of a review: its JSON, its keys, what answers a question."""

from __future__ import annotations

import json

import pytest

from napari_histomil.errors import ReviewError
from napari_histomil.review.form import (
    DEFAULT,
    Choice,
    Form,
    Question,
    form_as_json,
    form_from_json,
    read_form,
    write_form,
)


def test_the_form_of_a_new_project_survives_its_file(tmp_path):
    write_form(DEFAULT, tmp_path / "form.json")
    assert read_form(tmp_path / "form.json") == DEFAULT


def test_a_choice_without_a_key_may_be_its_name():
    form = form_from_json(
        {"questions": [{"name": "grade", "kind": "scale", "choices": ["1", "2", "3"]}]}, "x"
    )
    assert form["grade"].choices == (Choice("1"), Choice("2"), Choice("3"))
    assert form_from_json(form_as_json(form), "x") == form


def test_a_key_gives_its_choice_or_its_question():
    question, choice = DEFAULT.answer_of("6")
    assert (question.name, choice) == ("region", "mimic")
    question, choice = DEFAULT.answer_of("9")
    assert (question.name, choice) == ("missed", None)
    assert DEFAULT.answer_of("6", "case") is None
    assert DEFAULT.answer_of("") is None


@pytest.mark.parametrize(
    ("name", "answer", "kept"),
    [
        ("right", "partly", "partly"),
        ("map quality", "4", 4),
        ("map quality", 4, 4),
        ("missed", False, False),
        ("note", " a fold ", "a fold"),
        ("tags", ["necrosis", "own word", "necrosis", " "], ("necrosis", "own word")),
    ],
)
def test_an_answer_is_kept_in_one_form(name, answer, kept):
    assert DEFAULT[name].checked(answer) == kept


@pytest.mark.parametrize(
    ("name", "answer"),
    [("right", "maybe"), ("map quality", 6), ("map quality", True), ("missed", 1), ("note", 3)],
)
def test_what_does_not_answer_is_refused(name, answer):
    with pytest.raises(ReviewError, match=f"does not answer '{name}'"):
        DEFAULT[name].checked(answer)


def test_an_unknown_question_is_named():
    with pytest.raises(ReviewError, match="asks nothing called 'x'"):
        DEFAULT["x"]


@pytest.mark.parametrize(
    ("questions", "words"),
    [
        ([Question("a", "flag"), Question("a", "flag")], "Two questions are called 'a'"),
        ([Question("a", "flag", key="1"), Question("b", "flag", key="1")], "have the key '1'"),
        ([Question("a", "choice")], "has no choices"),
        ([Question("a", "scale", choices=(Choice("low"),))], "whole numbers"),
        ([Question("a", "colour")], "of the kind 'colour'"),
        ([Question("a", "flag", choices=(Choice("yes"),))], "and has choices"),
        ([Question("status", "flag")], "No question may be called 'status'"),
        ([Question(" ", "flag")], "no name"),
    ],
)
def test_a_form_that_cannot_be_asked_is_refused(questions, words):
    with pytest.raises(ReviewError, match=words):
        Form(tuple(questions))


def test_one_key_may_serve_a_place_and_a_case():
    Form((Question("a", "flag", key="1"), Question("b", "flag", key="1", about="case")))


@pytest.mark.parametrize(
    "document",
    [
        [],
        {"questions": [{"kind": "flag"}]},
        {"questions": [{"name": "a", "kind": "flag", "colour": "red"}]},
        {"questions": ["a"]},
        {"questions": [{"name": "a", "kind": "choice", "choices": [{"key": "1"}]}]},
    ],
)
def test_a_file_that_is_no_form_is_refused(tmp_path, document):
    (tmp_path / "form.json").write_text(json.dumps(document))
    with pytest.raises(ReviewError, match=r"form\.json is no form"):
        read_form(tmp_path / "form.json")


def test_a_form_of_a_newer_version_is_refused():
    with pytest.raises(ReviewError, match="newer version"):
        form_from_json({"schema_version": 99, "questions": []}, "x")
