"""The Train dock: what it offers, what it refuses and why, its files, its curves."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from napari.components import ViewerModel
from qtpy.QtCore import Qt
from shapely.geometry import box

from napari_histomil.annotations import commands
from napari_histomil.annotations.model import Region, class_named
from napari_histomil.manifest import ModelManifest
from napari_histomil.training.config import read_config
from napari_histomil.training.recipe import working_folder
from napari_histomil.ui.annotator import annotator
from napari_histomil.ui.session import session
from napari_histomil.ui.training_choices import PRESETS
from napari_histomil.ui.training_job import (
    ABOUT_FILE,
    CONFIG_FILE,
    all_unfinished,
    score_lines,
    unfinished,
)
from napari_histomil.ui.training_plan import model_folder
from napari_histomil.ui.widgets.curves import CurvesView, axis
from napari_histomil.ui.widgets.train import TrainWidget
from napari_histomil.ui.widgets.train_data import FILE, TILES
from tests.ui.annotating import WHITE, close_error

LONG = 240_000  # ms: other programs may need the machine


@pytest.fixture
def viewer():
    return ViewerModel()


@pytest.fixture
def dock(viewer, qtbot) -> TrainWidget:
    widget = TrainWidget(viewer)
    qtbot.addWidget(widget)
    yield widget
    for slide in list(session(viewer).slides):
        session(viewer).close_slide(slide)


@pytest.fixture
def annotate(viewer, write_slide):
    """Open a slide and draw Region* and a region of each class."""

    def make(name: str, *classes: str):
        number = len(session(viewer).slides)
        slide = session(viewer).open_slide(write_slide(WHITE - np.uint8(number), name))
        state = annotator(viewer)
        drawn = [Region(box(0, 0, 900, 700), class_named("Region*"))]
        for place, kind in enumerate(classes):
            drawn.append(Region(box(100 * place, 50, 100 * place + 90, 200), class_named(kind)))
        assert state.do(commands.add(drawn, state.stamp()))
        return slide

    return make


def sides(dock) -> dict[str, str]:
    return {item.text(0): item.text(3) for item in dock.data._items()}


def rest(dock, qtbot, what=lambda: True) -> None:
    """Wait until the dock has looked at everything."""

    def quiet() -> bool:
        return not (dock.data.busy or dock.data._asker.isActive() or dock._asker.isActive())

    qtbot.waitUntil(lambda: quiet() and what(), timeout=LONG)


def test_it_says_what_is_missing_step_by_step(dock, viewer, annotate, qtbot, write_slide):
    assert not dock.start_button.isEnabled()
    assert dock.start_button.toolTip() == "Open a slide and draw on it, or add annotated slides."
    assert not dock.resume_button.isEnabled()
    assert not dock.cancel_button.isEnabled()
    session(viewer).open_slide(write_slide(WHITE, "bare.tiff"))
    rest(dock, qtbot)
    assert dock.start_button.toolTip().startswith("Tick a slide with regions, or draw some")
    annotate("one.tiff", "Tumor", "Stroma")
    rest(dock, qtbot, lambda: len(dock.data.chosen) == 1)
    assert "1 patient or slide is too few" in dock.split_label.text()
    assert dock.start_button.toolTip() == dock.split_label.text()
    assert sides(dock) == {"bare.tiff": "–", "one.tiff": "–"}
    annotate("two.tiff", "Tumor", "Stroma")
    rest(dock, qtbot, lambda: len(dock.data.chosen) == 2)
    assert dock.start_button.isEnabled(), dock.start_button.toolTip()
    assert sorted(sides(dock).values()) == ["training", "validation", "–"]
    model_folder("my-unet").mkdir(parents=True)
    dock._look()
    assert "There is a model my-unet already" in dock.start_button.toolTip()


def test_patients_ticks_and_classes_decide_who_learns(dock, annotate, qtbot):
    for name in ("a.tiff", "b.tiff", "c.tiff"):
        annotate(name, "Tumor", "Stroma")
    rest(dock, qtbot, lambda: len(dock.data.chosen) == 3)
    first, second, third = sorted(dock.data._items(), key=lambda item: item.text(0))
    dock.kept_box.setCurrentText("Validation and test")
    dock._look()
    assert sorted(sides(dock).values()) == ["test", "training", "validation"]
    first.setText(2, "p1")
    third.setText(2, "p1")
    rest(dock, qtbot)
    assert "2 patients or slides are too few" in dock.split_label.text()
    dock.kept_box.setCurrentText("Validation")
    dock._look()
    assert sides(dock)["a.tiff"] == sides(dock)["c.tiff"] != sides(dock)["b.tiff"]
    assert dock.plan().config.sources[0].groups == (("a", "c"),)
    second.setCheckState(0, Qt.CheckState.Unchecked)
    rest(dock, qtbot)
    assert sides(dock)["b.tiff"] == "–"
    second.setCheckState(0, Qt.CheckState.Checked)
    rest(dock, qtbot)

    classes = dock.classes
    assert [each.name for each in classes.classes] == ["background", "Stroma", "Tumor"]
    stroma = next(
        item
        for n in range(classes.tree.topLevelItemCount())
        if (item := classes.tree.topLevelItem(n)).text(0) == "Stroma"
    )
    stroma.setCheckState(0, Qt.CheckState.Unchecked)
    rest(dock, qtbot)
    config = dock.plan().config
    assert (config.class_names, config.positive_class) == (["background", "Tumor"], "Tumor")
    assert dict(config.sources[0].class_names) == {"Tumor": "Tumor"}


def test_a_closed_slide_leaves_and_an_added_one_stays(dock, viewer, annotate, qtbot):
    slide = annotate("a.tiff", "Tumor")
    rest(dock, qtbot, lambda: len(dock.data.chosen) == 1)
    assert not dock.data.remove_button.isEnabled()
    session(viewer).close_slide(slide)
    assert dock.data.known == ()
    dock.data.add_folder(slide.info.path.parent)
    rest(dock, qtbot, lambda: len(dock.data.known) == 1)
    assert dock.data.chosen[0].counts == {"Tumor": 1}, "what was drawn lies beside the slide"
    dock.data.tree.topLevelItem(0).setSelected(True)
    dock.data._say()
    assert dock.data.remove_button.isEnabled()
    dock.data.remove_button.click()
    assert dock.data.known == ()
    dock.data.add_folder(slide.info.path.parent / "nothing")
    assert "cannot be looked at" in close_error(qtbot)


def test_networks_by_one_word_or_by_their_names(dock):
    how = dock.how
    small, medium = PRESETS["segment"]
    assert how.network.arguments == small.arguments
    assert not how.pretrained_box.isEnabled(), "a thin network has no weights"
    how.network_box.setCurrentIndex(1)
    how._take_preset()
    assert how.network.arguments == medium.arguments
    how.pretrained_box.setChecked(True)
    assert how.network.arguments == {**medium.arguments, "encoder_weights": "imagenet"}
    assert how.network_box.currentText() == "As named below"
    how.network_box.setCurrentIndex(0)
    how._take_preset()
    how.encoder_edit.setText("tu-resnet10t")
    how.encoder_edit.textEdited.emit("tu-resnet10t")
    assert how.network.arguments == {"encoder_name": "tu-resnet10t"}
    dock.task_box.setCurrentText("Classify patches")
    dock._take_task()
    assert how.network.architecture == "histomil/centre-patch"
    assert (how.tile_px, dock.name) == (192, "my-classifier")
    how.suggest_mpp(("Nuclei",))
    assert how.mpp == 0.5
    how.suggest_mpp(("Tumor",), finest=2.0)
    assert how.mpp == 2.0, "never finer than the slides"


def test_a_training_is_saved_and_loaded(dock, annotate, qtbot, tmp_path):
    for name in ("a.tiff", "b.tiff"):
        annotate(name, "Tumor")
    rest(dock, qtbot, lambda: len(dock.data.chosen) == 2)
    dock.how.steps_spin.setValue(77)
    dock.how.seed_spin.setValue(5)
    path = tmp_path / "mine.toml"
    dock.save(path)
    config = read_config(path)
    assert config.schedule.steps == 77
    assert "histomil train mine.toml -o FOLDER --seed 5" in path.read_text(encoding="utf-8")
    text = path.read_text(encoding="utf-8").replace(
        "steps = 77", "steps = 78\nlabel_smoothing = 0.0"
    )
    path.write_text(text.replace('licence = "not stated"', 'licence = "MIT"', 1), encoding="utf-8")
    dock.load(path)
    rest(dock, qtbot)
    assert dock.data.kind == FILE
    assert dock.how.steps_spin.value() == 78
    assert dock.plan().config == read_config(path)
    assert dock.plan().config.schedule.label_smoothing == 0.0
    assert not dock.kept_box.isEnabled()
    dock.data.kind_box.setCurrentIndex(0)
    dock.data._show_kind()
    rest(dock, qtbot)
    assert dock.plan().config.licence == "not stated", "the slides are learnt from again"
    path.write_text("nonsense = 1", encoding="utf-8")
    dock.load(path)
    assert "nonsense is unknown here" in close_error(qtbot)
    dock.save(tmp_path / "missing" / "x.toml")
    assert "missing" in close_error(qtbot)


def test_a_folder_of_tiles(dock, qtbot, tmp_path):
    from tests.ui.test_training_data import write_tiles

    dock.data.kind_box.setCurrentIndex(dock.data.kind_box.findData(TILES))
    dock.data._show_kind()
    rest(dock, qtbot)
    assert dock.start_button.toolTip() == "Choose a folder of tiles first."
    mask = np.zeros((64, 64), np.uint8)
    mask[:, 32:] = 1
    mask[:8] = 2
    dock.data.look_at_folder(write_tiles(tmp_path / "tiles", [mask] * 10))
    rest(dock, qtbot, lambda: dock.data.tiles is not None)
    dock.data.mpp_spin.setValue(0.25)
    dock.classes.tree.topLevelItem(2).setText(0, "Gland")
    rest(dock, qtbot)
    config = dock.plan().config
    assert config.class_names == ["background", "class 1", "Gland"]
    assert config.sources[0].mpp == 0.25
    assert config.sources[0].values == {"0": "background", "1": "class 1", "2": "Gland"}
    assert dock.start_button.isEnabled()
    dock.data.look_at_folder(tmp_path)
    qtbot.waitUntil(lambda: not dock.data.busy, timeout=LONG)
    assert "no folder of tiles" in close_error(qtbot)


def test_an_error_of_the_training_is_a_sentence(dock, annotate, qtbot):
    for name in ("a.tiff", "b.tiff"):
        annotate(name, "Tumor")
    rest(dock, qtbot, lambda: len(dock.data.chosen) == 2)
    dock.how.architecture_edit.setText("smp/nothing")
    dock.how.architecture_edit.textEdited.emit("smp/nothing")
    rest(dock, qtbot)
    dock.start_button.click()
    assert dock.running
    assert not dock.data.isEnabled()
    assert "running" in dock.start_button.toolTip()
    qtbot.waitUntil(lambda: not dock.running, timeout=LONG)
    assert "nothing" in close_error(qtbot)
    assert dock.start_button.isEnabled()
    assert dock.data.isEnabled()
    assert not model_folder("my-unet").exists()


def test_what_was_left_unfinished_is_offered(dock, annotate, qtbot):
    for name in ("a.tiff", "b.tiff"):
        annotate(name, "Tumor")
    rest(dock, qtbot, lambda: len(dock.data.chosen) == 2)
    plan = replace(dock.plan(), seed=4)
    assert plan.working_folder == working_folder(plan.folder), "the trainer's own place"
    from napari_histomil.ui.training_job import _note

    plan.working_folder.mkdir(parents=True)
    _note(plan)
    assert all_unfinished() == ["my-unet"]
    assert unfinished("my-unet") == plan
    dock._look()
    assert dock.resume_button.isEnabled()
    assert "is not finished: Resume goes on" in dock.earlier_label.text()
    dock.name_box.setEditText("another")
    rest(dock, qtbot)
    assert not dock.resume_button.isEnabled()
    (plan.working_folder / ABOUT_FILE).write_text("[]", encoding="utf-8")
    dock.name_box.setEditText("my-unet")
    rest(dock, qtbot)
    assert "cannot be read" in dock.earlier_label.text()
    assert (plan.working_folder / CONFIG_FILE).is_file()


def test_held_out_scores_in_words():
    figures = {"auroc": 0.91234, "auroc_95": [0.85, 0.96], "groups": 7, "cells": 9}
    model = SimpleNamespace(scores={"test": {"what": "groups", "all": figures}})
    assert score_lines(model) == ["Test, asked once: AUROC 0.912 (95 %: 0.850 to 0.960)."]
    model = SimpleNamespace(scores={"test": {"dice": 0.8, "groups": 1}})
    assert score_lines(model) == [
        "Test, asked once: Dice 0.800 (one slide or patient, so without an interval)."
    ]
    assert score_lines(SimpleNamespace(scores={})) == []
    assert ModelManifest.__dataclass_fields__["scores"], "what is read is a member of it"


@pytest.mark.parametrize(
    ("low", "high", "marks"),
    [
        (0, 60, (0, 20, 40, 60)),
        (0, 1, (0, 0.5, 1)),
        (0, 0.83, (0, 0.5, 1)),
        (-0.2, 1, (-1, 0, 1)),
        (0, 0, (0, 0.5, 1)),
    ],
)
def test_axes_end_at_round_numbers(low, high, marks):
    found = axis(low, high, 4 if high == 60 else 3)
    assert found.marks == marks
    assert found.share(found.low) == 0
    assert found.share(found.high) == 1


def test_curves_are_drawn_where_they_belong(qtbot):
    view = CurvesView()
    qtbot.addWidget(view)
    view.resize(320, 300)
    view.begin(100, "dice")
    low = view.sizeHint().height()
    rows = [{"step": step, "loss": 1 - step / 200} for step in range(1, 101)]
    rows[49] |= {"validation_loss": 0.9, "validation_dice": 0.5, "validation_auroc": 0.7}
    rows[99] |= {"validation_loss": 0.8, "validation_dice": math.nan}
    view.add(rows)
    view.best = (50, 0.5)
    assert (len(view.training), view.validation) == (100, [(50, 0.9), (100, 0.8)])
    assert view.score == [(50, 0.5)]
    assert view.sizeHint().height() > low
    assert view.accessibleDescription() == "training loss 0.500, validation Dice 0.500"
    picture = view.grab().toImage()
    blue = [
        (x, y)
        for x in range(picture.width())
        for y in range(20, 110)
        if picture.pixelColor(x, y).blue() > 200 and picture.pixelColor(x, y).red() < 120
    ]
    assert min(x for x, _ in blue) < 60, "the line begins at the left"
    assert max(x for x, _ in blue) > 300, "and ends at the right"
    view.begin(10, "loss")
    view.add([{"step": 1, "loss": 2.0, "validation_loss": 1.5}])
    assert view.score == [], "the loss stands in the upper plot already"
    view.grab()
