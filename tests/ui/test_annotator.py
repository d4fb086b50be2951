"""The state of annotating in one viewer: steps, selection, classes, keepers of slides."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
from napari.components import ViewerModel
from shapely.geometry import box

from napari_histomil.annotations import commands, recovery
from napari_histomil.annotations.geojson import read_geojson
from napari_histomil.annotations.keeping import open_annotations
from napari_histomil.annotations.model import AnnotationClass, Region
from napari_histomil.journal import Journal
from napari_histomil.resources import sidecar
from napari_histomil.ui import annotator as annotator_module
from napari_histomil.ui import slide_keepers
from napari_histomil.ui.annotator import annotator
from napari_histomil.ui.session import session

WHITE = np.full((800, 1000, 3), 255, np.uint8)


@pytest.fixture
def viewer(qapp):
    viewer = ViewerModel()
    yield viewer
    annotator(viewer).close()
    viewer.layers.clear()


@pytest.fixture
def shown(monkeypatch):
    """What would have been shown in dialogs."""
    errors = []
    monkeypatch.setattr(
        annotator_module, "show_error", lambda error, parent=None, info=None: errors.append(error)
    )
    return errors


@pytest.fixture
def told(monkeypatch):
    """What would have been shown as notifications."""
    sentences = []
    monkeypatch.setattr(annotator_module, "show_info", sentences.append)
    return sentences


def draw(state, *boxes, name=None):
    kind = None if name is None else state.classes.named(name)
    regions = [Region(box(*each), kind) for each in boxes]
    assert state.do(commands.add(regions, state.stamp()))
    return [region.id for region in regions]


def test_steps_are_in_the_journal_and_the_file_when_the_slide_is_closed(viewer, write_slide):
    path = write_slide(WHITE)
    slide = session(viewer).open_slide(path)
    state = annotator(viewer)
    (first,) = draw(state, (10, 10, 50, 60), name="Tumor")
    draw(state, (100, 100, 150, 160))
    state.undo()
    assert [region.id for region in state.regions] == [first]
    fingerprint = slide.info.fingerprint
    session(viewer).close_slide(slide)
    assert state.slide is None
    assert state.regions is None
    kept = read_geojson(sidecar(path, fingerprint) / "annotations.geojson").regions
    assert [(region.id, region.class_name, region.geometry.area) for region in kept] == [
        (first, "Tumor", 2000)
    ]
    session(viewer).open_slide(path)
    assert [region.id for region in state.regions] == [first]
    assert state.redo() is not None  # of an earlier day


def test_a_locked_region_is_refused_with_a_dialog_and_stays(viewer, write_slide, shown):
    session(viewer).open_slide(write_slide(WHITE))
    state = annotator(viewer)
    ids = draw(state, (10, 10, 50, 60))
    state.attempt(lambda regions: commands.set_locked(regions, ids, True, state.stamp()))
    state.select(ids)
    assert not state.delete_selected()
    assert "locked" in str(shown[0])
    assert ids[0] in state.regions


def test_a_second_window_is_told_once_and_can_look(viewer, write_slide, told, shown):
    path = write_slide(WHITE)
    session(viewer).open_slide(path)
    ids = draw(annotator(viewer), (10, 10, 50, 60))
    other = ViewerModel()
    session(other).open_slide(path)
    state = annotator(other)
    assert [region.id for region in state.regions] == ids
    assert state.regions is not None
    assert len(told) == 1
    assert "can be looked at, not changed" in told[0]
    assert not state.attempt(lambda regions: commands.delete(regions, ids))
    assert len(shown) == 1
    other.layers.clear()


def test_changes_are_told_once_a_turn(viewer, write_slide, qtbot):
    session(viewer).open_slide(write_slide(WHITE))
    state = annotator(viewer)
    assert len(state.regions) == 0
    qtbot.wait(5)
    heard, steps = [], []

    def listen():
        heard.append(len(state.regions or ()))

    state.changed.connect(listen)
    state.stepped.connect(steps.append)
    for n in range(5):
        draw(state, (n, n, n + 5, n + 5))
    assert heard == []
    qtbot.waitUntil(lambda: bool(heard))
    assert heard == [5]
    assert len(steps) == 5
    state.changed.disconnect(listen)


def test_a_selection_loses_what_is_deleted_and_walks_in_the_list_s_order(viewer, write_slide):
    session(viewer).open_slide(write_slide(WHITE))
    state = annotator(viewer)
    a, b, c = draw(state, (0, 0, 9, 9), (500, 400, 600, 500), (900, 700, 950, 750))
    state.step(1)
    assert state.selected == {a}
    state.step(1)
    assert state.selected == {b}
    state.order = lambda: [c, b, a]
    state.step(-1)
    assert state.selected == {c}
    center = np.array(viewer.scene.camera.center[-2:])
    assert center == pytest.approx((725 * 0.5, 925 * 0.5))  # µm, (row, col)
    state.step(-1)
    assert state.selected == {a}
    state.select([a, b])
    state.attempt(lambda regions: commands.delete(regions, [a]))
    assert state.selected == {b}


def test_a_key_s_class_is_for_what_is_selected_but_not_for_what_was_just_drawn(
    viewer, write_slide
):
    session(viewer).open_slide(write_slide(WHITE))
    state = annotator(viewer)
    (tumor,) = draw(state, (0, 0, 9, 9), name="Tumor")
    (bare,) = draw(state, (20, 20, 29, 29))
    state.set_tool("polygon")
    state.select([tumor, bare])
    state.set_class("Stroma", apply=True)
    names = {region.id: region.class_name for region in state.regions}
    assert names == {tumor: "Tumor", bare: "Stroma"}
    state.set_tool("select")
    state.set_class("Stroma", apply=True)
    assert {region.class_name for region in state.regions} == {"Stroma"}


def test_classes_of_the_file_join_those_of_the_list(viewer, write_slide):
    path = write_slide(WHITE)
    session(viewer).open_slide(path)
    state = annotator(viewer)
    mine = AnnotationClass("Mitosis", (1, 2, 3))
    state.do(commands.add([Region(box(0, 0, 5, 5), mine)], state.stamp()))
    state.close()
    assert "Mitosis" not in [each.name for each in state.classes.classes]
    assert len(state.regions) == 1
    assert state.classes.named("Mitosis").color == (1, 2, 3)


def test_it_goes_with_its_viewer(write_slide, qapp):
    viewer = ViewerModel()
    session(viewer).open_slide(write_slide(WHITE))
    state = weakref.ref(annotator(viewer))
    assert len(state().regions) == 0
    viewer.layers.clear()
    del viewer
    gc.collect()
    qapp.processEvents()
    gc.collect()
    assert state() is None


@pytest.fixture
def drawn_much(viewer, write_slide, monkeypatch):
    """A slide with regions of an earlier day, which count as many."""
    path = write_slide(WHITE)
    slide = session(viewer).open_slide(path)
    draw(annotator(viewer), (10, 10, 60, 60), (100, 100, 160, 160))
    session(viewer).close_slide(slide)
    monkeypatch.setattr(slide_keepers, "LARGE_BYTES", 0)
    return path


def test_many_regions_are_read_by_a_thread_and_nothing_is_drawn_meanwhile(
    viewer, drawn_much, qtbot, told
):
    session(viewer).open_slide(drawn_much)
    state = annotator(viewer)
    assert state.keeper is None
    assert state.is_reading
    assert len(state.regions) == 0
    assert not state.do(commands.add([Region(box(0, 0, 9, 9))], state.stamp()))
    assert told == ["The annotations are still being read: wait a moment."]
    heard = []
    state.slide_changed.connect(lambda: heard.append(list(state.regions or ())))
    qtbot.waitUntil(lambda: not state.is_reading, timeout=10_000)
    assert [len(regions) for regions in heard] == [2]
    (added,) = draw(state, (0, 0, 9, 9))
    assert added in state.regions
    assert len(state.regions) == 3


def test_a_slide_that_is_closed_while_its_regions_are_read_lets_go_of_them(
    viewer, drawn_much, qtbot
):
    slide = session(viewer).open_slide(drawn_much)
    state = annotator(viewer)
    assert state.keeper is None
    info = slide.info
    session(viewer).close_slide(slide)
    assert not state.is_reading

    def is_free() -> bool:
        keeper = open_annotations(info)
        free, found = keeper.why_read_only is None, len(keeper.annotations)
        keeper.close()
        return free and found == 2

    qtbot.waitUntil(is_free, timeout=10_000)


def test_many_regions_that_cannot_be_read_are_said_once(viewer, drawn_much, qtbot, shown):
    info = session(viewer).open_slide(drawn_much).info
    session(viewer).close_slide(session(viewer).slides[0])
    journal = sidecar(info.path, info.fingerprint) / "annotations.journal"
    journal.unlink()
    Journal(journal, recovery.OF, recovery.SCHEMA_VERSION + 1).close()
    session(viewer).open_slide(drawn_much)
    state = annotator(viewer)
    assert state.keeper is None
    qtbot.waitUntil(lambda: not state.is_reading, timeout=10_000)
    assert len(shown) == 1
    assert state.keeper is None
    assert not state.is_reading
