"""What the Train dock's choices come to: who learns from what, and a `TrainingConfig`.

The split is drawn by the trainer's own `hold_out` from stand-ins of the slides, and the
configuration names who was drawn. So what the dock shows is what is done, here and by
``histomil train``. Nothing here knows Qt or torch.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

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
from napari_histomil.training.splits import connect, hold_out
from napari_histomil.ui.training_data import AnnotatedSlide, TileFolder

Task = Literal["segment", "classify"]
Kept = Literal["validation", "test", "none"]
"""What is kept from the training: a validation, a validation and a test, nothing."""

SHARE = 0.2
"""Of the groups: for the validation, and as much for the test."""

SCALING = Scaling((0.70, 0.54, 0.70), (0.20, 0.22, 0.15))
"""Mean and standard deviation of H&E, as those of the shipped models."""

LOOKS, LEAST_EVERY = 20, 10
"""Looks at the validation in a training, and steps between two of them at least."""

UNKNOWN_LICENCE = "not stated"

TRAIN, VALIDATION, TEST = "training", "validation", "test"


@dataclass(frozen=True, slots=True)
class Preset:
    """A network that is chosen by one word."""

    title: str
    tooltip: str
    architecture: str
    arguments: Mapping[str, Any]


_THIN = {"channels": [32, 64, 128, 256]}

PRESETS: Mapping[Task, tuple[Preset, ...]] = {
    "segment": (
        Preset(
            "Small",
            "U-Net on a thin ResNet-18, 3 million weights: trained in an hour or two on a CPU",
            "smp/unet",
            {
                "encoder_name": "tu-resnet18",
                **_THIN,
                "decoder_channels": [128, 64, 48, 32, 16],
            },
        ),
        Preset(
            "Medium",
            "U-Net on a whole ResNet-34, 24 million weights: for many slides and a GPU",
            "smp/unet",
            {"encoder_name": "tu-resnet34"},
        ),
    ),
    "classify": (
        Preset(
            "Small",
            "Thin ResNet-18 that looks at the middle of the tile and sees what is around it, "
            "as metastasis-patch-small",
            "histomil/centre-patch",
            {"backbone": "resnet18", "backbone_arguments": _THIN, "level": 3, "dropout": 0.2},
        ),
        Preset(
            "Medium",
            "The same with a whole ResNet-34: for many slides and a GPU",
            "histomil/centre-patch",
            {"backbone": "resnet34", "level": 3, "dropout": 0.2},
        ),
    ),
}

TILES_PX: Mapping[Task, int] = {"segment": 256, "classify": 192}
"""Side of a tile that is right by default."""

CELL_STEP_PX = 32
"""Tiles are whole numbers of these: nets halve their picture five times."""


@dataclass(frozen=True, slots=True)
class Choices:
    """All that is chosen in the dock."""

    name: str
    task: Task = "segment"
    slides: tuple[AnnotatedSlide, ...] = ()
    """Those that are ticked."""
    groups: Mapping[Path, str] = field(default_factory=dict)
    """Patient (or whatever belongs together) of a slide, where one was typed."""
    tiles: TileFolder | None = None
    """Instead of slides."""
    classes: tuple[ClassSpec, ...] = ()
    """What the model is to tell apart."""
    positive: str = ""
    background: str = ""
    """Class of all else inside ``Region*``; empty for none."""
    kept: Kept = "validation"
    split_seed: int = 0
    mpp: float = 1.0
    tiles_mpp: float = 1.0
    """Of a folder of tiles."""
    tile_px: int = TILES_PX["segment"]
    network: Network | None = None
    """None for the small preset."""
    steps: int = 1000
    batch: int = 12
    bf16: bool = False
    """Whether the device computes faster in bfloat16: graphics cards do, few processors do."""
    base: TrainingConfig | None = None
    """A training from a file: all that the dock does not show is taken from it."""


# --- who is on which side -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Stand:
    """Stands for a slide that is not read yet."""

    name: str
    group: str
    present: tuple[int, ...]


def sides_of(choices: Choices) -> dict[Path, str]:
    """Return what each slide is for: ``training``, ``validation`` or ``test``.

    Slides of one group, of one name, or of the same pixels are on one side.

    Raises
    ------
    TrainingError
        If they are too few, or one that holds nothing of the classes is among them.
    """
    slides = choices.slides
    if not slides:
        raise TrainingError("There is nothing to learn from: tick a slide, or add some.")
    names = [each.name for each in choices.classes]
    present = []
    for slide in slides:
        own = {names.index(n) for n, count in slide.counts.items() if count and n in names}
        if slide.bounded and choices.background:
            own.add(names.index(choices.background))
        if not own:
            raise TrainingError(
                f"{slide.path.name} holds no region of the classes to tell apart: untick it, or "
                f"tick one of its classes."
            )
        present.append(tuple(sorted(own)))
    groups = _groups(choices)
    stands = [
        _Stand(s.path.name, group, own)
        for s, group, own in zip(slides, groups, present, strict=True)
    ]
    wanted = {"validation": (SHARE, 0.0), "test": (SHARE, SHARE), "none": (0.0, 0.0)}
    validation, test = wanted[choices.kept]
    number, needed = len(set(groups)), 1 + (validation > 0) + (test > 0)
    if number < needed:
        what = "a training, a validation and a test" if test else "a training and a validation"
        raise TrainingError(
            f"{number} {'patient or slide is' if number == 1 else 'patients or slides are'} too "
            f"few for {what}: add more, or keep less from the training."
        )
    sides = hold_out(stands, Split(validation, test, seed=choices.split_seed))  # type: ignore[arg-type]
    learnt = {label for stand in sides.train for label in stand.present}
    missing = [name for index, name in enumerate(names) if index not in learnt]
    if missing:
        raise TrainingError(
            f"{missing[0]} is on no slide that is left for the training: add slides with it, keep "
            f"less from the training, or untick the class."
        )
    held = {VALIDATION: sides.validation, TEST: sides.test}
    side = {stand.group: word for word, stands in held.items() for stand in stands}
    return {
        slide.path: side.get(group, TRAIN) for slide, group in zip(slides, groups, strict=True)
    }


def _groups(choices: Choices) -> list[str]:
    """Return the group of each slide, see `sides_of`."""
    keys = []
    for slide in choices.slides:
        typed = choices.groups.get(slide.path, "").strip()
        own = [f"group {typed}"] if typed else []
        keys.append([*own, f"name {slide.path.name}", slide.fingerprint or str(slide.path)])
    return connect(keys)


def split_text(choices: Choices) -> str:
    """Return how the data is split, in a sentence.

    Raises
    ------
    TrainingError
        As `sides_of`.
    """
    if choices.tiles is not None:
        number = choices.tiles.group_count
        needed = {"validation": 2, "test": 3, "none": 1}[choices.kept]
        if number < needed:
            raise TrainingError(
                f"{number} pictures or groups are too few for that split: keep less from the "
                f"training."
            )
        shares = {
            "validation": "80 % for training, 20 % for validation",
            "test": "60 % for training, 20 % for validation, 20 % for a test",
            "none": "all for training: no score will say how good the model is",
        }
        return f"{number} groups of pictures: {shares[choices.kept]}."
    sides = list(sides_of(choices).values())
    parts = [f"{sides.count(TRAIN)} for training"]
    parts += [f"{sides.count(s)} for {s}" for s in (VALIDATION, TEST) if s in sides]
    if choices.kept == "none":
        parts.append("no score will say how good the model is")
    return f"Slides: {', '.join(parts)}."


# --- the configuration --------------------------------------------------------------------------


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
    schedule = Schedule(choices.steps, choices.batch, bf16=choices.bf16)
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
    group = dict(zip((s.path for s in choices.slides), _groups(choices), strict=True))
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
