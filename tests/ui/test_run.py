"""The Run dock: what it offers, and real runs of a tiny model, started and stopped by clicks."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
from model_folders import make_encoder_folder, make_model_folder, make_segmenter_folder
from napari.components import ViewerModel
from qtpy.QtCore import QEvent, QObject, Qt, QThreadPool
from qtpy.QtWidgets import QFileDialog

from napari_histomil.errors import HistomilError
from napari_histomil.geometry import Rect
from napari_histomil.heatmaps import score_image, threshold_stats
from napari_histomil.inference.job import Progress
from napari_histomil.manifest import StepModels, load_manifest, write_chain
from napari_histomil.results import RunStore, find_runs
from napari_histomil.tiling import GridSpec
from napari_histomil.ui.dialogs import ErrorDialog, MppDialog
from napari_histomil.ui.layers import to_world_um
from napari_histomil.ui.overlays import overlays
from napari_histomil.ui.run_facts import made_by
from napari_histomil.ui.session import session
from napari_histomil.ui.torch_shield import shield_torch
from napari_histomil.ui.widgets.overlay import OverlayWidget
from napari_histomil.ui.widgets.run import RunWidget
from napari_histomil.ui.widgets.run_options import RunOptions
from napari_histomil.ui.widgets.run_progress import RunProgress
from napari_histomil.ui.words import duration

LEFT = Qt.MouseButton.LeftButton
LONG = 60_000  # ms: torch is imported by the first run, on a busy machine


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> SimpleNamespace:
    """Folder of a tiny model with random weights, and one of a model that is broken."""
    shield_torch()  # other tests have opened windows in this process
    folder = tmp_path_factory.mktemp("models")
    good = make_model_folder(folder / "tiny")
    broken = folder / "torn"
    broken.mkdir()
    (broken / "model.json").write_text('{"schema_version": 1}', encoding="utf-8")
    return SimpleNamespace(folder=folder, good=good, broken=broken)


@pytest.fixture
def pixels() -> np.ndarray:
    """1200 x 900 px of coloured noise: nothing is glass, no two tiles are equal."""
    rng = np.random.default_rng(0)
    image = np.zeros((900, 1200, 3))
    for size in (4, 20, 100):
        coarse = rng.uniform(0, 85, (900 // size, 1200 // size, 3))
        image += np.kron(coarse, np.ones((size, size, 1)))
    return image.astype(np.uint8)


@pytest.fixture
def slide_path(write_slide, pixels):
    return write_slide(pixels, "noise [1] ü.tiff")


@pytest.fixture
def viewer(monkeypatch, models):
    """Layers and camera without a window: quick, and all that most of these tests need."""
    monkeypatch.setenv("HISTOMIL_MODELS", str(models.folder))
    return ViewerModel()


@pytest.fixture
def dock(viewer, qtbot) -> RunWidget:
    widget = RunWidget(viewer)
    qtbot.addWidget(widget)
    qtbot.waitUntil(lambda: widget.models.model is not None, timeout=10_000)
    choose_model(widget, "tiny")
    return widget


def choose_model(dock: RunWidget, name: str) -> None:
    dock.models.model_box.setCurrentIndex(dock.models.model_box.findText(name))
    assert dock.models.model.name == name


def click(qtbot, button) -> None:
    assert button.isEnabled(), button.toolTip()
    qtbot.mouseClick(button, LEFT)


def start_and_wait(dock: RunWidget, qtbot) -> None:
    click(qtbot, dock.start_button)
    assert dock.running
    qtbot.waitUntil(lambda: not dock.running, timeout=LONG)


def only_run(slide) -> RunStore:
    (path,) = find_runs(slide.info)
    return RunStore.open(path)


def test_start_lays_a_heatmap_that_fills_in(dock, viewer, qtbot, slide_path):
    slide = session(viewer).open_slide(slide_path)
    shapes = viewer.add_shapes()
    dock.region.buttons["Whole slide"].click()
    dock.options.stride_spin.value = 8  # four times the tiles: long enough to be watched
    layers, done = [], []

    def watch(run):
        layers.append((run.layer, run.heatmap.done_tiles))
        run.heatmap.filled.connect(lambda: done.append(run.heatmap.done_tiles))

    overlays(viewer).current_changed.connect(watch)
    start_and_wait(dock, qtbot)

    store = only_run(slide)
    assert store.complete
    assert layers[0][1] < len(store.grid), "the layer comes while tiles are still to come"
    assert layers[0][0] is overlays(viewer).current.layer
    assert done == sorted(done)
    assert done[-1] == len(store.grid) == 75 * 57
    tumor = store.class_names.index("tumor")
    np.testing.assert_array_equal(
        layers[0][0].data, score_image(store.grid, store.scores[:, tumor])
    )
    assert list(viewer.layers) == [slide.layer, layers[0][0], shapes]
    assert viewer.layers.selection.active is shapes
    assert dock.progress.label.text().startswith("Done: 4\u202f275 tiles in ")
    assert dock.progress.bar.isHidden()
    assert session(viewer).runs[0].heatmap.stats() == threshold_stats(
        store.grid, store.scores[:, tumor], 0.0
    )
    qtbot.waitUntil(lambda: dock.start_button.text() == "Show result", timeout=5000)
    overlays(viewer).current_changed.disconnect(watch)
    viewer.layers.remove(layers[0][0])
    qtbot.waitUntil(lambda: "computed already" in dock.earlier_label.text(), timeout=5000)
    click(qtbot, dock.start_button)
    assert not dock.running, "what is stored is shown without a model"
    assert overlays(viewer).current.heatmap.done_tiles == len(store.grid)


def test_cancel_within_a_second_then_resume(dock, viewer, qtbot, slide_path):
    slide = session(viewer).open_slide(slide_path)
    dock.region.buttons["Whole slide"].click()
    dock.options.stride_spin.value = 3
    click(qtbot, dock.start_button)
    assert not dock.start_button.isEnabled()
    assert not dock.models.isEnabled()
    qtbot.waitUntil(lambda: dock.progress.bar.value() > 0, timeout=LONG)
    assert " tiles/s, " in dock.progress.label.text()
    click(qtbot, dock.cancel_button)
    assert not dock.cancel_button.isEnabled()
    qtbot.waitUntil(lambda: not dock.running, timeout=1000)

    store = only_run(slide)
    kept, total = int(store.done_tiles.sum()), len(store.grid)
    assert 0 < kept < total == 200 * 150
    assert overlays(viewer).current.heatmap.done_tiles == kept, "all that is kept is shown"
    assert "are done and kept" in dock.progress.label.text()
    before = store.scores.copy()
    qtbot.waitUntil(lambda: dock.start_button.text() == "Resume", timeout=5000)
    assert "are already done: Resume" in dock.earlier_label.text()

    assert dock.progress.label.text().startswith("Cancelled: ")
    dock.options.stride_spin.value = 16  # another job: nothing to resume
    assert dock.start_button.text() == "Start"
    assert dock.progress.label.text() == ""
    dock.options.stride_spin.value = 3
    qtbot.waitUntil(lambda: dock.start_button.text() == "Resume", timeout=5000)
    click(qtbot, dock.start_button)
    qtbot.waitUntil(lambda: dock.progress.bar.value() > kept, timeout=LONG)
    dock.cancel()
    qtbot.waitUntil(lambda: not dock.running, timeout=1000)
    after = only_run(slide).scores
    known = np.isfinite(before)
    np.testing.assert_array_equal(after[known], before[known])
    assert np.isfinite(after).sum() > known.sum()
    assert len(session(viewer).runs) == 1, "a resumed run goes on in its own layer"


def test_a_run_goes_on_without_its_slide_in_the_window(dock, viewer, qtbot, slide_path):
    slide = session(viewer).open_slide(slide_path)
    info = slide.info
    dock.region.buttons["Whole slide"].click()
    dock.options.stride_spin.value = 3
    click(qtbot, dock.start_button)
    session(viewer).close_slide(slide)
    qtbot.waitUntil(lambda: dock.progress.bar.value() > 0, timeout=LONG)
    assert dock.slide_label.text() == slide.name, "the one that is run"
    dock.cancel()
    qtbot.waitUntil(lambda: not dock.running, timeout=1000)
    assert dock.slide_label.text() == "No slide is open."
    assert session(viewer).runs == []
    (path,) = find_runs(info)
    assert RunStore.open(path).done_tiles.any()


def test_tiles_near_the_view_come_first(dock, viewer, qtbot, slide_path):
    slide = session(viewer).open_slide(slide_path)
    dock.region.buttons["Whole slide"].click()
    dock.options.stride_spin.value = 3
    corner = np.array(to_world_um((1200, 900), slide.info))
    viewer.scene.camera.center = (0, *corner)
    viewer.scene.camera.zoom = 4
    click(qtbot, dock.start_button)
    qtbot.waitUntil(lambda: dock.progress.bar.value() > 0, timeout=LONG)
    dock.cancel()
    qtbot.waitUntil(lambda: not dock.running, timeout=5000)
    store = only_run(slide)
    done = store.done_tiles
    rects = store.grid.cell_rects_px0
    away = np.linalg.norm(rects[:, :2] + rects[:, 2:] / 2 - (1200, 900), axis=1)
    # whole blocks, so not exactly the nearest tiles, but no far one before a near one
    assert np.quantile(away[done], 0.9) < np.quantile(away[~done], 0.1) + 100


def test_regions(dock, viewer, qtbot, slide_path):
    slide = session(viewer).open_slide(slide_path)
    buttons = dock.region.buttons
    assert dock.plan().region.kind == "tissue"
    assert not buttons["Drawn shapes"].isEnabled()
    assert "Shapes layer" in buttons["Drawn shapes"].toolTip()

    squares = [np.array([(0, 0), (0, 100), (100, 100), (100, 0)]) + 200 * i for i in range(2)]
    shapes = viewer.add_shapes(squares, shape_type="polygon", scale=(0.5, 0.5), units="um")
    viewer.layers.selection.active = slide.layer
    buttons["Drawn shapes"].click()
    region = dock.plan().region
    assert (region.kind, len(region.polygons_wkt)) == ("polygons", 2)
    assert buttons["Drawn shapes"].text() == "Drawn shapes (2 of 2)"
    with qtbot.waitSignal(dock.region.changed):
        shapes.selected_data = {1}
    assert buttons["Drawn shapes"].text() == "Drawn shapes (1 of 2)"
    (polygon,) = dock.plan().region.polygons_wkt
    assert "(200 200, 300 200" in polygon or "(200 200, 200 300" in polygon
    viewer.layers.remove(shapes)
    assert buttons["Tissue"].isChecked()

    buttons["What is in view"].click()
    viewer.scene.camera.center = (0, *to_world_um((600, 450), slide.info))
    viewer.canvas.size = (100, 200)
    viewer.scene.camera.zoom = 1  # a canvas pixel a µm: 400 x 200 px of the slide
    region = dock.plan().region
    assert (region.kind, region.rect_px0) == ("rect", Rect(400, 350, 400, 200))
    with qtbot.waitSignal(dock.region.changed):
        viewer.scene.camera.center = (0, -1e5, -1e5)
    with pytest.raises(HistomilError, match=r"Nothing of noise .* is in view"):
        dock.plan()


def test_options_are_the_models_own_until_changed(dock, viewer, slide_path):
    session(viewer).open_slide(slide_path)
    job = dock.plan()
    (grid,) = job.grids
    assert (grid.mpp, grid.tile_px, grid.stride_px, job.stain.method) == (1.0, 32, 16, "none")
    assert dock.options.batch is None
    dock.options.mpp_spin.value = 0.5
    dock.options.stride_spin.value = 32
    dock.options.stain_box.value = "Macenko"
    dock.options.batch_box.value = "8"
    changed = dock.plan()
    (grid,) = changed.grids
    assert (grid.mpp, grid.stride_px, changed.stain.method) == (0.5, 32, "macenko")
    assert dock.options.batch == 8
    assert changed.run_id != job.run_id
    assert dock.options.stride_spin.max == 32, "a stride above the tile would leave gaps"


def test_the_models_resolution_is_not_rounded(qtbot, models):
    own = load_manifest(models.good)
    odd = replace(own, grid=GridSpec(0.25234, 32, 16))
    options = RunOptions()
    qtbot.addWidget(options)
    options.take_from(odd)
    assert options.mpp == 0.25234
    options.mpp_spin.value = 0.5
    assert options.mpp == 0.5
    options.take_from(own)
    assert options.mpp == 1.0


def test_models_say_what_they_need_and_broken_ones_why(dock, models, qtbot):
    box = dock.models.model_box
    assert "normal, tumor\n1 µm/px (10x), tile 32 px, stride 16 px" in (
        dock.models.needs_label.text()
    )
    torn = box.findText("a model that cannot be used")
    assert str(models.broken / "model.json") in box.itemData(torn, Qt.ItemDataRole.ToolTipRole)
    box.setCurrentIndex(torn)
    assert str(models.broken / "model.json") in dock.models.needs_label.text()
    assert dock.models.model is None
    assert not dock.start_button.isEnabled()
    choose_model(dock, "tiny")
    card = dock.models.show_card()
    text = card.text.toPlainText()
    assert "Random weights, for tests." in text
    assert "BSD-3-Clause" in text
    card.close()


def test_models_from_elsewhere_can_be_added(dock, models, qtbot, tmp_path, monkeypatch):
    copy = tmp_path / "mine"
    copy.mkdir()
    for file in models.good.iterdir():
        text = file.read_bytes()
        (copy / file.name).write_bytes(text.replace(b'"tiny"', b'"mine"'))
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_, **__: str(copy))
    qtbot.mouseClick(dock.models.add_button, LEFT)
    qtbot.waitUntil(lambda: dock.models.model.name == "mine", timeout=5000)
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_, **__: str(models.broken))
    qtbot.mouseClick(dock.models.add_button, LEFT)
    (dialog,) = dock.findChildren(ErrorDialog)
    assert str(models.broken) in dialog.sentence
    dialog.close()


def test_models_that_segment_are_listed_with_what_they_do(dock, qtbot, tmp_path):
    assert dock.models.needs_label.text().startswith("classifies tiles: normal, tumor\n")
    dock.models.add_folder(make_segmenter_folder(tmp_path / "unet"))
    qtbot.waitUntil(lambda: dock.models.model.name == "unet", timeout=10_000)
    assert dock.models.needs_label.text().startswith("segments: normal, Tumor\n")


def test_a_chain_runs_and_is_shown_as_a_segmentation(dock, viewer, qtbot, slide_path, tmp_path):
    session(viewer).open_slide(slide_path)
    make_segmenter_folder(tmp_path / "unet", background_class="normal")
    make_model_folder(tmp_path / "finder")
    steps = StepModels(load_manifest(tmp_path / "finder"), None, load_manifest(tmp_path / "unet"))
    write_chain(tmp_path / "chain", "chain", steps, threshold=0.0, margin_um=0.0)
    dock.models.add_folder(tmp_path)
    qtbot.waitUntil(lambda: dock.models.model_box.findText("chain") >= 0, timeout=10_000)
    choose_model(dock, "chain")
    assert dock.models.needs_label.text().startswith("segments in steps: normal, Tumor\n")
    dock.region.buttons["Whole slide"].click()
    start_and_wait(dock, qtbot)
    run = overlays(viewer).current
    assert run.segmentation is not None
    qtbot.waitUntil(lambda: run.segmentation.facts is not None)
    qtbot.waitUntil(lambda: run.painter.complete)
    assert run.layer.data.any()
    total = len(run.store.grid)
    assert made_by(run.store).endswith(f"chain: looked closely at {total} of {total} tiles")


def test_what_answers_for_no_slide_is_not_listed(dock, qtbot, tmp_path):
    """An encoder, say."""
    arguments = {"channels": [8, 16, 16, 16], "stem_width": 8}
    make_encoder_folder(tmp_path / "encoder", "resnet10t", arguments)
    dock.models.add_folder(tmp_path / "encoder")
    (dialog,) = dock.findChildren(ErrorDialog)
    assert "encoder does not answer for a slide by itself" in dialog.sentence
    dialog.close()
    make_model_folder(tmp_path / "late")
    dock.models.add_folder(tmp_path)
    qtbot.waitUntil(lambda: dock.models.model_box.findText("late") >= 0, timeout=10_000)
    assert dock.models.model_box.findText("encoder") < 0


def test_what_is_impossible_says_why(dock, viewer, slide_path):
    assert not dock.start_button.isEnabled()
    assert dock.start_button.toolTip() == "Open a slide first"
    assert not dock.cancel_button.isEnabled()
    opened = session(viewer).open_slide(slide_path)
    assert dock.start_button.isEnabled()
    assert dock.slide_label.text() == "noise [1] ü.tiff"
    assert dock.size_label.text() == "0.6 x 0.45 mm at 0.5 µm/px"
    session(viewer).close_slide(opened)
    assert not dock.start_button.isEnabled()


def test_a_slide_without_scale_is_asked_for_it_and_then_run(
    dock, viewer, qtbot, write_slide, pixels
):
    slide = session(viewer).open_slide(write_slide(pixels, "bare.tiff", mpp=None))
    dock.region.buttons["Whole slide"].click()
    click(qtbot, dock.start_button)
    (dialog,) = dock.findChildren(MppDialog)
    dialog.edit.setText("0.5")
    dialog.accept_button.click()
    qtbot.waitUntil(lambda: dock.running, timeout=5000)
    qtbot.waitUntil(lambda: not dock.running, timeout=LONG)
    assert only_run(slide).complete
    assert overlays(viewer).current is not None


def test_a_tile_that_cannot_be_read_stops_the_run_in_words(dock, viewer, qtbot, tmp_path, pixels):
    path = tmp_path / "hurt.tiff"
    options = {"photometric": "rgb", "tile": (256, 256), "compression": "jpeg"}
    with tifffile.TiffWriter(path) as file:
        file.write(pixels, resolution=(20_000, 20_000), resolutionunit=3, **options)
        file.write(np.ascontiguousarray(pixels[::4, ::4]), subfiletype=1, **options)
    with tifffile.TiffFile(path) as file:
        last = file.pages[0].dataoffsets[-1]  # the window looks at the smaller level only
    whole = bytearray(path.read_bytes())
    whole[last : last + 200] = bytes(200)
    path.write_bytes(whole)
    viewer.canvas.size = (200, 200)
    slide = session(viewer).open_slide(path)
    dock.region.buttons["Whole slide"].click()
    start_and_wait(dock, qtbot)
    (dialog,) = dock.findChildren(ErrorDialog)
    assert dialog.windowTitle() == "This did not work"
    assert "hurt.tiff" in dialog.sentence
    assert "Traceback" not in dialog.sentence
    assert "Traceback" in dialog.report
    assert slide.info.fingerprint in dialog.report
    assert "error" in dock.progress.label.text()
    for run in session(viewer).runs:
        assert run.store.path.exists(), "no heatmap without a run on disk"
    dialog.close()


def test_closing_the_window_stops_the_run(
    make_napari_viewer, monkeypatch, models, qtbot, slide_path
):
    monkeypatch.setenv("HISTOMIL_MODELS", str(models.folder))
    viewer = make_napari_viewer()
    dock = RunWidget(viewer)
    viewer.window.add_dock_widget(dock)
    qtbot.waitUntil(lambda: dock.models.model is not None, timeout=10_000)
    choose_model(dock, "tiny")
    slide = session(viewer).open_slide(slide_path)
    info = slide.info
    dock.region.buttons["Whole slide"].click()
    dock.options.stride_spin.value = 3
    click(qtbot, dock.start_button)
    qtbot.waitUntil(lambda: dock.progress.bar.value() > 0, timeout=LONG)
    job = dock._job
    viewer.close()
    assert job.cancelled
    assert QThreadPool.globalInstance().waitForDone(2000)
    qtbot.waitUntil(lambda: not job.running, timeout=2000)
    (path,) = find_runs(info)
    with RunStore.open(path, writable=True) as store:  # nobody holds it any more
        assert store.done_tiles.any()
        assert store.sessions[-1]["state"] == "cancelled"


def test_a_real_slide_from_start_to_the_pixels_on_the_screen(
    make_napari_viewer, monkeypatch, models, qtbot, data_dir, tmp_path
):
    original = data_dir / "wsi-aperio-svs" / "CMU-1-Small-Region.svs"
    path = tmp_path / original.name
    path.write_bytes(original.read_bytes())
    monkeypatch.setenv("HISTOMIL_MODELS", str(models.folder))
    viewer = make_napari_viewer(show=True)
    dock, overlay = RunWidget(viewer), OverlayWidget(viewer)
    for widget in (dock, overlay):
        viewer.window.add_dock_widget(widget)
    qtbot.waitUntil(lambda: dock.models.model is not None, timeout=10_000)
    choose_model(dock, "tiny")
    slide = session(viewer).open_slide(path)
    start_and_wait(dock, qtbot)
    run = overlays(viewer).current
    store = only_run(slide)
    stats = threshold_stats(store.grid, store.scores[:, run.heatmap.class_index], 0.0)
    assert f"<b>{stats.area_mm2:.2f} mm²</b>" in overlay.stats_label.text()
    assert 0.3 < stats.area_mm2 < 1.2, "of 1.6 mm² about a third is tissue"

    overlays(viewer).next_hottest()
    run.layer.opacity = 1.0
    qtbot.wait(200)
    screen = viewer.screenshot(canvas_only=True, flash=False)[..., :3]
    middle = screen[screen.shape[0] // 2, screen.shape[1] // 2].astype(float)
    hottest = np.nanmax(run.heatmap.image)
    expected = np.asarray(run.layer.colormap.map([hottest]))[0, :3] * 255
    np.testing.assert_allclose(middle, expected, atol=2)


def test_progress_is_told_with_units(qtbot):
    progress = RunProgress()
    qtbot.addWidget(progress)
    here = Rect(0, 0, 1, 1)
    progress.show_progress(Progress(0, 780, 0, 0.0, here, Path()))
    assert progress.label.text() == "0 of 780 tiles, preparing the model…"
    progress.show_progress(Progress(312, 780, 12, 6.0, here, Path()))
    assert progress.label.text() == "312 of 780 tiles, 50 tiles/s, 9 s left"
    assert (progress.bar.value(), progress.bar.maximum()) == (312, 780)
    progress.end(Progress(312, 780, 12, 6.0, here, Path()), cancelled=True)
    assert progress.label.text() == "Cancelled: 312 of 780 tiles are done and kept."
    progress.end(Progress(780, 780, 780, 0.0, here, Path()), cancelled=False)
    assert progress.label.text() == "All 780 tiles were done already."


def test_bar_and_sentence_of_the_progress_are_painted_together(qtbot):
    """A bar that is given a value paints itself at once, and the sentence would still be old."""
    progress = RunProgress()
    qtbot.addWidget(progress)
    progress.show_progress(Progress(0, 780, 0, 0.0, Rect(0, 0, 1, 1), Path()))
    with qtbot.waitExposed(progress):
        progress.show()
    shown = []

    class Watch(QObject):
        def eventFilter(self, watched, event):
            if event.type() == QEvent.Type.Paint:
                shown.append((progress.bar.value(), progress.label.text()))
            return False

    watch = Watch()
    progress.bar.installEventFilter(watch)
    progress.show_progress(Progress(312, 780, 12, 6.0, Rect(0, 0, 1, 1), Path()))
    qtbot.waitUntil(lambda: bool(shown))
    assert {text for value, text in shown if value == 312} == {progress.label.text()}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "1 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (125, "2 min 5 s"), (3840, "1 h 4 min")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_docks_need_no_torch_and_torch_survives_the_window():
    """In a process of its own: docks without torch; then torch, after OpenGL, in a thread."""
    code = """
        import sys
        import napari
        from qtpy.QtWidgets import QApplication
        from napari_histomil.ui.widgets.overlay import OverlayWidget
        from napari_histomil.ui.widgets.run import RunWidget

        viewer = napari.Viewer(show=True)
        viewer.open_sample("napari", "astronaut")
        dock = RunWidget(viewer)
        OverlayWidget(viewer)
        QApplication.processEvents()
        assert "torch" not in sys.modules
        dock.devices.device_box.setCurrentText("cpu")
        dock.devices.test()
        while not dock.devices.test_button.isEnabled():
            QApplication.processEvents()
        assert "timm" not in sys.modules
        from napari_histomil.ui import jobs

        def load(cancel):
            import timm
            yield timm.create_model("resnet10t")

        loaded = []
        job = jobs.start(load, on_progress=loaded.extend, on_done=print, on_error=print)
        while job.running:
            QApplication.processEvents()
        assert loaded
        print(dock.devices.name_label.text())
        viewer.close()
    """
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-W", "ignore", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "(cpu) works: " in done.stdout
    assert "GFLOP/s" in done.stdout
