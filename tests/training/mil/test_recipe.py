from __future__ import annotations

import json
import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from napari_histomil.errors import TrainingError
from napari_histomil.manifest import load_manifest
from napari_histomil.nets.mil import load_mil
from napari_histomil.training.loop import TrainingCancelled
from napari_histomil.training.mil.bags import open_bags
from napari_histomil.training.mil.config import read_mil_config
from napari_histomil.training.mil.recipe import train_mil
from napari_histomil.training.mil.table import read_table


def finish(steps: Generator[Any, None, Path]) -> Path:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def change(toy: Path, old: str, new: str) -> None:
    text = (toy / "train.toml").read_text(encoding="utf-8")
    assert old in text
    (toy / "train.toml").write_text(text.replace(old, new), encoding="utf-8")


def test_a_training_ends_in_a_model_that_answers_and_says_what_it_takes(toy: Path) -> None:
    change(toy, "folds = 3", "folds = 3\nensemble = true")
    change(toy, 'encoder = "toy-encoder"', 'encoder = "toy-encoder"\nscaling = "training"')
    config = read_mil_config(toy / "train.toml")
    folder = finish(train_mil(config, toy, toy / "model"))
    manifest = load_manifest(folder)
    assert manifest.mil is not None
    assert (manifest.mil.encoder.name, manifest.mil.encoder.dim) == ("toy-encoder", 4)
    assert manifest.grid.mpp == 1.0
    scores = manifest.scores["cross_validation"]
    assert scores["auroc"]["value"] > 0.95
    assert scores["auroc"]["interval"][0] > 0.8
    assert scores["patients"] == 24

    data = open_bags(read_table(config, toy))
    nets = [load_mil(manifest)]
    nets += [load_mil(load_manifest(folder / m.folder)) for m in manifest.mil.members]
    assert len(nets) == 4
    for net in nets:  # the scaling is part of them: they take bags as they lie on the disk
        bright, dark = (net(data.read(data.cases[n])) for n in (1, 0))
        assert bright.probabilities[1] > 0.5 > dark.probabilities[1]
        assert int(bright.attention[0].argmax()) < max(1, len(bright.attention[0]) // 5)

    (quantiles,) = manifest.mil.reference["attention_quantiles"]
    assert len(quantiles) == 101
    assert np.all(np.diff(quantiles) >= 0)
    assert quantiles[-1] > 2  # some tile has more than twice its share
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "toy-encoder, 4 values a tile" in card
    assert f"{scores['auroc']['value']:.3f}" in card


def test_a_stopped_training_goes_on_to_the_same_bits(toy: Path) -> None:
    change(toy, "folds = 3", "folds = 0")
    config = read_mil_config(toy / "train.toml")
    straight = finish(train_mil(config, toy, toy / "straight"))
    cancel = threading.Event()
    steps = train_mil(config, toy, toy / "stopped", cancel=cancel)
    for _ in range(17):
        next(steps)
    cancel.set()
    with pytest.raises(TrainingCancelled):
        next(steps)
    assert not (toy / "stopped" / "model.json").exists()
    stopped = finish(train_mil(config, toy, toy / "stopped"))
    one, other = (
        safetensors.torch.load_file(f / "weights.safetensors") for f in (straight, stopped)
    )
    assert all(torch.equal(one[name], other[name]) for name in one)
    rows = (stopped / "curves.csv").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 1 + 12 * 18  # 18 of 24 bags are learnt from


def test_another_training_is_not_gone_on_with(toy: Path) -> None:
    config = read_mil_config(toy / "train.toml")
    steps = train_mil(config, toy, toy / "model")
    next(steps)
    steps.close()
    with pytest.raises(TrainingError, match="another configuration"):
        next(train_mil(config, toy, toy / "model", seed=1))


def test_test_patients_are_scored_once_and_learnt_from_never(toy: Path) -> None:
    change(toy, "validation = 0.25", "validation = 0.25\ntest = 0.25")
    change(toy, "folds = 3", "folds = 0")
    folder = finish(train_mil(read_mil_config(toy / "train.toml"), toy, toy / "model"))
    split = json.loads((folder / "split.json").read_text(encoding="utf-8"))
    assert {side: len(own) for side, own in split.items()} == {
        "train": 12,
        "validation": 6,
        "test": 6,
    }
    assert not set(split["test"]) & {*split["train"], *split["validation"]}
    assert load_manifest(folder).scores["test"]["bags"] == 6


def test_bags_need_grids_for_a_model(toy: Path) -> None:
    text = (toy / "train.toml").read_text(encoding="utf-8")
    before, after = text.split("[[grids]]")
    (toy / "train.toml").write_text(before + "[aggregator]" + after.split("[aggregator]")[1])
    with pytest.raises(TrainingError, match="grids"):
        next(train_mil(read_mil_config(toy / "train.toml"), toy, toy / "model"))
