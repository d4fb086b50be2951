"""Scores of a look at the validation, against cases worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import cohen_kappa_score, roc_auc_score
from torch import Tensor, nn

from napari_histomil.errors import TrainingError
from napari_histomil.training.config import Sampling, read_config
from napari_histomil.training.fields import UNLABELLED, array_field
from napari_histomil.training.looks import Looks, better


class Darkness(nn.Module):
    """Says tumour by how dark the red channel is."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([x[:, 0], -x[:, 0]], dim=1)


def test_pixels_against_scikit_learn(toy_unet: Path) -> None:
    config = read_config(toy_unet / "train.toml")
    config = replace(
        config,
        grid=replace(config.grid, margin_px=0, stride_px=64),
        validation=replace(config.validation, tiles=3),
        sampling=Sampling(()),
    )
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (64, 64, 3), np.uint8)
    labels = rng.integers(0, 2, (64, 64)).astype(np.uint8)
    labels[image[..., 0] < 60] = 1
    labels[:, :9] = UNLABELLED
    field = array_field("a", "a", "toy tiles", image, labels, mirrored=True, whole=True)
    scores = Looks(config, [field]).look(Darkness(), "cpu")
    red = torch.from_numpy(image[..., 0]).float() / 255
    odds = (2 * (0.7 - red) / 0.2).numpy()
    known = labels != UNLABELLED
    truth, answer = labels[known], odds[known] > 0
    assert scores["auroc"] == pytest.approx(roc_auc_score(truth, odds[known]), abs=1e-3)
    assert scores["kappa"] == pytest.approx(cohen_kappa_score(truth, answer))
    dice = 2 * (answer & (truth == 1)).sum() / (answer.sum() + (truth == 1).sum())
    assert scores["dice"] == pytest.approx(dice)  # without the background
    assert scores["loss"] > 0


def test_a_classifier_answers_for_its_cell(toy: Path) -> None:
    config = read_config(toy / "train.toml")
    config = replace(config, sampling=Sampling(()), validation=replace(config.validation, tiles=6))

    class Middle(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            red = x[:, 0, 16:48, 16:48].mean((1, 2))
            return torch.stack([red, -red], dim=1)

    fields = []
    for name, value, label in (("a", 200, 0), ("b", 50, 1), ("c", 100, 0)):
        image = np.full((64, 64, 3), value, np.uint8)
        labels = np.full((64, 64), 1 - label, np.uint8)
        labels[16:48, 16:48] = label  # what lies around is no matter
        fields.append(
            array_field(name, name, "toy tiles", image, labels, mirrored=True, whole=True)
        )
    config = replace(config, network=replace(config.network, architecture="timm/any"))
    scores = Looks(config, fields).look(Middle(), "cpu")
    assert scores["auroc"] == 1.0  # b is the darkest
    assert scores["kappa"] < 1  # c is answered as tumour


def test_what_cannot_be_worked_out_is_told(toy: Path) -> None:
    config = read_config(toy / "train.toml")
    config = replace(config, validation=replace(config.validation, metric="auroc"))
    with pytest.raises(TrainingError, match="'auroc' cannot be worked out"):
        better(config, {"auroc": math.nan, "loss": 1.0})
    assert better(config, {"auroc": 0.7}) == 0.7
    config = replace(config, validation=replace(config.validation, metric="loss"))
    assert better(config, {"loss": 2.0}) == -2.0
