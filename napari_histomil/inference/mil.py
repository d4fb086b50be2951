"""MIL models over slides: features, bag, answer, and the run that holds what came out.

The cycle of a job:

1. features of the lowest magnification, or of all where the model does not zoom: runs of their
   own (`mil_features.py`), gone on with or found to be done, in which all the time is spent;
2. the model is asked (`mil_answer.py`); one that zooms says which tiles it needs next, these are
   computed, and it is asked again;
3. what is odd about bag, answer and scale becomes warnings (`review/`);
4. the run is written, whole or not at all. Killed at any byte, the job goes on where its features
   stand, and ends with the same numbers.

A bag that is there already needs none of this: `mil_bag.py`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from napari_histomil.errors import RunError, SlideError
from napari_histomil.inference.backends import Net, prepare_net
from napari_histomil.inference.embedding import EmbedSession
from napari_histomil.inference.job import Job, Progress
from napari_histomil.inference.mil_answer import (
    Answered,
    Missing,
    ask_models,
    bag_tensors,
    finer_map,
    tensor_of,
)
from napari_histomil.inference.mil_bag import assemble, bag_warnings
from napari_histomil.inference.mil_features import (
    ZoomBag,
    chosen_job,
    examined,
    feature_job,
    finer_job,
)
from napari_histomil.inference.mil_models import Asked, find_encoder
from napari_histomil.inference.opening import grid_warnings, open_job_store, slide_facts
from napari_histomil.inference.plan import Near, whole_rect_px0
from napari_histomil.inference.provenance import begin, now
from napari_histomil.manifest import ModelManifest
from napari_histomil.nets.mil.zoommil import ZoomMIL
from napari_histomil.results import FeatureStore, MilRun, run_path, write_mil_run
from napari_histomil.results.bag import Bag, bag_of_runs
from napari_histomil.results.mil import MilContributions, MilLevel, MilMap, MilSource
from napari_histomil.review.nuclear_size import scale_warning, slide_nuclear_size
from napari_histomil.slides.slide import Slide
from napari_histomil.tiling import children_a_side

Work = Generator[Progress, None, FeatureStore | None]
"""Yields progress, and returns the features; None if it was cancelled."""


class MilSession:
    """One go at a MIL job.

    Parameters
    ----------
    job, model, slide
        The job and what it names.
    asked
        The model and, of an ensemble, the others.
    path
        Where the run shall be.
    device, batch, on_error
        As of `Session`.
    out, models
        As of `engine.run`.
    """

    def __init__(
        self,
        job: Job,
        model: ModelManifest,
        asked: Asked,
        slide: Slide,
        path: Path,
        device: torch.device,
        batch: int | None,
        on_error: Literal["raise", "skip"],
        *,
        out: Path | None,
        models: Sequence[Path],
    ) -> None:
        self.job, self.slide, self.path = job, slide, path
        self._asked = asked
        self._encoder = find_encoder(model, models)
        self._how = (device, batch, on_error)
        self._device, self._out = device, out
        self._done = self._resumed = 0
        self._seconds: dict[str, float] = {"features": 0.0}
        self._stores: list[FeatureStore] = []
        self._nets: dict[tuple[int, int], Net] = {}

    def work(self, cancel: threading.Event, near: Near | None) -> Iterator[Progress]:
        """Yield progress, tiles of all magnifications counted together.

        The total counts every tile that may still be looked at. Done equals it in the last
        progress only, when the run is there.
        """
        session = begin(self._device)
        zooms = isinstance(self._asked.nets[0], ZoomMIL)
        for level in range(1 if zooms else len(self.job.grids)):
            store = yield from self._features(feature_job(self.job, self._encoder, level), level,
                                              cancel, near)  # fmt: skip
            if store is None:
                return
            self._stores.append(store)
        bag = bag_of_runs(self._stores)
        if zooms:
            zoomed = yield from self._zoom(bag, cancel, near)
            if zoomed is None:
                return
            levels, answered = zoomed
        else:
            levels = tuple(MilLevel.of(level) for level in bag.levels)
            answered = self._ask(bag)
        if self.job.mil.finer > 1:
            store = yield from self._features(
                finer_job(self.job, self._encoder), len(self.job.grids), cancel, near
            )
            if store is None:
                return
            levels, answered = self._finer(bag, store, levels, answered)
        yield self._told("checks", self._stores[0])
        run = self._finish(bag, levels, answered, {**session, "finished": now()})
        grid = self._stores[0].grid
        yield Progress(
            self._done, self._done, self._resumed, self._seconds["features"],
            whole_rect_px0(grid), run.path,
        )  # fmt: skip

    # ---------------------------------------------------------------------------- features

    def _features(self, job: Job, level: int, cancel: threading.Event, near: Near | None) -> Work:
        """Complete a run of features, or find it done."""
        stage = f"features at {job.grids[0].mpp:g} µm/px"
        path = run_path(
            job.slide.path, job.run_id, fingerprint=job.slide.fingerprint, out=self._out
        )
        store = complete_features(path)
        if store is not None:
            self._resumed += len(store.grid)
        else:
            with open_job_store(FeatureStore, path, job, self._encoder, self.slide) as begun:
                session = EmbedSession(job, self._encoder, self.slide, begun, *self._how,
                                       prepare=self._net)  # fmt: skip
                later = self._expected(level, len(begun.grid))
                for told in session.work(cancel, near):
                    total = self._done + told.total + later
                    done, resumed = self._done + told.done, self._resumed + told.resumed
                    seconds = self._seconds["features"] + told.seconds
                    if done < total:
                        rect = told.rect_px0
                        yield Progress(done, total, resumed, seconds, rect, self.path, stage)
                if not begun.complete or cancel.is_set():
                    return None
                self._resumed += told.resumed
                self._seconds["features"] += told.seconds
            store = FeatureStore.open(path)
        self._done += len(store.grid)
        yield self._told("answer", store, self._expected(level, len(store.grid)))
        return None if cancel.is_set() else store

    def _told(self, stage: str, store: FeatureStore, later: int = 0) -> Progress:
        """Return the progress of a stage without tiles of its own; it is not the last."""
        total, rect = self._done + max(later, 1), whole_rect_px0(store.grid)
        seconds = self._seconds["features"]
        return Progress(self._done, total, self._resumed, seconds, rect, self.path, stage)

    def _net(self, model: ModelManifest, shape: tuple[int, int], device: torch.device) -> Net:
        """Return the encoder made ready, the same for all magnifications."""
        if shape not in self._nets:
            self._nets[shape] = prepare_net(model, shape, device)
        return self._nets[shape]

    def _expected(self, level: int, count: int) -> int:
        """Return how many tiles come after those of a level, of which there are `count`."""
        grids, net = self.job.grids, self._asked.nets[0]
        later, finer = 0, self.job.mil.finer
        for above in range(level, len(grids) - 1):
            if isinstance(net, ZoomMIL):
                count = min(count, net.k[above] * len(self._asked.nets))
            count *= children_a_side(*grids[above : above + 2]) ** 2
            later += count
        return later + (count * finer**2 if finer > 1 and level < len(grids) else 0)

    # ---------------------------------------------------------------------------- the answer

    def _ask(self, bag: Bag) -> Answered:
        start = time.perf_counter()
        tensors = bag_tensors(bag, self._device)
        answered = ask_models(self._asked, lambda net: net(tensors), passes=self.job.mil.passes)
        self._seconds["answer"] = round(time.perf_counter() - start, 3)
        return answered

    def _zoom(
        self, bag: Bag, cancel: threading.Event, near: Near | None
    ) -> Generator[Progress, None, tuple[tuple[MilLevel, ...], Answered] | None]:
        """Ask a model that zooms, and again when the tiles are there that it asked for."""
        zoom = ZoomBag(bag, self.job.grids, self._device)
        for level in range(1, len(self.job.grids)):  # all of a magnification may be there
            job = feature_job(self.job, self._encoder, level)
            path = run_path(
                job.slide.path, job.run_id, fingerprint=job.slide.fingerprint, out=self._out
            )
            store = complete_features(path)
            if store is not None:
                zoom.add(level, store)
                self._stores.append(store)
        lowest = tensor_of(np.asarray(bag.levels[0].features), self._device)

        def ask(net: Any) -> Any:
            return net.examine(lowest, zoom.children)

        start, answered = time.perf_counter(), None
        while answered is None:
            try:
                answered = ask_models(self._asked, ask, passes=self.job.mil.passes)
            except Missing as wanted:
                parents = zoom.tiles(wanted.level, wanted.rows)
                level = wanted.level + 1
                job = chosen_job(self.job, self._encoder, level, parents)
                store = yield from self._features(job, level, cancel, near)
                if store is None:
                    return None
                zoom.add(level, store)
                self._stores.append(store)
        took = time.perf_counter() - start - self._seconds["features"]
        self._seconds["answer"] = round(max(took, 0.0), 3)
        count = len(self.job.grids)
        parts: list[MilMap | MilContributions] = [*answered.maps, *answered.contributions]
        rows = examined(zoom, [[p.index for p in parts if p.level == i] for i in range(count)])
        levels = tuple(zoom.level(i, rows[i]) for i in range(count))

        def placed(level: int, index: Any) -> Any:
            return np.searchsorted(rows[level], index)

        return levels, replace(
            answered,
            maps=tuple(replace(m, index=placed(m.level, m.index)) for m in answered.maps),
            contributions=tuple(
                replace(p, index=placed(p.level, p.index)) for p in answered.contributions
            ),
        )

    def _finer(
        self, bag: Bag, store: FeatureStore, levels: tuple[MilLevel, ...], answered: Answered
    ) -> tuple[tuple[MilLevel, ...], Answered]:
        """Add the map at a smaller stride."""
        fine = bag_of_runs([store])
        tensors = [bag_tensors(b, self._device) for b in (bag, fine)]
        assert isinstance(tensors[0], torch.Tensor)
        assert isinstance(tensors[1], torch.Tensor)
        each = finer_map(self._asked, tensors[0], tensors[1], len(levels))
        level = replace(MilLevel.of(fine.levels[0]), finer_than=len(levels) - 1)
        self._stores.append(store)
        return (*levels, level), replace(answered, maps=(*answered.maps, each))

    def _finish(
        self,
        bag: Bag,
        levels: tuple[MilLevel, ...],
        answered: Answered,
        session: dict[str, Any],
    ) -> MilRun:
        """Look at what is odd, and write the run."""
        asked = self._asked
        start = time.perf_counter()
        warnings = [w for store in self._stores for w in self._of_features(store)]
        warnings += bag_warnings(asked, bag) if len(bag.levels) == len(self.job.grids) else []
        numbers: dict[str, Any] = {}
        try:
            found = slide_nuclear_size(self.slide, self._stores[0].grid.cell_rects_px0)
            warning = scale_warning(found, asked.nuclear_um)
            warnings += [warning] if warning is not None else []
            numbers["nuclear_um"] = None if found is None else round(found.diameter_um, 2)
        except SlideError as error:
            warnings.append(f"The size of nuclei could not be measured: {error}")
        self._seconds["checks"] = round(time.perf_counter() - start, 3)
        self._seconds["features"] = round(self._seconds["features"], 3)
        source = MilSource(bag.dim, bag.encoder, tuple(store.run_id for store in self._stores))
        run = assemble(
            asked, answered, levels, source,
            run_id=self.job.run_id, job=self.job.canonical(), slide=slide_facts(self.slide.info),
            warnings=warnings, numbers=numbers, seconds=self._seconds, session=session,
            passes=self.job.mil.passes,
        )  # fmt: skip
        return write_mil_run(run, self.path)

    def _of_features(self, store: FeatureStore) -> Iterator[str]:
        """Yield what is odd about features; the model was trained on their µm/px, if not they."""
        of_encoder = set(grid_warnings(store.grid, self._encoder))
        yield from (warning for warning in store.warnings if warning not in of_encoder)
        yield from grid_warnings(store.grid, replace(self._encoder, grid=store.grid.spec))
        if store.skipped:
            yield (
                f"{len(store.skipped)} of {len(store.grid)} tiles of {store.grid.spec.mpp:g} "
                f"µm/px could not be read: the answer is without them."
            )


def complete_features(path: Path) -> FeatureStore | None:
    """Return a run of features that is done, opened for reading; None if there is none such."""
    if not path.exists():
        return None
    try:
        store = FeatureStore.open(path)
    except RunError:
        return None  # opening it for writing mends it, or says what is the matter
    return store if store.complete else None
