"""From the window only: two slides are annotated, a U-Net is trained, and run on a third."""

from __future__ import annotations

import napari
import numpy as np
import pytest
from qtpy.QtCore import Qt

from napari_histomil.manifest import find_model
from napari_histomil.results import find_runs
from napari_histomil.results.segmentation import SegmentationStore
from napari_histomil.training.config import read_config
from napari_histomil.ui.session import session
from napari_histomil.ui.training_data import BACKGROUND
from napari_histomil.ui.training_job import all_unfinished
from napari_histomil.ui.window import open_window
from tests.ui.annotating import Desk

LONG = 300_000  # ms: other programs may need the machine
SIDE = 384


@pytest.fixture
def tissue(write_slide):
    """Write slides at 0.5 µm/px: light tissue, and dark tumour from a given column on."""

    def write(name: str, column: int):
        rng = np.random.default_rng(column)
        pixels = rng.normal((225, 190, 215), 10, (SIDE, SIDE, 3))
        pixels[:, column:] -= (110, 120, 70)
        return write_slide(pixels.clip(0, 255).astype(np.uint8), name)

    return write


@pytest.fixture
def viewer(make_napari_viewer, monkeypatch, qtbot):
    monkeypatch.setattr(napari, "Viewer", make_napari_viewer)
    viewer = open_window(front="Annotate")
    qtbot.wait(50)
    return viewer


def dock_of(viewer, name: str):
    return viewer.window.dock_widgets[f"{name} (napari-histomil)"]


def click(qtbot, button) -> None:
    assert button.isEnabled(), button.toolTip()
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)


def test_annotate_train_run(viewer, qtbot, tissue, tmp_path):
    desk = Desk(viewer, dock_of(viewer, "Annotate"), qtbot)
    train = dock_of(viewer, "Train")

    # Two slides are annotated: all of one, a part of the other.
    paths = [tissue("one.tiff", 190), tissue("two.tiff", 250)]
    for path, column in zip(paths, (190, 250), strict=True):
        session(viewer).open_slide(path)
        desk.settle()
        desk.draw((0, 0, SIDE, SIDE), "Region*")
        desk.draw((column, 0, SIDE, SIDE), "Tumor")
    desk.draw((0, 0, 60, 60), "Ignore*")
    qtbot.waitUntil(
        lambda: len(train.data.chosen) == 2 and train.data.chosen[1].ignored, timeout=LONG
    )

    # The dock says what will be learnt from what, and a small training is chosen.
    qtbot.waitUntil(
        lambda: train.split_label.text() != "" and train.start_button.isEnabled(), timeout=LONG
    )
    assert train.split_label.text() == "Slides: 1 for training, 1 for validation."
    assert [each.name for each in train.classes.classes] == [BACKGROUND, "Tumor"]
    assert (train.classes.positive, train.classes.background) == ("Tumor", BACKGROUND)
    train.name_box.setEditText("toy-unet")
    train.how.tile_spin.setValue(64)
    train.how.steps_spin.setValue(30)
    train.how.batch_spin.setValue(4)
    saved = tmp_path / "toy.toml"
    train.save(saved)
    qtbot.waitUntil(lambda: train.start_button.isEnabled())

    # It is cancelled on the way, and goes on.
    click(qtbot, train.start_button)
    qtbot.waitUntil(lambda: train.progress.bar.value() >= 2, timeout=LONG)
    click(qtbot, train.cancel_button)
    qtbot.waitUntil(lambda: not train.running, timeout=LONG)
    assert "Resume goes on from there" in train.progress.label.text()
    assert all_unfinished() == ["toy-unet"]
    click(qtbot, train.resume_button)
    assert train.progress.curves.training, "the curves of what was done are drawn again"
    qtbot.waitUntil(lambda: not train.running, timeout=LONG)
    assert train.progress.model is not None, desk.errors()
    steps = [step for step, _ in train.progress.curves.training]
    assert steps == list(range(1, 31))
    assert [step for step, _ in train.progress.curves.score] == [10, 20, 30]
    assert train.progress.curves.score[-1][1] > 0.8
    assert "best validation" not in train.progress.label.text()
    assert "Validation, on which the weights were chosen: Dice" in train.progress.scores.text()
    assert all_unfinished() == []

    # The model folder holds the very training that was saved before, and Run is told of it.
    model = find_model("toy-unet")
    assert model.task == "segment"
    assert model.class_names == (BACKGROUND, "Tumor")
    assert read_config(model.path / "train.toml") == read_config(saved)
    card = train.progress.show_card()
    assert "toy-unet" in card.text.toPlainText()
    card.reject()
    click(qtbot, train.progress.use_button)
    run = dock_of(viewer, "Run")
    assert not run.visibleRegion().isEmpty()
    qtbot.waitUntil(
        lambda: run.models.model is not None and run.models.model.name == "toy-unet", timeout=LONG
    )

    # A third slide: its dark part is found.
    third = session(viewer).open_slide(tissue("three.tiff", 130))
    desk.settle()
    run.region.buttons["Whole slide"].click()
    click(qtbot, run.start_button)
    qtbot.waitUntil(lambda: not run.running, timeout=LONG)
    (path,) = find_runs(third.info, task="segment")
    with_tumor = np.asarray(SegmentationStore.open(path).levels[0][1]) > 127
    truth = np.zeros_like(with_tumor)
    truth[:, 65:] = True  # 130 px at 0.5 µm/px
    assert (with_tumor & truth).sum() * 2 / (with_tumor.sum() + truth.sum()) > 0.85
    for slide in list(session(viewer).slides):
        session(viewer).close_slide(slide)
    desk.settle()
