"""What a measurement is: a ratio with its target, times of a row of views, and how both are told.

Nothing here measures. Times are in seconds, in the tables in milliseconds.
Results of earlier days are kept in a Markdown file, a section each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from napari_histomil.files import whole_file

AT_LEAST, AT_MOST = ">=", "<="


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of a report.

    Attributes
    ----------
    name
        What was measured, in words.
    value
        A ratio, or a number of `unit`; None where it could not be measured (see `note`).
    rule
        ``>=`` or ``<=``; empty for a figure that is for information only.
    target
        What `value` is held against.
    unit
        Empty for a ratio.
    note
        What the ratio is of, or why there is none.
    """

    name: str
    value: float | None
    rule: str = ""
    target: float | None = None
    unit: str = ""
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None where there is none, or nothing was measured."""
        if self.value is None or self.target is None:
            return None
        return self.value >= self.target if self.rule == AT_LEAST else self.value <= self.target

    def as_dict(self) -> dict[str, Any]:
        """Return all that JSON is to hold of it."""
        names = ("name", "value", "rule", "target", "unit", "note")
        return {name: getattr(self, name) for name in names} | {"met": self.met}


@dataclass(frozen=True, slots=True)
class Spread:
    """p50, p95 and maximum of the times of a row of views."""

    p50: float
    p95: float
    most: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Spread:
        """Return the spread of some times; p95 lies between two of them where it has to."""
        p50, p95 = np.percentile(seconds, [50, 95])
        return cls(float(p50), float(p95), float(max(seconds)))

    @classmethod
    def best(cls, rounds: Sequence[Spread]) -> Spread:
        """Return the smallest of each figure."""
        return cls(
            min(each.p50 for each in rounds),
            min(each.p95 for each in rounds),
            min(each.most for each in rounds),
        )

    def __str__(self) -> str:
        return f"{self.p50 * 1e3:.0f} / {self.p95 * 1e3:.0f} / {self.most * 1e3:.0f}"


def ratio(over: float | None, under: float | None) -> float | None:
    """Return the ratio of two rates or times, None where one of them is missing."""
    return None if over is None or not under else over / under


def table(figures: Sequence[Figure]) -> str:
    """Return figures as a table that reads well as text and as Markdown."""
    rows = [("what", "measured", "target", "")]
    for figure in figures:
        unit = f" {figure.unit}" if figure.unit else ""
        value = "-" if figure.value is None else f"{_number(figure.value)}{unit}"
        target = "" if figure.target is None else f"{figure.rule} {_number(figure.target)}{unit}"
        verdict = {True: "pass", False: "MISS", None: ""}[figure.met]
        name = f"{figure.name} ({figure.note})" if figure.note else figure.name
        rows.append((name, value, target, verdict))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    lines = [
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def verdict(figures: Sequence[Figure]) -> str:
    """Return how many targets are met, in one sentence."""
    met = [figure.met for figure in figures if figure.met is not None]
    missed = [figure.name for figure in figures if figure.met is False]
    text = f"{sum(met)} of {len(met)} targets met"
    return f"{text}; missed: {'; '.join(missed)}." if missed else f"{text}."


def append_section(file: Path, title: str, command: str, text: str) -> None:
    """Add a dated section to a Markdown file of results, which is made where it is missing."""
    before = file.read_text(encoding="utf-8") if file.exists() else "# Benchmarks\n"
    day = datetime.now(UTC).date().isoformat()
    section = f"\n## {day}: {title}\n\n`{command}`\n\n{text}\n"
    file.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(file) as part:  # the results of earlier days are in it
        part.write_text(before + section, encoding="utf-8")


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.2f}"
