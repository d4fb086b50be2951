"""Review projects: begun from a folder or a table, saved whole, read again wherever they lie."""

from __future__ import annotations

import json
import shutil

import pytest

from napari_histomil.errors import OutputError, ReviewError
from napari_histomil.review.project import (
    Case,
    Project,
    cases_of_folder,
    cases_of_table,
    open_project,
    read_project,
    write_project,
)


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_a_folder_of_a_folder_is_a_patient(tmp_path):
    touch(tmp_path, "b.svs", "a.tiff", "p1/x.ndpi", "p1/y.svs", "notes.txt", ".c.svs")
    touch(tmp_path, "a.tiff.histomil/overview.tiff")
    cases = cases_of_folder(tmp_path)
    assert [(c.name, c.patient) for c in cases] == [
        ("a.tiff", "a.tiff"),
        ("b.svs", "b.svs"),
        ("p1/x.ndpi", "p1"),
        ("p1/y.svs", "p1"),
    ]
    assert cases[2].slide == tmp_path / "p1" / "x.ndpi"


def test_a_table_names_slides_patients_labels_and_facts(tmp_path):
    table = tmp_path / "cohort.csv"
    table.write_text(
        "slide,patient,label,scanner\na/1.svs,P1,tumor,X\nb/1.svs,P1,normal,\nc.svs,,,Y\n", "utf-8"
    )
    one, two, three = cases_of_table(table)
    assert one == Case("a/1.svs", tmp_path / "a/1.svs", "P1", "tumor", {"scanner": "X"})
    assert two.name == "b/1.svs", "two slides have one name: the paths tell them apart"
    assert (three.name, three.patient, three.label) == ("c.svs", "c.svs", "")
    assert three.facts == {"scanner": "Y"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("slide\n", "names no slide"),
        ("file\na.svs\n", "has no column slide; it has file"),
        ("slide,label\n,x\n", "line 2 names no slide"),
        ("slide,label\na\n", "line 2 has not as many fields"),
        ("slide,case\na.svs,x\nb.svs,x\n", "Two cases are called 'x'"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(tmp_path, text, words):
    table = tmp_path / "cohort.csv"
    table.write_text(text, "utf-8")
    with pytest.raises(ReviewError, match=words):
        open_project(table)
    assert list(tmp_path.iterdir()) == [table], "nothing is left behind"


def test_what_was_begun_is_opened_again_even_where_it_was_moved(tmp_path):
    first = tmp_path / "first"
    touch(first, "slides/a.svs", "slides/p/b.svs")
    project = open_project(first / "slides")
    assert project.path == first / "slides" / "slides.review.json"
    changed = Project(
        project.path, project.cases, models=("m",), blind=True, seed=7, positive="tumor",
        results=first / "out", answers=("no", "yes"),
    )  # fmt: skip
    write_project(changed)
    assert open_project(first / "slides") == changed
    shutil.move(first, tmp_path / "second")
    moved = read_project(tmp_path / "second" / "slides" / "slides.review.json")
    assert moved.cases[0].slide == tmp_path / "second" / "slides" / "a.svs"
    assert moved.results == tmp_path / "second" / "out"
    assert moved.form == changed.form
    assert moved.verdicts == tmp_path / "second" / "slides" / "slides.verdicts"


def test_a_table_keeps_its_project_beside_it(tmp_path):
    (tmp_path / "cohort.csv").write_text("slide\na.svs\n", "utf-8")
    assert open_project(tmp_path / "cohort.csv").path == tmp_path / "cohort.review.json"
    other = tmp_path / "mine.review.json"
    assert open_project(tmp_path / "cohort.csv", path=other).path == other


def test_possible_answers_end_with_the_positive_one(tmp_path):
    def answers(*labels, **settings):
        cases = tuple(Case(str(n), tmp_path, "p", label) for n, label in enumerate(labels))
        return Project(tmp_path / "x.review.json", cases, **settings).possible_answers

    assert answers("", "") == ("negative", "positive")
    assert answers("b", "a", "") == ("a", "b")
    assert answers("benign", "cancer", positive="benign") == ("cancer", "benign")
    assert answers("a", answers=("x", "y", "z")) == ("x", "y", "z")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"cases": ()}, "at least one slide"),
        ({"threshold": 1.5}, "between 0 and 1"),
        ({"rule": "best"}, "'best' is no rule"),
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path, settings, words):
    case = Case("a", tmp_path, "p")
    with pytest.raises(ReviewError, match=words):
        Project(**({"path": tmp_path, "cases": (case,)} | settings))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kind": "other"}, "is no review project"),
        ({"schema_version": 99}, "newer version"),
        ({"cases": [{"name": "a"}]}, "damaged review project: it lacks 'slide'"),
        ({"form": {}}, "damaged review project"),
        ({"threshold": "high"}, "damaged review project"),
    ],
)
def test_a_file_that_is_no_project_is_refused(tmp_path, change, words):
    touch(tmp_path, "a.svs")
    path = open_project(tmp_path).path
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | change), "utf-8")
    with pytest.raises(ReviewError, match=words):
        read_project(path)


def test_files_that_are_not_there_or_not_json_are_refused(tmp_path):
    with pytest.raises(ReviewError, match="does not exist"):
        open_project(tmp_path / "none")
    with pytest.raises(ReviewError, match="cannot be read"):
        read_project(tmp_path / "none.review.json")
    with pytest.raises(ReviewError, match="no slide"):
        open_project(tmp_path)
    touch(tmp_path, "a.svs")
    with pytest.raises(OutputError, match="does not exist"):
        open_project(tmp_path, path=tmp_path / "none" / "a.review.json")
