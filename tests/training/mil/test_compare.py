from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from napari_histomil.cli import main
from napari_histomil.training.mil.bags import open_bags
from napari_histomil.training.mil.compare import read_comparison
from napari_histomil.training.mil.crossval import cross_validate
from napari_histomil.training.mil.fit import Watched
from napari_histomil.training.mil.table import read_table

COMPARISON = """
task = "mil-comparison"
name = "Toy"
positive_class = "tumor"
peek = true

[[classes]]
name = "normal"
color = [120, 160, 220]

[[classes]]
name = "tumor"
color = [200, 0, 0]

[[bags]]
label = "plain"
bags = { table = "bags.csv" }

[[bags]]
label = "scaled"
bags = { table = "bags.csv", scaling = "training" }

[[aggregators]]
label = "gated"
[aggregators.aggregator]
name = "gated-attention"
arguments = { hidden = [8], attention = 8, dropout = 0.0 }

[[aggregators]]
label = "zoom"
aggregator = { name = "zoommil", arguments = { magnifications = 2, k = 2 } }

[schedule]
epochs = 10
learning_rate = 2e-2

[split]
validation = 0.0

[validation]
folds = 3
seeds = [0, 1]
bootstraps = 50
"""


@pytest.fixture
def config(toy: Path) -> Path:
    (toy / "compare.toml").write_text(COMPARISON, encoding="utf-8")
    return toy / "compare.toml"


def test_the_command_writes_tables_and_goes_on_where_it_was(
    config: Path, toy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = toy / "out"
    assert main(["compare", str(config), "-o", str(out)]) == 0
    shown = capsys.readouterr()
    assert shown.out == (out / "comparison.md").read_text(encoding="utf-8")
    assert "would have added" in shown.err
    assert "seed 1, fold 3 of 3" in shown.err
    with (out / "comparison.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    # zoommil takes two magnifications and meets no bag
    assert [(r["bags"], r["aggregator"]) for r in rows] == [
        ("plain", "gated"),
        ("scaled", "gated"),
    ]
    assert float(rows[1]["auroc"]) > 0.9
    (first, _) = json.loads((out / "comparison.json").read_text(encoding="utf-8"))["rows"]
    table = np.reshape(first["each_fold"], (2, 3))
    assert first["accuracy"] == pytest.approx(table.mean(), abs=1e-4)
    assert first["repeat_spread"] == pytest.approx(table.mean(1).std(ddof=1), abs=1e-4)
    spread = table.std(1, ddof=1).mean()
    assert first["fold_spread"] == pytest.approx(spread, abs=1e-4)
    assert first["fold_error"] == pytest.approx(spread / 3**0.5, abs=1e-4)

    assert main(["compare", str(config), "-o", str(out)]) == 0
    again = capsys.readouterr()
    assert again.out == shown.out
    assert "fold" not in again.err.split("Warning")[0]  # nothing was fitted again


def test_every_patient_is_asked_about_once_by_who_has_not_learnt_from_him(
    config: Path, toy: Path
) -> None:
    comparison = read_comparison(config)
    few = replace(comparison.schedule, epochs=2)
    comparison = replace(comparison, schedule=few)
    training = comparison.training(comparison.bags[0], comparison.aggregators[0])
    data = open_bags(read_table(training, toy))
    steps = cross_validate(training, data, data.cases, Watched(), peek=True)
    try:
        while True:
            next(steps)
    except StopIteration as end:
        found = end.value
    for folds in found.repeats:
        names = [c.name for fold in folds for c in fold.answers.cases]
        assert sorted(names) == sorted(c.name for c in data.cases)
        assert all(len(fold.peeked) == 2 for fold in folds)  # an epoch each
        assert all(fold.peeked[-1] == fold.accuracy for fold in folds)  # the last is taken
    one, other = found.runs
    assert [c.name for c in one.cases] == [c.name for c in other.cases]


def test_a_mistake_in_the_file_is_said(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = config.read_text(encoding="utf-8").replace("folds = 3", "folds = 0")
    config.write_text(text, encoding="utf-8")
    assert main(["compare", str(config), "-o", str(config.parent / "out")]) == 2
    assert "validation.folds of 2 or more" in capsys.readouterr().err
