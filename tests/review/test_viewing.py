"""Viewing time: the record, steps, what was seen of the tissue, files."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from napari_histomil.annotations.geojson import read_geojson
from napari_histomil.annotations.model import SlideFrame
from napari_histomil.errors import JournalError, ReviewError
from napari_histomil.journal import read_log
from napari_histomil.review import viewing
from napari_histomil.review.project import Case, Project
from napari_histomil.review.viewing import (
    View,
    ViewingLog,
    coverage_of,
    folder_of,
    nearest_power,
    read_views,
    steps_of,
    write_steps_geojson,
    write_steps_json,
)
from napari_histomil.slides.readers import open_slide
from napari_histomil.tissue import TissueMask
from tests.review.review_cases import write_slide

VIEW = View("c0", "f" * 64, (0.0, 0.0), (100.0, 100.0), 1.0, 1.5, "2026-01-02T03:04:05Z")


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path / "x.review.json", (Case("c0", tmp_path / "a.svs", "p"),))


def test_the_record_begins_with_consent_and_is_read_again(project):
    with ViewingLog(folder_of(project), "Ada") as log:
        log.add(VIEW)
        log.add(replace(VIEW, case="c1", overlay=True))
    with ViewingLog(folder_of(project), "Ben") as log:
        log.add(VIEW)
    assert read_views(project) == {
        "Ada": [VIEW, replace(VIEW, case="c1", overlay=True)],
        "Ben": [VIEW],
    }
    assert list(read_views(project, "Ben")) == ["Ben"]
    (path,) = folder_of(project).glob("ada*.journal")
    first = read_log(path, "viewing", 1).entries[0]
    assert first.kind == "consent"
    assert "not gaze" in first.data()["to"]


def test_a_line_that_is_no_view_is_refused(project):
    with ViewingLog(folder_of(project), "Ada") as log:
        log._journal.append("view", {"case": "c0"})
    with pytest.raises(JournalError, match="no view"):
        read_views(project)


@pytest.mark.parametrize(
    ("power", "nearest"), [(20, 20), (13, 10), (15, 20), (0.3, 1.25), (80, 40), (7.1, 10)]
)
def test_a_magnification_counts_as_the_nearest_by_ratio(power, nearest):
    assert nearest_power(power) == nearest


def test_views_of_about_the_same_are_one_step():
    far = replace(VIEW, xy_px0=(500.0, 0.0), seconds=0.5)
    views = [
        VIEW,
        replace(VIEW, xy_px0=(20.0, 0.0), seconds=1.0),  # shares 2/3
        far,
        replace(far, um_per_px=0.5, size_px0=(90.0, 90.0), seconds=3.0),  # at 20x
        replace(far, um_per_px=0.5, case="c1", seconds=1.9),
    ]
    steps = steps_of(views)
    assert [(s.kind, s.power, s.seconds, s.case) for s in steps] == [
        ("inspect", 10, 2.5, "c0"),
        ("peek", 10, 0.5, "c0"),
        ("inspect", 20, 3.0, "c0"),
        ("peek", 20, 1.9, "c1"),
    ]
    assert (steps[0].rect_px0.width_px0, steps[0].rect_px0.height_px0) == (120, 100)
    assert steps_of([]) == []


def test_coverage_counts_tissue_at_a_magnification_or_a_higher_one():
    mask = np.zeros((4, 10), bool)
    mask[:2] = True
    tissue = TissueMask(mask, (50.0, 50.0), "brightfield")  # 500 x 200 px, tissue above
    views = [
        replace(VIEW, xy_px0=(0.0, 0.0), size_px0=(250.0, 200.0), um_per_px=1.0, seconds=2.0),
        replace(VIEW, xy_px0=(250.0, 0.0), size_px0=(250.0, 200.0), um_per_px=4.0, seconds=9.0),
        replace(VIEW, xy_px0=(450.0, 0.0), size_px0=(50.0, 50.0), um_per_px=0.5, seconds=0.4),
    ]
    found = coverage_of(views, tissue, (0.5, 0.5), 10)
    assert found.share == pytest.approx(0.5)
    assert found.sentence == "50% of the tissue was never seen at 10x or more."
    assert found.seconds[0, 9] == pytest.approx(0.4), "too short to count as seen"
    assert coverage_of(views, tissue, (0.5, 0.5), 2.5).share == 1
    assert found.density[0, 0] == pytest.approx(2 / (125 * 100 * 1e-6))
    assert found.density[0, 9] == pytest.approx(9 / (125 * 100 * 1e-6) + 0.4 / (25 * 25 * 1e-6))
    nothing = coverage_of(views, TissueMask(~mask & False, (50.0, 50.0), ""), (0.5, 0.5), 10)
    assert nothing.sentence == "No tissue was found."
    outside = replace(VIEW, xy_px0=(-500.0, -500.0), size_px0=(100.0, 100.0))
    assert coverage_of([outside], tissue, (0.5, 0.5), 1).share == 0


def test_steps_are_written_as_json_and_as_qupaths_geojson(tmp_path, project):
    with open_slide(write_slide(tmp_path / "a.tiff")) as slide:
        info = slide.info
    views = [replace(VIEW, slide=info.fingerprint), replace(VIEW, xy_px0=(300.0, 0.0))]
    write_steps_geojson(tmp_path / "steps.geojson", views, info, "Ada")
    (region,) = read_geojson(tmp_path / "steps.geojson", frame=SlideFrame.of(info)).regions
    assert region.class_name == "peek 10x"
    assert region.geometry.bounds == (0, 0, 100, 100)
    assert region.measurements["seconds"] == 1.5
    assert region.author == "Ada"
    with pytest.raises(ReviewError, match="viewed nothing"):
        write_steps_geojson(tmp_path / "none.geojson", views[1:], info, "Ada")
    write_steps_json(tmp_path / "steps.json", {"Ada": views})
    document = json.loads((tmp_path / "steps.json").read_text("utf-8"))
    assert document["what"] == "viewing time, not gaze"
    assert [s["kind"] for s in document["readers"]["Ada"]["steps"]] == ["peek", "peek"]
    assert document["inspect_seconds"] == viewing.INSPECT_S
