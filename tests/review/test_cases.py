"""The table of cases: what stored runs answered, what was judged, order, filters, blindness."""

from __future__ import annotations

import math
import os
from dataclasses import replace

import pytest

from napari_histomil.errors import ReviewError, SlideError
from napari_histomil.review import blind
from napari_histomil.review.cases import blind_order, filtered, ordered, row_of, rows_of
from napari_histomil.review.predictions import Prediction, class_of_label, error_of, facts_of
from napari_histomil.review.project import Case, Project
from napari_histomil.review.verdicts import Place, Verdict, VerdictLog
from tests.review.review_cases import write_mil, write_run, write_slide

TILE_MM2 = 0.064**2


def prediction(*probabilities, classes=("normal", "tumor"), target=1):
    return Prediction("m", None, "r", classes, probabilities, target)


@pytest.fixture
def cohort(tmp_path):
    """Three slides: two of one patient, with runs of two models; the third has none."""
    slides = [write_slide(tmp_path / f"{n}.tiff", 100 + n) for n in range(3)]
    write_run(slides[0], [0.9] * 2 + [0.1] * 10)
    write_run(slides[1], 0.2)
    write_mil(slides[0], [[0.4, 0.6], [0.2, 0.8]])
    cases = tuple(
        Case(f"c{n}", slide, f"P{n // 2}", label, {"site": "AB"[n % 2]})
        for n, (slide, label) in enumerate(zip(slides, ("tumor", "tumor", ""), strict=True))
    )
    return Project(tmp_path / "x.review.json", cases, models=("tiles", "bags"), rule="top2")


@pytest.fixture
def facts(cohort):
    return {case.name: facts_of(case.slide, cohort) for case in cohort.cases}


@pytest.fixture
def log(cohort):
    with VerdictLog.open(cohort.verdicts, reader="Ada") as log:
        yield log


def test_tiles_answer_by_the_rule_and_mil_models_by_themselves(facts):
    tiles, bags = facts["c0"].predictions
    assert tiles.p == pytest.approx(0.9)
    assert tiles.classes == ("normal", "tumor")
    assert tiles.area_mm2 == pytest.approx(2 * TILE_MM2)
    assert tiles.how == "top2"
    assert bags.p == pytest.approx(0.7)
    assert bags.spread == pytest.approx(0.1 * math.sqrt(2))
    assert bags.area_mm2 is None
    assert [p.model for p in facts["c1"].predictions] == ["tiles"]
    assert facts["c2"].predictions == ()


def test_only_named_models_are_taken_and_the_first_is_the_main_one(cohort):
    slide = cohort.cases[0].slide
    assert [p.model for p in facts_of(slide, cohort).predictions] == ["tiles", "bags"]
    assert [p.model for p in facts_of(slide, replace(cohort, models=("bags",))).predictions] == [
        "bags"
    ]
    by_name = facts_of(slide, replace(cohort, models=()))
    assert [p.model for p in by_name.predictions] == ["bags", "tiles"]


def test_the_latest_run_of_a_model_counts(cohort):
    slide = cohort.cases[0].slide
    path = write_run(slide, 0.3, run_id="c" * 16)
    stat = (path / "zarr.json").stat()
    os.utime(path / "zarr.json", ns=(stat.st_atime_ns, stat.st_mtime_ns + 10**9))
    assert facts_of(slide, cohort).predictions[0].p == pytest.approx(0.3)


def test_a_run_that_cannot_be_used_is_named_and_the_others_count(cohort):
    slide = cohort.cases[0].slide
    path = write_run(slide, 0.3, model="broken", run_id="d" * 16)
    (path / "cells" / "zarr.json").write_text("{}")
    found = facts_of(slide, replace(cohort, models=()))
    assert [p.model for p in found.predictions] == ["bags", "tiles"]
    assert "is damaged" in found.notes[0]
    unknown = facts_of(slide, replace(cohort, target="nucleus"))
    assert unknown.predictions == ()
    assert "knows no class 'nucleus'" in " ".join(unknown.notes)


def test_labels_stand_for_classes_by_name_or_by_what_is_positive():
    two = prediction(0.3, 0.7)
    assert class_of_label("Tumor", two) == 1
    assert class_of_label("normal", two) == 0
    assert class_of_label("metastasis", two) is None
    assert class_of_label("metastasis", two, "Metastasis") == 1
    assert class_of_label("benign", two, "metastasis") == 0
    assert class_of_label("", two, "metastasis") is None
    three = prediction(0.2, 0.5, 0.3, classes=("a", "b", "c"))
    assert class_of_label("c", three) == 2
    assert class_of_label("x", three, "b") is None
    assert error_of("c", three) == pytest.approx(0.7)
    assert error_of("", three) is None


def test_uncertainty_is_entropy_as_a_share():
    assert prediction(0.5, 0.5).uncertainty == pytest.approx(1)
    assert prediction(0.0, 1.0).uncertainty == 0
    expected = -(0.9 * math.log(0.9) + 0.1 * math.log(0.1)) / math.log(2)
    assert prediction(0.1, 0.9).uncertainty == pytest.approx(expected)
    third = (1 / 3,) * 3
    assert prediction(*third, classes=("a", "b", "c")).uncertainty == pytest.approx(1)
    sigmoid = prediction(0.9, 0.9, 0.5, classes=("a", "b", "c"), target=2)
    assert sigmoid.uncertainty == pytest.approx(math.log(2) / math.log(3))


def test_of_two_classes_the_threshold_decides_else_the_likeliest():
    assert prediction(0.6, 0.4).predicted(0.3) == 1
    assert prediction(0.6, 0.4).predicted(0.5) == 0
    assert prediction(0.3, 0.3, 0.4, classes=("a", "b", "c")).predicted(0.2) == 2


def test_a_row_knows_what_models_answered_and_readers_judged(cohort, facts, log):
    place = Place("f" * 64, (0.0, 0.0), (10.0, 10.0))
    log.append(Verdict("c1", place, "missed", True), Verdict("c1", place, "tags", ("ink", "pen")))
    log.append(Verdict("c1", None, "case note", "look again"))
    zero, one, two = rows_of(cohort, log, facts)
    assert zero.values["error"] == pytest.approx(0.1)
    assert zero.values["right"] is True
    assert zero.values["status"] == "to do"
    assert one.values["error"] == pytest.approx(0.8)
    assert one.values["predicted"] == "normal"
    assert one.values["right"] is False
    assert one.values["status"] == "in work"
    assert (one.values["judged"], one.values["missed"]) == (1, 1)
    assert one.values["tags"] == ("ink", "pen")
    assert one.values["reader"] == "Ada"
    assert one.values["note"] == "look again"
    assert two.values["p"] is None
    assert row_of(cohort.cases[1], cohort, log, facts["c1"]) == one


def test_annotations_are_counted(cohort):
    from shapely import box

    from napari_histomil.annotations.commands import add
    from napari_histomil.annotations.keeping import open_annotations
    from napari_histomil.annotations.model import Region
    from napari_histomil.annotations.stamps import Stamp
    from napari_histomil.slides.readers import open_slide

    slide = cohort.cases[2].slide
    with open_slide(slide) as opened:
        keeper = open_annotations(opened.info, author="Ada")
    keeper.do(add([Region(box(0, 0, 9, 9)), Region(box(20, 0, 29, 9))], Stamp.now("Ada")))
    assert facts_of(slide, cohort).annotations == 2, "steps count that no file holds yet"
    keeper.close()
    assert facts_of(slide, cohort).annotations == 2


def test_a_slide_that_is_gone_is_an_error_of_its_own(cohort, log):
    with pytest.raises(SlideError):
        facts_of(cohort.path.with_name("gone.svs"), cohort)
    row = row_of(cohort.cases[0], cohort, log, problem="gone")
    assert row.problem == "gone"
    assert row.values["p"] is None


def test_the_failure_list_is_sorted_by_error_and_what_is_unknown_comes_last(cohort, facts, log):
    rows = rows_of(cohort, log, facts)
    assert [r.case.name for r in ordered(rows, "error", descending=True)] == ["c1", "c0", "c2"]
    assert [r.case.name for r in ordered(rows, "error")] == ["c0", "c1", "c2"]
    assert [r.case.name for r in ordered(rows, "case", descending=True)] == ["c2", "c1", "c0"]
    together = ordered(rows[::-1], "case", descending=True, patients=True)
    assert [r.case.patient for r in together] == ["P1", "P0", "P0"]
    with pytest.raises(ReviewError, match="not by 'size'"):
        ordered(rows, "size")


def test_rows_are_filtered_by_expression(cohort, facts, log):
    rows = rows_of(cohort, log, facts)

    def names(text):
        return [row.case.name for row in filtered(rows, text)]

    assert names("error > 0.5 and label == 'tumor'") == ["c1"]
    assert names("p['bags'] > 0.5") == ["c0"]
    assert names("fact['site'] == 'A'") == ["c0", "c2"]
    assert names("p == None") == ["c2"]
    assert names("") == ["c0", "c1", "c2"]


def test_before_the_own_answer_is_locked_nothing_tells_what_the_model_says(cohort, facts, log):
    project = replace(cohort, blind=True, answers=("normal", "tumor"))
    with VerdictLog.open(project.verdicts, reader="Ben") as other:
        other.append(Verdict("c0", None, "tags", ("necrosis",)))
    log.reload()
    rows = rows_of(project, log, facts)
    shown = [rows[0].values[name] for name in ("p", "p[]", "error", "label", "area_mm2", "tags")]
    assert shown == [None, None, None, None, None, ()]
    assert rows[0].predictions == ()
    assert rows[0].hidden
    assert [r.case.name for r in ordered(rows, "error", descending=True)] == ["c0", "c1", "c2"]
    assert filtered(rows, "p > 0.5 or error > 0.5") == []
    blind.lock(log, project, "c0", "tumor", 4)
    row = rows_of(project, log, facts)[0]
    assert row.values["p"] == pytest.approx(0.9)
    assert (row.values["own"], row.values["confidence"], row.values["final"]) == (
        "tumor",
        4,
        "tumor",
    )


def test_blind_reading_has_an_order_of_its_own(cohort):
    project = replace(cohort, cases=tuple(Case(f"c{n}", cohort.path, "p") for n in range(50)))
    ada = [case.name for case in blind_order(project, "Ada")]
    assert ada == blind.order(project, "Ada")
    assert ada != blind.order(project, "Ben")
    assert ada != blind.order(replace(project, seed=1), "Ada")
    fewer = replace(project, cases=project.cases[:30])
    kept = {case.name for case in fewer.cases}
    assert blind.order(fewer, "Ada") == [name for name in ada if name in kept]


def test_ten_thousand_cases_are_made_into_rows_in_one_pass(cohort, log, monkeypatch):
    cases = tuple(Case(f"c{n}", cohort.path, f"p{n}") for n in range(10_000))
    looks = []
    monkeypatch.setattr(log, "latest", lambda: looks.append(1) or [])
    assert len(rows_of(replace(cohort, cases=cases), log)) == 10_000
    assert len(looks) == 1
