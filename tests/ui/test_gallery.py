"""The gallery in a window: what is listed, flying, judging by key, corrections, lasso marks."""

from __future__ import annotations

import numpy as np
import pytest
from qtpy.QtCore import QEvent, Qt
from qtpy.QtGui import QKeyEvent

from napari_histomil.annotations.recovery import FILE_NAME
from napari_histomil.review.form import Choice as Possible
from napari_histomil.review.form import Form, Question
from napari_histomil.review.gallery import Choice
from napari_histomil.review.tile_scores import scores_of_run
from napari_histomil.review.verdicts import VerdictLog
from napari_histomil.ui.annotator import annotator
from napari_histomil.ui.gallery import FRAME_NAME, MARKS_NAME, gallery, place_of
from napari_histomil.ui.layers import center_of_view_px0
from napari_histomil.ui.overlays import overlays
from napari_histomil.ui.session import session
from napari_histomil.ui.widgets.gallery import GalleryPanel, key_text
from tests.ui.annotating import close_error, settle


@pytest.fixture
def room(make_napari_viewer, write_slide, make_run, tmp_path, qtbot):
    """A window with the panel and two slides of noise, each with a run."""
    viewer = make_napari_viewer(show=True, strict_qt="raise")
    viewer.window._qt_window.resize(1280, 800)
    panel = GalleryPanel(viewer)
    viewer.window.add_dock_widget(panel, name="Gallery", area="bottom")
    rng = np.random.default_rng(0)
    shown = session(viewer)
    for n, name in enumerate(("one.tiff", "two.tiff")):
        pixels = rng.integers(0, 255, (768 + 64 * n, 1024, 3)).astype(np.uint8)
        slide = shown.open_slide(write_slide(pixels, name))
        make_run(slide.info, seed=n)
    settle(qtbot)
    log = VerdictLog.open(tmp_path / "verdicts", reader="me")
    yield viewer, panel, log
    log.close()
    annotator(viewer).close()
    for slide in list(shown.slides):
        shown.close_slide(slide)
    settle(qtbot)


def take(viewer, panel, qtbot, kind="highest"):
    """Take what lies over the second slide, and the same model's over the first."""
    from napari_histomil.results import find_runs, open_run

    slide = session(viewer).active
    overlays(viewer).add(open_run(find_runs(slide.info)[0]))
    panel.kind_box.setCurrentText(kind)
    panel.slide_box.setValue(3)
    qtbot.mouseClick(panel.take_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: len(gallery(viewer).tiles) == 2, timeout=20_000)


def press(panel, key, modifier=Qt.KeyboardModifier.NoModifier, text=""):
    event = QKeyEvent(QEvent.Type.KeyPress, key, modifier, text)
    assert panel.eventFilter(panel.list, event)


def test_what_is_worth_a_look_of_all_open_slides_is_listed(room, qtbot):
    viewer, panel, _ = room
    take(viewer, panel, qtbot)
    shown = gallery(viewer)
    assert [each.slide.name for each in shown.patches].count("one.tiff") == 3
    scores = [each.score for each in shown.patches]
    assert scores == sorted(scores, reverse=True)
    assert [item.caption for item in panel.list.items] == [f"{s:.3g}" for s in scores]
    assert "6 highest" in panel.words.text()
    qtbot.waitUntil(panel.list.is_complete, timeout=20_000)
    panel.where_box.setCurrentText("this slide")
    panel.list_patches()
    assert {each.slide.name for each in shown.patches} == {"two.tiff"}
    panel.kind_box.setCurrentText("false positives")
    panel.list_patches()
    assert not shown.patches
    assert "choose a ground truth first" in panel.words.text()


def test_a_click_flies_to_the_place_with_the_result_over_it(room, qtbot):
    viewer, panel, _ = room
    take(viewer, panel, qtbot)
    shown, opened = gallery(viewer), session(viewer)
    n = next(n for n, each in enumerate(shown.patches) if each.slide.name == "one.tiff")
    patch = shown.patches[n]
    panel.list.went.emit(n)
    assert opened.active.name == "one.tiff"
    assert overlays(viewer).current.slide is opened.active
    assert overlays(viewer).current.layer.visible
    middle = np.array(patch.xy_px0) + np.array(patch.size_px0) / 2
    np.testing.assert_allclose(center_of_view_px0(viewer, opened.active.info), middle, atol=1)
    assert viewer.layers[FRAME_NAME].data.shape == (4, 2, 2)
    # a slide that was closed is opened again
    opened.close_slide(opened.active)
    panel.list.went.emit(n)
    assert opened.active.name == "one.tiff"
    assert overlays(viewer).current.slide is opened.active


def test_keys_judge_what_is_selected_and_the_thumbnail_shows_it(room, qtbot):
    viewer, panel, log = room
    take(viewer, panel, qtbot)
    shown = gallery(viewer)
    panel.list.select(0)
    press(panel, Qt.Key.Key_3)
    assert "No review is open" in close_error(qtbot)
    shown.review(log)
    press(panel, Qt.Key.Key_3)
    assert shown.answers(shown.patches[0]) == {"right": "wrong"}
    press(panel, Qt.Key.Key_1, Qt.KeyboardModifier.AltModifier)
    press(panel, Qt.Key.Key_9)
    badge = panel.list.badge_of(0)
    assert (badge.text, badge.colour) == ("wrong, fold, missed", "#d3302f")
    assert panel.list.badge_of(1) is None
    (first, *_) = log.latest()
    assert (first.case, first.place, first.model) == (
        shown.patches[0].slide.name, place_of(shown.patches[0]), "0" * 16,
    )  # fmt: skip
    # the same again takes it back; Ctrl+Z undoes a step
    press(panel, Qt.Key.Key_3)
    assert "right" not in shown.answers(shown.patches[0])
    press(panel, Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    assert shown.answers(shown.patches[0])["right"] == "wrong"
    # all of a selection in one step
    panel.list.selectAll()
    panel.tag_box.setText("germinal centre")
    panel.tag_box.returnPressed.emit()
    assert all(shown.answers(p)["tags"] == ("germinal centre",) for p in shown.patches)
    assert shown.take_back()
    assert not any("tags" in shown.answers(p) for p in shown.patches)
    assert "1 judged" in panel.words.text()


def test_a_form_of_the_project_is_asked(room, qtbot):
    viewer, panel, log = room
    take(viewer, panel, qtbot)
    shown = gallery(viewer)
    asked = Form((Question("grade", "scale", choices=(Possible("0", "0"), Possible("1", "1"))),))
    shown.review(log, asked, case_of=lambda patch: f"case {patch.slide.stem}")
    assert "<b>0</b> 0" in panel.keys.text()
    panel.list.select(1)
    press(panel, Qt.Key.Key_1)
    assert shown.answers(shown.patches[1]) == {"grade": 1}
    assert log.latest()[0].case == f"case {shown.patches[1].slide.stem}"
    event = QKeyEvent(QEvent.Type.KeyPress, Qt.Key.Key_3, Qt.KeyboardModifier.NoModifier)
    assert not panel.eventFilter(panel.list, event)  # no answer of this form


def test_corrections_become_regions_that_can_be_undone(room, qtbot):
    viewer, panel, _ = room
    take(viewer, panel, qtbot)
    shown, state = gallery(viewer), annotator(viewer)
    panel.list.selectAll()
    panel.class_box.setCurrentText("Tumor")
    press(panel, Qt.Key.Key_A)
    assert panel.words.text().startswith("3 drawn as Tumor; 3 are on other slides")
    own = [p for p in shown.patches if p.fingerprint == state.slide.info.fingerprint]
    drawn = [(region.class_name, region.geometry.bounds) for region in state.regions]
    expected = [
        ("Tumor", (*p.xy_px0, p.xy_px0[0] + p.size_px0[0], p.xy_px0[1] + p.size_px0[1]))
        for p in own
    ]
    assert sorted(drawn) == sorted(expected)
    state.undo()
    assert len(state.regions) == 0
    assert (state.keeper.folder / FILE_NAME).parent.is_dir()


def test_what_is_selected_is_framed_on_the_slide(room, qtbot):
    viewer, panel, _ = room
    take(viewer, panel, qtbot)
    panel.list.selectAll()
    assert viewer.layers[MARKS_NAME].data.shape == (3 * 4, 2, 2)  # those of this slide
    panel.list.clearSelection()
    assert MARKS_NAME not in viewer.layers


def test_groups_order_the_thumbnails(room, qtbot):
    viewer, panel, log = room
    take(viewer, panel, qtbot)
    gallery(viewer).review(log)
    panel.group_by_box.setCurrentText("by slide")
    panel.group_by_box.activated.emit(0)
    names = [panel.patch(n).slide.name for n in range(6)]
    assert names == sorted(names)
    assert panel.list.items[0].caption.endswith("one.tiff")
    panel.list.select(4)
    press(panel, Qt.Key.Key_2)
    panel.group_by_box.setCurrentText("by answer")
    panel.group_by_box.activated.emit(0)
    assert [item.caption.split("  ")[1] for item in panel.list.items] == [*"–––––", "partly"]
    panel.list.went.emit(5)
    assert gallery(viewer).answers(gallery(viewer).patches[gallery(viewer).current])


def test_ten_thousand_thumbnails_read_only_those_in_view(room, qtbot):
    viewer, panel, _ = room
    (slide, *_) = session(viewer).slides
    run = overlays(viewer).add(_stored(slide))
    tiles = scores_of_run(run.store)
    shown = gallery(viewer)
    shown.set_tiles([tiles])
    shown.choose(Choice("random", count=10_000, a_slide=None, group=False))
    shown.show(list(shown.patches) * (10_000 // len(shown.patches) + 1), "many")
    assert len(panel.list.items) >= 10_000
    seen = panel.list.in_view()
    assert 0 < len(seen) < 200
    qtbot.waitUntil(panel.list.is_complete, timeout=20_000)
    bar = panel.list.verticalScrollBar()
    bar.setValue(bar.maximum() // 2)
    assert panel.list.in_view().start > 1000
    bar.setValue(bar.maximum())
    assert panel.list.in_view().stop == len(panel.list.items)
    for n in (panel.list.in_view().start, len(panel.list.items) - 1):  # what Qt itself says
        rect = panel.list.visualRect(panel.list.model().index(n))
        assert rect.intersects(panel.list.viewport().rect())


def _stored(slide):
    from napari_histomil.results import find_runs, open_run

    return open_run(find_runs(slide.info)[0])


def test_keys_are_written_as_napari_writes_them():
    def text(key, held=Qt.KeyboardModifier.NoModifier):
        return key_text(QKeyEvent(QEvent.Type.KeyPress, key, held))

    assert text(Qt.Key.Key_7) == "7"
    assert text(Qt.Key.Key_T) == "T"
    assert text(Qt.Key.Key_2, Qt.KeyboardModifier.AltModifier) == "Alt-2"
    assert text(Qt.Key.Key_Left) == ""
