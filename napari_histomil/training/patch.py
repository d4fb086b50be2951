"""Train a patch classifier: score the recipe on groups left out, fit on all, write a model.

The scores are of nets that were fitted like the finished one but have not seen the groups they
are asked about. The finished net has seen all groups; it is scored on synthetic slides of other
seeds only.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from napari_histomil.training.answers import ask, join
from napari_histomil.training.card import write_model
from napari_histomil.training.config import TrainingConfig
from napari_histomil.training.data import read_sources, refuse_leakage, split_groups
from napari_histomil.training.fields import Field
from napari_histomil.training.loop import TrainingProgress, fit
from napari_histomil.training.scores import Validated, judge, score_synthetic

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
