"""Chains: a patch classifier over all of the region, then a model that segments only where needed.

One run holds the result, a segmentation like any other; the classifier's scores are a run of their
own beside it, the same that it would make alone, and are used again where they are there. The
cycle:

1. the classifier's run is begun, gone on with, or found to be done;
2. its heatmap, or what a refiner makes of it (`refining.py`), says in which cells of the result
   something may be: that is stored once, so that every session computes the same tiles;
3. the last model segments with the tiles that these cells need; elsewhere is background.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from napari_histomil.heatmaps import score_image
from napari_histomil.inference.job import Job, ModelRef, Progress, StainSpec
from napari_histomil.inference.opening import open_job_store
from napari_histomil.inference.patches import PatchSession
from napari_histomil.inference.plan import Near
from napari_histomil.inference.refining import likely_after_refining
from napari_histomil.inference.segmentation import SegmentSession
from napari_histomil.manifest import ModelManifest, StepModels
from napari_histomil.manifest.chain import Chain
from napari_histomil.results import RunStore, SegmentationStore, run_path
from napari_histomil.slides.slide import Slide
from napari_histomil.tiling import any_within

Floats = NDArray[np.float32]


class ChainSession:
    """One go at a chain: what is left of its steps, one after the other.

    Parameters
    ----------
    job, model, slide, store, device, batch, on_error
        As of `Session`; the job and the model are the chain's, the store is the result's.
    steps
        The models of the chain.
    out
        Folder for results; None for beside the slide.
    """

    def __init__(
        self,
        job: Job,
        model: ModelManifest,
        steps: StepModels,
        slide: Slide,
        store: SegmentationStore,
        device: torch.device,
        batch: int | None,
        on_error: Literal["raise", "skip"],
        *,
        out: Path | None,
    ) -> None:
        assert model.chain is not None  # or there would be no steps
        self.job, self.slide, self.store = job, slide, store
        self._chain: Chain = model.chain
        self._steps, self._out = steps, out
        self._how = (device, batch, on_error)

    def work(self, cancel: threading.Event, near: Near | None) -> Iterator[Progress]:
        """Yield the progress of this session, tiles of all steps counted together.

        The total counts every tile that the last model could be asked for: those that are spared
        are done when their part of the picture is written.
        """
        told: Progress | None = None
        if self.store.chain is None:
            for told in self._detect(cancel, near):
                yield told
        facts = self.store.chain
        if facts is None:
            return  # cancelled
        detected = facts["detector_tiles"]
        resumed, seconds = (told.resumed, told.seconds) if told is not None else (detected, 0.0)
        last = SegmentSession(self.job, self._steps.segment, self.slide, self.store, *self._how)
        for progress in last.work(cancel, near):
            yield replace(
                progress,
                done=detected + progress.done,
                total=detected + progress.total,
                resumed=resumed + progress.resumed,
                seconds=seconds + progress.seconds,
                stage=f"segmenting with {self._steps.segment.name}",
            )

    def _detect(self, cancel: threading.Event, near: Near | None) -> Iterator[Progress]:
        """Complete the classifier's run; when it is, keep where the last model shall look."""
        job, model = detector_job(self.job, self._chain, self._steps), self._steps.detect
        path = run_path(
            job.slide.path, job.run_id, fingerprint=job.slide.fingerprint, out=self._out
        )
        with open_job_store(RunStore, path, job, model, self.slide) as scores:
            if not scores.complete:
                session = PatchSession(job, model, self.slide, scores, *self._how)
                for progress in session.work(cancel, near):
                    total = progress.total + len(self.store.grid)
                    stage = f"detecting with {model.name}"
                    yield replace(progress, total=total, store=self.store.path, stage=stage)
            if scores.complete and not cancel.is_set():
                self._choose(scores, cancel)

    def _choose(self, scores: RunStore, cancel: threading.Event) -> None:
        """Keep which cells the last model leaves out, unless cancelled."""
        chain, grid = self._chain, self.store.grid
        heat, pixel_px0 = heatmap(scores, chain.detect.class_name), scores.grid.cell_size_px0
        seconds = {"detect": sum(s.get("seconds", 0.0) for s in scores.sessions)}
        start = time.perf_counter()
        if chain.refine is None:
            likely = _nearest(heat) >= chain.threshold
        else:
            assert self._steps.refine is not None
            refined = likely_after_refining(
                self._steps.refine, chain.refine, self.slide, grid, heat, pixel_px0,
                threshold=chain.threshold, device=self._how[0], on_error=self._how[2],
                cancel=cancel,
            )  # fmt: skip
            if refined is None:
                return
            likely, pixel_px0 = refined
            seconds["refine"] = round(time.perf_counter() - start, 3)
        margin_px0 = chain.margin_um / np.array(grid.slide_mpp)
        wanted = any_within(likely, pixel_px0, grid.cell_rects_px0, margin_px0)
        facts = {
            "steps": chain.words(),
            "detector_run": scores.run_id,
            "detector_tiles": len(scores.grid),
            "tiles": len(grid),
            "fine_tiles": int(self.store.picture.tiles_touching(wanted).sum()),
            "cells_left_out": int((~wanted).sum()),
            "seconds": seconds,
        }
        self.store.set_chain(facts, ~wanted)


def detector_job(job: Job, chain: Chain, steps: StepModels) -> Job:
    """Return the job of a chain's first model: the same that it has when it is run alone."""
    model, look = steps.detect, chain.detect
    return replace(
        job,
        model=ModelRef(model.name, model.path, model.sha256),
        task=model.task,
        grids=(look.grid,),
        stain=StainSpec(look.stain),
    )


def heatmap(scores: RunStore, class_name: str) -> Floats:
    """Return the probabilities of a class, float32 [rows, columns], NaN where nobody looked.

    What could not be read counts as certain: it is for the last model to say so.
    """
    values = scores.scores[:, scores.class_names.index(class_name)]
    values[list(scores.skipped)] = 1
    return score_image(scores.grid, values)


def _nearest(heat: Floats) -> Floats:
    """Fill in where nobody looked with the nearest answer.

    At the edge of a region there are small cells of the result in a large one of the heatmap of
    which the region covers too little.
    """
    unknown = np.isnan(heat)
    if not unknown.any():
        return heat
    rows, columns = ndimage.distance_transform_edt(
        unknown, return_distances=False, return_indices=True
    )
    filled: Floats = heat[rows, columns]
    return filled
