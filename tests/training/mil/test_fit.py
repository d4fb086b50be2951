from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from napari_histomil.errors import TrainingError
from napari_histomil.nets.mil import MILModel
from napari_histomil.training.mil.bags import open_bags
from napari_histomil.training.mil.config import Aggregator, MilConfig, MilSchedule, read_mil_config
from napari_histomil.training.mil.crossval import fold_in
from napari_histomil.training.mil.fit import (
    criterion_of,
    fit,
    new_net,
    order,
)
from napari_histomil.training.mil.scheme import thinned
from napari_histomil.training.mil.table import Case, read_table


@pytest.fixture
def config(toy: Path) -> MilConfig:
    return read_mil_config(toy / "train.toml")


def fitted(config: MilConfig, toy: Path, seed: int = 0) -> MILModel:
    data = open_bags(read_table(config, toy))
    steps = fit(config, data, data.cases, seed=seed)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


@pytest.mark.parametrize(
    "name", ["mean", "max", "attention", "clam-sb", "clam-mb", "dsmil", "transmil"]
)
def test_all_models_learn_by_the_same_loop(toy: Path, config: MilConfig, name: str) -> None:
    arguments = {} if name == "dsmil" else {"hidden": [8]}
    if name == "transmil":
        arguments = {"hidden": [16], "heads": 2}
    config = replace(
        config, aggregator=Aggregator(name, arguments), schedule=MilSchedule(epochs=1)
    )
    data = open_bags(read_table(config, toy))
    steps = list(fit(config, data, data.cases, seed=0))
    assert len(steps) == 24
    assert all(np.isfinite(step.loss) for step in steps)


def test_the_same_seed_gives_the_same_net_whatever_else_draws(
    toy: Path, config: MilConfig
) -> None:
    config = replace(config, schedule=replace(config.schedule, epochs=2, instance_dropout=0.3))
    one = fitted(config, toy)
    torch.rand(7)
    other, third = fitted(config, toy), fitted(config, toy, seed=1)
    same = [torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True)]
    assert all(same)
    assert not torch.equal(one.classifier.weight, third.classifier.weight)  # type: ignore[arg-type]


def test_rare_classes_weigh_more_or_come_as_often(config: MilConfig) -> None:
    train = [Case(str(n), int(n < 2), str(n)) for n in range(20)]
    weighted = replace(config, schedule=replace(config.schedule, imbalance="weights"))
    criterion = criterion_of(weighted, new_net(config, 4, 0), train)
    logits = torch.zeros(2)
    rare, common = (float(criterion(logits, torch.tensor(c))) for c in (1, 0))
    assert rare / common == pytest.approx(9)
    assert (2 * rare + 18 * common) / 20 == pytest.approx(float(np.log(2)))
    sampled = replace(config, schedule=replace(config.schedule, imbalance="sampling"))
    drawn = [train[n].label for epoch in range(100) for n in order(sampled, train, 0, epoch)]
    assert np.mean(drawn) == pytest.approx(0.5, abs=0.05)
    assert sorted(order(config, train, 0, 1)) == list(range(20))


def test_nested_bags_are_thinned_as_trees() -> None:
    low = torch.arange(10.0)[:, None].repeat(1, 3)
    high = torch.arange(40.0)[:, None].repeat(1, 3)
    random = torch.Generator().manual_seed(0)
    thin_low, thin_high = thinned([low, high], 0.5, 0, random)
    rows = thin_low[:, 0].long()
    assert len(rows) == 5
    assert torch.equal(rows, rows.sort().values)
    assert torch.equal(thin_high[:, 0].reshape(5, 4), rows[:, None] * 4 + torch.arange(4.0))
    assert len(thinned(low, 0.0, 3, random)) == 3
    assert thinned(low, 0.0, 30, random) is low
    assert len(thinned(low[:1], 0.9, 0, random)) == 1


@pytest.mark.parametrize("name", ["gated-attention", "mean", "clam-sb"])
def test_a_scaling_becomes_part_of_the_net(toy: Path, config: MilConfig, name: str) -> None:
    config = replace(config, aggregator=Aggregator(name, {"hidden": [8]}))
    data = open_bags(read_table(config, toy))
    scaled = data.scaled(data.cases[:9])
    net = new_net(config, 4, 0).eval()
    expected = net(scaled.read(data.cases[0])).logits
    assert not torch.allclose(net(data.read(data.cases[0])).logits, expected, atol=1e-3)
    fold_in(net, scaled)
    torch.testing.assert_close(net(data.read(data.cases[0])).logits, expected)
    values = torch.cat([scaled.read(c) for c in data.cases[:9]])  # type: ignore[misc]
    torch.testing.assert_close(values.mean(0), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(values.std(0, unbiased=False), torch.ones(4))


def test_a_scaling_needs_a_first_layer(toy: Path, config: MilConfig) -> None:
    config = replace(config, aggregator=Aggregator("dsmil"))
    data = open_bags(read_table(config, toy))
    with pytest.raises(TrainingError, match="first linear layer"):
        fold_in(new_net(config, 4, 0), data.scaled(data.cases))


def test_several_magnifications_are_learnt_from(toy: Path, config: MilConfig) -> None:
    with (toy / "bags.csv").open("w", encoding="utf-8") as table:
        table.write("bag,label\n")
        for n in range(6):
            for level, count in (("low", 4), ("high", 16)):
                with h5py.File(toy / "bags" / f"{n}-{level}.h5", "w") as file:
                    file["feats"] = np.full((count, 4), n % 2, np.float32)
            table.write(f"bags/{n}-low.h5;bags/{n}-high.h5,{('normal', 'tumor')[n % 2]}\n")
    zoom = Aggregator("zoommil", {"magnifications": 2, "k": 2, "hidden": 8, "attention": 4})
    config = replace(config, aggregator=zoom)
    data = open_bags(read_table(config, toy))
    assert data.magnifications == 2
    assert all(np.isfinite(s.loss) for s in fit(config, data, data.cases, seed=0))
    one = replace(config, aggregator=Aggregator("mean"))
    with pytest.raises(TrainingError, match="takes 1 magnifications, and the bags have 2"):
        next(fit(one, data, data.cases, seed=0))


def test_files_of_torch_are_bags_too(toy: Path, config: MilConfig) -> None:
    torch.save(torch.arange(8.0).reshape(2, 4), toy / "bags" / "a.pt")
    (toy / "bags.csv").write_text("bag,label\nbags/a.pt,tumor\nbags/1.h5,normal\n", "utf-8")
    data = open_bags(read_table(config, toy))
    assert torch.equal(data.read(data.cases[0]), torch.arange(8.0).reshape(2, 4))  # type: ignore[arg-type]


def test_bags_of_another_width_are_refused(toy: Path, config: MilConfig) -> None:
    with h5py.File(toy / "bags" / "3.h5", "w") as file:
        file["features"] = np.zeros((5, 7), np.float32)
    with pytest.raises(TrainingError, match=r"3.h5 has 1 magnifications of 7 values"):
        open_bags(read_table(config, toy))


def test_a_file_without_features_is_named(toy: Path, config: MilConfig) -> None:
    with h5py.File(toy / "bags" / "3.h5", "w") as file:
        file["x"] = np.zeros((5, 7), np.float32)
    with pytest.raises(TrainingError, match=r"3.h5 holds no features or feats"):
        open_bags(read_table(config, toy))
