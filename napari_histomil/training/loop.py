"""Fit one net: a generator that can be watched, stopped after every step, and killed.

One loop serves classifiers and segmentations; what differs is in `tasks.py`.
"""

from __future__ import annotations

import copy
import math
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from napari_histomil.errors import TrainingError
from napari_histomil.files import make_folder
from napari_histomil.training import checkpoint
from napari_histomil.training.batches import batches, step_seed
from napari_histomil.training.checkpoint import Fitting
from napari_histomil.training.config import TrainingConfig
from napari_histomil.training.curves import curves
from napari_histomil.training.fields import Field
from napari_histomil.training.looks import Looks, better
from napari_histomil.training.repeatable import seeded, settle_threads
from napari_histomil.training.start import initial_net
from napari_histomil.training.tasks import loss_of


@dataclass(frozen=True, slots=True)
class TrainingProgress:
    """One more step is done."""

    stage: str
    """What is being fitted, in words: ``fold 2 of 5``, ``final model``."""
    step: int
    steps: int
    loss: float
    """Mean of the last steps."""
    seconds: float
    """Since the stage began, without breaks."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """Of the last look at the validation: ``loss``, ``auroc``, ``dice``, ``kappa``."""
    best: float | None = None
    """The chosen metric at its best look."""
    best_step: int = 0
    learning_rate: float = math.nan

    @property
    def seconds_left(self) -> float:
        """Estimated time to the end of the stage."""
        return self.seconds / max(self.step, 1) * (self.steps - self.step)


class TrainingCancelled(TrainingError):
    """The person stopped the training; no model was written."""


def fit(
    config: TrainingConfig,
    fields: Sequence[Field],
    *,
    seed: int,
    stage: str = "",
    device: str = "cpu",
    cancel: threading.Event | None = None,
    validation: Sequence[Field] = (),
    folder: Path | None = None,
) -> Generator[TrainingProgress, None, nn.Module]:
    """Fit the configured net to the fields.

    The same seed on the same machine gives the same net, also if the fit was stopped or killed
    in between.

    Parameters
    ----------
    config
        The training.
    fields
        What to learn from.
    seed
        Decides the first weights, the order and the variation of the tiles.
    stage
        Put into the progress.
    device
        ``cpu``, ``cuda`` or ``mps``.
    cancel
        Set it to stop before the next step.
    validation
        What the best weights are chosen on; without it the last ones are taken.
    folder
        Where checkpoints and curves lie; a fit that is there goes on. None for neither.

    Yields
    ------
    TrainingProgress
        After every step.

    Returns
    -------
    nn.Module
        The averaged net, on the CPU, in evaluation mode (the generator's value).

    Raises
    ------
    TrainingCancelled
        If `cancel` was set.
    TrainingError
        If the loss is no number any more, or a checkpoint is damaged.
    """
    fitting = _begin(config, seed, device)
    if folder is not None:
        make_folder(folder)
        if (folder / checkpoint.FILE).exists():
            checkpoint.load(fitting, folder / checkpoint.FILE)
    if not fitting.over:
        yield from _steps(config, fields, fitting, seed, stage, device, cancel, validation, folder)
    net = fitting.kept
    if fitting.best:
        net.load_state_dict(fitting.best)
    return net.cpu().eval()


def _begin(config: TrainingConfig, seed: int, device: str) -> Fitting:
    net = initial_net(config, seed).to(device).to(memory_format=torch.channels_last)
    schedule = config.schedule
    optimiser = torch.optim.AdamW(decayed(net, schedule.weight_decay), lr=schedule.learning_rate)
    return Fitting(net, copy.deepcopy(net), optimiser)


def _steps(
    config: TrainingConfig,
    fields: Sequence[Field],
    fitting: Fitting,
    seed: int,
    stage: str,
    device: str,
    cancel: threading.Event | None,
    validation: Sequence[Field],
    folder: Path | None,
) -> Generator[TrainingProgress, None, None]:
    """Go on to the end: the last step, or as many looks without anything better."""
    schedule = config.schedule
    looks = Looks(config, validation) if validation else None
    every = config.validation.every or max(schedule.steps // 10, 1)
    before, started = fitting.seconds, time.monotonic()
    ahead = batches(config, fields, seed=seed, first=fitting.step, device=device)
    with (
        closing(ahead),
        curves(folder, stage, fitting.step, config.tracking) as sinks,
    ):
        for step in range(fitting.step, schedule.steps):
            if cancel is not None and cancel.is_set():
                if folder is not None:
                    checkpoint.save(fitting, folder / checkpoint.FILE)
                raise TrainingCancelled(f"The training was stopped in {stage or 'its course'}.")
            settle_threads()
            rate = learning_rate(schedule, step)
            loss = _step(config, fitting, next(ahead), rate, step_seed(seed, step, 2))
            fitting.step = step + 1
            fitting.loss = loss if step == 0 else 0.95 * fitting.loss + 0.05 * loss
            fitting.seconds = before + time.monotonic() - started
            last = fitting.step == schedule.steps
            row = {"step": fitting.step, "loss": loss, "learning_rate": rate}
            if looks is not None and (fitting.step % every == 0 or last):
                scores = looks.look(fitting.kept, device)
                fitting.looked(scores, better(config, scores), fitting.kept)
                row |= {f"validation_{name}": value for name, value in fitting.scores.items()}
                patience = config.validation.patience
                last = last or bool(patience and fitting.waited >= patience)
            for sink in sinks:
                sink.add(row | {"seconds": fitting.seconds})
            fitting.over = last
            if folder is not None and (last or fitting.step % schedule.checkpoint_every == 0):
                for sink in sinks:
                    sink.flush()
                checkpoint.save(fitting, folder / checkpoint.FILE)
            yield _progress(config, fitting, stage, rate)
            if last:
                return


def _step(
    config: TrainingConfig,
    fitting: Fitting,
    batch: tuple[Tensor, Tensor],
    rate: float,
    seed: int,
) -> float:
    """Learn from one batch and return its loss."""
    for group in fitting.optimiser.param_groups:
        group["lr"] = rate
    net, (images, labels) = fitting.net.train(), batch
    with seeded(seed, str(images.device)):  # dropout
        loss = loss_of(config, net, images, labels)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainingError(
                f"The loss became {value} in step {fitting.step + 1}: lower "
                f"schedule.learning_rate."
            )
        fitting.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(net.parameters(), 1.0)
    fitting.optimiser.step()
    step = fitting.step
    move_average(fitting.kept, net, min(config.schedule.average, (1 + step) / (10 + step)))
    return value


def _progress(
    config: TrainingConfig, fitting: Fitting, stage: str, rate: float
) -> TrainingProgress:
    best = None
    if fitting.best_step:
        best = (
            abs(fitting.best_score) if config.validation.metric == "loss" else fitting.best_score
        )
    return TrainingProgress(
        stage,
        fitting.step,
        config.schedule.steps,
        fitting.loss,
        fitting.seconds,
        dict(fitting.scores),
        best,
        fitting.best_step,
        rate,
    )


class Annealed(Protocol):
    """What decides the learning rates of a schedule, whatever is learnt."""

    @property
    def steps(self) -> int:
        """All of them."""

    @property
    def learning_rate(self) -> float:
        """The highest."""

    @property
    def warm_up(self) -> int:
        """Steps until then."""


def learning_rate(schedule: Annealed, step: int) -> float:
    """Return the rate of a step: linear warm-up times a half cosine to 0."""
    warm = min(1.0, (step + 1) / max(schedule.warm_up, 1))
    return schedule.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * step / schedule.steps))


def decayed(net: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Return an optimiser's groups: weights decay, biases and norms do not.

    What has no gradient is left out.
    """
    learning = [p for p in net.parameters() if p.requires_grad]
    return [
        {"params": [p for p in learning if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in learning if p.ndim <= 1], "weight_decay": 0.0},
    ]


@torch.no_grad()
def move_average(kept: nn.Module, net: nn.Module, decay: float) -> None:
    """Move the kept weights and statistics a little towards the net's."""
    for mine, theirs in zip(kept.state_dict().values(), net.state_dict().values(), strict=True):
        if mine.dtype.is_floating_point:
            mine.lerp_(theirs, 1 - decay)
        else:
            mine.copy_(theirs)
