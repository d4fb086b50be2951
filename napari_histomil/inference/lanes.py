"""How pieces become scores: on the CPU every worker does all of it, else readers feed one device.

On a CPU, workers with one thread of arithmetic each that read, prepare and predict a piece from
end to end keep all cores busy without handing pixels over. A GPU is fed by threads that read ahead
into pinned memory; one thread joins pieces into batches and keeps two of them on their way.

Both give way to a person who moves about the slide (`courtesy.py`).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from napari_histomil.errors import TileError
from napari_histomil.inference.courtesy import behind_the_window
from napari_histomil.inference.plan import Piece
from napari_histomil.inference.predictor import Predictor
from napari_histomil.inference.prefetch import Crew
from napari_histomil.inference.tiles import TileReader
from napari_histomil.slides.threads import core_count
from napari_histomil.tiling import BLOCK_TILES

MAX_WORKERS = 32
DEVICE_READERS = 16
ANSWERS = 16
"""So many of each worker of a CPU may wait: longer than it takes to write what is whole."""
RESTS = 12
"""Places in a net, spread over its layers, at which a thread of a CPU gives way."""


class Pieces(Protocol):
    """What hands out the work; asked from several threads."""

    def take(self) -> Piece | None:
        """Return the next piece, or None when there is none left."""


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """The scores of a piece."""

    piece: Piece
    scores: NDArray[np.float32]
    """[n, C], or [n, C, i, i] of a model that segments; NaN where a tile failed."""
    failed: dict[int, TileError]
    """Index of a tile in the grid -> why."""


def worker_count(device: torch.device) -> int:
    """Return how many threads a run on this device has."""
    return min(core_count(), MAX_WORKERS if device.type == "cpu" else DEVICE_READERS)


@contextmanager
def one_thread_each() -> Iterator[Callable[[], None]]:
    """Give what a worker calls first, so that its arithmetic stays on one core.

    Several workers with one thread each beat one with several threads. On leaving, the number of
    threads is again what it was for the rest of the program.
    """
    threads = torch.get_num_threads()
    try:
        yield lambda: torch.set_num_threads(1)
    finally:
        torch.set_num_threads(threads)


@contextmanager
def cpu_lane(
    plan: Pieces, reader: TileReader, predictor: Predictor, *, workers: int | None = None
) -> Iterator[Crew[Answer]]:
    """Start workers that read and predict pieces; on leaving they have ended."""
    count = workers or worker_count(predictor.net.device)
    most = min(predictor.batch, BLOCK_TILES)  # of a piece; the predictor may halve its own later

    own = _Own()

    def work(crew: Crew[Answer]) -> None:
        prepare()
        own.crew = crew
        buffer = np.empty((most, *reader.shape, 3), np.uint8)
        with behind_the_window():
            while (piece := plan.take()) is not None:
                crew.rest()
                tiles = buffer[: piece.count]
                indices = np.arange(piece.tiles.start, piece.tiles.stop)
                failed = reader.read(indices, tiles, crew.rest)
                crew.rest()
                crew.put(_answer(piece, predictor.scores(tiles), failed, reader))

    with (
        one_thread_each() as prepare,
        _resting(predictor.net.module, own),
        _closing(Crew(count, work, limit=ANSWERS * count, name="histomil worker")) as crew,
    ):
        yield crew


@contextmanager
def device_lane(
    plan: Pieces, reader: TileReader, predictor: Predictor, *, workers: int | None = None
) -> Iterator[Crew[Answer]]:
    """Start readers and one thread that feeds the device; on leaving they have ended."""
    count = workers or worker_count(predictor.net.device)
    pinned = predictor.net.device.type == "cuda"
    ahead = count + 2 * -(-predictor.batch // 64)

    def read(crew: Crew[_Read]) -> None:
        with behind_the_window():
            while (piece := plan.take()) is not None:
                crew.rest()
                shape = (piece.count, *reader.shape, 3)
                tiles = torch.empty(shape, dtype=torch.uint8, pin_memory=pinned)
                indices = np.arange(piece.tiles.start, piece.tiles.stop)
                crew.put(_Read(piece, tiles, reader.read(indices, tiles.numpy(), crew.rest)))

    with _closing(Crew(count, read, limit=ahead, name="histomil reader")) as readers:

        def feed(crew: Crew[Answer]) -> None:
            waiting: deque[tuple[list[_Read], Callable[[], NDArray[np.float32]]]] = deque()

            def finish() -> None:
                batch, wait = waiting.popleft()
                _hand_over(crew, batch, wait(), reader)

            for batch in _batches(crew, readers, predictor):
                waiting.append((batch, predictor.submit(_join(batch, predictor))))
                if len(waiting) > 1:
                    finish()
            while waiting:
                finish()

        with _closing(Crew(1, feed, limit=ahead, name="histomil device")) as feeder:
            yield feeder


@dataclass(frozen=True, slots=True, eq=False)
class _Read:
    piece: Piece
    tiles: torch.Tensor
    failed: dict[int, TileError]


def _batches(
    crew: Crew[Answer], readers: Crew[_Read], predictor: Predictor
) -> Iterator[list[_Read]]:
    """Yield pieces that together fill a batch; the last ones may hold fewer tiles."""
    batch: list[_Read] = []
    while True:
        crew.check()
        try:
            read = readers.take(timeout=0.2)
        except TimeoutError:
            continue
        full = sum(r.piece.count for r in batch) + (read.piece.count if read else 0)
        if batch and (read is None or full > predictor.batch):
            yield batch
            batch = []
        if read is None:
            return
        batch.append(read)


def _join(batch: list[_Read], predictor: Predictor) -> torch.Tensor:
    """Bring the pieces to the device, one after the other into one tensor."""
    count = sum(read.piece.count for read in batch)
    shape = (count, *batch[0].tiles.shape[1:])
    joined = torch.empty(shape, dtype=torch.uint8, device=predictor.net.device)
    start = 0
    for read in batch:
        joined[start : start + read.piece.count].copy_(read.tiles, non_blocking=True)
        start += read.piece.count
    return joined


def _hand_over(
    crew: Crew[Answer], batch: list[_Read], scores: NDArray[np.float32], reader: TileReader
) -> None:
    start = 0
    for read in batch:
        part = scores[start : start + read.piece.count]
        crew.put(_answer(read.piece, part, read.failed, reader))
        start += read.piece.count


def _answer(
    piece: Piece,
    scores: NDArray[np.float32],
    failed: dict[int, TileError],
    reader: TileReader,
) -> Answer:
    """Blank the scores of failed tiles; a score that is no number is a failure too."""
    first = piece.tiles.start
    errors = {first + place: error for place, error in failed.items()}
    for place in np.flatnonzero(~np.isfinite(scores).reshape(len(scores), -1).all(axis=1)):
        tile = first + int(place)
        errors.setdefault(tile, reader.error(tile, "the model's answer is not a number"))
    scores = scores.copy()
    scores[[tile - first for tile in errors]] = np.nan
    return Answer(piece, scores, errors)


class _Own(threading.local):
    """The crew that a thread belongs to."""

    crew: Crew[Answer] | None = None


@contextmanager
def _resting(module: nn.Module, own: _Own) -> Iterator[None]:
    """Let a thread that computes give way between layers too: a batch may take a second."""
    if isinstance(module, torch.jit.ScriptModule):  # a graph runs from end to end
        yield
        return
    layers = [layer for layer in module.modules() if not list(layer.children())]
    step = max(-(-len(layers) // RESTS), 1)  # each costs microseconds: not before every layer

    def rest(layer: nn.Module, arguments: object) -> None:
        del layer, arguments
        if own.crew is not None:
            own.crew.rest()

    hooks = [layer.register_forward_pre_hook(rest) for layer in layers[step::step]]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _closing(crew: Crew) -> Iterator[Crew]:  # type: ignore[type-arg]
    try:
        yield crew
    finally:
        crew.close()
