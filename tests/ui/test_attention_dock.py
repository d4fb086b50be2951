"""The Overlay dock's part about MIL runs: choices, legend, patches, overlaps, contact sheet."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from napari.components import ViewerModel
from PIL import Image
from qtpy.QtCore import Qt

from napari_histomil.annotations.collection import Command
from napari_histomil.annotations.model import AnnotationClass, Region
from napari_histomil.cli import main
from napari_histomil.results import find_results, open_result, run_path, write_mil_run
from napari_histomil.slides.readers import open_slide
from napari_histomil.ui import attention_maps as maps
from napari_histomil.ui.annotator import annotator
from napari_histomil.ui.attention_view import HOT
from napari_histomil.ui.brightness import Tone
from napari_histomil.ui.layers import center_of_view_px0, corner_um, pixel_um, to_world_um
from napari_histomil.ui.overlays import FRAME_NAME, overlays
from napari_histomil.ui.session import session
from napari_histomil.ui.view_state import bring_back_run, view_of
from napari_histomil.ui.widgets.answer import Answer
from napari_histomil.ui.widgets.attention_file import AttentionFileDialog
from napari_histomil.ui.widgets.overlay import OverlayWidget
from tests.ui.annotating import close_error, settle
from tests.ui.mil_runs import make_mil_run, make_zoom_run


@pytest.fixture
def slide_path(write_slide, checkered):
    return write_slide(checkered, "slide [1] ü.tiff")


@pytest.fixture
def stored(slide_path):
    """Two MIL runs on disk, the zooming one first."""
    with open_slide(slide_path) as slide:
        info = slide.info
        for run in (make_zoom_run(info), make_mil_run(info)):
            write_mil_run(run, run_path(info.path, run.run_id, fingerprint=info.fingerprint))
        return find_results(info)


@pytest.fixture
def viewer():
    return ViewerModel()


@pytest.fixture
def dock(viewer, slide_path, stored, qtbot) -> OverlayWidget:
    session(viewer).open_slide(slide_path)
    overlays(viewer).add(open_result(stored[0]))
    widget = OverlayWidget(viewer)
    qtbot.addWidget(widget)
    qtbot.waitUntil(lambda: widget.chooser.run_box.count() == 2)
    yield widget
    annotator(viewer).close()
    settle(qtbot)


def choose(box, text: str) -> None:
    box.setCurrentText(text)
    assert box.currentText() == text
    box.activated.emit(box.currentIndex())


def entries(box) -> list[str]:
    return [box.itemText(n) for n in range(box.count())]


def test_the_answer_stands_first_with_what_it_is_worth(dock, qtbot):
    part = dock.attention
    assert part.isVisibleTo(dock)
    run = part.view.run
    text = part.answer.label.text()
    likeliest = run.answer.predicted
    assert f"<b>{run.class_names[likeliest]} {run.answer.probabilities[likeliest]:.3f}</b>" in text
    assert "Calibrated probabilities (temperature 1.7)" in text
    assert part.answer.warnings.text() == "⚠ Only few patches: 17."
    sections = [dock.class_box, dock.threshold, dock.next_button]
    assert not any(widget.isVisibleTo(dock) for widget in sections), "those are of other results"
    answer = Answer()
    qtbot.addWidget(answer)
    answer.show_run(run)
    assert answer.label.text() == text


def test_maps_scales_and_classes_are_chosen_live(dock, viewer):
    part, run = dock.attention, overlays(viewer).current
    assert entries(part.what_box) == [maps.CONTRIBUTION, maps.ATTENTION]
    assert not part.colours_box.isEnabled(), "what has a sign diverges"
    assert run.layer.colormap.name.startswith("blue-white-red")
    choose(part.class_box, "tumor")
    assert run.layer.name == "contribution to tumor (toy-mil)"
    choose(part.what_box, maps.ATTENTION)
    assert entries(part.class_box) == [maps.EVERY_CLASS]
    for scale in entries(part.scale_box):
        choose(part.scale_box, scale)
        assert run.attention.normalisation == scale
        assert (HOT[1:] in part.words.text()) == (scale in ("min-max", "rank"))
        np.testing.assert_array_equal(run.layer.data, run.attention.image)
    assert "ffective patches: " in part.words.text()
    choose(part.colours_box, "magma")
    assert run.layer.colormap.name.startswith("magma")
    part.smooth_box.click()
    assert "smoothed" in part.words.text()


def test_a_zooming_models_maps_lie_where_their_tiles_are(dock, viewer, stored, qtbot):
    dock.chooser.open(stored[1])
    qtbot.waitUntil(lambda: overlays(viewer).current.store.run_id == "fedcba9876543210")
    part, run = dock.attention, overlays(viewer).current
    assert entries(part.level_box) == ["5x (2 µm/px)", "10x (1 µm/px)", "all, added"]
    assert part.level_box.currentText() == "all, added"
    choose(part.level_box, "5x (2 µm/px)")
    assert pixel_um(run.layer) == (128, 128)
    choose(part.what_box, maps.ATTENTION)
    assert entries(part.level_box) == ["5x (2 µm/px)", "10x (1 µm/px)"]
    choose(part.level_box, "10x (1 µm/px)")
    assert (pixel_um(run.layer), corner_um(run.layer)) == ((64, 64), (0, 0))
    tile = int(run.attention.picked[0])
    x, y = run.attention.shown.xy_px0[tile] + 64
    dock.read_out(to_world_um((x, y), run.slide.info))
    assert f"<b>x uniform {run.attention.scaled[tile]:.3g}x</b>" in dock.readout.text()
    assert f"raw {run.attention.values[tile]:.3g}" in dock.readout.text().replace("\u2212", "-")
    row, column = np.argwhere(np.isnan(run.attention.image))[0]
    dock.read_out(((row + 0.5) * 64, (column + 0.5) * 64))
    assert dock.readout.text().endswith("not examined: no value, which is not 0")


def test_the_threshold_counts_and_says_what_lies_in_annotations(dock, viewer, qtbot):
    part, state = dock.attention, annotator(viewer)
    choose(part.what_box, maps.ATTENTION)
    choose(part.scale_box, "rank")
    part.threshold.spin.setValue(50)
    view = part.view
    assert view.cut == 0.5
    stats = view.stats()
    assert f"<b>{stats.percent:.1f} %</b>" in part.stats_label.text()
    assert f"<b>{stats.tiles}</b> of {stats.looked_at_tiles} patches" in part.stats_label.text()
    qtbot.waitUntil(lambda: state.regions is not None)
    whole = shapely.box(0, 0, 750, 1037)  # the left half of the slide
    region = Region(whole, AnnotationClass("Tumor", (200, 0, 0)))
    assert state.do(Command("draw", added={region.id: region}))
    qtbot.waitUntil(lambda: "Tumor" in part.stats_label.text())
    inside = (view.shown.xy_px0 + 64 <= (750, 1037)).all(axis=1)
    np.testing.assert_array_equal(view.inside["Tumor"], inside)
    ((_, of_shown, of_class),) = view.stats().overlaps
    assert f"Tumor: holds {of_shown:.0f} % of what is shown; {of_class:.0f} % of it is shown" in (
        part.stats_label.text()
    )
    assert 0 < of_shown < 100


def test_patches_are_listed_with_pictures_and_a_click_flies_there(dock, viewer, qtbot):
    strip, run = dock.attention.strip, overlays(viewer).current
    dock.resize(360, 700)
    assert strip.list.count() == 10
    qtbot.waitUntil(lambda: strip._reading is not None and not strip._reading.running)
    tile = int(run.attention.picked[2])
    icon = strip.list.item(2).icon().pixmap(72, 72).toImage()
    with open_slide(run.slide.info.path) as slide:
        x, y = (int(v) + 64 for v in run.attention.shown.xy_px0[tile])
        expected = slide.read_region((x, y), 0, (1, 1))[0, 0]
    seen = icon.pixelColor(36, 36)
    assert np.abs(np.array([seen.red(), seen.green(), seen.blue()]) - expected).max() <= 60
    strip.list.itemClicked.emit(strip.list.item(2))
    middle = center_of_view_px0(viewer, run.slide.info)
    np.testing.assert_allclose(middle, run.attention.shown.xy_px0[tile] + 64, atol=2)
    assert run.attention.stop == 2
    assert FRAME_NAME in [layer.name for layer in viewer.layers]
    overlays(viewer).next_hottest()
    assert strip.list.currentRow() == 3
    choose(strip.which_box, "bottom")
    strip.count_box.setValue(4)
    assert strip.list.count() == 4
    assert strip.list.currentRow() == -1
    lowest = np.nanargmin(run.attention.values)
    assert strip._listed[0].tile == lowest
    choose(dock.attention.what_box, maps.ATTENTION)
    assert FRAME_NAME not in [layer.name for layer in viewer.layers], "it framed another map's"


def test_a_contact_sheet_is_written_beside_the_window(dock, tmp_path, qtbot):
    strip = dock.attention.strip
    path = tmp_path / "top.png"
    strip.write_sheet(path)
    qtbot.waitUntil(lambda: strip.words.text() == "10 patches are in top.png.")
    with Image.open(path) as sheet:
        assert sheet.width > 5 * 256
    assert strip.sheet_button.isEnabled()


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("png", "map.png"),
        ("tiff", "ü.tif"),
        ("geojson", "t.geojson"),
        ("h5", "m.h5"),
    ],
)
def test_the_map_is_written_as_the_command_line_writes_it(
    dock, viewer, kind, name, tmp_path, qtbot
):
    part, run = dock.attention, overlays(viewer).current
    choose(part.what_box, maps.ATTENTION)
    choose(part.scale_box, "softmax")
    dialog = AttentionFileDialog(run, part)
    dialog.said.connect(part._say_written)
    dialog.format_box.setCurrentIndex(dialog.format_box.findData(kind))
    assert dialog.values_box.currentData() == "softmax"
    assert dialog.values_box.isEnabled() == (kind in ("png", "tiff"))
    dialog.write(tmp_path / name)
    qtbot.waitUntil(lambda: part.said.text() == f"The map is in {name}.")
    other = tmp_path / f"cli{name[name.rindex('.') :]}"
    command = ["export", str(run.store.path), "-o", str(other)]
    assert main(command + (["--values", "softmax"] if kind in ("png", "tiff") else [])) == 0
    assert (tmp_path / name).read_bytes() == other.read_bytes()


def test_a_map_that_cannot_be_written_is_told(dock, viewer, tmp_path, qtbot):
    dialog = AttentionFileDialog(overlays(viewer).current, dock.attention)
    (tmp_path / "file").write_text("", "utf-8")
    dialog.write(tmp_path / "file" / "map.png")
    qtbot.waitUntil(dialog.export_button.isEnabled)
    assert "map.png" in close_error(qtbot)
    dialog.reject()


def test_a_run_is_shown_as_it_was_left(dock, viewer, stored):
    part, run = dock.attention, overlays(viewer).current
    choose(part.what_box, maps.ATTENTION)
    choose(part.scale_box, "rank")
    part.threshold.spin.setValue(75)
    state = view_of(viewer, run.slide, Tone())["runs"][0]
    session(viewer).remove_run(run)
    again = overlays(viewer).add(open_result(run.store.path))
    bring_back_run(again, state)
    assert again.attention.state() == run.attention.state()


def test_nothing_is_left_listening_to_a_run_that_is_gone(dock, viewer):
    run = overlays(viewer).current
    session(viewer).remove_run(run)
    assert dock.attention.view is None
    assert not dock.attention.isVisibleTo(dock)
    run.attention.normalisation = "rank"
    run.attention.what = maps.ATTENTION


def test_the_legend_over_the_canvas(make_napari_viewer, slide_path, stored, qtbot):
    viewer = make_napari_viewer(show=True)
    dock = OverlayWidget(viewer)
    viewer.window.add_dock_widget(dock, area="right")
    viewer.window._qt_window.resize(1280, 800)
    session(viewer).open_slide(slide_path)
    run = overlays(viewer).add(open_result(stored[0]))
    settle(qtbot)
    legend = dock.legend
    qtbot.waitUntil(legend.isVisible)
    view = run.attention
    view.what, view.normalisation, view.smooth = maps.ATTENTION, "rank", True
    above, below = legend.lines
    likeliest = view.run.answer.predicted
    assert above[0].startswith(view.run.class_names[likeliest])
    assert below[0] == HOT
    assert below[1].startswith("effective patches: ")
    assert below[2] == "picture smoothed by a patch"
    view.normalisation = "x uniform"
    assert HOT not in legend.lines[1]
    run.layer.visible = False
    qtbot.waitUntil(lambda: not legend.isVisible())
    run.layer.visible = True
    qtbot.waitUntil(legend.isVisible)
    qtbot.keyClick(viewer.window._qt_window, Qt.Key.Key_N)
    qtbot.keyClick(viewer.window._qt_window, Qt.Key.Key_N)
    assert view.stop == 1
    qtbot.keyClick(viewer.window._qt_window, Qt.Key.Key_P)
    assert view.stop == 0
    session(viewer).close_slide(run.slide)
    settle(qtbot)
    assert not legend.isVisible()
