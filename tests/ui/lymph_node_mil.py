"""A toy MIL model of the lymph node put together in `lymph_node.py`, trained in place."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from model_folders import make_encoder_folder, script_model
from PIL import Image

from napari_histomil.manifest import load_manifest
from napari_histomil.nets.mil import build_mil
from tests.ui.lymph_node import GLASS_PX, MPP, TILES, put_together

ENCODER, MODEL = "colours-of-a-tile", "tumour-by-attention"
TILE_PX = 64
TINY = {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8], "stem_width": 8}
HIDDEN = 16


class Colours(torch.nn.Module):
    """Mean and spread of the colours of a tile, and a score made of them: 7 values."""

    def __init__(self) -> None:
        super().__init__()
        # Fitted to the masks of these very tiles, as those of `lymph_node.ByColour`.
        self.register_buffer("weights", torch.tensor([12.0, -42.1, 79.1, 82.0, 9.0, -131.0]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = x.mean((2, 3))
        variance = (x * x).mean((2, 3)) - mean * mean
        score = (torch.cat([mean, variance], 1) * self.weights).sum(1, keepdim=True) - 45.41
        return torch.cat([score / 4, mean, 10 * variance], 1)


def make_toy_mil(folder: Path, data_dir: Path) -> Path:
    """Write the encoder and the MIL model into a folder of models; returns the latter's."""
    encoder = make_encoder_folder(
        folder / ENCODER,
        "resnet10t",
        {},
        embedding_dim=7,
        grid={"mpp": MPP, "tile_px": TILE_PX, "stride_px": TILE_PX},
        description="Colours of tiles; for tests and pictures.",
    )
    script_model(encoder, Colours().eval())
    (encoder / "weights.safetensors").unlink()
    embeds = load_manifest(encoder)
    net, attention = _trained(data_dir)
    path = folder / MODEL
    path.mkdir(parents=True)
    safetensors.torch.save_file(net.state_dict(), path / "weights.safetensors")
    digest = hashlib.sha256((path / "weights.safetensors").read_bytes()).hexdigest()
    grid = {"mpp": MPP, "tile_px": TILE_PX, "stride_px": TILE_PX}
    manifest = {
        "schema_version": 1,
        "name": MODEL,
        "description": "Is there tumour? Trained on these very tiles; for tests and pictures.",
        "task": "mil",
        "architecture": {"name": "mil/gated-attention", "arguments": _ARGUMENTS},
        "weights": {"file": "weights.safetensors", "format": "safetensors", "sha256": digest},
        "classes": [
            {"name": "No tumor", "color": [90, 90, 200]},
            {"name": "Tumor", "color": [200, 0, 0]},
        ],
        "positive_class": "Tumor",
        "activation": "softmax",
        "temperature": 1.5,
        "grid": grid,
        "licence": "BSD-3-Clause",
        "mil": {
            "encoder": {"name": ENCODER, "dim": 7, "sha256": embeds.sha256},
            "grids": [grid],
            "reference": {"attention_quantiles": [attention]},
        },
    }
    (path / "model.json").write_text(json.dumps(manifest, indent=1), "utf-8")
    return path


_ARGUMENTS = {"hidden": [HIDDEN], "attention": HIDDEN, "dropout": 0.1}


def _trained(data_dir: Path) -> tuple[torch.nn.Module, list[float]]:
    """Return gated attention that tells bags with tumour tiles, and its reference attention."""
    features, share = _tiles(data_dir)
    pure, mixed = features[share == 0], features[share > 0.5]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        rng = np.random.default_rng(0)
        net = build_mil("gated-attention", 7, 2, **_ARGUMENTS)
        optimiser = torch.optim.Adam(net.parameters(), 1e-2)
        for step in range(400):
            count = 60 if step % 2 == 0 else 60 - int(rng.integers(3, 20))
            bag = [pure[rng.choice(len(pure), count)], mixed[rng.choice(len(mixed), 60 - count)]]
            logits = net(torch.cat(bag)).logits
            loss = torch.nn.functional.cross_entropy(logits[None], torch.tensor([step % 2]))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        net.eval()
        with torch.inference_mode():
            value = net(features).attention
    assert value is not None
    quantiles = np.quantile(value.numpy()[0] * len(features), np.linspace(0, 1, 101))
    return net, [float(q) for q in quantiles]


def _tiles(data_dir: Path) -> tuple[torch.Tensor, np.ndarray]:
    """Return features [N, 7] of the slide's tissue tiles, and how much of each is tumour."""
    pixels = put_together(data_dir)[GLASS_PX:-GLASS_PX, GLASS_PX:-GLASS_PX]
    masks = np.vstack([np.hstack([_mask(data_dir, name) for name in row]) for row in TILES])
    rows, columns = pixels.shape[0] // TILE_PX, pixels.shape[1] // TILE_PX
    tiles = pixels.reshape(rows, TILE_PX, columns, TILE_PX, 3).transpose(0, 2, 4, 1, 3)
    tiles = np.ascontiguousarray(tiles.reshape(-1, 3, TILE_PX, TILE_PX))
    share = masks.reshape(rows, TILE_PX, columns, TILE_PX).mean(axis=(1, 3)).ravel()
    with torch.inference_mode():
        return Colours()(torch.from_numpy(tiles).float() / 255).clone(), share


def _mask(data_dir: Path, name: str) -> np.ndarray:
    folder = data_dir / "seg-camelyon-tumor" / "masks"
    (file,) = folder.glob(f"{name}*")
    mask = np.asarray(Image.open(file).convert("L"))
    return mask > 127
