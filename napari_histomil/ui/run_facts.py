"""What made a result, and why one might doubt it, in words; pure text, no widgets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from napari_histomil.geometry import magnification
from napari_histomil.results import MilRun, RunStore, SegmentationStore
from napari_histomil.ui.session import RunView
from napari_histomil.ui.words import count

AnyStore = RunStore | SegmentationStore | MilRun

_REGIONS = {
    "tissue": "tissue",
    "all": "whole slide",
    "rect": "a rectangle",
    "polygons": "drawn shapes",
}


def title(store: AnyStore) -> str:
    """Return one line that tells a run from the slide's others."""
    created = store.created
    when = "" if created is None else f"{created.astimezone():%d %b %H:%M}  "
    return f"{when}{store.model['name']}"


def made_by(store: AnyStore) -> str:
    """Return what decides a result, in two short lines; of a chain also what it spared."""
    if isinstance(store, MilRun):
        return _made_by_mil(store)
    grid = store.grid.spec
    stain = store.job.get("stain", {}).get("method", "none")
    region = store.job.get("region", {}).get("kind", "")
    return (
        f"{grid.mpp:.3g} µm/px ({magnification(grid.mpp):.3g}x), tile {grid.tile_px} px, "
        f"stride {grid.stride_px} px\n"
        f"region: {_REGIONS.get(region, region)}, stain normalisation: {stain}{_spared(store)}"
    )


def _made_by_mil(store: MilRun) -> str:
    """Return which patches a MIL model answered from, in two short lines."""
    bag = [level for level in store.levels if level.finer_than is None]
    looked = [
        f"{count(len(level))} patches"
        + ("" if level.mpp is None else f" at {level.mpp:.3g} µm/px")
        + ("" if level.tiles == len(level) else f" of {count(level.tiles)}")
        for level in bag
    ]
    encoder = store.source.encoder
    features = store.source.file or (encoder.name if encoder is not None else "unknown")
    how = "features of" if not store.source.file else "features from"
    return f"{', '.join(looked)}\n{how} {features}"


def _spared(store: RunStore | SegmentationStore) -> str:
    """Return at how many tiles the last model of a chain looked, as a further line."""
    chain = store.chain if isinstance(store, SegmentationStore) else None
    if chain is None:
        return ""
    return (
        f"\nchain: looked closely at {count(int(chain['fine_tiles']))} of "
        f"{count(int(chain['tiles']))} tiles"
    )


def provenance(store: AnyStore) -> str:
    """Return everything that was recorded about how a result came to be, a line each."""
    begun = store.created
    lines = [
        f"Model: {store.model['name']}",
        f"Model hash: {store.model.get('sha256', 'unknown')}",
        f"Slide: {store.slide['name']}",
        f"Slide fingerprint: {store.slide['fingerprint']}",
        f"Run: {store.run_id}"
        + ("" if begun is None else f", begun {begun.astimezone():%Y-%m-%d %H:%M}"),
    ]
    lines += [f"Session {i + 1}: {_session(each)}" for i, each in enumerate(store.sessions)]
    return "\n".join([*lines, f"Stored in: {store.path}"])


def doubts(run: RunView) -> list[str]:
    """Return why a result should not simply be believed, a sentence each."""
    store = run.store
    found = list(store.warnings)
    if isinstance(store, MilRun):
        return found
    total, done = len(store.grid), _done(run)
    if done + len(store.skipped) < total:
        found.append(f"Not finished: {count(done)} of {count(total)} tiles are done.")
    if store.skipped:
        found.append(f"{count(len(store.skipped))} tiles could not be read and have no score.")
    return found


def _done(run: RunView) -> int:
    """Return how many tiles are done, as far as this window knows."""
    if run.heatmap is not None:
        return run.heatmap.done_tiles
    facts = run.segmentation.facts
    return facts.done_tiles if facts is not None else len(run.store.grid)


def _session(session: Mapping[str, Any]) -> str:
    """Return when, where and how one session worked."""
    versions = session.get("versions", {})
    parts = [
        str(session.get("started", "")),
        str(session.get("device", "")),
        str(session.get("precision", "")),
        f"batch {session.get('batch_at_end', session.get('batch'))}",
        f"{session.get('tiles', 0)} tiles",
        *(f"{name} {versions[name]}" for name in ("napari-histomil", "torch") if name in versions),
    ]
    return ", ".join(part for part in parts if part)
