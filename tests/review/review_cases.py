"""Slides with stored runs for the tests of the review: small, and quickly made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile

from napari_histomil.manifest import ClassSpec
from napari_histomil.results import RunStore, run_path
from napari_histomil.results.mil import MilAnswer, MilLevel, MilRun, MilSource
from napari_histomil.results.mil_layout import write_mil_run
from napari_histomil.slides.readers import open_slide
from napari_histomil.tiling import GridSpec, TileGrid

CLASSES = (ClassSpec("normal", (90, 90, 180)), ClassSpec("tumor", (200, 0, 0)))


def write_slide(path: Path, grey: int = 200) -> Path:
    """Write a slide of 512 x 384 px at 0.5 µm/px; another grey is another content."""
    pixels = np.full((384, 512, 3), grey, np.uint8)
    tifffile.imwrite(
        path, pixels, photometric="rgb", tile=(128, 128), resolution=(2e4, 2e4), resolutionunit=3
    )
    return path


def slide_member(info) -> dict:
    return {
        "name": info.path.name,
        "path": str(info.path),
        "fingerprint": info.fingerprint,
        "width_px0": info.width_px0,
        "height_px0": info.height_px0,
        "mpp_xy": list(info.mpp_xy),
        "bounds_px0": None,
    }


def write_run(slide: Path, scores, *, model: str = "tiles", run_id: str = "a" * 16) -> Path:
    """Store a patch classifier's run: 12 tiles of 64 µm; a score each of the class tumor."""
    with open_slide(slide) as opened:
        info = opened.info
    grid = TileGrid.cover(info, GridSpec(mpp=0.5, tile_px=128, stride_px=128))
    path = run_path(info.path, run_id, fingerprint=info.fingerprint)
    tumor = np.broadcast_to(np.asarray(scores, np.float32), (len(grid),))
    with RunStore.create(
        path,
        run_id=run_id,
        job={"region": {"kind": "all"}},
        slide=slide_member(info),
        model={"name": model, "path": "", "sha256": "ab" * 32, "positive_class": "tumor"},
        classes=CLASSES,
        grid=grid,
    ) as store:
        for index, tiles in enumerate(grid.blocks()):
            store.write_block(index, np.column_stack([1 - tumor, tumor])[tiles])
    return path


def write_mil(slide: Path, members, *, model: str = "bags", run_id: str = "b" * 16) -> Path:
    """Store the answer of a MIL model, or of an ensemble: probabilities [members, 2]."""
    with open_slide(slide) as opened:
        info = opened.info
    members = np.asarray(members, np.float32)
    mean = members.mean(axis=0)
    level = MilLevel(np.zeros((1, 2)), (128.0, 128.0), 0.5, None, 1)
    run = MilRun(
        run_id=run_id,
        job={"task": "mil"},
        slide=slide_member(info),
        model={"name": model, "positive_class": "tumor", "activation": "softmax"},
        classes=CLASSES,
        source=MilSource(dim=7),
        answer=MilAnswer(np.log(mean), mean, members, "ensemble"),
        levels=(level,),
        maps=(),
    )
    path = run_path(info.path, run_id, fingerprint=info.fingerprint)
    return write_mil_run(run, path).path
