"""Train a model: score the recipe on groups left out, fit the finished net, write a model folder.

Scores of a cross-validation are of nets that were fitted like the finished one but have not seen
the groups they are asked about. Selection (the best weights, the temperature) uses validation
groups only; the test, if one is kept, is read once, by the finished net.

All that is not finished lies in ``<model folder>.training``: the split, curves, checkpoints. A
training that was stopped or killed goes on from there.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from napari_histomil.errors import OutputError
from napari_histomil.manifest import ModelManifest
from napari_histomil.training import curves
from napari_histomil.training.answers import AnyAnswers, ask, join
from napari_histomil.training.config import TrainingConfig
from napari_histomil.training.data import read_sources
from napari_histomil.training.fields import Field, SlideField
from napari_histomil.training.heatmap_fields import (
    describe_detector,
    find_detector,
    heatmap_fields,
    learnt_slides,
    refuse_seen,
)
from napari_histomil.training.loop import TrainingProgress, fit
from napari_histomil.training.model_folder import describe_data, write_model
from napari_histomil.training.scores import (
    Validated,
    cells_of,
    fit_temperature,
    judge,
    score,
    score_synthetic,
)
from napari_histomil.training.splits import Sides, hold_out, refuse_leakage, split_groups
from napari_histomil.training.start import first_encoder
from napari_histomil.training.tasks import in_bf16
from napari_histomil.training.working import (
    ABOUT_FILE,
    FINISHED,
    clear,
    open_folder,
    tidy,
    working_folder,
)

HEATMAPS = "heatmaps"
"""Folder of the runs of a refiner's detector."""


@dataclass(frozen=True, slots=True)
class Run:
    """How a training is run: nothing of it decides the result."""

    folder: Path
    """The working folder."""
    device: str = "cpu"
    cancel: threading.Event | None = None


def train_model(
    config: TrainingConfig,
    data: Path,
    out: Path,
    *,
    seed: int = 0,
    device: str = "cpu",
    cancel: threading.Event | None = None,
    resume: bool = True,
) -> Generator[TrainingProgress, None, Path]:
    """Train and write a model folder.

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
        Set it to stop before the next step; what was done so far is kept beside `out`.
    resume
        Whether to go on with what lies beside `out`, or to begin anew.

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
        If the data cannot be used, what lies beside `out` is of another training, or the
        training was cancelled.
    """
    fields = read_sources(config, data)
    try:
        run = Run(working_folder(out), device, cancel)
        if not resume:
            clear(run.folder)
        config = _settled(config, run)
        model: ModelManifest | None = None
        detector: dict[str, Any] | None = None
        if config.detector is not None:
            model, class_name = find_detector(config.detector, data)
            fields = yield from heatmap_fields(
                fields, model, class_name, out=run.folder / HEATMAPS, device=device, cancel=cancel
            )
            detector = describe_detector(model, class_name, fields)
        sides = hold_out(fields, config.split)
        if model is not None:
            scored = {source.name for source in config.sources if source.evaluate}
            refuse_seen(model, [*sides.test, *(f for f in fields if f.source in scored)])
        _open(run, config, fields, sides, seed)
        validated = yield from _scored(config, [*sides.train, *sides.validation], run)
        net = yield from fit(
            config,
            sides.train,
            seed=seed,
            stage="the finished net",
            device=device,
            cancel=cancel,
            validation=sides.validation,
            folder=run.folder / FINISHED,
        )
        scores, temperature = dict(validated.scores), validated.temperature
        if not scores and sides.validation:
            answers = join([ask(config, net, f) for f in sides.validation])
            temperature = fit_temperature(cells_of(answers))
        temperature = round(temperature, 4)  # as it is stored: whoever asks again has no other
        if sides.test:
            scores["test"] = _test(config, net, sides.test, temperature)
        if config.validation.synthetic_seeds:
            scores["synthetic"] = score_synthetic(config, net)
        folder = write_model(
            out,
            config,
            net,
            temperature=temperature,
            scores=scores,
            seed=seed,
            data=describe_data(fields),
            slides=learnt_slides([*sides.train, *sides.validation]),
            detector=detector,
            errors=validated.errors,
            curves=run.folder / FINISHED / curves.FILE,
        )
        tidy(run.folder, folder)
        return folder
    finally:
        for field in fields:
            if isinstance(field, SlideField):
                field.slide.close()


def _scored(
    config: TrainingConfig, fields: Sequence[Field], run: Run
) -> Generator[TrainingProgress, None, Validated]:
    """Cross-validate over the sources that are to be scored, if any."""
    scored = {source.name for source in config.sources if source.evaluate}
    if not scored:
        return Validated({}, 1.0)
    return (
        yield from cross_validate(
            config,
            [f for f in fields if f.source not in scored],
            [f for f in fields if f.source in scored],
            run,
        )
    )


def cross_validate(
    config: TrainingConfig, always: Sequence[Field], scored: Sequence[Field], run: Run
) -> Generator[TrainingProgress, None, Validated]:
    """Leave groups out in turn, and score the answers for them together.

    Where the split keeps a validation, every fold keeps one of its own from the groups that it
    learns from.

    Parameters
    ----------
    config
        The training.
    always
        Fields that every fold learns from, but those of groups that it leaves out.
    scored
        Fields whose groups are left out in turn.
    run
        Device, working folder.
    """
    validation = config.validation
    parts = split_groups((f.group for f in scored), validation.folds)
    runs = []
    for seed in validation.seeds:
        answers: list[AnyAnswers] = []
        for number, part in enumerate(parts):
            held_out = [f for f in scored if f.group in part]
            rest = [f for f in (*always, *scored) if f.group not in part]
            sides = hold_out(rest, config.split, test=False)
            refuse_leakage(rest, held_out)
            net = yield from fit(
                config,
                sides.train,
                seed=1000 * (seed + 1) + number,
                stage=f"seed {seed}, fold {number + 1} of {len(parts)}",
                device=run.device,
                cancel=run.cancel,
                validation=sides.validation,
                folder=run.folder / f"seed-{seed}-fold-{number + 1}",
            )
            answers += [ask(config, net, f, objects=validation.objects) for f in held_out]
        runs.append(join(answers))
    return judge(config, runs, parts, scored)


def _test(
    config: TrainingConfig, net: nn.Module, test: Sequence[Field], temperature: float
) -> dict[str, Any]:
    validation = config.validation
    answers = join([ask(config, net, f, objects=validation.objects) for f in test])
    return {
        "what": "groups that were kept for a test, asked once: no choice was made on them",
        "test_groups": sorted({f.group for f in test}),
        **score(
            [answers],
            rounds=validation.bootstraps,
            unmixed=validation.unmixed,
            temperature=temperature,
        ),
    }


# --- the working folder -------------------------------------------------------------------------


def _settled(config: TrainingConfig, run: Run) -> TrainingConfig:
    """Return the training with its precision settled: as it was begun, or as suits the device."""
    bf16 = in_bf16(config.schedule, run.device)
    begun = run.folder / ABOUT_FILE
    if config.schedule.bf16 == "auto" and begun.is_file():
        try:
            bf16 = bool(json.loads(begun.read_text(encoding="utf-8")).get("bf16", bf16))
        except (OSError, ValueError, AttributeError) as error:
            raise OutputError(f"{begun} cannot be used: {error}.") from error
    return replace(config, schedule=replace(config.schedule, bf16=bf16))


def _open(
    run: Run,
    config: TrainingConfig,
    fields: Sequence[Field],
    sides: Sides,
    seed: int,
) -> None:
    """Make the working folder, or make sure that the one there is of this training."""
    about = {
        "schema_version": 1,
        "training": _hash(config, fields, seed),
        "bf16": config.schedule.bf16,
    }
    split = {
        name: sorted({f.group for f in getattr(sides, name)})
        for name in ("train", "validation", "test")
    }
    open_folder(run.folder, about, split)


def _hash(config: TrainingConfig, fields: Sequence[Field], seed: int) -> str:
    """Return the SHA-256 of all that decides the weights."""
    encoder = first_encoder(config.network)
    start = "" if encoder is None else encoder.weights_sha256
    found = hashlib.sha256(f"{config.hash()} {seed} {start}".encode())
    for field in fields:
        about = [field.name, field.group, field.source, sorted(field.tags.items())]
        found.update(json.dumps(about).encode())
        found.update(hashlib.sha256(field.fingerprint).digest())
    return found.hexdigest()
