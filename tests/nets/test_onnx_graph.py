from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx_graphs import BIAS, WEIGHTS, graph, onnx_folder

from napari_histomil.errors import ModelError
from napari_histomil.manifest import load_manifest
from napari_histomil.nets.load import load_module
from napari_histomil.nets.onnx_graph import OnnxGraph, check_graph, graph_flops


def by_torch(x: torch.Tensor) -> torch.Tensor:
    weights, bias = torch.from_numpy(WEIGHTS), torch.from_numpy(BIAS)
    return torch.nn.functional.conv2d(x, weights, bias, padding=1)


@pytest.mark.parametrize("pixels", [True, False])
def test_a_graph_answers_as_its_operators_say(tmp_path: Path, pixels: bool) -> None:
    """For any number of tiles, of any size, in whatever layout they lie in memory."""
    module = load_module(
        load_manifest(onnx_folder(tmp_path / "m", graph(pixels=pixels), pixels=pixels))
    )
    for count, height, width in [(1, 8, 8), (5, 8, 8), (2, 16, 12)]:
        x = torch.rand(count, 3, height, width)
        expected = by_torch(x) if pixels else by_torch(x).mean((2, 3))
        assert torch.allclose(module(x), expected, atol=1e-6)
        assert torch.equal(module(x.to(memory_format=torch.channels_last)), module(x))


def test_flops_are_those_of_torch(tmp_path: Path) -> None:
    data = graph(pixels=True).SerializeToString()
    assert graph_flops(data, (3, 10, 12)) == 2 * (2 * 10 * 12) * (3 * 9)


def test_a_batch_that_cannot_be_is_an_error_that_the_engine_knows() -> None:
    module = OnnxGraph(graph(pixels=True, shape=("b", 3, 8, 8)).SerializeToString())
    with pytest.raises(RuntimeError, match="invalid dimensions"):
        module(torch.rand(1, 3, 9, 9))


def external() -> onnx.ModelProto:
    model = graph(pixels=True)
    weights = model.graph.initializer[0]
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    weights.external_data.add(key="location", value="../../etc/passwd")
    return model


def hidden() -> onnx.ModelProto:
    """An operator of another library inside of a branch."""
    inner = helper.make_graph(
        [helper.make_node("Shell", [], ["x"], domain="evil")],
        "inner",
        [],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
    )
    yes = numpy_helper.from_array(np.array(True), "yes")
    node = helper.make_node("If", ["yes"], ["unused"], then_branch=inner, else_branch=inner)
    model = graph(pixels=True, nodes=[node], domains=["evil"])
    model.graph.initializer.append(yes)
    return model


UNSOUND = {
    "keeps weights in other files": external(),
    "uses evil.Shell": hidden(),
    "takes 1 tile at a time": graph(pixels=True, shape=(1, 3, 8, 8)),
    r"does not take tiles as float32 \[B, 3, H, W\]": graph(pixels=True, shape=("b", 1, 8, 8)),
    "does not take tiles as float32": graph(pixels=True, kind=TensorProto.FLOAT16),
    "has 2 inputs and 1 outputs": graph(pixels=True, inputs=("one", "two")),
    "is no sound ONNX graph": graph(
        pixels=True, nodes=[helper.make_node("NoSuchThing", ["logits"], ["x"])]
    ),
}


@pytest.mark.parametrize("problem", UNSOUND)
def test_a_graph_that_cannot_be_trusted_or_fed_is_refused(tmp_path: Path, problem: str) -> None:
    folder = onnx_folder(tmp_path / "m", UNSOUND[problem], pixels=True)
    with pytest.raises(ModelError, match=problem) as caught:
        load_module(load_manifest(folder))
    assert "\n" not in str(caught.value)
    assert "net.onnx" in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04 no protobuf \xff\xff\xff", b"\x08\x09"])
def test_what_is_no_graph_is_refused(data: bytes) -> None:
    with pytest.raises(ModelError, match=r"^a file (is no|has 0)"):
        check_graph(data, "a file")
