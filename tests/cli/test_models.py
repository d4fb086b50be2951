"""``models list``, ``show``, ``verify``."""

from __future__ import annotations

import json
import shutil

import pytest


@pytest.fixture
def mixed(models, tmp_path):
    """A folder with a sound model, one with changed weights and one that is none."""
    folder = tmp_path / "models"
    shutil.copytree(models / "tiny-tumor", folder / "sound")
    shutil.copytree(models / "tiny-tumor", folder / "changed")
    for name in ("sound", "changed"):
        file = folder / name / "model.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"name": name}))
    weights = folder / "changed" / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    (folder / "broken").mkdir()
    (folder / "broken" / "model.json").write_text("{")
    return folder


def test_list(histomil, models):
    said = histomil("models", "list", "--models", models)
    assert said.code == 0
    line = next(line for line in said.out.splitlines() if line.startswith("tiny-tumor"))
    assert "1 µm/px, tiles of 32 px every 16 px  normal, tumor" in line
    listed = json.loads(histomil("models", "list", "--models", models, "--json").out)
    (tiny,) = [model for model in listed if model["name"] == "tiny-tumor"]
    assert (tiny["mpp"], tiny["tile_px"], tiny["stride_px"]) == (1.0, 32, 16)
    assert tiny["classes"][1] == {"name": "tumor", "color": [200, 0, 0]}


def test_broken_models_are_told_and_hide_no_others(histomil, mixed):
    said = histomil("models", "list", "--models", mixed)
    assert said.code == 0
    assert "sound" in said.out
    assert "broken" in said.complaint


def test_show(histomil, models):
    said = histomil("models", "show", "tiny-tumor", "--models", models)
    assert said.code == 0
    assert "classes     normal, tumor (softmax)" in said.out.splitlines()
    assert "licence     BSD-3-Clause" in said.out.splitlines()
    shown = json.loads(histomil("models", "show", models / "tiny-tumor", "--json").out)
    assert shown["name"] == "tiny-tumor"
    assert len(shown["weights_sha256"]) == len(shown["sha256"]) == 64


def test_an_unknown_model_says_which_is_near(histomil, models):
    said = histomil("models", "show", "tiny-tumour", "--models", models)
    assert said.code == 2
    assert said.complaint.endswith("Did you mean tiny-tumor?")
    said = histomil("models", "show", "qqqq", "--models", models)
    assert said.code == 2
    assert "Did you mean" not in said.complaint
    assert "tiny-tumor" in said.complaint


def test_verify_finds_changed_weights(histomil, mixed):
    said = histomil("models", "verify", "--models", mixed)
    assert said.code == 1
    lines = said.out.splitlines()
    assert "sound: ok" in lines
    (changed,) = [line for line in lines if line.startswith("changed: ")]
    assert "sha256" in changed
    assert "broken" in said.complaint
    assert histomil("models", "verify", "sound", "--models", mixed).code == 0
    results = json.loads(histomil("models", "verify", "changed", "--models", mixed, "--json").out)
    assert [(result["name"], result["ok"]) for result in results] == [("changed", False)]
    assert histomil("models", "verify", "nothing", "--models", mixed).code == 2
