"""A segmentation from model to file, in a window, on a slide put together from real tissue."""

from __future__ import annotations

import numpy as np
import pytest
from qtpy.QtCore import Qt
from shapely import affinity

from napari_histomil.annotations.commands import reshape
from napari_histomil.annotations.formats import read_annotations
from napari_histomil.annotations.model import SlideFrame
from napari_histomil.results import SegmentationStore, find_runs
from napari_histomil.ui.annotator import annotator
from napari_histomil.ui.overlays import overlays
from napari_histomil.ui.session import session
from napari_histomil.ui.torch_shield import shield_torch
from napari_histomil.ui.widgets.annotate import AnnotateWidget
from napari_histomil.ui.widgets.export_dialog import ExportDialog
from napari_histomil.ui.widgets.overlay import OverlayWidget
from napari_histomil.ui.widgets.run import RunWidget
from tests.ui.annotating import dialog_of, settle
from tests.ui.lymph_node import MODEL, make_tumour_model, write_lymph_node

LONG = 240_000  # ms: a busy machine segments 5 Mpx, torch is imported by the first run


@pytest.fixture
def lymph_node(tmp_path, data_dir):
    if not (data_dir / "seg-camelyon-tumor").is_dir():
        pytest.skip(f"no tiles: {data_dir / 'seg-camelyon-tumor'} is missing")
    return write_lymph_node(tmp_path / "lymph node é.tiff", data_dir)


@pytest.fixture
def viewer(make_napari_viewer, tmp_path, monkeypatch):
    shield_torch()
    make_tumour_model(tmp_path / "models" / MODEL)
    monkeypatch.setenv("HISTOMIL_MODELS", str(tmp_path / "models"))
    return make_napari_viewer(show=True)


def click(qtbot, button) -> None:
    assert button.isEnabled(), button.toolTip()
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)


def test_run_watch_cancel_resume_outline_annotate_edit_export(viewer, lymph_node, tmp_path, qtbot):
    docks = [kind(viewer) for kind in (RunWidget, OverlayWidget, AnnotateWidget)]
    run, overlay, annotate = docks
    for dock in docks:
        viewer.window.add_dock_widget(dock, area="right", tabify=dock is not run)
    viewer.window._qt_window.resize(1280, 800)
    slide = session(viewer).open_slide(lymph_node)
    settle(qtbot)

    # The model is listed with what it does; bands appear from the top while it runs.
    qtbot.waitUntil(lambda: run.models.model_box.findText(MODEL) >= 0, timeout=20_000)
    run.models.model_box.setCurrentIndex(run.models.model_box.findText(MODEL))
    assert run.models.needs_label.text().startswith("segments: Glass, Lymph node, Tumor")
    click(qtbot, run.start_button)
    qtbot.waitUntil(lambda: overlays(viewer).current is not None, timeout=LONG)
    shown = overlays(viewer).current
    seen = []
    shown.painter.painted.connect(lambda: seen.append(painted_share(shown)))
    qtbot.waitUntil(lambda: bool(seen) and seen[-1] > 0.05, timeout=LONG)

    # Cancel: what is done stays, in the window and on disk.
    click(qtbot, run.cancel_button)
    qtbot.waitUntil(lambda: not run.running, timeout=LONG)
    (path,) = find_runs(slide.info, task=None)
    store = SegmentationStore.open(path)
    done = store.done_bands
    assert 0 < done.sum() < len(done)
    before = store.read(0, store.picture.bands[0].rows, store.picture.bands[0].columns)

    # Resume: the rest comes, and what was there is not touched.
    qtbot.waitUntil(lambda: run.start_button.text() == "Resume", timeout=10_000)
    click(qtbot, run.start_button)
    qtbot.waitUntil(lambda: not run.running, timeout=LONG)
    assert SegmentationStore.open(path).complete
    band = store.picture.bands[0]
    np.testing.assert_array_equal(before, store.read(0, band.rows, band.columns))
    assert overlays(viewer).current is shown
    qtbot.waitUntil(lambda: shown.painter.complete and painted_share(shown) > 0.5, timeout=LONG)
    assert seen == sorted(seen), "the picture only grows"

    # Outlines of the tumour alone, after steps with units.
    part, view = overlay.segmentation, shown.segmentation
    overlay.parentWidget().raise_()
    part.tree.topLevelItem(1).setCheckState(0, Qt.CheckState.Unchecked)
    part.draw_box.setCurrentText("outlines")
    part.draw_box.activated.emit(1)
    part.holes_box.setValue(5000)
    part.objects_box.setValue(20_000)
    assert view.names_on == ("Tumor",)
    qtbot.waitUntil(lambda: 0 < painted_share(shown) < 0.1, timeout=LONG)  # lines only
    assert shown.layer.opacity == 1.0
    click(qtbot, part.measure_button)
    qtbot.waitUntil(lambda: view.facts is not None and view.facts.exact, timeout=LONG)
    assert 1.5 < view.facts.areas_mm2["Tumor"] < 3.0, "of 3.9 mm² tissue"

    # To annotations: one step, with the model as author, on the very pixels.
    state = annotator(viewer)
    click(qtbot, part.annotate_button)
    qtbot.waitUntil(lambda: len(state.regions or ()) > 0, timeout=LONG)
    regions = list(state.regions)
    assert {(each.class_name, each.author) for each in regions} == {("Tumor", MODEL)}
    mm2 = sum(each.geometry.area for each in regions) * 0.97**2 / 1e6
    assert mm2 == pytest.approx(view.facts.areas_mm2["Tumor"], rel=1e-3)
    assert all(each.geometry.area * 0.97**2 >= 20_000 for each in regions)

    # One is edited, and both steps can be undone and done again.
    target = min(regions, key=lambda each: each.geometry.area)
    moved = affinity.translate(target.geometry, 7, 5)
    stamp = state.stamp()
    assert state.attempt(lambda kept: reshape(kept, {target.id: moved}, "move a region", stamp))
    assert state.regions.get(target.id).geometry.equals_exact(moved, 0.02)
    state.undo()
    assert state.regions.get(target.id).geometry.equals(target.geometry)
    state.undo()
    assert len(state.regions) == 0, "all regions of the model are one step"
    state.redo()
    state.redo()
    assert len(state.regions) == len(regions)

    # Exported and read again, the regions are the same; so they are when the slide is reopened.
    annotate.parentWidget().raise_()
    qtbot.waitUntil(annotate.files.export_button.isEnabled, timeout=10_000)
    click(qtbot, annotate.files.export_button)
    out = tmp_path / "tumour.geojson"
    dialog_of(ExportDialog).write(out)
    qtbot.waitUntil(lambda: "tumour.geojson" in annotate.files.words.text(), timeout=LONG)
    file = read_annotations(out, frame=SlideFrame.of(slide.info))
    assert [each.id for each in file.regions] == [each.id for each in state.regions]
    session(viewer).close_slide(slide)
    settle(qtbot)
    session(viewer).open_slide(lymph_node)
    qtbot.waitUntil(lambda: len(state.regions or ()) == len(regions), timeout=20_000)
    by_id = {each.id: each for each in state.regions}
    assert by_id[target.id].geometry.equals_exact(moved, 0.02)
    overlay.chooser.open(path)
    qtbot.waitUntil(lambda: overlays(viewer).current is not None, timeout=20_000)
    assert overlays(viewer).current.segmentation is not None
    state.close()
    session(viewer).close_slide(session(viewer).active)
    settle(qtbot)


def painted_share(shown) -> float:
    """Share of the picture that is not bare."""
    return float((shown.layer.data[..., 3] > 0).mean())
