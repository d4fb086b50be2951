"""Encoders x magnifications x aggregators on one table, by the same folds.

Every combination is cross-validated with the same patients in the same folds. A file looks like
that of a training (`config.py`) with lists where that has one::

    task = "mil-comparison"
    ...
    [[bags]]                 # encoders and magnifications
    label = "resnet, 10x"
    table = "slides.csv"
    ...
    [[aggregators]]
    name = "mean"
    [[aggregators]]
    name = "gated-attention"

An aggregator meets the bags that have as many magnifications as it takes.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from napari_histomil.errors import TrainingError
from napari_histomil.files import make_folder, whole_file
from napari_histomil.manifest import ClassSpec
from napari_histomil.tiling import GridSpec
from napari_histomil.training.figures import rounded
from napari_histomil.training.loop import TrainingProgress
from napari_histomil.training.mil.bags import BagData, open_bags
from napari_histomil.training.mil.config import (
    Aggregator,
    Bags,
    MilConfig,
    MilSchedule,
    MilSplit,
    MilValidation,
)
from napari_histomil.training.mil.crossval import CrossValidated, cross_validate
from napari_histomil.training.mil.features import with_features
from napari_histomil.training.mil.fit import Watched, new_net
from napari_histomil.training.mil.scores import score
from napari_histomil.training.mil.table import read_table
from napari_histomil.training.toml import read_as

COLUMNS = (
    "bags",
    "aggregator",
    "auroc",
    "auroc_low",
    "auroc_high",
    "accuracy",
    "accuracy_low",
    "accuracy_high",
    "kappa",
    "repeats",
    "repeat_spread",
    "folds",
    "fold_spread",
    "fold_error",
    "best_epoch_added",
)


@dataclass(frozen=True, slots=True)
class NamedBags:
    """Features of the same slides, by one encoder at one or several magnifications."""

    label: str
    bags: Bags
    grids: tuple[GridSpec, ...] = ()


@dataclass(frozen=True, slots=True)
class NamedAggregator:
    """A net, and what it is called in the table."""

    label: str
    aggregator: Aggregator


@dataclass(frozen=True, slots=True)
class Comparison:
    """What is compared, and how: members as those of `MilConfig`."""

    task: Literal["mil-comparison"]
    name: str
    classes: tuple[ClassSpec, ...]
    positive_class: str
    bags: tuple[NamedBags, ...]
    aggregators: tuple[NamedAggregator, ...]
    schedule: MilSchedule = field(default_factory=MilSchedule)
    split: MilSplit = field(default_factory=MilSplit)
    validation: MilValidation = field(default_factory=MilValidation)
    peek: bool = False
    """Whether to say what choosing the epoch on the test folds, which nobody may do, would have
    added."""
    notes: tuple[str, ...] = ()
    """Paragraphs below the table."""

    def __post_init__(self) -> None:
        if not self.bags or not self.aggregators or self.validation.folds < 2:
            raise TrainingError(
                "A comparison needs [[bags]], [[aggregators]], and validation.folds of 2 or more."
            )

    def training(self, bags: NamedBags, aggregator: NamedAggregator) -> MilConfig:
        """Return a combination as a training."""
        return MilConfig(
            task="mil",
            name=self.name,
            description="",
            licence="",
            classes=self.classes,
            positive_class=self.positive_class,
            bags=bags.bags,
            aggregator=aggregator.aggregator,
            grids=bags.grids,
            schedule=self.schedule,
            split=self.split,
            validation=self.validation,
        )


@dataclass(frozen=True, slots=True)
class Row:
    """A combination's figures."""

    bags: str
    aggregator: str
    scores: Mapping[str, Any]
    """As `scores.score` gives them."""
    repeats: tuple[float, ...]
    """Accuracy of each repeat."""
    folds: tuple[float, ...]
    """Accuracy of each fold of all repeats."""
    fold_count: int
    """Folds a repeat."""
    best_epoch_added: float | None
    """Mean accuracy of the folds if each took the epoch that is best on its own test, less what
    they have."""

    @property
    def fold_spread(self) -> float:
        """Standard deviation over the folds of a repeat, mean over the repeats."""
        table = np.reshape(self.folds, (-1, self.fold_count))
        return float(table.std(axis=1, ddof=1).mean())

    @property
    def repeat_spread(self) -> float:
        """Standard deviation over the repeats; NaN of one."""
        return float(np.std(self.repeats, ddof=1)) if len(self.repeats) > 1 else math.nan

    def plain(self) -> dict[str, Any]:
        """Return the columns of the table."""
        auroc, accuracy, kappa = (self.scores[n] for n in ("auroc", "accuracy", "kappa"))
        values = (
            self.bags,
            self.aggregator,
            auroc["value"],
            *auroc["interval"],
            rounded(np.mean(self.folds)),
            *accuracy["interval"],
            kappa["value"],
            len(self.repeats),
            rounded(self.repeat_spread),
            self.fold_count,
            rounded(self.fold_spread),
            rounded(self.fold_spread / math.sqrt(self.fold_count)),
            None if self.best_epoch_added is None else rounded(self.best_epoch_added),
        )
        return dict(zip(COLUMNS, values, strict=True))


def read_comparison(path: Path) -> Comparison:
    """Read a comparison's TOML file.

    Raises
    ------
    TrainingError
        If the file cannot be read, or a member is missing, unknown or of the wrong kind.
    """
    return read_as(Comparison, path)


def compare(
    comparison: Comparison, data: Path, out: Path, *, watched: Watched, models: Sequence[Path] = ()
) -> Generator[TrainingProgress, None, list[Row]]:
    """Cross-validate every combination, and write ``comparison.md``, ``.csv`` and ``.json``.

    What is done lies in `out`, fold by fold; the same comparison goes on there.

    Parameters
    ----------
    comparison
        What is compared.
    data
        Folder that paths are relative to.
    out
        Folder of the results.
    watched
        Device and cancel.
    models
        Folders in which encoders are looked for first.

    Yields
    ------
    TrainingProgress

    Returns
    -------
    list of Row
        The generator's value.
    """
    make_folder(out)
    rows: list[Row] = []
    for bags in comparison.bags:
        config = comparison.training(bags, comparison.aggregators[0])
        cases = yield from with_features(
            config, read_table(config, data), data, watched=watched, models=models
        )
        opened = open_bags(cases)
        if bags.bags.scaling == "all":
            opened = opened.scaled(cases)
        for aggregator in comparison.aggregators:
            config = comparison.training(bags, aggregator)
            if new_net(config, opened.dim, 0).magnifications != opened.magnifications:
                continue
            found = yield from _combination(config, opened, out, watched, peek=comparison.peek)
            rows.append(_row(config, bags.label, aggregator.label, found))
            _write(comparison, rows, out)
    if not rows:
        raise TrainingError(
            "No aggregator takes as many magnifications as the bags have: set their arguments "
            "magnifications, or name others."
        )
    return rows


def _combination(
    config: MilConfig, data: BagData, out: Path, watched: Watched, *, peek: bool
) -> Generator[TrainingProgress, None, CrossValidated]:
    about = hashlib.sha256(config.hash().encode())
    for case in data.cases:
        sizes = [tuple(a.shape) for a in data.arrays[case.name]]
        about.update(f"{case} {sizes}".encode())
    folder = out / f"{config.aggregator.name}-{about.hexdigest()[:12]}"
    named = Watched(device=watched.device, cancel=watched.cancel, folder=folder)
    return (
        yield from cross_validate(config, data, data.cases, named, peek=peek, checkpoints=False)
    )


def _row(config: MilConfig, bags: str, aggregator: str, found: CrossValidated) -> Row:
    folds = [fold for folds in found.repeats for fold in folds]
    added = None
    if all(fold.peeked for fold in folds):
        added = float(np.mean([max(fold.peeked) - fold.accuracy for fold in folds]))
    return Row(
        bags,
        aggregator,
        score(config, found.runs, rounds=config.validation.bootstraps),
        tuple(float(np.mean([f.accuracy for f in folds])) for folds in found.repeats),
        tuple(fold.accuracy for fold in folds),
        len(found.repeats[0]),
        added,
    )


# --- files --------------------------------------------------------------------------------------


def _write(comparison: Comparison, rows: Sequence[Row], out: Path) -> None:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(row.plain() for row in rows)
    full = [row.plain() | {"scores": row.scores, "each_fold": list(row.folds)} for row in rows]
    texts = {
        "comparison.csv": stream.getvalue(),
        "comparison.json": json.dumps({"name": comparison.name, "rows": full}, indent=1) + "\n",
        "comparison.md": as_markdown(comparison, rows),
    }
    for name, text in texts.items():
        with whole_file(out / name) as part:
            part.write_text(text, encoding="utf-8")


def as_markdown(comparison: Comparison, rows: Sequence[Row]) -> str:
    """Return the table with what its columns are, as Markdown."""
    how = (
        f"{len(comparison.validation.seeds)} x {rows[0].fold_count}-fold cross-validation; "
        f"intervals are 95 %, by bootstrap over {rows[0].scores['patients']} patients (bags)."
    )
    head = ["bags", "aggregator", "AUROC", "accuracy", "kappa"]
    head += ["spread over repeats", "spread over folds", "fold spread / √folds"]
    lines = [f"# {comparison.name}", "", how, "", f"| {' | '.join(head)} |"]
    lines += ["|---|---|---|---|---|---|---|---|"]
    for row in rows:
        p = row.plain()
        lines.append(
            f"| {row.bags} | {row.aggregator} "
            f"| {_number(p['auroc'])} ({_number(p['auroc_low'])}-{_number(p['auroc_high'])}) "
            f"| **{_number(p['accuracy'])}** "
            f"({_number(p['accuracy_low'])}-{_number(p['accuracy_high'])}) "
            f"| {_number(p['kappa'])} | {_number(p['repeat_spread'])} "
            f"| {_number(p['fold_spread'])} | {_number(p['fold_error'])} |"
        )
    lines += ["", *(line for note in comparison.notes for line in (note.strip(), ""))]
    return "\n".join(lines).rstrip() + "\n"


def peek_warning(rows: Sequence[Row]) -> str | None:
    """Return what choosing the epoch on the test folds would have added, in a sentence."""
    added = [(r.best_epoch_added, r) for r in rows if r.best_epoch_added is not None]
    if not added:
        return None
    words = ", ".join(f"{100 * a:.1f} points to {r.aggregator} ({r.bags})" for a, r in added)
    return (
        f"Choosing each fold's epoch on its own test bags would have added {words}: such scores "
        f"are of no value, and none is in the table."
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
