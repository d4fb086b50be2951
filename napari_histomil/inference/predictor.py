"""Tiles in, scores out: a prepared net with its precision, its batch size, and care for memory.

A run's first session settles precision and batch size, later ones keep them. On a CPU the batch
size follows from the net's arithmetic, not from a clock, and a batch always holds the same tiles:
scores repeat to the last bit, in bfloat16 too. On other devices the batch size is measured.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_histomil.errors import RunError
from napari_histomil.inference.backends import Net, Precision, in_bf16
from napari_histomil.inference.devices import has_fast_bf16, is_out_of_memory
from napari_histomil.inference.tasks import TASKS, WAYS, difference, laid
from napari_histomil.manifest import ModelManifest
from napari_histomil.slides.slide import Uint8Image
from napari_histomil.tiling import BLOCK_TILES

BF16_TOLERANCE = 0.01
"""Largest difference of a probability between bfloat16 and float32 that is accepted."""

FEATURES_TOLERANCE = 0.02
"""The same of a vector of features, divided by its length: a cosine of 0.9998."""

CPU_BATCH = 16
CPU_BATCH_FLOPS = 1e10
"""A batch takes one core a fifth of a second: a cancelled run stops, and a run ends, without long
waits for the slowest; larger ones are no quicker, as their activations leave the caches."""

DEVICE_BATCH_MAX = 4096

SEGMENT_BATCH_PX = 2**23
"""Pixels of a batch on other devices: each of them has an answer, which has to be kept."""

_GAIN = 1.05
"""A doubled batch must be this much faster to be worth its memory."""


class Predictor:
    """Predicts batches of at most `batch` tiles, halved for good where memory runs out.

    `scores` may be called from several threads. With `tta`, an answer is the mean over the eight
    ways in which a tile can lie.
    """

    def __init__(self, net: Net, model: ModelManifest, batch: int, *, tta: bool = False) -> None:
        self.net = net
        self.model = model
        self.batch = batch
        self._ways = WAYS if tta else WAYS[:1]
        self._mutex = threading.Lock()

    def scores(self, tiles: Uint8Image | Tensor) -> NDArray[np.float32]:
        """Return float32 [n, C] (or [n, C, i, i]: `tasks.py`) for uint8 [n, H, W, 3].

        Raises
        ------
        RunError
            If the memory does not even suffice for one tile.
        """
        return self.submit(tiles)()

    def submit(self, tiles: Uint8Image | Tensor) -> Callable[[], NDArray[np.float32]]:
        """Begin to predict; what is returned waits for the scores and returns them.

        So the next batch can be on its way to the device while this one is computed.
        """
        parts: list[Tensor] = []
        start, count = 0, len(tiles)
        while start < count:
            batch = self.batch
            part = torch.as_tensor(tiles[start : start + batch])
            try:
                device_part = part.to(self.net.device, non_blocking=True)
                parts.append(self._answer(device_part))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                self._halve(batch, error)
                continue
            start += batch

        def wait() -> NDArray[np.float32]:
            return np.concatenate([part.cpu().numpy() for part in parts])

        return wait

    def _answer(self, tiles: Tensor) -> Tensor:
        answers = [
            TASKS[self.model.task](self.net.logits(laid(tiles, way).contiguous()), self.model)
            for way in self._ways
        ]
        return answers[0] if len(answers) == 1 else torch.stack(answers).mean(dim=0)

    def _halve(self, failed: int, error: BaseException) -> None:
        with self._mutex:
            if self.batch < failed:
                return  # another thread was first
            if failed == 1:
                raise RunError(
                    f"The memory does not suffice for one tile with {self.model.name} on "
                    f"{self.net.device}: close other programs, or choose another device."
                ) from error
            self.batch = failed // 2
        if self.net.device.type == "cuda":
            torch.cuda.empty_cache()


@dataclass(frozen=True, slots=True)
class Settings:
    """What a session settled: kept in its record, and used again by the next."""

    precision: Precision
    batch: int
    bf16_difference: float | None
    """Largest difference of an answer that was seen; None where bf16 was not tried."""


def settle(
    net: Net, model: ModelManifest, sample: Uint8Image, *, batch: int | None, ways: int = 1
) -> tuple[Net, Settings]:
    """Choose precision and batch size for a net.

    Parameters
    ----------
    net
        In float32.
    model
        What it is.
    sample
        uint8 [n, H, W, 3], tiles of the job; none where none could be read.
    batch
        A batch size that a person or an earlier session chose; None to find it.
    ways
        How often each tile is asked about.
    """
    seen = None
    precision: Precision = "fp32"
    graph = net.backend != "eager"  # may hold constants in float32
    if has_fast_bf16(net.device) and len(sample) and not graph:
        low = in_bf16(net)
        exact, rounded = (Predictor(n, model, CPU_BATCH).scores(sample) for n in (net, low))
        largest = difference(exact, rounded, model.task)
        seen = largest if math.isfinite(largest) else None
        if largest <= tolerance(model):
            net, precision = low, "bf16"
    if batch is None:
        height, width = sample.shape[1:3]
        fits = max(SEGMENT_BATCH_PX // (height * width), 1)
        most = fits if model.task == "segment" else DEVICE_BATCH_MAX
        on_cpu = net.device.type == "cpu"
        batch = cpu_batch(net, ways) if on_cpu else find_batch(net, (height, width), most)
    return net, Settings(precision, batch, seen)


def tolerance(model: ModelManifest) -> float:
    """Return by how much answers may differ, as `tasks.difference` counts it."""
    return FEATURES_TOLERANCE if model.task == "embed" else BF16_TOLERANCE


def cpu_batch(net: Net, ways: int = 1) -> int:
    """Return a power of two from 1 to `CPU_BATCH`, so small that it is quickly computed."""
    batch = CPU_BATCH
    while batch > 1 and batch * net.flops * ways > CPU_BATCH_FLOPS:
        batch //= 2
    return batch


def find_batch(net: Net, shape: tuple[int, int], most: int = DEVICE_BATCH_MAX) -> int:
    """Double the batch while that makes tiles faster and fits the memory.

    Parameters
    ----------
    net
        On a device other than the CPU.
    shape
        (height, width) of a tile.
    most
        Largest batch that is tried.
    """
    batch = min(BLOCK_TILES, most)
    best, best_speed = batch, 0.0
    while batch <= most:
        tiles = torch.randint(0, 256, (batch, *shape, 3), dtype=torch.uint8)
        try:
            tiles = tiles.to(net.device)
            net.logits(tiles).cpu()  # warm up: kernels are chosen for every new shape
            start = time.perf_counter()
            for _ in range(3):
                answer = net.logits(tiles)
            answer.cpu()
            speed = 3 * batch / (time.perf_counter() - start)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return max(best // 2, 1)  # a run needs room beside the net: half of what just fits
        if speed < best_speed * _GAIN:
            return best
        best, best_speed = batch, speed
        batch *= 2
    return best
