"""Train a patch classifier: score the recipe on groups left out, fit on all, write a model.

The scores are of nets that were fitted like the finished one but have not seen the groups they
are asked about. The finished net has seen all groups; it is scored on synthetic slides of other
seeds only.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from napari_histomil.errors import TrainingError
from napari_histomil.training.card import write_model
from napari_histomil.training.config import TrainingConfig
from napari_histomil.training.data import (
    make_synthetic,
    read_sources,
    refuse_leakage,
    split_groups,
)
from napari_histomil.training.fields import UNLABELLED, Field
from napari_histomil.training.loop import TrainingProgress, fit, scale
from napari_histomil.training.scores import Answers, fit_temperature, join, summarise

ASK_BATCH = 32

SAME_SLIDES = "same slide or slides, spatially separate: not an estimate of generalisation"
"""What scores on other groups of one data set are, and are not."""


@dataclass(frozen=True, slots=True)
class Validated:
    """What the cross-validation gave."""

    scores: dict[str, Any]
    temperature: float


Steps = Generator[TrainingProgress, None, Any]


def train_patch_model(
    config: TrainingConfig,
    data: Path,
    out: Path,
    *,
    seed: int = 0,
    device: str = "cpu",
    cancel: threading.Event | None = None,
) -> Generator[TrainingProgress, None, Path]:
    """Train a patch classifier and write its model folder.

    Parameters
    ----------
    config
        The training.
    data
        Folder that the sources' paths are relative to.
    out
        The model folder; it is made if it is missing, its model files are replaced.
    seed
        Of the finished net.
    device
        ``cpu``, ``cuda`` or ``mps``.
    cancel
        Set it to stop before the next step; nothing is written then.

    Yields
    ------
    TrainingProgress

    Returns
    -------
    Path
        The model folder (the generator's value).

    Raises
    ------
    TrainingError
        If the data cannot be used or the training was cancelled.
    """
    fields = read_sources(config, data)
    scored = {source.name for source in config.sources if source.evaluate}
    validated = Validated({}, 1.0)
    if scored:
        validated = yield from cross_validate(
            config,
            [f for f in fields if f.source not in scored],
            [f for f in fields if f.source in scored],
            device=device,
            cancel=cancel,
        )
    net = yield from fit(
        config, fields, seed=seed, stage="the finished net", device=device, cancel=cancel
    )
    scores = dict(validated.scores)
    if config.validation.synthetic_seeds:
        scores["synthetic"] = score_synthetic(config, net)
    return write_model(
        out, config, net, temperature=validated.temperature, scores=scores, seed=seed
    )


def cross_validate(
    config: TrainingConfig,
    always: Sequence[Field],
    scored: Sequence[Field],
    *,
    device: str = "cpu",
    cancel: threading.Event | None = None,
) -> Generator[TrainingProgress, None, Validated]:
    """Leave groups out in turn, and score the answers for them together.

    Parameters
    ----------
    config
        The training.
    always
        Fields that every fold learns from.
    scored
        Fields whose groups are left out in turn.
    """
    validation = config.validation
    parts = split_groups((f.group for f in scored), validation.folds)
    runs = []
    for seed in validation.seeds:
        answers = []
        for number, part in enumerate(parts):
            train = [*always, *(f for f in scored if f.group not in part)]
            held_out = [f for f in scored if f.group in part]
            refuse_leakage(train, held_out)
            net = yield from fit(
                config,
                train,
                seed=1000 * (seed + 1) + number,
                stage=f"seed {seed}, fold {number + 1} of {len(parts)}",
                device=device,
                cancel=cancel,
            )
            answers += [ask(config, net, f) for f in held_out]
        runs.append(join(answers))
    return judge(config, runs, parts)


def judge(
    config: TrainingConfig, runs: Sequence[Answers], parts: Sequence[frozenset[str]]
) -> Validated:
    """Score the answers for groups left out.

    Parameters
    ----------
    config
        The training.
    runs
        Answers to all cells, one for each seed, in the same order.
    parts
        Groups of each fold.
    """
    validation = config.validation
    rounds, seeds = validation.bootstraps, list(validation.seeds)
    unmixed = [run.unmixed(validation.unmixed) for run in runs]
    scores: dict[str, Any] = {
        "what": SAME_SLIDES,
        "method": (
            f"{len(parts)}-fold cross-validation over groups, seeds {seeds}; one net answers, "
            f"nothing is averaged; answers of all folds are scored together; 95 % intervals by "
            f"bootstrap over groups ({rounds} rounds)"
        ),
        "unmixed": summarise(unmixed, rounds=rounds),
        "all": summarise(runs, rounds=rounds),
        "folds": [sorted(part) for part in parts],
        "fields": {
            name: summarise([run.where(run.field == name) for run in unmixed], rounds=0)["auroc"]
            for name in np.unique(unmixed[0].field).tolist()
        },
    }
    if len(runs) > 1:
        together = replace(runs[0], logit=np.mean([run.logit for run in runs], axis=0))
        scores["unmixed_ensemble"] = summarise(
            [together.unmixed(validation.unmixed)], rounds=rounds
        )
    return Validated(scores, fit_temperature(join(runs)))


@torch.inference_mode()
def ask(config: TrainingConfig, net: nn.Module, field: Field) -> Answers:
    """Return the net's answer for every whole cell of a field, tile by tile as a run would.

    Cells of which less than half is labelled are left out.
    """
    grid = config.grid
    names = [c.name for c in config.classes]
    positive = names.index(config.positive_class)
    edge = (grid.tile_px - grid.stride_px) // 2
    width, height = field.size_px
    corners = [
        (x, y)
        for y in range(0, height - grid.stride_px + 1, grid.stride_px)
        for x in range(0, width - grid.stride_px + 1, grid.stride_px)
    ]
    shares, logits = [], []
    for start in range(0, len(corners), ASK_BATCH):
        tiles = []
        for x, y in corners[start : start + ASK_BATCH]:
            image, labels = field.cut((x - edge, y - edge), grid.tile_px)
            cell = labels[edge : edge + grid.stride_px, edge : edge + grid.stride_px]
            known = cell != UNLABELLED
            if known.mean() >= 0.5:
                tiles.append(image)
                shares.append(float((cell[known] == positive).mean()))
        if tiles:
            pixels = torch.from_numpy(np.stack(tiles)).permute(0, 3, 1, 2) / 255
            answer = net(scale(config, pixels)).double()
            others = [i for i in range(len(names)) if i != positive]
            odds = answer[:, positive] - answer[:, others].logsumexp(dim=1)
            logits += odds.tolist()
    n = len(shares)
    return Answers(
        np.array([field.name] * n, dtype=np.str_),
        np.array([field.group] * n, dtype=np.str_),
        np.array(shares),
        np.array(logits),
    )


def score_synthetic(config: TrainingConfig, net: nn.Module) -> dict[str, Any]:
    """Score a finished net on synthetic slides that it was not trained on; tissue only.

    Raises
    ------
    TrainingError
        If the training has no synthetic source to take the size from.
    """
    sources = [s for s in config.sources if s.kind == "synthetic"]
    if not sources:
        raise TrainingError(
            "validation.synthetic_seeds needs a source of kind 'synthetic' in the training."
        )
    slides = [
        make_synthetic(
            seed, sources[0].name, config.grid.mpp, sources[0].size_px, only_tissue=True
        )
        for seed in config.validation.synthetic_seeds
    ]
    answers = join([ask(config, net, slide) for slide in slides])
    return {
        "what": (
            "the finished net on procedural slides of seeds "
            f"{list(config.validation.synthetic_seeds)}, tissue only: drawings, not patients"
        ),
        "unmixed": summarise(
            [answers.unmixed(config.validation.unmixed)], rounds=config.validation.bootstraps
        ),
        "all": summarise([answers], rounds=config.validation.bootstraps),
    }
