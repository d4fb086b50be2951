"""Run or resume a job: read, predict, write, tell.

The cycle:

1. find the run's store, or select the tiles and make it (`opening.py`);
2. settle precision, batch size and stain fit, or take those of the run's first session
   (`session.py`);
3. threads take pieces of the plan, read their tiles and predict them (`lanes.py`);
4. pieces come together to a block (`blocks.py`: scores, or features) or are stitched to a band of
   a picture (`segmentation.py`), which is written, then flagged done; a chain does so twice
   (`chain.py`), and a MIL model is asked when the features that it needs are there (`mil.py`);
5. its `Progress` is yielded; cancelling, closing the generator and errors all end in one place.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

from napari_histomil.errors import RunError
from napari_histomil.inference.chain import ChainSession
from napari_histomil.inference.devices import resolve_device
from napari_histomil.inference.embedding import EmbedSession
from napari_histomil.inference.job import Job, Progress
from napari_histomil.inference.mil import MilSession
from napari_histomil.inference.mil_models import asked_models, find_members
from napari_histomil.inference.opening import find_job_model, open_job_slide, open_job_store
from napari_histomil.inference.patches import PatchSession
from napari_histomil.inference.plan import Near, whole_rect_px0
from napari_histomil.inference.segmentation import SegmentSession
from napari_histomil.manifest import find_steps
from napari_histomil.results import (
    FeatureStore,
    RunStore,
    SegmentationStore,
    open_mil_run,
    run_path,
)


def run(
    job: Job,
    *,
    out: str | Path | None = None,
    device: str = "auto",
    cancel: threading.Event | None = None,
    near: Near | None = None,
    batch: int | None = None,
    models: Sequence[Path] = (),
    on_error: Literal["raise", "skip"] = "raise",
) -> Iterator[Progress]:
    """Run or resume `job`; yields after every block that is safely on disk.

    The first `Progress` comes before any block, when the store exists. A job that is done yields
    once and touches neither slide nor model. Closing the generator stops it as `cancel` does.

    Parameters
    ----------
    job
        What to compute, see `plan_job`.
    out
        Folder for the results; None for beside the slide.
    device
        ``auto``, ``cuda``, ``mps`` or ``cpu``.
    cancel
        Set it to stop within a second; blocks in flight are dropped, the next run goes on there.
    near
        Gives the (x, y) in level-0 px to begin with, asked before every block, by other threads.
    batch
        Tiles that are predicted at once; found by itself by default.
    models
        Folders in which models are looked for first.
    on_error
        ``raise`` stops at the first tile that fails, ``skip`` records it in the store.

    Yields
    ------
    Progress

    Raises
    ------
    SlideError, ModelError, RunError, OutputError
        If the slide is another than the job's, the model is, there is nothing to look at, the
        run is being written by someone else, ... ; `TileError` for a tile that fails.
    """
    out = None if out is None else Path(out)
    path = run_path(job.slide.path, job.run_id, fingerprint=job.slide.fingerprint, out=out)
    finished = _finished(path, job.task)
    if finished is not None:
        yield finished
        return
    with ExitStack() as stack:
        model = find_job_model(job, models)
        resolved = resolve_device(device)  # before anything is made on disk
        slide = stack.enter_context(open_job_slide(job))
        session: PatchSession | EmbedSession | SegmentSession | ChainSession | MilSession
        how = (resolved, batch, on_error)
        if job.task == "mil":
            asked = asked_models([model, *find_members(job, models)]).to(resolved)
            session = MilSession(job, model, asked, slide, path, *how, out=out, models=models)
        elif model.segments:
            steps = find_steps(model, models) if job.task == "chain" else None
            picture = stack.enter_context(
                open_job_store(SegmentationStore, path, job, model, slide)
            )
            if steps is None:
                session = SegmentSession(job, model, slide, picture, *how)
            else:
                session = ChainSession(job, model, steps, slide, picture, *how, out=out)
        elif job.task == "embed":
            features = stack.enter_context(open_job_store(FeatureStore, path, job, model, slide))
            session = EmbedSession(job, model, slide, features, *how)
        else:
            scores = stack.enter_context(open_job_store(RunStore, path, job, model, slide))
            session = PatchSession(job, model, slide, scores, *how)
        yield from session.work(cancel or threading.Event(), near)


def _finished(path: Path, task: str) -> Progress | None:
    """Return what a run that is done has to tell, or None."""
    if not path.exists():
        return None
    if task == "mil":
        return _answered(path)
    kinds: dict[str, type[SegmentationStore] | type[FeatureStore]] = {
        "segment": SegmentationStore,
        "chain": SegmentationStore,
        "embed": FeatureStore,
    }
    store: RunStore | FeatureStore | SegmentationStore
    try:
        store = kinds.get(task, RunStore).open(path)
    except RunError:
        return None  # opening it for writing mends a torn run, or says what is the matter
    if not store.complete:
        return None
    total = len(store.grid)
    if isinstance(store, SegmentationStore) and store.chain is not None:
        total += store.chain["detector_tiles"]
    return Progress(total, total, total, 0.0, whole_rect_px0(store.grid), path)


def _answered(path: Path) -> Progress | None:
    """Return what a MIL run that is there has to tell; it is there only whole."""
    try:
        run = open_mil_run(path)
    except RunError:
        return None  # it is written anew
    total = sum(len(level) for level in run.levels)
    grid = run.levels[0].grid
    assert grid is not None  # jobs have grids
    return Progress(total, total, total, 0.0, whole_rect_px0(grid), path)
