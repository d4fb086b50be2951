"""The Overlay dock and the keys, on a real window and a stored run without any model."""

from __future__ import annotations

import datetime

import numpy as np
import pytest
from napari.components import ViewerModel
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog, QLabel

from napari_histomil.errors import RunError
from napari_histomil.heatmaps import NORMALISATIONS, threshold_stats
from napari_histomil.results import RunStore
from napari_histomil.slides.readers import open_slide
from napari_histomil.tiling import BLOCK_TILES
from napari_histomil.ui import run_facts
from napari_histomil.ui.camera import go_to_px0, magnification
from napari_histomil.ui.colours import COLOUR_MAPS, colour_map
from napari_histomil.ui.dialogs import ErrorDialog
from napari_histomil.ui.layers import to_px0, to_world_um
from napari_histomil.ui.overlays import FRAME_NAME, Overlays, overlays
from napari_histomil.ui.session import session
from napari_histomil.ui.widgets.overlay import OverlayWidget
from napari_histomil.ui.widgets.slide import SlideWidget


@pytest.fixture
def slide_path(write_slide, checkered):
    return write_slide(checkered, "slide [1] ü.tiff")


@pytest.fixture
def stored(slide_path, make_run) -> RunStore:
    with open_slide(slide_path) as slide:
        return make_run(slide.info)


@pytest.fixture
def viewer():
    """Layers, camera and keys without a window: what most of these tests need, and quick."""
    return ViewerModel()


@pytest.fixture
def laid(viewer, slide_path, stored) -> Overlays:
    """The slide is open and the run lies over it."""
    session(viewer).open_slide(slide_path)
    overlays(viewer).add(stored)
    return overlays(viewer)


@pytest.fixture
def dock(viewer, laid, qtbot) -> OverlayWidget:
    widget = OverlayWidget(viewer)
    qtbot.addWidget(widget)
    qtbot.waitUntil(lambda: widget.chooser.run_box.count() == 1)
    return widget


def choose(box, text: str) -> None:
    """Choose an entry as a person does: `activated` is not sent when the program chooses."""
    box.setCurrentText(text)
    assert box.currentText() == text
    box.activated.emit(box.currentIndex())


def test_layer_lies_between_slide_and_drawings_and_leaves_the_selection(
    viewer, slide_path, stored
):
    slide = session(viewer).open_slide(slide_path)
    shapes = viewer.add_shapes()
    shapes.mode = "add_polygon"
    run = overlays(viewer).add(stored)
    assert list(viewer.layers) == [slide.layer, run.layer, shapes]
    assert viewer.layers.selection.active is shapes
    assert shapes.mode == "add_polygon"
    assert run.layer.name == "tumor (maker)"
    assert session(viewer).runs == [run]
    np.testing.assert_allclose(run.layer.data_to_world((2, 3)), (2.5 * 32, 3.5 * 32))


def test_the_same_run_is_shown_once_and_other_runs_are_hidden(laid, viewer, stored, make_run):
    first = laid.current
    assert laid.add(RunStore.open(stored.path)) is first
    second = laid.add(make_run(first.slide.info, "1" * 16, seed=1))
    assert laid.current is second
    assert (first.layer.visible, second.layer.visible) == (False, True)
    laid.choose(first)
    assert (first.layer.visible, second.layer.visible) == (True, False)
    viewer.layers.remove(first.layer)
    assert laid.current is second


def test_a_run_never_lies_over_another_slide(laid, dock, viewer, write_slide, checkered, qtbot):
    held, first = session(viewer), laid.current
    other = held.open_slide(write_slide(checkered[::-1].copy(), "other.tiff"))
    assert not first.layer.visible
    laid.add(first.store)  # as a job does that goes on
    assert (first.layer.visible, first.slide.layer.visible) == (False, False)
    assert held.active is other
    held.show_only(first.slide)
    assert first.layer.visible
    held.show_only(other)
    dock.chooser.open(first.store.path)  # by a person, who wants to see it
    qtbot.waitUntil(lambda: held.active is first.slide)
    assert (first.layer.visible, other.layer.visible) == (True, False)


@pytest.mark.parametrize("deleted", [["slide"], ["slide", "heatmap"], ["heatmap", "frame"]])
def test_layers_deleted_by_napari_take_what_lies_on_them_along(
    make_napari_viewer, slide_path, stored, qtbot, deleted
):
    """By the button of the layer list, which selects another layer while it deletes."""
    viewer = make_napari_viewer()
    slide = session(viewer).open_slide(slide_path)
    laid = overlays(viewer)
    run = laid.add(stored)
    laid.next_hottest()
    docks = [SlideWidget(viewer), OverlayWidget(viewer)]
    for dock in docks:
        qtbot.addWidget(dock)
    layers = {"slide": slide.layer, "heatmap": run.layer, "frame": viewer.layers[FRAME_NAME]}
    viewer.layers.selection = {layers[name] for name in deleted}
    viewer.layers.remove_selected()
    assert session(viewer).runs == []
    assert laid.current is None
    if "slide" in deleted:
        assert list(viewer.layers) == []
        assert session(viewer).active is None
    else:
        assert list(viewer.layers) == [slide.layer]
        assert session(viewer).active is slide


def test_a_run_needs_its_slide_open_with_its_scale(viewer, stored, slide_path, write_slide):
    with pytest.raises(RunError, match=r"slide \[1\] ü\.tiff, which is not open"):
        overlays(viewer).add(stored)
    opened = session(viewer).open_slide(slide_path)
    session(viewer).set_mpp(opened, 0.25)
    with pytest.raises(RunError, match=r"0\.5 µm/px, and it is open with other µm/px"):
        overlays(viewer).add(stored)
    assert session(viewer).runs == []


def test_each_slide_keeps_its_own_heatmap(laid, viewer, write_slide, checkered, make_run):
    first = laid.current
    other = session(viewer).open_slide(write_slide(checkered[::-1], "other.tiff"))
    assert laid.current is None
    assert not first.layer.visible
    second = laid.add(make_run(other.info, "2" * 16))
    session(viewer).show_only(first.slide)
    assert laid.current is first
    assert (first.layer.visible, second.layer.visible) == (True, False)


def test_every_cell_is_drawn_over_its_pixels(make_napari_viewer, slide_path, stored, qtbot):
    """On the screen: the colour of each cell, exactly, just inside its level-0 rectangle."""
    viewer = make_napari_viewer(show=True)
    slide = session(viewer).open_slide(slide_path)
    run = overlays(viewer).add(stored)
    run.layer.opacity = 1.0
    run.heatmap.threshold = 0.3
    qtbot.wait(200)
    camera = viewer.scene.camera
    camera.zoom = 1.0  # a screen pixel a µm: cells of 32 pixels
    screen = viewer.screenshot(canvas_only=True, flash=False)[..., :3].astype(int)
    ratio = screen.shape[0] / viewer.canvas.size[0]
    grid, values = stored.grid, run.heatmap.values
    colours = np.rint(np.asarray(colour_map("viridis").map(values))[:, :3] * 255)
    seen = {"above": 0, "below": 0}
    for tile, (x, y, width, height) in enumerate(grid.cell_rects_px0):
        inset = 2 / slide.info.mpp  # 2 µm: an edge may fall between two screen pixels
        corners = [
            (x + inset, y + inset), (x + width - inset, y + height - inset),
            (x + width - inset, y + inset), (x + width / 2, y + height / 2),
        ]  # fmt: skip
        for corner in corners:
            away = (to_world_um(corner, slide.info) - camera.center[-2:]) * camera.zoom * ratio
            row, column = (np.array(screen.shape[:2]) / 2 + away).astype(int)
            if not (0 <= row < screen.shape[0] and 0 <= column < screen.shape[1]):
                continue
            if corner[0] >= slide.info.width_px0 or corner[1] >= slide.info.height_px0:
                continue
            if values[tile] >= 0.3:
                seen["above"] += 1
                assert np.abs(screen[row, column] - colours[tile]).max() <= 2, (tile, corner)
            else:
                seen["below"] += 1
                grey = np.abs(screen[row, column] - 255).max() <= 2
                red = np.abs(screen[row, column] - (200, 0, 0)).max() <= 2
                assert grey or red, (tile, corner)  # the slide itself
    assert seen["above"] > 300
    assert seen["below"] > 100


def test_threshold_says_tiles_area_and_share_and_hides_the_rest(dock, laid, stored):
    run = laid.current
    assert "<b>100.0 %</b>" in dock.stats_label.text()
    dock.threshold.slider.setValue(600)
    assert dock.threshold.spin.value() == 0.6
    stats = threshold_stats(stored.grid, run.heatmap.values, 0.6)
    text = dock.stats_label.text()
    assert f"<b>{stats.percent:.1f} %</b>" in text
    assert f"<b>{stats.area_mm2:.2f} mm²</b> of {stats.looked_at_mm2:.2f} mm²" in text
    assert f"<b>{stats.tiles}</b> of {len(stored.grid)} tiles" in text
    assert np.isfinite(run.layer.data).sum() == stats.tiles
    dock.threshold.spin.setValue(0.25)
    assert dock.threshold.slider.value() == 250
    assert run.heatmap.threshold == 0.25


def test_the_choices_reach_the_layer(dock, laid):
    run = laid.current
    choose(dock.class_box, "normal")
    assert run.layer.name == "normal (maker)"
    np.testing.assert_allclose(np.nanmax(run.layer.data), run.heatmap.scores[:, 0].max())
    for name in COLOUR_MAPS:
        choose(dock.colours_box, name)
        assert run.layer.colormap.name == colour_map(name).name
    for name in NORMALISATIONS:
        choose(dock.scale_box, name)
        assert run.heatmap.normalisation == name
    assert np.nanmax(run.layer.data) == 1
    dock.opacity.slider.setValue(80)
    assert run.layer.opacity == 0.8
    dock.visible_box.click()
    assert not run.layer.visible


def test_naparis_own_controls_reach_the_dock(dock, laid):
    laid.current.layer.opacity = 0.3
    laid.current.layer.visible = False
    assert dock.opacity.spin.value() == 30
    assert not dock.visible_box.isChecked()


NOTHING, SHIFT = Qt.KeyboardModifier.NoModifier, Qt.KeyboardModifier.ShiftModifier
LAYERS = {
    "slide": lambda viewer: viewer.layers[0],
    "labels": lambda viewer: viewer.add_labels(np.zeros((8, 8), int)),
    "points": lambda viewer: viewer.add_points(np.zeros((1, 2))),
    "shapes": lambda viewer: viewer.add_shapes(np.array([(0, 0), (0, 4), (4, 4), (4, 0)])),
}


def test_keys_steer_the_heatmap_whatever_layer_is_active(
    make_napari_viewer, slide_path, stored, qtbot
):
    viewer = make_napari_viewer()
    session(viewer).open_slide(slide_path)
    run = overlays(viewer).add(stored)
    pressed = viewer.window.add_dock_widget(QLabel("any dock"))

    after_each = (  # key, held, then: visible, opacity, stops further on
        (Qt.Key.Key_U, NOTHING, (False, 0.5, 0)),
        (Qt.Key.Key_U, NOTHING, (True, 0.5, 0)),
        (Qt.Key.Key_Period, NOTHING, (True, 0.6, 0)),
        (Qt.Key.Key_Comma, NOTHING, (True, 0.5, 0)),
        (Qt.Key.Key_N, NOTHING, (True, 0.5, 1)),
        (Qt.Key.Key_N, NOTHING, (True, 0.5, 2)),
        (Qt.Key.Key_N, SHIFT, (True, 0.5, 1)),
    )
    overlays(viewer).next_hottest()
    for make in LAYERS.values():
        viewer.layers.selection.active = active = make(viewer)
        before = run.heatmap.stop
        for key, held, expected in after_each:
            qtbot.keyClick(pressed.window(), key, held)
            layer = run.layer
            found = (layer.visible, round(layer.opacity, 3), run.heatmap.stop - before)
            assert found == expected, (type(active), key)
            assert viewer.layers.selection.active is active
    viewer.window.remove_dock_widget(pressed)


def test_opacity_stops_at_both_ends(laid):
    for _ in range(12):
        laid.stronger()
    assert laid.current.layer.opacity == 1
    for _ in range(12):
        laid.fainter()
    assert laid.current.layer.opacity == 0


def test_hottest_is_framed_in_the_middle_at_20x(dock, laid, viewer, qtbot, stored):
    info, values = laid.current.slide.info, laid.current.heatmap.values
    assert not dock.previous_button.isEnabled()
    qtbot.mouseClick(dock.next_button, Qt.MouseButton.LeftButton)
    tile = int(np.argmax(values))
    x, y, width, height = stored.grid.cell_rects_px0[tile]
    assert magnification(viewer) == pytest.approx(20)
    centre = to_px0(viewer.scene.camera.center, info)
    np.testing.assert_allclose(centre, (x + width / 2, y + height / 2))
    frame = viewer.layers[FRAME_NAME]
    starts = np.array([frame.data_to_world(start) for start, _ in frame.data]).reshape(2, 4, 2)
    boxes = set()
    for ring in to_px0(starts, info):
        boxes.add((*map(float, ring.min(axis=0)), *map(float, np.ptp(ring, axis=0))))
    expected = {
        tuple(map(float, stored.grid.cell_rects_px0[tile])),
        tuple(map(float, stored.grid.tile_rects_px0[tile])),
    }
    np.testing.assert_allclose(sorted(boxes), sorted(expected), atol=1e-6)
    assert f"1 of {laid.current.heatmap.tour.size}: <b>{values.max():.3f}</b>" in (
        dock.tour_label.text()
    )
    qtbot.mouseClick(dock.next_button, Qt.MouseButton.LeftButton)
    assert sum(layer.name == FRAME_NAME for layer in viewer.layers) == 1
    assert dock.previous_button.isEnabled()
    viewer.layers.remove(laid.current.layer)
    assert FRAME_NAME not in viewer.layers, "a frame without its heatmap says nothing"


def test_pointer_reads_raw_scores_and_position(dock, laid, viewer, stored):
    info, heatmap = laid.current.slide.info, laid.current.heatmap
    choose(dock.scale_box, "rank")
    dock.threshold.spin.setValue(0.99)

    def at(xy_px0):
        class Event:
            position = tuple(to_world_um(xy_px0, info))

        for callback in viewer.mouse_move_callbacks:
            callback(viewer, Event())
        return dock.readout.text()

    tile = 5
    x, y, *_ = stored.grid.cell_rects_px0[tile]
    text = at((x + 1, y + 1))
    assert f"<b>tumor {heatmap.scores[tile, 1]:.4f}</b>" in text
    assert f"normal {heatmap.scores[tile, 0]:.4f}" in text
    assert f"x {(x + 1) / 2:.0f} µm, y {(y + 1) / 2:.0f} µm" in text
    assert "not looked at" in at((10, 10))
    assert at((-5, 10)) == "outside the slide"

    # the view moves below the pointer, which stands still: 200 px right of the middle, at 2 px/µm
    go_to_px0(viewer, info, (500, 400))
    viewer.scene.camera.zoom = 2.0
    at((700, 400))
    go_to_px0(viewer, info, (600, 500))
    assert "x 400 µm, y 250 µm" in dock.readout.text()
    viewer.scene.camera.zoom = 4.0
    assert "x 350 µm, y 250 µm" in dock.readout.text()


def test_numbers_that_come_while_nobody_looks_are_there_when_somebody_does(dock, laid, qtbot):
    emptied = laid.current.heatmap.scores.copy()
    emptied[10:] = np.nan
    before = dock.stats_label.text()
    laid.current.heatmap.fill(emptied)
    assert dock.stats_label.text() == before
    dock.show()
    qtbot.waitUntil(lambda: "<b>10</b> of 10 tiles" in dock.stats_label.text())


def test_an_unfinished_run_says_so(viewer, slide_path, make_run, qtbot):
    opened = session(viewer).open_slide(slide_path)
    store = make_run(opened.info, blocks=2)
    overlays(viewer).add(store)
    dock = OverlayWidget(viewer)
    qtbot.addWidget(dock)
    total = len(store.grid)
    assert f"⚠ Not finished: {2 * BLOCK_TILES} of {total} tiles" in dock.doubts_label.text()
    x, y, *_ = store.grid.cell_rects_px0[-1]
    dock.read_out(tuple(to_world_um((x + 1, y + 1), opened.info)))
    assert "not computed yet" in dock.readout.text()


def test_what_made_the_result_is_told(dock, stored):
    assert dock.made_by_label.text() == (
        "1 µm/px (10x), tile 48 px, stride 32 px\nregion: tissue, stain normalisation: macenko"
    )
    tooltip = dock.made_by_label.toolTip()
    for part in ("maker", "ab" * 32, stored.slide["fingerprint"], str(stored.path)):
        assert part in tooltip
    assert not dock.doubts_label.isVisibleTo(dock)


def test_sessions_are_told_with_device_and_versions(stored):
    with RunStore.open(stored.path, writable=True) as store:
        store.add_session(
            {
                "started": "2026-01-02T03:04:05+00:00",
                "device": "Some GPU (cuda)",
                "precision": "bf16",
                "batch": 64,
                "tiles": 12,
                "versions": {"napari-histomil": "0.1.0", "torch": "2.9", "numpy": "2.0"},
            }
        )
        store.add_warning("This is odd.")
        text = run_facts.provenance(store)
    assert (
        "Session 1: 2026-01-02T03:04:05+00:00, Some GPU (cuda), bf16, batch 64, 12 tiles, "
        "napari-histomil 0.1.0, torch 2.9" in text
    )
    assert run_facts.title(store).endswith("  maker")
    begun = store.created.astimezone()
    assert abs(begun - datetime.datetime.now(datetime.UTC)) < datetime.timedelta(minutes=5)
    assert f"{begun:%d %b %H:%M}" in run_facts.title(store)


def test_stored_runs_are_listed_and_open_on_choice(viewer, slide_path, make_run, qtbot):
    opened = session(viewer).open_slide(slide_path)
    store = make_run(opened.info)
    damaged = make_run(opened.info, "f" * 16).path
    (damaged / "zarr.json").write_text("{}", encoding="utf-8")
    dock = OverlayWidget(viewer)
    qtbot.addWidget(dock)
    box = dock.chooser.run_box
    qtbot.waitUntil(lambda: box.count() == 2)
    assert box.currentIndex() == -1, "nothing is shown unasked"
    assert box.placeholderText() == "choose one of 2…"
    assert not dock.threshold.isEnabled()
    assert "Run dock" in dock.threshold.toolTip()
    texts = [box.itemText(i) for i in range(2)]
    good = texts.index(run_facts.title(store))
    assert damaged.name in box.itemData(1 - good, Qt.ItemDataRole.ToolTipRole)
    box.setCurrentIndex(1 - good)
    box.activated.emit(1 - good)
    qtbot.waitUntil(lambda: bool(dock.findChildren(ErrorDialog)))
    (dialog,) = dock.findChildren(ErrorDialog)
    assert damaged.name in dialog.sentence
    assert box.currentIndex() == -1
    dialog.close()
    box.setCurrentIndex(good)
    box.activated.emit(good)
    qtbot.waitUntil(lambda: overlays(viewer).current is not None)
    assert overlays(viewer).current.store.run_id == store.run_id
    assert dock.threshold.isEnabled()
    qtbot.waitUntil(lambda: box.currentText() == run_facts.title(store))


def test_a_run_of_another_slide_is_refused_in_words(
    viewer, slide_path, write_slide, checkered, make_run, qtbot, monkeypatch
):
    session(viewer).open_slide(slide_path)
    with open_slide(write_slide(checkered[::-1], "other.tiff")) as other:
        foreign = make_run(other.info)
    dock = OverlayWidget(viewer)
    qtbot.addWidget(dock)
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_, **__: str(foreign.path))
    qtbot.mouseClick(dock.chooser.open_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: bool(dock.findChildren(ErrorDialog)))
    (dialog,) = dock.findChildren(ErrorDialog)
    assert "other.tiff, which is not open: open it first." in dialog.sentence
    dialog.close()


def test_without_a_result_everything_says_what_to_do(viewer, qtbot):
    dock = OverlayWidget(viewer)
    qtbot.addWidget(dock)
    assert not dock.chooser.run_box.isEnabled()
    assert dock.chooser.run_box.toolTip() == "Open a slide first"
    assert "Run dock" in dock.stats_label.text()
    for widget in (dock.threshold, dock.class_box, dock.next_button, dock.opacity):
        assert not widget.isEnabled()
        assert "Run dock" in widget.toolTip()
    dock.read_out((1.0, 1.0))
    assert dock.readout.text() == ""


def test_a_closed_dock_leaves_nothing_on_the_viewer(laid, viewer, qtbot):
    dock = OverlayWidget(viewer)
    callbacks = len(viewer.mouse_move_callbacks)
    dock.deleteLater()
    qtbot.waitUntil(lambda: len(viewer.mouse_move_callbacks) == callbacks - 1)
    laid.current.heatmap.threshold = 0.5  # nobody of the dock hears it
    laid.next_hottest()
