"""Run or resume a job: read, predict, write, tell.

The cycle:

1. find the run's store, or select the tiles and make it;
2. settle precision, batch size and stain fit, or take those of the run's first session;
3. threads take pieces of blocks from the plan, read their tiles and predict them (`lanes.py`);
4. here the pieces of a block come together; a whole block is written, then flagged done;
5. its `Progress` is yielded; cancelling, closing the generator and errors all end in one place.
"""

from __future__ import annotations

import math
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from napari_histomil.errors import ModelError, RunError
from napari_histomil.files import remote_url
from napari_histomil.geometry import Rect
from napari_histomil.inference.backends import Net, in_bf16, prepare_net
from napari_histomil.inference.devices import resolve_device
from napari_histomil.inference.job import Job, Progress
from napari_histomil.inference.lanes import Answer, cpu_lane, device_lane
from napari_histomil.inference.plan import (
    Near,
    Plan,
    select_tiles,
    spread_tiles,
    whole_rect_px0,
)
from napari_histomil.inference.predictor import Predictor, Settings, settle
from napari_histomil.inference.prefetch import Crew
from napari_histomil.inference.provenance import begin_session, now
from napari_histomil.inference.stains import fit_to_tiles, recolor_with
from napari_histomil.inference.tiles import TileReader
from napari_histomil.manifest import ModelManifest, find_model, load_manifest
from napari_histomil.results import RunStore, run_path
from napari_histomil.slides.readers import open_slide
from napari_histomil.slides.slide import Slide, Uint8Image
from napari_histomil.stain import StainFit
from napari_histomil.tiling import BLOCK_TILES, TileGrid

SAMPLE_TILES = 32
"""Tiles, spread over the job, on which precision is decided and the stain is fitted."""

SAMPLE_FLOPS = 1e11
"""Of a large net fewer tiles decide on precision: a second of arithmetic, not a minute."""

WRITE_SECONDS = 0.1
"""Blocks that are done within this time are written together: each write costs the same."""

CONSTANT = 1e-6
ENLARGED = 1.2
"""A slide this much coarser than the model is a warning: what it lacks cannot be made up."""


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
    finished = _finished(path)
    if finished is not None:
        total = len(finished)
        yield Progress(total, total, total, 0.0, whole_rect_px0(finished), path)
        return
    with ExitStack() as stack:
        model = _find_model(job, models)
        resolved = resolve_device(device)  # before anything is made on disk
        slide = stack.enter_context(_open_slide(job))
        store, created = _open_store(path, job, model, slide)
        stack.callback(store.close)
        session = _Session(job, model, slide, store, resolved, batch, on_error)
        try:
            yield from session.work(cancel or threading.Event(), near)
        except BaseException as error:
            if created and not isinstance(error, GeneratorExit) and not store.done_blocks.any():
                shutil.rmtree(path, ignore_errors=True)  # an error leaves no empty run behind
            raise


def _finished(path: Path) -> TileGrid | None:
    """Return the grid of a run that is done, or None."""
    if not path.exists():
        return None
    try:
        store = RunStore.open(path)
    except RunError:
        return None  # opening it for writing mends a torn run, or says what is the matter
    return store.grid if store.complete else None


class _Session:
    """One go at a run, from the first tile that is not done to the end, a cancel or an error."""

    def __init__(
        self,
        job: Job,
        model: ModelManifest,
        slide: Slide,
        store: RunStore,
        device: torch.device,
        batch: int | None,
        on_error: Literal["raise", "skip"],
    ) -> None:
        self.job, self.model, self.slide, self.store = job, model, slide, store
        self.device, self.batch, self.on_error = device, batch, on_error
        self.done = self.resumed = int(store.done_tiles.sum())
        self.start = time.perf_counter()

    def work(self, cancel: threading.Event, near: Near | None) -> Iterator[Progress]:
        """Yield the progress of this session."""
        grid, store = self.store.grid, self.store
        yield self._progress(whole_rect_px0(grid))
        reader = TileReader(self.slide, grid, self.model, recolor=self._recolor())
        if cancel.is_set():
            return
        net = prepare_net(self.model, reader.shape, self.device)
        if cancel.is_set():
            return
        net, settings = self._settle(net, reader)
        predictor = Predictor(net, self.model, settings.batch)
        on_cpu = self.device.type == "cpu"
        piece_tiles = min(settings.batch, BLOCK_TILES) if on_cpu else BLOCK_TILES
        plan = Plan(grid, store.done_blocks, piece_tiles=piece_tiles, near=near)
        store.add_session(begin_session(net, settings))
        self.start = time.perf_counter()
        state = "failed"
        try:
            with (cpu_lane if on_cpu else device_lane)(plan, reader, predictor) as crew:
                yield from self._collect(crew, cancel)
            state = "finished" if store.complete else "cancelled"
        except GeneratorExit:
            state = "cancelled"
            raise
        finally:
            self._conclude(predictor, state)

    def _recolor(self) -> Callable[[Uint8Image], Uint8Image] | None:
        """Return the stain normalisation of the job, fitted now or by the first session."""
        if self.store.stain is not None:
            return recolor_with(StainFit.from_json(self.store.stain))
        method = self.job.stain.method
        if method == "none":
            return None
        tiles = self._sample(TileReader(self.slide, self.store.grid, self.model))
        fit = fit_to_tiles(tiles, method, self.slide.info.path.name)
        self.store.set_stain(fit.to_json())
        return recolor_with(fit)

    def _sample(self, reader: TileReader, count: int = SAMPLE_TILES) -> Uint8Image:
        """Read tiles spread over the job, uint8 [n, H, W, 3]; those that fail are left out."""
        indices = spread_tiles(self.store.grid, count)
        tiles = np.empty((len(indices), *reader.shape, 3), np.uint8)
        failed = reader.read(indices, tiles)
        return np.delete(tiles, list(failed), axis=0)

    def _settle(self, net: Net, reader: TileReader) -> tuple[Net, Settings]:
        """Settle precision and batch, or take them from an earlier session on such a device."""
        for session in self.store.sessions:
            if session["device_type"] == self.device.type:
                kept = Settings(
                    session["precision"],
                    self.batch or session["batch"],
                    session["bf16_difference"],
                )
                return (in_bf16(net) if kept.precision == "bf16" else net), kept
        few = min(SAMPLE_TILES, max(int(SAMPLE_FLOPS / max(net.flops, 1)), 1))
        return settle(net, self.model, self._sample(reader, few), batch=self.batch)

    def _collect(self, crew: Crew[Answer], cancel: threading.Event) -> Iterator[Progress]:
        """Put pieces together to blocks, write those, and tell."""
        slices = list(self.store.grid.blocks())
        parts: dict[int, list[Answer]] = {}
        whole: dict[int, list[Answer]] = {}
        written = -math.inf
        while not cancel.is_set():
            try:
                answer = crew.take(timeout=WRITE_SECONDS)
            except TimeoutError:
                answer = None
                over = False
            else:
                over = answer is None
            while answer is not None:
                if answer.failed and self.on_error == "raise":
                    raise answer.failed[min(answer.failed)]
                block = answer.piece.block
                parts.setdefault(block, []).append(answer)
                tiles = slices[block].stop - slices[block].start
                if sum(a.piece.count for a in parts[block]) == tiles:
                    whole[block] = parts.pop(block)
                answer = crew.take_nowait()
            if whole and (over or time.perf_counter() - written >= WRITE_SECONDS):
                yield from self._write(whole, slices)
                whole, written = {}, time.perf_counter()
            if over:
                return

    def _write(self, blocks: dict[int, list[Answer]], slices: list[slice]) -> Iterator[Progress]:
        scores = {
            block: np.concatenate(
                [a.scores for a in sorted(answers, key=lambda a: a.piece.tiles.start)]
            )
            for block, answers in blocks.items()
        }
        skipped = {
            tile: str(error)
            for answers in blocks.values()
            for answer in answers
            for tile, error in answer.failed.items()
        }
        self.store.write_blocks(scores, skipped=skipped)
        for block in blocks:
            self.done += len(scores[block])
            yield self._progress(self.store.grid.bounding_rect_px0(slices[block]))

    def _progress(self, rect_px0: Rect) -> Progress:
        return Progress(
            done=self.done,
            total=len(self.store.grid),
            resumed=self.resumed,
            seconds=time.perf_counter() - self.start,
            rect_px0=rect_px0,
            store=self.store.path,
        )

    def _conclude(self, predictor: Predictor, state: str) -> None:
        """Complete the session's record, and say what the numbers themselves give away."""
        seconds = time.perf_counter() - self.start
        tiles = int(self.store.done_tiles.sum()) - self.resumed
        self.store.update_session(
            finished=now(),
            state=state,
            seconds=round(seconds, 3),
            tiles=tiles,
            tiles_per_second=round(tiles / seconds, 3),
            batch_at_end=predictor.batch,
        )
        scores = self.store.scores
        scores = scores[np.isfinite(scores).all(axis=1)]
        if (
            self.store.done_blocks.sum() > 1
            and len(scores)
            and np.ptp(scores, axis=0).max() <= CONSTANT
        ):
            self.store.add_warning(
                f"{self.model.name} gives every one of {len(scores)} tiles the same answer: it "
                f"does not work on this slide, or its weights are broken."
            )


def _find_model(job: Job, models: Sequence[Path]) -> ModelManifest:
    """Return the job's model from where it was, or of its name; by content, not by name."""
    path, name = job.model.path, job.model.name
    try:
        model = load_manifest(path) if path.is_dir() else find_model(name, models)
    except ModelError as error:
        raise ModelError(f"The job's model {name} cannot be used: {error}") from error
    if model.sha256 != job.model.sha256:
        raise RunError(
            f"The model {name} in {model.path} is not the one that the job was made for: run the "
            f"job again with this model, or get the other back."
        )
    return model


def _open_slide(job: Job) -> Slide:
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


def _open_store(path: Path, job: Job, model: ModelManifest, slide: Slide) -> tuple[RunStore, bool]:
    """Open the job's run for writing, or make it; returns whether it was made."""
    if path.exists():
        return RunStore.open(path, writable=True), False
    grid = select_tiles(slide, job)
    info = slide.info
    bounds = info.bounds_px0
    store = RunStore.create(
        path,
        run_id=job.run_id,
        job=job.canonical(),
        slide={
            "name": info.path.name,
            "path": remote_url(info.path) or str(info.path.absolute()),
            "fingerprint": info.fingerprint,
            "width_px0": info.width_px0,
            "height_px0": info.height_px0,
            "mpp_xy": list(info.mpp_xy),
            "bounds_px0": bounds
            and [bounds.x_px0, bounds.y_px0, bounds.width_px0, bounds.height_px0],
        },
        model={
            "name": model.name,
            "path": str(model.path.absolute()),
            "sha256": model.sha256,
            "weights_sha256": model.weights_sha256,
            "kind": model.kind,
            "description": model.description,
            "activation": model.activation,
            "positive_class": model.positive_class,
            "licence": model.licence,
        },
        classes=model.classes,
        grid=grid,
    )
    for warning in _warnings(grid, model):
        store.add_warning(warning)
    return store, True


def _warnings(grid: TileGrid, model: ModelManifest) -> Iterator[str]:
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
            f"its scores may mean nothing."
        )
