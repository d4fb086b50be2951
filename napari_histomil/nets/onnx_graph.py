"""An ONNX graph as a module: checked before it is trusted, run by ONNX Runtime.

A graph is data, but ONNX lets it name files beside it and operators of other libraries: both are
refused, and so is what the engine could not feed. Nothing here knows models or slides.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from napari_histomil.errors import ModelError, brief

if TYPE_CHECKING:
    import onnx
    import onnxruntime

MOST_BYTES = 2**31 - 1
"""What protobuf takes; weights beyond it would lie in files of their own."""

OWN_DOMAINS = ("", "ai.onnx")
"""Operators of ONNX itself."""

MISSING = 'needs ONNX Runtime: pip install "napari-histomil[onnx]"'


class OnnxGraph(nn.Module):
    """A graph that takes float32 [B, 3, H, W] and gives float32 [B, C] or [B, C, h, w].

    On a CPU each call computes in the thread that makes it, on one core, so that the workers of a
    run keep all cores busy and answers repeat to the last bit.

    Parameters
    ----------
    data
        The graph, as `read_graph` gives it.
    device
        Where it computes. ONNX Runtime's provider for it is used where it is installed, else the
        CPU's.

    Raises
    ------
    ModelError
        If ONNX Runtime is missing or refuses the graph.
    """

    def __init__(self, data: bytes, device: torch.device | None = None) -> None:
        super().__init__()
        self.data = data
        self.device = device or torch.device("cpu")
        self._session = _session(data, self.device)
        self._takes = self._session.get_inputs()[0].name
        self._gives = self._session.get_outputs()[0].name
        self._shapes: dict[tuple[int, ...], tuple[int, ...]] = {}
        self._mutex = threading.Lock()

    @property
    def providers(self) -> tuple[str, ...]:
        """What computes, in ONNX Runtime's names, the preferred first."""
        return tuple(self._session.get_providers())

    @property
    def on_device(self) -> bool:
        """Whether pixels stay on the device, or have to come to the CPU and go back."""
        return self.device.type == "cpu" or any("CUDA" in name for name in self.providers)

    def moved(self, device: torch.device) -> OnnxGraph:
        """Return the graph on another device."""
        return self if device == self.device else OnnxGraph(self.data, device)

    def forward(self, x: Tensor) -> Tensor:
        """Answer [B, 3, H, W] with [B, C] or [B, C, h, w] on the same device."""
        place = x.device if self.on_device else torch.device("cpu")
        given = x.to(place, torch.float32).contiguous()
        # Memory of torch is bound as it is: nothing is copied, on the CPU or on a GPU.
        answer = torch.empty((len(given), *self._answer_shape(given)), device=place)
        if place.type == "cuda":
            torch.cuda.current_stream(place).synchronize()  # ONNX Runtime has a stream of its own
        binding = self._session.io_binding()
        where = (place.type, place.index or 0, np.float32)
        binding.bind_input(self._takes, *where, tuple(given.shape), given.data_ptr())
        binding.bind_output(self._gives, *where, tuple(answer.shape), answer.data_ptr())
        try:
            self._session.run_with_iobinding(binding)
        except Exception as error:
            raise _as_torch_would(error) from error
        return answer.to(x.device)

    def _answer_shape(self, x: Tensor) -> tuple[int, ...]:
        """Return the shape of one tile's answer; found by asking, once for a size of tiles."""
        size = tuple(x.shape[1:])
        with self._mutex:
            if size not in self._shapes:
                one = {self._takes: x[:1].cpu().numpy()}
                try:
                    self._shapes[size] = self._session.run(None, one)[0].shape[1:]
                except Exception as error:
                    raise _as_torch_would(error) from error
            return self._shapes[size]


def runtime_version() -> str | None:
    """Return the version of ONNX Runtime; None where it is not installed."""
    for package in ("onnxruntime", "onnxruntime-gpu"):
        with suppress(PackageNotFoundError):
            return version(package)
    return None


def _as_torch_would(error: Exception) -> Exception:
    """ONNX Runtime's errors have no father of their own; the engine knows torch's."""
    text = brief(error)
    return MemoryError(text) if "allocat" in text.lower() else RuntimeError(text)


def read_graph(file: Path) -> bytes:
    """Read a graph that is safe to run and that the engine can feed.

    Raises
    ------
    ModelError
        If it is no ONNX file, too large, keeps weights in other files, uses operators that are
        not ONNX's own, or does not take float32 [B, 3, H, W] with a B of any size; or if ONNX is
        not installed.
    """
    try:
        if file.stat().st_size > MOST_BYTES:
            raise ModelError(f"{file} is larger than 2 GiB, and no such graphs are run.")
        data = file.read_bytes()
    except OSError as error:
        raise ModelError(f"{file} cannot be read: {error.strerror or error}.") from error
    check_graph(data, str(file))
    return data


def check_graph(data: bytes, name: str) -> None:
    """Refuse a graph as `read_graph` does; `name` is what the sentence calls it."""
    onnx = _onnx(name)
    from google.protobuf.message import DecodeError

    try:
        graph = onnx.load_model_from_string(data)
    except DecodeError as error:
        raise ModelError(f"{name} is no ONNX file: {brief(error)}.") from error
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in _tensors(graph)):
        raise ModelError(
            f"{name} keeps weights in other files, which no hash covers: save it as one file "
            f"(torch.onnx.export has external_data=False for it)."
        )
    foreign = next((n for n in _nodes(graph.graph) if n.domain not in OWN_DOMAINS), None)
    if foreign is not None or graph.functions:
        what = f"{foreign.domain}.{foreign.op_type}" if foreign is not None else "own functions"
        raise ModelError(
            f"{name} uses {what}, and only operators of ONNX itself are run: export it without."
        )
    try:
        onnx.checker.check_model(data)
    except (onnx.checker.ValidationError, ValueError) as error:
        raise ModelError(f"{name} is no sound ONNX graph: {brief(error)}.") from error
    _check_ends(graph, name)


def graph_flops(data: bytes, shape: tuple[int, ...]) -> float:
    """Return the arithmetic of one tile of (C, H, W), a multiply-add counted as two.

    Convolutions and matrix products count, as they do in torch's counter; 0 where the graph does
    not give away the sizes.
    """
    onnx = _onnx("A graph")
    graph = onnx.load_model_from_string(data)
    dimensions = _inputs(graph)[0].type.tensor_type.shape.dim
    for dimension, size in zip(dimensions, (1, *shape), strict=True):
        dimension.dim_value = size
    for output in graph.graph.output:  # a stated size must not contradict the one that is found
        output.type.tensor_type.ClearField("shape")
    for value in list(graph.graph.value_info):
        graph.graph.value_info.remove(value)
    inferred = onnx.shape_inference.infer_shapes(graph, data_prop=True).graph
    sizes = {t.name: list(t.dims) for t in inferred.initializer}
    for value in (*inferred.value_info, *inferred.input, *inferred.output):
        sizes[value.name] = [d.dim_value for d in value.type.tensor_type.shape.dim]
    return float(sum(_flops(node, sizes) for node in inferred.node))


def _flops(node: onnx.NodeProto, sizes: dict[str, list[int]]) -> int:
    """2 x the output's size x the length of each of its sums."""
    if node.op_type not in ("Conv", "ConvTranspose", "MatMul", "Gemm"):
        return 0
    left, right = (sizes.get(name, []) for name in node.input[:2])
    answer = sizes.get(node.output[0], [])
    if node.op_type == "Conv":  # weights [out, in / group, kh, kw]
        return 2 * math.prod(answer) * math.prod(right[1:])
    if node.op_type == "ConvTranspose":  # weights [in, out / group, kh, kw]
        return 2 * math.prod(left) * math.prod(right[1:])
    return 2 * math.prod(answer) * (left[-1] if left else 0)


def _onnx(name: str) -> Any:
    try:
        import onnx
        import onnx.checker
        import onnx.shape_inference
    except ImportError as error:
        raise ModelError(f"{name} {MISSING}.") from error
    return onnx


def _session(data: bytes, device: torch.device) -> onnxruntime.InferenceSession:
    try:
        import onnxruntime
    except ImportError as error:
        raise ModelError(f"A graph of ONNX {MISSING}.") from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # its warnings are about its own optimisation
    options.use_deterministic_compute = True
    if device.type == "cpu":
        options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        return onnxruntime.InferenceSession(data, options, providers=providers(device))
    except Exception as error:  # its errors have no other common father
        raise ModelError(f"ONNX Runtime does not take the graph: {brief(error)}.") from error


def providers(device: torch.device) -> list[Any]:
    """Return ONNX Runtime's providers for a device, the CPU's last.

    TensorRT builds an engine for minutes: it is used only where ``HISTOMIL_BACKEND`` is
    ``tensorrt``.
    """
    import onnxruntime

    there = onnxruntime.get_available_providers()
    wanted: list[Any] = []
    if device.type == "cuda":
        index = {"device_id": device.index or 0}
        if os.environ.get("HISTOMIL_BACKEND") == "tensorrt":
            wanted.append(("TensorrtExecutionProvider", index))
        # float32 is not rounded, as torch is told too (`inference/backends.py`)
        wanted.append(("CUDAExecutionProvider", {**index, "use_tf32": "0"}))
    return [*(each for each in wanted if each[0] in there), "CPUExecutionProvider"]


def _check_ends(graph: onnx.ModelProto, name: str) -> None:
    inputs = _inputs(graph)
    if len(inputs) != 1 or len(graph.graph.output) != 1:
        raise ModelError(
            f"{name} has {len(inputs)} inputs and {len(graph.graph.output)} outputs, and tiles go "
            f"in at one and answers come out at one: export it so."
        )
    kind = inputs[0].type.tensor_type
    sizes = [d.dim_value for d in kind.shape.dim]  # 0: any; 4 channels: a heatmap comes along
    if kind.elem_type != 1 or len(sizes) != 4 or sizes[1] not in (0, 3, 4):  # 1: TensorProto.FLOAT
        raise ModelError(
            f"{name} does not take tiles as float32 [B, 3, H, W]: export it with that input."
        )
    if sizes[0]:
        raise ModelError(
            f"{name} takes {sizes[0]} tile{'s' if sizes[0] > 1 else ''} at a time and no other "
            f"number: export it with a first dimension of any size."
        )


def _inputs(graph: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """Return inputs that have to be given: older files list their weights among them."""
    weights = {tensor.name for tensor in graph.graph.initializer}
    return [value for value in graph.graph.input if value.name not in weights]


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Yield every node, those inside of loops and branches too."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield every stored tensor: weights, and constants inside of nodes."""
    yield from _stored(model.graph)
    for node in _nodes(model.graph):
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for inner in (attribute.g, *attribute.graphs):
                yield from _stored(inner)


def _stored(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
