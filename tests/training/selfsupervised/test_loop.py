"""The loop: the same bits after a kill, a cancel and in one go; what is wrong is said."""

from __future__ import annotations

import threading
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from napari_histomil.errors import TrainingError
from napari_histomil.training.loop import TrainingCancelled
from napari_histomil.training.selfsupervised import loop
from napari_histomil.training.selfsupervised.config import Backbone, PretrainConfig
from napari_histomil.training.selfsupervised.loop import (
    Pretrained,
    PretrainProgress,
    build_method,
    learning_rate,
    pretrain,
)
from napari_histomil.training.selfsupervised.tiles import open_pool

VIT: dict[str, Any] = {
    "img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2,
    "dynamic_img_size": True, "drop_path_rate": 0.2, "proj_drop_rate": 0.1,
}  # fmt: skip


def finish(steps: Generator[PretrainProgress, None, Pretrained]) -> Pretrained:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: Pretrained = end.value
            return result


def same(first: Pretrained, second: Pretrained) -> bool:
    states = first.backbone.state_dict(), second.backbone.state_dict()
    return first.curve == second.curve and all(
        torch.equal(states[0][name], states[1][name]) for name in states[0]
    )


@pytest.mark.parametrize("method", ["simclr", "byol", "mocov3", "dino"])
def test_a_killed_pretraining_ends_with_the_same_bits(
    config: PretrainConfig, toy: Path, method: Any
) -> None:
    """The backbone drops units and paths, so torch's own random numbers matter too."""
    config = replace(config, method=method, backbone=Backbone("vit_tiny_patch16_224", VIT))
    checkpoint = toy / "c.safetensors"
    with open_pool(config, toy) as pool:
        straight = finish(pretrain(config, pool, seed=1))
        killed = pretrain(config, pool, seed=1, checkpoint=checkpoint)
        for _ in range(5):  # checkpoints after 2 and 4
            next(killed)
        killed.close()
        resumed = pretrain(config, pool, seed=1, checkpoint=checkpoint)
        assert next(resumed).step == 5
        assert same(straight, finish(resumed))
        other = finish(pretrain(config, pool, seed=2))
    assert not same(straight, other)


def test_a_cancelled_one_loses_no_step(config: PretrainConfig, toy: Path) -> None:
    checkpoint, cancel = toy / "c.safetensors", threading.Event()
    with open_pool(config, toy) as pool:
        straight = finish(pretrain(config, pool, seed=0))
        steps = pretrain(config, pool, seed=0, checkpoint=checkpoint, cancel=cancel)
        for _ in range(3):
            next(steps)
        cancel.set()
        with pytest.raises(TrainingCancelled, match="stopped after 3 steps"):
            next(steps)
        resumed = pretrain(config, pool, seed=0, checkpoint=checkpoint)
        assert next(resumed).step == 4
        assert same(straight, finish(resumed))


def test_checkpoints_of_others_are_refused(config: PretrainConfig, toy: Path) -> None:
    checkpoint = toy / "c.safetensors"
    with open_pool(config, toy) as pool:
        finish(pretrain(config, pool, seed=0, checkpoint=checkpoint))
        with pytest.raises(TrainingError, match="checkpoint of another training"):
            next(pretrain(config, pool, seed=1, checkpoint=checkpoint))
        slower = replace(config, schedule=replace(config.schedule, learning_rate=1e-4))
        with pytest.raises(TrainingError, match="checkpoint of another training"):
            next(pretrain(slower, pool, seed=0, checkpoint=checkpoint))
        checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
        with pytest.raises(TrainingError, match="is no whole checkpoint: delete it"):
            next(pretrain(config, pool, seed=0, checkpoint=checkpoint))


def test_progress_and_curve(config: PretrainConfig, toy: Path) -> None:
    config = replace(config, method="byol")
    with open_pool(config, toy) as pool:
        steps = list(pretrain(config, pool, seed=0))
        result = finish(pretrain(config, pool, seed=0))
    assert [s.step for s in steps] == [1, 2, 3, 4, 5, 6]
    assert result.curve[0].loss == steps[0].loss
    assert result.loss == pytest.approx(steps[-1].loss)
    assert result.curve[0].momentum == pytest.approx(0.9)
    rates = [p.learning_rate for p in result.curve]
    assert rates == [learning_rate(config.schedule, step) for step in range(6)]
    assert rates[0] == pytest.approx(0.5e-3)
    assert result.embedding_dim == 64
    assert not result.backbone.training


@pytest.mark.parametrize("method", ["simclr", "byol", "mocov3", "dino"])
def test_bfloat16(config: PretrainConfig, toy: Path, method: Any) -> None:
    config = replace(config, method=method)
    wide = replace(config.schedule, bf16=True)
    with open_pool(config, toy) as pool:
        full = finish(pretrain(config, pool, seed=0))
        half = finish(pretrain(replace(config, schedule=wide), pool, seed=0))
    assert half.curve[0].loss == pytest.approx(full.curve[0].loss, rel=0.05)
    assert half.curve[0].loss != full.curve[0].loss
    assert all(t.dtype != torch.bfloat16 for t in half.backbone.state_dict().values())


def test_a_collapse_is_said_once(
    config: PretrainConfig, toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the net does, its embeddings are given as one place."""
    monkeypatch.setattr(loop, "RECENT", 3)
    monkeypatch.setattr(loop, "spread", lambda embeddings: 0.01)
    with open_pool(config, toy) as pool:
        notes = [step.note for step in pretrain(config, pool, seed=0)]
    assert [bool(note) for note in notes] == [False, False, False, True, False, False]
    assert "have collapsed" in notes[3]


def test_a_loss_that_is_no_number(config: PretrainConfig, toy: Path) -> None:
    hot = replace(config, simclr=replace(config.simclr, temperature=0.0))
    with open_pool(hot, toy) as pool, pytest.raises(TrainingError, match="lower schedule"):
        finish(pretrain(hot, pool, seed=0))


@pytest.mark.parametrize(
    ("backbone", "words"),
    [
        (Backbone("resnet1"), "resnet1 cannot be built"),
        (Backbone("resnet10t", {"wings": 2}), "cannot be built with {'wings': 2}"),
        (Backbone("vit_tiny_patch16_224"), "img_size"),
    ],
)
def test_impossible_backbones(config: PretrainConfig, backbone: Backbone, words: str) -> None:
    with pytest.raises(TrainingError) as caught:
        build_method(replace(config, backbone=backbone))
    assert words in str(caught.value)
