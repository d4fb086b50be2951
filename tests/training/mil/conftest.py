"""Toy bags: in some, one instance in five is bright in the first feature."""

from __future__ import annotations

import csv
from pathlib import Path

import h5py
import numpy as np
import pytest

TOY = """
task = "mil"
name = "toy-mil"
description = "Bright instances."
licence = "BSD-3-Clause"
positive_class = "tumor"
notes = ["Not good for anything."]

[[classes]]
name = "normal"
color = [120, 160, 220]

[[classes]]
name = "tumor"
color = [200, 0, 0]

[bags]
table = "bags.csv"
encoder = "toy-encoder"

[[grids]]
mpp = 1.0
tile_px = 64
stride_px = 64

[aggregator]
name = "gated-attention"
arguments = { hidden = [8], attention = 8, dropout = 0.0 }

[schedule]
epochs = 12
learning_rate = 2e-2
checkpoint_every = 5

[split]
validation = 0.25

[validation]
folds = 3
bootstraps = 50
"""


def write_bags(folder: Path, *, bags: int = 24, dim: int = 4, patients: int | None = None) -> None:
    """Write ``bags.csv`` and the bags: odd ones hold bright instances."""
    rng = np.random.default_rng(0)
    (folder / "bags").mkdir(parents=True)
    with (folder / "bags.csv").open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(["bag", "label", "patient"])
        for n in range(bags):
            x = rng.normal(size=(int(rng.integers(5, 12)), dim)).astype(np.float32)
            if n % 2:
                x[: max(1, len(x) // 5), 0] += 6
            with h5py.File(folder / "bags" / f"{n}.h5", "w") as file:
                file["features"] = x
            table.writerow(
                [f"bags/{n}.h5", ("normal", "tumor")[n % 2], f"p{n % (patients or bags)}"]
            )


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """Folder with ``train.toml``, ``bags.csv`` and bags."""
    write_bags(tmp_path)
    (tmp_path / "train.toml").write_text(TOY, encoding="utf-8")
    return tmp_path
