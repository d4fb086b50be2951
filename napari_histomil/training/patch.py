"""Ask a patch classifier about fields, and score the answers for groups left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from napari_histomil.errors import TrainingError
from napari_histomil.training.config import TrainingConfig
from napari_histomil.training.data import make_synthetic
from napari_histomil.training.fields import UNLABELLED, Field
from napari_histomil.training.loop import scale
from napari_histomil.training.scores import Answers, fit_temperature, join, summarise

ASK_BATCH = 32

SAME_SLIDES = "same slide or slides, spatially separate: not an estimate of generalisation"
"""What scores on other groups of one data set are, and are not."""


@dataclass(frozen=True, slots=True)
class Validated:
    """What the cross-validation gave."""

    scores: dict[str, Any]
    temperature: float


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
