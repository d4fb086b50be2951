"""What a chain spares: its time and forwards against those of its last model over everything.

Both are run on a drawn slide, whose truth is known, so that what is spared can be held against
what is lost; and on a sample of the slide that networks are measured on.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio.features
import rasterio.transform
import shapely
from numpy.typing import NDArray

from napari_histomil.annotations.geojson import read_geojson
from napari_histomil.bench.run import sample_job, whole_run
from napari_histomil.inference.engine import run
from napari_histomil.inference.job import Job, plan_job
from napari_histomil.inference.plan import select_tiles
from napari_histomil.manifest import ModelManifest, find_steps
from napari_histomil.results import SegmentationStore
from napari_histomil.results.segmentation import UNKNOWN
from napari_histomil.slides.readers import open_slide

TRUTH_CLASS = "tumor"


@dataclass(frozen=True, slots=True)
class OneWay:
    """A chain, or its last model alone, over the same."""

    seconds: float
    forwards: int
    """Tiles of the last model, and of a chain those of the steps before it."""
    fine_forwards: int
    """Of the last model."""
    dice: float | None
    """Of the class that the truth knows; None where there is none."""


@dataclass(frozen=True, slots=True)
class ChainFigures:
    """A chain against its last model over all of the tissue."""

    model: str
    dense_model: str
    slide: str
    chain: OneWay
    dense: OneWay

    @property
    def time_ratio(self) -> float:
        """Seconds of the chain over those of the other."""
        return self.chain.seconds / self.dense.seconds


def measure_chain(
    model: ModelManifest,
    slide_path: Path,
    *,
    truth: Path | None = None,
    device: str = "auto",
    tiles: int | None = None,
    models: Sequence[Path] = (),
) -> ChainFigures:
    """Run both, the chain first.

    Parameters
    ----------
    model, slide_path
        A chain, and what it is run on.
    truth
        Regions of the slide as GeoJSON, with some of the class tumour.
    device
        As for `run`.
    tiles
        So many tiles of the last model at most, lying together; all by default.
    models
        Folders in which models are looked for first.
    """
    dense = find_steps(model, models).segment
    with open_slide(slide_path) as slide:
        job = plan_job(slide.info, model)
        grid = select_tiles(slide, job)
        if tiles is not None:
            job, grid = sample_job(job, grid, tiles)
        alone = plan_job(
            slide.info, dense, region=job.region, stain=job.stain.method,
            mpp=job.grids[0].mpp, stride_px=job.grids[0].stride_px,
        )  # fmt: skip
    whole_run(alone, device, models)  # warm up
    return ChainFigures(
        model.name,
        dense.name,
        slide_path.name,
        _one_way(job, truth, device, models),
        _one_way(alone, truth, device, models),
    )


def _one_way(job: Job, truth: Path | None, device: str, models: Sequence[Path]) -> OneWay:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        *_, last = run(job, out=Path(folder), device=device, models=models)
        store = SegmentationStore.open(last.store)
        facts = store.chain
        fine = len(store.grid) if facts is None else int(facts["fine_tiles"])
        before = 0 if facts is None else int(facts["detector_tiles"])
        return OneWay(
            seconds=sum(store.stage_seconds.values()),
            forwards=before + fine,
            fine_forwards=fine,
            dice=None if truth is None else dice(store, truth),
        )


def dice(store: SegmentationStore, truth: Path) -> float | None:
    """Return Dice of the tumour in the pixels that were looked at; None without such a class."""
    names = [name.lower() for name in (c.name for c in store.classes)]
    if TRUTH_CLASS not in names:
        return None
    stored: NDArray[np.uint8] = np.asarray(store.levels[0][:])
    known = stored[0] != UNKNOWN
    said = (stored.argmax(0) == names.index(TRUTH_CLASS)) & known
    regions = read_geojson(truth).regions
    shapes = [
        part
        for region in regions
        if region.classification is not None and region.classification.name.lower() == TRUTH_CLASS
        for part in shapely.get_parts(region.geometry)
    ]
    width, height = store.picture.pixel_px0
    true = rasterio.features.rasterize(
        [(shape, 1) for shape in shapes],
        out_shape=said.shape,
        transform=rasterio.transform.Affine.scale(width, height),
        dtype=np.uint8,
    ).astype(bool)
    true &= known
    total = int(said.sum()) + int(true.sum())
    return 2 * int((said & true).sum()) / total if total else None
