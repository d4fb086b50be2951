"""The worst errors are shown where they are, and only those that may be."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from model_folders import make_model_folder, make_segmenter_folder
from PIL import Image

from napari_histomil.errors import TrainingError
from napari_histomil.manifest import load_manifest
from napari_histomil.training.cells import Answers
from napari_histomil.training.curve_picture import curve_picture
from napari_histomil.training.fields import ArrayField, array_field
from napari_histomil.training.pixels import PixelAnswers, Spot
from napari_histomil.training.worst import ANSWER, PANEL_PX, TRUTH, worst_sheet


def field(name: str, size: int = 64) -> ArrayField:
    image = np.full((size, size, 3), 180, np.uint8)
    return array_field(name, name, "s", image, np.zeros((size, size), np.uint8), mirrored=True)


def answers(names: str, odds: list[float]) -> Answers:
    """Return cells that are all normal, with these log odds of tumour."""
    count = len(odds)
    who = np.array(list(names))
    return Answers(
        who,
        who,
        np.stack([np.arange(count) * 16, np.zeros(count)], 1).astype(np.int32),
        np.tile([1.0, 0.0], (count, 1)),
        np.stack([np.zeros(count), np.array(odds)], axis=1),
    )


def test_each_field_shows_its_worst_cell(tmp_path: Path) -> None:
    model = load_manifest(make_model_folder(tmp_path / "net"))  # tiles of 32 px around 16 px
    asked = answers("aab", [1.0, 3.0, 2.0])
    sheet = worst_sheet(model, asked, [field("a"), field("b")])
    assert sheet is not None
    assert [(f["field"], f["xy_px"]) for f in sheet.facts] == [("a", [8, -8]), ("b", [24, -8])]
    assert sheet.facts[0]["loss"] == pytest.approx(np.log1p(np.exp(3)), abs=1e-4)
    assert sheet.facts[0]["truth"] == "normal 100 %"
    assert sheet.facts[0]["answer"] == "tumor 95 %"
    sheet.write(tmp_path / "errors.jpg")
    with Image.open(tmp_path / "errors.jpg") as picture:
        assert picture.width >= 2 * PANEL_PX
    only = worst_sheet(model, asked, [field("b")])
    assert only is not None
    assert [f["field"] for f in only.facts] == ["b"]
    assert worst_sheet(model, asked, [field("c")]) is None


def test_outlines_lie_where_the_classes_meet(tmp_path: Path) -> None:
    model = load_manifest(make_segmenter_folder(tmp_path / "net"))
    one = field("a", 256)
    labels = one.labels.copy()
    labels[:, 128:] = 1
    one = replace(one, labels=labels)
    said = np.zeros((256, 256), np.uint8)
    said[:64] = 1
    names = np.array(["a"])
    asked = PixelAnswers(
        ("normal", "Tumor"),
        None,
        names,
        names,
        np.zeros((1, 2, 3), np.int64),
        np.array([1]),
        answers("a", [0.0]),
        worst=(Spot("a", "a", (0, 0), 1.0, said),),
    )
    sheet = worst_sheet(model, asked, [one])
    assert sheet is not None
    with Image.open(io.BytesIO(sheet.jpeg)) as picture:
        panel = np.asarray(picture).astype(int)[46 : 46 + PANEL_PX, 14 : 14 + PANEL_PX]
    for color, place in ((TRUTH, (200, 143)), (ANSWER, (71, 60))):
        near = np.abs(panel - color).sum(axis=2) < 200  # JPEG thins colours out
        rows, columns = np.nonzero(near)
        assert len(rows) > 250  # it is all along the picture
        spot = np.hypot(rows - place[0], columns - place[1]).min()
        assert spot <= 3
    assert not (np.abs(panel[100:130, 20:120] - 180) > 20).any()  # nothing is drawn in between


def test_curves_are_drawn(tmp_path: Path) -> None:
    table = tmp_path / "curves.csv"
    table.write_text("step,loss,validation_loss,validation_dice\n1,2.0,,\n", encoding="utf-8")
    assert curve_picture(table) is None
    table.write_text(
        "step,loss,validation_loss,validation_dice\n1,2.0,,\n2,1.0,1.5,0.5\n3,0.5", "utf-8"
    )
    drawn = curve_picture(table)
    assert drawn is not None
    with Image.open(io.BytesIO(drawn)) as picture:
        assert np.asarray(picture.convert("L")).std() > 10
    assert curve_picture(table) == drawn
    table.write_text("step,loss\n1,x\n2,y\n", encoding="utf-8")
    with pytest.raises(TrainingError, match="no table of curves"):
        curve_picture(table)
