"""What a job needs before it can be worked on: its model, its slide, its store on disk."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from napari_histomil.errors import ModelError, RunError, SlideError
from napari_histomil.files import remote_url
from napari_histomil.inference.job import Job, ModelRef
from napari_histomil.inference.plan import select_tiles
from napari_histomil.manifest import ModelManifest, find_model, load_manifest
from napari_histomil.nets.encoders import as_encoder
from napari_histomil.results import FeatureStore, RunStore, SegmentationStore
from napari_histomil.slides.readers import open_slide
from napari_histomil.slides.slide import Slide, SlideInfo
from napari_histomil.tiling import TileGrid
from napari_histomil.tissue import is_fluorescence

Store = TypeVar("Store", FeatureStore, RunStore, SegmentationStore)

GLANCE_PX = 2**22
"""Pixels of a slide's coarsest level that are read to see whether it is fluorescence."""

ENLARGED = 1.2
"""A slide this much coarser than the model is a warning: what it lacks cannot be made up."""


def find_job_model(job: Job, models: Sequence[Path]) -> ModelManifest:
    """Return the job's model from where it was, or of its name; by content, not by name."""
    model = find_model_of(job.model, models)
    return as_encoder(model) if job.task == "embed" else model


def find_model_of(ref: ModelRef, models: Sequence[Path]) -> ModelManifest:
    """Return the model that a job names; see `find_job_model`."""
    path, name = ref.path, ref.name
    try:
        model = load_manifest(path) if path.is_dir() else find_model(name, models)
    except ModelError as error:
        raise ModelError(f"The job's model {name} cannot be used: {error}") from error
    if model.sha256 != ref.sha256:
        raise RunError(
            f"The model {name} in {model.path} is not the one that the job was made for: run the "
            f"job again with this model, or get the other back."
        )
    return model


def open_job_slide(job: Job) -> Slide:
    """Open the job's slide; raises `RunError` if its content is another."""
    slide = open_slide(
        job.slide.path, mpp=job.slide.mpp_xy, reader=job.slide.reader, icc=job.slide.icc
    )
    if slide.info.fingerprint != job.slide.fingerprint:
        slide.close()
        raise RunError(
            f"{job.slide.path} is not the slide that the job was made for (its content differs): "
            f"choose the slide again."
        )
    return slide


@contextmanager
def open_job_store(
    kind: type[Store], path: Path, job: Job, model: ModelManifest, slide: Slide
) -> Iterator[Store]:
    """Open the job's run for writing, or make it; an error leaves no empty run behind."""
    created = not path.exists()
    if created:
        store = _make_store(kind, path, job, model, slide)
    else:
        store = kind.open(path, writable=True)
    try:
        yield store
    except BaseException as error:
        if created and not isinstance(error, GeneratorExit) and not store.done_tiles.any():
            shutil.rmtree(path, ignore_errors=True)
        raise
    finally:
        store.close()


def _make_store(
    kind: type[Store], path: Path, job: Job, model: ModelManifest, slide: Slide
) -> Store:
    grid = select_tiles(slide, job)
    store = kind.create(
        path,
        run_id=job.run_id,
        job=job.canonical(),
        slide=slide_facts(slide.info),
        model={
            "name": model.name,
            "path": str(model.path.absolute()),
            "sha256": model.sha256,
            "weights_sha256": model.weights_sha256,
            "kind": model.kind,
            "description": model.description,
            "activation": model.activation,
            "positive_class": model.positive_class,
            "background_class": model.background_class,
            "licence": model.licence,
            **({"embedding_dim": model.embedding_dim} if model.task == "embed" else {}),
        },
        classes=() if model.task == "embed" else model.classes,
        grid=grid,
    )
    for warning in grid_warnings(grid, model):
        store.add_warning(warning)
    if _glows(slide):
        store.add_warning(
            f"{slide.info.path.name} is bright on black, as fluorescence is: unless {model.name} "
            f"was trained on such slides, what it says means nothing."
        )
    return store


def _glows(slide: Slide) -> bool:
    """Whether a slide is seen to be fluorescence, where a look at all of it costs little."""
    info = slide.info
    level = len(info.levels) - 1
    size = info.levels[level].width, info.levels[level].height
    if size[0] * size[1] > GLANCE_PX:
        return False
    try:
        return is_fluorescence(slide.read_region((0, 0), level, size))
    except SlideError:
        return False  # what cannot be read is told when a tile needs it


def slide_facts(info: SlideInfo) -> dict[str, Any]:
    """Return what a run keeps of its slide."""
    bounds = info.bounds_px0
    return {
        "name": info.path.name,
        "path": remote_url(info.path) or str(info.path.absolute()),
        "fingerprint": info.fingerprint,
        "width_px0": info.width_px0,
        "height_px0": info.height_px0,
        "mpp_xy": list(info.mpp_xy) if info.mpp_x is not None else None,
        "bounds_px0": bounds and [bounds.x_px0, bounds.y_px0, bounds.width_px0, bounds.height_px0],
    }


def grid_warnings(grid: TileGrid, model: ModelManifest) -> Iterator[str]:
    """Yield what is odd about running this model on this slide, a sentence each."""
    mpp, coarsest = grid.spec.mpp, max(grid.slide_mpp)
    if coarsest > mpp * ENLARGED:
        yield (
            f"The slide has {coarsest:.3g} µm/px and the tiles {mpp:.3g}: they are enlarged, and "
            f"lack the detail that {model.name} was trained on."
        )
    if abs(mpp / model.grid.mpp - 1) > 0.05:
        yield (
            f"{model.name} was trained on {model.grid.mpp:.3g} µm/px and was run on {mpp:.3g}: "
            f"its {'features' if model.task == 'embed' else 'scores'} may mean nothing."
        )
