"""Training batches: cut, varied, scaled; ahead in threads where a device would wait for them.

The random numbers of a step come from the seed and the step's number alone. So a training that
goes on after a kill sees the very batches that it would have seen, however many threads cut them.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from napari_histomil.slides.threads import core_count
from napari_histomil.training.augment import augment, margin
from napari_histomil.training.config import TrainingConfig
from napari_histomil.training.fields import Field, Uint8
from napari_histomil.training.labels import NONE, UNLABELLED
from napari_histomil.training.sampling import Sampler, sampler
from napari_histomil.training.tasks import glass_channel, scale

MOST_THREADS = 12


def step_seed(seed: int, step: int, purpose: int) -> int:
    """Return the seed of what happens in a step: 63 bits."""
    words = np.random.SeedSequence([seed, step, purpose]).generate_state(1, np.uint64)
    return int(words[0] >> np.uint64(1))


def batches(
    config: TrainingConfig,
    fields: Sequence[Field],
    *,
    seed: int,
    first: int,
    device: str,
    threads: int | None = None,
) -> Generator[tuple[Tensor, Tensor], None, None]:
    """Yield the batch of every step from the step `first` on, on the device.

    Parameters
    ----------
    config, fields
        What is cut.
    seed
        Decides all that is random.
    first, device
        The first step, and where its batch goes.
    threads
        How many cut ahead; 0 for none, None for as many as serve the device.

    Yields
    ------
    images
        Scaled pixels, float32 [B, 3 or 4, T, T].
    labels
        Share of each class in each pixel, float32 [B, config.channels, T, T].
    """
    shares = {source.name: source.share for source in config.sources}
    source = sampler(fields, shares, config.sampling.balance)
    steps = range(first, config.schedule.steps)
    if threads is None:  # on the CPU the net needs all cores, and nothing would be won
        threads = 0 if device == "cpu" else max(min(core_count() - 1, MOST_THREADS), 1)
    if not threads:
        for step in steps:
            images, labels = draw_batch(config, source, seed, step)
            yield images.to(device), labels.to(device)
        return
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[tuple[Tensor, Tensor]]] = deque()
        try:
            for step in steps:
                waiting.append(pool.submit(draw_batch, config, source, seed, step))
                if len(waiting) > 2 * threads:
                    images, labels = waiting.popleft().result()
                    yield images.to(device), labels.to(device)
            while waiting:
                images, labels = waiting.popleft().result()
                yield images.to(device), labels.to(device)
        finally:
            for future in waiting:
                future.cancel()


def draw_batch(
    config: TrainingConfig, source: Sampler, seed: int, step: int
) -> tuple[Tensor, Tensor]:
    """Cut and vary the batch of a step, on the CPU; see `batches`."""
    size_px = config.grid.tile_px
    side = math.ceil(size_px * margin(config.augmentation))
    places = np.random.default_rng(step_seed(seed, step, 0))
    random = torch.Generator().manual_seed(step_seed(seed, step, 1))
    cuts = [source.cut(side, places) for _ in range(config.schedule.batch)]
    images = to_unit(np.stack([image for image, _ in cuts]))
    labels = to_shares(config, np.stack([index for _, index in cuts]))
    images, labels = augment(
        images, labels, size_px, config.augmentation, random, glass_channel(config)
    )
    return scale(config, images), labels


def to_unit(images: Uint8) -> Tensor:
    """Return uint8 [B, h, w, C] as float32 [B, C, h, w] of 0 to 1."""
    return torch.from_numpy(images).permute(0, 3, 1, 2) / 255


def to_shares(config: TrainingConfig, labels: Uint8) -> Tensor:
    """Return labels uint8 [B, h, w] as float32 [B, channels, h, w]; all 0 where unlabelled."""
    index = torch.from_numpy(labels).long()
    known = index != UNLABELLED
    index = torch.where(index == NONE, config.channels - 1, index)
    hot = functional.one_hot(torch.where(known, index, 0), config.channels) * known[..., None]
    return hot.permute(0, 3, 1, 2).float()
