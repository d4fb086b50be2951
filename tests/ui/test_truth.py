"""Against the truth: a run beside its truth, a slider that moves all of it, a second model."""

from __future__ import annotations

import numpy as np
import pytest
from napari.components import ViewerModel
from shapely.geometry import box

from napari_histomil.annotations import commands
from napari_histomil.annotations.geojson import write_geojson
from napari_histomil.annotations.model import Region, SlideFrame, class_named
from napari_histomil.slides.readers import open_slide
from napari_histomil.ui.annotator import annotator
from napari_histomil.ui.camera import magnification
from napari_histomil.ui.layers import center_of_view_px0
from napari_histomil.ui.overlays import overlays
from napari_histomil.ui.review_layers import OUTCOMES
from napari_histomil.ui.session import session
from napari_histomil.ui.widgets.truth import AgainstTruth

TUMOR, WHERE = class_named("Tumor"), class_named("Region*")


@pytest.fixture
def slide_path(write_slide, checkered):
    return write_slide(checkered)


@pytest.fixture
def stored(slide_path, make_run):
    """Cells of 64 px; random scores; the first column of cells is missing."""
    with open_slide(slide_path) as slide:
        return make_run(slide.info)


@pytest.fixture
def viewer(slide_path, stored):
    viewer = ViewerModel()
    session(viewer).open_slide(slide_path)
    overlays(viewer).add(stored)
    yield viewer
    annotator(viewer).close()


@pytest.fixture
def fold(viewer, qtbot):
    widget = AgainstTruth(viewer)
    qtbot.addWidget(widget)
    widget.show()
    return widget


@pytest.fixture
def truth_file(tmp_path, viewer):
    info = session(viewer).active.info
    path = tmp_path / "truth.geojson"
    regions = [Region(box(0, 0, 1280, 960), WHERE), Region(box(256, 256, 768, 512), TUMOR)]
    write_geojson(path, regions, frame=SlideFrame.of(info))
    return path


def scored(fold, path, qtbot):
    fold.use("annotations", path)
    qtbot.waitUntil(lambda: fold.outcome is not None and fold.score_button.isEnabled())


def test_matrix_scores_and_map_are_those_of_the_threshold(fold, stored, truth_file, viewer, qtbot):
    assert not fold.answer.isVisible()
    scored(fold, truth_file, qtbot)
    cells = stored.grid.cells
    judged = (cells[:, 1] < 20) & (cells[:, 0] < 15)
    is_so = (
        judged & (cells[:, 1] >= 4) & (cells[:, 1] < 12) & (cells[:, 0] >= 4) & (cells[:, 0] < 8)
    )
    for threshold in (0.5, 0.8):
        fold.threshold.spin.setValue(threshold)
        called = stored.scores[:, 1] >= threshold
        expected = {
            "tp": (is_so & called).sum(),
            "fn": (is_so & ~called).sum(),
            "fp": (judged & ~is_so & called).sum(),
            "tn": (judged & ~is_so & ~called).sum(),
        }
        assert {name: int(label.text()) for name, label in fold.matrix.items()} == expected
        recall = expected["tp"] / is_so.sum()
        assert fold.figures["recall"].text() == f"{recall:.3f}"
        image = fold.map.layer.data
        assert [(image == code).sum() for code in (1, 2, 3, 4)] == [
            expected[name] for name in ("tp", "fp", "fn", "tn")
        ]
    assert fold.map.layer.visible
    assert not overlays(viewer).current.layer.visible
    assert "inside Region*" in fold.words.text()
    assert "0.307 mm² judged" in fold.areas.text()
    colours = fold.map.layer.colormap.map(np.array([1, 2, 3, 4]) / 4)
    assert [tuple(np.rint(255 * c[:3]).astype(int)) for c in colours] == [
        c[:3] for _, c, _ in OUTCOMES
    ]


def test_levels_and_operating_points(fold, truth_file, qtbot):
    scored(fold, truth_file, qtbot)
    names = [fold.level_box.itemData(n) for n in range(fold.level_box.count())]
    assert names == ["tiles", "tiles without mixed", "pixels"]
    fold.level_box.setCurrentIndex(2)
    fold.level_box.activated.emit(2)
    assert fold.matrix["tp"].text().endswith("mm²")
    points = [
        fold.points_box.itemText(n).partition(":")[0] for n in range(fold.points_box.count())
    ]
    assert points[:2] == ["Operating points", "Youden"]
    fold.points_box.setCurrentIndex(1)
    fold.points_box.activated.emit(1)
    point = fold.points_box.itemData(1)
    assert fold.threshold.value == pytest.approx(point.threshold, abs=1e-3)
    assert fold.figures["recall"].text() == f"{point.sensitivity:.3f}"


def test_what_is_drawn_here_counts_as_it_is_now(fold, viewer, qtbot):
    fold.score()
    assert "Nothing is drawn on this slide yet" in fold.words.text()
    state = annotator(viewer)
    assert state.do(commands.add([Region(box(256, 256, 768, 512), TUMOR)], state.stamp()))
    fold.score()
    qtbot.waitUntil(fold.score_button.isEnabled)
    assert "declare the slide fully annotated" in fold.words.text()
    assert fold.outcome is None
    fold.full_box.setChecked(True)
    fold.score()
    qtbot.waitUntil(lambda: fold.outcome is not None)
    assert "declared fully annotated" in fold.words.text()


def test_a_truth_without_the_class_says_so(fold, viewer, tmp_path, qtbot):
    path = tmp_path / "none.geojson"
    info = session(viewer).active.info
    regions = [Region(box(0, 0, 900, 900), WHERE), Region(box(0, 0, 9, 9), class_named("A")),
               Region(box(20, 0, 29, 9), class_named("B"))]  # fmt: skip
    write_geojson(path, regions, frame=SlideFrame.of(info))
    scored(fold, path, qtbot)
    assert "It has no tumor" in fold.words.text()
    assert fold.figures["recall"].text() == "–"
    assert fold.figures["recall"].toolTip() == "the truth has no positive"


def test_another_run_takes_the_map_away(fold, truth_file, viewer, make_run, qtbot):
    scored(fold, truth_file, qtbot)
    overlays(viewer).add(make_run(session(viewer).active.info, "1" * 16, seed=1))
    assert fold.outcome is None
    assert not fold.map.layer.visible
    assert not fold.answer.isVisible()


def test_a_second_model_is_mapped_and_listed(fold, truth_file, viewer, make_run, stored, qtbot):
    other = make_run(session(viewer).active.info, "1" * 16, seed=1)
    scored(fold, truth_file, qtbot)
    second = fold.second
    second.open(other.path)
    qtbot.waitUntil(lambda: second.compared is not None)
    np.testing.assert_allclose(
        second.compared.difference, stored.scores[:, 1].astype(float) - other.scores[:, 1]
    )
    one, two = stored.scores[:, 1] >= 0.5, other.scores[:, 1] >= 0.5
    assert f"both call {(one & two).sum()} positive" in second.words.text().replace("\u202f", "")
    assert second.map.layer.visible
    assert not fold.map_box.isChecked(), "one map at a time"
    assert not fold.map.layer.visible
    first = second.rows[0]
    assert second.tree.topLevelItem(0).text(2) in ("maker (0000000000000000)",
                                                  "maker (1111111111111111)", "")  # fmt: skip
    second.tree.setCurrentItem(second.tree.topLevelItem(0))
    info = session(viewer).active.info
    assert center_of_view_px0(viewer, info) == pytest.approx(first.xy_px0)
    assert magnification(viewer) == pytest.approx(20)
    fold.map_box.setChecked(True)
    assert not second.map.layer.visible


def test_without_a_run_it_says_what_to_do(slide_path, qtbot):
    viewer = ViewerModel()
    session(viewer).open_slide(slide_path)
    widget = AgainstTruth(viewer)
    qtbot.addWidget(widget)
    assert not widget.score_button.isEnabled()
    assert "Show a run over its slide first" in widget.words.text()
