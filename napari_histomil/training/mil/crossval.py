"""Cross-validation over patients: nets that were fitted alike answer for whom they have not seen.

Every fold keeps a validation of its own from the patients that it learns from: its epoch and its
temperature are chosen there, never on those it is asked about.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from napari_histomil.errors import TrainingError
from napari_histomil.files import make_folder, whole_file
from napari_histomil.nets.mil import MILModel
from napari_histomil.training.loop import TrainingProgress
from napari_histomil.training.mil.bags import BagData
from napari_histomil.training.mil.config import MilConfig
from napari_histomil.training.mil.fit import Watched, fit
from napari_histomil.training.mil.scores import BagAnswers, ask, join, temperature_of
from napari_histomil.training.mil.table import Case, folds_of, hold_out

ANSWERS_FILE = "answers.json"


@dataclass(frozen=True, slots=True)
class Member:
    """A net of a fold."""

    net: MILModel
    temperature: float


@dataclass(frozen=True, slots=True)
class Fold:
    """What became of a fold."""

    answers: BagAnswers
    peeked: tuple[float, ...] = ()
    """Accuracy on the fold's test after each epoch, where that was asked for."""

    @property
    def accuracy(self) -> float:
        """Of the net that was chosen."""
        return float((self.answers.logits.argmax(1) == self.answers.truth).mean())


@dataclass(frozen=True, slots=True)
class CrossValidated:
    """Folds of one or more repeats."""

    repeats: tuple[tuple[Fold, ...], ...]
    members: tuple[Member, ...] = field(default=(), repr=False)
    """Of the first repeat, where they are to be kept."""

    @property
    def runs(self) -> list[BagAnswers]:
        """The answers of each repeat, its folds together, in the same order of bags."""
        joined = [join([fold.answers for fold in folds]) for folds in self.repeats]
        places = {c.name: n for n, c in enumerate(joined[0].cases)}
        found = []
        for one in joined:
            order = np.argsort([places[c.name] for c in one.cases])
            cases = tuple(one.cases[n] for n in order)
            found.append(
                BagAnswers(cases, one.logits[order], one.temperature[order], one.activation)
            )
        return found


def cross_validate(
    config: MilConfig,
    data: BagData,
    cases: Sequence[Case],
    watched: Watched,
    *,
    peek: bool = False,
    checkpoints: bool = True,
) -> Generator[TrainingProgress, None, CrossValidated]:
    """Leave patients out in turn.

    Parameters
    ----------
    config
        The training.
    data
        The bags.
    cases
        Those that are left out in turn.
    watched
        Device, cancel; ``folder`` holds a folder for each fold, and what is there is not done
        again.
    peek
        Whether the accuracy on the test after each epoch is noted.
    checkpoints
        Whether fits, too, lie on the disk meanwhile.

    Yields
    ------
    TrainingProgress

    Returns
    -------
    CrossValidated
        The generator's value.
    """
    validation = config.validation
    repeats, members = [], []
    for seed in validation.seeds:
        parts = folds_of(cases, validation.folds, seed, stratified=validation.stratified)
        folds = []
        for number, part in enumerate(parts):
            folder = watched.folder and watched.folder / f"seed-{seed}-fold-{number + 1}"
            keep = validation.ensemble and seed == validation.seeds[0]
            test = [c for c in cases if c.patient in part]
            there = _stored(folder, test) if folder and not keep else None
            if there is not None:
                folds.append(there)
                continue
            sides = hold_out(
                [c for c in cases if c.patient not in part],
                {"validation": config.split.validation},
                1000 * seed + number,
            )
            own = data.scaled(sides["train"]) if config.bags.scaling == "training" else data
            fitting = fit(
                config,
                own,
                sides["train"],
                sides["validation"],
                seed=1000 * (seed + 1) + number,
                watched=Watched(
                    f"seed {seed}, fold {number + 1} of {len(parts)}",
                    watched.device,
                    watched.cancel,
                    folder if checkpoints else None,
                    test if peek else (),
                ),
            )
            net, peeked = yield from _followed(fitting)
            temperature = 1.0
            device = watched.device
            if sides["validation"]:
                temperature = temperature_of(ask(own, net, sides["validation"], device=device))
            answers = ask(own, net, test, temperature=temperature, device=device)
            fold = Fold(answers, tuple(peeked))
            folds.append(fold)
            if folder is not None:
                _store(folder, fold)
            if keep:
                members.append(Member(fold_in(net.cpu(), own), round(temperature, 4)))
        repeats.append(tuple(folds))
    return CrossValidated(tuple(repeats), tuple(members))


def fold_in(net: MILModel, data: BagData) -> MILModel:
    """Make the scaling of bags a part of a net's first layers, so that it takes them as they are.

    Raises
    ------
    TrainingError
        If the net does not begin with linear layers.
    """
    if data.scaling is None:
        return net
    mean, std = data.scaling.mean, data.scaling.std
    stacks: Any = getattr(net, "embed", None)
    first = [s[0] for s in ([stacks] if data.magnifications == 1 else stacks or []) if len(s)]
    if len(first) != data.magnifications:
        raise TrainingError(
            "bags.scaling becomes part of the first linear layer, and this aggregator begins "
            "with none: give it hidden layers, or leave the scaling out."
        )
    with torch.no_grad():
        for layer in first:
            layer.weight /= std
            layer.bias -= layer.weight @ mean
    return net


def _followed(
    fitting: Generator[TrainingProgress, None, MILModel],
) -> Generator[TrainingProgress, None, tuple[MILModel, list[float]]]:
    """Go through a fit, and note what was peeked at."""
    peeked: list[float] = []
    while True:
        try:
            now = next(fitting)
        except StopIteration as end:
            return end.value, peeked
        if "peeked" in now.scores:
            peeked.append(now.scores["peeked"])
        yield now


def _store(folder: Path, fold: Fold) -> None:
    answers = fold.answers
    make_folder(folder)
    content = {
        "names": [c.name for c in answers.cases],
        "logits": answers.logits.tolist(),
        "temperature": answers.temperature.tolist(),
        "activation": answers.activation,
        "peeked": list(fold.peeked),
    }
    with whole_file(folder / ANSWERS_FILE) as part:
        part.write_text(json.dumps(content) + "\n", encoding="utf-8")


def _stored(folder: Path, test: Sequence[Case]) -> Fold | None:
    """Return a fold that was done before; None if there is none of these bags."""
    path = folder / ANSWERS_FILE
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["names"] != [c.name for c in test]:
            return None
        answers = BagAnswers(
            tuple(test),
            np.array(content["logits"], float),
            np.array(content["temperature"], float),
            str(content["activation"]),
        )
        return Fold(answers, tuple(map(float, content["peeked"])))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(
            f"{path} is damaged: remove it, and the fold is done again."
        ) from error
