"""The plots of a report as PNG: ROC, precision and recall, calibration, FROC, confusion."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_histomil.review.froc import FALSE_POSITIVES, Froc
from napari_histomil.review.scoring import Scores

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
"""Of Okabe and Ito (2008): told apart by colour-blind readers."""

DPI = 160
MOST_POINTS = 2000
"""Of a curve: more than a page has dots."""


class Plot:
    """A picture that is being drawn; its bytes are there when it is done."""

    png = b""


def roc_plot(levels: Mapping[str, Scores]) -> bytes:
    """Draw the ROC curve of each level that has both sides."""
    with _axes("1 − specificity", "sensitivity") as (plot, axes):
        axes.plot([0, 1], [0, 1], color="0.7", lw=0.8, ls="--")
        for (name, scores), color in zip(levels.items(), _colors(), strict=False):
            area = scores.figures["auroc"].value
            if area is not None:
                x, y = _thin(*scores.counts.roc)
                axes.plot(x, y, color=color, lw=1.4, label=f"{name}, {area:.3f}")
                _mark(axes, scores, color)
        _finish(axes)
    return plot.png


def precision_recall_plot(levels: Mapping[str, Scores]) -> bytes:
    """Draw precision against recall of each level that has both sides."""
    with _axes("recall", "precision") as (plot, axes):
        for (name, scores), color in zip(levels.items(), _colors(), strict=False):
            average = scores.figures["average_precision"].value
            if average is not None:
                x, y = _thin(*scores.counts.precision_recall)
                axes.plot(x, y, color=color, lw=1.4, label=f"{name}, {average:.3f}")
        _finish(axes)
    return plot.png


def calibration_plot(levels: Mapping[str, Scores]) -> bytes:
    """Draw what came true against the probability, with intervals, and the counts of the bins."""
    with _axes("probability (mean of the bin)", "share that is positive") as (plot, axes):
        axes.plot([0, 1], [0, 1], color="0.7", lw=0.8, ls="--")
        for (name, scores), color in zip(levels.items(), _colors(), strict=False):
            bins = [b for b in scores.calibration.get("curve", ()) if b["count"]]
            if not bins:
                continue
            x, y = [b["mean"] for b in bins], [b["observed"] for b in bins]
            error = scores.calibration["ece_width"]
            axes.plot(x, y, "o-", color=color, ms=3, lw=1.2, label=f"{name}, ECE {error:.3f}")
            for b in bins:
                if b["interval"]:
                    axes.plot([b["mean"]] * 2, b["interval"], color=color, lw=0.8, alpha=0.6)
        _finish(axes)
    return plot.png


def froc_plot(curve: Froc) -> bytes:
    """Draw sensitivity for lesions against false positives a slide, on a logarithmic axis."""
    with _axes("false positives a slide", "sensitivity for lesions") as (plot, axes):
        # beyond the last point the challenge's interpolation goes on level
        rates = np.geomspace(1 / 16, 16, 400)
        false, true = np.array(curve.false_positives), np.array(curve.sensitivity)
        axes.plot(rates, np.interp(rates, false[::-1], true[::-1]), color=COLORS[0], lw=1.4)
        axes.plot(FALSE_POSITIVES, curve.at, "o", color=COLORS[0], ms=4)
        axes.set_xscale("log", base=2)
        axes.set_xticks(FALSE_POSITIVES, ["1/4", "1/2", "1", "2", "4", "8"])
        axes.set_xlim(1 / 16, 16)
        axes.set_ylim(-0.02, 1.02)
    return plot.png


def confusion_plot(scores: Scores) -> bytes:
    """Draw the matrix of a level, shaded by the share of each row."""
    with _axes("called", "truth") as (plot, axes):
        counts = scores.confusion.counts
        total = counts.sum(axis=1, keepdims=True)
        share = np.divide(counts, total, out=np.zeros(counts.shape), where=total > 0)
        axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
        for (row, column), value in np.ndenumerate(counts):
            ink = "white" if share[row, column] > 0.6 else "black"
            axes.text(
                column,
                row,
                f"{value:,}\n{share[row, column]:.1%}",
                ha="center",
                va="center",
                color=ink,
            )
        axes.set_xticks([0, 1], scores.confusion.classes)
        axes.set_yticks([0, 1], scores.confusion.classes, rotation=90, va="center")
        axes.grid(visible=False)
    return plot.png


@contextmanager
def _axes(x: str, y: str) -> Iterator[tuple[Plot, Any]]:
    # Drawn without pyplot, which would choose a window for itself.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.6, 3.3), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes: Any = figure.subplots()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(color="0.92")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    plot = Plot()
    yield plot, axes
    stream = io.BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": ""})
    plot.png = stream.getvalue()


def _finish(axes: Any) -> None:
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.set_aspect("equal")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=8, loc="best")


def _mark(axes: Any, scores: Scores, color: str) -> None:
    """Put a ring where the threshold lies."""
    recall, specificity = scores.figures["recall"].value, scores.figures["specificity"].value
    if recall is not None and specificity is not None:
        axes.plot(1 - specificity, recall, "o", mfc="none", color=color, ms=6)


def _colors() -> Sequence[str]:
    return COLORS


def _thin(
    x: NDArray[np.float64], y: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return a curve with at most `MOST_POINTS` points, both ends among them."""
    if len(x) <= MOST_POINTS:
        return x, y
    keep = np.unique(np.linspace(0, len(x) - 1, MOST_POINTS).astype(np.int64))
    return x[keep], y[keep]
