"""In which order the patches of a gallery are shown: as found, or by groups."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2

from napari_histomil.review.gallery import Patch
from napari_histomil.review.points import unit_rows
from napari_histomil.review.tile_scores import TileScores
from napari_histomil.review.truth import POSITIVE_SHARE
from napari_histomil.ui.gallery import Gallery

CLUSTERS = 8
NOTHING = "–"


def grouped(shown: Gallery, by: str) -> tuple[list[int], list[str]]:
    """Return the numbers of the patches in order, and the name of each one's group.

    The groups with most patches come first; within one the order stays. Names are empty where
    there are no groups.
    """
    names = GROUPINGS[by](shown)
    if names is None:
        return list(range(len(shown.patches))), [""] * len(shown.patches)
    sizes = {name: names.count(name) for name in names}
    order = sorted(range(len(names)), key=lambda n: (-sizes[names[n]], names[n]))
    return order, [names[n] for n in order]


def _as_found(shown: Gallery) -> None:
    return None


def _by_slide(shown: Gallery) -> list[str]:
    return [patch.slide.name for patch in shown.patches]


def _by_class(shown: Gallery) -> list[str]:
    """Name the class that is true of a patch."""
    names = {True: "positive", False: "negative"}
    return [
        NOTHING if math.isnan(patch.truth) else names[patch.truth >= POSITIVE_SHARE]
        for patch in shown.patches
    ]


def _by_answer(shown: Gallery) -> list[str]:
    kinds = [q.name for q in shown.form.about("place") if q.kind == "choice"]
    return [
        next((str(said[kind]) for kind in kinds if kind in said), NOTHING)
        for said in map(shown.answers, shown.patches)
    ]


def _by_tag(shown: Gallery) -> list[str]:
    tags = [q.name for q in shown.form.about("place") if q.kind == "tags"]
    found = []
    for said in map(shown.answers, shown.patches):
        given = [said[tag] for tag in tags if tag in said]
        words = [word for each in given if isinstance(each, tuple) for word in each]
        found.append(", ".join(words) or NOTHING)
    return found


def _by_look(shown: Gallery) -> list[str]:
    """Name clusters of features; what has none is in a group of its own."""
    units = features_of(shown.patches, {each.fingerprint: each for each in shown.tiles})
    there = np.isfinite(units).all(axis=1) if units.size else np.zeros(len(units), bool)
    names = np.full(len(units), NOTHING, object)
    if there.sum() > CLUSTERS:
        _, labels = kmeans2(
            units[there].astype(np.float64), CLUSTERS, minit="++", seed=0, missing="raise"
        )
        names[there] = [f"look {label + 1}" for label in labels]
    return names.tolist()


def features_of(patches: Sequence[Patch], tiles: Mapping[str, TileScores]) -> NDArray[np.float32]:
    """Return the features of patches as rows of length 1, [N, D]; NaN where there are none."""
    found: NDArray[np.float32] | None = None
    for fingerprint in dict.fromkeys(patch.fingerprint for patch in patches):
        of = tiles.get(fingerprint)
        if of is None or of.features is None:
            continue
        rows = {tuple(xy): n for n, xy in enumerate(of.rects_px0[:, :2].tolist())}
        own = [n for n, p in enumerate(patches) if p.fingerprint == fingerprint]
        own = [n for n in own if patches[n].xy_px0 in rows]
        if found is None:
            found = np.full((len(patches), of.features.shape[1]), np.nan, np.float32)
        found[own] = of.features[np.array([rows[patches[n].xy_px0] for n in own], np.int64)]
    if found is None:
        return np.empty((len(patches), 0), np.float32)
    there = np.isfinite(found).all(axis=1)
    if there.any():
        found[there] = unit_rows(found[there])
    return found


GROUPINGS: Mapping[str, Callable[[Gallery], list[str] | None]] = {
    "as found": _as_found,
    "by slide": _by_slide,
    "by class": _by_class,
    "by answer": _by_answer,
    "by tag": _by_tag,
    "by look": _by_look,
}
"""Name of each order -> names of the groups of the patches; None for none."""
