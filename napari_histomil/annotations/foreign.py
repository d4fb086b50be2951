"""A file that another program changed while it was ours: theirs, ours, or both."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from napari_histomil.annotations.collection import AnnotationSet, Command
from napari_histomil.annotations.commands import counted
from napari_histomil.annotations.extras import joined
from napari_histomil.annotations.files import AnnotationFile
from napari_histomil.annotations.geojson import read_geojson
from napari_histomil.annotations.model import SlideFrame
from napari_histomil.annotations.recovery import hash_of
from napari_histomil.annotations.steps import settled
from napari_histomil.files import whole_file

Choice = Literal["theirs", "ours", "both"]


@dataclass(frozen=True, slots=True)
class Settlement:
    """What a choice does; made in a thread where there is much."""

    command: Command | None
    """The step, with settled shapes (`steps.settled`); None if nothing changes here."""
    sha256: str | None
    """Of the file that was looked at; None if there is none."""
    notes: tuple[str, ...] = ()
    """Sentences for the person about what was met in the file."""


def settlement(
    choice: Choice, annotations: AnnotationSet, path: Path, frame: SlideFrame
) -> Settlement:
    """Return what a choice does; nothing is done, and the set is only looked up in.

    Raises
    ------
    AnnotationError
        If the file cannot be read.
    """
    sha256 = hash_of(path)  # before reading: what is written from now on is another conflict
    if choice == "ours":
        return Settlement(None, sha256)
    file = read_geojson(path, frame=frame) if path.exists() else AnnotationFile((), frame)
    command, notes = (_theirs if choice == "theirs" else _both)(annotations, file)
    changes = command.removed or command.added or command.extra
    return Settlement(
        settled(command, frame.origin_px0) if changes else None, sha256, (*file.notes, *notes)
    )


def keep_beside(path: Path) -> Path:
    """Copy a file to a free name beside it, ``annotations.theirs-1.geojson``.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    number = 1
    while (kept := path.with_name(f"{path.stem}.theirs-{number}{path.suffix}")).exists():
        number += 1
    with whole_file(kept) as part:
        part.write_bytes(path.read_bytes())
    return kept


def _theirs(annotations: AnnotationSet, file: AnnotationFile) -> tuple[Command, list[str]]:
    theirs = {region.id: region for region in file.regions}
    ours = {region.id: region for region in annotations}
    same = {each for each, region in theirs.items() if ours.get(each) == region}
    command = Command(
        f"take {counted(theirs)} of another program",
        {each: region for each, region in ours.items() if each not in same},
        {each: region for each, region in theirs.items() if each not in same},
        extra=None if annotations.extra == file.extra else (annotations.extra, file.extra),
    )
    return command, []


def _both(annotations: AnnotationSet, file: AnnotationFile) -> tuple[Command, list[str]]:
    added = {}
    for region in file.regions:
        if region.id not in annotations:
            added[region.id] = region
        elif annotations.get(region.id) != region:
            copy = region.but(id=str(uuid.uuid4()))
            added[copy.id] = copy
    extra, lost = joined(annotations.extra, file.extra, "the other program")
    command = Command(
        f"bring in {counted(added)} of another program",
        added=added,
        extra=None if extra == annotations.extra else (annotations.extra, extra),
    )
    return command, lost
