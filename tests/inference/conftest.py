"""A small slide and a small model, for all that runs jobs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from model_folders import make_model_folder

from napari_histomil.inference import blocks
from napari_histomil.inference.job import Job, RegionSpec, plan_job
from napari_histomil.manifest import load_manifest
from napari_histomil.slides.readers import open_slide


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with random weights: tiles of 32 px, stride 16, 1 µm/px."""
    return make_model_folder(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def slide_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A TIFF of 1200 x 900 px at 0.5 µm/px, coloured noise with structure of several sizes."""
    rng = np.random.default_rng(0)
    image = np.zeros((900, 1200, 3))
    for size in (4, 20, 100):
        coarse = rng.uniform(0, 85, (900 // size, 1200 // size, 3))
        image += np.kron(coarse, np.ones((size, size, 1)))
    path = tmp_path_factory.mktemp("slides") / "noise [1] ü.tif"
    tifffile.imwrite(
        path,
        image.astype(np.uint8),
        tile=(256, 256),
        photometric="rgb",
        resolution=(20_000, 20_000),
        resolutionunit="CENTIMETER",
    )
    return path


@pytest.fixture
def make_job(slide_path: Path, model_folder: Path) -> Callable[..., Job]:
    """Plan a job over the whole small slide (18 blocks of 64 tiles)."""

    def make(model: Path = model_folder, **options: Any) -> Job:
        options.setdefault("region", RegionSpec("all"))
        with open_slide(slide_path) as slide:
            return plan_job(slide.info, load_manifest(model), **options)

    return make


@pytest.fixture(autouse=True)
def _write_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cancel in the middle of a run that takes a fraction of a second."""
    monkeypatch.setattr(blocks, "WRITE_SECONDS", 0.0)
