"""Whether a slide looks like those that a model knows: stain, brightness, focus, features.

A `Look` is what can be measured of a slide's tissue in a second; a `Reference` is how such numbers
lie over the slides that a model was made or tried on. What lies far outside is said in words: a
model's answer on such a slide is an extrapolation.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import laplace

from napari_histomil.errors import RunError, brief
from napari_histomil.files import whole_file
from napari_histomil.slides.slide import Slide, Uint8Image, read_tile
from napari_histomil.stain import fit_stain

SCHEMA_VERSION = 1

NUMBERS: Mapping[str, tuple[str, float]] = MappingProxyType(
    {
        "brightness": ("mean brightness of the tissue", 0.02),
        "contrast": ("spread of brightness", 0.01),
        "yellow-blue": ("mean colour from yellow to blue", 0.005),
        "green-red": ("mean colour from green to red", 0.003),
        "hematoxylin": ("strength of the hematoxylin", 0.1),
        "eosin": ("strength of the eosin", 0.1),
        "focus": ("sharpness of edges, as a power of ten", 0.1),
    }
)
"""Name of each number, with what it is in words and the least spread over slides that counts:
three slides of one day are more alike than any two days."""

FEATURES = "features"
"""Name of the distance of a slide's mean features."""

LEAST_SLIDES = 3
UNUSUAL, FAR = 2.5, 5.0
"""Spreads from the reference's mean from which a number is called so."""

TILES, TILE_PX, MPP = 32, 256, 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """What was measured of one slide."""

    slide: str
    numbers: Mapping[str, float]
    """By the names of `NUMBERS`; NaN for what could not be measured."""
    features: NDArray[np.float64] | None = field(default=None, repr=False)
    """float64 [D]: mean over its tiles."""


@dataclass(frozen=True, slots=True)
class Drift:
    """How far one number of a slide is from the reference."""

    name: str
    value: float
    usual: float
    """Mean over the reference."""
    spreads: float
    """How many of its spreads the value is away; below 0 is lower than usual."""

    @property
    def verdict(self) -> str:
        """``as usual``, ``unusual``, ``far outside``, or ``unknown``."""
        away = abs(self.spreads)
        if math.isnan(away):
            return "unknown"
        return "as usual" if away < UNUSUAL else "unusual" if away < FAR else "far outside"


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """How numbers lie over some slides."""

    slides: int
    mean: Mapping[str, float]
    spread: Mapping[str, float]
    features_mean: NDArray[np.float64] | None = field(default=None, repr=False)
    """float64 [D] over the slides' means."""
    features_spread: NDArray[np.float64] | None = field(default=None, repr=False)
    """float64 [D] over the slides' means."""
    distance: tuple[float, float] = (math.nan, math.nan)
    """Mean and spread of the slides' own distances, each from the mean of the others."""


def measure_look(
    slide: Slide,
    centers_px0: NDArray[np.floating[Any]],
    *,
    features: NDArray[np.floating[Any]] | None = None,
    seed: int = 0,
) -> Look:
    """Measure how a slide's tissue looks.

    Parameters
    ----------
    slide
        The slide.
    centers_px0
        [N, 2]: (x, y) of tissue, level-0 px; of some of them a tile is read.
    features
        [M, D] of its tiles; what has NaN is left out.
    seed
        Of which places are read.

    Raises
    ------
    SlideError
        If the slide cannot be read, or its µm/px are not known.
    """
    drawn = np.random.default_rng(seed).permutation(len(centers_px0))[:TILES]
    mpp_x, mpp_y = slide.info.mpp_xy
    half = np.array([TILE_PX * MPP / mpp_x, TILE_PX * MPP / mpp_y]) / 2
    corners = np.asarray(centers_px0, np.float64)[drawn] - half
    tiles = [read_tile(slide, (float(x), float(y)), TILE_PX, MPP) for x, y in corners]
    mean = None
    if features is not None:
        rows = np.asarray(features, np.float64)
        rows = rows[np.isfinite(rows).all(axis=1)]
        mean = rows.mean(axis=0) if len(rows) else None
    return Look(slide.info.path.name, look_of(tiles), mean)


def look_of(tiles: Sequence[Uint8Image]) -> dict[str, float]:
    """Return the numbers of some tiles of tissue, uint8 [h, w, 3] each; see `NUMBERS`."""
    numbers = dict.fromkeys(NUMBERS, math.nan)
    if not tiles:
        return numbers
    pixels = np.concatenate([tile[::4, ::4].reshape(-1, 3) for tile in tiles])
    try:
        values = fit_stain(pixels, "reinhard").values
    except RunError:  # hardly any tissue: nothing can be said
        return numbers
    numbers["brightness"], numbers["yellow-blue"], numbers["green-red"] = values[:3]
    numbers["contrast"] = values[3]
    # edges, in units of the tile's own contrast: a pale slide is not out of focus
    sharp = []
    for tile in tiles:
        grey = tile.mean(axis=2, dtype=np.float32)
        spread = float(grey.var())
        if spread > 1:
            sharp.append(float(laplace(grey).var()) / spread)
    if sharp:
        numbers["focus"] = math.log10(max(float(np.median(sharp)), 1e-6))
    try:
        strengths = fit_stain(pixels, "macenko").strengths
    except RunError:  # one stain only, which has no two strengths
        return numbers
    numbers["hematoxylin"], numbers["eosin"] = (float(value) for value in strengths)
    return numbers


def reference_of(looks: Sequence[Look]) -> Reference:
    """Return how numbers lie over slides that are taken for usual.

    Raises
    ------
    RunError
        If there are fewer than `LEAST_SLIDES`.
    """
    if len(looks) < LEAST_SLIDES:
        raise RunError(
            f"{len(looks)} slides do not say what is usual: take at least {LEAST_SLIDES}."
        )
    mean, spread = {}, {}
    for name, (_, least) in NUMBERS.items():
        values = np.array([look.numbers[name] for look in looks])
        values = values[np.isfinite(values)]
        enough = len(values) >= LEAST_SLIDES
        mean[name] = float(values.mean()) if enough else math.nan
        spread[name] = max(float(values.std(ddof=1)), least) if enough else math.nan
    features = [look.features for look in looks if look.features is not None]
    if len(features) < LEAST_SLIDES:
        return Reference(len(looks), mean, spread)
    table = np.stack(features)
    center, width = table.mean(axis=0), table.std(axis=0, ddof=1)
    own = []
    for n in range(len(table)):  # each as a slide that the others do not know
        others = np.delete(table, n, axis=0)
        own.append(_distance(table[n], others.mean(axis=0), width))
    # as for the numbers: three slides of one day are too much alike
    distance = float(np.mean(own)), max(float(np.std(own, ddof=1)), 0.1 * float(np.mean(own)))
    return Reference(len(looks), mean, spread, center, width, distance)


def drift_of(look: Look, reference: Reference) -> list[Drift]:
    """Return how far each number of a slide is from a reference, the farthest first."""
    found = []
    for name in NUMBERS:
        value, usual, spread = look.numbers[name], reference.mean[name], reference.spread[name]
        found.append(Drift(name, value, usual, (value - usual) / spread))
    center, width = reference.features_mean, reference.features_spread
    if look.features is not None and center is not None and width is not None:
        usual, spread = reference.distance
        value = _distance(look.features, center, width)
        found.append(Drift(FEATURES, value, usual, max((value - usual) / spread, 0.0)))
    return sorted(found, key=lambda each: 1.0 if math.isnan(each.spreads) else -abs(each.spreads))


def verdict_of(look: Look, drifts: Sequence[Drift]) -> str:
    """Return in a sentence whether a slide looks like the reference."""
    odd = [each for each in drifts if each.verdict in ("unusual", "far outside")]
    if not odd:
        known = sum(each.verdict != "unknown" for each in drifts)
        return f"{look.slide} looks as usual in all {known} numbers."
    said = ", ".join(f"{each.name} {each.verdict} ({each.spreads:+.1f} spreads)" for each in odd)
    far = any(each.verdict == "far outside" for each in odd)
    advice = "a model's answer is an extrapolation" if far else "look at its answer with care"
    return f"{look.slide}: {said}; {advice}."


def _distance(
    features: NDArray[np.float64], center: NDArray[np.float64], width: NDArray[np.float64]
) -> float:
    """Return the root mean square of how many spreads each feature is away."""
    used = width > 1e-9
    if features.shape != center.shape:
        raise RunError(
            f"The slide has {len(features)} features and the reference {len(center)}: they are of "
            f"different encoders."
        )
    away = (features[used] - center[used]) / width[used]
    return float(np.sqrt((away**2).mean())) if used.any() else 0.0


def write_reference(reference: Reference, path: Path) -> None:
    """Write a reference as JSON.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    document: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "slides": reference.slides,
        "mean": _no_nan(reference.mean),
        "spread": _no_nan(reference.spread),
    }
    if reference.features_mean is not None and reference.features_spread is not None:
        document["features"] = {
            "mean": reference.features_mean.tolist(),
            "spread": reference.features_spread.tolist(),
            "distance": list(reference.distance),
        }
    with whole_file(path) as part:
        part.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def read_reference(path: Path) -> Reference:
    """Read a reference.

    Raises
    ------
    RunError
        If it cannot be read, is none, or of a newer version.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["schema_version"] > SCHEMA_VERSION:
            raise RunError(
                f"{path} was written by a newer version of this program: update napari-histomil."
            )
        features = document.get("features", {})
        mean, spread = (
            {name: float(document[key].get(name, math.nan)) for name in NUMBERS}
            for key in ("mean", "spread")
        )
        low, high = features.get("distance", (math.nan, math.nan))
        return Reference(
            int(document["slides"]),
            mean,
            spread,
            np.array(features["mean"], np.float64) if features else None,
            np.array(features["spread"], np.float64) if features else None,
            (float(low), float(high)),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{path} is no reference of slides: {brief(error)}.") from error


def _no_nan(numbers: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in numbers.items() if math.isfinite(value)}
