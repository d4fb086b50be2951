"""The most memory that a run needs, each run in a process of its own.

A network is run on a sample of the slide's tissue. Whether memory grows with the slide is asked of
a network of the same kind that answers one constant, and so costs next to nothing: it is run over
all of the tissue, and over a ninth of it, at the slide's full resolution. A coarse picture of a
gigapixel would be narrower than the lane of 8192 px that bounds the memory of stitching.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from napari_histomil.bench.peak import peak_bytes
from napari_histomil.bench.run import LEAST_TILES, sample_job, whole_run
from napari_histomil.inference.job import plan_job
from napari_histomil.inference.plan import select_tiles
from napari_histomil.manifest import ModelManifest, load_manifest
from napari_histomil.manifest.model import MODEL_FILE
from napari_histomil.nets.export import to_torchscript
from napari_histomil.slides.readers import open_slide

PART = 9


@dataclass(frozen=True, slots=True)
class MemoryFigures:
    """Peaks of processes, in bytes."""

    model: str
    sample: int
    """The network itself, on a sample."""
    part: int
    """A constant in its place, on a ninth of the tissue."""
    whole: int
    """The same on all of it."""
    tiles: tuple[int, int, int]
    """Tiles of the three."""
    start: int
    """Before the slide was opened: the program and its libraries."""

    @property
    def growth(self) -> float:
        """The whole over the part, without what the program takes itself."""
        return (self.whole - self.start) / max(self.part - self.start, 1)


class _Constant(nn.Module):
    """Answers the same everywhere."""

    def __init__(self, classes: int, *, pixels: bool) -> None:
        super().__init__()
        self.pixels = pixels
        size = (1, classes, 1, 1) if pixels else (1, classes)
        self.answers = nn.Parameter(torch.linspace(-0.5, 0.5, classes).reshape(size))

    def forward(self, x: Tensor) -> Tensor:
        seen = x[:, :1] if self.pixels else x[:, :1, 0, 0]
        return seen * 0 + self.answers


def measure_memory(
    model: ModelManifest,
    slide_path: Path,
    *,
    device: str,
    in_own_process: Callable[..., Any],
    sample_tiles: int = LEAST_TILES,
) -> MemoryFigures:
    """Measure one network.

    Parameters
    ----------
    model, slide_path, device
        As of `measure_network`.
    in_own_process
        Calls a function with arguments in a fresh Python and returns what it gives.
    sample_tiles
        On which the network itself runs.
    """
    start, sample = in_own_process(run_peak, model.path, slide_path, device, sample_tiles)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        with open_slide(slide_path) as slide:
            constant = constant_model(model, Path(folder, "constant"), mpp=slide.info.mpp)
            count, whole_count = (
                len(select_tiles(slide, plan_job(slide.info, each)))
                for each in (model, load_manifest(constant))
            )
        _, part = in_own_process(run_peak, constant, slide_path, device, whole_count // PART)
        _, whole = in_own_process(run_peak, constant, slide_path, device, whole_count)
    tiles = min(sample_tiles, count), whole_count // PART, whole_count
    return MemoryFigures(model.name, sample, part, whole, tiles, start)


def run_peak(folder: Path, slide_path: Path, device: str, tiles: int) -> tuple[int, int]:
    """Return the peak memory of this process before and after a run over so many tiles."""
    model = load_manifest(folder)
    with open_slide(slide_path) as slide:
        start = peak_bytes()
        job = plan_job(slide.info, model)
        job, _ = sample_job(job, select_tiles(slide, job), tiles)
    whole_run(job, device)
    return start, peak_bytes()


def constant_model(model: ModelManifest, folder: Path, *, mpp: float) -> Path:
    """Write a model of the same classes, tiles and task that answers one constant at `mpp`."""
    net = _Constant(len(model.classes), pixels=model.segments).eval()
    data = to_torchscript(net, torch.zeros(2, 3, 32, 32))
    folder.mkdir()
    (folder / "net.pt").write_bytes(data)
    spec = model.grid
    grid = {"mpp": mpp, "tile_px": spec.tile_px, "stride_px": spec.stride_px}
    document = {
        "schema_version": 1,
        "name": folder.name,
        "description": "One constant, to measure what the engine itself needs.",
        "task": "segment" if model.segments else "classify",
        "weights": {
            "file": "net.pt",
            "format": "torchscript",
            "sha256": hashlib.sha256(data).hexdigest(),
        },
        "classes": [{"name": c.name, "color": list(c.color)} for c in model.classes],
        "activation": model.activation,
        "grid": grid | ({"margin_px": spec.margin_px} if spec.margin_px else {}),
        "licence": "BSD-3-Clause",
    }
    (folder / MODEL_FILE).write_text(json.dumps(document), encoding="utf-8")
    return folder
