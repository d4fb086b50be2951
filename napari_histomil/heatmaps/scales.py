"""Attention by name: as it is, comparable between slides, or by order within one.

A slide's attention adds up to 1 over its tiles, so it is lower the more tiles there are, and its
highest value exists on every slide, whatever the slide shows. Each scale says what it keeps of
that. What a map does not cover is NaN, and stays so: "not examined" is never 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_histomil.errors import HistomilError

Floats = NDArray[np.floating[Any]]

SCALES: Mapping[str, str] = MappingProxyType(
    {
        "raw": "before the softmax, as the network gave it; where it has no softmax, its values",
        "softmax": "share of the slide's attention: the shares of all tiles add up to 1",
        "x uniform": "attention times the number of tiles: 1 is what each tile would have if all "
        "counted the same; on a logarithmic scale, the same for every slide",
        "min-max": "stretched so that this slide's lowest attention is 0 and its highest is 1",
        "rank": "percentile within this slide: average rank / number of tiles x 100",
        "reference": "percentile among the tiles of the slides that the model was trained on",
    }
)
"""Name of each scale, with what it says in words."""

OF_THIS_SLIDE = ("min-max", "rank")
"""Scales on which every slide has a hottest tile, whether or not there is anything to find."""

UNIFORM_SPAN = (0.01, 100.0)
"""Ends of the colours of ``x uniform``: fixed, so that a colour means the same on every slide."""


@dataclass(frozen=True, slots=True, eq=False)
class AttentionRow:
    """The attention of one head at one magnification, with what it is compared with."""

    value: Floats | None = field(repr=False)
    """[M] as the model used it."""
    raw: Floats | None = field(repr=False)
    """[M] before the softmax; None where there is none."""
    tiles: int
    """Tiles over which a share of attention is spread: those of the model's own bag, also where
    this row is of a finer stride."""
    shares: bool
    """Whether the values are shares that add up to 1 over those tiles."""
    coarse: Floats | None = field(default=None, repr=False)
    """[N], of a row of finer stride: the model's own pass, of the kind of `ordered`, against which
    it is ranked."""
    quantiles: Floats | None = field(default=None, repr=False)
    """[Q] of ``x uniform`` over the model's training slides, from the lowest to the highest at
    even steps; None where the model does not say them."""

    @property
    def ordered(self) -> Floats:
        """What the order is taken from: `raw` where there is one, else `value`.

        Before the softmax tiles are still in order where it is 0 for most of them.
        """
        found = self.value if self.raw is None else self.raw
        assert found is not None, "a map holds raw values or others"
        return found


def scales_of(row: AttentionRow) -> tuple[str, ...]:
    """Return the names of the scales on which a row can be shown, in the order of `SCALES`."""
    shares = row.shares and row.value is not None
    there = {
        "raw": row.raw is not None or not row.shares,
        "softmax": shares,
        "x uniform": shares,
        "reference": shares and row.quantiles is not None,
    }
    return tuple(name for name in SCALES if there.get(name, True))


def rescale(row: AttentionRow, scale: str) -> NDArray[np.float64]:
    """Return a row on a scale; NaN where it is NaN.

    Parameters
    ----------
    row
        The row.
    scale
        A name of `scales_of`.

    Returns
    -------
    float64 [M]
        In percent for ``rank`` and ``reference``.

    Raises
    ------
    HistomilError
        If the row cannot be shown so.
    """
    if scale not in scales_of(row):
        raise HistomilError(
            f"This attention cannot be shown as '{scale}': choose one of "
            f"{', '.join(scales_of(row))}."
        )
    if scale == "rank":
        return rank_percentile(row.ordered, row.coarse)
    if scale == "raw":
        return np.array(row.ordered, np.float64)
    value = np.array(row.ordered if row.value is None else row.value, np.float64)
    if scale == "softmax":
        return value
    if scale == "min-max":
        known = np.isfinite(value)
        if known.any():
            low, high = value[known].min(), value[known].max()
            value[known] = (value[known] - low) / (high - low) if high > low else 0.5
        return value
    if scale == "x uniform":
        return value * row.tiles
    assert row.quantiles is not None  # or the scale would not be offered
    return reference_percentile(value * row.tiles, row.quantiles)


def rank_percentile(values: Floats, against: Floats | None = None) -> NDArray[np.float64]:
    """Return average ranks as percentiles, the usual way to colour attention [1]_.

    Parameters
    ----------
    values
        [M]; NaN is left out of account.
    against
        [N] among which each value is ranked, such as the model's own pass where `values` are of a
        finer stride; None for `values` themselves. A value between two of them has a rank between
        theirs.

    Returns
    -------
    float64 [M]
        Average rank / N x 100, above 0 and at most 100.

    References
    ----------
    .. [1] Lu, M. Y. et al. (2021). Data-efficient and weakly supervised computational pathology
       on whole-slide images. Nature Biomedical Engineering 5, 555-570.
    """
    values = np.asarray(values)
    among = values if against is None else np.asarray(against)
    among = np.sort(among[np.isfinite(among)])
    result = np.full(values.shape, np.nan)
    known = np.isfinite(values)
    if not among.size:
        return result
    lower = np.searchsorted(among, values[known], side="left")
    equal = np.searchsorted(among, values[known], side="right") - lower
    # Equal values share the mean of the ranks lower + 1 to lower + equal.
    result[known] = np.minimum((lower + (equal + 1) / 2) / among.size * 100, 100)
    return result


def reference_percentile(values: Floats, quantiles: Floats) -> NDArray[np.float64]:
    """Return which percent of a reference is not higher, interpolated between its quantiles.

    Parameters
    ----------
    values
        [M]; NaN stays NaN.
    quantiles
        [Q], from the lowest to the highest at even steps. Where several are equal, their value is
        at the mean of their percentages.
    """
    values = np.asarray(values, np.float64)
    steps, inverse, counts = np.unique(
        np.asarray(quantiles, np.float64), return_inverse=True, return_counts=True
    )
    percents = np.linspace(0, 100, len(inverse))
    means = np.bincount(inverse, percents) / counts
    result: NDArray[np.float64] = np.interp(values, steps, means, left=0, right=100)
    result[np.isnan(values)] = np.nan
    return result


@dataclass(frozen=True, slots=True)
class Span:
    """Which values the two ends of a colour scale stand for."""

    low: float
    high: float
    logarithmic: bool = False

    def share(self, values: Floats | float) -> NDArray[np.float64]:
        """Return where values lie on the scale, 0 to 1; beyond an end is at the end."""
        shown = np.asarray(values, np.float64)
        if self.logarithmic:
            with np.errstate(divide="ignore"):  # a share of 0 is at the lower end
                shown = np.log(np.maximum(shown, 0))
        low, high = self._ends
        if not high > low:
            return np.where(np.isnan(shown), np.nan, 0.5)
        return np.clip((shown - low) / (high - low), 0, 1)

    def value(self, share: float) -> float:
        """Return the value at a place of the scale, 0 to 1."""
        low, high = self._ends
        found = low + share * (high - low)
        return float(np.exp(found)) if self.logarithmic else float(found)

    @property
    def _ends(self) -> tuple[float, float]:
        if self.logarithmic:
            return float(np.log(self.low)), float(np.log(self.high))
        return self.low, self.high


def span_of(scale: str, values: Floats) -> Span:
    """Return what the ends of the colours stand for.

    Parameters
    ----------
    scale
        A name in `SCALES`.
    values
        [M], on that scale.
    """
    if scale in ("rank", "reference"):
        return Span(0, 100)
    if scale == "min-max":
        return Span(0, 1)
    if scale == "x uniform":
        return Span(*UNIFORM_SPAN, logarithmic=True)
    known = values[np.isfinite(values)]
    if not known.size:
        return Span(0, 1)
    return Span(float(known.min()) if scale == "raw" else 0.0, float(known.max()))
