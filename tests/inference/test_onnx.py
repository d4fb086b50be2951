"""ONNX graphs in the engine, and models exported to graphs."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from model_folders import make_model_folder, make_segmenter_folder
from onnx_graphs import graph, onnx_folder
from PIL import Image

from napari_histomil.errors import ModelError
from napari_histomil.inference import export as exporting
from napari_histomil.inference import predictor, segmentation
from napari_histomil.inference.engine import run
from napari_histomil.inference.export import export_model, folder_tiles, sample_tiles
from napari_histomil.inference.job import Job
from napari_histomil.manifest import load_manifest, verify_model
from napari_histomil.results import RunStore, SegmentationStore, bands
from napari_histomil.results import segmentation as stored_segmentation


def tiles(model, count: int = 6) -> np.ndarray:
    side = model.grid.tile_px
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8)


@pytest.mark.parametrize("pixels", [False, True])
def test_a_graph_runs_like_any_model_and_resumes_exactly(
    tmp_path: Path, make_job: Callable[..., Job], pixels: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after its first block or band and gone on with, it ends with the same bits."""
    for module in (bands, segmentation, stored_segmentation):
        monkeypatch.setattr(module, "BAND_PX", 64)
    monkeypatch.setattr(bands, "LANE_PX", 256)
    monkeypatch.setattr(predictor, "has_fast_bf16", lambda device: True)  # no graph is rounded
    job = make_job(onnx_folder(tmp_path / "m", graph(pixels=pixels), pixels=pixels))
    Store = SegmentationStore if pixels else RunStore
    straight = Store.open(list(run(job, out=tmp_path / "a", device="cpu"))[-1].store)
    cancel = threading.Event()
    for progress in run(job, out=tmp_path / "b", device="cpu", cancel=cancel):
        if progress.done:
            cancel.set()
    stopped = Store.open(list(run(job, out=tmp_path / "b", device="cpu"))[-1].store)
    assert len(stopped.sessions) == 2
    assert {s["backend"] for s in stopped.sessions} == {"onnxruntime"}
    if pixels:
        assert np.array_equal(straight.levels[0][:], stopped.levels[0][:])
        assert np.ptp(np.asarray(straight.levels[0][0])) > 5, "else nothing was tested"
    else:
        assert np.array_equal(straight.scores[:], stopped.scores[:])
        assert np.ptp(straight.scores[:, 1]) > 0.1


def test_a_graph_that_does_not_fit_its_description_is_told(
    tmp_path: Path, make_job: Callable[..., Job]
) -> None:
    folder = onnx_folder(tmp_path / "m", graph(pixels=True))  # but it is to classify
    with pytest.raises(ModelError, match="its description does not fit it"):
        list(run(make_job(folder), out=tmp_path, device="cpu"))
    folder = onnx_folder(tmp_path / "n", graph(pixels=False, shape=("b", 3, 9, 9)))
    with pytest.raises(ModelError, match="does not take tiles of 32 x 32 px"):
        list(run(make_job(folder), out=tmp_path, device="cpu"))


@pytest.mark.parametrize("task", ["classify", "segment"])
def test_an_exported_model_is_the_same_model_in_another_form(tmp_path: Path, task: str) -> None:
    make = make_model_folder if task == "classify" else make_segmenter_folder
    (tmp_path / "LICENSE").write_text("free")
    model = load_manifest(make(tmp_path / "tiny", temperature=1.5, scores={"auroc": 0.9}))
    (model.path / "README.md").write_text("# The card\n", "utf-8")
    for kind in ("onnx", "torchscript"):
        folder = tmp_path / f"tiny-{kind}"
        difference = export_model(model, kind, folder, tiles=tiles(model), tiles_from="noise")
        other = load_manifest(folder)
        verify_model(other)
        assert (other.name, other.weights_format) == (folder.name, kind)
        assert (
            replace(
                other,
                name=model.name,
                path=model.path,
                architecture=model.architecture,
                arguments=model.arguments,
                weights=model.weights,
                weights_format=model.weights_format,
                weights_sha256=model.weights_sha256,
                sha256=model.sha256,
                export={},
            )
            == model
        )
        assert other.export["sha256"] == model.sha256
        assert other.export["largest_difference"] == pytest.approx(difference.largest, rel=0.01)
        assert difference.largest < 1e-4
        assert difference.tiles == 6
        card = (folder / "README.md").read_text("utf-8")
        assert card.startswith(f"> This is tiny as {kind}")
        assert card.endswith("# The card\n")


def test_what_int8_changes_is_stated(tmp_path: Path) -> None:
    """It is compared on tiles that did not decide on the ranges."""
    model = load_manifest(make_model_folder(tmp_path / "tiny"))
    folder = tmp_path / "small"
    export_model(model, "onnx", folder, tiles=tiles(model, 9), tiles_from="noise", int8=True)
    record = load_manifest(folder).export
    assert (record["computes_in"], record["tiles"]) == ("int8", 4)
    assert 0 < record["mean_difference"] <= record["largest_difference"] < 0.3
    assert 0 <= record["argmax_changed"] <= 1
    with pytest.raises(ModelError, match="7 tiles from noise are too few"):
        export_model(model, "onnx", folder, tiles=tiles(model, 7), tiles_from="noise", int8=True)


def test_an_export_that_answers_otherwise_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_manifest(make_model_folder(tmp_path / "tiny"))
    other = load_manifest(make_model_folder(tmp_path / "other", seed=1))
    from napari_histomil.nets.load import load_module

    wrong = load_module(other)
    right = exporting.to_torchscript
    monkeypatch.setattr(exporting, "to_torchscript", lambda _, example: right(wrong, example))
    with pytest.raises(ModelError, match=r"gives other probabilities, by up to 0\.\d+"):
        export_model(model, "torchscript", tmp_path / "x", tiles=tiles(model), tiles_from="noise")
    assert not (tmp_path / "x").exists()


def test_a_graph_is_not_exported_again(tmp_path: Path) -> None:
    model = load_manifest(onnx_folder(tmp_path / "m", graph(pixels=False)))
    with pytest.raises(ModelError, match=r"has no tensors of its own \(onnx\)"):
        export_model(model, "onnx", tmp_path / "x", tiles=tiles(model), tiles_from="noise")


def test_tiles_of_a_folder_are_cut_side_by_side(tmp_path: Path) -> None:
    model = load_manifest(make_model_folder(tmp_path / "tiny"))
    folder = tmp_path / "pictures"
    (folder / "class").mkdir(parents=True)
    picture = np.arange(70 * 64 * 3, dtype=np.uint32).astype(np.uint8).reshape(64, 70, 3)
    Image.fromarray(picture).save(folder / "class" / "a.png")
    cut = folder_tiles(model, folder)
    assert cut.shape == (4, 32, 32, 3)
    assert np.array_equal(cut[3], picture[32:64, 32:64])
    assert len(folder_tiles(model, folder, 2)) == 2
    Image.fromarray(picture[:20]).save(folder / "b.png")  # what lies in the folder itself counts
    with pytest.raises(ModelError, match="70 x 20 px, smaller than the model's tiles of 32 px"):
        folder_tiles(model, folder)
    (folder / "b.png").write_bytes(b"no picture")
    with pytest.raises(ModelError, match="cannot be read as a picture"):
        folder_tiles(model, folder)
    with pytest.raises(ModelError, match="holds no pictures"):
        folder_tiles(model, tmp_path / "pictures" / "nothing")


def test_the_packaged_slide_gives_tiles_of_tissue(tmp_path: Path) -> None:
    model = load_manifest(make_model_folder(tmp_path / "tiny"))
    found = sample_tiles(model, 5)
    assert found.shape == (5, 32, 32, 3)
    assert found.mean() < 225, "glass is brighter"


def test_the_command_line_exports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from napari_histomil.cli import main

    model, out = str(make_model_folder(tmp_path / "tiny")), tmp_path / "tiny-ts"
    command = ["models", "export", model, "--format", "torchscript", "-o", str(out)]
    assert main([*command, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["path"] == str(out)
    assert said["largest_difference"] < 1e-5
    assert main(["models", "show", str(out)]) == 0
    assert "export      model: tiny" in capsys.readouterr().out
    assert main(command) == 2
    assert "exists already" in capsys.readouterr().err
    assert main([*command, "--int8"]) == 2
    assert "int8 is for ONNX" in capsys.readouterr().err
    assert main(["models", "export", model, "--format", "onnx", "--int8"]) == 2
    assert "--tiles FOLDER" in capsys.readouterr().err
