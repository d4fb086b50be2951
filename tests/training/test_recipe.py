"""From a folder of tiles to a model folder that runs."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from model_folders import make_encoder_folder
from PIL import Image

from napari_histomil.cli import main
from napari_histomil.errors import ModelError, TrainingError
from napari_histomil.manifest import load_manifest
from napari_histomil.nets.load import load_module
from napari_histomil.results.segmentation import SegmentationStore
from napari_histomil.training.answers import ask
from napari_histomil.training.config import Network, Tracking, read_config
from napari_histomil.training.curves import read_curves
from napari_histomil.training.data import read_sources
from napari_histomil.training.loop import fit
from napari_histomil.training.recipe import train_model
from napari_histomil.training.scores import score
from napari_histomil.training.start import first_weights, initial_net, kept_arguments


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
    scored = score([ask(config, load_module(manifest), field)], rounds=0)["pixels"]
    assert scored["classes"]["tumor"]["dice"] > 0.9
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
    found = np.asarray(store.levels[0][1])  # tumour, 0 to 254
    assert found[:, 80:].mean() > 2 * found[:, :48].mean()


def test_whole_pictures_by_class_get_one_answer_each(
    tmp_path: Path, toy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    lines = ["file,patient"]
    for i, label in enumerate(["normal", "tumor"] * 5):
        (tmp_path / label).mkdir(exist_ok=True)
        image = rng.normal(60 if label == "tumor" else 190, 20, (50, 80, 3)).clip(0, 255)
        Image.fromarray(image.astype(np.uint8)).save(tmp_path / label / f"{i}.png")
        lines.append(f"{i}.png,p{i // 2}")
    (tmp_path / "labels.csv").write_text("\n".join(lines), encoding="utf-8")
    text = (toy / "train.toml").read_text(encoding="utf-8")
    text = (
        text[: text.index("[network]")].replace("stride_px = 32", "stride_px = 64")
        + """
[network]
architecture = "timm/resnet10t"
arguments = { channels = [8, 8, 16, 16] }

[schedule]
steps = 30
batch = 6
learning_rate = 1e-2
bf16 = false

[validation]
metric = "auroc"
every = 10
tiles = 12
bootstraps = 20

[split]
validation = 0.2
test = 0.4

[[sources]]
kind = "folders"
name = "pictures"
licence = "CC0-1.0"
labels = "labels.csv"
resize_px = 64
"""
    )
    (tmp_path / "train.toml").write_text(text, encoding="utf-8")
    model = tmp_path / "model"
    assert main(["train", str(tmp_path / "train.toml"), "-o", str(model)]) == 0
    assert "validation auroc 1.000" in capsys.readouterr().err
    test = load_manifest(model).scores["test"]
    assert len(test["test_groups"]) == 2
    assert test["all"]["cells"] == 4  # two patients, two pictures each
    assert test["all"]["auroc"] == 1.0
    assert "resized to 64 x 64 px" in (model / "README.md").read_text(encoding="utf-8")


def test_a_segmentation_is_cross_validated(toy_unet: Path) -> None:
    config = read_config(toy_unet / "train.toml")
    config = replace(config, schedule=replace(config.schedule, steps=3))
    stages = {now.stage for now in train_model(config, toy_unet, toy_unet / "model")}
    assert stages == {"seed 0, fold 1 of 2", "seed 0, fold 2 of 2", "the finished net"}
    scores = load_manifest(toy_unet / "model").scores
    groups = [group for fold in scores["folds"] for group in fold]
    assert sorted(groups) == ["toy tiles/a+b", "toy tiles/c", "toy tiles/d"]


def test_patience_ends_a_training_and_the_best_weights_stay(toy_unet: Path) -> None:
    config = read_config(toy_unet / "train.toml")
    config = replace(
        config,
        schedule=replace(config.schedule, steps=50, learning_rate=1e-12),  # nothing gets better
        validation=replace(config.validation, every=2, patience=2, tiles=8, metric="dice"),
    )
    fields = read_sources(config, toy_unet)
    steps = list(fit(config, fields[:2], seed=0, validation=fields[2:]))
    assert len(steps) < 50
    last = steps[-1]
    assert last.step == last.best_step + 2 * 2
    assert last.best is not None
    assert last.best >= last.scores["dice"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tracking": Tracking(tensorboard=True)}, "TensorBoard is not installed"),
        ({"tracking": Tracking(mlflow="runs")}, "MLflow is not installed"),
    ],
)
def test_programs_that_are_not_there_are_named(
    toy_unet: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], words: str
) -> None:
    for name in ("torch.utils.tensorboard", "mlflow"):
        monkeypatch.setitem(sys.modules, name, None)
    config = replace(read_config(toy_unet / "train.toml"), **change)
    fields = read_sources(config, toy_unet)
    with pytest.raises(TrainingError, match=words):
        next(fit(config, fields, seed=0, folder=toy_unet / "fit"))


def test_a_net_that_does_not_take_the_tiles_says_so(toy: Path) -> None:
    config = read_config(toy / "train.toml")
    config = replace(config, network=Network("timm/vit_tiny_patch16_224", {"depth": 1}))
    with pytest.raises(TrainingError, match=r"does not take tiles of 64 px \(Input height"):
        initial_net(config, 0)


def test_weights_that_cannot_be_had_are_told(
    toy: Path, toy_unet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*given: object, **options: object) -> None:
        raise OSError("no network")

    config = read_config(toy_unet / "train.toml")
    asked = Network("smp/unet", {"encoder_name": "resnet18", "encoder_weights": "imagenet"})
    assert kept_arguments(asked) == {"encoder_name": "resnet18"}
    monkeypatch.setattr("napari_histomil.training.start._smp_encoder", offline)
    with pytest.raises(TrainingError, match=r"imagenet weights .* cannot be had \(no network\)"):
        initial_net(replace(config, network=asked), 0)


def test_fetched_weights_are_those_of_the_encoder(
    toy_unet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = read_config(toy_unet / "train.toml")
    given = initial_net(config, 9).get_submodule("encoder").state_dict()
    monkeypatch.setattr("napari_histomil.training.start._smp_encoder", lambda *_: given)
    arguments = {**config.network.arguments, "encoder_weights": "imagenet"}
    config = replace(config, network=replace(config.network, arguments=arguments))
    net = initial_net(config, 0)
    assert all(
        torch.equal(given[k], v) for k, v in net.get_submodule("encoder").state_dict().items()
    )
    other = initial_net(config, 1)
    assert not torch.equal(
        net.state_dict()["segmentation_head.0.weight"],
        other.state_dict()["segmentation_head.0.weight"],
    )


def test_training_starts_from_an_encoder(toy_unet: Path, tmp_path: Path) -> None:
    arguments = {"channels": [8, 16, 16, 16], "stem_width": 8}
    folder = make_encoder_folder(tmp_path / "start", "resnet10t", arguments, seed=5)
    config = read_config(toy_unet / "train.toml")
    unet = {
        "encoder_name": "tu-resnet10t",
        "encoder_depth": 3,
        "decoder_channels": [16, 8, 8],
        **arguments,
    }
    config = replace(config, network=Network("smp/unet", unet, encoder=str(folder)))
    net, encoder = initial_net(config, 0), load_module(load_manifest(folder))
    inside = net.get_submodule("encoder.model").state_dict()
    assert torch.equal(
        inside["layer1.0.conv1.weight"], encoder.state_dict()["layer1.0.conv1.weight"]
    )
    assert "the encoder start (" in first_weights(config.network)
    other = replace(config, network=replace(config.network, encoder="nobody"))
    with pytest.raises(ModelError, match="nobody"):
        initial_net(other, 0)
    weights = folder / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + bytes(4))
    with pytest.raises(ModelError, match="not the file"):
        initial_net(config, 0)
