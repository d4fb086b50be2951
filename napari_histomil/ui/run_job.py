"""What the Run dock's thread does: run a job, and read the scores that are safely on disk."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_histomil.inference.job import Job, Progress
from napari_histomil.results import RunStore, open_result
from napari_histomil.ui.run_facts import AnyStore
from napari_histomil.ui.torch_shield import shield_torch

READ_EVERY_S = 0.2
"""Scores are read from disk at most this often; nobody sees more."""


class ViewPoint:
    """Where the person looks: set on the GUI thread, asked by the engine's threads."""

    def __init__(self) -> None:
        self.xy_px0: tuple[float, float] | None = None  # replaced whole, so no lock is needed

    def __call__(self) -> tuple[float, float] | None:
        """Return the level-0 position (x, y), or None where nobody looks."""
        return self.xy_px0


@dataclass(frozen=True, slots=True)
class RunUpdate:
    """How far a run is, and its scores where they were read anew."""

    progress: Progress
    store: AnyStore | None
    """Opened for reading; the same in every update of a run. A MIL run is there with the last."""
    scores: NDArray[np.float32] | None
    """[N, C], NaN where not done; of a segmentation, what is in view is read when it is shown."""


def run_updates(
    job: Job,
    near: ViewPoint,
    cancel: threading.Event,
    *,
    device: str,
    batch: int | None,
    models: Sequence[Path],
    out: Path | None = None,
) -> Iterator[RunUpdate]:
    """Run or resume a job; yield after every block that is safely on disk.

    Parameters
    ----------
    job
        What to compute.
    near
        Blocks near to this point come first.
    cancel
        Ends the run when set; what is done stays.
    device
        A name that `devices.resolve_device` knows.
    batch
        Tiles in a batch; None lets the engine find the best.
    models
        Folders in which models are looked for besides the usual ones.
    out
        Folder for the run; None for the slide's own.

    Raises
    ------
    HistomilError
        As `inference.engine.run`.
    """
    # Imports torch, which takes seconds: here, in the thread of the job.
    shield_torch()
    from napari_histomil.inference.engine import run

    store: AnyStore | None = None
    progress: Progress | None = None
    read_at = -READ_EVERY_S
    with contextlib.closing(
        run(job, out=out, device=device, batch=batch, models=models, near=near, cancel=cancel)
    ) as steps:
        for progress in steps:
            if store is None and (job.task != "mil" or progress.done == progress.total):
                store = open_result(progress.store)
            scores = None
            is_due = time.monotonic() - read_at >= READ_EVERY_S
            if isinstance(store, RunStore) and is_due:
                scores, read_at = store.scores, time.monotonic()
            yield RunUpdate(progress, store, scores)
    if store is not None and progress is not None:
        yield RunUpdate(progress, store, store.scores if isinstance(store, RunStore) else None)
