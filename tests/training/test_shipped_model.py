"""The classifier that comes with the program is what its card says."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

from napari_histomil.cli import main
from napari_histomil.manifest import ModelManifest, load_manifest, verify_model
from napari_histomil.nets.load import load_module
from napari_histomil.review.ranking import auroc
from napari_histomil.training.answers import ask
from napari_histomil.training.card import card
from napari_histomil.training.config import TrainingConfig, read_config
from napari_histomil.training.data import make_synthetic, read_tiles
from napari_histomil.training.fields import array_field

MAX_BYTES = 12e6


@pytest.fixture(scope="module")
def folder(repository: Path) -> Path:
    return repository / "models" / "metastasis-patch-small"


@pytest.fixture(scope="module")
def manifest(folder: Path) -> ModelManifest:
    return load_manifest(folder)


@pytest.fixture(scope="module")
def config(folder: Path) -> TrainingConfig:
    return read_config(folder / "train.toml")


def test_weights_are_the_published_ones_and_small(manifest: ModelManifest) -> None:
    verify_model(manifest)
    assert manifest.weights.stat().st_size <= MAX_BYTES
    assert manifest.class_names == ("normal", "tumor")
    assert manifest.positive_class == "tumor"


def test_model_and_configuration_say_the_same(
    manifest: ModelManifest, config: TrainingConfig
) -> None:
    assert manifest.grid == config.grid
    assert manifest.architecture == config.network.architecture
    assert dict(manifest.arguments) == config.network.arguments
    assert manifest.normalisation is not None
    assert manifest.normalisation.mean == config.normalisation.mean
    assert manifest.training["steps"] == config.schedule.steps


def test_the_card_is_made_of_the_numbers_in_the_model(
    folder: Path, manifest: ModelManifest, config: TrainingConfig
) -> None:
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert text == card(config, json.loads((folder / "model.json").read_text(encoding="utf-8")))
    scores = manifest.scores
    assert scores["what"] == config.validation.what
    assert f"{scores['unmixed']['auroc']:.3f}" in text
    assert manifest.weights_sha256 in text
    assert "Research use only" in text


def test_scores_are_of_groups_left_out_whole(
    manifest: ModelManifest, config: TrainingConfig
) -> None:
    folds = manifest.scores["folds"]
    groups = [group for fold in folds for group in fold]
    assert len(groups) == len(set(groups)) == manifest.scores["unmixed"]["groups"]
    together = ["+".join(group) for group in config.sources[0].groups]
    assert all(f"{config.sources[0].name}/{name}" in groups for name in together)


def test_it_finds_tumour_on_a_synthetic_slide(
    manifest: ModelManifest, config: TrainingConfig
) -> None:
    trained = {seed for source in config.sources for seed in source.seeds}
    assert 907 not in trained
    slide = make_synthetic(907, "s", config.grid.mpp, (2048, 1536), only_tissue=True)
    answers = ask(config, load_module(manifest), slide).unmixed(0.05)
    assert answers.truth.sum() >= 5
    assert auroc(answers.truth, answers.logit) > 0.9


def test_glass_is_no_tumour(manifest: ModelManifest, config: TrainingConfig) -> None:
    image, labels = np.full((256, 256, 3), 243, np.uint8), np.zeros((256, 256), np.uint8)
    glass = array_field("glass", "g", "s", image, labels, mirrored=False)
    answers = ask(config, load_module(manifest), glass)
    assert len(answers) == 16
    assert answers.logit.max() < -1


def test_it_finds_tumour_on_real_tissue_if_the_channels_are_turned(
    data_dir: Path, manifest: ModelManifest, config: TrainingConfig
) -> None:
    fields = read_tiles(config.sources[0], data_dir, config.grid.mpp)
    field = next(f for f in fields if f.name == "10679")
    answers = ask(config, load_module(manifest), field).unmixed(0.05)
    # The net has seen this picture: that it is right here is no score, but a sign that scaling,
    # channels, context and classes are those of the training.
    assert auroc(answers.truth, answers.logit) > 0.97
    assert np.median(answers.logit[answers.truth]) > 0 > np.median(answers.logit[~answers.truth])


def test_the_card_of_the_unet_names_the_command_of_its_scores_on_another_organ(
    repository: Path, data_dir: Path, tmp_path: Path
) -> None:
    model = tmp_path / "metastasis-unet-small"
    shutil.copytree(repository / "models" / model.name, model)
    before = load_manifest(model).scores["apart"]
    command = shlex.split(before[0]["command"].replace("DATA", str(data_dir)))[1:]
    assert main([str(model) if word == model.name else word for word in command]) == 0
    (again,) = load_manifest(model).scores["apart"]
    assert {key: again[key] for key in ("what", "command", "data")} == {
        key: before[0][key] for key in ("what", "command", "data")
    }
    for name, dice in before[0]["fields"].items():
        assert again["fields"][name] == pytest.approx(dice, abs=0.005)
    for name, figures in before[0]["pixels"]["classes"].items():
        assert again["pixels"]["classes"][name]["dice"] == pytest.approx(
            figures["dice"], abs=0.005
        )
