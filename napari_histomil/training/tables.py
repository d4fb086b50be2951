"""What lies beside pictures and slides: tables of labels, and what the values of masks mean."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from napari_histomil.annotations.training_tiles import CLASSES, MANIFEST
from napari_histomil.errors import TrainingError, listed
from napari_histomil.training.config import Source
from napari_histomil.training.labels import Labels

Row = Mapping[str, str]

NAMING = ("file", "tile")
"""Columns that name the picture or slide of a line: the second in what this program writes."""


def read_rows(source: Source, data: Path) -> dict[str, Row]:
    """Read a source's CSV of labels: what its column ``file`` (or ``tile``) says -> the row.

    Raises
    ------
    TrainingError
        If it cannot be read, or has no such column.
    """
    if not source.labels:
        return {}
    path = data / source.labels
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, ValueError, csv.Error) as error:
        raise TrainingError(f"{path} cannot be read as CSV: {error}.") from error
    name = next((column for column in NAMING if rows and column in rows[0]), None)
    if rows and name is None:
        raise TrainingError(
            f"{path} has no column 'file' (or 'tile') that names the pictures or slides."
        )
    return {
        row[name]: {k: v for k, v in row.items() if k != name and isinstance(v, str)}
        for row in rows
        if name is not None
    }


def as_written(source: Source, data: Path, labels: Labels) -> Source:
    """Return a source of tiles with what ``histomil annotations tiles`` wrote beside them.

    That is the meaning of the masks' values, µm/px, and whose tiles belong together; what the
    source says itself counts more. Other folders have no such files.

    Raises
    ------
    TrainingError
        If a file is damaged, or the model has none of the classes.
    """
    folder = data / source.path
    if (folder / MANIFEST).is_file() and not source.labels and not source.groups:
        source = replace(source, labels=str(Path(source.path, MANIFEST)))
    if not (folder / CLASSES).is_file() or source.values:
        return source
    try:
        facts = json.loads((folder / CLASSES).read_text(encoding="utf-8"))
        theirs = {str(int(c["value"])): str(c["name"]) for c in facts["classes"]}
        values = {str(int(facts[w])): w for w in ("background", "unlabelled")}
        mpp = float(facts["mpp"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"{folder / CLASSES} cannot be used: {error}.") from error
    wanted = source.class_names or {name: name for name in labels.names}
    ours = {name.casefold(): word for name, word in wanted.items()}
    words = {value: ours.get(name.casefold(), "unlabelled") for value, name in theirs.items()}
    if set(words.values()) <= {"unlabelled"}:
        raise TrainingError(
            f"{folder} has tiles of {listed(sorted(theirs.values()))}, and the model none of "
            f"these classes: name them under class_names."
        )
    return replace(source, values=words | values, mpp=source.mpp or mpp)
