"""The `TrainingConfig` that the Train dock's choices come to; without Qt and torch."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from napari_histomil.errors import TrainingError, listed
from napari_histomil.manifest import ClassSpec
from napari_histomil.resources import user_data_dir
from napari_histomil.tiling import GridSpec
from napari_histomil.training.config import (
    Network,
    Scaling,
    Schedule,
    Source,
    Split,
    TrainingConfig,
    Validation,
)
from napari_histomil.ui.training_choices import CELL_STEP_PX, PRESETS, Choices, Task
from napari_histomil.ui.training_data import AnnotatedSlide, TileFolder
from napari_histomil.ui.training_sides import SHARE, TEST, VALIDATION, groups_of, sides_of

SCALING = Scaling((0.70, 0.54, 0.70), (0.20, 0.22, 0.15))
"""Mean and standard deviation of H&E, as those of the shipped models."""

LOOKS, LEAST_EVERY = 20, 10
"""Looks at the validation in a training, and steps between two of them at least."""

UNKNOWN_LICENCE = "not stated"


def config_of(choices: Choices) -> TrainingConfig:
    """Return the training that is chosen.

    Raises
    ------
    HistomilError
        If the choices do not go together, in one sentence.
    """
    check_name(choices.name)
    grid = grid_of(choices.task, choices.mpp, choices.tile_px)
    network = _network(choices, grid)
    schedule = Schedule(choices.steps, choices.batch)
    if choices.base is not None:
        base = choices.base
        same_grid = (base.grid.mpp, base.grid.tile_px) == (grid.mpp, grid.tile_px)
        return replace(
            base,
            name=choices.name,
            grid=base.grid if same_grid else grid,
            network=network,
            schedule=replace(base.schedule, steps=choices.steps, batch=choices.batch),
        )
    classes = _ordered(choices)
    if len(classes) < 2:
        raise TrainingError(
            "A model needs two classes to tell apart: tick two, or one and a background class."
        )
    if choices.positive == choices.background:
        raise TrainingError("The positive class cannot be the background class: choose another.")
    sources, split = _data(choices, classes)
    words = [each.name for each in classes]
    return TrainingConfig(
        name=choices.name,
        description=f"Tells {listed(words)} apart.",
        licence=UNKNOWN_LICENCE,
        positive_class=choices.positive,
        grid=grid,
        network=network,
        normalisation=SCALING,
        classes=classes,
        sources=sources,
        schedule=schedule,
        task=choices.task,
        background_class=choices.background if choices.task == "segment" else "",
        split=split,
        validation=Validation(
            every=max(choices.steps // LOOKS, LEAST_EVERY), metric=_metric(choices, classes)
        ),
    )


def check_name(name: str) -> None:
    """Refuse a name that cannot be a folder's.

    Raises
    ------
    TrainingError
        If it cannot.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name) or name.endswith("."):
        raise TrainingError(
            "The model needs a name of letters, digits, '-', '_' and '.', such as my-tumour-unet."
        )


def grid_of(task: Task, mpp: float, tile_px: int) -> GridSpec:
    """Return tiles, cells and margins of a task, all from the side of a tile."""
    if tile_px % CELL_STEP_PX:
        raise TrainingError(
            f"A tile of {tile_px} px is no multiple of {CELL_STEP_PX}: nets halve it five times."
        )
    if task == "segment":
        return GridSpec(mpp, tile_px, tile_px // 2, tile_px // 8)
    return GridSpec(mpp, tile_px, max(tile_px // 3 // CELL_STEP_PX, 1) * CELL_STEP_PX)


def _network(choices: Choices, grid: GridSpec) -> Network:
    preset = PRESETS[choices.task][0]
    network = choices.network or Network(preset.architecture, dict(preset.arguments))
    if network.architecture == "histomil/centre-patch":
        return replace(network, arguments={**network.arguments, "cell_px": grid.stride_px})
    return network


def _ordered(choices: Choices) -> tuple[ClassSpec, ...]:
    """Return the classes, the background first: so a classifier has it."""
    return tuple(sorted(choices.classes, key=lambda each: each.name != choices.background))


def _metric(choices: Choices, classes: Sequence[ClassSpec]) -> Any:
    """Return what the best weights are chosen by: what the validation allows to work out."""
    if choices.kept == "none":
        return "loss"
    if choices.tiles is None:
        held = [path for path, side in sides_of(choices).items() if side == VALIDATION]
        shown = [slide for slide in choices.slides if slide.path in held]
        drawn = {name for slide in shown for name, number in slide.counts.items() if number}
        if any(slide.bounded for slide in shown) and choices.background:
            drawn.add(choices.background)
        drawn &= {each.name for each in classes}
        others = drawn - {choices.positive if choices.task == "classify" else choices.background}
        if not others or (choices.task == "classify" and choices.positive not in drawn):
            return "loss"
    return "dice" if choices.task == "segment" else "auroc"


def _data(choices: Choices, classes: Sequence[ClassSpec]) -> tuple[tuple[Source, ...], Split]:
    """Return where labelled pixels come from, and who is kept from the training."""
    if choices.tiles is not None:
        return (_tiles_source(choices, choices.tiles, classes),), _shares(choices)
    sides = sides_of(choices)
    held = {
        side: tuple(sorted({path.name for path, own in sides.items() if own == side}))
        for side in (VALIDATION, TEST)
    }
    return tuple(_slide_sources(choices, classes)), Split(
        validation_groups=held[VALIDATION], test_groups=held[TEST]
    )


def _shares(choices: Choices) -> Split:
    validation = 0.0 if choices.kept == "none" else SHARE
    test = SHARE if choices.kept == "test" else 0.0
    return Split(validation, test, seed=choices.split_seed)


def _slide_sources(choices: Choices, classes: Sequence[ClassSpec]) -> Iterable[Source]:
    """One source for each way in which annotations lie beside slides, slides counting alike."""
    words = {each.name for each in classes}
    drawn = {name for slide in choices.slides for name in slide.counts}
    by_file: dict[str, list[AnnotatedSlide]] = {}
    for slide in choices.slides:
        by_file.setdefault(slide.annotations, []).append(slide)
    for number, (file, slides) in enumerate(sorted(by_file.items()), start=1):
        yield Source(
            "slide",
            "slides" if number == 1 else f"slides {number}",
            UNKNOWN_LICENCE,
            share=float(len(slides)),
            slides=tuple(glob.escape(str(slide.path.absolute())) for slide in slides),
            annotations=file,
            class_names={name: name for name in sorted(words & drawn)},
            groups=_listed_groups(choices, slides),
        )


def _listed_groups(
    choices: Choices, slides: Sequence[AnnotatedSlide]
) -> tuple[tuple[str, ...], ...]:
    """Return the names (without suffix) of slides that belong together, where several do."""
    group = dict(zip((s.path for s in choices.slides), groups_of(choices), strict=True))
    together: dict[str, list[str]] = {}
    for slide in slides:
        together.setdefault(group[slide.path], []).append(slide.path.stem)
    return tuple(tuple(dict.fromkeys(names)) for names in together.values() if len(set(names)) > 1)


def _tiles_source(choices: Choices, tiles: TileFolder, classes: Sequence[ClassSpec]) -> Source:
    words = {each.name for each in classes}
    values = {
        value: word if word in words | {"background", "unlabelled"} else "unlabelled"
        for value, word in tiles.values.items()
    }
    return Source(
        "tiles",
        tiles.path.name or "tiles",
        UNKNOWN_LICENCE,
        path=str(tiles.path.absolute()),
        mpp=tiles.mpp or choices.tiles_mpp,
        values=values,
        groups=tiles.groups,
    )


def model_folder(name: str) -> Path:
    """Return where a model of that name is written: Run lists what lies there."""
    return user_data_dir() / "models" / name
