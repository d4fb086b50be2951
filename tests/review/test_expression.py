"""Filters as expressions: what they say, and what they may not say."""

from __future__ import annotations

import pytest

from napari_histomil.errors import ReviewError
from napari_histomil.review.expression import read_filter

NAMES = dict.fromkeys(("error", "label", "tags", "p", "fact", "note", "status"), "")
CASE = {
    "error": 0.75,
    "label": "Tumor",
    "tags": ("ink", "Germinal centre"),
    "p": 0.25,
    "p[]": {"my-model": 0.9},
    "fact[]": {"slide scanner": "P1000", "year": "2020"},
    "note": None,
    "status": "to do",
}


@pytest.mark.parametrize(
    ("text", "true"),
    [
        ("", True),
        ("error > 0.5", True),
        ("0.7 < error <= 0.75", True),
        ("error > 0.5 and label == 'tumor'", True),
        ("not (error > 0.5 or p > 0.5)", False),
        ("'ink' in tags", True),
        ("'germinal centre' in tags", True),
        ("'pen' not in tags", True),
        ("'um' in label", True),
        ("label in ('normal', 'tumor')", True),
        ("status != 'done'", True),
        ("p['my-model'] - p > 0.6", True),
        ('p["other"] > 0', False),
        ("p['other'] == None", True),
        ("fact['slide scanner'] == 'p1000'", True),
        ("note > 3", False),
        ("note < 3", False),
        ("note == None", True),
        ("label > 3", False),
        ("error / 0 > 1", False),
        ("-error < 0", True),
        ("3 in label", False),
        ("note in label", False),
        ("error", True),
    ],
)
def test_what_is_true_of_a_case(text, true):
    assert read_filter(text, NAMES)(CASE) is true


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "label.upper()",
        "(lambda: 1)()",
        "[x for x in tags]",
        "error if p else label",
        "f'{error}'",
        "error ** 9",
        "error << 9",
        "{'a': 1}",
        "tags[0]",
        "(p)['a']['b']",
        "(error := 3)",
        "b'x' == label",
        "1j > 0",
        "...",
    ],
)
def test_nothing_but_comparisons_is_understood(text):
    with pytest.raises(ReviewError, match="more than it may say"):
        read_filter(text, NAMES)


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(ReviewError, match="asks for 'eror', and a case has error, label"):
        read_filter("eror > 0.5", NAMES)


@pytest.mark.parametrize("text", ["error >", "import os", "error = 3", "a\0b"])
def test_what_is_no_expression_is_refused(text):
    with pytest.raises(ReviewError, match="is no filter"):
        read_filter(text, NAMES)


def test_length_and_depth_are_bounded():
    with pytest.raises(ReviewError, match="longer than"):
        read_filter("error > 1 or " * 500 + "p", NAMES)
    with pytest.raises(ReviewError, match=r"nested too deeply|is no filter"):
        read_filter("not " * 100 + "p", NAMES)
    with pytest.raises(ReviewError, match="is no filter"):
        read_filter("(" * 900 + "p" + ")" * 900, NAMES)
