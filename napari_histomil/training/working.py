"""What of a training is not finished, on the disk: ``<model folder>.training``."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from napari_histomil.errors import OutputError, TrainingError
from napari_histomil.files import whole_file
from napari_histomil.training import checkpoint, curves

ABOUT_FILE, SPLIT_FILE = "training.json", "split.json"

FINISHED = "finished"
"""Folder of the finished net's checkpoints and curves."""


def working_folder(out: Path) -> Path:
    """Return where the unfinished training of a model lies."""
    return out.with_name(f"{out.name}.training")


def clear(folder: Path) -> None:
    """Remove what lies unfinished.

    Raises
    ------
    OutputError
        If it cannot be removed.
    """
    try:
        if folder.exists():
            shutil.rmtree(folder)
    except OSError as error:
        raise OutputError(f"{folder} cannot be used: {error}.") from error


def open_folder(
    folder: Path, about: Mapping[str, Any], split: Mapping[str, Sequence[str]]
) -> None:
    """Make a working folder, or make sure that the one there is of the same training.

    Parameters
    ----------
    folder
        See `working_folder`.
    about
        JSON values that are the same for the same training only.
    split
        Side -> groups, for people.

    Raises
    ------
    TrainingError
        If it is of another training.
    OutputError
        If it cannot be made or read.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        there = folder / ABOUT_FILE
        if there.exists() and json.loads(there.read_text(encoding="utf-8")) != about:
            raise TrainingError(
                f"{folder} holds an unfinished training of another configuration, seed or data: "
                f"go back to those to go on with it, or begin anew with --fresh."
            )
    except (OSError, ValueError) as error:
        raise OutputError(f"{folder} cannot be used: {error}.") from error
    for name, content in ((ABOUT_FILE, about), (SPLIT_FILE, split)):
        with whole_file(folder / name) as part:
            part.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", "utf-8")


def tidy(folder: Path, model: Path) -> None:
    """Copy what is told of a training into the model's folder; checkpoints have served."""
    for source in (folder / SPLIT_FILE, folder / FINISHED / curves.FILE):
        with whole_file(model / source.name) as part:
            part.write_bytes(source.read_bytes())
    for file in folder.glob(f"*/{checkpoint.FILE}"):
        file.unlink(missing_ok=True)
    (folder / ABOUT_FILE).unlink(missing_ok=True)
