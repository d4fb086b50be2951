"""How often readers gave each tag, by scanner, site, stain or whatever tells cases apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_histomil.files import write_rows
from napari_histomil.review.verdicts import Verdict

UNKNOWN = "unknown"
"""Group of a case of which nobody says it."""


@dataclass(frozen=True, slots=True, eq=False)
class TagTable:
    """Places by their answer to one question and the group of their case."""

    question: str
    answers: tuple[str, ...]
    """Rows, the most frequent first."""
    groups: tuple[str, ...]
    """Columns, by name."""
    counts: NDArray[np.int64] = field(repr=False)
    """int64 [answers, groups]: places; a place with two tags counts for both."""
    judged: NDArray[np.int64] = field(repr=False)
    """int64 [groups]: places with any answer, what shares are of."""


def tag_table(
    verdicts: Iterable[Verdict], groups: Mapping[str, str], question: str = "tags"
) -> TagTable:
    """Count the answers to a question about places.

    Parameters
    ----------
    verdicts
        Those that count (`VerdictLog.latest`); of several readers a place counts once.
    groups
        Name of a case -> its group.
    question
        Of the form; one with tags counts each of them.
    """
    places: set[tuple[object, str, str]] = set()
    for each in verdicts:
        if each.question != question or each.place is None or each.answer is None:
            continue
        answers = each.answer if isinstance(each.answer, tuple) else (str(each.answer),)
        group = groups.get(each.case) or UNKNOWN
        places |= {(each.place, answer, group) for answer in answers}
    columns = tuple(sorted({group for _, _, group in places}))
    totals: dict[str, int] = {}
    for _, answer, _ in places:
        totals[answer] = totals.get(answer, 0) + 1
    rows = tuple(sorted(totals, key=lambda answer: (-totals[answer], answer)))
    counts = np.zeros((len(rows), len(columns)), np.int64)
    for _, answer, group in places:
        counts[rows.index(answer), columns.index(group)] += 1
    judged = np.zeros(len(columns), np.int64)
    for _, group in {(place, group) for place, _, group in places}:
        judged[columns.index(group)] += 1
    return TagTable(question, rows, columns, counts, judged)


def write_tag_table(table: TagTable, path: Path) -> None:
    """Write a table as CSV: a row an answer, a column a group, places judged at the end.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    counts = zip(table.answers, table.counts.tolist(), strict=True)
    rows = [[answer, *row] for answer, row in counts]
    rows.append(["places judged", *table.judged.tolist()])
    write_rows(path, [table.question, *table.groups], rows)
