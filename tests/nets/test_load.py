from __future__ import annotations

import hashlib
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from model_folders import make_model_folder

from napari_histomil.errors import ModelError
from napari_histomil.manifest import ModelManifest, load_manifest
from napari_histomil.nets.load import build_module, load_module


@pytest.fixture
def model(tmp_path: Path) -> ModelManifest:
    return load_manifest(make_model_folder(tmp_path / "tiny"))


def with_weights(model: ModelManifest, data: bytes) -> ModelManifest:
    model.weights.write_bytes(data)
    return replace(model, weights_sha256=hashlib.sha256(data).hexdigest())


def test_weights_are_loaded_as_they_were_saved(model: ModelManifest) -> None:
    module = load_module(model)
    state = safetensors.torch.load_file(model.weights)
    assert not module.training
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, state[name]), name


def test_half_precision_weights_are_computed_in_full(model: ModelManifest) -> None:
    state = safetensors.torch.load_file(model.weights)
    half = {n: t.half() if t.is_floating_point() else t for n, t in state.items()}
    module = load_module(with_weights(model, safetensors.torch.save(half)))
    assert {p.dtype for p in module.parameters()} == {torch.float32}


def test_changed_weights_are_not_loaded(model: ModelManifest) -> None:
    model.weights.write_bytes(model.weights.read_bytes() + b" ")
    with pytest.raises(ModelError, match="get the model again"):
        load_module(model)


def test_weights_of_another_net_are_told_in_a_sentence(model: ModelManifest) -> None:
    state = safetensors.torch.load_file(model.weights)
    state["fc.weight"] = torch.zeros(3, 16)
    state["surprise"] = torch.zeros(1)
    del state["fc.bias"], state["bn1.bias"]
    broken = with_weights(model, safetensors.torch.save(state))
    with pytest.raises(ModelError) as caught:
        load_module(broken)
    message = str(caught.value)
    assert "2 tensors are missing" in message
    assert "1 are unknown (surprise" in message
    assert "fc.weight has [3, 16] instead of [2, 16]" in message
    assert "\n" not in message


def test_what_is_no_safetensors_is_told(model: ModelManifest) -> None:
    with pytest.raises(ModelError, match="no file of safetensors"):
        load_module(with_weights(model, b"\x80\x04pickled"))


def test_a_pickle_is_not_run(model: ModelManifest, tmp_path: Path) -> None:
    evidence = tmp_path / "it-ran"

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (evidence,))  # type: ignore[return-value]

    torch.save({"weights": Evil()}, tmp_path / "evil.pt")
    graph = replace(model, weights_format="torchscript", architecture="")
    with pytest.raises(ModelError, match="pickles are not loaded"):
        load_module(with_weights(graph, (tmp_path / "evil.pt").read_bytes()))
    assert not evidence.exists()


def test_torchscript_is_loaded(model: ModelManifest) -> None:
    module = load_module(model)
    example = torch.rand(2, 3, 32, 32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # tracing is what the zoo's models were
        traced = torch.jit.trace(module, example)
        traced.save(model.weights)
    data = model.weights.read_bytes()
    graph = replace(model, weights_format="torchscript", architecture="")
    loaded = load_module(with_weights(graph, data))
    with torch.inference_mode():
        torch.testing.assert_close(loaded(example), module(example))


@pytest.mark.parametrize(
    ("architecture", "arguments", "words"),
    [
        ("timm/no_such_net", {}, "cannot be built"),
        ("timm/resnet18", {"surprise": 1}, "surprise"),
        ("keras/resnet18", {}, "no family of nets 'keras'"),
    ],
)
def test_unknown_nets_are_told(architecture: str, arguments: dict[str, int], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        build_module(architecture, 2, arguments)


def test_arguments_fetch_no_weights_and_change_no_classes() -> None:
    module = build_module("timm/resnet10t", 5, {"pretrained": True, "num_classes": 1000})
    assert module.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 5)
