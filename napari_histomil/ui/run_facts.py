"""What made a result, and why one might doubt it, in words; pure text, no widgets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from napari_histomil.geometry import magnification
from napari_histomil.results import RunStore
from napari_histomil.tiling import TileGrid
from napari_histomil.ui.heatmap_view import HeatmapView

ENLARGED = 1.1
"""A slide whose pixels are this much larger than the model's cannot show it what it knows."""

CONSTANT_RANGE = 1e-4
"""Scores that differ by less over a whole slide say nothing about the tissue."""


def title(store: RunStore) -> str:
    """Return one line that tells a run from the slide's others."""
    begun = store.created.astimezone()
    return f"{store.model['name']}, {begun:%Y-%m-%d %H:%M}"


def made_by(store: RunStore) -> str:
    """Return what decides a result, in two short lines."""
    grid = store.grid.spec
    stain = store.job.get("stain", {}).get("method", "none")
    region = store.job.get("region", {}).get("kind", "")
    return (
        f"{grid.mpp:.3g} µm/px ({magnification(grid.mpp):.3g}x), tile {grid.tile_px} px, "
        f"stride {grid.stride_px} px\n"
        f"region: {_REGIONS.get(region, region)}, stain normalisation: {stain}"
    )


def provenance(store: RunStore) -> str:
    """Return everything that was recorded about how a result came to be, a line each."""
    lines = [
        f"Model: {store.model['name']}",
        f"Model hash: {store.model.get('sha256', 'unknown')}",
        f"Slide: {store.slide['name']}",
        f"Slide fingerprint: {store.slide['fingerprint']}",
        f"Run: {store.run_id}, begun {store.created.astimezone():%Y-%m-%d %H:%M}",
    ]
    lines += [
        f"Session {i + 1}: " + ", ".join(f"{k} {v}" for k, v in _flat(session))
        for i, session in enumerate(store.sessions)
    ]
    return "\n".join([*lines, f"Stored in: {store.path}"])


def doubts(store: RunStore, heatmap: HeatmapView) -> list[str]:
    """Return why a result should not simply be believed, a sentence each."""
    found = list(store.warnings)
    total, done = len(heatmap.grid), heatmap.done_tiles
    if done + len(store.skipped) < total:
        found.append(f"Not finished: {done:,} of {total:,} tiles are done.".replace(",", " "))
    if store.skipped:
        found.append(f"{len(store.skipped)} tiles could not be read and have no score.")
    enlarged = _enlarged(heatmap.grid)
    if enlarged is not None:
        found.append(enlarged)
    low, high = heatmap.value_range
    if done > 1 and high - low < CONSTANT_RANGE:
        found.append(
            f"Every tile has the same score ({np.mean((low, high)):.4f}): the model says nothing "
            f"about this slide; check its µm/px and its stain."
        )
    return found


def _enlarged(grid: TileGrid) -> str | None:
    slide_mpp = max(grid.slide_mpp)
    if slide_mpp <= ENLARGED * grid.spec.mpp:
        return None
    return (
        f"The slide has {slide_mpp:.3g} µm/px and the model looks at {grid.spec.mpp:.3g} µm/px: "
        f"the tiles were enlarged {slide_mpp / grid.spec.mpp:.2g} times and show less than the "
        f"model was trained on."
    )


_REGIONS = {
    "tissue": "tissue",
    "all": "whole slide",
    "rect": "a rectangle",
    "polygons": "selected shapes",
}


def _flat(values: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return a session's plain members, nested ones joined by a dot."""
    flat: list[tuple[str, Any]] = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat += [(f"{key}.{inner}", each) for inner, each in _flat(value)]
        else:
            flat.append((key, value))
    return flat
