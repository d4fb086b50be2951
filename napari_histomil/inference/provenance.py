"""What made a result: versions, device, settings, times. No host names, no paths, no people."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import torch

from napari_histomil.inference.backends import Net
from napari_histomil.inference.devices import describe_device
from napari_histomil.inference.predictor import Settings
from napari_histomil.nets.onnx_graph import OnnxGraph, runtime_version

PACKAGES = ("napari-histomil", "numpy", "pillow", "timm", "torch", "torchvision", "zarr")


def begin_session(net: Net, settings: Settings) -> dict[str, Any]:
    """Return the record of a session that begins now, as plain JSON values."""
    graph = net.module if isinstance(net.module, OnnxGraph) else None
    session = begin(net.device)
    if graph is not None:
        session["versions"]["onnxruntime"] = str(runtime_version())
    return {
        **session,
        "backend": net.backend,
        **({"providers": list(graph.providers)} if graph is not None else {}),
        "precision": settings.precision,
        "bf16_difference": settings.bf16_difference,
        "batch": settings.batch,
        "batch_norms_folded": net.batch_norms_folded,
        "scaling_folded": net.scaling_folded,
    }


def begin(device: torch.device) -> dict[str, Any]:
    """Return what is known of a session on a device, before any net."""
    return {
        "started": now(),
        "finished": None,
        "versions": {"python": platform.python_version(), **{n: version(n) for n in PACKAGES}},
        "system": f"{platform.system()} {platform.machine()}",
        "device": describe_device(str(device)),
        "device_type": device.type,
    }


def now() -> str:
    """Return the time, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
