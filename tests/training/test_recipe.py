"""From a folder of tiles to a model folder that runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_histomil.cli import main
from napari_histomil.manifest import load_manifest
from napari_histomil.nets.load import load_module
from napari_histomil.results.segmentation import SegmentationStore
from napari_histomil.training.answers import ask
from napari_histomil.training.config import read_config
from napari_histomil.training.curves import read_curves
from napari_histomil.training.data import read_sources
from napari_histomil.training.scores import score


def test_tiles_and_masks_become_a_unet_that_runs(
    toy_unet: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, model = toy_unet / "train.toml", toy_unet / "model"
    text = file.read_text(encoding="utf-8").replace("steps = 12", "steps = 40")
    text += "\n[split]\nvalidation = 0.4\n"
    text = text.replace("bootstraps = 50", 'every = 20\nmetric = "dice"').replace(
        "evaluate = true", "evaluate = false"
    )
    file.write_text(text, encoding="utf-8")
    assert main(["train", str(file), "--data", str(toy_unet), "-o", str(model)]) == 0
    manifest = load_manifest(model)
    assert manifest.task == "segment"
    assert manifest.background_class == "normal"
    assert manifest.grid.margin_px == 8
    assert manifest.arguments["encoder_depth"] == 3
    config = read_config(file)
    field = read_sources(config, toy_unet)[0]
    found = score([ask(config, load_module(manifest), field)], rounds=0)["pixels"]
    assert found["classes"]["tumor"]["dice"] > 0.9
    rows = read_curves(model / "curves.csv")
    assert [row["step"] for row in rows] == list(range(1, 41))
    assert [row["step"] for row in rows if "validation_dice" in row] == [20, 40]
    split = json.loads((model / "split.json").read_text(encoding="utf-8"))
    assert (len(split["validation"]), len(split["train"])) == (1, 2)
    slide = toy_unet / "slide.tif"
    tifffile.imwrite(slide, field.cut((0, 0), 128)[0], photometric="rgb", tile=(64, 64))
    command = ["run", str(model), str(slide), "--slide-mpp", "1", "--region", "all"]
    capsys.readouterr()
    assert main([*command, "-o", str(toy_unet / "out")]) == 0
    store = SegmentationStore.open(Path(capsys.readouterr().out.strip()))
    said = np.asarray(store.levels[0][1])  # tumour, 0 to 254
    assert said[:, 80:].mean() > 2 * said[:, :48].mean()
