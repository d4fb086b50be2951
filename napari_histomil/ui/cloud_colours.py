"""What the points of an embedding can be coloured by, and what the colours mean. No Qt."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_histomil.review.form import Form
from napari_histomil.review.points import Points
from napari_histomil.review.verdicts import Place, VerdictLog

RGB = tuple[float, float, float]

UNKNOWN: RGB = (0.42, 0.44, 0.48)

NAMED: tuple[RGB, ...] = (
    (0.30, 0.69, 0.94), (0.95, 0.55, 0.20), (0.40, 0.80, 0.40), (0.90, 0.35, 0.60),
    (0.65, 0.55, 0.95), (0.95, 0.85, 0.35), (0.35, 0.80, 0.75), (0.80, 0.60, 0.45),
    (0.75, 0.75, 0.80), (0.55, 0.35, 0.75),
)  # fmt: skip
"""Of names, in their order; of more names they begin again."""

LOW, MIDDLE, HIGH = (0.25, 0.45, 0.95), (0.85, 0.85, 0.85), (0.95, 0.25, 0.20)

ERRORS: Mapping[str, RGB] = {
    "true positive": (0.30, 0.75, 0.35),
    "false positive": (0.95, 0.30, 0.25),
    "false negative": (0.98, 0.75, 0.20),
    "true negative": (0.35, 0.45, 0.60),
}


@dataclass(frozen=True, slots=True, eq=False)
class Coloured:
    """Points with colours."""

    colours: NDArray[np.float32]
    """float32 [N, 3], red, green, blue from 0 to 1."""
    legend: tuple[tuple[str, RGB], ...]
    """What the colours mean, in words."""


@dataclass(frozen=True, slots=True)
class Said:
    """What is needed of a review to colour by it."""

    threshold: float = 0.5
    positive_share: float = 0.5
    groups: Mapping[str, str] | None = None
    """File name of a slide -> its centre, scanner or site."""
    log: VerdictLog | None = None
    form: Form | None = None


def by_number(values: NDArray[np.float64]) -> Coloured:
    """Return colours from the lowest to the highest number, by rank where they are skewed."""
    known = np.isfinite(values)
    colours = np.tile(np.float32(UNKNOWN), (len(values), 1))
    if not known.any():
        return Coloured(colours, (("not known", UNKNOWN),))
    low, high = float(values[known].min()), float(values[known].max())
    if low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    else:  # attention has a long tail: a few tiles would take all the colours
        low, high = (float(each) for each in np.quantile(values[known], (0.01, 0.99)))
    place = np.clip((values[known] - low) / max(high - low, 1e-12), 0, 1)[:, None]
    below = np.float32(LOW) + (np.float32(MIDDLE) - np.float32(LOW)) * (place * 2)
    above = np.float32(MIDDLE) + (np.float32(HIGH) - np.float32(MIDDLE)) * (place * 2 - 1)
    colours[known] = np.where(place < 0.5, below, above)
    middle = (low + high) / 2
    legend = ((f"{low:.3g}", LOW), (f"{middle:.3g}", MIDDLE), (f"{high:.3g}", HIGH))
    return Coloured(colours, legend + (() if known.all() else (("not known", UNKNOWN),)))


def by_name(names: Sequence[str], order: Sequence[str] | None = None) -> Coloured:
    """Return a colour for each name; empty ones are not known."""
    wanted = list(order) if order is not None else sorted({name for name in names if name})
    table = {name: NAMED[n % len(NAMED)] for n, name in enumerate(wanted)}
    colours = np.array([table.get(name, UNKNOWN) for name in names], np.float32).reshape(-1, 3)
    there = set(names)
    legend = tuple((name, table[name]) for name in wanted if name in there)
    return Coloured(colours, legend + ((("not known", UNKNOWN),) if "" in there else ()))


def _score(points: Points, said: Said) -> Coloured:
    return by_number(points.column("scores"))


def _class(points: Points, said: Said) -> Coloured:
    truth = points.column("truth")
    names = np.where(truth >= said.positive_share, "positive", "negative").astype(object)
    names[~np.isfinite(truth)] = ""
    return by_name(names.tolist(), ("negative", "positive"))


def _error(points: Points, said: Said) -> Coloured:
    scores, truth = points.column("scores"), points.column("truth")
    called, positive = scores >= said.threshold, truth >= said.positive_share
    kinds = np.where(
        called,
        np.where(positive, "true positive", "false positive"),
        np.where(positive, "false negative", "true negative"),
    ).astype(object)
    kinds[~(np.isfinite(scores) & np.isfinite(truth))] = ""
    table = {**ERRORS, "": UNKNOWN}
    colours = np.array([table[kind] for kind in kinds], np.float32).reshape(-1, 3)
    there = set(kinds.tolist())
    legend = tuple((name, rgb) for name, rgb in ERRORS.items() if name in there)
    return Coloured(colours, legend + ((("not known", UNKNOWN),) if "" in there else ()))


def _per_slide(points: Points, names: Sequence[str]) -> Coloured:
    table = by_name(names, sorted({name for name in names if name}))
    return Coloured(table.colours[points.slide], table.legend)


def _slide(points: Points, said: Said) -> Coloured:
    return _per_slide(points, [each.slide.name for each in points.tiles])


def _centre(points: Points, said: Said) -> Coloured:
    groups = said.groups or {}
    return _per_slide(points, [groups.get(each.slide.name, "") for each in points.tiles])


def _verdict(points: Points, said: Said) -> Coloured:
    if said.log is None or said.form is None:
        return by_name([""] * len(points))
    asked = next((q for q in said.form.about("place") if q.kind == "choice"), None)
    if asked is None:
        return by_name([""] * len(points))
    given: dict[tuple[str, tuple[float, float]], str] = {
        (verdict.place.slide, verdict.place.xy_px0): str(verdict.answer)
        for verdict in said.log.latest()
        if isinstance(verdict.place, Place) and verdict.question == asked.name
    }
    names = [""] * len(points)
    prints = [each.fingerprint for each in points.tiles]
    if given:
        corners = points.rects_px0[:, :2].tolist()
        for n, (slide, corner) in enumerate(zip(points.slide.tolist(), corners, strict=True)):
            names[n] = given.get((prints[slide], (corner[0], corner[1])), "")
    return by_name(names, asked.names)


COLOURINGS: Mapping[str, Callable[[Points, Said], Coloured]] = {
    "score or attention": _score,
    "class (truth)": _class,
    "error": _error,
    "slide": _slide,
    "centre": _centre,
    "verdict": _verdict,
}
"""Name of each -> what it does."""
