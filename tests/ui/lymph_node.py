"""A slide put together from real lymph-node tiles, and a model that tells its tumour by colour."""

from __future__ import annotations

import hashlib
import json
import warnings
from pathlib import Path

import numpy as np
import tifffile
import torch
from model_folders import make_segmenter_folder
from PIL import Image

from napari_histomil.slides.slide import Uint8Image

MPP = 0.97
GLASS_PX = 192
"""White around the tissue."""

TILES = (
    ("10672", "10674", "10676"),
    ("10678", "10680", "10681"),
    ("10679", "10673", "10685"),
    ("10686", "10072", "10677"),
    ("10683", "10671", "10073"),
)
"""Names of tiles of 512 px, as they are laid side by side."""

MODEL = "tumour-by-colour"


def put_together(data_dir: Path) -> Uint8Image:
    """Return the pixels of the slide, [h, w, 3]."""
    folder = data_dir / "seg-camelyon-tumor" / "images"
    tissue = np.vstack(
        [
            np.hstack([np.asarray(Image.open(folder / f"{name}.jpg")) for name in row])
            for row in TILES
        ]
    )[..., ::-1]  # the channels are stored as BGR
    around = ((GLASS_PX, GLASS_PX), (GLASS_PX, GLASS_PX), (0, 0))
    return np.pad(tissue, around, constant_values=243)


def write_lymph_node(path: Path, data_dir: Path) -> Path:
    """Write the slide as a tiled, pyramidal TIFF with µm/px."""
    pixels = put_together(data_dir)
    half = pixels[: len(pixels) // 2 * 2, : pixels.shape[1] // 2 * 2]
    half = half.reshape(len(half) // 2, 2, half.shape[1] // 2, 2, 3).mean(axis=(1, 3))
    with tifffile.TiffWriter(path) as tiff:
        for level, (image, mpp) in enumerate(((pixels, MPP), (half.astype(np.uint8), 2 * MPP))):
            tiff.write(
                image,
                photometric="rgb",
                tile=(256, 256),
                compression="deflate",
                subfiletype=1 if level else 0,
                resolution=(1e4 / mpp, 1e4 / mpp),
                resolutionunit="CENTIMETER",
                metadata=None,
            )
    return path


def _mean(x: torch.Tensor) -> torch.Tensor:
    """Return the mean of 49 x 49 px around each pixel; along one side, then along the other."""
    across = torch.nn.functional.avg_pool2d(x, (1, 49), 1, (0, 24), count_include_pad=False)
    return torch.nn.functional.avg_pool2d(across, (49, 1), 1, (24, 0), count_include_pad=False)


class ByColour(torch.nn.Module):
    """Mean and spread of colours around a pixel say how likely it is tumour.

    The numbers were fitted to the masks of these tiles: it shows how a segmentation behaves, and
    says nothing of how well one does. White is background.
    """

    def __init__(self) -> None:
        super().__init__()
        weights = torch.tensor([12.0, -42.1, 79.1, 82.0, 9.0, -131.0])
        self.register_buffer("weights", weights.view(1, 6, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean, square = _mean(x), _mean(x * x)
        features = torch.cat([mean, square - mean * mean], 1)
        tumour = (features * self.weights).sum(1, keepdim=True) - 45.41
        glass = (mean.amin(1, keepdim=True) - 0.85) * 60
        return torch.cat([glass, -tumour / 2, tumour / 2], 1)


def make_tumour_model(folder: Path) -> Path:
    """Write that model as a folder, with TorchScript."""
    make_segmenter_folder(
        folder,
        classes=[
            {"name": "Glass", "color": [200, 200, 200]},
            {"name": "Lymph node", "color": [90, 90, 200]},
            {"name": "Tumor", "color": [200, 0, 0]},
        ],
        background_class="Glass",
        grid={"mpp": MPP, "tile_px": 256, "stride_px": 160, "margin_px": 24},
        description="Tells tumour by colour; for tests and pictures.",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.jit.trace(ByColour().eval(), torch.zeros(1, 3, 256, 256)).save(folder / "net.pt")
    (folder / "weights.safetensors").unlink()
    manifest = json.loads((folder / "model.json").read_text("utf-8"))
    digest = hashlib.sha256((folder / "net.pt").read_bytes()).hexdigest()
    manifest["weights"] = {"file": "net.pt", "format": "torchscript", "sha256": digest}
    del manifest["architecture"], manifest["normalisation"]
    (folder / "model.json").write_text(json.dumps(manifest, indent=1), "utf-8")
    return folder
