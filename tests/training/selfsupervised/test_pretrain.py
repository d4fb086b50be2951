"""From the command to a model folder that lists, shows, starts a training, and does not run."""

from __future__ import annotations

import csv
import signal
from pathlib import Path

import pytest
import torch

from napari_histomil.cli import main
from napari_histomil.inference.job import plan_job
from napari_histomil.manifest import load_manifest, verify_model
from napari_histomil.nets.load import load_module
from napari_histomil.slides.readers import open_slide
from napari_histomil.training.selfsupervised.checkpoint import CHECKPOINT_FILE


def test_the_journey(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = toy / "encoder"
    command = ["pretrain", str(toy / "pretrain.toml"), "-o", str(out)]
    assert main(command) == 0
    said = capsys.readouterr()
    assert said.out.strip() == str(out)
    assert "simclr: step 6 of 6" in said.err
    manifest = load_manifest(out)
    verify_model(manifest)
    assert (manifest.task, manifest.embedding_dim, manifest.classes) == ("embed", 64, ())
    assert manifest.training["data"][0]["files"] == 8
    assert load_module(manifest)(torch.zeros(2, 3, 32, 32)).shape == (2, 64)
    with (out / "curves.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row["step"]) for row in rows] == [1, 2, 3, 4, 5, 6]
    assert float(rows[-1]["loss"]) > 0
    assert rows[0]["momentum"] == ""
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "SimCLR (Chen et al. 2020)" in card
    assert "Not good for anything." in card
    assert (out / "pretrain.toml").read_bytes() == (toy / "pretrain.toml").read_bytes()
    assert not (out / CHECKPOINT_FILE).exists()

    assert main(command) == 2  # it is there
    assert "--force" in capsys.readouterr().err
    assert main(["models", "show", str(out)]) == 0
    assert "embeddings of 64 values" in capsys.readouterr().out


def test_the_command_goes_on_where_it_stopped(
    toy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from napari_histomil.training.selfsupervised.config import read_pretrain_config
    from napari_histomil.training.selfsupervised.pretrain import pretrain_encoder

    config, out = read_pretrain_config(toy / "pretrain.toml"), toy / "encoder"
    steps = pretrain_encoder(config, toy, out)
    for _ in range(5):
        next(steps)
    steps.close()
    assert (out / CHECKPOINT_FILE).exists()
    command = ["pretrain", str(toy / "pretrain.toml"), "-o", str(out)]
    assert main([*command, "--seed", "3"]) == 2
    assert "checkpoint of another training" in capsys.readouterr().err
    assert main(command) == 0
    assert "Going on after step 4." in capsys.readouterr().err


def test_ctrl_c_stops_with_a_checkpoint_and_says_how_to_go_on(
    toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        if "step 3 of 6" in text:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("napari_histomil.cli.pretrain.say", say)
    before = signal.getsignal(signal.SIGINT)
    command = ["pretrain", str(toy / "pretrain.toml"), "-o"]
    assert main([*command, str(toy / "encoder")]) == 1
    assert signal.getsignal(signal.SIGINT) == before
    assert said[-1] == (
        "The pretraining was stopped after 3 steps. Run the same command again to go on, or with "
        "--force to begin anew."
    )
    assert (toy / "encoder" / CHECKPOINT_FILE).exists()
    assert not (toy / "encoder" / "model.json").exists()
    said.clear()
    assert main([*command, str(toy / "encoder")]) == 0
    assert said[0] == "Going on after step 3."


def test_it_gives_features_of_a_slide_and_no_heatmap(
    toy: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pretrain", str(toy / "pretrain.toml"), "-o", str(toy / "encoder")]) == 0
    path = data_dir / "wsi-aperio-svs" / "CMU-1-Small-Region.svs"
    with open_slide(path) as slide:
        job = plan_job(slide.info, load_manifest(toy / "encoder"))
    assert job.task == "embed"
    assert main(["run", str(toy / "encoder"), str(path), "-o", str(toy / "out")]) == 2
    assert "toy-encoder is an encoder" in capsys.readouterr().err


def test_bad_input_is_a_sentence(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pretrain", str(toy / "none.toml"), "-o", str(toy / "e")]) == 2
    assert "cannot be read as TOML" in capsys.readouterr().err
    arguments = ["--data", str(toy / "nowhere"), "-o", str(toy / "e")]
    assert main(["pretrain", str(toy / "pretrain.toml"), *arguments]) == 2
    assert "holds no pictures to learn from" in capsys.readouterr().err
    assert not (toy / "e").exists()
