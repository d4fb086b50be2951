"""The learning curves of a fit as a picture for the card."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from napari_histomil.errors import TrainingError

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
"""Of Okabe and Ito (2008): told apart by colour-blind readers."""

PREFIX = "validation_"


def curve_picture(table: Path) -> bytes | None:
    """Draw ``curves.csv`` as a PNG: loss on the left, scores of the validation on the right.

    Parameters
    ----------
    table
        One row a step with the columns ``step``, ``loss`` and, where a look was taken at the
        validation, ``validation_<name>``.

    Returns
    -------
    bytes or None
        None if there are fewer than two steps.

    Raises
    ------
    TrainingError
        If the table cannot be read.
    """
    rows = _read(table)
    if len(rows) < 2:
        return None
    # Drawn without pyplot, which would choose a window for itself.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = [n for n in dict.fromkeys(k for row in rows for k in row) if n.startswith(PREFIX)]
    scores = [n for n in names if n != f"{PREFIX}loss"]
    figure = Figure(figsize=(9 if scores else 5, 3), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    left, *right = figure.subplots(1, 2 if scores else 1, squeeze=False)[0]
    left.plot(*_smooth(*_line(rows, "loss")), color=COLORS[0], lw=1.2, label="training")
    if f"{PREFIX}loss" in names:
        x, y = _line(rows, f"{PREFIX}loss")
        left.plot(x, y, "o-", color=COLORS[1], ms=3, lw=1.2, label="validation")
    left.set_ylabel("loss")
    for axes in right:
        for name, color in zip(scores, COLORS, strict=False):
            x, y = _line(rows, name)
            axes.plot(x, y, "o-", color=color, ms=3, lw=1.2, label=name.removeprefix(PREFIX))
        axes.set_ylabel("validation")
        axes.set_ylim(top=1.02)
    for axes in (left, *right):
        axes.set_xlabel("step")
        axes.grid(color="0.9")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": ""})
    return stream.getvalue()


def _read(table: Path) -> list[dict[str, float]]:
    try:
        with table.open(encoding="utf-8", newline="") as stream:
            return [
                {k: float(v) for k, v in row.items() if v}
                for row in csv.DictReader(stream)
                if None not in row.values()  # the last line of a training that was killed
            ]
    except (OSError, ValueError, csv.Error) as error:
        raise TrainingError(f"{table} is no table of curves: {error}.") from error


def _line(rows: Sequence[Mapping[str, float]], name: str) -> tuple[list[float], list[float]]:
    there = [row for row in rows if name in row]
    return [row["step"] for row in there], [row[name] for row in there]


def _smooth(steps: list[float], values: list[float]) -> tuple[list[float], list[float]]:
    """Return means of so many steps that about 200 points are left."""
    size = max(len(values) // 200, 1)
    starts = range(0, len(values) - size + 1, size)
    return (
        [steps[i + size - 1] for i in starts],
        [sum(values[i : i + size]) / size for i in starts],
    )
