"""How near the engine comes to what the machine can do, for one network on one slide.

A run reads and predicts every tile. With F the tiles a second of the model alone, by the fastest
backend there is, and R those of reading and preparing alone, each with all the workers that a run
has, a machine whose cores do both can at best do 1 / (1 / F + 1 / R). The engine is measured
against that bound. Rounds take turns, so that other work on the machine falls on all alike; the
median of each counts, and what was spent of CPU time beside it, which others disturb less.

Of a network that would take long, a sample of the job is measured: tiles that lie together, as
many as the network does in some seconds.
"""

from __future__ import annotations

import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import shapely

from napari_histomil.errors import ModelError, RunError
from napari_histomil.inference.backend_choice import choose, in_onnxruntime
from napari_histomil.inference.backends import Net, prepare_net
from napari_histomil.inference.devices import describe_device, resolve_device
from napari_histomil.inference.engine import run
from napari_histomil.inference.job import Job, Progress, RegionSpec, plan_job
from napari_histomil.inference.lanes import Pieces, one_thread_each, worker_count
from napari_histomil.inference.plan import Plan, select_tiles, spread_tiles
from napari_histomil.inference.predictor import Predictor, settle
from napari_histomil.inference.segmentation import BandPlan
from napari_histomil.inference.session import SAMPLE_FLOPS, SAMPLE_TILES
from napari_histomil.inference.tiles import TileReader
from napari_histomil.manifest import ModelManifest
from napari_histomil.results.bands import Picture
from napari_histomil.slides.readers import open_slide
from napari_histomil.slides.slide import Uint8Image
from napari_histomil.tiling import BLOCK_TILES, TileGrid

ROUNDS = 3
SAMPLE_SECONDS = 8.0
"""So long a run over the sample takes, roughly."""

FORWARD_SECONDS = 2.0
LEAST_TILES = 2 * BLOCK_TILES


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
class NetworkFigures:
    """Medians of the rounds."""

    model: str
    task: str
    slide: str
    device: str
    backend: str
    """What the engine chose, e.g. ``onnxruntime fp32``."""
    batch: int
    workers: int
    tiles: int
    """Measured: all of the job, or a sample."""
    tiles_of_job: int
    tile_px: int
    stride_px: int
    mpp: float
    rounds: int
    end_to_end: float
    """Tiles a second of whole runs, from the first tile to the last block on disk."""
    forward: dict[str, float]
    """Backend -> tiles a second of the model alone, on all workers; F is the largest."""
    reading: float
    """R: tiles a second of reading and preparing alone, on all workers."""
    bound: float
    """1 / (1 / F + 1 / R) where cores do both, min(F, R) where a device works beside them."""
    efficiency: float
    """End to end over the bound: the median of the rounds' own ratios."""
    cpu_efficiency: float
    """CPU time of F (of the engine's backend) and R for a tile over that of a run."""


def measure_network(
    model: ModelManifest,
    slide_path: Path,
    *,
    device: str = "auto",
    region: RegionSpec | None = None,
    rounds: int = ROUNDS,
    seconds: float = SAMPLE_SECONDS,
) -> NetworkFigures:
    """Measure the engine with one network on one slide.

    Parameters
    ----------
    model, slide_path
        What is run on what; no chain.
    device
        As for `run`.
    region
        Where; tissue by default.
    rounds
        How often everything is measured.
    seconds
        Of a job that takes longer a sample is run.

    Raises
    ------
    RunError
        If the job holds too few tiles to measure anything.
    """
    target = resolve_device(device)
    beside = target.type != "cpu"
    with open_slide(slide_path) as slide:
        whole_job = plan_job(slide.info, model, region=region)
        whole_grid = select_tiles(slide, whole_job)
        if len(whole_grid) < LEAST_TILES:
            raise RunError(
                f"{slide_path.name} gives only {len(whole_grid)} tiles, too few to measure: take "
                f"a larger slide, or --region all."
            )
        reader = TileReader(slide, whole_grid, model)
        shape = reader.shape
        net = prepare_net(model, shape, target)
        few = min(SAMPLE_TILES, max(int(SAMPLE_FLOPS / max(net.flops, 1)), 1))
        tiles = np.empty((few, *shape, 3), np.uint8)
        reader.read(spread_tiles(whole_grid, few), tiles)
        torch_net, settings = settle(net, model, tiles, batch=None)
        # The clock decides as it would for a whole slide, and the runs below remember.
        chosen = choose(net, torch_net, model, tiles, tiles=10**12, cancel=threading.Event())
    workers = worker_count(target)
    lanes, batch = (1 if beside else workers), settings.batch
    nets = {_name(each): each for each in (torch_net, chosen, *_also_onnx(net, model, shape))}
    speed = _forward(chosen, model, tiles, batch, lanes).per_second
    job, grid = sample_job(whole_job, whole_grid, max(int(speed * seconds), LEAST_TILES))
    whole_run(job, device)  # warm up: file cache, kernels, allocators
    table = []
    for _ in range(rounds):
        end_to_end = whole_run(job, device)[0]
        forward = {name: _forward(each, model, tiles, batch, lanes) for name, each in nets.items()}
        reading = _reading(job, grid, model, BLOCK_TILES if beside else batch, workers)
        table.append((end_to_end, forward, reading))
    rates = {name: _median([row[1][name].per_second for row in table]) for name in nets}
    fastest = max(rates, key=lambda name: rates[name])

    def bound(f: float, r: float) -> float:
        return min(f, r) if beside else 1 / (1 / f + 1 / r)

    bounds = [bound(f[fastest].per_second, r.per_second) for _, f, r in table]
    own = _name(chosen)
    return NetworkFigures(
        model=model.name,
        task=model.task,
        slide=slide_path.name,
        device=describe_device(device),
        backend=own,
        batch=batch,
        workers=workers,
        tiles=len(grid),
        tiles_of_job=len(whole_grid),
        tile_px=grid.spec.tile_px,
        stride_px=grid.spec.stride_px,
        mpp=grid.spec.mpp,
        rounds=rounds,
        end_to_end=_median([row[0].per_second for row in table]),
        forward=rates,
        reading=_median([row[2].per_second for row in table]),
        bound=_median(bounds),
        efficiency=_median([e.per_second / b for (e, _, _), b in zip(table, bounds, strict=True)]),
        cpu_efficiency=_median([(f[own].cpu_each + r.cpu_each) / e.cpu_each for e, f, r in table]),
    )


def sample_job(job: Job, grid: TileGrid, tiles: int) -> tuple[Job, TileGrid]:
    """Return the job over `tiles` tiles from the middle of its order, which lie together.

    The job itself, and its grid, where it holds no more.
    """
    if len(grid) <= tiles:
        return job, grid
    first = (len(grid) - tiles) // 2
    keep = np.zeros(len(grid), bool)
    keep[first : first + tiles] = True
    part = grid.select(keep)
    x, y, width, height = part.cell_rects_px0.T
    union = shapely.union_all(shapely.box(x, y, x + width, y + height))
    parts = tuple(shapely.get_parts(union).tolist())
    region = RegionSpec("polygons", polygons_wkt=tuple(p.wkt for p in parts), min_fraction=0.5)
    return replace(job, region=region), part


def whole_run(job: Job, device: str, models: Sequence[Path] = ()) -> tuple[Rate, Progress]:
    """Run a job from nothing, in a folder that is thrown away."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        progress = run(job, out=Path(folder), device=device, models=models)
        first = next(progress)
        cpu, last, done = 0.0, first, 0
        for last in progress:
            if cpu == 0.0:
                # set-up is over when the first block is there: CPU time is taken from here on
                cpu, done = time.process_time(), last.done
        used = time.process_time() - cpu
        rate = Rate(last.total, last.seconds, used * last.total / max(last.total - done, 1))
    return rate, last


def _also_onnx(net: Net, model: ModelManifest, shape: tuple[int, int]) -> list[Net]:
    """Return the net in ONNX Runtime, where that is installed: F counts it, chosen or not."""
    try:
        return [in_onnxruntime(net, model, shape)]
    except ModelError:
        return []


def _name(net: Net) -> str:
    return f"{net.backend} {net.precision}"


def _forward(net: Net, model: ModelManifest, sample: Uint8Image, batch: int, workers: int) -> Rate:
    """Predict the same tiles again and again, on every worker, for a while."""
    predictor = Predictor(net, model, batch)
    tiles = np.ascontiguousarray(np.resize(sample, (batch, *sample.shape[1:])))
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
    plan: Pieces
    if model.segments:
        picture = Picture(grid)
        grid = picture.grid
        none = np.zeros(len(picture.bands), bool)
        most = len(grid) + 1
        plan = BandPlan(picture, none, piece_tiles=piece_tiles, ahead=2 * most, near=None)
    else:
        none = np.zeros(len(list(grid.blocks())), bool)
        plan = Plan(grid, none, piece_tiles=piece_tiles, near=None)
    with open_slide(job.slide.path, mpp=job.slide.mpp_xy) as slide:
        reader = TileReader(slide, grid, model)

        def work() -> None:
            while (piece := plan.take()) is not None:
                tiles = np.empty((piece.count, *reader.shape, 3), np.uint8)
                reader.read(np.arange(piece.tiles.start, piece.tiles.stop), tiles)

        seconds, cpu = _in_threads(work, workers)
    return Rate(len(grid), seconds, cpu)


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


def _median(values: Sequence[float]) -> float:
    return float(statistics.median(values))
