"""Training: the same seed gives the same net; it can be stopped; a toy becomes a model."""

from __future__ import annotations

import json
import threading
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from napari_histomil.cli import main
from napari_histomil.errors import TrainingError
from napari_histomil.manifest import load_manifest
from napari_histomil.nets.load import load_module
from napari_histomil.nets.patch import CentrePatch
from napari_histomil.training.answers import ask
from napari_histomil.training.augment import augment, recolor, whiten_edges
from napari_histomil.training.card import card
from napari_histomil.training.config import Augmentation, read_config
from napari_histomil.training.data import read_sources
from napari_histomil.training.loop import TrainingCancelled, TrainingProgress, fit, learning_rate


def finish(steps: Generator[TrainingProgress, None, Any]) -> tuple[list[TrainingProgress], Any]:
    seen = []
    while True:
        try:
            seen.append(next(steps))
        except StopIteration as end:
            return seen, end.value


def test_the_same_seed_gives_the_same_net(toy: Path) -> None:
    config = read_config(toy / "train.toml")
    config = replace(config, schedule=replace(config.schedule, steps=3))
    fields = read_sources(config, toy)
    torch.manual_seed(1)
    first = finish(fit(config, fields, seed=5))[1].state_dict()
    torch.manual_seed(2)  # the person's own random numbers change nothing
    again = finish(fit(config, fields, seed=5))[1].state_dict()
    other = finish(fit(config, fields, seed=6))[1].state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])


def test_progress_and_learning(toy: Path) -> None:
    config = read_config(toy / "train.toml")
    config = replace(config, schedule=replace(config.schedule, steps=25))
    fields = read_sources(config, toy)
    seen, net = finish(fit(config, fields, seed=0, stage="here"))
    assert [p.step for p in seen] == list(range(1, 26))
    assert seen[-1].stage == "here"
    assert seen[-1].seconds_left == 0
    found = ask(config, net, fields[0])
    assert len(found) == 16
    assert found.logit[found.share == 1].min() > found.logit[found.share == 0].max()


def test_it_stops_when_told(toy: Path) -> None:
    config = read_config(toy / "train.toml")
    cancel = threading.Event()
    steps = fit(config, read_sources(config, toy), seed=0, stage="fold 1", cancel=cancel)
    next(steps)
    cancel.set()
    with pytest.raises(TrainingCancelled, match="stopped in fold 1"):
        next(steps)


def test_a_loss_that_is_no_number_is_told(toy: Path) -> None:
    config = read_config(toy / "train.toml")
    config = replace(config, schedule=replace(config.schedule, learning_rate=1e30, warm_up=1))
    with pytest.raises(TrainingError, match=r"lower schedule\.learning_rate"):
        finish(fit(config, read_sources(config, toy), seed=0))


def test_the_rate_rises_and_falls(toy: Path) -> None:
    schedule = replace(read_config(toy / "train.toml").schedule, steps=100, warm_up=10)
    rates = [learning_rate(schedule, step) for step in range(100)]
    assert rates.index(max(rates)) == 9
    assert rates[0] == pytest.approx(schedule.learning_rate / 10)
    assert rates[-1] < 0.001 * schedule.learning_rate


def test_middle_and_cells_are_one_answer() -> None:
    torch.manual_seed(0)
    net = CentrePatch(2, "resnet10t", {"channels": [8, 8, 16, 16]}, cell_px=32).eval()
    tiles = torch.rand(2, 3, 96, 96)
    cells = net.cells(tiles, 16)
    assert cells.shape == (2, 2, 5, 5)
    torch.testing.assert_close(cells[:, :, 2, 2], net(tiles))


def test_pixels_and_labels_turn_together() -> None:
    images = torch.zeros(8, 3, 96, 96)
    images[..., :40, :70] = 1.0
    labels = torch.stack([1 - images[:, 0], images[:, 0]], dim=1)
    options = replace(
        Augmentation(),
        color_probability=0.0,
        blur_probability=0.0,
        noise_probability=0.0,
        edge_probability=0.0,
    )
    moved, shares = augment(images, labels, 48, options, torch.Generator().manual_seed(0))
    torch.testing.assert_close(moved[:, 0], shares[:, 1])
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(8, 48, 48))
    assert moved.std(dim=0).max() > 0.3  # each tile its own way


def test_no_amount_of_color_is_no_change() -> None:
    images = torch.rand(4, 3, 8, 8)
    still = Augmentation(stain=0, gamma=0, saturation=0, tint=0, color_probability=1)
    same = recolor(images, still, torch.Generator().manual_seed(0))
    torch.testing.assert_close(same, images, atol=0.004, rtol=0)  # by 1/255
    other = recolor(images, replace(still, stain=0.2), torch.Generator().manual_seed(0))
    assert (other - images).abs().max() > 0.03


def test_glass_is_of_the_first_class() -> None:
    images, labels = torch.zeros(3, 3, 32, 32), torch.zeros(3, 2, 32, 32)
    labels[:, 1] = 1
    always = Augmentation(edge_probability=1)
    white, found = whiten_edges(images, labels, always, torch.Generator().manual_seed(0))
    glass = white[:, 0] > 0.9
    assert 0.1 < glass.float().mean() < 0.6
    assert torch.equal(found[:, 0] == 1, glass)
    assert torch.equal(found[:, 1] == 0, glass)


def test_a_toy_becomes_a_model(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["train", str(toy / "train.toml"), "--data", str(toy), "-o", str(toy / "model")]
    assert main(command) == 0
    said = capsys.readouterr()
    assert said.out.strip() == str(toy / "model")
    assert "seed 0, fold 2 of 2: step 12 of 12" in said.err
    manifest = load_manifest(toy / "model")
    assert manifest.architecture == "histomil/centre-patch"
    assert manifest.positive_class == "tumor"
    assert manifest.scores["unmixed"]["cells"] == 64
    net = load_module(manifest)
    assert net(torch.zeros(1, 3, 64, 64)).shape == (1, 2)
    raw = json.loads((toy / "model" / "model.json").read_text(encoding="utf-8"))
    text = (toy / "model" / "README.md").read_text(encoding="utf-8")
    assert text == card(read_config(toy / "train.toml"), raw)
    assert "Not good for anything." in text
    assert (toy / "model" / "train.toml").read_bytes() == (toy / "train.toml").read_bytes()
    assert main(command) == 2  # a model is not written over by chance
    assert "add --force" in capsys.readouterr().err


def test_a_wrong_configuration_is_refused(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(toy / "nothing.toml"), "-o", str(toy / "model")]) == 2
    assert "cannot be read as TOML" in capsys.readouterr().err
    assert not (toy / "model").exists()
