"""The Run dock's ways to a MIL answer: of a slide, and of features that are in a file already."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from model_folders import make_encoder_folder, make_mil_folder, make_model_folder
from napari.components import ViewerModel
from qtpy.QtCore import Qt

from napari_histomil.inference.job import MilSpec
from napari_histomil.results import find_results
from napari_histomil.ui.dialogs import ErrorDialog
from napari_histomil.ui.mil_job import FromFile
from napari_histomil.ui.overlays import overlays
from napari_histomil.ui.session import session
from napari_histomil.ui.torch_shield import shield_torch
from napari_histomil.ui.widgets.features_dialog import FeaturesDialog
from napari_histomil.ui.widgets.run import RunWidget

LONG = 60_000  # ms: on a busy machine


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Models: one of tiles, an encoder, two MIL models over it."""
    shield_torch()
    folder = tmp_path_factory.mktemp("models")
    make_model_folder(folder / "tiny")
    arguments = {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8], "stem_width": 8}
    encoder = make_encoder_folder(folder / "tiles", "resnet10t", arguments)
    make_mil_folder(folder / "gated", "gated-attention", encoder)
    make_mil_folder(folder / "trans", "transmil", encoder)
    return folder


@pytest.fixture
def viewer(monkeypatch, folder):
    monkeypatch.setenv("HISTOMIL_MODELS", str(folder))
    return ViewerModel()


@pytest.fixture
def slide(viewer, write_slide, checkered):
    return session(viewer).open_slide(write_slide(checkered, "slide [1] ü.tiff"))


@pytest.fixture
def dock(viewer, slide, qtbot) -> RunWidget:
    widget = RunWidget(viewer)
    qtbot.addWidget(widget)
    qtbot.waitUntil(lambda: widget.models.model_box.findText("trans") >= 0, timeout=10_000)
    return widget


@pytest.fixture
def features(tmp_path) -> Path:
    """TRIDENT's file of 16 values for each of 20 tiles of 128 px."""
    path = tmp_path / "slide.h5"
    xy = np.array([(x * 128, y * 128) for y in range(4) for x in range(5)])
    with h5py.File(path, "w") as file:
        file["features"] = np.random.default_rng(0).normal(size=(20, 16)).astype(np.float32)
        coords = file.create_dataset("coords", data=xy.astype(np.int64))
        coords.attrs["patch_size"] = coords.attrs["patch_size_level0"] = 128
    return path


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    """CLAM's single branch with gated attention, as its authors' program saves it."""
    torch.manual_seed(0)
    layers = {
        "attention_net.0": (16, 8),
        "attention_net.3.attention_a.0": (8, 4),
        "attention_net.3.attention_b.0": (8, 4),
        "attention_net.3.attention_c": (4, 1),
        "classifiers": (8, 2),
        "instance_classifiers.0": (8, 2),
        "instance_classifiers.1": (8, 2),
    }
    made = {name: torch.nn.Linear(*sizes) for name, sizes in layers.items()}
    path = tmp_path / "clam.pt"
    torch.save(
        {f"{n}.{k}": v for n, net in made.items() for k, v in net.state_dict().items()}, path
    )
    return path


def choose_model(dock: RunWidget, name: str) -> None:
    dock.models.model_box.setCurrentIndex(dock.models.model_box.findText(name))
    assert dock.models.model.name == name


def test_a_mil_model_is_asked_as_it_was_trained(dock):
    choose_model(dock, "tiny")
    assert dock.options.mpp_spin.native.isVisibleTo(dock.options)
    assert not dock.options.mil.passes_box.isVisibleTo(dock.options)
    choose_model(dock, "gated")
    assert dock.models.needs_label.text().startswith("answers for the slide: normal, tumor")
    assert "features of tiles" in dock.models.needs_label.text()
    assert not dock.options.mpp_spin.native.isVisibleTo(dock.options)
    assert dock.options.mil.passes_box.isVisibleTo(dock.options)
    assert dock.plan().mil == MilSpec()
    dock.options.mil.passes_box.setCurrentText("10 passes with dropout")
    dock.options.mil.finer_box.setCurrentText("steps of half a patch")
    job = dock.plan()
    assert (job.task, job.mil) == ("mil", MilSpec(passes=10, finer=2))
    choose_model(dock, "trans")
    assert dock.plan().mil == MilSpec()
    assert not dock.options.mil.finer_box.isEnabled(), "its attention depends on all patches"


def test_the_answer_of_a_slide_stands_in_the_dock_with_its_spread(dock, viewer, slide, qtbot):
    choose_model(dock, "gated")
    dock.region.buttons["Whole slide"].click()
    dock.options.mil.passes_box.setCurrentText("10 passes with dropout")
    qtbot.mouseClick(dock.start_button, Qt.MouseButton.LeftButton)
    assert dock.progress.label.text().startswith("Preparing: loading model and encoder")
    qtbot.waitUntil(lambda: not dock.running, timeout=LONG)
    run = overlays(viewer).current
    assert run.attention is not None
    assert " ± " in dock.answer.label.text()
    assert "standard deviation of 10 passes with dropout" in dock.answer.label.text()
    qtbot.waitUntil(lambda: dock.start_button.text() == "Show result", timeout=10_000)
    session(viewer).remove_run(run)
    assert not dock.answer.isVisibleTo(dock)
    qtbot.waitUntil(lambda: dock.earlier_label.text() == "This has been answered already.")
    qtbot.mouseClick(dock.start_button, Qt.MouseButton.LeftButton)
    assert overlays(viewer).current.store.run_id == run.store.run_id
    assert dock.answer.isVisibleTo(dock)


def test_features_and_a_checkpoint_of_others_become_a_map(
    dock, viewer, slide, features, checkpoint, qtbot
):
    dock.from_file.start(FromFile(features, checkpoint=checkpoint, class_names=("a", "b")))
    assert not dock.from_file.button.isEnabled()
    qtbot.waitUntil(lambda: overlays(viewer).current is not None, timeout=LONG)
    run = overlays(viewer).current
    assert run.store.class_names == ("a", "b")
    assert run.attention.examined == 20
    assert run.attention.tile_at((130.0, 10.0)) == 1
    assert run.attention.tile_at((10.0, 130.0)) == 5
    assert run.attention.tile_at((700.0, 10.0)) is None
    assert dock.from_file.words.text() == ""
    assert "not calibrated" in dock.answer.label.text()
    assert run.store.path in find_results(slide.info), "it comes back from the list"


@pytest.mark.parametrize("names", [(), ("a", "b", "c")])
def test_what_does_not_go_together_is_said_in_a_sentence(dock, features, checkpoint, names, qtbot):
    missing = features.with_name("none.h5") if not names else features
    dock.from_file.start(FromFile(missing, checkpoint=checkpoint, class_names=names))
    qtbot.waitUntil(lambda: dock.from_file.findChildren(ErrorDialog) != [], timeout=LONG)
    (dialog,) = dock.from_file.findChildren(ErrorDialog)
    expected = "3 names were given" if names else "There is no file"
    assert expected in dialog.sentence
    dialog.close()
    assert dock.from_file.button.isEnabled()


def test_the_dialog_says_what_is_missing(dock, qtbot):
    dialog = dock.from_file.ask()
    assert isinstance(dialog, FeaturesDialog)
    names = [dialog.model_box.itemText(n) for n in range(dialog.model_box.count())]
    assert {"gated", "trans"} < set(names)
    assert "tiny" not in names, "it answers for tiles"
    dialog.model_box.setCurrentText("gated")
    assert not dialog.classes_edit.isVisibleTo(dialog), "a model names its classes"
    assert dialog.show_button.toolTip() == "Choose a file of features first"
    dialog.features_edit.setText("/a/b.h5")
    assert dialog.show_button.isEnabled()
    dialog.model_box.setCurrentText("A checkpoint of another program")
    assert dialog.show_button.toolTip() == "Choose a checkpoint first"
    dialog.checkpoint_edit.setText("/a/c.pt")
    dialog.classes_edit.setText("normal, tumor ")
    dialog.side_box.setValue(256)
    answers: list[FromFile] = []
    dialog.chosen.disconnect()
    dialog.chosen.connect(answers.append)
    qtbot.mouseClick(dialog.show_button, Qt.MouseButton.LeftButton)
    assert answers == [
        FromFile(
            Path("/a/b.h5"),
            checkpoint=Path("/a/c.pt"),
            class_names=("normal", "tumor"),
            side_px0=256.0,
        )
    ]
