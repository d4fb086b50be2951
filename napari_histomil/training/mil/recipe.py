"""Train a MIL model: cross-validate, fit the finished net, write a model folder.

As in `training/recipe.py`: epoch and temperature are chosen on validation patients only, the test
is asked once, and what is not finished lies in ``<model folder>.training``.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from napari_histomil.errors import TrainingError
from napari_histomil.manifest import ModelManifest
from napari_histomil.manifest.mil import MilEncoder
from napari_histomil.results import FeatureStore
from napari_histomil.training import curves
from napari_histomil.training.loop import TrainingProgress
from napari_histomil.training.mil.bags import BagData, open_bags
from napari_histomil.training.mil.config import MilConfig
from napari_histomil.training.mil.crossval import CrossValidated, cross_validate, fold_in
from napari_histomil.training.mil.features import encoder_of, with_features
from napari_histomil.training.mil.fit import Watched, fit
from napari_histomil.training.mil.folder import data_facts, write_mil_model
from napari_histomil.training.mil.reference import nuclear_um, reference_of
from napari_histomil.training.mil.scores import ask, join, score, temperature_of
from napari_histomil.training.mil.table import Case, hold_out, read_table, refuse_torn
from napari_histomil.training.working import (
    FINISHED,
    clear,
    open_folder,
    tidy,
    working_folder,
)


def train_mil(
    config: MilConfig,
    data: Path,
    out: Path,
    *,
    seed: int = 0,
    device: str = "cpu",
    cancel: threading.Event | None = None,
    resume: bool = True,
    models: Sequence[Path] = (),
) -> Generator[TrainingProgress, None, Path]:
    """Train and write a model folder.

    Parameters
    ----------
    config
        The training.
    data
        Folder that paths are relative to.
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
    models
        Folders in which the encoder is looked for first.

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
        If the table or the bags cannot be used, a patient would be on two sides, what lies beside
        `out` is of another training, or the training was cancelled.
    """
    if not config.grids:
        raise TrainingError("A model folder says at which grids its tiles lie: add [[grids]].")
    table = read_table(config, data)
    sides = sides_of(config, table)
    folder = working_folder(out)
    names = {side: [c.name for c in own] for side, own in sides.items()}
    if not resume:
        clear(folder)
    about = {"schema_version": 1, "training": _hash(config, table, seed)}
    open_folder(folder, about, names)
    cases = yield from with_features(
        config, table, data, watched=Watched(device=device, cancel=cancel), models=models
    )
    with_bags = {c.name: c for c in cases}
    sides = {side: [with_bags[c.name] for c in own] for side, own in sides.items()}
    bags = open_bags(cases)
    encoder = encoder_facts(config, bags, encoder_of(config, data, models))
    if bags.magnifications != len(config.grids):
        raise TrainingError(
            f"The bags have {bags.magnifications} magnifications, and [[grids]] names "
            f"{len(config.grids)}: one for each, the lowest first."
        )
    watched = Watched(device=device, cancel=cancel, folder=folder)
    validated = CrossValidated(())
    scores: dict[str, Any] = {}
    rest = [*sides["train"], *sides["validation"]]
    rounds = config.validation.bootstraps
    if config.validation.folds or any(c.fold for c in rest):
        validated = yield from cross_validate(config, bags, rest, watched)
        scores["cross_validation"] = {
            "what": "Cross-validation by patient, each net asked about whom it has not seen",
            **score(config, validated.runs, rounds=rounds),
        }
    own = bags.scaled(sides["train"]) if config.bags.scaling == "training" else bags
    net = yield from fit(
        config,
        own,
        sides["train"],
        sides["validation"],
        seed=seed,
        watched=Watched("the finished net", device, cancel, folder / FINISHED),
    )
    net = fold_in(net, own)
    if sides["validation"]:
        temperature = temperature_of(ask(bags, net, sides["validation"], device=device))
    else:
        temperature = temperature_of(join(validated.runs)) if validated.repeats else 1.0
    temperature = round(temperature, 4)  # as it is stored: whoever asks again has no other
    if sides["test"]:
        answers = ask(bags, net, sides["test"], temperature=temperature, device=device)
        scores["test"] = {
            "what": "Patients that were kept for a test, asked once: no choice was made on them",
            **score(config, [answers], rounds=rounds),
        }
    nuclei = config.nuclear_um or nuclear_um(sides["train"], config.grids[-1])
    model = write_mil_model(
        out,
        config,
        net,
        encoder,
        temperature=temperature,
        scores=scores,
        reference={
            **reference_of(bags, net.cpu(), sides["train"]),
            **({"nuclear_um": nuclei} if nuclei is not None else {}),
        },
        data=data_facts(config, names),
        seed=seed,
        members=validated.members,
        curves=folder / FINISHED / curves.FILE,
    )
    tidy(folder, model)
    return model


def sides_of(config: MilConfig, cases: Sequence[Case]) -> dict[str, list[Case]]:
    """Return the cases of each side: as the table says, or drawn by patients.

    Raises
    ------
    TrainingError
        If a patient would be on two sides, or a side has none.
    """
    if any(c.split for c in cases):
        named = {side: [c for c in cases if (c.split or "train") == side] for side in
                 ("train", "validation", "test")}  # fmt: skip
        if not named["train"]:
            raise TrainingError("The table's column split leaves nothing for the training.")
        refuse_torn(cases, lambda c: c.split or "train", "parts of the split")
        return named
    shares = {"validation": config.split.validation, "test": config.split.test}
    return hold_out(cases, shares, config.split.seed)


def encoder_facts(config: MilConfig, bags: BagData, named: ModelManifest | None) -> MilEncoder:
    """Return whose features the bags hold: as their runs say, or as the configuration does.

    Parameters
    ----------
    config
        The training.
    bags
        Runs of features, or files.
    named
        The configured encoder, if it is here.

    Raises
    ------
    TrainingError
        If the runs are of different encoders or not of the one that is named, or nobody names one.
    """
    known = set()
    for case in bags.cases:
        for path in case.bags:
            if path.is_dir():
                model = FeatureStore.open(path).model
                known.add((str(model["name"]), str(model["sha256"])))
    if named is not None:
        known.add((named.name, named.sha256))
    if len(known) > 1:
        (one, first), (other, second) = sorted(known)[:2]
        raise TrainingError(
            f"The bags hold features of different encoders ({one} {first[:8]}, {other} "
            f"{second[:8]}): all must be by the same, and by the one that bags.encoder names."
        )
    if named is not None and named.embedding_dim not in (None, bags.dim):
        raise TrainingError(
            f"The bags have {bags.dim} values a tile, and {named.name} gives "
            f"{named.embedding_dim}: bags.encoder names another encoder than made them."
        )
    if known:
        name, sha256 = known.pop()
        return MilEncoder(name, bags.dim, sha256)
    if not config.bags.encoder:
        raise TrainingError("Nobody says which encoder made the features: set bags.encoder.")
    return MilEncoder(config.bags.encoder, bags.dim, None)


def _hash(config: MilConfig, table: Sequence[Case], seed: int) -> str:
    """Return the SHA-256 of all that decides the weights."""
    lines = [[c.name, c.label, c.patient, c.split, c.fold, list(c.clinical)] for c in table]
    text = json.dumps([config.hash(), seed, lines])
    return hashlib.sha256(text.encode()).hexdigest()
