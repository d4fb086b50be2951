"""The loop of all four methods: a generator that can be watched, stopped, killed and gone on with.

What happens in a step depends on the seed and the step's number alone, so a checkpoint need not
hold the state of any random numbers, and a resumed training ends with the same bits as a straight
one (on a CPU, with as many threads).
"""

from __future__ import annotations

import hashlib
import json
import math
import threading
import time
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from torch import Tensor, nn

from napari_histomil.errors import TrainingError
from napari_histomil.slides.threads import core_count
from napari_histomil.training.loop import (
    TrainingCancelled,
    TrainingProgress,
    decayed,
    learning_rate,
)
from napari_histomil.training.repeatable import seeded, settle_threads
from napari_histomil.training.selfsupervised.byol import Byol
from napari_histomil.training.selfsupervised.checkpoint import load_checkpoint, save_checkpoint
from napari_histomil.training.selfsupervised.config import PretrainConfig
from napari_histomil.training.selfsupervised.dino import Dino
from napari_histomil.training.selfsupervised.method import Method, spread
from napari_histomil.training.selfsupervised.mocov3 import MocoV3
from napari_histomil.training.selfsupervised.simclr import Simclr
from napari_histomil.training.selfsupervised.tiles import Pool
from napari_histomil.training.selfsupervised.views import make_views, square_px
from napari_histomil.training.tasks import in_bf16

COLLAPSED = 0.05
"""A spread below this says that all tiles get nearly the same embedding."""
RECENT = 20
"""Steps that shown numbers are the mean of."""
READERS = 8
"""Threads that read tiles, at most."""
CLIP = 1.0
"""Longer gradients are shortened to this."""


@dataclass(frozen=True, slots=True)
class PretrainProgress(TrainingProgress):
    """One more step is done."""

    spread: float = math.nan
    """Of the embeddings, mean of the last steps; see `method.spread`."""
    note: str = ""
    """A sentence for the person, where there is something to say."""


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """One step, for the learning curve."""

    step: int
    loss: float
    spread: float
    learning_rate: float
    momentum: float | None


@dataclass(frozen=True, slots=True)
class Pretrained:
    """What a pretraining gave."""

    backbone: nn.Module
    """The student's (a teacher still lags behind after few steps): float32, on the CPU, in
    evaluation mode; [B, 3, h, w] -> [B, D]."""
    embedding_dim: int
    curve: tuple[CurvePoint, ...] = field(repr=False)

    @property
    def loss(self) -> float:
        """Mean of the last steps."""
        return float(np.mean([point.loss for point in self.curve[-RECENT:]]))

    @property
    def spread(self) -> float:
        """Of the embeddings, mean of the last steps."""
        return float(np.mean([point.spread for point in self.curve[-RECENT:]]))


def pretrain(
    config: PretrainConfig,
    pool: Pool,
    *,
    seed: int,
    device: str = "cpu",
    checkpoint: Path | None = None,
    cancel: threading.Event | None = None,
) -> Generator[PretrainProgress, None, Pretrained]:
    """Let the configured backbone learn from the pool without labels.

    Parameters
    ----------
    config
        The pretraining.
    pool
        What to learn from.
    seed
        Decides the first weights, the places and their views.
    device
        ``cpu``, ``cuda`` or ``mps``.
    checkpoint
        File to go on from if it is there, and to write every so many steps and on `cancel`.
    cancel
        Set it to stop before the next step.

    Yields
    ------
    PretrainProgress
        After every step.

    Returns
    -------
    Pretrained
        The backbone (the student's), and its curve (the generator's value).

    Raises
    ------
    TrainingCancelled
        If `cancel` was set.
    TrainingError
        If the backbone cannot be built, the loss is no number any more, or the checkpoint is
        damaged or of another pretraining.
    """
    config = replace(
        config, schedule=replace(config.schedule, bf16=in_bf16(config.schedule, device))
    )
    schedule = config.schedule
    with seeded(seed, device):
        method, width = build_method(config)
    method = method.to(device).to(memory_format=torch.channels_last).train()
    optimiser = torch.optim.AdamW(decayed(method, schedule.weight_decay))
    run = run_id(config, pool, seed, device)
    curve: list[CurvePoint] = []
    if checkpoint is not None and checkpoint.exists():
        facts = load_checkpoint(checkpoint, method, optimiser, run=run)
        curve = [CurvePoint(*point) for point in facts["curve"]]
    began, done_before, noted = time.monotonic(), len(curve), False

    def keep() -> None:
        if checkpoint is not None:
            points = [[p.step, p.loss, p.spread, p.learning_rate, p.momentum] for p in curve]
            save_checkpoint(checkpoint, method, optimiser, {"run": run, "curve": points})

    for step, squares in _read_ahead(config, pool, seed, done_before):
        if cancel is not None and cancel.is_set():
            keep()
            raise TrainingCancelled(f"The pretraining was stopped after {step} steps.")
        settle_threads()
        share = step / schedule.steps
        rate = learning_rate(schedule, step)
        for group in optimiser.param_groups:
            group["lr"] = rate
        random = torch.Generator().manual_seed(_mix(seed, step))
        views = make_views(squares.to(device), config, random)
        precision = torch.autocast(
            views[0].device.type, torch.bfloat16, enabled=bool(schedule.bf16)
        )
        with seeded(_mix(seed, step), device), precision:  # the seed is for dropped units
            loss, embeddings = method(views, share)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainingError(
                f"The loss became {value} in step {step + 1}: lower schedule.learning_rate."
            )
        optimiser.zero_grad()
        loss.backward()
        method.hold(share)
        nn.utils.clip_grad_norm_(method.parameters(), CLIP)
        optimiser.step()
        momentum = method.follow(share)
        curve.append(CurvePoint(step + 1, value, spread(embeddings), rate, momentum))
        if (step + 1) % schedule.checkpoint_every == 0 and step + 1 < schedule.steps:
            keep()
        recent = curve[-RECENT:]
        mean_spread = float(np.mean([point.spread for point in recent]))
        note = ""
        if mean_spread < COLLAPSED and step >= max(schedule.warm_up, RECENT) and not noted:
            note, noted = collapse_sentence(mean_spread), True
        taken = time.monotonic() - began
        yield PretrainProgress(
            stage=config.method,
            step=step + 1,
            steps=schedule.steps,
            loss=float(np.mean([point.loss for point in recent])),
            seconds=taken * (step + 1) / (step + 1 - done_before),
            spread=mean_spread,
            note=note,
        )
    return Pretrained(method.backbone.cpu().eval(), width, tuple(curve))


def collapse_sentence(value: float) -> str:
    """Say that the embeddings have collapsed, and what to do."""
    return (
        f"The embeddings have collapsed: all tiles get nearly the same one (spread {value:.3f} of "
        f"1). Lower schedule.learning_rate, take a larger batch, or vary the views more."
    )


def build_method(config: PretrainConfig) -> tuple[Method, int]:
    """Build the method with random weights; returns the width of its embeddings too.

    Raises
    ------
    TrainingError
        If timm has no such backbone, or it does not take these arguments or sizes of views.
    """
    name, size = config.backbone.name, config.grid.tile_px
    try:
        backbone: nn.Module = timm.create_model(
            name, **{**config.backbone.arguments, "pretrained": False, "num_classes": 0}
        )
        sides = {size, config.local_px} if config.local_views else {size}
        with torch.inference_mode():
            embeddings = [backbone.eval()(torch.zeros(1, 3, side, side)) for side in sorted(sides)]
    except (RuntimeError, TypeError, ValueError, KeyError, AssertionError) as error:
        hint = " (vision transformers need img_size, and dynamic_img_size for views of two sizes)"
        raise TrainingError(
            f"The backbone {name} cannot be built with {config.backbone.arguments} and views of "
            f"{size} px: {str(error).rstrip('.')}{hint}."
        ) from error
    width = embeddings[0].shape[-1]
    if embeddings[0].shape != (1, width):
        raise TrainingError(f"The backbone {name} gives no single embedding for a tile.")
    built: dict[str, Any] = {
        "simclr": lambda: Simclr(backbone, width, config.simclr),
        "byol": lambda: Byol(backbone, width, config.byol),
        "mocov3": lambda: MocoV3(backbone, width, config.mocov3),
        "dino": lambda: Dino(backbone, width, config.dino),
    }
    return built[config.method](), width


def run_id(config: PretrainConfig, pool: Pool, seed: int, device: str) -> str:
    """Return what names all that decides the result: settings, data, seed, device."""
    facts = {**asdict(config), "seed": seed, "device": device, "data": pool.fingerprint}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _read_ahead(
    config: PretrainConfig, pool: Pool, seed: int, first: int
) -> Iterator[tuple[int, Tensor]]:
    """Yield every step from `first` on with its squares; threads read those of the next one."""
    schedule, side = config.schedule, square_px(config)

    def draw(step: int, place: int) -> Any:
        return pool.draw(np.random.default_rng([seed, step, place]), side)

    with ThreadPoolExecutor(min(core_count(), READERS)) as readers:

        def ask(step: int) -> list[Future[Any]]:
            return [readers.submit(draw, step, place) for place in range(schedule.batch)]

        coming = ask(first) if first < schedule.steps else []
        try:
            for step in range(first, schedule.steps):
                now, coming = coming, ask(step + 1) if step + 1 < schedule.steps else []
                yield step, torch.from_numpy(np.stack([square.result() for square in now]))
        finally:
            readers.shutdown(wait=True, cancel_futures=True)


def _mix(seed: int, step: int) -> int:
    """Return one seed for a step."""
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> 1)
