"""The dialog about stored data, and the line about memory."""

from __future__ import annotations

import numpy as np
import pytest
from qtpy.QtWidgets import QApplication, QMessageBox

from napari_histomil.lock import WriterLock
from napari_histomil.resources import note_sidecar, sidecar
from napari_histomil.slides.cache import shared_cache
from napari_histomil.slides.readers import open_slide
from napari_histomil.ui.session import session
from napari_histomil.ui.widgets.slide import SlideWidget
from napari_histomil.ui.widgets.stored_data import StoredDataDialog


@pytest.fixture
def info(write_slide, checkered):
    with open_slide(write_slide(checkered)) as slide:
        return slide.info


@pytest.fixture
def folder(info, make_run):
    """The slide's sidecar with a run, an overview and a drawing."""
    make_run(info)
    folder = sidecar(info.path, info.fingerprint)
    (folder / "overview.tiff").write_bytes(b"o" * 2000)
    (folder / "annotations.geojson").write_text("{}")
    return folder


@pytest.fixture
def dialog(qtbot, info, folder):
    dialog = StoredDataDialog([info])
    qtbot.addWidget(dialog)
    dialog.show()
    qtbot.waitUntil(lambda: dialog.tree.topLevelItemCount() == 1, timeout=5000)
    return dialog


def ask(dialog):
    """Click 'Delete…' and return the question."""
    dialog.delete_button.click()
    (box,) = dialog.findChildren(QMessageBox)
    return box


def answer(box, text):
    next(button for button in box.buttons() if text in button.text()).click()


def test_it_lists_and_deletes_after_a_question(dialog, folder, qtbot):
    item = dialog.tree.topLevelItem(0)
    assert item.text(0) == "slide.tiff"
    assert item.text(2) == "1"
    assert item.text(4) == str(folder.parent)
    assert not dialog.delete_button.isEnabled()
    item.setSelected(True)
    dialog.part_boxes["Overviews"].setChecked(True)
    dialog.part_boxes["Runs"].setChecked(True)
    box = ask(dialog)
    assert "2 items with" in box.text()
    answer(box, "Cancel")
    qtbot.wait(300)
    assert (folder / "overview.tiff").is_file()
    answer(ask(dialog), "Delete")
    qtbot.waitUntil(lambda: not (folder / "runs").exists(), timeout=5000)
    assert {path.name for path in folder.iterdir()} == {"annotations.geojson"}
    qtbot.waitUntil(lambda: dialog.tree.topLevelItem(0).text(2) == "0", timeout=5000)
    dialog.tree.topLevelItem(0).setSelected(True)
    dialog.part_boxes["Everything, also what was drawn"].setChecked(True)
    answer(ask(dialog), "Delete")
    qtbot.waitUntil(lambda: not folder.exists(), timeout=5000)
    qtbot.waitUntil(lambda: "Nothing is stored" in dialog.total_label.text(), timeout=5000)


def test_a_run_that_is_being_written_is_kept_and_said_so(dialog, folder, qtbot):
    (run,) = (folder / "runs").glob("*.zarr")
    lock = WriterLock(run)
    dialog.tree.topLevelItem(0).setSelected(True)
    dialog.part_boxes["Runs"].setChecked(True)
    box = ask(dialog)
    assert "is being written by another process" in box.informativeText()
    answer(box, "Delete")
    qtbot.wait(500)
    lock.release()
    assert run.is_dir()


def test_all_that_are_known(dialog, folder, qtbot, tmp_path):
    other = tmp_path / "other" / "b.svs.histomil"
    other.mkdir(parents=True)
    (other / "view.json").write_text('{"fingerprint": "cd"}')
    note_sidecar("cd" * 32, other, tmp_path / "other" / "b.svs")
    dialog.which_box.setCurrentText("of all slides known here")
    qtbot.waitUntil(lambda: dialog.tree.topLevelItemCount() == 2, timeout=5000)
    assert dialog.tree.topLevelItem(1).text(0) == "b.svs (gone)"


def test_the_dock_opens_it_and_says_how_much_memory_is_used(make_napari_viewer, info, qtbot):
    viewer = make_napari_viewer(show=True)
    _, dock = viewer.window.add_plugin_dock_widget("napari-histomil", "Slide")
    assert isinstance(dock, SlideWidget)
    session(viewer).open_slide(info.path)
    cache = shared_cache()
    cache.clear()
    cache.get(("test",), lambda: np.zeros((1000, 1024, 1024), np.uint8))
    dock._update_memory()
    assert dock.memory_label.text() == f"Memory: 1.0 of {cache.budget_bytes / 2**30:.1f} GB"
    cache.clear()
    dock._update_memory()
    assert dock.memory_label.text().startswith("Memory: 0 MB of")
    dock.stored_button.click()
    (dialog,) = [each for each in QApplication.allWidgets() if isinstance(each, StoredDataDialog)]
    assert dialog.which_box.currentText() == "of the open slides"
    dialog.close()
