"""All that a truth says of stored runs: tiles, pixels, pieces, slides, FROC; of one model or two.

One slide is looked at at a time; what is kept of it are tables of its tiles, counts of its pixels
and a row of figures. A level that cannot be scored says why, and the others are scored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_histomil.errors import HistomilError, RunError
from napari_histomil.results import MilRun, RunStore, SegmentationStore, open_result
from napari_histomil.review.candidates import RADIUS_UM, maxima
from napari_histomil.review.class_scores import ClassScores, score_classes, tile_classes
from napari_histomil.review.compare_runs import scores_at
from napari_histomil.review.froc import Froc, Hits, froc, hit_lesions
from napari_histomil.review.intervals import ROUNDS
from napari_histomil.review.lesion_masks import find_lesions
from napari_histomil.review.object_scores import (
    ObjectScores,
    Pieces,
    called_picture,
    match_pieces,
    score_pieces,
)
from napari_histomil.review.paired import Paired, delong, mcnemar, paired_bootstrap
from napari_histomil.review.scored import (
    Scored,
    class_index,
    join,
    positive_scores,
    score_picture,
    score_slides,
    score_tile_pixels,
    score_tiles,
)
from napari_histomil.review.scoring import Scores, plain_figures, score
from napari_histomil.review.slide_answers import Rule, slide_answer
from napari_histomil.review.truth import (
    POSITIVE_SHARE,
    Floats,
    TileTruth,
    Truth,
    positive_indices,
    sides,
    tile_truth,
)
from napari_histomil.review.truth_files import AnyRun, Case, check_same_slide, open_truth

TILES, UNMIXED, PIXELS, SLIDES = "tiles", "tiles without mixed", "pixels", "slides"
"""Levels that scores are given at; pieces and FROC are apart."""

WHAT: Mapping[str, str] = {
    TILES: "tiles, mixed ones by what they have more of",
    UNMIXED: "tiles without those between 5 % and 95 %",
    PIXELS: "pixels of the judged area, each counted once",
    SLIDES: "slides",
}


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of the runs."""

    positive: str = ""
    """Class of the truth that counts as positive; by default the model's positive class."""
    answer: str = ""
    """The model's class; by default its positive class."""
    threshold: float = 0.5
    from_share: float = POSITIVE_SHARE
    rule: Rule = field(default_factory=lambda: Rule("top", share=0.1))
    """How tiles become a slide's answer."""
    fully_annotated: bool = False
    """Whether the person declares all slides annotated as a whole."""
    values: Mapping[int, str] | None = None
    """Of masks that do not say it: value -> class."""
    ordered: bool = False
    """Whether the person declares the model's classes ordered, as grades are."""
    radius_um: float = RADIUS_UM
    """Of the maxima that FROC counts."""
    rounds: int = ROUNDS


@dataclass(frozen=True, slots=True)
class SlideRow:
    """One slide's figures."""

    slide: str
    patient: str
    run: str
    truth: str
    """Where its truth comes from, in words."""
    label: bool | None
    """Whether the slide is positive, where that is known."""
    answer: float | None
    """P(positive) of the slide."""
    figures: Mapping[str, float | int | None]


@dataclass(frozen=True, slots=True, eq=False)
class Judgement:
    """The answer."""

    question: Question
    positive: str
    model: Mapping[str, Any]
    other: Mapping[str, Any] | None
    """The second model, where there is one."""
    levels: Mapping[str, Scores]
    classes: ClassScores | None
    """Of the tiles of a model of three classes or more."""
    pieces: ObjectScores | None
    froc: Froc | None
    paired: Mapping[str, Paired]
    """Of two models, by level: the first less the second."""
    tests: Mapping[str, float]
    """p of DeLong's and McNemar's tests over slides, where each patient has one."""
    slides: tuple[SlideRow, ...]
    reasons: Mapping[str, str]
    """Level or test -> why there is none."""
    notes: tuple[str, ...]
    made: str
    versions: Mapping[str, str]

    def document(self, *, patients: bool = False) -> dict[str, Any]:
        """Return it as JSON takes it; patients and slides have numbers unless asked for names."""
        return {
            "schema_version": 1,
            "made": self.made,
            "versions": dict(self.versions),
            "positive": self.positive,
            "question": {
                "threshold": self.question.threshold,
                "tile_positive_from": self.question.from_share,
                "slide_rule": str(self.question.rule),
                "fully_annotated_declared": self.question.fully_annotated,
                "classes_ordered_declared": self.question.ordered,
                "froc_radius_um": self.question.radius_um,
                "bootstrap_rounds": self.question.rounds,
            },
            "model": dict(self.model),
            "other": None if self.other is None else dict(self.other),
            "levels": {name: scores.document() for name, scores in self.levels.items()},
            "classes": None if self.classes is None else self.classes.document(),
            "objects": None if self.pieces is None else self.pieces.document(),
            "froc": None if self.froc is None else self.froc.document(),
            "paired": {name: asdict(found) for name, found in self.paired.items()},
            "tests": dict(self.tests),
            "slides": self.rows(patients=patients),
            "not_scored": dict(self.reasons),
            "notes": list(self.notes),
        }

    def rows(self, *, patients: bool = False) -> list[dict[str, Any]]:
        """Return a row of plain values a slide; without `patients` names are numbers."""
        known = sorted({row.patient for row in self.slides})
        rows = []
        for number, row in enumerate(self.slides, 1):
            rows.append(
                {
                    "slide": row.slide if patients else f"slide {number}",
                    "patient": row.patient if patients else f"P{known.index(row.patient) + 1}",
                    "run": row.run,
                    "truth": row.truth if patients else row.truth.partition(",")[2].strip(),
                    "positive": row.label,
                    "answer": row.answer,
                    **row.figures,
                }
            )
        return rows


@dataclass(slots=True)
class _Parts:
    """What has been gathered of the slides so far."""

    tables: dict[str, list[Scored]] = field(default_factory=dict)
    others: dict[str, list[Scored]] = field(default_factory=dict)
    pieces: list[Pieces] = field(default_factory=list)
    hits: list[Hits] = field(default_factory=list)
    rows: list[SlideRow] = field(default_factory=list)
    answers: list[float | None] = field(default_factory=list)
    classes: list[tuple[Floats, NDArray[np.intp]]] = field(default_factory=list)
    class_names: tuple[str, ...] = ()
    without: int = 0
    """Truths that have nothing of the positive class."""

    def add(self, level: str, cases: Scored, second: Scored | None) -> None:
        self.tables.setdefault(level, []).append(cases)
        if second is not None:
            self.others.setdefault(level, []).append(second)


def judge_runs(
    cases: Sequence[Case],
    question: Question | None = None,
    *,
    watch: Callable[[Iterable[Case]], Iterable[Case]] = lambda each: each,
) -> Judgement:
    """Score stored runs of one model, or of two, against what is true.

    Parameters
    ----------
    cases
        A slide each.
    question
        What is asked.
    watch
        Wraps the cases in a progress bar.

    Raises
    ------
    HistomilError
        If a run or truth cannot be used, runs are of different models, or nothing is to be
        scored.
    """
    asked = question or Question()
    if not cases:
        raise RunError("There is no run to be scored.")
    parts = _Parts()
    models: list[Mapping[str, Any]] = []
    seconds: list[Mapping[str, Any]] = []
    positive = asked.positive
    for case in watch(cases):
        run = open_result(case.run)
        other = None if case.other is None else open_result(case.other)
        _one_model(models, run)
        if other is not None:
            _one_model(seconds, other)
            check_same_slide(run, other)
        answer = asked.answer or str(run.model.get("positive_class") or run.class_names[-1])
        positive = positive or answer
        _judge_one(case, run, other, asked, positive, answer, parts)
    return _judged(asked, positive, models[0], seconds[0] if seconds else None, parts)


def answer_of(run: AnyRun | MilRun, answer: str, rule: Rule) -> float | None:
    """Return P(class) of a slide: a MIL model's own, tiles' by a rule; None of a segmentation."""
    if isinstance(run, MilRun):
        names = [name.casefold() for name in run.class_names]
        if answer.casefold() not in names:
            raise RunError(f"The run {run.path.name} has no class {answer}.")
        return float(run.answer.probabilities[names.index(answer.casefold())])
    if isinstance(run, SegmentationStore):
        return None
    return slide_answer(positive_scores(run, answer), rule)


def _judge_one(
    case: Case,
    run: AnyRun | MilRun,
    other: AnyRun | MilRun | None,
    asked: Question,
    positive: str,
    answer: str,
    parts: _Parts,
) -> None:
    name = str(run.slide.get("name") or run.path.stem)
    patient = case.patient or name
    label: bool | None = None
    rule = "its label"
    figures: dict[str, float | int | None] = {}
    if not isinstance(run, MilRun):
        values = None if asked.values is None else dict(asked.values)
        opened = open_truth(
            case, run, positive=positive, fully_annotated=asked.fully_annotated, values=values
        )
        with opened as truth:
            if truth is not None:
                rule = truth.rule
                second = None if isinstance(other, MilRun) else other
                figures, label = _judge_tissue(
                    truth, run, second, asked, positive, answer, name, patient, parts
                )
    if case.label:
        label = case.label.casefold() == positive.casefold()
    said = answer_of(run, answer, asked.rule)
    parts.rows.append(SlideRow(name, patient, str(run.run_id), rule, label, said, figures))
    parts.answers.append(None if other is None else answer_of(other, answer, asked.rule))


def _judge_tissue(
    truth: Truth,
    run: AnyRun,
    other: AnyRun | None,
    asked: Question,
    positive: str,
    answer: str,
    slide: str,
    patient: str,
    parts: _Parts,
) -> tuple[dict[str, float | int | None], bool | None]:
    """Score one slide's tissue; return its figures, and whether it is positive or not known."""
    figures: dict[str, float | int | None] = {}
    if not positive_indices(truth.names, positive):
        parts.without += 1
    if isinstance(run, RunStore):
        said = positive_scores(run, answer)
        found = tile_truth(truth, run.grid, positive, from_share=asked.from_share)
        _must_be_judged(found, truth)
        if len(run.class_names) > 2:
            parts.classes.append(tile_classes(run, found))
            parts.class_names = run.class_names
        twin = _twin(run, other, answer)
        for level, mixed in ((TILES, True), (UNMIXED, False)):
            parts.add(level, *_both(said, twin, found, patient, mixed=mixed))
        pixels = score_tile_pixels(said, found, patient)
        parts.add(
            PIXELS, pixels, None if twin is None else score_tile_pixels(twin, found, patient)
        )
        tiles = parts.tables[TILES][-1]
        plain = plain_figures(tiles.counts(), asked.threshold)
        figures |= {"tiles": len(tiles), "positive_tiles": int(tiles.positive.sum())}
        figures |= {f"tile_{name}": plain[name].value for name in ("auroc", "recall", "precision")}
    else:
        class_index(run, answer)
        pixels = score_picture(run, truth, positive, patient, answer=answer)
        parts.add(PIXELS, pixels, None)
    counts = pixels.counts()
    tp, fp, fn, tn = (v * pixels.case_um2 / 1e6 for v in counts.at(asked.threshold))
    figures |= {
        "judged_mm2": tp + fp + fn + tn,
        "positive_mm2": tp + fn,
        "called_mm2": tp + fp,
        "dice": plain_figures(counts, asked.threshold)["f1"].value,
    }
    lesions = find_lesions(truth, positive, run.grid)
    hits = hit_lesions(maxima(run, answer, radius_um=asked.radius_um), lesions, slide, patient)
    called = called_picture(run, answer, asked.threshold, lesions.mpp)
    pieces = match_pieces(lesions, called, slide, patient)
    parts.hits.append(hits)
    parts.pieces.append(pieces)
    figures |= {
        "lesions": hits.lesions,
        "lesions_found": int(((hits.found >= asked.threshold) & ~hits.isolated).sum()),
        "isolated": int(hits.isolated.sum()),
        "false_positives": int((hits.false >= asked.threshold).sum()),
    }
    if counts.positives:
        return figures, True
    return figures, False if asked.fully_annotated else None


def _both(
    said: Any, twin: Any, found: TileTruth, patient: str, *, mixed: bool
) -> tuple[Scored, Scored | None]:
    """Return the tiles of both models; of two only those that both have answered."""
    if twin is None:
        return score_tiles(said, found, patient, mixed=mixed), None
    common = np.where(np.isfinite(twin), said, np.nan)
    first = score_tiles(common, found, patient, mixed=mixed)
    return first, score_tiles(np.where(np.isfinite(said), twin, np.nan), found, patient,
                              mixed=mixed)  # fmt: skip


def _twin(run: RunStore, other: AnyRun | None, answer: str) -> Any:
    """Return the second model's scores at the first one's tiles; None where it has none."""
    return scores_at(other, answer, run.grid) if isinstance(other, RunStore) else None


def _must_be_judged(found: TileTruth, truth: Truth) -> None:
    assert found.counts is not None, "made by tile_truth"
    assert found.unseen is not None, "made by tile_truth"
    total = sides(found.counts.sum(axis=0) + found.unseen, found.positive_classes)
    if not sum(int(v) for v in total):
        raise RunError(
            f"No pixel of the slide was judged ({truth.rule}): there is nothing to score it by."
        )


def _one_model(models: list[Mapping[str, Any]], run: AnyRun | MilRun) -> None:
    """Refuse runs of several models; raises `RunError`."""
    facts = {name: run.model.get(name) for name in ("name", "sha256")}
    if models and models[0] != facts:
        raise RunError(
            f"{run.path.name} is a run of {facts['name']}, and those before of "
            f"{models[0]['name']}: score one model at a time, or give the second as 'other'."
        )
    models.append(facts)


def _judged(
    asked: Question,
    positive: str,
    model: Mapping[str, Any],
    other: Mapping[str, Any] | None,
    parts: _Parts,
) -> Judgement:
    """Put the slides together."""
    reasons: dict[str, str] = {}
    _add_slides(parts, reasons)
    levels = {
        level: score(join(found), threshold=asked.threshold, rounds=asked.rounds, what=WHAT[level])
        for level, found in parts.tables.items()
        if sum(len(part) for part in found)
    }
    if not levels:
        raise RunError(
            "There is nothing to score by: give annotations, a mask, another run, or labels."
        )
    paired = {
        level: paired_bootstrap(
            join(parts.tables[level]), join(second), threshold=asked.threshold, rounds=asked.rounds
        )
        for level, second in parts.others.items()
        if len(second) == len(parts.tables[level]) and level in levels
    }
    curve = None
    if parts.hits:
        try:
            curve = froc(parts.hits, rounds=asked.rounds)
        except RunError as error:
            reasons["froc"] = str(error)
    classes = None
    if parts.classes:
        try:
            classes = score_classes(
                np.concatenate([p for p, _ in parts.classes]),
                np.concatenate([truth for _, truth in parts.classes]),
                parts.class_names,
                ordered=asked.ordered,
            )
        except RunError as error:
            reasons["classes"] = str(error)
    notes = []
    if parts.without:
        notes.append(
            f"{parts.without} of {len(parts.pieces)} truths have no {positive}: all that was "
            f"judged there is negative."
        )
    pieces = None
    if parts.pieces:
        pieces = score_pieces(parts.pieces, asked.threshold, rounds=asked.rounds)
    return Judgement(
        question=asked,
        positive=positive,
        model=model,
        other=other,
        levels=levels,
        classes=classes,
        pieces=pieces,
        froc=curve,
        paired=paired,
        tests=_tests(parts, asked.threshold, reasons),
        slides=tuple(parts.rows),
        reasons=reasons,
        notes=tuple(notes),
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        versions={name: version(name) for name in ("napari-histomil", "numpy", "scipy")},
    )


def _add_slides(parts: _Parts, reasons: dict[str, str]) -> None:
    """Add the level of slides, of those whose label and answer are known."""
    known = [r for r in parts.rows if r.label is not None and r.answer is not None]
    if len(known) < 2:
        reasons[SLIDES] = (
            f"{len(known)} slides have both an answer and a label: two or more are needed"
        )
        return
    truth, patients = [bool(r.label) for r in known], [r.patient for r in known]
    cases = score_slides([float(r.answer or 0.0) for r in known], truth, patients)
    pairs = zip(parts.rows, parts.answers, strict=True)
    twins = [a for r, a in pairs if r.label is not None and r.answer is not None]
    second = None
    if all(twin is not None for twin in twins):
        second = cases.with_scores(np.array(twins, float))
    parts.add(SLIDES, cases, second)


def _tests(parts: _Parts, threshold: float, reasons: dict[str, str]) -> dict[str, float]:
    """Return p of the tests that want independent cases: of slides, one a patient."""
    if SLIDES not in parts.others:
        return {}
    first, second = join(parts.tables[SLIDES]), join(parts.others[SLIDES])
    truth = first.positive > 0
    found = {}
    right = [(each.score >= threshold) == truth for each in (first, second)]
    tests: dict[str, Callable[[], float]] = {
        "DeLong": lambda: delong(truth, first.score, second.score, first.patient).p,
        "McNemar": lambda: mcnemar(right[0], right[1], first.patient),
    }
    for name, test in tests.items():
        try:
            found[name] = test()
        except HistomilError as error:
            reasons[name] = str(error)
    return found
