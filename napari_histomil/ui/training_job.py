"""What the Train dock's thread does, and what lies on the disk of trainings that are not done.

Beside the trainer's own files, an unfinished training's folder holds what it was started with, so
that a later window can go on: ``train.toml``, and ``dock.json`` with seed and device.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_histomil.errors import TrainingError
from napari_histomil.files import whole_file
from napari_histomil.inference.courtesy import behind_the_window, give_way
from napari_histomil.manifest import ModelManifest, load_manifest
from napari_histomil.training.config import TrainingConfig, config_to_toml, read_config
from napari_histomil.training.curves import FILE as CURVES_FILE
from napari_histomil.training.curves import read_curves
from napari_histomil.ui.torch_shield import shield_torch
from napari_histomil.ui.training_plan import model_folder

if TYPE_CHECKING:
    from napari_histomil.training.loop import TrainingProgress

CONFIG_FILE, ABOUT_FILE = "train.toml", "dock.json"

WORKING_SUFFIX = ".training"
"""Of the folder in which the trainer keeps what is not finished, see `working.working_folder`."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A training to be run."""

    config: TrainingConfig
    data: Path = Path("/")
    """Folder that paths in the configuration are relative to."""
    seed: int = 0
    device: str = "auto"

    @property
    def folder(self) -> Path:
        """The model folder that it ends in."""
        return model_folder(self.config.name)

    @property
    def working_folder(self) -> Path:
        """Where it lies until then."""
        return self.folder.with_name(f"{self.folder.name}{WORKING_SUFFIX}")


def train_steps(
    plan: Plan, cancel: threading.Event, *, resume: bool
) -> Iterator[TrainingProgress | ModelManifest]:
    """Train, or go on with it; yield after every step, and the model at the end.

    A training that was cancelled ends without a model; what was done is kept.

    Parameters
    ----------
    plan
        What to do.
    cancel
        Ends it after the next step when set.
    resume
        Whether to go on with what lies in the working folder, or to begin anew.

    Raises
    ------
    HistomilError
        As `training.recipe.train_model`.
    """
    # Imports torch, which takes seconds: here, in the thread of the job.
    shield_torch()
    from napari_histomil.inference.devices import resolve_device
    from napari_histomil.training.loop import TrainingCancelled
    from napari_histomil.training.recipe import train_model

    device = str(resolve_device(plan.device))
    noted = False
    with (
        behind_the_window(),
        contextlib.closing(
            train_model(
                plan.config,
                plan.data,
                plan.folder,
                seed=plan.seed,
                device=device,
                cancel=cancel,
                resume=resume,
            )
        ) as steps,
        contextlib.suppress(TrainingCancelled),
    ):
        for progress in steps:
            if not noted:  # the working folder is there, and of this training
                _note(plan)
                noted = True
            yield progress
            give_way(cancel)
        with whole_file(plan.folder / CONFIG_FILE) as part:
            part.write_text(toml_of(plan), encoding="utf-8")
        for name in (CONFIG_FILE, ABOUT_FILE):
            (plan.working_folder / name).unlink(missing_ok=True)
        yield load_manifest(plan.folder)


def toml_of(plan: Plan, name: str = CONFIG_FILE) -> str:
    """Return a training as TOML, and above it the command that does the same."""
    seed = f" --seed {plan.seed}" if plan.seed else ""
    data = "" if plan.data == Path("/") else f" --data {plan.data}"
    head = f"# histomil train {name} -o FOLDER{data}{seed}\n"
    return head + config_to_toml(plan.config)


def _note(plan: Plan) -> None:
    """Keep what an unfinished training was started with."""
    about = {"seed": plan.seed, "device": plan.device, "data": str(plan.data)}
    with whole_file(plan.working_folder / CONFIG_FILE) as part:
        part.write_text(toml_of(plan), encoding="utf-8")
    with whole_file(plan.working_folder / ABOUT_FILE) as part:
        part.write_text(json.dumps(about) + "\n", encoding="utf-8")


def unfinished(name: str) -> Plan | None:
    """Return the training of a model that was cancelled or killed; None where there is none.

    Raises
    ------
    TrainingError
        If what lies there cannot be read.
    """
    folder = model_folder(name)
    working = folder.with_name(f"{folder.name}{WORKING_SUFFIX}")
    if not (working / CONFIG_FILE).is_file():
        return None
    try:
        about = json.loads((working / ABOUT_FILE).read_text(encoding="utf-8"))
        plan = Plan(
            read_config(working / CONFIG_FILE),
            Path(about["data"]),
            int(about["seed"]),
            str(about["device"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(
            f"The unfinished training in {working} cannot be read: remove the folder, or give the "
            f"model another name."
        ) from error
    return plan


def all_unfinished() -> list[str]:
    """Return the names of models whose training can be gone on with."""
    folder = model_folder("x").parent
    found = sorted(folder.glob(f"*{WORKING_SUFFIX}/{CONFIG_FILE}"))
    return [path.parent.name.removesuffix(WORKING_SUFFIX) for path in found]


def earlier_rows(plan: Plan) -> list[Mapping[str, float]]:
    """Return the curves of what was done before, one row a step, the loss as progress tells it."""
    path = plan.working_folder / "finished" / CURVES_FILE
    if not path.is_file():
        return []
    rows: list[Mapping[str, float]] = []
    loss = None
    for row in read_curves(path):
        loss = row["loss"] if loss is None else 0.95 * loss + 0.05 * row["loss"]
        rows.append({**row, "loss": loss})
    return rows


# --- held-out scores in words -------------------------------------------------------------------

_NAMES = {
    "mean_dice": "mean Dice of the classes",
    "dice": "Dice",
    "auroc": "AUROC",
    "kappa": "κ",
    "average_precision": "average precision",
}

_KEPT = {
    "test": "Test, asked once",
    "validation": "Validation, on which the weights were chosen",
}


def score_lines(model: ModelManifest) -> list[str]:
    """Return a model's held-out scores in words, with their 95 % intervals.

    One line for each part of the data that it was asked about.
    """
    lines = []
    for name, words in _KEPT.items():
        block = model.scores.get(name)
        found = _figures(block) if isinstance(block, Mapping) else []
        if found:
            lines.append(f"{words}: {'; '.join(found)}.")
    return lines


def _figures(block: Mapping[str, Any]) -> list[str]:
    """Return the figures of a block, or of the table in it, each with its interval."""
    found = []
    for key, words in _NAMES.items():
        value = block.get(key)
        if isinstance(value, int | float):
            found.append(f"{words} {value:.3f}{_interval(block, key)}")
    inner = (block.get(part) for part in ("all", "pixels"))
    return found or next((_figures(part) for part in inner if isinstance(part, Mapping)), [])


def _interval(block: Mapping[str, Any], key: str) -> str:
    """Return the interval of a figure; of one group there is none."""
    ends, groups = block.get(f"{key}_95"), block.get("groups")
    if groups == 1:
        return " (one slide or patient, so without an interval)"
    if not isinstance(ends, list | tuple) or len(ends) != 2 or None in ends:
        return ""
    return f" (95 %: {ends[0]:.3f} to {ends[1]:.3f})"
