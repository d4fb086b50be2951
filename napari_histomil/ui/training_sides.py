"""Who learns, who chooses the weights, who is asked at the end: drawn before anything is read.

The split is drawn by the trainer's own `hold_out` from stand-ins of the slides, and the
configuration (`training_plan.py`) names who was drawn. So what the Train dock shows is what is
done, here and by ``histomil train``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from napari_histomil.errors import TrainingError
from napari_histomil.training.config import (
    Split,
)
from napari_histomil.training.splits import connect, hold_out
from napari_histomil.ui.training_choices import Choices

SHARE = 0.2
"""Of the groups: for the validation, and as much for the test."""

TRAIN, VALIDATION, TEST = "training", "validation", "test"


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
    groups = groups_of(choices)
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


def groups_of(choices: Choices) -> list[str]:
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
