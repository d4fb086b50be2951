"""Graphs of ONNX made by hand, and model folders that hold them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from model_folders import make_model_folder, make_segmenter_folder
from onnx import TensorProto, helper, numpy_helper

WEIGHTS = np.random.default_rng(0).normal(0, 0.5, (2, 3, 3, 3)).astype(np.float32)
BIAS = np.array([0.25, -0.5], np.float32)


def graph(
    *,
    pixels: bool,
    shape: Sequence[int | str] = ("batch", 3, "height", "width"),
    nodes: Sequence[onnx.NodeProto] = (),
    inputs: Sequence[str] = ("whatever",),
    kind: int = TensorProto.FLOAT,
    domains: Sequence[str] = (),
) -> onnx.ModelProto:
    """A convolution of 3 x 3; answers for pixels, or with the mean over them."""
    last = "logits" if pixels else "pixels"
    steps = [helper.make_node("Conv", [inputs[0], "weights", "bias"], [last], pads=[1] * 4)]
    if not pixels:
        steps.append(helper.make_node("ReduceMean", ["pixels", "axes"], ["logits"], keepdims=0))
    rest = ["h", "w"] if pixels else []
    axes = np.array([2, 3], np.int64)
    stored = [("weights", WEIGHTS), ("bias", BIAS), *([] if pixels else [("axes", axes)])]
    body = helper.make_graph(
        [*steps, *nodes],
        "net",
        [helper.make_tensor_value_info(name, kind, list(shape)) for name in inputs],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["b", 2, *rest])],
        [numpy_helper.from_array(value, name) for name, value in stored],
    )
    imports = [helper.make_opsetid("", 18), *(helper.make_opsetid(d, 1) for d in domains)]
    return helper.make_model(body, opset_imports=imports, ir_version=9)


def onnx_folder(path: Path, model: onnx.ModelProto | bytes, *, pixels: bool = False) -> Path:
    """Write a model folder around a graph."""
    make = make_segmenter_folder if pixels else make_model_folder
    make(path)
    data = model if isinstance(model, bytes) else model.SerializeToString()
    (path / "net.onnx").write_bytes(data)
    document: dict[str, Any] = json.loads((path / "model.json").read_text("utf-8"))
    digest = hashlib.sha256(data).hexdigest()
    document["weights"] = {"file": "net.onnx", "format": "onnx", "sha256": digest}
    del document["architecture"]
    (path / "model.json").write_text(json.dumps(document), "utf-8")
    return path
