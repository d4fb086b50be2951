from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from napari_histomil.errors import ModelError, RunError
from napari_histomil.inference import predictor as predictor_module
from napari_histomil.inference.backends import Net, in_bf16, prepare_net
from napari_histomil.inference.predictor import (
    BF16_TOLERANCE,
    CPU_BATCH,
    Predictor,
    cpu_batch,
    find_batch,
    settle,
)
from napari_histomil.inference.tasks import classify
from napari_histomil.manifest import ModelManifest, load_manifest
from napari_histomil.nets.load import load_module
from napari_histomil.slides.slide import Uint8Image

CPU = torch.device("cpu")


@pytest.fixture
def model(model_folder: Path) -> ModelManifest:
    return load_manifest(model_folder)


@pytest.fixture
def net(model: ModelManifest) -> Net:
    return prepare_net(model, (32, 32), CPU)


@pytest.fixture
def tiles() -> Uint8Image:
    return np.random.default_rng(0).integers(0, 256, (50, 32, 32, 3), np.uint8)


class Greedy(nn.Module):
    """Runs out of memory above a number of tiles."""

    def __init__(self, inner: nn.Module, most: int, error: Exception) -> None:
        super().__init__()
        self.inner, self.most, self.error = inner, most, error
        self.batches: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.most:
            raise self.error
        self.batches.append(len(x))
        answer: Tensor = self.inner(x)
        return answer


ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"),
    RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
    MemoryError(),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: type(e).__name__ + str(e)[:3])
def test_out_of_memory_halves_the_batch_for_good(
    net: Net, model: ModelManifest, tiles: Uint8Image, error: Exception
) -> None:
    greedy = Greedy(net.module, 11, error)
    predictor = Predictor(replace(net, module=greedy), model, 32)
    wanted = Predictor(net, model, 8).scores(tiles)
    np.testing.assert_allclose(predictor.scores(tiles), wanted, atol=1e-6)
    assert predictor.batch == 8
    assert greedy.batches == [8] * 6 + [2]
    predictor.scores(tiles)
    assert greedy.batches[7:] == [8] * 6 + [2], "it remembers"


def test_too_little_for_one_tile_is_told(
    net: Net, model: ModelManifest, tiles: Uint8Image
) -> None:
    greedy = Greedy(net.module, 0, ERRORS[0])
    with pytest.raises(RunError, match="does not suffice for one tile"):
        Predictor(replace(net, module=greedy), model, 4).scores(tiles)


def test_other_errors_are_not_taken_for_memory(
    net: Net, model: ModelManifest, tiles: Uint8Image
) -> None:
    greedy = Greedy(net.module, 0, RuntimeError("shapes do not match"))
    with pytest.raises(RuntimeError, match="shapes"):
        Predictor(replace(net, module=greedy), model, 4).scores(tiles)


def test_preparing_changes_no_answer(net: Net, model: ModelManifest, tiles: Uint8Image) -> None:
    assert model.normalisation is not None
    module = load_module(model)
    mean, std = (
        torch.tensor(v)[:, None, None] for v in (model.normalisation.mean, model.normalisation.std)
    )
    with torch.inference_mode():
        scaled = (torch.from_numpy(tiles).permute(0, 3, 1, 2) / 255 - mean) / std
        wanted = module(scaled)
    assert net.scaling_folded
    assert net.batch_norms_folded == sum(isinstance(m, nn.BatchNorm2d) for m in module.modules())
    torch.testing.assert_close(net.logits(torch.from_numpy(tiles)), wanted, rtol=1e-5, atol=1e-5)
    # a second, shorter batch must not see what the first left in the padded buffer
    few = net.logits(torch.from_numpy(tiles[7:9]))
    torch.testing.assert_close(few, wanted[7:9], rtol=1e-5, atol=1e-5)


class Mixed(nn.Module):
    """Uses its input twice: once through a convolution, once as it is. Folding cannot know."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x).mean((2, 3)) + 5 * x.mean((2, 3))[:, :2]
        return y


def test_a_net_that_cannot_be_folded_is_left_as_it_is(
    model: ModelManifest, tiles: Uint8Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    module = Mixed().eval()
    monkeypatch.setattr("napari_histomil.inference.backends.load_module", lambda model: module)
    net = prepare_net(model, (32, 32), CPU)
    assert not net.scaling_folded
    assert model.normalisation is not None
    mean, std = (
        torch.tensor(v)[:, None, None] for v in (model.normalisation.mean, model.normalisation.std)
    )
    scaled = (torch.from_numpy(tiles).permute(0, 3, 1, 2) / 255 - mean) / std
    with torch.inference_mode():
        wanted = module(scaled)
    torch.testing.assert_close(net.logits(torch.from_numpy(tiles)), wanted, rtol=1e-5, atol=1e-5)


def test_tiles_or_classes_that_do_not_fit_are_told(
    model: ModelManifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    module: nn.Module = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 2))
    monkeypatch.setattr("napari_histomil.inference.backends.load_module", lambda model: module)
    assert prepare_net(model, (32, 32), CPU).logits(torch.zeros(1, 32, 32, 3)).shape == (1, 2)
    with pytest.raises(ModelError, match="does not take tiles of 48 x 32 px"):
        prepare_net(model, (32, 48), CPU)
    with pytest.raises(ModelError, match="its description does not fit it"):
        prepare_net(replace(model, classes=model.classes[:1]), (32, 32), CPU)


def test_bf16_is_used_only_where_it_is_near_enough(
    net: Net, model: ModelManifest, tiles: Uint8Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictor_module, "has_fast_bf16", lambda device: True)
    chosen, settings = settle(net, model, tiles, batch=None)
    assert settings.precision == chosen.precision == "bf16"
    assert settings.bf16_difference is not None
    assert 0 < settings.bf16_difference <= BF16_TOLERANCE
    exact = Predictor(net, model, 16).scores(tiles)
    rounded = Predictor(chosen, model, 16).scores(tiles)
    assert np.abs(exact - rounded).max() == pytest.approx(settings.bf16_difference, abs=1e-3)
    assert rounded.dtype == np.float32

    monkeypatch.setattr(predictor_module, "BF16_TOLERANCE", settings.bf16_difference / 2)
    chosen, strict = settle(net, model, tiles, batch=None)
    assert strict.precision == chosen.precision == "fp32"
    assert strict.bf16_difference == settings.bf16_difference


def test_without_hardware_or_tiles_it_is_float32(
    net: Net, model: ModelManifest, tiles: Uint8Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictor_module, "has_fast_bf16", lambda device: True)
    assert settle(net, model, tiles[:0], batch=None)[1].precision == "fp32"
    monkeypatch.setattr(predictor_module, "has_fast_bf16", lambda device: False)
    assert settle(net, model, tiles, batch=5)[1].batch == 5
    assert settle(net, model, tiles, batch=5)[1].bf16_difference is None


def test_bf16_repeats_to_the_last_bit(net: Net, model: ModelManifest, tiles: Uint8Image) -> None:
    low = in_bf16(net)
    first, second = (Predictor(low, model, 16).scores(tiles) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_large_nets_get_small_batches(net: Net) -> None:
    assert net.flops > 0
    assert cpu_batch(net) == CPU_BATCH
    assert [cpu_batch(replace(net, flops=f)) for f in (1e9, 4e9, 1e12)] == [8, 2, 1]


def test_a_batch_is_found_by_doubling(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0

    class Timed(nn.Module):
        """A device with a cost a call, and memory for 300 tiles."""

        def forward(self, x: Tensor) -> Tensor:
            if len(x) > 300:
                raise torch.OutOfMemoryError("CUDA out of memory")
            nonlocal calls
            calls += 1
            return x.mean((2, 3))

    clock = SimpleNamespace(perf_counter=lambda: 0.01 * calls)
    with monkeypatch.context() as patch:
        patch.setattr(predictor_module, "time", clock)
        found = find_batch(replace(net, module=Timed()), (8, 8))
    assert found == 128, "half of the 256 that fit"
    steady = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1))
    assert find_batch(replace(net, module=steady), (32, 32)) <= 4096


def test_classes_by_hand(model: ModelManifest) -> None:
    logits = torch.tensor([[0.0, 2.0]])
    soft = classify(logits, replace(model, temperature=2.0))
    np.testing.assert_allclose(soft, [[1 / (1 + np.e), np.e / (1 + np.e)]], rtol=1e-6)
    sigmoid = classify(logits, replace(model, activation="sigmoid"))
    np.testing.assert_allclose(sigmoid, [[0.5, 1 / (1 + np.exp(-2))]], rtol=1e-6)
