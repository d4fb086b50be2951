"""How near the engine comes to what the machine can do, from one command.

A run reads and predicts every tile. With F the tiles a second of the model alone and R those of
reading and preparing alone, each with all the workers that a run has, a machine whose cores do
both can at best do 1 / (1 / F + 1 / R). The engine is measured against that bound, and reading
against openslide-python. Rounds take turns, so that other work on the machine falls on all alike;
the median of each counts, and what was spent of CPU time beside it, which others disturb less.
"""

from __future__ import annotations

import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openslide

from napari_histomil.bench.figures import append_section
from napari_histomil.errors import RunError
from napari_histomil.inference.backends import Net, in_bf16, prepare_net
from napari_histomil.inference.devices import describe_device, resolve_device
from napari_histomil.inference.engine import run
from napari_histomil.inference.job import Job, RegionSpec, plan_job
from napari_histomil.inference.lanes import one_thread_each, worker_count
from napari_histomil.inference.plan import Plan
from napari_histomil.inference.predictor import Predictor
from napari_histomil.inference.tiles import TileReader
from napari_histomil.manifest import ModelManifest
from napari_histomil.results import RunStore
from napari_histomil.slides.readers import open_slide
from napari_histomil.tiling import BLOCK_TILES, TileGrid

ROUNDS = 5
FORWARD_SECONDS = 2.0
READS = 500
READ_PX = 256


@dataclass(frozen=True, slots=True)
class Rate:
    """Things done, the time it took, and the CPU time of this process in it."""

    count: int
    seconds: float
    cpu_seconds: float

    @property
    def per_second(self) -> float:
        """Things a second."""
        return self.count / self.seconds

    @property
    def cpu_each(self) -> float:
        """CPU seconds for one."""
        return self.cpu_seconds / self.count


@dataclass(frozen=True, slots=True)
class RunBenchmark:
    """Medians of the rounds."""

    model: str
    slide: str
    device: str
    precision: str
    batch: int
    workers: int
    tiles: int
    tile_px: int
    stride_px: int
    mpp: float
    rounds: int
    end_to_end: float
    """Tiles a second of whole runs, from the first tile to the last block on disk."""
    forward: float
    """F: tiles a second of the model alone, on all workers."""
    reading: float
    """R: tiles a second of reading and preparing alone, on all workers."""
    bound: float
    """1 / (1 / F + 1 / R) where cores do both, min(F, R) where a device works beside them."""
    efficiency: float
    """End to end over the bound: the median of the rounds' own ratios."""
    cpu_efficiency: float
    """CPU time of F and R for a tile over that of a run."""
    random_reads: float
    """Regions of 256 px of level 0, at random, a second; one thread, nothing read before."""
    random_reads_openslide: float | None
    """The same with openslide-python; None where it does not open the slide."""

    @property
    def reads_ratio(self) -> float | None:
        """Random reads of ours over those of openslide-python."""
        other = self.random_reads_openslide
        return None if other is None else self.random_reads / other


def run_benchmark(
    model: ModelManifest,
    slide_path: Path,
    *,
    device: str = "auto",
    region: RegionSpec | None = None,
    rounds: int = ROUNDS,
) -> RunBenchmark:
    """Measure the engine with one model on one slide.

    Parameters
    ----------
    model, slide_path
        What is run on what.
    device
        As for `run`.
    region
        Where; tissue by default.
    rounds
        How often everything is measured.

    Raises
    ------
    RunError
        If the job holds too few tiles to measure anything.
    """
    target = resolve_device(device)
    with open_slide(slide_path) as slide:
        job = plan_job(slide.info, model, region=region)
    _, store = _whole_run(job, device)  # warm up: file cache, kernels, allocators
    grid, session = store.grid, store.sessions[0]
    if len(grid) < 4 * BLOCK_TILES:
        raise RunError(
            f"{slide_path.name} gives only {len(grid)} tiles, too few to measure: take a larger "
            f"slide, or --region all."
        )
    with open_slide(slide_path, mpp=job.slide.mpp_xy) as slide:
        shape = TileReader(slide, grid, model).shape
    net = prepare_net(model, shape, target)
    if session["precision"] == "bf16":
        net = in_bf16(net)
    workers = worker_count(target)
    beside = target.type != "cpu"
    table = []
    for _ in range(rounds):
        whole, _ = _whole_run(job, device)
        forward = _forward(net, model, shape, session["batch"], 1 if beside else workers)
        reading = _reading(job, grid, model, BLOCK_TILES if beside else session["batch"], workers)
        both = 1 / forward.per_second + 1 / reading.per_second
        bound = min(forward.per_second, reading.per_second) if beside else 1 / both
        table.append(
            (
                whole.per_second,
                forward.per_second,
                reading.per_second,
                bound,
                whole.per_second / bound,
                (forward.cpu_each + reading.cpu_each) / whole.cpu_each,
                _random_reads(lambda: open_slide(slide_path)),
                _random_reads(lambda: openslide.OpenSlide(slide_path))
                if openslide.OpenSlide.detect_format(slide_path)
                else None,
            )
        )
    medians = [_median([row[i] for row in table]) for i in range(len(table[0]))]
    end_to_end, forward_rate, reading_rate, bound, efficiency, cpu, ours = (
        m or 0.0 for m in medians[:7]
    )
    return RunBenchmark(
        model=model.name,
        slide=slide_path.name,
        device=describe_device(device),
        precision=session["precision"],
        batch=session["batch"],
        workers=workers,
        tiles=len(grid),
        tile_px=grid.spec.tile_px,
        stride_px=grid.spec.stride_px,
        mpp=grid.spec.mpp,
        rounds=rounds,
        end_to_end=end_to_end,
        forward=forward_rate,
        reading=reading_rate,
        bound=bound,
        efficiency=efficiency,
        cpu_efficiency=cpu,
        random_reads=ours,
        random_reads_openslide=medians[7],
    )


def report(result: RunBenchmark) -> str:
    """Return the figures as lines of text, Markdown too."""
    r = result
    rule = "1 / (1/F + 1/R)" if r.device.endswith("(cpu)") else "min(F, R)"
    lines = [
        (
            f"- {r.model} ({r.precision}, batch {r.batch}) on {r.slide}: {r.tiles} tiles of "
            f"{r.tile_px} px, stride {r.stride_px} px, at {r.mpp:g} µm/px"
        ),
        f"- device: {r.device}; {r.workers} workers; medians of {r.rounds} rounds",
        (
            f"- **end to end {r.end_to_end:,.0f} tiles/s, {r.efficiency:.2f} of the bound** "
            f"{rule} = {r.bound:,.0f}"
        ),
        (
            f"- F, the model alone: {r.forward:,.0f} tiles/s; R, reading and preparing alone: "
            f"{r.reading:,.0f} tiles/s"
        ),
        f"- in CPU time a tile: F and R together are {r.cpu_efficiency:.2f} of a run",
    ]
    if r.random_reads_openslide is None:
        lines.append(
            f"- random reads of {READ_PX} px: {r.random_reads:,.0f} a second on one thread "
            f"(openslide-python does not open this slide)"
        )
    else:
        lines.append(
            f"- random reads of {READ_PX} px, one thread: {r.random_reads:,.0f} a second, "
            f"openslide-python {r.random_reads_openslide:,.0f}: {r.reads_ratio:.1f} times"
        )
    return "\n".join(lines)


def append_results(file: Path, result: RunBenchmark, command: str) -> None:
    """Add a dated section to a Markdown file of results, which is made where it is missing."""
    append_section(file, "engine", command, report(result))


def _whole_run(job: Job, device: str) -> tuple[Rate, RunStore]:
    """Run the job from nothing, in a folder that is thrown away."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        progress = run(job, out=Path(folder), device=device)
        first = next(progress)
        cpu, last = 0.0, first
        for last in progress:
            if cpu == 0.0:
                # set-up is over when the first block is there: CPU time is taken from here on
                cpu, done = time.process_time(), last.done
        used = time.process_time() - cpu
        store = RunStore.open(last.store)
        store.refresh()
        rate = Rate(last.total, last.seconds, used * last.total / max(last.total - done, 1))
    return rate, store


def _forward(
    net: Net, model: ModelManifest, shape: tuple[int, int], batch: int, workers: int
) -> Rate:
    """Predict the same tiles again and again, on every worker, for a while."""
    predictor = Predictor(net, model, batch)
    tiles = np.random.default_rng(0).integers(0, 256, (batch, *shape, 3), np.uint8)
    end = time.perf_counter() + FORWARD_SECONDS
    counts: list[int] = []

    def work() -> None:
        count = 0
        while time.perf_counter() < end:
            predictor.scores(tiles)
            count += batch
        counts.append(count)

    seconds, cpu = _in_threads(work, workers)
    return Rate(sum(counts), seconds, cpu)


def _reading(
    job: Job, grid: TileGrid, model: ModelManifest, piece_tiles: int, workers: int
) -> Rate:
    """Read every tile of the job as a run does, from a slide that is opened anew."""
    with open_slide(job.slide.path, mpp=job.slide.mpp_xy) as slide:
        reader = TileReader(slide, grid, model)
        blocks = len(list(grid.blocks()))
        plan = Plan(grid, np.zeros(blocks, bool), piece_tiles=piece_tiles, near=None)

        def work() -> None:
            while (piece := plan.take()) is not None:
                tiles = np.empty((piece.count, *reader.shape, 3), np.uint8)
                reader.read(np.arange(piece.tiles.start, piece.tiles.stop), tiles)

        seconds, cpu = _in_threads(work, workers)
    return Rate(len(grid), seconds, cpu)


def _random_reads(open_it: Callable[[], Any]) -> float:
    """Return regions a second; both libraries have the same method, ours gives an array."""
    rng = np.random.default_rng(0)
    with open_it() as slide:
        info = getattr(slide, "info", None)
        width, height = (info.width_px0, info.height_px0) if info is not None else slide.dimensions
        corners = rng.integers(0, (max(width - READ_PX, 1), max(height - READ_PX, 1)), (READS, 2))
        start = time.perf_counter()
        for x, y in corners.tolist():
            np.asarray(slide.read_region((x, y), 0, (READ_PX, READ_PX)))
        return READS / (time.perf_counter() - start)


def _in_threads(work: Callable[[], None], count: int) -> tuple[float, float]:
    """Run `work` in threads as the engine's workers run; return seconds and CPU seconds."""
    with one_thread_each() as prepare:

        def run_it() -> None:
            prepare()
            work()

        threads = [threading.Thread(target=run_it) for _ in range(count)]
        cpu, start = time.process_time(), time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return time.perf_counter() - start, time.process_time() - cpu


def _median(values: list[float | None]) -> float | None:
    numbers = [value for value in values if value is not None]
    return statistics.median(numbers) if numbers else None
