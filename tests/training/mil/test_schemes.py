"""Schemes of training as a configuration names them, in whole fits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from napari_histomil.errors import TrainingError
from napari_histomil.nets.mil import MILModel
from napari_histomil.training.mil.bags import open_bags
from napari_histomil.training.mil.config import Mhim, MilConfig, ScMil, read_mil_config
from napari_histomil.training.mil.fit import Watched, fit
from napari_histomil.training.mil.table import read_table
from napari_histomil.training.toml import plain, write_text

MHIM = """
[scheme]
name = "mhim"
high = 0.1
random = 0.2
"""
SC_MIL = """
[scheme]
name = "sc-mil"
projection = 8
"""
SCHEMES = [MHIM, SC_MIL]


def named(toy: Path, scheme: str, **changes: str) -> MilConfig:
    """Return the toy training with a scheme, six bags a step."""
    text = (toy / "train.toml").read_text(encoding="utf-8")
    text = text.replace("epochs = 12", "epochs = 12\nbatch = 6")
    for old, new in changes.items():
        text = text.replace(old, new)
    path = toy / "scheme.toml"
    path.write_text(text + scheme, encoding="utf-8")
    return read_mil_config(path)


def fitted(config: MilConfig, toy: Path, folder: Path | None = None) -> MILModel:
    data = open_bags(read_table(config, toy))
    steps = fit(config, data, data.cases[:16], seed=0, watched=Watched(folder=folder))
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def test_a_training_without_a_scheme_is_the_one_that_it_was(toy: Path) -> None:
    config = read_mil_config(toy / "train.toml")
    assert config.hash() == "54d91f80b050f15d51e8c25e7f68efffaba56d7d6f34036e87708645f6ce17db"
    masked = replace(config, scheme=Mhim("mhim"))
    hashes = {
        config.hash(),
        masked.hash(),
        replace(config, scheme=Mhim("mhim", high=0.02)).hash(),
    }
    assert len(hashes) == 3
    (toy / "again.toml").write_text(write_text(plain(masked)), encoding="utf-8")
    assert read_mil_config(toy / "again.toml") == masked
    assert "scheme" not in plain(config)


@pytest.mark.parametrize(("scheme", "batch", "epochs"), [(MHIM, 1, 12), (SC_MIL, 4, 30)])
def test_bags_are_learnt_that_were_kept_away(
    toy: Path, scheme: str, batch: int, epochs: int
) -> None:
    config = named(toy, scheme)
    config = replace(config, schedule=replace(config.schedule, batch=batch, epochs=epochs))
    data = open_bags(read_table(config, toy))
    net = fitted(config, toy)
    with torch.inference_mode():
        answers = [int(net(data.read(case)).logits.argmax()) for case in data.cases[16:]]
    assert answers == [case.label for case in data.cases[16:]]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_stopped_fit_goes_on_to_the_same_bits(toy: Path, scheme: str) -> None:
    config = named(toy, scheme, **{"epochs = 12": "epochs = 4"})
    straight = fitted(config, toy)
    data = open_bags(read_table(config, toy))
    watched = Watched(folder=toy / "fit")
    steps = fit(config, data, data.cases[:16], seed=0, watched=watched)
    for _ in range(7):  # the checkpoint is that of the fifth step
        next(steps)
    steps.close()
    stopped = fitted(config, toy, toy / "fit")
    pairs = zip(straight.state_dict().values(), stopped.state_dict().values(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    other = fitted(replace(config, scheme=None), toy)
    assert not torch.equal(other.classifier.weight, straight.classifier.weight)  # type: ignore[arg-type]


def test_a_checkpoint_of_another_scheme_is_refused(toy: Path) -> None:
    config = named(toy, MHIM, **{"epochs = 12": "epochs = 2"})
    fitted(config, toy, toy / "fit")
    plain_one = replace(config, scheme=None)
    with pytest.raises(TrainingError, match="begin anew"):
        fitted(plain_one, toy, toy / "fit")


@pytest.mark.parametrize(
    ("scheme", "aggregator", "lacks"),
    [(MHIM, "mean", "attention"), (MHIM, "max", "attention"), (SC_MIL, "max", "one vector")],
)
def test_models_without_what_a_scheme_needs_are_refused(
    toy: Path, scheme: str, aggregator: str, lacks: str
) -> None:
    with pytest.raises(TrainingError, match=f"'{aggregator}', which has no {lacks}"):
        named(toy, scheme, **{'"gated-attention"': f'"{aggregator}"'})


def test_bad_numbers_are_refused(toy: Path) -> None:
    config = named(toy, MHIM)
    for numbers in (
        {"high": 0.6, "low": 0.4, "high_part": 1.0},
        {"random": 1.0},
        {"high": 0.0, "high_part": 0.0},
        {"momentum": 1.0},
        {"temperature": 0.0},
    ):
        with pytest.raises(TrainingError, match=f"scheme.{next(iter(numbers))}"):
            replace(config, scheme=Mhim("mhim", **numbers))  # type: ignore[arg-type]
    with pytest.raises(TrainingError, match=r"schedule.batch must be 2 or more"):
        replace(config, scheme=ScMil("sc-mil"), schedule=replace(config.schedule, batch=1))
    with pytest.raises(TrainingError, match=r"scheme.name must be one of mhim, sc-mil"):
        named(toy, '[scheme]\nname = "mixup"\n')
    with pytest.raises(TrainingError, match=r"scheme.projection is unknown here"):
        named(toy, MHIM + "projection = 8\n")
