"""Score a finished model on labelled data, by the same code as in its training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from napari_histomil.errors import ModelError, TrainingError, listed
from napari_histomil.inference.backends import prepare_net
from napari_histomil.manifest import ModelManifest
from napari_histomil.nets.load import load_module
from napari_histomil.review.slide_answers import compare_rules
from napari_histomil.training.answers import ask, join
from napari_histomil.training.cells import Answers
from napari_histomil.training.config import (
    Network,
    Scaling,
    Schedule,
    Source,
    TrainingConfig,
    Validation,
    read_config,
)
from napari_histomil.training.data import PICTURES, read_sources
from napari_histomil.training.fields import Field
from napari_histomil.training.figures import rounded_all
from napari_histomil.training.scores import score
from napari_histomil.training.worst import Sheet, worst_sheet

LABELS_FILE = "labels.csv"


@dataclass(frozen=True, slots=True)
class Reading:
    """How data is read that does not say it itself."""

    mpp: float | None = None
    """Of pictures, µm/px; that of the model if None."""
    channel_order: str = "rgb"
    threshold: int = 127
    """Brighter pixels of a mask are of the positive class."""
    annotations: str = ""
    """Of a slide; what was drawn in this program if empty."""
    classes: Mapping[str, str] | None = None
    """Class in the data -> class of the model, or nothing to leave it out."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What came out."""

    scores: dict[str, Any]
    errors: Sheet | None


def evaluate(
    model: ModelManifest,
    fields: Sequence[Field],
    *,
    validation: Validation,
    device: str = "cpu",
) -> Evaluation:
    """Ask a model about all labelled pixels of some fields, and score what it says.

    Parameters
    ----------
    model
        In this program's own format.
    fields
        As `read_data` gives them.
    validation
        ``bootstraps``, ``unmixed`` and ``objects`` count.
    device
        ``cpu``, ``cuda`` or ``mps``.

    Raises
    ------
    ModelError
        If the model cannot be asked.
    TrainingError
        If nothing is labelled.
    """
    _must_answer(model)
    if model.chain is not None:
        raise ModelError(f"{model.name} is a chain and cannot be given single tiles.")
    if model.weights_format in ("safetensors", "torchscript"):
        net: Any = load_module(model).to(device)
    else:
        side = model.grid.tile_px
        net = prepare_net(model, (side, side), torch.device(device))
    answers = join([ask(model, net, f, objects=validation.objects) for f in fields])
    if not (len(answers) if isinstance(answers, Answers) else answers.labelled.sum()):
        raise TrainingError(
            "Nothing in the data is labelled with a class of the model: there is nothing to score."
        )
    scores = score(
        [answers],
        rounds=validation.bootstraps,
        unmixed=validation.unmixed,
        temperature=model.temperature,
    )
    if isinstance(answers, Answers):
        slides = slide_scores(answers, fields, model.temperature, validation.bootstraps)
        if slides is not None:
            scores["slides"] = slides
    return Evaluation(scores, worst_sheet(model, answers, fields))


def _must_answer(model: ModelManifest) -> None:
    """Refuse what is given something else than tiles, or says something else than classes."""
    why = ""
    if model.kind != "histomil":
        why = "is a model of the WSInfer zoo, which wants its tiles resized in its own way"
    elif model.task == "embed":
        why = "is an encoder, which tells no classes: train a classifier from it"
    elif model.task == "mil":
        why = "answers for whole slides, and these are labelled fields"
    elif model.inputs:
        why = "refines heatmaps of a chain and cannot be given tiles"
    if why:
        raise ModelError(f"{model.name} cannot be evaluated: it {why}.")


def slide_scores(
    answers: Answers, fields: Sequence[Field], temperature: float, rounds: int
) -> dict[str, Any] | None:
    """Return how well slides are answered from their tiles by each rule.

    None unless the fields name their slides (tag ``slide``), each slide is of one class, and
    there are both positive ones and others.
    """
    tags = {(f.name, f.group): f.tags for f in fields}
    keys = [
        tags[str(name), str(group)].get("slide")
        for name, group in zip(answers.field, answers.group, strict=True)
    ]
    if None in keys:
        return None
    slide = np.array(keys, str)
    chances = answers.probabilities(temperature)[:, answers.positive]
    rows = [np.flatnonzero(slide == name) for name in np.unique(slide)]
    truth = np.array([bool(answers.truth[own[0]]) for own in rows])
    pure = all(len(set(answers.share[own].tolist())) == 1 for own in rows)
    if not pure or truth.all() or not truth.any():
        return None
    patients = np.array([str(answers.group[own[0]]) for own in rows])
    rules = compare_rules([chances[own] for own in rows], truth, patients, rounds=rounds)
    found: dict[str, Any] = rounded_all(
        {
            "slides": len(rows),
            "positive": int(truth.sum()),
            "patients": len(np.unique(patients)),
            "rules": rules,
        }
    )
    return found


def read_data(
    model: ModelManifest, data: Path, reading: Reading, folder: Path | None = None
) -> list[Field]:
    """Read labelled data for a model: its labels are the model's classes.

    Parameters
    ----------
    model
        Whose grid and classes count.
    data
        A training's TOML (its sources with ``evaluate``, or all where none has it), a folder with
        ``images`` and ``masks``, a folder of pictures for each class, or a slide with annotations.
    reading
        How it is read where it does not say.
    folder
        What paths in a TOML are relative to; where it lies by default.

    Raises
    ------
    TrainingError
        If it is none of these, or its classes do not fit those of the model.
    """
    _must_answer(model)
    if data.suffix == ".toml":
        config = read_config(data)
        chosen = [s for s in config.sources if s.evaluate] or list(config.sources)
        sources = [_renamed(s, config, model, reading) for s in chosen]
        return read_sources(_as_training(model, sources), folder or data.parent)
    if not data.exists():
        raise TrainingError(f"There is no {data}: name a TOML file, a folder or a slide.")
    source = Source(
        "slide",
        data.name,
        "",
        path=data.name,
        channel_order="bgr" if reading.channel_order == "bgr" else "rgb",
        mpp=reading.mpp,
        threshold=reading.threshold,
    )
    names = {k: v for k, v in (reading.classes or {}).items() if v}
    names |= {n: n for n in model.class_names if n not in (reading.classes or {})}
    if (data / "images").is_dir() and (data / "masks").is_dir():
        source = replace(source, kind="tiles", path="", class_names=names)
        return read_sources(_as_training(model, [source]), data)
    if data.is_dir() and any(_holds_pictures(p) for p in data.iterdir()):
        theirs = sorted(p.name for p in data.iterdir() if _holds_pictures(p))
        sizes = [d.get("resize_px", 0) for d in model.training.get("data", ())]
        source = replace(
            source,
            kind="folders",
            path="",
            class_names=_matched(theirs, model, reading),
            labels=LABELS_FILE if (data / LABELS_FILE).is_file() else "",
            resize_px=max(sizes, default=0),
        )
        return read_sources(_as_training(model, [source]), data)
    _check(names.values(), model)
    source = replace(
        source,
        annotations=str(Path(reading.annotations).resolve()) if reading.annotations else "",
        class_names=names,
    )
    return read_sources(_as_training(model, [source]), data.parent)


def _holds_pictures(folder: Path) -> bool:
    return folder.is_dir() and any(p.suffix.lower() in PICTURES for p in folder.iterdir())


def _matched(theirs: Sequence[str], model: ModelManifest, reading: Reading) -> dict[str, str]:
    """Return what each class of the data is called by the model; left out is what is empty."""
    given = dict(reading.classes or {})
    unknown = sorted(set(given) - set(theirs))
    if unknown:
        raise TrainingError(
            f"The data has no class {unknown[0]!r}: it has {listed(sorted(theirs))}."
        )
    same = {name.casefold(): name for name in model.class_names}
    names = {name: given.get(name, same.get(name.casefold(), name)) for name in theirs}
    strange = [name for name, ours in names.items() if ours and ours not in model.class_names]
    if strange:
        ours = listed(model.class_names)
        raise TrainingError(
            f"{listed(strange)} of the data {'is' if len(strange) == 1 else 'are'} no class of "
            f"{model.name}, which knows {ours}: say which it is with --class "
            f"{strange[0]}=CLASS, or leave it out with --class {strange[0]}= ."
        )
    return {name: ours for name, ours in names.items() if ours}


def _check(names: Any, model: ModelManifest) -> None:
    for name in names:
        if name not in model.class_names:
            raise TrainingError(
                f"{model.name} has no class {name!r}: it knows {listed(model.class_names)}."
            )


def _renamed(
    source: Source, config: TrainingConfig, model: ModelManifest, reading: Reading
) -> Source:
    """Return a training's source with the model's names of classes."""
    given = dict(reading.classes or {})
    given_by = source.values or source.class_names
    whole = source.kind in ("tiles", "synthetic") and not given_by
    # a mask that only tells one class from all else needs no names of the other
    needed = config.class_names if not whole else [config.positive_class]
    if (
        whole
        and config.positive_class not in given
        and config.positive_class.casefold() not in {n.casefold() for n in model.class_names}
    ):
        _matched(needed, model, replace(reading, classes={}))
    names = {} if whole else _matched(needed, model, reading)

    def ours(word: str) -> str:
        return names.get(word, "unlabelled") if word in config.class_names else word

    used = source.class_names or {name: name for name in config.class_names}
    return replace(
        source,
        values={value: ours(word) for value, word in source.values.items()},
        class_names=(
            {theirs: ours(word) for theirs, word in used.items() if ours(word) != "unlabelled"}
            if source.kind in ("slide", "folders") or (source.kind == "tiles" and not whole)
            else {}
        ),
        unannotated=ours(source.unannotated) if source.unannotated else "",
        mpp=reading.mpp or source.mpp,
    )


def _as_training(model: ModelManifest, sources: Sequence[Source]) -> TrainingConfig:
    """Return a training that would read data as the model needs it; nothing is trained."""
    scaling = model.normalisation
    segments = model.segments
    others = [n for n in model.class_names if n != model.background_class]
    return TrainingConfig(
        name=model.name,
        description=model.description,
        licence=model.licence,
        positive_class=model.positive_class or others[-1],
        grid=model.grid,
        network=Network(model.architecture or ("smp/graph" if segments else "timm/graph")),
        normalisation=Scaling((0.0,) * 3, (1.0,) * 3)
        if scaling is None
        else Scaling(_three(scaling.mean), _three(scaling.std)),
        classes=model.classes,
        sources=tuple(sources),
        schedule=Schedule(1),
        task="segment" if segments else "classify",
        background_class=model.background_class or "",
        activation="sigmoid" if model.activation == "sigmoid" else "softmax",
    )


def _three(values: Sequence[float]) -> tuple[float, float, float]:
    red, green, blue = values
    return red, green, blue
