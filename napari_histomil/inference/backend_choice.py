"""Torch or ONNX Runtime: measured once for a model on a machine, and remembered.

Torch's own way is settled in `predictor.py`: float32 or bfloat16, always channels last (of every
net measured so far channels first was slower). Here ONNX Runtime has a try against it, in float32,
where a job is long enough to be worth it. A run keeps what its first session chose. Torch alone is
used where ONNX Runtime is not installed.
"""

from __future__ import annotations

import copy
import hashlib
import math
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Literal, TypeVar

import numpy as np
import torch

from napari_histomil.errors import ModelError, RunError, brief
from napari_histomil.inference.backends import Net
from napari_histomil.inference.devices import describe_device
from napari_histomil.inference.lanes import one_thread_each, worker_count
from napari_histomil.inference.predictor import Predictor, tolerance
from napari_histomil.inference.remembered import Measured, recall, recall_graph, remember
from napari_histomil.inference.tasks import difference
from napari_histomil.manifest import ModelManifest
from napari_histomil.nets.export import to_onnx
from napari_histomil.nets.onnx_graph import OnnxGraph, providers, runtime_version
from napari_histomil.slides.slide import Uint8Image

_Result = TypeVar("_Result")

Wish = Literal["auto", "torch", "torch-fp32", "onnxruntime", "tensorrt"]
WISHES: tuple[Wish, ...] = ("auto", "torch", "torch-fp32", "onnxruntime", "tensorrt")
VARIABLE = "HISTOMIL_BACKEND"

WORTH_FLOPS = 2e12
"""Arithmetic of a job for each worker of a CPU, about a minute, below which nothing is tried: to
export a net and to measure it takes seconds."""

WORTH_DEVICE_FLOPS = 2e15
"""The same on other devices."""

MEASURE_FLOPS = 1e10
"""Of a batch that is measured: a fifth of a second of a core."""

ROUNDS = 3
GAIN = 1.05
"""ONNX Runtime must be this much faster: below it, noise would choose."""

POLL_SECONDS = 0.1


def wish() -> Wish:
    """Return which backend the person asks for, by the variable ``HISTOMIL_BACKEND``.

    ``auto`` measures; ``torch`` is torch, in bfloat16 where that is exact enough, ``torch-fp32``
    in float32; ``onnxruntime`` is that, ``tensorrt`` the same with NVIDIA's compiler.

    Raises
    ------
    RunError
        If there is no such backend.
    """
    text = os.environ.get(VARIABLE, "") or "auto"
    if text not in WISHES:
        raise RunError(f"{VARIABLE} is {text!r}: choose one of {', '.join(WISHES)}.")
    return text


def choose(
    exact: Net,
    settled: Net,
    model: ModelManifest,
    sample: Uint8Image,
    *,
    tiles: int,
    cancel: threading.Event,
) -> Net:
    """Return the net as the fastest backend runs it within tolerance.

    Parameters
    ----------
    exact
        The net in torch, float32.
    settled
        What torch would run: `exact`, or the same in bfloat16.
    model
        What it is.
    sample
        uint8 [n, H, W, 3], tiles of the job.
    tiles
        How many are to be predicted.
    cancel
        Once it is set, whatever takes long is left, and `settled` returned.

    Raises
    ------
    RunError
        If the person asks for a backend that does not exist.
    ModelError
        If the person asks for ONNX Runtime, and it is missing or does not take the net.
    """
    asked = wish()
    if exact.backend != "eager" or asked == "torch" or not len(sample):
        return settled
    if asked == "torch-fp32":
        return exact
    if asked in ("onnxruntime", "tensorrt"):
        return in_onnxruntime(exact, model, sample.shape[1:3])
    if not _has_onnxruntime(exact.device):
        return settled
    facts = _facts(settled, model, sample.shape[1:3])
    known = recall(facts)
    if known is None:
        worth = WORTH_FLOPS if exact.device.type == "cpu" else WORTH_DEVICE_FLOPS
        if tiles * exact.flops / worker_count(exact.device) < worth:
            return settled
        known = _unless(cancel, lambda: _measure(exact, settled, model, sample, facts))
        if known is None:
            return settled
    if not known.chosen.startswith("onnxruntime"):
        return settled
    net = _unless(cancel, lambda: in_onnxruntime(exact, model, sample.shape[1:3]))
    if net is None or _difference(exact, net, model, sample) > tolerance(model):
        return settled
    return net


def as_before(exact: Net, model: ModelManifest, shape: tuple[int, ...], backend: str) -> Net:
    """Return the net as an earlier session of the run had it, however fast others are.

    Raises
    ------
    ModelError
        If that was ONNX Runtime, and it is missing by now.
    """
    return in_onnxruntime(exact, model, shape) if backend == "onnxruntime" else exact


def in_onnxruntime(net: Net, model: ModelManifest, shape: tuple[int, ...]) -> Net:
    """Return a torch net in float32 as ONNX Runtime runs it, what is folded included.

    The graph is exported, unless it was kept when it was measured.

    Raises
    ------
    ModelError
        If ONNX Runtime is missing, or the net cannot be exported.
    """
    if net.backend != "eager":
        return net
    known = recall(_facts(net, model, shape)) if _has_onnxruntime(net.device) else None
    data = recall_graph(known) if known is not None else None
    return _with_graph(net, data if data is not None else _export(net, shape))


def _with_graph(net: Net, data: bytes) -> Net:
    return replace(net, module=OnnxGraph(data, net.device), precision="fp32")


def _export(net: Net, shape: tuple[int, ...]) -> bytes:
    """Export the net as it is made ready, with its folded scaling: one input, padded or scaled."""
    tiles = torch.zeros((2, *shape, 3), dtype=torch.uint8, device=net.device)
    module, given = net.module, net.prepared(tiles).clone()
    if net.device.type != "cpu":
        module, given = copy.deepcopy(module).cpu(), given.cpu()
    return to_onnx(module, given.contiguous())


def _measure(
    exact: Net, settled: Net, model: ModelManifest, sample: Uint8Image, facts: dict[str, str]
) -> Measured:
    """Run both in turns on some tiles, and remember which is faster."""
    names = f"{settled.backend} {settled.precision}", "onnxruntime fp32"
    day = datetime.now(UTC).date().isoformat()
    try:
        data = _export(exact, sample.shape[1:3])
        other = _with_graph(exact, data)
    except ModelError as error:
        measured = Measured(facts, {names[0]: 0.0}, names[0], day, brief(error))
        remember(measured)
        return measured
    count = max(min(len(sample), int(MEASURE_FLOPS / max(exact.flops, 1))), 1)
    some = sample[:count]
    if exact.device.type != "cpu":  # which is fast in large batches only
        some = np.concatenate([sample] * max(256 // len(sample), 1))
    # On a CPU both compute in this thread: its own time is not disturbed by other programs.
    clock = time.thread_time if exact.device.type == "cpu" else time.perf_counter
    best = [float("inf")] * 2
    with one_thread_each() as prepare:
        prepare()
        for _ in range(ROUNDS + 1):  # the first warms up
            for place, net in enumerate((settled, other)):
                predictor = Predictor(net, model, len(some))
                start = clock()
                predictor.scores(some)
                best[place] = min(best[place], clock() - start)
    speeds = {name: len(some) / seconds for name, seconds in zip(names, best, strict=True)}
    wins = speeds[names[1]] >= GAIN * speeds[names[0]]
    reason = ""
    if wins and _difference(exact, other, model, some) > tolerance(model):
        wins, reason = False, f"ONNX Runtime moves answers by more than {tolerance(model):g}"
    rounded = {name: float(f"{speed:.4g}") for name, speed in speeds.items()}
    digest = hashlib.sha256(data).hexdigest() if wins else ""
    measured = Measured(facts, rounded, names[wins], day, reason, digest)
    remember(measured, data if wins else None)
    return measured


def _unless(cancel: threading.Event, work: Callable[[], _Result]) -> _Result | None:
    """Return what `work` gives; None as soon as the run is cancelled: an export takes seconds.

    It then goes on to its end beside the program, and what it finds is there for the next run.
    """
    pool = ThreadPoolExecutor(1, thread_name_prefix="histomil backend")
    try:
        future = pool.submit(work)
        while not cancel.is_set():
            try:
                return future.result(timeout=POLL_SECONDS)
            except TimeoutError:
                if future.done():  # it was the work that gave up
                    raise
        return None
    finally:
        pool.shutdown(wait=False)


def _difference(exact: Net, other: Net, model: ModelManifest, sample: Uint8Image) -> float:
    """Return by how much answers differ at most; infinite where one is no number."""
    one, two = (Predictor(net, model, 4).scores(sample) for net in (exact, other))
    largest = difference(one, two, model.task)
    return largest if math.isfinite(largest) else math.inf


def _facts(net: Net, model: ModelManifest, shape: tuple[int, ...]) -> dict[str, str]:
    """Return all that speed depends on."""
    return {
        "model": model.sha256,
        "tile": f"{shape[1]}x{shape[0]}",
        "device": describe_device(str(net.device)),
        **{name: version(name) for name in ("torch", "napari-histomil")},
        "onnxruntime": runtime_version() or "",
        # a classifier that embeds is another net of the same hash
        **({"task": "embed"} if model.task == "embed" else {}),
    }


def _has_onnxruntime(device: torch.device) -> bool:
    """Whether ONNX Runtime, its exporter and a provider for the device are there."""
    if runtime_version() is None or device.type not in ("cpu", "cuda"):
        return False
    try:
        version("onnxscript")
    except PackageNotFoundError:
        return False
    return device.type == "cpu" or len(providers(device)) > 1
