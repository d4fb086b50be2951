"""Model folders with random weights, for tests of all that runs or lists models."""

from __future__ import annotations

import hashlib
import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


def make_model_folder(path: Path, *, seed: int = 0, **changes: Any) -> Path:
    """Write a small timm net with random weights as a model folder; `changes` go to model.json.

    Tiles of 32 px, stride 16 px (8 px of context a side), at 1 µm/px.
    """
    import safetensors.torch
    import timm
    import torch

    classes = changes.get(
        "classes",
        [{"name": "normal", "color": [90, 90, 180]}, {"name": "tumor", "color": [200, 0, 0]}],
    )
    architecture = {
        "name": "timm/resnet10t",
        "arguments": {"channels": [8, 16, 16, 16], "stem_width": 8},
    }
    path.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = timm.create_model(
            "resnet10t", pretrained=False, num_classes=len(classes), **architecture["arguments"]
        )
        for module in net.modules():  # fresh batch norms would hide errors in folding them
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 2)
                torch.nn.init.uniform_(module.weight, 0.5, 1.5)
                torch.nn.init.normal_(module.bias, 0, 0.2)
    safetensors.torch.save_file(net.state_dict(), path / "weights.safetensors")
    digest = hashlib.sha256((path / "weights.safetensors").read_bytes()).hexdigest()
    manifest = {
        "schema_version": 1,
        "name": path.name,
        "description": "Random weights, for tests.",
        "task": "classify",
        "architecture": architecture,
        "weights": {"file": "weights.safetensors", "format": "safetensors", "sha256": digest},
        "classes": classes,
        "positive_class": classes[-1]["name"],
        "activation": "softmax",
        "grid": {"mpp": 1.0, "tile_px": 32, "stride_px": 16},
        "normalisation": {"mean": [0.7, 0.5, 0.7], "std": [0.15, 0.2, 0.15]},
        "licence": "BSD-3-Clause",
    }
    manifest.update(changes)
    (path / "model.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    return path


TINY_UNET: dict[str, Any] = {
    "encoder_name": "tu-resnet10t",
    "encoder_depth": 2,
    "decoder_channels": [16, 8],
    "channels": [16, 16, 16, 16],
    "stem_width": 8,
}


def make_segmenter_folder(
    path: Path,
    *,
    seed: int = 0,
    logits: list[float] | None = None,
    arguments: dict[str, Any] = TINY_UNET,
    **changes: Any,
) -> Path:
    """Write a small U-Net as a model folder; `changes` go to model.json.

    Tiles of 96 px, 16 px of margin, stride 48 px, at 1 µm/px. With `logits` it answers these
    everywhere, else it has random weights whose answers differ from pixel to pixel.
    """
    import safetensors.torch
    import segmentation_models_pytorch as smp
    import torch

    classes = changes.get(
        "classes",
        [{"name": "normal", "color": [90, 90, 180]}, {"name": "Tumor", "color": [200, 0, 0]}],
    )
    path.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = smp.create_model("unet", encoder_weights=None, classes=len(classes), **arguments)
        with torch.no_grad():
            head = net.segmentation_head[0]
            head.weight.mul_(0 if logits is not None else 20)
            head.bias.copy_(torch.tensor(logits if logits is not None else [0.0] * len(classes)))
    file = path / "weights.safetensors"
    safetensors.torch.save_file(net.state_dict(), file)
    manifest = {
        "schema_version": 1,
        "name": path.name,
        "description": "Random weights, for tests.",
        "task": "segment",
        "architecture": {"name": "smp/unet", "arguments": arguments},
        "weights": {
            "file": file.name,
            "format": "safetensors",
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        },
        "classes": classes,
        "positive_class": classes[-1]["name"],
        "activation": "softmax",
        "grid": {"mpp": 1.0, "tile_px": 96, "stride_px": 48, "margin_px": 16},
        "normalisation": {"mean": [0.7, 0.5, 0.7], "std": [0.15, 0.2, 0.15]},
        "licence": "BSD-3-Clause",
    }
    manifest.update(changes)
    (path / "model.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    return path


def script_model(folder: Path, net: nn.Module, *, channels: int = 3) -> Path:
    """Replace the net of a model folder by another as TorchScript; it gets pixels of 0 to 1."""
    import torch

    manifest = json.loads((folder / "model.json").read_text("utf-8"))
    tile_px = manifest["grid"]["tile_px"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        traced = torch.jit.trace(net, torch.zeros(2, channels, tile_px, tile_px))
        traced.save(folder / "net.pt")
    digest = hashlib.sha256((folder / "net.pt").read_bytes()).hexdigest()
    manifest["weights"] = {"file": "net.pt", "format": "torchscript", "sha256": digest}
    del manifest["architecture"], manifest["normalisation"]
    (folder / "model.json").write_text(json.dumps(manifest), "utf-8")
    return folder


def make_encoder_folder(
    path: Path, name: str, arguments: dict[str, Any], *, seed: int = 0, **changes: Any
) -> Path:
    """Write a timm backbone with random weights as an encoder; `changes` go to model.json."""
    import safetensors.torch
    import timm
    import torch

    path.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = timm.create_model(name, pretrained=False, num_classes=0, **arguments)
    file = path / "weights.safetensors"
    safetensors.torch.save_file(net.state_dict(), file)
    manifest = {
        "schema_version": 1,
        "name": path.name,
        "description": "Random weights, for tests.",
        "task": "embed",
        "architecture": {"name": f"timm/{name}", "arguments": arguments},
        "weights": {
            "file": file.name,
            "format": "safetensors",
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        },
        "embedding_dim": net.num_features,
        "grid": {"mpp": 1.0, "tile_px": 32, "stride_px": 32},
        "normalisation": {"mean": [0.7, 0.5, 0.7], "std": [0.15, 0.2, 0.15]},
        "licence": "BSD-3-Clause",
    }
    manifest.update(changes)
    (path / "model.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    return path


def make_mil_folder(
    path: Path,
    name: str,
    encoder: Path,
    *,
    mpps: tuple[float, ...] = (1.0,),
    arguments: dict[str, Any] | None = None,
    seed: int = 0,
    sharp: float = 300.0,
    **changes: Any,
) -> Path:
    """Write a MIL model with random weights over an encoder; `changes` go to model.json.

    Tiles of 32 px side by side at `mpps`, the lowest magnification (largest) first. What is
    multiplied by `sharp` are the last layers of attention, so that it differs between tiles.
    """
    import safetensors.torch
    import torch

    from napari_histomil.manifest import load_manifest
    from napari_histomil.nets.mil import build_mil

    embeds = load_manifest(encoder)
    assert embeds.embedding_dim is not None
    path.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = build_mil(name, embeds.embedding_dim, 2, **(arguments or {}))
    state = net.state_dict()
    for key in state:
        if key.endswith(".w.weight"):
            state[key] = state[key] * sharp
    file = path / "weights.safetensors"
    safetensors.torch.save_file(state, file)
    grids = [{"mpp": mpp, "tile_px": 32, "stride_px": 32} for mpp in mpps]
    manifest = {
        "schema_version": 1,
        "name": path.name,
        "description": "Random weights, for tests.",
        "task": "mil",
        "architecture": {"name": f"mil/{name}", "arguments": arguments or {}},
        "weights": {
            "file": file.name,
            "format": "safetensors",
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        },
        "classes": [
            {"name": "normal", "color": [90, 90, 180]},
            {"name": "tumor", "color": [200, 0, 0]},
        ],
        "positive_class": "tumor",
        "activation": "softmax",
        "grid": grids[-1],
        "licence": "BSD-3-Clause",
        "mil": {
            "encoder": {
                "name": embeds.name, "dim": embeds.embedding_dim, "sha256": embeds.sha256,
            },
            "grids": grids,
        },
    }  # fmt: skip
    manifest.update(changes)
    (path / "model.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    return path
