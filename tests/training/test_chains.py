"""A chain is scored as a whole: on its pictures of annotated slides, and on what it spared."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from model_folders import make_segmenter_folder, script_model
from refiner_cohort import write_models, write_slides

from napari_histomil.cli import main
from napari_histomil.manifest import find_steps, load_manifest
from napari_histomil.manifest.steps import chain_card

CLASSES = [{"name": "normal", "color": [90, 90, 180]}, {"name": "tumor", "color": [200, 0, 0]}]


class Bluer(torch.nn.Module):
    """Calls tumour what is blue, pixel by pixel."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        blue = (x[:, 2:] - x[:, 1:2]) * 12 - 2
        return torch.cat([-blue, blue], 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two annotated slides, and chains that look everywhere and nowhere."""
    folder = tmp_path_factory.mktemp("cohort")
    write_models(folder)
    write_slides(folder, "ab")
    grid = {"mpp": 4.0, "tile_px": 48, "stride_px": 24, "margin_px": 8}
    options = {"classes": CLASSES, "background_class": "normal", "grid": grid}
    script_model(make_segmenter_folder(folder / "bluer", **options), Bluer())
    steps = ["--detect", str(folder / "blue"), "--segment", str(folder / "bluer")]
    for name, threshold in (("everywhere", "0"), ("nowhere", "1"), ("somewhere", "0.9")):
        command = ["models", "chain", name, *steps, "--threshold", threshold, "--margin", "0"]
        assert main([*command, "-o", str(folder / name)]) == 0
    text = (folder / "train.toml").read_text(encoding="utf-8")
    text = text.replace('inputs = ["overview", "heatmap"]', "")
    text = text.replace('[detector]\nmodel = "blue"\nclass_name = "tumor"\n', "")
    text = text.replace(", 0.2]", "]").replace(", 0.3]", "]")
    (folder / "cohort.toml").write_text(text, encoding="utf-8")
    return folder


def scores(folder: Path, name: str, out: Path, *options: str) -> dict[str, object]:
    command = ["evaluate", str(folder / name), str(folder / "cohort.toml"), "--json", str(out)]
    command += ["--runs", str(folder / "runs"), "--bootstraps", "20", "--models", str(folder)]
    assert main([*command, *options]) == 0
    found: dict[str, object] = json.loads(out.read_text(encoding="utf-8"))
    return found


def test_a_chain_that_spares_nothing_is_its_last_model(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = scores(folder, "everywhere", tmp_path / "s.json", "--objects")
    chain = found["chain"]
    assert (chain["slides"], chain["spared"]) == (2, 0.0)
    assert chain["tiles"] == chain["fine_tiles"] > 0
    assert chain["detector_tiles"] > 0
    assert chain["alone"]["pixels"] == found["pixels"]
    assert found["pixels"]["objects"]["tumor"]["true"] > 0
    assert set(found["pixels"]["objects"]["tumor"]) >= {"f1", "f1_95"}
    said = capsys.readouterr()
    assert "(0 % were spared)" in said.out
    assert "bluer alone, on all of the tissue" in said.out
    assert "everywhere on a.tif: tile" in said.err


def test_where_it_does_not_look_it_says_background(folder: Path, tmp_path: Path) -> None:
    found = scores(folder, "nowhere", tmp_path / "s.json")
    classes = found["pixels"]["classes"]
    assert classes["tumor"]["recall"] == 0.0
    assert classes["normal"]["recall"] == 1.0
    total = 2 * (1536 // 8) * (1280 // 8)
    assert found["pixels"]["pixels"] == total  # all of it is labelled, the glass too
    assert found["chain"]["spared"] == 1.0
    assert found["chain"]["alone"]["pixels"]["classes"]["tumor"]["recall"] > 0


def test_pixels_are_those_of_the_picture(folder: Path, tmp_path: Path) -> None:
    found = scores(folder, "somewhere", tmp_path / "s.json")
    assert 0 < found["chain"]["spared"] < 1
    own, alone = found["pixels"], found["chain"]["alone"]["pixels"]
    assert own["classes"]["tumor"]["recall"] <= alone["classes"]["tumor"]["recall"]
    assert own["classes"]["normal"]["recall"] >= alone["classes"]["normal"]["recall"]


def test_pictures_are_refused_and_a_card_has_the_scores(
    folder: Path, tmp_path: Path, toy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", str(folder / "somewhere"), str(toy / "tiles"), "--models", str(folder)]
    assert main(command) == 2
    assert "somewhere is a chain, which looks at slides" in capsys.readouterr().err
    before = load_manifest(folder / "somewhere")
    scores(folder, "somewhere", tmp_path / "s.json", "--card", "two drawings")
    after = load_manifest(folder / "somewhere")
    assert after.sha256 == before.sha256
    (block,) = after.scores["apart"]
    assert block["chain"]["alone"]["model"] == "bluer"
    text = (folder / "somewhere" / "README.md").read_text(encoding="utf-8")
    assert "has not been scored" not in text
    assert "Two drawings (`histomil evaluate somewhere" in text
    assert "| tumor | " in text
    plain = chain_card(after, find_steps(after, [folder]))
    assert text.startswith(plain.split("What they are worth")[0])
    assert np.isfinite(block["pixels"]["mean_dice"])
