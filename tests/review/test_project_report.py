"""A review project as cases to be scored, and what its readers did as tables."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from shapely.geometry import box

from napari_histomil.annotations.geojson import write_geojson
from napari_histomil.annotations.model import Region, SlideFrame, class_named
from napari_histomil.cli import main
from napari_histomil.errors import RunError
from napari_histomil.resources import sidecar
from napari_histomil.review import blind
from napari_histomil.review.project import Project, open_project
from napari_histomil.review.project_report import cases_of_project, reader_tables
from napari_histomil.review.truth_files import DRAWN_HERE
from napari_histomil.review.verdicts import VerdictLog
from napari_histomil.slides.readers import open_slide
from tests.review.review_cases import write_run, write_slide


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Three slides of two patients; on the first a lesion is drawn; the third has no run."""
    lines = ["slide,patient,label"]
    for n, score in enumerate((0.9, 0.2)):
        slide = write_slide(tmp_path / f"Doe{n}.tiff", 150 + 20 * n)
        write_run(slide, [score] + [score / 2] * 11)
        lines.append(f"{slide.name},Jane {n},{'normal' if n else 'tumor'}")
    write_slide(tmp_path / "Doe2.tiff", 200)
    lines.append("Doe2.tiff,Jane 1,normal")
    table = tmp_path / "cohort.csv"
    table.write_text("\n".join(lines), encoding="utf-8")
    with open_slide(tmp_path / "Doe0.tiff") as slide:
        info = slide.info
    regions = [
        Region(box(0, 0, info.width_px0, info.height_px0), class_named("Region*")),
        Region(box(0, 0, 64, 64), class_named("Tumor")),
    ]
    folder = sidecar(info.path, info.fingerprint)
    write_geojson(folder / "annotations.geojson", regions, frame=SlideFrame.of(info))
    return open_project(table)


def test_cases_are_scored_by_label_and_by_what_is_drawn(project: Project) -> None:
    cases, question, notes = cases_of_project(project)
    assert [(c.patient, c.label, c.annotations) for c in cases] == [
        ("Jane 0", "tumor", DRAWN_HERE), ("Jane 1", "normal", ""),
    ]  # fmt: skip
    assert (question.positive, question.threshold) == ("tumor", project.threshold)
    assert notes == ["Case 3 is left out: no model has answered for it."]


def test_a_report_of_a_project_holds_the_matrix_of_changed_answers(
    project: Project, tmp_path: Path
) -> None:
    for reader, answers in (("Ada", ("normal", "normal")), ("Bo", ("tumor", "normal"))):
        with VerdictLog.open(project.verdicts, reader=reader) as log:
            for case, own in zip(project.cases[:2], answers, strict=True):
                blind.lock(log, project, case.name, own, 3)
                blind.reveal(log, project, case.name, "tumor", "run")
            blind.decide(log, project, project.cases[0].name, "tumor")
    tables = reader_tables(project)
    changed = next(t for t in tables if t.title == "Changed answers, R1")
    assert changed.rows == [["own: normal", "1", "1"], ["own: tumor", "0", "0"]]
    assert "1 of 2 answers changed" in changed.note
    agreement = next(t for t in tables if t.title == "Agreement of readers, own answer")
    assert agreement.rows[0][0] == "Cohen's kappa, R1 and R2"
    out = tmp_path / "r.html"
    words = ["report", str(project.path), "-o", str(out), "--bootstraps", "5"]
    assert main(words) == 0
    text = re.sub(r"data:image/[^\"]*", "", out.read_text(encoding="utf-8"))
    for name in ("Jane", "Doe", "Ada"):
        assert name not in text
    assert "<td>own: normal</td><td>1</td><td>1</td>" in text
    document = json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))
    assert document["levels"]["slides"]["cases"] == 2
    assert "tiles" in document["levels"]
    assert any(t.title == "Changed answers, Ada" for t in reader_tables(project, names=True))


def test_a_project_without_answers_is_refused(tmp_path: Path) -> None:
    write_slide(tmp_path / "a.tiff", 200)
    with pytest.raises(RunError, match="No model has answered"):
        cases_of_project(open_project(tmp_path))
