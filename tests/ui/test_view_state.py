"""A slide comes back as it was left: place, heatmaps, dock; and nothing disturbs that."""

from __future__ import annotations

import json
import os

import napari
import numpy as np
import pytest
from napari.components import ViewerModel
from qtpy.QtCore import QEvent
from qtpy.QtWidgets import QApplication

from napari_histomil.cli import main
from napari_histomil.resources import sidecar
from napari_histomil.slides.readers import open_slide
from napari_histomil.slides.remembered import remember_view
from napari_histomil.ui import camera
from napari_histomil.ui.layers import center_of_view_px0
from napari_histomil.ui.linked import linked
from napari_histomil.ui.orientation import Orientation, orientation_of, set_orientation
from napari_histomil.ui.overlays import overlays
from napari_histomil.ui.preferences import VIEWS_VARIABLE
from napari_histomil.ui.session import session
from napari_histomil.ui.view_keeper import view_keeper
from napari_histomil.ui.widgets.overlay import OverlayWidget
from napari_histomil.ui.widgets.slide import SlideWidget
from napari_histomil.ui.window import open_window


@pytest.fixture(autouse=True)
def views_are_kept(monkeypatch):
    monkeypatch.delenv(VIEWS_VARIABLE)


@pytest.fixture
def window(make_napari_viewer, monkeypatch, qtbot):
    """Open windows in a napari of the test's own, one after the other."""
    monkeypatch.setattr(napari, "Viewer", make_napari_viewer)

    def make(*args, **kwargs):
        viewer = open_window(*args, **kwargs)
        restored(viewer, qtbot)
        return viewer

    return make


def restored(viewer, qtbot):
    keeper = view_keeper(viewer)
    qtbot.waitUntil(lambda: not keeper.busy, timeout=10_000)
    qtbot.wait(50)


@pytest.fixture
def model(qtbot):
    """Open a slide in a viewer without a window, which is quick."""

    def make(path):
        viewer = ViewerModel()
        keeper = view_keeper(viewer)
        session(viewer).open_slide(path)
        restored(viewer, qtbot)
        made.append((viewer, keeper))
        return viewer

    made = []
    yield make
    for viewer, _ in made:
        viewer.layers.clear()


@pytest.fixture
def path(write_slide, checkered):
    return write_slide(checkered)


@pytest.fixture
def info(path):
    with open_slide(path) as slide:
        return slide.info


def kept(info):
    file = sidecar(info.path, info.fingerprint) / "view.json"
    return json.loads(file.read_text())["view"]


def test_a_slide_comes_back_as_it_was_left(window, qtbot, path, info, make_run):
    other, chosen = make_run(info, "1" * 16), make_run(info, "2" * 16, seed=3)
    viewer = window([path], runs=[other.path, chosen.path])
    run = overlays(viewer).current
    assert run.store.run_id == "2" * 16
    camera.set_magnification(viewer, 10)
    camera.go_to_px0(viewer, info, (512, 384))
    run.heatmap.class_index = 0
    run.heatmap.colours, run.heatmap.normalisation = "magma", "rank"
    run.heatmap.threshold = 0.25
    run.layer.opacity = 0.35
    viewer.window.dock_widgets["Overlay (napari-histomil)"].parentWidget().raise_()
    viewer.canvas.overlays.scale_bar.visible = False
    set_orientation(viewer, Orientation(1, True))
    qtbot.wait(50)
    view_keeper(viewer).save()
    assert kept(info)["center_px0"] == [512, 384]

    viewer = window([path])
    assert center_of_view_px0(viewer, info) == pytest.approx((512, 384), abs=0.01)
    assert camera.magnification(viewer) == pytest.approx(10)
    assert orientation_of(viewer) == Orientation(1, True)
    assert not viewer.canvas.overlays.scale_bar.visible
    (dock,) = [w for w in viewer.window.dock_widgets.values() if isinstance(w, SlideWidget)]
    assert not dock.navigation.scale_bar_box.isChecked()
    assert {each.store.run_id for each in session(viewer).runs} == {"1" * 16, "2" * 16}
    run = overlays(viewer).current
    assert run.store.run_id == "2" * 16
    assert (run.heatmap.class_name, run.heatmap.colours) == ("normal", "magma")
    assert (run.heatmap.normalisation, run.heatmap.threshold) == ("rank", 0.25)
    assert run.layer.opacity == pytest.approx(0.35)
    assert run.layer.visible
    docks = viewer.window.dock_widgets
    assert not docks["Overlay (napari-histomil)"].visibleRegion().isEmpty()


def test_it_is_written_while_the_slide_is_open_and_when_it_is_closed(
    window, qtbot, path, info, monkeypatch
):
    viewer = window([path])
    keeper = view_keeper(viewer)
    for timer in (keeper._note_timer, keeper._write_timer):
        timer.setInterval(timer.interval() // 10)
    camera.go_to_px0(viewer, info, (100, 200))
    qtbot.waitUntil(
        lambda: (sidecar(path, info.fingerprint) / "view.json").is_file(), timeout=5000
    )
    qtbot.waitUntil(lambda: kept(info)["center_px0"] == [100, 200], timeout=5000)
    camera.go_to_px0(viewer, info, (300, 250))
    qtbot.wait(100)
    session(viewer).close_slide(session(viewer).active)
    qtbot.waitUntil(lambda: kept(info)["center_px0"] == [300, 250], timeout=5000)


def test_a_window_that_is_closed_writes_first(window, qtbot, path, info):
    viewer = window([path])
    camera.go_to_px0(viewer, info, (400, 300))
    keeper = view_keeper(viewer)
    assert not keeper.eventFilter(keeper.window, QEvent(QEvent.Type.Close)), "it goes on to napari"
    assert kept(info)["center_px0"] == [400, 300]


def test_a_place_that_was_asked_for_wins(window, path, info):
    remember_view(info, {"center_px0": [10, 10], "px0_per_screen_pixel": 1, "scale_bar": False})
    viewer = window([path], at=(640, 512, 20))
    assert center_of_view_px0(viewer, info) == pytest.approx((640, 512))
    assert camera.magnification(viewer) == pytest.approx(20)
    assert not viewer.canvas.overlays.scale_bar.visible, "the rest comes back"


def test_somebody_who_has_moved_already_is_left_where_they_are(qtbot, path, info):
    remember_view(info, {"center_px0": [10, 10], "px0_per_screen_pixel": 1})
    viewer = ViewerModel()
    keeper = view_keeper(viewer)
    session(viewer).open_slide(path)
    QApplication.processEvents()
    camera.go_to_px0(viewer, info, (700, 300))
    restored(viewer, qtbot)
    assert not keeper.busy
    assert center_of_view_px0(viewer, info) == pytest.approx((700, 300))


@pytest.mark.parametrize(
    "view",
    [
        {},
        {"center_px0": [10]},
        {"center_px0": ["a", None]},
        {"center_px0": [1e9, 0]},
        {"center_px0": [float(10**300), 5], "px0_per_screen_pixel": -1},
        {"quarter_turns": 7, "mirrored": False},
        {"quarter_turns": [1], "mirrored": 0},
        {"center_px0": None, "runs": "none", "dock": 7, "gamma": "x", "scale_bar": 1},
        {"runs": [None, {"id": 3}, {"id": "f" * 16}], "current_run": [], "dock": "No such"},
    ],
)
def test_what_makes_no_sense_is_left_out(model, path, info, view):
    remember_view(info, view)
    viewer = model(path)
    fitted = 0.92 * min(viewer.canvas.size[1] / 750, viewer.canvas.size[0] / 518.5)
    assert viewer.scene.camera.zoom == pytest.approx(fitted, rel=0.01)
    assert session(viewer).runs == []


def test_numbers_of_a_heatmap_that_make_no_sense_are_left_out(model, path, info, make_run):
    store = make_run(info)
    state = {
        "id": store.run_id,
        "class": "no such",
        "colours": "rainbow",
        "normalisation": None,
        "threshold": 99,
        "opacity": "strong",
    }
    remember_view(info, {"runs": [state], "current_run": store.run_id})
    viewer = model(path)
    run = overlays(viewer).current
    assert (run.heatmap.class_name, run.heatmap.colours) == ("tumor", "viridis")
    assert run.heatmap.normalisation == "raw"
    assert run.heatmap.threshold == 1
    assert run.layer.opacity == 0.5


def test_a_run_that_is_gone_or_damaged_is_left_out(model, path, info, make_run):
    gone, broken, whole = (make_run(info, name * 16) for name in "abc")
    states = [{"id": run.run_id} for run in (gone, broken, whole)]
    remember_view(info, {"runs": states, "current_run": gone.run_id})
    gone.path.rename(gone.path.with_name("elsewhere"))
    (broken.path / "zarr.json").write_text("{")
    viewer = model(path)
    assert [run.store.run_id for run in session(viewer).runs] == [whole.run_id]


def test_hidden_heatmaps_stay_hidden(model, path, info, make_run):
    store = make_run(info)
    viewer = model(path)
    overlays(viewer).add(store)
    overlays(viewer).toggle()
    view_keeper(viewer).save()
    viewer = model(path)
    assert not overlays(viewer).current.layer.visible


def test_a_heatmap_that_only_the_second_view_shows_comes_back(model, path, info, make_run):
    viewer = model(path)
    run = overlays(viewer).add(make_run(info))
    linked(viewer).open()
    assert not run.layer.visible
    view_keeper(viewer).save()
    assert kept(info)["runs"][0]["visible"]
    linked(viewer).close()
    run.layer.visible = False
    view_keeper(viewer).save()
    assert not kept(info)["runs"][0]["visible"]


def test_each_of_two_slides_has_its_own_place(model, path, info, write_slide, checkered, qtbot):
    viewer = model(path)
    other = write_slide(checkered[:600, :800], "other.tiff")
    camera.go_to_px0(viewer, info, (700, 300))
    view_keeper(viewer).note()
    second = session(viewer).open_slide(other)
    restored(viewer, qtbot)
    camera.set_magnification(viewer, 20)
    camera.go_to_px0(viewer, second.info, (90, 80))
    view_keeper(viewer).note()
    first = session(viewer).slides[0]
    session(viewer).show_only(first)
    assert center_of_view_px0(viewer, info) == pytest.approx((700, 300), abs=0.01)
    view_keeper(viewer).save()
    assert kept(info)["center_px0"] == [700, 300]
    assert kept(second.info)["center_px0"] == [90, 80]
    session(viewer).show_only(second)
    assert center_of_view_px0(viewer, second.info) == pytest.approx((90, 80), abs=0.01)
    assert camera.magnification(viewer) == pytest.approx(20)


def test_a_slide_that_nobody_has_looked_at_yet_is_shown_whole(path, info, write_slide, qtbot):
    """Opened with another one, whose place and scale are not its own."""
    viewer = ViewerModel()
    view_keeper(viewer)
    small = write_slide(np.full((64, 80, 3), 200, np.uint8), "small.tiff", mpp=None)
    first = session(viewer).open_slide(small)
    session(viewer).open_slide(path)
    restored(viewer, qtbot)
    camera.go_to_px0(viewer, info, (900, 700))
    session(viewer).show_only(first)
    assert camera.shows_whole(viewer, first.info)
    viewer.layers.clear()


def test_nothing_is_kept_where_it_is_switched_off(model, path, info, monkeypatch):
    monkeypatch.setenv(VIEWS_VARIABLE, "0")
    viewer = model(path)
    camera.go_to_px0(viewer, info, (400, 300))
    view_keeper(viewer).save()
    assert not sidecar(path, info.fingerprint).exists()


def test_pictures_in_memory_leave_nothing_on_the_disk(
    qtbot, array_slide, checkered, tmp_path, monkeypatch
):
    from napari_histomil.ui.layers import slide_layer

    monkeypatch.chdir(tmp_path)
    viewer = ViewerModel()
    keeper = view_keeper(viewer)
    session(viewer).add_slide(slide_layer(array_slide(checkered)))
    qtbot.waitUntil(lambda: not keeper.busy)
    keeper.save()
    assert os.listdir(tmp_path) == []


def test_a_disk_that_takes_nothing_is_no_error(window, qtbot, path, info, monkeypatch, caplog):
    def refuse(*_):
        raise OSError(30, "Read-only file system")

    viewer = window([path])
    monkeypatch.setattr("napari_histomil.files.os.replace", refuse)
    camera.go_to_px0(viewer, info, (400, 300))
    view_keeper(viewer).save()
    assert "Read-only file system" in caplog.text
    assert [type(each) for each in QApplication.topLevelWidgets() if each.isModal()] == []


def test_the_docks_alone_keep_views_too(make_napari_viewer, qtbot, path, info):
    """Without `histomil view`: a napari in which somebody has opened our docks."""
    viewer = make_napari_viewer(show=True)
    viewer.window.add_plugin_dock_widget("napari-histomil", "Slide")
    session(viewer).open_slide(path)
    restored(viewer, qtbot)
    camera.go_to_px0(viewer, info, (123, 45))
    (dock,) = [each for each in QApplication.allWidgets() if isinstance(each, SlideWidget)]
    assert view_keeper(viewer).window is dock.window()
    view_keeper(viewer).save()
    assert kept(info)["center_px0"] == [123, 45]
    assert kept(info)["dock"] == "Slide"
    assert not [each for each in QApplication.allWidgets() if isinstance(each, OverlayWidget)]


def test_without_docks_it_comes_back_too(make_napari_viewer, qtbot, path, info):
    """napari's own File > Open, and nothing of ours to see."""
    remember_view(info, {"center_px0": [321, 123], "px0_per_screen_pixel": 1.5})
    viewer = make_napari_viewer()
    viewer.open(str(path), plugin="napari-histomil")
    restored(viewer, qtbot)
    assert center_of_view_px0(viewer, info) == pytest.approx((321, 123), abs=0.01)
    camera.go_to_px0(viewer, info, (400, 300))
    QApplication.instance().aboutToQuit.emit()
    assert kept(info)["center_px0"] == [400, 300]


def test_a_moved_slide_is_seen_as_it_was_left_through_the_command_line(
    window, path, info, make_run, tmp_path, monkeypatch
):
    store = make_run(info)
    viewers = []
    monkeypatch.setattr("napari_histomil.ui.window.stay_open", lambda: None)
    monkeypatch.setattr(
        "napari_histomil.ui.window.open_window",
        lambda *args, **kwargs: viewers.append(window(*args, **kwargs)),
    )
    assert main(["view", str(path), str(store.path), "--at", "700,300,10"]) == 0
    overlays(viewers[0]).current.layer.opacity = 0.25
    view_keeper(viewers[0]).save()
    (tmp_path / "moved").mkdir()
    moved = path.rename(tmp_path / "moved" / "another.tiff")
    assert main(["view", str(moved)]) == 0
    assert session(viewers[1]).active.info.path == moved
    assert center_of_view_px0(viewers[1], info) == pytest.approx((700, 300), abs=0.01)
    run = overlays(viewers[1]).current
    assert run.store.run_id == store.run_id
    assert run.layer.opacity == pytest.approx(0.25)
