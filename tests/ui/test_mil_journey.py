"""A MIL model from slide to contact sheet, in a window, on a slide made of real tissue."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from qtpy.QtCore import Qt
from shapely import box

from napari_histomil.annotations.commands import add
from napari_histomil.annotations.model import AnnotationClass, Region
from napari_histomil.results import find_results, find_runs, open_mil_run
from napari_histomil.ui import attention_maps as maps
from napari_histomil.ui.annotator import annotator
from napari_histomil.ui.attention_view import HOT
from napari_histomil.ui.layers import center_of_view_px0, to_world_um
from napari_histomil.ui.overlays import overlays
from napari_histomil.ui.session import session
from napari_histomil.ui.torch_shield import shield_torch
from napari_histomil.ui.widgets.annotate import AnnotateWidget
from napari_histomil.ui.widgets.overlay import OverlayWidget
from napari_histomil.ui.widgets.run import RunWidget
from tests.ui.annotating import settle
from tests.ui.lymph_node import write_lymph_node
from tests.ui.lymph_node_mil import MODEL, make_toy_mil

LONG = 240_000  # ms: on a busy machine


@pytest.fixture
def lymph_node(tmp_path, data_dir):
    if not (data_dir / "seg-camelyon-tumor").is_dir():
        pytest.skip(f"no tiles: {data_dir / 'seg-camelyon-tumor'} is missing")
    return write_lymph_node(tmp_path / "lymph node é.tiff", data_dir)


@pytest.fixture
def viewer(make_napari_viewer, tmp_path, data_dir, lymph_node, monkeypatch):
    shield_torch()
    make_toy_mil(tmp_path / "models", data_dir)
    monkeypatch.setenv("HISTOMIL_MODELS", str(tmp_path / "models"))
    return make_napari_viewer(show=True)


def click(qtbot, button) -> None:
    assert button.isEnabled(), button.toolTip()
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)


def choose(box, text: str) -> None:
    box.setCurrentText(text)
    assert box.currentText() == text
    box.activated.emit(box.currentIndex())


def test_run_read_switch_fly_threshold_export(viewer, lymph_node, tmp_path, qtbot):
    docks = [kind(viewer) for kind in (RunWidget, OverlayWidget, AnnotateWidget)]
    run, overlay, _ = docks
    for dock in docks:
        viewer.window.add_dock_widget(dock, area="right", tabify=dock is not run)
    window = viewer.window._qt_window
    window.resize(1280, 800)
    run.parentWidget().raise_()
    slide = session(viewer).open_slide(lymph_node)
    settle(qtbot)

    # Slide and model: all that is needed happens.
    qtbot.waitUntil(lambda: run.models.model_box.findText(MODEL) >= 0, timeout=20_000)
    run.models.model_box.setCurrentIndex(run.models.model_box.findText(MODEL))
    assert run.models.needs_label.text().startswith("answers for the slide: No tumor, Tumor")
    assert not run.answer.isVisibleTo(run)
    told = []
    click(qtbot, run.start_button)
    run._job._timer.timeout.connect(lambda: told.append(run.progress.label.text()))
    qtbot.waitUntil(lambda: not run.running, timeout=LONG)
    assert any(text.startswith("Features at ") for text in told)

    # The probability stands in the dock, and is that of the run on disk.
    (path,) = find_runs(slide.info, task="mil")
    assert find_results(slide.info) == [path]
    stored = open_mil_run(path)
    tumor = stored.class_names.index("Tumor")
    assert stored.answer.predicted == tumor
    probability = f"{stored.answer.probabilities[tumor]:.3f}"
    assert f"<b>Tumor {probability}</b>" in run.answer.label.text()
    assert "Calibrated probabilities (temperature 1.5)" in run.answer.label.text()
    for sentence in stored.warnings:
        assert sentence in run.answer.warnings.text()

    # What speaks for tumour lies where tumour is: the map adds up to the logit.
    overlay.parentWidget().raise_()
    settle(qtbot)
    shown, part = overlays(viewer).current, overlay.attention
    view = shown.attention
    assert (view.what, view.class_name) == (maps.CONTRIBUTION, "Tumor")
    logit = stored.bias[tumor] + np.nansum(view.values)
    assert logit == pytest.approx(stored.answer.logits[tumor], rel=1e-4)
    qtbot.waitUntil(lambda: overlay.legend is not None and overlay.legend.isVisible())
    assert overlay.legend.lines[0][0] == f"Tumor {probability}"

    # Scales are switched live, the values stay; "hot" is explained where it misleads.
    choose(part.what_box, maps.ATTENTION)
    values = view.values.copy()
    for scale in ("raw", "softmax", "x uniform", "min-max", "rank", "reference"):
        choose(part.scale_box, scale)
        assert (HOT in overlay.legend.lines[1]) == (scale in ("min-max", "rank"))
        np.testing.assert_array_equal(view.values, values)
        assert np.nanmax(view.image) == pytest.approx(1, abs=0.6)
    tile = int(view.picked[0])
    middle = view.shown.xy_px0[tile] + view.shown.side_px0[0] / 2
    overlay.read_out(to_world_um(middle, slide.info))
    readings = dict(view.readings(tile))
    assert f"<b>reference {readings['reference']}</b>" in overlay.readout.text()
    assert f"raw {readings['raw']}" in overlay.readout.text()

    # Ten patches, one after the other, by the key.
    choose(part.scale_box, "rank")
    window.activateWindow()
    viewer.window._qt_viewer.canvas.native.setFocus()
    for stop, patch in enumerate(view.picked.tolist()):
        qtbot.keyClick(window, Qt.Key.Key_N)
        assert view.stop == stop
        expected = view.shown.xy_px0[patch] + np.array(view.shown.side_px0) / 2
        np.testing.assert_allclose(center_of_view_px0(viewer, slide.info), expected, atol=2)
    qtbot.keyClick(window, Qt.Key.Key_P)
    assert view.stop == 8
    assert part.strip.list.currentRow() == 8

    # The threshold counts live, also what lies in annotations.
    part.threshold.spin.setValue(90)
    stats = view.stats()
    assert stats.percent == pytest.approx(10, abs=0.5)
    assert f"<b>{stats.tiles}</b> of" in part.stats_label.text()
    state = annotator(viewer)
    qtbot.waitUntil(lambda: state.regions is not None, timeout=20_000)
    whole = box(0, 0, slide.info.width_px0, slide.info.height_px0)
    region = Region(whole, AnnotationClass("Tumor", (200, 0, 0)))
    assert state.do(add([region], state.stamp()))
    qtbot.waitUntil(lambda: bool(view.inside), timeout=20_000)
    assert view.stats().overlaps[0][1] == pytest.approx(100)

    # Out of the window: a sheet of the patches with where they lie.
    sheet = tmp_path / "top.png"
    part.strip.write_sheet(sheet)
    qtbot.waitUntil(lambda: "top.png" in part.strip.words.text(), timeout=LONG)
    with Image.open(sheet) as picture:
        assert picture.size[0] > 1280

    # It comes back from disk as it was answered.
    session(viewer).remove_run(shown)
    overlay.chooser.open(path)
    qtbot.waitUntil(lambda: overlays(viewer).current is not None, timeout=20_000)
    again = overlays(viewer).current.attention
    again.what = maps.ATTENTION
    np.testing.assert_array_equal(again.values, values)
    state.close()
    session(viewer).close_slide(session(viewer).active)
    settle(qtbot)
