"""A refiner from annotated slides to a chain that runs, and on after a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from refiner_cohort import TOY, write_models, write_slides

from napari_histomil.cli import main
from napari_histomil.errors import TrainingError
from napari_histomil.manifest import load_manifest
from napari_histomil.results import SegmentationStore
from napari_histomil.training.augment import augment, distrust_heat
from napari_histomil.training.card import card
from napari_histomil.training.config import Augmentation, read_config
from napari_histomil.training.curves import read_curves
from napari_histomil.training.recipe import working_folder

KILLED = """
import os, signal, sys
from pathlib import Path
from napari_histomil.training.config import read_config
from napari_histomil.training.recipe import train_model
folder = Path(sys.argv[1])
for now in train_model(read_config(folder / "train.toml"), folder, folder / "killed"):
    if now.stage == "the finished net" and now.step == 7:
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models, three annotated slides, and a refiner trained from two of them."""
    folder = tmp_path_factory.mktemp("cohort")
    write_models(folder)
    write_slides(folder, "abc")
    assert main(["train", str(folder / "train.toml"), "-o", str(folder / "mended")]) == 0
    return folder


def test_the_whole_way(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = json.loads((folder / "mended" / "model.json").read_text(encoding="utf-8"))
    assert raw["inputs"] == ["overview", "heatmap"]
    assert raw["architecture"]["arguments"]["in_channels"] == 4
    detector = raw["training"]["detector"]
    assert detector["sha256"] == load_manifest(folder / "blue").sha256
    assert detector["slides"] == {"learnt_from": 0, "not_learnt_from": 0, "unknown": 3}
    assert len(raw["training"]["slides"]) == 2  # the test was not learnt from
    assert raw["scores"]["test"]["pixels"]["fields"] == 1
    losses = [row["loss"] for row in read_curves(folder / "mended" / "curves.csv")]
    assert np.mean(losses[-6:]) < 0.8 * np.mean(losses[:6])
    text = (folder / "mended" / "README.md").read_text(encoding="utf-8")
    assert text == card(read_config(folder / "train.toml"), raw)
    assert "Of the 3 slides, blue is known to have learnt from 0" in text
    assert "The heatmap has no colours" in text

    chain = str(tmp_path / "chain")
    steps = ["--detect", str(folder / "blue"), "--refine", str(folder / "mended")]
    steps += ["--segment", str(folder / "unet"), "--threshold", "0.3", "--margin", "0"]
    assert main(["models", "chain", "chain", *steps, "-o", chain]) == 0
    capsys.readouterr()
    command = ["run", chain, str(folder / "c.tif"), "-o", str(tmp_path), "--models", str(folder)]
    assert main([*command, "--device", "cpu"]) == 0
    stores = [p for p in tmp_path.rglob("zarr.json") if (p.parent / "left_out").is_dir()]
    store = SegmentationStore.open(stores[0].parent)
    assert store.complete
    assert store.chain is not None
    assert 0 <= store.chain["cells_left_out"] <= len(store.grid)


def test_killed_and_begun_again_it_ends_in_the_same_bits(folder: Path) -> None:
    place = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    killed = subprocess.run([sys.executable, "-c", KILLED, str(folder)], env=place, check=False)
    assert killed.returncode == -signal.SIGKILL
    runs = sorted((working_folder(folder / "killed") / "heatmaps").rglob("zarr.json"))
    before = {path: path.stat().st_mtime_ns for path in runs}
    assert before
    assert main(["train", str(folder / "train.toml"), "-o", str(folder / "killed")]) == 0
    assert {path: path.stat().st_mtime_ns for path in runs} == before  # used as they are
    weights = [(folder / n / "weights.safetensors").read_bytes() for n in ("mended", "killed")]
    assert weights[0] == weights[1]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('inputs = ["overview", "heatmap"]', "", "has inputs ="),
        ('[detector]\nmodel = "blue"\nclass_name = "tumor"\n', "", "a table \\[detector\\]"),
        ("mean = [0.7, 0.5, 0.7, 0.2]", "mean = [0.7, 0.5, 0.7]", "four of a refiner"),
        ('kind = "slide"', 'kind = "tiles"', "learns from, and is scored on, annotated slides"),
    ],
)
def test_what_makes_no_refiner_is_refused(tmp_path: Path, old: str, new: str, words: str) -> None:
    assert old in TOY
    (tmp_path / "train.toml").write_text(TOY.replace(old, new), encoding="utf-8")
    with pytest.raises(TrainingError, match=words):
        read_config(tmp_path / "train.toml")


def test_geometry_moves_all_channels_and_colour_only_three() -> None:
    options = Augmentation(heat_gamma=0, heat_noise=0, heat_drop=0, edge_probability=1)
    side, tile = 64, 32
    ramp = torch.linspace(0, 1, side).expand(side, side)
    images = torch.stack([ramp, ramp, ramp, ramp])[None].repeat(4, 1, 1, 1)
    labels = torch.stack([ramp, 1 - ramp])[None].repeat(4, 1, 1, 1)

    def varied(options: Augmentation) -> tuple[torch.Tensor, torch.Tensor]:
        return augment(images, labels, tile, options, torch.Generator().manual_seed(3))

    moved, turned = varied(options)
    assert moved.shape == (4, 4, tile, tile)
    glass = turned[:, 0] == 1
    assert glass.any()
    assert (moved[:, 3][glass & (turned[:, 1] == 0)] == 0).all()
    inside = ~glass
    np.testing.assert_allclose(moved[:, 3][inside], turned[:, 0][inside], atol=1e-6)
    assert not np.allclose(moved[:, 0][inside], turned[:, 0][inside], atol=0.02)


def test_a_heatmap_is_not_to_be_trusted() -> None:
    heat = torch.full((64, 1, 32, 32), 0.5)
    random = torch.Generator().manual_seed(0)
    blind = distrust_heat(heat, Augmentation(heat_gamma=0, heat_noise=0), random)
    missed = (blind == 0).float().mean(dim=(1, 2, 3))
    assert set(blind.unique().tolist()) == {0.0, 0.5}
    assert 0.05 < float(missed.mean()) < 0.25  # 0.15 is meant
    assert float(missed.max()) < 0.5
    squares = blind.reshape(64, 16, 2, 16, 2)
    assert (squares == squares[:, :, :1, :, :1]).all()
    faint = distrust_heat(heat, Augmentation(heat_noise=0, heat_drop=0), random)
    assert 0.2 < float(faint.min()) < 0.45 < 0.55 < float(faint.max()) < 0.75
    noisy = distrust_heat(heat, Augmentation(heat_gamma=0, heat_drop=0), random)
    assert float(noisy.std()) == pytest.approx(0.15, rel=0.1)
