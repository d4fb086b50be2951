from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from model_folders import make_model_folder, make_segmenter_folder

from napari_histomil.errors import ModelError
from napari_histomil.manifest import load_manifest
from napari_histomil.nets.export import in_int8, load_traced, to_onnx, to_torchscript
from napari_histomil.nets.load import load_module
from napari_histomil.nets.onnx_graph import OnnxGraph, graph_flops


@pytest.fixture(scope="module", params=["classify", "segment"])
def net(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    make = make_model_folder if request.param == "classify" else make_segmenter_folder
    return load_module(load_manifest(make(tmp_path_factory.mktemp("models") / "tiny")))


def test_graphs_answer_as_the_net_for_any_number_of_tiles(net: torch.nn.Module) -> None:
    example = torch.rand(2, 3, 32, 32)
    data = to_onnx(net, example)
    assert graph_flops(data, (3, 32, 32)) > 1e5
    for graph in (OnnxGraph(data), load_traced(to_torchscript(net, example))):
        for count in (1, 2, 5):
            x = torch.rand(count, 3, 32, 32)
            with torch.inference_mode():
                assert torch.allclose(graph(x), net(x), atol=1e-4, rtol=1e-4)


def test_int8_comes_near_and_is_smaller(tmp_path: Path) -> None:
    net = load_module(load_manifest(make_model_folder(tmp_path / "tiny")))
    generator = torch.Generator().manual_seed(1)
    batches = [torch.randn(4, 3, 32, 32, generator=generator).numpy() for _ in range(4)]
    data = to_onnx(net, torch.from_numpy(batches[0][:2]))
    small = in_int8(data, batches)
    assert b"QuantizeLinear" in small
    x = torch.from_numpy(batches[0])
    with torch.inference_mode():
        exact, rounded = net(x), OnnxGraph(small)(x)
    error = float((exact - rounded).abs().max())
    assert 0 < error < 0.2 * float(exact.abs().max())
    assert np.isfinite(rounded.numpy()).all()


class Wild(torch.nn.Module):
    """Depends on its pixels in a way that no graph can hold."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if float(x.sum()) > 0 else -x


def test_a_net_that_is_no_graph_is_told(recwarn: pytest.WarningsRecorder) -> None:
    with pytest.raises(ModelError, match="cannot be written as ONNX"):
        to_onnx(Wild().eval(), torch.rand(2, 3, 8, 8))
