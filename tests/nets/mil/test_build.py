from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from model_folders import make_model_folder

from napari_histomil.errors import ModelError
from napari_histomil.manifest import load_manifest
from napari_histomil.nets.load import load_module
from napari_histomil.nets.mil import build_mil, load_mil

GRID = {"mpp": 0.5, "tile_px": 256, "stride_px": 256}


def make_mil_folder(
    path: Path, name: str, arguments: dict[str, Any], **changes: Any
) -> tuple[Path, torch.nn.Module]:
    """Write a MIL model with random weights: features of 8 values, 3 classes."""
    torch.manual_seed(0)
    net = build_mil(name, 8, 3, **arguments)
    path.mkdir()
    safetensors.torch.save_file(net.state_dict(), path / "weights.safetensors")
    digest = hashlib.sha256((path / "weights.safetensors").read_bytes()).hexdigest()
    arguments = {key: value for key, value in arguments.items() if key != "clinical"}
    manifest = {
        "schema_version": 1,
        "name": path.name,
        "description": "Random weights, for tests.",
        "task": "mil",
        "architecture": {"name": f"mil/{name}", "arguments": arguments},
        "weights": {"file": "weights.safetensors", "format": "safetensors", "sha256": digest},
        "classes": [{"name": n, "color": [0, 0, 0]} for n in "abc"],
        "activation": "sigmoid",
        "temperature": 2.0,
        "grid": GRID,
        "licence": "BSD-3-Clause",
        "mil": {"encoder": {"name": "tiny", "dim": 8}, "grids": [GRID]},
    } | changes
    (path / "model.json").write_text(json.dumps(manifest), encoding="utf-8")
    return path, net.eval()


def test_a_model_folder_answers_as_the_model_that_was_saved(tmp_path: Path) -> None:
    folder, net = make_mil_folder(tmp_path / "m", "gated-attention", {"hidden": [16]})
    model = load_mil(load_manifest(folder))
    assert not model.training
    output = model(torch.ones(4, 8))
    assert torch.equal(output.logits, net(torch.ones(4, 8)).logits)
    assert torch.allclose(output.probabilities, (output.logits / 2).sigmoid())


def test_clinical_variables_are_counted_from_their_names(tmp_path: Path) -> None:
    mil = {"encoder": {"name": "tiny", "dim": 8}, "grids": [GRID], "clinical": ["age", "stage"]}
    folder, _ = make_mil_folder(tmp_path / "m", "mean", {"clinical": 2}, mil=mil)
    assert load_mil(load_manifest(folder)).clinical.in_features == 2


def test_a_mil_model_is_not_taken_for_one_of_tiles(tmp_path: Path) -> None:
    folder, _ = make_mil_folder(tmp_path / "m", "mean", {})
    with pytest.raises(ModelError, match="takes features of tiles, not tiles"):
        load_module(load_manifest(folder))
    with pytest.raises(ModelError, match="is no MIL model"):
        load_mil(load_manifest(make_model_folder(tmp_path / "tiny")))


def test_what_does_not_fit_is_told(tmp_path: Path) -> None:
    mil = {"encoder": {"name": "tiny", "dim": 8}, "grids": [{**GRID, "mpp": 2}, GRID]}
    folder, _ = make_mil_folder(tmp_path / "m", "mean", {}, mil=mil)
    with pytest.raises(ModelError, match=r"takes 1 magnifications, and mil\.grids names 2"):
        load_mil(load_manifest(folder))
    mil = {"encoder": {"name": "tiny", "dim": 9}, "grids": [GRID]}
    folder, _ = make_mil_folder(tmp_path / "n", "mean", {}, mil=mil)
    with pytest.raises(ModelError, match=r"embed.0.weight has \[512, 8\] instead of \[512, 9\]"):
        load_mil(load_manifest(folder))
