from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_histomil.errors import ModelError, RunError
from napari_histomil.inference import backend_choice, predictor, remembered
from napari_histomil.inference.backend_choice import _unless, choose, in_onnxruntime
from napari_histomil.inference.backends import Net, prepare_net
from napari_histomil.inference.engine import run
from napari_histomil.inference.job import Job
from napari_histomil.manifest import ModelManifest, load_manifest
from napari_histomil.nets.onnx_graph import OnnxGraph
from napari_histomil.results import RunStore

MANY = 10**12


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelManifest:
    from model_folders import make_model_folder

    return load_manifest(make_model_folder(tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture(scope="module")
def net(model: ModelManifest) -> Net:
    return prepare_net(model, (32, 32), torch.device("cpu"))


@pytest.fixture(scope="module")
def exported(net: Net, model: ModelManifest) -> Net:
    return in_onnxruntime(net, model, (32, 32))


@pytest.fixture
def sample() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), np.uint8)


@pytest.fixture
def speeds(monkeypatch: pytest.MonkeyPatch, exported: Net) -> dict[str, float]:
    """Seconds that each backend is said to take: no clock decides here."""
    seconds = {"eager": 1.0, "onnxruntime": 1.0}
    clock = [0.0]
    assert isinstance(exported.module, OnnxGraph)
    data = exported.module.data
    monkeypatch.setattr(backend_choice, "_export", lambda net, shape: data)
    monkeypatch.setattr(backend_choice.time, "thread_time", lambda: clock[0])
    right = backend_choice.Predictor.scores

    def scores(self, tiles):
        clock[0] += seconds[self.net.backend]
        return right(self, tiles)

    monkeypatch.setattr(backend_choice.Predictor, "scores", scores)
    return seconds


def chosen(net: Net, model: ModelManifest, sample: np.ndarray, tiles: int = MANY) -> Net:
    return choose(net, net, model, sample, tiles=tiles, cancel=threading.Event())


def test_the_exported_net_answers_as_the_folded_one(net: Net, exported: Net, sample) -> None:
    """Folded scaling, and the border it is padded with, included."""
    tiles = torch.from_numpy(sample)
    assert net.scaling_folded
    assert torch.allclose(exported.logits(tiles), net.logits(tiles), atol=1e-5)


def test_the_faster_one_is_taken_and_remembered(net, model, sample, speeds) -> None:
    speeds["onnxruntime"] = 0.5
    assert chosen(net, model, sample).backend == "onnxruntime"
    speeds["onnxruntime"] = 9.0  # what was found holds
    assert chosen(net, model, sample, tiles=1).backend == "onnxruntime"
    (known,) = remembered.recall_model(model.sha256)
    assert known.sentence().startswith("onnxruntime fp32 on ")
    assert known.tiles_per_second == {"eager fp32": 8.0, "onnxruntime fp32": 16.0}
    assert remembered.recall_graph(known) == backend_choice._export(net, (32, 32))


def test_torch_is_kept_where_the_gain_is_noise(net, model, sample, speeds) -> None:
    speeds["onnxruntime"] = 0.97
    assert chosen(net, model, sample) is net
    assert remembered.recall_model(model.sha256)[0].chosen == "eager fp32"


def test_a_short_job_measures_nothing(net, model, sample, speeds) -> None:
    speeds["onnxruntime"] = 0.1
    assert chosen(net, model, sample, tiles=100) is net
    assert remembered.recall_model(model.sha256) == []


def test_other_answers_are_not_taken_however_fast(
    net, model, sample, speeds, monkeypatch: pytest.MonkeyPatch
) -> None:
    speeds["onnxruntime"] = 0.1
    monkeypatch.setattr(predictor, "BF16_TOLERANCE", 0.0)
    assert chosen(net, model, sample) is net
    assert "moves answers" in remembered.recall_model(model.sha256)[0].sentence()


def test_a_net_that_cannot_be_exported_stays_in_torch(
    net, model, sample, speeds, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(net, shape):
        raise ModelError("The net cannot be written as ONNX: it is odd.")

    monkeypatch.setattr(backend_choice, "_export", refuse)
    assert chosen(net, model, sample) is net
    assert "it is odd" in remembered.recall_model(model.sha256)[0].sentence()


def test_without_onnx_runtime_torch_is_all(
    net, model, sample, speeds, monkeypatch: pytest.MonkeyPatch
) -> None:
    speeds["onnxruntime"] = 0.1
    monkeypatch.setattr(backend_choice, "runtime_version", lambda: None)
    assert chosen(net, model, sample) is net


def test_a_backend_can_be_forced(
    net, model, sample, speeds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HISTOMIL_BACKEND", "onnxruntime")
    assert chosen(net, model, sample, tiles=1).backend == "onnxruntime"
    speeds["onnxruntime"] = 0.1
    monkeypatch.setenv("HISTOMIL_BACKEND", "torch")
    assert chosen(net, model, sample) is net
    low = replace(net, precision="bf16")
    monkeypatch.setenv("HISTOMIL_BACKEND", "torch-fp32")
    assert choose(net, low, model, sample, tiles=1, cancel=threading.Event()) is net
    monkeypatch.setenv("HISTOMIL_BACKEND", "abacus")
    with pytest.raises(RunError, match="HISTOMIL_BACKEND is 'abacus': choose one of auto"):
        chosen(net, model, sample)


def test_what_is_remembered_may_be_damaged(net, model, sample, speeds) -> None:
    speeds["onnxruntime"] = 0.5
    chosen(net, model, sample)
    for file in remembered.folder().iterdir():
        file.write_bytes(b"{")
    assert remembered.recall_model(model.sha256) == []
    assert chosen(net, model, sample).backend == "onnxruntime"


def test_a_cancelled_run_does_not_wait_for_an_export() -> None:
    cancel, going, begun = threading.Event(), threading.Event(), threading.Event()

    def work() -> int:
        begun.set()
        going.wait(60)
        return 1

    threading.Thread(target=lambda: (begun.wait(60), cancel.set())).start()
    start = time.monotonic()
    assert _unless(cancel, work) is None
    assert time.monotonic() - start < 50, "else it waited for the work"
    going.set()
    assert _unless(threading.Event(), work) == 1
    with pytest.raises(TimeoutError, match="its own"):
        _unless(threading.Event(), lambda: (_ for _ in ()).throw(TimeoutError("its own")))


def test_a_run_keeps_what_its_first_session_chose(
    tmp_path: Path, make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_manifest(make_job().model.path)
    net = prepare_net(model, (32, 32), torch.device("cpu"))
    graph = backend_choice._export(net, (32, 32))
    monkeypatch.setattr(backend_choice, "_export", lambda net, shape: graph)
    monkeypatch.setenv("HISTOMIL_BACKEND", "onnxruntime")
    straight = RunStore.open(list(run(make_job(), out=tmp_path / "a", device="cpu"))[-1].store)
    cancel = threading.Event()
    for progress in run(make_job(), out=tmp_path / "b", device="cpu", cancel=cancel):
        if progress.done:
            cancel.set()
    monkeypatch.setenv("HISTOMIL_BACKEND", "torch")
    resumed = RunStore.open(list(run(make_job(), out=tmp_path / "b", device="cpu"))[-1].store)
    assert [s["backend"] for s in resumed.sessions] == ["onnxruntime"] * 2
    assert [s["precision"] for s in resumed.sessions] == ["fp32"] * 2
    assert np.array_equal(straight.scores[:], resumed.scores[:])
