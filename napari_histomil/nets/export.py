"""A torch net as a graph that other programs run: ONNX, TorchScript; and with weights of int8.

Graphs take any number of tiles at once. Whether they answer as the net does is for the caller to
check.
"""

from __future__ import annotations

import io
import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from napari_histomil.errors import ModelError, brief
from napari_histomil.nets.onnx_graph import MISSING, check_graph

INPUT, OUTPUT = "tiles", "logits"
OPSET = 18
"""Of ONNX: what ONNX Runtime has read since 2022, and TensorRT, OpenVINO and OpenCV do."""


def to_onnx(module: nn.Module, example: Tensor) -> bytes:
    """Return a net as an ONNX graph in one piece.

    Parameters
    ----------
    module
        Float32, on the CPU, in evaluation mode: [B, 3, H, W] -> [B, C] or [B, C, H, W].
    example
        float32 [B, 3, H, W] with B of at least 2; H and W are fixed in the graph, B is not.

    Raises
    ------
    ModelError
        If the net cannot be expressed in ONNX, or the exporter is not installed.
    """
    batch = torch.export.Dim("batch")
    try:
        with _quiet():
            program = torch.onnx.export(
                module,
                (example,),
                dynamo=True,
                dynamic_shapes=({0: batch},),
                input_names=[INPUT],
                output_names=[OUTPUT],
                opset_version=OPSET,
                external_data=False,
                verbose=False,
            )
    except ImportError as error:
        raise ModelError(f"To write ONNX {MISSING}.") from error
    except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
        raise ModelError(f"The net cannot be written as ONNX: {brief(error)}.") from error
    assert program is not None  # it is None for the older exporter only
    data: bytes = program.model_proto.SerializeToString()
    check_graph(data, "The exported graph")
    return data


def to_torchscript(module: nn.Module, example: Tensor) -> bytes:
    """Return a net as a TorchScript graph, traced.

    Parameters
    ----------
    module, example
        As for `to_onnx`.

    Raises
    ------
    ModelError
        If the net cannot be traced.
    """
    stream = io.BytesIO()
    try:
        with _quiet(), torch.no_grad():
            traced = torch.jit.trace(module, example)  # type: ignore[no-untyped-call]
            torch.jit.save(traced, stream)
    except (RuntimeError, ValueError, TypeError) as error:
        raise ModelError(f"The net cannot be written as TorchScript: {brief(error)}.") from error
    return stream.getvalue()


def load_traced(data: bytes) -> nn.Module:
    """Return the module of `to_torchscript`'s answer."""
    with _quiet():
        module: nn.Module = torch.jit.load(io.BytesIO(data))  # type: ignore[no-untyped-call]
    return module


def in_int8(graph: bytes, batches: Sequence[NDArray[np.float32]]) -> bytes:
    """Return a graph whose convolutions and products compute in int8.

    Static quantisation of ONNX Runtime (Jacob et al. 2018, Quantization and Training of Neural
    Networks for Efficient Integer-Arithmetic-Only Inference): weights channel by channel,
    activations by the range that they have on the given tiles, as pairs of operators that
    quantise and restore (QDQ).

    Parameters
    ----------
    graph
        As `to_onnx` gives it.
    batches
        float32 [B, 3, H, W], scaled as the net gets them: they decide on the ranges.

    Raises
    ------
    ModelError
        If the graph cannot be quantised, or ONNX Runtime is not installed.
    """
    try:
        from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
        from onnxruntime.quantization.calibrate import CalibrationDataReader
        from onnxruntime.quantization.shape_inference import quant_pre_process
    except ImportError as error:
        raise ModelError(f"To compute in int8 {MISSING}.") from error

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        """Gives one batch after the other."""

        def __init__(self) -> None:
            self._left = iter(batches)

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            batch = next(self._left, None)
            return None if batch is None else {INPUT: batch}

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, _quiet(loggers=True):
        source, ready, result = (Path(folder, name) for name in ("a.onnx", "b.onnx", "c.onnx"))
        source.write_bytes(graph)
        try:
            quant_pre_process(source, ready, skip_symbolic_shape=True)
            quantize_static(
                ready,
                result,
                Reader(),
                quant_format=QuantFormat.QDQ,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                per_channel=True,
                # Without it a processor that has no VNNI overflows its 16-bit sums.
                reduce_range=True,
            )
        except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
            raise ModelError(f"The graph cannot be brought to int8: {brief(error)}.") from error
        data = result.read_bytes()
    check_graph(data, "The graph in int8")
    return data


@contextmanager
def _quiet(loggers: bool = False) -> Iterator[None]:
    """Silence exporters, who warn about themselves; the quantiser does in the root's log."""
    before = logging.root.manager.disable
    if loggers:
        logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
