"""What became of a region: who changed it, when, what to; read from the journal backwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from napari_histomil.annotations.model import Region
from napari_histomil.annotations.recovery import LOST, STEPS, load_step
from napari_histomil.annotations.steps import region_beyond
from napari_histomil.journal import GAP, Entry


@dataclass(frozen=True, slots=True)
class Version:
    """A region as it was after a step."""

    time: str
    """When the step was done: UTC in ISO 8601; empty for what was there at first."""
    author: str
    text: str
    """What was done, in words; empty for what was there at first."""
    region: Region | None
    """None where the step took it away."""


def history_of(entries: Sequence[Entry], region_id: str, now: Region | None) -> list[Version]:
    """Return the versions of a region, the oldest first, the last as it is now.

    Parameters
    ----------
    entries
        Of the journal, in order.
    now
        The region; None if it is not there (any more).

    Raises
    ------
    AnnotationError
        If a step cannot be read.
    """
    versions: list[Version] = []
    region = now
    for entry, step_entry, back in reversed(_acts(entries)):
        about, step = load_step(step_entry)
        touched, before = region_beyond(step, region_id, region, back=not back)
        if not touched:
            continue
        said = about if entry is step_entry else entry.data()
        text = str(about.get("text", ""))
        versions.append(
            Version(
                str(said.get("at", "")),
                str(said.get("by", "")),
                text if entry is step_entry else f"{entry.kind} {text}",
                region,
            )
        )
        region = before
    if region is not None:
        versions.append(Version("", "", "", region))
    return versions[::-1]


def _acts(entries: Sequence[Entry]) -> list[tuple[Entry, Entry, bool]]:
    """Return (entry, entry of the step, whether it was taken back) since the last damage."""
    past: list[Entry] = []
    future: list[Entry] = []
    acts: list[tuple[Entry, Entry, bool]] = []
    for entry in entries:
        if entry.kind in (GAP, LOST):
            past, future, acts = [], [], []
        elif entry.kind == "do":
            past.append(entry)
            future.clear()
            acts.append((entry, entry, False))
        elif entry.kind in STEPS and (stack := past if entry.kind == "undo" else future):
            step = stack.pop()
            (future if entry.kind == "undo" else past).append(step)
            acts.append((entry, step, entry.kind == "undo"))
    return acts
