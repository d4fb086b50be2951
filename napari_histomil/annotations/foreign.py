"""A file that another program changed while it was ours: theirs, ours, or both."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Literal

from napari_histomil.annotations.collection import AnnotationSet, Command
from napari_histomil.annotations.geojson import read_geojson
from napari_histomil.annotations.model import Region, SlideFrame
from napari_histomil.files import whole_file

Choice = Literal["theirs", "ours", "both"]


def command_for(
    choice: Literal["theirs", "both"], annotations: AnnotationSet, path: Path, frame: SlideFrame
) -> Command:
    """Return the command that takes what is in the file in place of ours, or in addition.

    Raises
    ------
    AnnotationError
        If the file cannot be read.
    """
    regions = read_geojson(path, frame=frame).regions if path.exists() else ()
    return (_theirs if choice == "theirs" else _both)(annotations, regions)


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


def _theirs(annotations: AnnotationSet, regions: tuple[Region, ...]) -> Command:
    theirs = {region.id: region for region in regions}
    ours = {region.id: region for region in annotations}
    same = {each for each, region in theirs.items() if ours.get(each) == region}
    return Command(
        f"take {len(theirs):,} regions of another program",
        {each: region for each, region in ours.items() if each not in same},
        {each: region for each, region in theirs.items() if each not in same},
    )


def _both(annotations: AnnotationSet, regions: tuple[Region, ...]) -> Command:
    added = {}
    for region in regions:
        if region.id not in annotations:
            added[region.id] = region
        elif annotations.get(region.id) != region:
            copy = region.but(id=str(uuid.uuid4()))
            added[copy.id] = copy
    return Command(f"bring in {len(added):,} regions of another program", added=added)
