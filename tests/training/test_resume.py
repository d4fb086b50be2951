"""A fit that was killed ends in the very weights of one that was not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from napari_histomil.cli import main
from napari_histomil.errors import TrainingError
from napari_histomil.training import checkpoint, tasks
from napari_histomil.training.batches import batches
from napari_histomil.training.config import read_config
from napari_histomil.training.curves import read_curves
from napari_histomil.training.data import read_sources
from napari_histomil.training.loop import TrainingCancelled, fit
from napari_histomil.training.recipe import ABOUT_FILE, train_model, working_folder

STEPS = 9

KILLED = """
import os, signal, sys
from pathlib import Path
from napari_histomil.training.config import read_config
from napari_histomil.training.recipe import train_model
folder = Path(sys.argv[1])
for now in train_model(read_config(folder / "train.toml"), folder, folder / "killed", seed=3):
    if now.step == 7:
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def short(toy_unet: Path) -> Path:
    """A few steps, random paths left out, a validation, and frequent checkpoints."""
    file = toy_unet / "train.toml"
    text = file.read_text(encoding="utf-8")
    text = text.replace("steps = 12", f"steps = {STEPS}\ncheckpoint_every = 4")
    text = text.replace("bootstraps = 50", "every = 3\ntiles = 4").replace(
        "batch = 4", "batch = 2"
    )
    text = text.replace("evaluate = true", "evaluate = false")
    text = text.replace("encoder_depth = 3", "encoder_depth = 3\ndrop_path_rate = 0.3")
    file.write_text(text + "\n[split]\nvalidation = 0.4\n", encoding="utf-8")
    return toy_unet


def same(first: nn.Module, second: nn.Module) -> bool:
    a, b = first.state_dict(), second.state_dict()
    return all(torch.equal(a[name], b[name]) for name in a)


def test_killed_and_begun_again_it_ends_in_the_same_bits(short: Path) -> None:
    config = read_config(short / "train.toml")
    for _ in train_model(config, short, short / "whole", seed=3):
        pass
    place = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    killed = subprocess.run([sys.executable, "-c", KILLED, str(short)], env=place, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not (short / "killed").exists()
    steps = [now.step for now in train_model(config, short, short / "killed", seed=3)]
    assert steps == list(range(5, STEPS + 1))  # from the checkpoint after step 4
    weights = [(short / name / "weights.safetensors").read_bytes() for name in ("whole", "killed")]
    assert weights[0] == weights[1]
    rows = [read_curves(short / name / "curves.csv") for name in ("whole", "killed")]
    for row in (*rows[0], *rows[1]):
        del row["seconds"]
    assert rows[0] == rows[1]


def test_stopped_it_goes_on_from_the_step_where_it_was(short: Path) -> None:
    config = read_config(short / "train.toml")
    fields = read_sources(config, short)
    straight = fit(config, fields[1:], seed=1, validation=fields[:1])
    cancel = threading.Event()
    options = {"seed": 1, "validation": fields[:1], "folder": short / "fit"}
    steps = fit(config, fields[1:], cancel=cancel, **options)
    for now in steps:
        if now.step == 5:
            cancel.set()
            break
    with pytest.raises(TrainingCancelled):
        next(steps)
    again = fit(config, fields[1:], **options)
    assert next(again).step == 6
    assert same(_last(straight), _last(again))
    over = fit(config, fields[1:], **options)
    assert same(_last(over), _last(fit(config, fields[1:], **options)))


def test_another_training_is_not_gone_on_with(
    short: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, model = short / "train.toml", short / "model"
    config = read_config(file)
    steps = train_model(config, short, model, seed=3)
    next(steps)
    steps.close()
    assert (working_folder(model) / ABOUT_FILE).exists()
    split = json.loads((working_folder(model) / "split.json").read_text(encoding="utf-8"))
    assert {*split["train"], *split["validation"]} == {
        f.group for f in read_sources(config, short)
    }
    command = ["train", str(file), "--data", str(short), "-o", str(model), "--seed", "4"]
    assert main(command) == 2
    said = capsys.readouterr().err
    assert "another configuration, seed or data" in said
    assert "--fresh" in said
    assert main([*command, "--fresh"]) == 0


def test_the_precision_is_settled_once(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = short / "train.toml"
    file.write_text(file.read_text("utf-8").replace("bf16 = false\n", ""), "utf-8")
    config = read_config(file)
    assert config.schedule.bf16 == "auto"
    monkeypatch.setattr(tasks, "has_fast_bf16", lambda device: False)
    steps = train_model(config, short, short / "model")
    next(steps)
    steps.close()
    about = json.loads((working_folder(short / "model") / ABOUT_FILE).read_text("utf-8"))
    assert about["bf16"] is False
    monkeypatch.setattr(tasks, "has_fast_bf16", lambda device: True)  # on another machine
    for _ in train_model(config, short, short / "model"):
        pass
    raw = json.loads((short / "model" / "model.json").read_text("utf-8"))
    assert raw["training"]["bf16"] is False
    low = replace(config, schedule=replace(config.schedule, bf16=False))
    for _ in train_model(low, short, short / "stated"):
        pass
    weights = [(short / n / "weights.safetensors").read_bytes() for n in ("model", "stated")]
    assert weights[0] == weights[1]


def test_ctrl_c_stops_with_a_checkpoint_and_says_how_to_go_on(
    short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        if len(said) == 1:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("napari_histomil.cli.train.say", say)
    model = short / "model"
    before = signal.getsignal(signal.SIGINT)
    assert main(["train", str(short / "train.toml"), "--data", str(short), "-o", str(model)]) == 1
    assert signal.getsignal(signal.SIGINT) == before
    assert said[-1] == (
        "The training was stopped in the finished net. Run the same command again to go on, or "
        "with --fresh to begin anew."
    )
    assert (working_folder(model) / "finished" / checkpoint.FILE).exists()
    assert not model.exists()


def test_threads_cut_the_same_batches(short: Path) -> None:
    config = read_config(short / "train.toml")
    fields = read_sources(config, short)
    alone = list(batches(config, fields, seed=1, first=2, device="cpu"))
    ahead = list(batches(config, fields, seed=1, first=2, device="cpu", threads=3))
    assert len(alone) == len(ahead) == STEPS - 2
    for first, second in zip(alone, ahead, strict=True):
        assert torch.equal(first[0], second[0])
        assert torch.equal(first[1], second[1])


def test_a_damaged_checkpoint_is_a_sentence(short: Path) -> None:
    config = read_config(short / "train.toml")
    (short / "fit").mkdir()
    (short / "fit" / checkpoint.FILE).write_bytes(b"nothing of use")
    with pytest.raises(TrainingError, match="begin anew with --fresh"):
        next(fit(config, read_sources(config, short), seed=0, folder=short / "fit"))


def _last(steps: object) -> nn.Module:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            net: nn.Module = end.value
            return net
