"""What models answered for a case, found among the stored runs of its slide.

A patch classifier's tiles become one answer by a named rule (`slide_answers`); a MIL model has
answered itself. Segmentations answer for no slide and are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from napari_histomil.annotations.model import SlideFrame
from napari_histomil.annotations.recovery import FILE_NAME, JOURNAL_NAME, look
from napari_histomil.errors import HistomilError, RunError
from napari_histomil.heatmaps.scores import threshold_stats
from napari_histomil.resources import sidecars
from napari_histomil.results import MilRun, RunStore, find_runs, open_mil_run
from napari_histomil.results.mil import TASK as MIL_TASK
from napari_histomil.review.project import Project
from napari_histomil.review.slide_answers import read_rule, slide_answer
from napari_histomil.slides.readers import open_slide
from napari_histomil.slides.slide import SlideInfo


@dataclass(frozen=True, slots=True)
class Prediction:
    """One model's answer for a case."""

    model: str
    """Its name."""
    run: Path
    run_id: str
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]
    """Of each class. From the tiles of a patch classifier by a rule: of the class asked about,
    and of all others together."""
    target: int
    """The class asked about, as an index."""
    spread: float | None = None
    """Standard deviation of P(target) over the members of an ensemble."""
    area_mm2: float | None = None
    """Area of the cells whose score of the target is over the threshold; None of a MIL model."""
    how: str = ""
    """Where the probabilities are from, in words."""
    complete: bool = True
    """Whether all of the run is done."""

    @property
    def p(self) -> float:
        """Probability of the class asked about."""
        return self.probabilities[self.target]

    def predicted(self, threshold: float) -> int:
        """Return the index of the class answered: of two by the threshold, else the likeliest."""
        if len(self.classes) == 2:
            return self.target if self.p >= threshold else 1 - self.target
        return int(np.argmax(self.probabilities))

    @property
    def uncertainty(self) -> float:
        """Entropy of the probabilities as a share of the highest possible: 1 where all are equal.

        Where classes do not exclude each other, of P(target) alone.
        """
        p = np.array(self.probabilities)
        if not np.isclose(p.sum(), 1, atol=1e-3):
            p = np.array([self.p, 1 - self.p])
        p = p[p > 0]
        count = max(len(self.probabilities), 2)
        return float(abs((p * np.log(p)).sum()) / np.log(count))


def class_of_label(label: str, prediction: Prediction, positive: str = "") -> int | None:
    """Return which class a label stands for; None where it stands for none.

    A label is the name of a class, or, of two classes, `positive` (then the class asked about) or
    any other (then the other class).
    """
    if not label:
        return None
    names = [name.casefold() for name in prediction.classes]
    if positive and label.casefold() == positive.casefold():
        return prediction.target
    if label.casefold() in names:
        return names.index(label.casefold())
    return 1 - prediction.target if positive and len(names) == 2 else None


def error_of(label: str, prediction: Prediction, positive: str = "") -> float | None:
    """Return 1 - P(the class that is right): 0 is sure and right, 1 is sure and wrong."""
    truth = class_of_label(label, prediction, positive)
    return None if truth is None else 1 - prediction.probabilities[truth]


@dataclass(frozen=True, slots=True)
class SlideFacts:
    """What the disk knows of a case's slide."""

    fingerprint: str
    predictions: tuple[Prediction, ...]
    annotations: int
    """How many regions are drawn on it."""
    notes: tuple[str, ...] = ()
    """Why something could not be used, a sentence each."""


def facts_of(slide: Path, project: Project) -> SlideFacts:
    """Open a slide and look up what is stored about it.

    Raises
    ------
    SlideError
        If the slide cannot be opened.
    """
    with open_slide(slide) as opened:
        return stored_facts(opened.info, project)


def stored_facts(info: SlideInfo, project: Project) -> SlideFacts:
    """Look up what is stored about a slide that is open."""
    predictions, notes = predictions_of(info, project)
    try:
        annotations = count_annotations(info)
    except HistomilError as error:
        annotations, notes = 0, [*notes, str(error)]
    return SlideFacts(info.fingerprint, tuple(predictions), annotations, tuple(notes))


def predictions_of(info: SlideInfo, project: Project) -> tuple[list[Prediction], list[str]]:
    """Return each model's latest answer for a slide, and why others could not be used.

    Models come in the order of `Project.models`, else by name.
    """
    found: dict[str, Prediction] = {}
    notes: list[str] = []
    paths = [
        *find_runs(info, project.results, task="classify"),
        *find_runs(info, project.results, task=MIL_TASK),
    ]
    for path in sorted(set(paths), key=lambda p: -(p / "zarr.json").stat().st_mtime_ns):
        try:
            prediction = _prediction(path, project, found)
        except HistomilError as error:
            notes.append(str(error))
            continue
        if prediction is not None:
            found[prediction.model] = prediction
    order = project.models or tuple(sorted(found))
    return [found[name] for name in order if name in found], notes


def _prediction(path: Path, project: Project, found: dict[str, Prediction]) -> Prediction | None:
    """Return what a run answers; None if it is of no model asked for, or of one known by now."""
    store: RunStore | MilRun
    store = open_mil_run(path) if (path / "logits").is_dir() else RunStore.open(path)
    name = str(store.model["name"])
    if name in found or (project.models and name not in project.models):
        return None
    if isinstance(store, MilRun):
        return _of_mil(store, project.target)
    return _of_tiles(store, project)


def _of_mil(run: MilRun, target: str) -> Prediction:
    index = target_of(run.class_names, target, run.model.get("positive_class"), run.path)
    spread = run.answer.spread
    return Prediction(
        model=str(run.model["name"]),
        run=run.path,
        run_id=run.run_id,
        classes=run.class_names,
        probabilities=tuple(float(p) for p in run.answer.probabilities),
        target=index,
        spread=None if spread is None else float(spread[index]),
        how=run.answer.how,
    )


def _of_tiles(store: RunStore, project: Project) -> Prediction:
    index = target_of(
        store.class_names, project.target, store.model.get("positive_class"), store.path
    )
    scores = store.scores[:, index]
    answer = slide_answer(scores, read_rule(project.rule))
    name = store.class_names[index]
    others = [each for each in store.class_names if each != name]
    return Prediction(
        model=str(store.model["name"]),
        run=store.path,
        run_id=store.run_id,
        classes=(others[0] if len(others) == 1 else f"no {name}", name),
        probabilities=(1 - answer, answer),
        target=1,
        area_mm2=threshold_stats(store.grid, scores, project.threshold).area_mm2,
        how=project.rule,
        complete=store.complete,
    )


def target_of(classes: Sequence[str], target: str, positive: object, where: Path) -> int:
    """Return the index of the class asked about: named, else the model's positive, else the last.

    Raises
    ------
    RunError
        If the model has no class of that name.
    """
    wanted = target or (str(positive) if positive else classes[-1])
    for index, name in enumerate(classes):
        if name.casefold() == wanted.casefold():
            return index
    raise RunError(f"{where} knows no class {wanted!r}: its classes are {', '.join(classes)}.")


def count_annotations(info: SlideInfo) -> int:
    """Return how many regions are drawn on a slide.

    Raises
    ------
    HistomilError
        If they cannot be read.
    """
    for folder in sidecars(info.path, info.fingerprint):
        if (folder / FILE_NAME).is_file() or (folder / JOURNAL_NAME).is_file():
            return len(look(folder, SlideFrame.of(info)).annotations)
    return 0
