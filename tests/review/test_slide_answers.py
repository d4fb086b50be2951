"""Slide answers from tile answers, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from napari_histomil.errors import RunError
from napari_histomil.review.slide_answers import (
    RULES,
    Rule,
    compare_rules,
    read_rule,
    slide_answer,
)

SCORES = np.array([0.1, 0.9, 0.5, np.nan, 0.7, 0.2, 0.3])


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("mean", 2.7 / 6),
        ("max", 0.9),
        ("top2", 0.8),
        ("top100", 2.7 / 6),
        ("top50%", 0.7),
        ("top1%", 0.9),
        ("majority", 0.5),
    ],
)
def test_rules_by_hand(text: str, answer: float) -> None:
    rule = read_rule(text)
    assert str(rule) == text
    assert slide_answer(SCORES, rule) == pytest.approx(answer)
    assert slide_answer(SCORES[::-1], rule) == pytest.approx(answer)


def test_a_tenth_of_thirty_is_three() -> None:
    assert slide_answer(np.arange(30) / 30, Rule("top", share=0.1)) == pytest.approx(28 / 30)


@pytest.mark.parametrize("text", ["median", "top", "top0", "top1.5", "top0%", "top101%"])
def test_what_is_no_rule_is_refused(text: str) -> None:
    with pytest.raises(RunError, match="is no rule"):
        read_rule(text)


def test_a_slide_without_scores_has_no_answer() -> None:
    with pytest.raises(RunError, match="No tile of the slide"):
        slide_answer(np.array([np.nan]), Rule("mean"))


def test_rules_are_compared_over_slides() -> None:
    # one hot tile makes a slide positive: max knows, mean does not
    slides = [np.array([0.1, 0.1, 0.95]), np.array([0.4, 0.4, 0.4]), np.array([0.5, 0.5])]
    truth, patients = np.array([True, False, False]), np.array(["a", "b", "c"])
    found = compare_rules(slides, truth, patients, rounds=50)
    assert list(found) == [str(rule) for rule in RULES]
    assert found["max"]["auroc"] == 1.0
    assert found["mean"]["auroc"] == 0.0
    assert found["max"]["auroc_95"] == [1.0, 1.0]
    assert found["majority"]["accuracy"] == pytest.approx(1 / 3)  # the third is called, wrongly
