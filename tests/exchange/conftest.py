"""A stored run with known scores, on a slide that exists."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_histomil.manifest import ClassSpec
from napari_histomil.results import RunStore
from napari_histomil.slides.readers import open_slide
from napari_histomil.tiling import BLOCK_TILES, GridSpec, TileGrid

WIDTH, HEIGHT, MPP = 700, 500, 0.5
SPEC = GridSpec(mpp=1.0, tile_px=48, stride_px=32)


@pytest.fixture
def slide_path(tmp_path: Path) -> Path:
    """A tiled TIFF, 700 x 500 px at 0.5 µm/px, a dark square on white."""
    pixels = np.full((HEIGHT, WIDTH, 3), 240, np.uint8)
    pixels[128:256, 256:384] = (150, 60, 140)
    path = tmp_path / "слайд [1] 50%.tif"
    per_cm = 1e4 / MPP
    tifffile.imwrite(
        path,
        pixels,
        tile=(128, 128),
        photometric="rgb",
        resolution=(per_cm, per_cm),
        resolutionunit="CENTIMETER",
    )
    return path


@pytest.fixture
def make_run(tmp_path: Path, slide_path: Path) -> Callable[..., RunStore]:
    """Make a run over the whole slide; scores [N, C] by default from a seeded generator."""

    def make(
        *,
        spec: GridSpec = SPEC,
        classes: tuple[str, ...] = ("normal", "tumor"),
        scores: np.ndarray | None = None,
        blocks: int | None = None,
        bounds_px0: list[float] | None = None,
        name: str = "run.zarr",
    ) -> RunStore:
        with open_slide(slide_path, mpp=MPP) as slide:
            info = slide.info
        grid = TileGrid.cover(info, spec)
        if scores is None:
            first = np.random.default_rng(3).random((len(grid), 1), np.float32)
            scores = np.concatenate([1 - first, first], axis=1)[:, -len(classes) :]
        run = RunStore.create(
            tmp_path / name,
            run_id="0123456789abcdef",
            job={},
            slide={
                "name": info.path.name,
                "path": str(info.path),
                "fingerprint": info.fingerprint,
                "width_px0": info.width_px0,
                "height_px0": info.height_px0,
                "mpp_xy": list(info.mpp_xy),
                "bounds_px0": bounds_px0,
            },
            model={"name": "tiny", "path": "models/tiny", "sha256": "cd" * 32},
            classes=[ClassSpec(c, (200, 0, 0)) for c in classes],
            grid=grid,
        )
        with run:
            total = -(-len(grid) // BLOCK_TILES)
            for index in range(total if blocks is None else blocks):
                run.write_block(index, scores[index * BLOCK_TILES : (index + 1) * BLOCK_TILES])
        return RunStore.open(run.path)

    return make
