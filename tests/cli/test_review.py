"""``histomil review``: set up, listed, evaluated."""

from __future__ import annotations

import csv
import json

import pytest

from napari_histomil.review import blind
from napari_histomil.review.project import read_project
from napari_histomil.review.verdicts import Place, Verdict, VerdictLog
from napari_histomil.review.viewing import View, ViewingLog, folder_of
from napari_histomil.slides.readers import open_slide
from tests.review.review_cases import write_mil, write_run, write_slide


@pytest.fixture
def table(tmp_path):
    """Three slides with runs: the second one is a failure."""
    slides = [write_slide(tmp_path / f"{n}.tiff", 100 + n) for n in range(3)]
    for slide, score in zip(slides, (0.9, 0.2, 0.4), strict=True):
        write_run(slide, score)
    write_mil(slides[0], [[0.3, 0.7]])
    path = tmp_path / "cohort.csv"
    path.write_text(
        "slide,patient,label,site\n0.tiff,A,tumor,x\n1.tiff,A,tumor,y\n2.tiff,B,normal,y\n",
        "utf-8",
    )
    return path


@pytest.fixture
def project(histomil, table):
    models = ("--model", "tiles", "--model", "bags", "--rule", "mean")
    answers = ("--blind", "--answers", "normal,tumor", "--seed", 3)
    said = histomil("review", "setup", table, *models, *answers)
    assert said.code == 0
    assert "3 cases of 2 patients" in said.err
    return read_project(table.with_name("cohort.review.json"))


def judge(project, reader, *answers):
    place = Place("f" * 64, (1.0, 2.0), (9.0, 9.0))
    with VerdictLog.open(project.verdicts, reader=reader) as log:
        for case, own, final in answers:
            blind.lock(log, project, case, own, 4)
            blind.reveal(log, project, case, "tumor", "r")
            blind.decide(log, project, case, final)
        log.append(Verdict("0.tiff", place, "region", "mimic"))
        log.append(Verdict("0.tiff", place, "region", "lesion" if reader == "Ada" else "nothing"))
        log.append(Verdict("0.tiff", None, "tags", ("ink", "pen")))


def test_settings_are_kept_and_changed(histomil, project, tmp_path):
    assert (project.blind, project.answers, project.seed) == (True, ("normal", "tumor"), 3)
    said = histomil("review", "form", "-o", tmp_path / "form.json")
    form = json.loads((tmp_path / "form.json").read_text("utf-8"))
    form["questions"] = form["questions"][:1]
    (tmp_path / "form.json").write_text(json.dumps(form), "utf-8")
    said = histomil("review", "setup", project.path, "--no-blind", "--threshold", 0.3,
                    "--form", tmp_path / "form.json")  # fmt: skip
    assert said.out.strip() == str(project.path)
    changed = read_project(project.path)
    assert (changed.blind, changed.threshold, len(changed.form.questions)) == (False, 0.3, 1)
    assert changed.models == project.models
    assert json.loads(histomil("review", "form").out)["questions"]


def test_failures_are_listed_and_filtered(histomil, project, tmp_path):
    said = histomil("review", "list", project.path, "--sort", "error", "--descending",
                    "--csv", tmp_path / "cases.csv")  # fmt: skip
    lines = said.out.splitlines()
    assert [line.split()[0] for line in lines] == ["case", "1.tiff", "2.tiff", "0.tiff"]
    assert lines[1].split()[3:6] == ["normal", "0.200", "0.800"]
    with (tmp_path / "cases.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert rows[2]["p[bags]"] == "0.700000"
    assert rows[2]["site"] == "x"
    said = histomil("review", "list", project.path, "--where", "fact['site'] == 'y' and right")
    assert [line.split()[0] for line in said.out.splitlines()] == ["case", "2.tiff"]
    said = histomil("review", "list", project.path, "--reader", "Ada")
    assert "0.800" not in said.out, "she has locked nothing"


def test_what_was_judged_is_printed_and_written(histomil, project, tmp_path):
    judge(project, "Ada", ("0.tiff", "tumor", "tumor"))
    said = histomil("review", "verdicts", project.path, "--csv", tmp_path / "v.csv")
    rows = list(csv.DictReader(said.out.splitlines()))
    assert [r["answer"] for r in rows if r["question"] == "region"] == ["lesion"]
    assert [r["answer"] for r in rows if r["question"] == "tags"] == ["ink; pen"]
    assert rows == list(csv.DictReader((tmp_path / "v.csv").read_text("utf-8").splitlines()))
    every = list(
        csv.DictReader(histomil("review", "verdicts", project.path, "--all").out.split("\n"))
    )
    assert [r["answer"] for r in every if r["question"] == "region"] == ["mimic", "lesion"]


def test_agreement_changes_and_where_readers_differ(histomil, project, tmp_path):
    judge(project, "Ada", ("0.tiff", "tumor", "tumor"), ("1.tiff", "normal", "tumor"))
    judge(project, "Ben", ("0.tiff", "tumor", "normal"), ("1.tiff", "tumor", "tumor"))
    said = histomil("review", "agreement", project.path, "--json", tmp_path / "k.json",
                    "--disputed", tmp_path / "list.csv")  # fmt: skip
    assert "own answer: 2 judged by Ada, Ben, from 1 patients" in said.out
    assert "undefined (Ben has tumor throughout)" in said.out
    assert "readers differ on 1; 1 have no majority" in said.out
    assert json.loads((tmp_path / "k.json").read_text("utf-8"))["figures"][0]["value"] is None
    (row,) = csv.DictReader((tmp_path / "list.csv").read_text("utf-8").splitlines())
    assert (row["case"], row["Ada"], row["Ben"]) == ("1.tiff", "normal", "tumor")
    said = histomil("review", "changes", project.path)
    assert "Ada: 1 of 2 changed, 1 to the model's answer, 0 away from it" in said.out
    assert "Ben: 1 of 2 changed, 0 to the model's answer, 1 away from it" in said.out
    assert ["normal", "0", "1"] in [line.split() for line in said.out.splitlines()]


def test_viewing_time_is_exported(histomil, project, tmp_path):
    with open_slide(project.cases[0].slide) as slide:
        fingerprint = slide.info.fingerprint
    view = View(
        "0.tiff", fingerprint, (0.0, 0.0), (100.0, 100.0), 1.0, 3.0, "2026-01-02T03:04:05Z"
    )
    with ViewingLog(folder_of(project), "Ada") as log:
        log.add(view)
    said = histomil("review", "viewing", project.path, "-o", tmp_path / "s.json")
    assert said.out == "Ada: 3 s, 1 inspect and 0 peek steps\n"
    said = histomil("review", "viewing", project.path, "--case", "0.tiff", "--at-least", 10,
                    "-o", tmp_path / "s.geojson")  # fmt: skip
    assert said.code == 0
    assert "tissue" in said.out
    assert json.loads((tmp_path / "s.geojson").read_text("utf-8"))["features"]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("list", "{}", "--where", "error >"), "is no filter"),
        (("list", "{}", "--sort", "size"), "not by 'size'"),
        (("agreement", "{}"), "Agreement needs two readers or more; nobody answered"),
        (("agreement", "{}", "--question", "x"), "asks nothing called 'x'"),
        (("viewing", "{}"), "Nothing of cohort.review.json was recorded"),
        (("setup", "{}", "--rule", "best"), "is no rule"),
        (("setup", "{}", "--threshold", "2"), "between 0 and 1"),
        (("list", "none.csv"), "does not exist"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_sentence(histomil, project, words, complaint):
    said = histomil("review", *(word.format(project.path) for word in words))
    assert said.code == 2
    assert complaint in said.complaint
