"""The table of slides: who is of which class, which patient, on which side.

A CSV file with a header and a line for each slide (or bag):

===========  ====================================================================================
``slide``    path of the slide; its features are looked for, or made, by the encoder
``bag``      instead: file of features (or run); of several magnifications all, lowest first,
             with ``;`` between them
``label``    name of the class
``patient``  who must not be on both sides; without this column every line is its own
``split``    optional: ``train``, ``validation`` or ``test``
``fold``     optional: in which part of the cross-validation it is left out
===========  ====================================================================================

and the columns of clinical variables, if the configuration names some.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from napari_histomil.errors import TrainingError, listed
from napari_histomil.files import read_rows
from napari_histomil.training.mil.config import MilConfig

SIDES = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class Case:
    """A line of the table: a bag with its answer."""

    name: str
    label: int
    """Number of the class."""
    patient: str
    bags: tuple[Path, ...] = ()
    """Files of features, the lowest magnification first; empty where only the slide is named."""
    slide: Path | None = None
    split: str = ""
    fold: str = ""
    clinical: tuple[float, ...] = ()


def read_table(config: MilConfig, data: Path) -> list[Case]:
    """Read the configured table.

    Parameters
    ----------
    config
        The training.
    data
        Folder that paths are relative to.

    Raises
    ------
    TrainingError
        If it cannot be read, a column or an answer is missing or unknown, or a patient is in two
        parts of the split or of the folds.
    """
    path = data / config.bags.table
    rows = read_rows(path, TrainingError)
    if not rows:
        raise TrainingError(f"{path} names no slide: give each a line below the header.")
    columns = set(rows[0])
    missing = [c for c in ("label", *config.bags.clinical) if c not in columns]
    if missing or not columns & {"slide", "bag"}:
        raise TrainingError(
            f"{path} has no column {missing[0] if missing else 'slide (or bag)'}; it has "
            f"{listed(sorted(str(c) for c in columns))}."
        )
    cases = [_case(config, row, data, f"{path}, line {n}") for n, row in enumerate(rows, 2)]
    twice = [name for name, times in Counter(c.name for c in cases).items() if times > 1]
    if twice:
        raise TrainingError(f"{path} names {twice[0]} twice: one line a slide.")
    for member, words in (("split", "parts of the split"), ("fold", "folds")):
        refuse_torn(cases, lambda c, member=member: getattr(c, member), words)  # type: ignore[misc]
    return cases


def refuse_torn(cases: Iterable[Case], side: Callable[[Case], str], words: str) -> None:
    """Make sure that each patient is on one side only.

    Raises
    ------
    TrainingError
        If one is on two.
    """
    sides: dict[str, str] = {}
    for case in cases:
        there = sides.setdefault(case.patient, side(case))
        if there != side(case):
            raise TrainingError(
                f"The patient {case.patient} is in two {words} ({there or 'none'} and "
                f"{side(case) or 'none'}): scores would be of no value; keep the slides of a "
                f"patient together."
            )


def hold_out(cases: Sequence[Case], shares: dict[str, float], seed: int) -> dict[str, list[Case]]:
    """Take sides out of the cases by whole patients, the classes shared out as evenly as may be.

    Parameters
    ----------
    cases
        All of them.
    shares
        Side -> share of the patients; the rest is ``train``.
    seed
        Of the drawing.

    Raises
    ------
    TrainingError
        If too few patients are left.
    """
    wanted = {side: share for side, share in shares.items() if share > 0}
    side_of = {c.patient: "train" for c in cases}
    for group in _by_class(cases, seed):
        due = {side: share * len(group) for side, share in wanted.items()}
        start = 0.0
        for side, count in due.items():
            for patient in group[round(start) : round(start + count)]:
                side_of[patient] = side
            start += count
    sides = {side: [c for c in cases if side_of[c.patient] == side] for side in ("train", *wanted)}
    empty = [side for side, own in sides.items() if not own]
    if empty:
        raise TrainingError(
            f"{len(side_of)} patients are too few to split: none is left for the {empty[0]}; add "
            f"more, or keep other shares."
        )
    return {"validation": [], "test": []} | sides


def folds_of(
    cases: Sequence[Case], folds: int, seed: int, *, stratified: bool
) -> list[frozenset[str]]:
    """Return the patients of each fold: as the table says, or drawn.

    Raises
    ------
    TrainingError
        If there are fewer patients than folds, or the table names a fold for some only.
    """
    named = {c.fold for c in cases}
    if named != {""}:
        if "" in named or len(named) < 2:
            raise TrainingError(
                "The table's column fold must name a fold for every slide, and two or more."
            )
        return [frozenset(c.patient for c in cases if c.fold == fold) for fold in sorted(named)]
    patients = {c.patient for c in cases}
    if len(patients) < folds:
        raise TrainingError(f"{len(patients)} patients cannot be split into {folds} folds.")
    if stratified:
        order = [patient for group in _by_class(cases, seed) for patient in group]
        return [frozenset(order[n::folds]) for n in range(folds)]
    drawn = np.random.default_rng(seed).permutation(sorted(patients))
    return [frozenset(map(str, part)) for part in np.array_split(drawn, folds)]


def _by_class(cases: Sequence[Case], seed: int) -> list[list[str]]:
    """Return the patients of each class (of their highest), each class in random order."""
    highest: dict[str, int] = {}
    for case in cases:
        highest[case.patient] = max(case.label, highest.get(case.patient, 0))
    rng = np.random.default_rng(seed)
    groups = []
    for label in sorted(set(highest.values())):
        own = sorted(p for p, top in highest.items() if top == label)
        groups.append([own[n] for n in rng.permutation(len(own))])
    return groups


def _case(config: MilConfig, row: dict[str, str], data: Path, where: str) -> Case:
    """Read a line."""
    slide, bags = row.get("slide", ""), row.get("bag", "")
    if not slide and not bags:
        raise TrainingError(f"{where} names neither a slide nor a bag.")
    if row["label"] not in config.class_names:
        raise TrainingError(
            f"{where}: the label {row['label']!r} is none of the classes {config.class_names}."
        )
    if row.get("split", "") not in ("", *SIDES):
        raise TrainingError(f"{where}: split must be one of {', '.join(SIDES)}, or empty.")
    files = tuple(data / part.strip() for part in bags.split(";")) if bags else ()
    name = slide or bags
    case = Case(
        name=name,
        label=config.class_names.index(row["label"]),
        patient=row.get("patient", "") or name,
        bags=files,
        slide=data / slide if slide else None,
        split=row.get("split", ""),
        fold=row.get("fold", ""),
    )
    return replace(case, clinical=tuple(_number(row, c, where) for c in config.bags.clinical))


def _number(row: dict[str, str], column: str, where: str) -> float:
    try:
        value = float(row[column])
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise TrainingError(f"{where}: {column} is {row[column]!r}, and must be a number.")
    return value
