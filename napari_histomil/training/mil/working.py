"""What of a training is not finished, on the disk: ``<model folder>.training``."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from napari_histomil.errors import OutputError, TrainingError
from napari_histomil.files import whole_file
from napari_histomil.training import checkpoint, curves
from napari_histomil.training.recipe import ABOUT_FILE, FINISHED, SPLIT_FILE


def open_folder(
    folder: Path, training: str, split: Mapping[str, Sequence[str]], *, resume: bool
) -> None:
    """Make a working folder, or make sure that the one there is of the same training.

    Parameters
    ----------
    folder
        See `working_folder`.
    training
        Hash of all that decides the weights.
    split
        Side -> groups, for people.
    resume
        Whether to go on with what is there, or to begin anew.

    Raises
    ------
    TrainingError
        If it is of another training.
    OutputError
        If it cannot be made or read.
    """
    about = {"schema_version": 1, "training": training}
    try:
        if folder.exists() and not resume:
            shutil.rmtree(folder)
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
