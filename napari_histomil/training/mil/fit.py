"""Fit one net to bags: a generator that can be watched, stopped after every step, and killed.

What is random in a step comes from the seed and the numbers of epoch and step alone, as in
`training/loop.py`, whose files and progress are shared.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_histomil.errors import TrainingError
from napari_histomil.files import make_folder
from napari_histomil.nets.mil import MILModel, build_mil
from napari_histomil.nets.mil.model import Criterion
from napari_histomil.training import checkpoint
from napari_histomil.training.batches import step_seed
from napari_histomil.training.checkpoint import Fitting
from napari_histomil.training.curves import curves
from napari_histomil.training.loop import (
    TrainingCancelled,
    TrainingProgress,
    decayed,
    learning_rate,
)
from napari_histomil.training.mil.bags import BagData
from napari_histomil.training.mil.config import Mhim, MilConfig, ScMil
from napari_histomil.training.mil.contrastive import ContrastiveBags
from napari_histomil.training.mil.mhim import MaskedMining
from napari_histomil.training.mil.scheme import Example, Scheme, Step, thinned
from napari_histomil.training.mil.scores import ask, look
from napari_histomil.training.mil.table import Case
from napari_histomil.training.repeatable import seeded, settle_threads


@dataclass(frozen=True, slots=True)
class Watched:
    """How a fit is watched and where it lies: nothing of it decides the result."""

    stage: str = ""
    device: str = "cpu"
    cancel: threading.Event | None = None
    folder: Path | None = None
    """Where checkpoints and curves lie; a fit that is there goes on. None for neither."""
    peek: Sequence[Case] = ()
    """Bags whose accuracy is put into the progress after each epoch, and used for nothing."""


@dataclass(frozen=True, slots=True)
class _Rates:
    steps: int
    learning_rate: float
    warm_up: int


def fit(
    config: MilConfig,
    data: BagData,
    train: Sequence[Case],
    validation: Sequence[Case] = (),
    *,
    seed: int,
    watched: Watched | None = None,
) -> Generator[TrainingProgress, None, MILModel]:
    """Fit the configured net to the bags of some cases.

    Parameters
    ----------
    config
        The training.
    data
        The bags.
    train
        What to learn from.
    validation
        What the best epoch is chosen on; without it the last one is taken.
    seed
        Decides the first weights, the order of the bags and all that is dropped.
    watched
        Stage, device, cancel, folder.

    Yields
    ------
    TrainingProgress
        After every step.

    Returns
    -------
    MILModel
        The net, on the CPU, in evaluation mode (the generator's value).

    Raises
    ------
    TrainingCancelled
        If `cancel` was set.
    TrainingError
        If the loss is no number any more, the validation does not allow the metric, or a
        checkpoint is damaged.
    """
    watched = watched or Watched()
    fitting = _begin(config, data, seed, watched.device)
    folder = watched.folder
    if folder is not None:
        make_folder(folder)
        if (folder / checkpoint.FILE).exists():
            checkpoint.load(fitting, folder / checkpoint.FILE)
    if not fitting.over:
        yield from _steps(config, data, train, validation, fitting, seed, watched)
    net = fitting.net
    if fitting.best:
        net.load_state_dict(fitting.best)
    assert isinstance(net, MILModel)
    return net.cpu().eval()


def new_net(config: MilConfig, dim: int, seed: int) -> MILModel:
    """Return the configured net with its first weights."""
    chosen = config.aggregator
    arguments = dict(chosen.arguments)
    if config.bags.clinical:
        arguments["clinical"] = len(config.bags.clinical)
    with seeded(seed, "cpu"):
        net = build_mil(chosen.name, dim, len(config.classes), **arguments)
        if chosen.first_weights == "glorot":
            for module in net.modules():
                if isinstance(module, nn.Linear):
                    nn.init.xavier_uniform_(module.weight)
                    if module.bias is not None:
                        nn.init.zeros_(module.bias)
    return net


def criterion_of(config: MilConfig, net: MILModel, train: Sequence[Case]) -> Criterion:
    """Return the loss of logits [C] against a class: cross-entropy, of each class with sigmoid."""
    classes, schedule = len(config.classes), config.schedule
    weight = None
    if schedule.imbalance == "weights":
        counts = np.bincount([c.label for c in train], minlength=classes)
        weight = torch.tensor(len(train) / (np.maximum(counts, 1) * classes), dtype=torch.float32)
        weight = weight.to(next(net.parameters()).device)
    smoothing = schedule.label_smoothing
    if net.activation == "sigmoid":

        def bits(logits: Tensor, target: Tensor) -> Tensor:
            wanted = F.one_hot(target, classes).to(logits) * (1 - smoothing)
            loss = F.binary_cross_entropy_with_logits(logits, wanted + smoothing / classes)
            return loss if weight is None else loss * weight[target]

        return bits

    def entropy(logits: Tensor, target: Tensor) -> Tensor:
        loss = F.cross_entropy(logits, target, label_smoothing=smoothing)
        return loss if weight is None else loss * weight[target]

    return entropy


def order(config: MilConfig, train: Sequence[Case], seed: int, epoch: int) -> list[int]:
    """Return which cases are learnt from in an epoch, in their order."""
    rng = np.random.default_rng(step_seed(seed, epoch, 0))
    if config.schedule.imbalance != "sampling":
        return [int(n) for n in rng.permutation(len(train))]
    labels = np.array([c.label for c in train])
    chance = 1.0 / np.bincount(labels)[labels]
    drawn = rng.choice(len(train), size=len(train), p=chance / chance.sum())
    return [int(n) for n in drawn]


def scheme_of(config: MilConfig, net: MILModel, seed: int) -> Scheme:
    """Return what is done with the bags of a step, as it begins."""
    with seeded(step_seed(seed, 0, 1), "cpu"):
        if isinstance(config.scheme, Mhim):
            return MaskedMining(config.scheme, net)
        if isinstance(config.scheme, ScMil):
            return ContrastiveBags(config.scheme, net)
    return Scheme()


def _begin(config: MilConfig, data: BagData, seed: int, device: str) -> Fitting:
    schedule = config.schedule
    net = new_net(config, data.dim, seed).to(device)
    if net.magnifications != data.magnifications:
        raise TrainingError(
            f"{config.aggregator.name} takes {net.magnifications} magnifications, and the bags "
            f"have {data.magnifications}: set aggregator.arguments.magnifications, or name others."
        )
    scheme = scheme_of(config, net, seed).to(device)
    groups: Any = decayed(nn.ModuleList([net, scheme]), schedule.weight_decay)
    fused = device == "cpu" or device.startswith("cuda")  # one kernel a step, not one a tensor
    optimiser: torch.optim.Optimizer
    if schedule.optimiser == "sgd":
        optimiser = torch.optim.SGD(
            groups, lr=schedule.learning_rate, momentum=0.9, nesterov=True, fused=fused
        )
    else:
        optimiser = torch.optim.AdamW(groups, lr=schedule.learning_rate, fused=fused)
    return Fitting(net, net, optimiser, scheme)


def _steps(
    config: MilConfig,
    data: BagData,
    train: Sequence[Case],
    validation: Sequence[Case],
    fitting: Fitting,
    seed: int,
    watched: Watched,
) -> Generator[TrainingProgress, None, None]:
    """Go on to the end: the last epoch, or as many looks without anything better."""
    schedule, folder, net = config.schedule, watched.folder, fitting.net
    assert isinstance(net, MILModel)
    each = math.ceil(len(train) / schedule.batch)
    rates = _Rates(schedule.epochs * each, schedule.learning_rate, schedule.warm_up)
    learn = partial(_step, config, data, fitting, net, criterion_of(config, net, train))
    before, started = fitting.seconds, time.monotonic()
    with curves(folder, watched.stage, fitting.step, config.tracking) as sinks:
        for step in range(fitting.step, rates.steps):
            if watched.cancel is not None and watched.cancel.is_set():
                if folder is not None:
                    checkpoint.save(fitting, folder / checkpoint.FILE)
                raise TrainingCancelled(
                    f"The training was stopped in {watched.stage or 'its course'}."
                )
            settle_threads()
            epoch, place = divmod(step, each)
            if place == 0 or step == fitting.step:
                sequence = order(config, train, seed, epoch)
                net.train()  # a look in between has set it to evaluation
            batch = sequence[place * schedule.batch : (place + 1) * schedule.batch]
            rate = learning_rate(rates, step) if schedule.annealed else schedule.learning_rate
            loss = learn(
                [train[n] for n in batch],
                rate,
                step / rates.steps,
                step_seed(seed, step, 2),
                watched.device,
            )
            fitting.step = step + 1
            fitting.loss = loss if step == 0 else 0.95 * fitting.loss + 0.05 * loss
            fitting.seconds = before + time.monotonic() - started
            last = fitting.step == rates.steps
            row = {"step": fitting.step, "loss": loss, "learning_rate": rate}
            if validation and place == each - 1:
                _choose(config, fitting, look(config, data, net, validation, watched.device))
                row |= {f"validation_{name}": value for name, value in fitting.scores.items()}
                patience = config.validation.patience
                last = last or bool(patience and fitting.waited >= patience)
            scores = dict(fitting.scores)
            if watched.peek and place == each - 1:
                answers = ask(data, net, watched.peek, device=watched.device)
                scores["peeked"] = float((answers.logits.argmax(1) == answers.truth).mean())
            for sink in sinks:
                sink.add(row | {"seconds": fitting.seconds})
            fitting.over = last
            if folder is not None and (last or fitting.step % schedule.checkpoint_every == 0):
                for sink in sinks:
                    sink.flush()
                checkpoint.save(fitting, folder / checkpoint.FILE)
            yield TrainingProgress(
                watched.stage,
                fitting.step,
                rates.steps,
                fitting.loss,
                fitting.seconds,
                scores,
                _best(config, fitting),
                fitting.best_step,
                rate,
            )
            if last:
                return


def _step(
    config: MilConfig,
    data: BagData,
    fitting: Fitting,
    net: MILModel,
    criterion: Criterion,
    cases: Sequence[Case],
    rate: float,
    progress: float,
    seed: int,
    device: str,
) -> float:
    """Learn from some bags and return their loss."""
    scheme = fitting.beside
    assert isinstance(scheme, Scheme)
    for group in fitting.optimiser.param_groups:
        group["lr"] = rate
    fitting.optimiser.zero_grad()
    total = 0.0
    with seeded(seed, device) as random:
        examples = (_example(config, data, case, random, device) for case in cases)
        step = Step(examples, len(cases), progress, random)
        for loss in scheme.losses(net, step, criterion):
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
    if not math.isfinite(total):
        raise TrainingError(
            f"The loss became {total} in step {fitting.step + 1}: lower schedule.learning_rate."
        )
    fitting.optimiser.step()
    scheme.stepped(net, fitting.step)
    return total


def _example(
    config: MilConfig, data: BagData, case: Case, random: torch.Generator, device: str
) -> Example:
    schedule, bag = config.schedule, data.read(case, device)
    if schedule.instance_dropout or schedule.most_instances:
        bag = thinned(bag, schedule.instance_dropout, schedule.most_instances, random)
    return Example(
        bag,
        torch.tensor(case.label, device=device),
        torch.tensor(case.clinical, device=device) if case.clinical else None,
    )


def _choose(config: MilConfig, fitting: Fitting, scores: dict[str, float]) -> None:
    """Keep the weights if they are the best so far; of equally good ones those of lower loss."""
    metric = config.validation.metric
    value = scores[metric]
    if math.isnan(value):
        raise TrainingError(
            f"validation.metric {metric!r} cannot be worked out: the validation holds too few "
            f"classes; keep more patients for it, or choose 'loss'."
        )
    # A few bags are soon all in the right order: what is surer of it is the better of the two.
    score = -value if metric == "loss" else value - 1e-6 * min(scores["loss"], 1e3)
    fitting.looked(scores, score, fitting.net)


def _best(config: MilConfig, fitting: Fitting) -> float | None:
    """Return the metric at its best look."""
    if not fitting.best_step:
        return None
    return -fitting.best_score if config.validation.metric == "loss" else fitting.best_score
