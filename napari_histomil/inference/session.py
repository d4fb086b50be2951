"""One go at a run, from the first tile that is not done to the end, a cancel or an error.

What all tasks share is here; how answers become blocks that are written is in `blocks.py` and
`segmentation.py`.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Generic, Literal

import numpy as np
import torch

from napari_histomil.geometry import Rect
from napari_histomil.inference.backend_choice import as_before, choose
from napari_histomil.inference.backends import Net, in_bf16, prepare_net
from napari_histomil.inference.job import Job, Progress
from napari_histomil.inference.lanes import Answer, Pieces, cpu_lane, device_lane
from napari_histomil.inference.opening import Store
from napari_histomil.inference.plan import Near, spread_tiles, whole_rect_px0
from napari_histomil.inference.predictor import Predictor, Settings, settle
from napari_histomil.inference.prefetch import Crew
from napari_histomil.inference.provenance import begin_session, now
from napari_histomil.inference.stains import fit_to_tiles, recolor_with
from napari_histomil.inference.tasks import WAYS
from napari_histomil.inference.tiles import TileReader
from napari_histomil.manifest import ModelManifest
from napari_histomil.slides.slide import Slide, Uint8Image
from napari_histomil.stain import StainFit

SAMPLE_TILES = 32
"""Tiles, spread over the job, on which precision is decided and the stain is fitted."""

SAMPLE_FLOPS = 1e11
"""Of a large net fewer tiles decide on precision: a second of arithmetic, not a minute."""

Prepare = Callable[[ModelManifest, tuple[int, int], torch.device], Net]
"""As `prepare_net`: a job of several runs with one model prepares it once."""


class Session(ABC, Generic[Store]):
    """One go at a run."""

    def __init__(
        self,
        job: Job,
        model: ModelManifest,
        slide: Slide,
        store: Store,
        device: torch.device,
        batch: int | None,
        on_error: Literal["raise", "skip"],
        prepare: Prepare | None = None,
    ) -> None:
        self.job, self.model, self.slide = job, model, slide
        self.store: Store = store
        self.device, self.batch, self.on_error = device, batch, on_error
        self._prepare = prepare or prepare_net
        self.done = self.resumed = int(store.done_tiles.sum())
        self.start = time.perf_counter()

    def work(self, cancel: threading.Event, near: Near | None) -> Iterator[Progress]:
        """Yield the progress of this session."""
        grid, store = self.store.grid, self.store
        yield self._progress(whole_rect_px0(grid))
        reader = TileReader(self.slide, grid, self.model, recolor=self._recolor())
        if cancel.is_set():
            return
        net = self._prepare(self.model, reader.shape, self.device)
        if cancel.is_set():
            return
        net, settings = self._settle(net, reader, cancel)
        if cancel.is_set():
            return
        predictor = Predictor(net, self.model, settings.batch, tta=self.job.tta)
        on_cpu = self.device.type == "cpu"
        pieces = self._pieces(settings.batch, on_cpu=on_cpu, near=near)
        store.add_session(begin_session(net, settings))
        self.start = time.perf_counter()
        state = "failed"
        try:
            with (cpu_lane if on_cpu else device_lane)(pieces, reader, predictor) as crew:
                yield from self._collect(crew, cancel)
            state = "finished" if store.complete else "cancelled"
        except GeneratorExit:
            state = "cancelled"
            raise
        finally:
            self._conclude(predictor, state)

    @abstractmethod
    def _pieces(self, batch: int, *, on_cpu: bool, near: Near | None) -> Pieces:
        """Return what hands out the tiles that are not done."""

    @abstractmethod
    def _collect(self, crew: Crew[Answer], cancel: threading.Event) -> Iterator[Progress]:
        """Take answers, write what is whole, and tell."""

    @abstractmethod
    def _warning(self) -> str | None:
        """Return what the numbers themselves give away, as a sentence."""

    def _recolor(self) -> Callable[[Uint8Image], Uint8Image] | None:
        """Return what the job does to the stains, fitted now or by the first session."""
        condition = self.job.stain.condition
        if self.store.stain is not None:
            return recolor_with(StainFit.from_json(self.store.stain), condition)
        method = self.job.stain.method
        if condition is not None:
            method = "macenko"  # its stain vectors are what is changed
        if method == "none":
            return None
        tiles = self._sample(TileReader(self.slide, self.store.grid, self.model))
        fit = fit_to_tiles(tiles, method, self.slide.info.path.name)
        self.store.set_stain(fit.to_json())
        return recolor_with(fit, condition)

    def _sample(self, reader: TileReader, count: int = SAMPLE_TILES) -> Uint8Image:
        """Read tiles spread over the job, uint8 [n, H, W, 3]; those that fail are left out."""
        indices = spread_tiles(self.store.grid, count)
        tiles = np.empty((len(indices), *reader.shape, 3), np.uint8)
        failed = reader.read(indices, tiles)
        return np.delete(tiles, list(failed), axis=0)

    def _settle(
        self, net: Net, reader: TileReader, cancel: threading.Event
    ) -> tuple[Net, Settings]:
        """Settle backend, precision, batch, or take an earlier session's on such a device."""
        for session in self.store.sessions:
            if session["device_type"] == self.device.type:
                kept = Settings(
                    session["precision"],
                    self.batch or session["batch"],
                    session["bf16_difference"],
                )
                net = as_before(net, self.model, reader.shape, session["backend"])
                return (in_bf16(net) if kept.precision == "bf16" else net), kept
        few = min(SAMPLE_TILES, max(int(SAMPLE_FLOPS / max(net.flops, 1)), 1))
        sample = self._sample(reader, few)
        ways = len(WAYS) if self.job.tta else 1
        torch_net, settings = settle(net, self.model, sample, batch=self.batch, ways=ways)
        left = (len(self.store.grid) - self.done) * ways
        chosen = choose(net, torch_net, self.model, sample, tiles=left, cancel=cancel)
        return chosen, replace(settings, precision=chosen.precision)

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
        warning = self._warning()
        if warning is not None:
            self.store.add_warning(warning)
