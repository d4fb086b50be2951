"""Tags of places by the group of their case."""

from __future__ import annotations

from napari_histomil.review.tags import tag_table, write_tag_table
from napari_histomil.review.verdicts import Place, Verdict


def said(case, n, answer, question="tags", reader="a"):
    place = Place(case, (n * 10.0, 0.0), (10.0, 10.0))
    return Verdict(case, place, question, answer, reader)


def test_each_tag_counts_once_for_a_place(tmp_path):
    verdicts = [
        said("one", 1, ("fold", "pen")),
        said("one", 2, ("fold",)),
        said("one", 2, ("fold",), reader="b"),
        said("two", 1, ("fold",)),
        said("three", 1, ("vessel",)),
        said("three", 2, ("vessel",)),
        said("two", 1, "wrong", question="right"),
        Verdict("two", None, "tags", ("case",)),
    ]
    scanners = {"one": "Aperio", "two": "Hamamatsu"}
    table = tag_table(verdicts, scanners)
    assert table.answers == ("fold", "vessel", "pen")
    assert table.groups == ("Aperio", "Hamamatsu", "unknown")
    assert table.counts.tolist() == [[2, 1, 0], [0, 0, 2], [1, 0, 0]]
    assert table.judged.tolist() == [2, 1, 2]
    write_tag_table(table, tmp_path / "tags.csv")
    assert (tmp_path / "tags.csv").read_text("utf-8").splitlines()[:2] == [
        "tags,Aperio,Hamamatsu,unknown",
        "fold,2,1,0",
    ]
    answers = tag_table(verdicts, scanners, "right")
    assert (answers.answers, answers.counts.tolist()) == (("wrong",), [[1]])
