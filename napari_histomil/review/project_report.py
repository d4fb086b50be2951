"""A review project as cases to be scored, and what its readers did as tables of a report."""

from __future__ import annotations

import numpy as np

from napari_histomil.annotations.keeping import kept_regions
from napari_histomil.annotations.model import REGION, walk
from napari_histomil.errors import HistomilError, ReviewError, RunError
from napari_histomil.review.blind import FINAL, OWN, changes
from napari_histomil.review.judging import Question
from napari_histomil.review.predictions import Prediction, SlideFacts, class_of_label, facts_of
from napari_histomil.review.project import Case as Reviewed
from napari_histomil.review.project import Project
from napari_histomil.review.readers import agreement_of, ratings_of
from napari_histomil.review.report import Table
from napari_histomil.review.slide_answers import read_rule
from napari_histomil.review.truth_files import DRAWN_HERE, Case
from napari_histomil.review.verdicts import VerdictLog
from napari_histomil.slides.readers import open_slide

NOBODY = "report"
"""Reader of a log that is only read."""


def cases_of_project(
    project: Project, *, fully_annotated: bool = False
) -> tuple[list[Case], Question, list[str]]:
    """Return a project's cases as they are scored: the main model's run, and what is known.

    What is drawn on a slide is its truth where there is a ``Region*`` or the slides are declared
    annotated as a whole; else the slide is scored by its label alone.

    Parameters
    ----------
    project
        The project.
    fully_annotated
        Whether the person declares all slides annotated as a whole.

    Returns
    -------
    cases, question, notes
        Notes say which cases are left out, by their place in the project, and why.

    Raises
    ------
    RunError
        If no case has an answer.
    """
    cases, notes = [], []
    first: Prediction | None = None
    second = ""
    for number, reviewed in enumerate(project.cases, 1):
        try:
            facts = facts_of(reviewed.slide, project)
        except HistomilError:  # its sentence names the slide
            notes.append(f"Case {number} is left out: its slide cannot be opened.")
            continue
        if not facts.predictions:
            notes.append(f"Case {number} is left out: no model has answered for it.")
            continue
        main = facts.predictions[0]
        if first is None:
            first = main
            second = next((each.model for each in facts.predictions[1:]), "")
        if main.model != first.model:
            notes.append(f"Case {number} is left out: {first.model} has not answered for it.")
            continue
        cases.append(_case(reviewed, facts, project, second, fully_annotated=fully_annotated))
    if first is None:
        raise RunError(f"No model has answered for a case of {project.path.name}: run one first.")
    target = first.classes[first.target]
    question = Question(
        positive=target,
        answer=target,
        threshold=project.threshold,
        rule=read_rule(project.rule),
        fully_annotated=fully_annotated,
    )
    return cases, question, notes


def reader_tables(project: Project, *, names: bool = False) -> list[Table]:
    """Return what became of own answers, and how far readers agree, as tables of a report.

    Parameters
    ----------
    project
        The project.
    names
        Whether readers are called by their names.
    """
    if not project.verdicts.is_dir():
        return []
    log = VerdictLog.open(project.verdicts, reader=NOBODY, read_only=True)
    readers = sorted({verdict.reader for verdict in log.all()})
    called = {reader: reader if names else f"R{n}" for n, reader in enumerate(readers, 1)}
    tables = []
    for reader in readers:
        found = changes(log, project, reader)
        if found.total:
            rows = [
                [f"own: {answer}", *map(str, counts)]
                for answer, counts in zip(found.answers, found.counts, strict=True)
            ]
            note = (
                f"{found.changed} of {found.total} answers changed once the model's was shown: "
                f"{found.to_model} to it, {found.from_model} away from it. Cases came in an order "
                f"drawn by the seed {project.seed}."
            )
            header = ["", *(f"final: {answer}" for answer in found.answers)]
            tables.append(Table(f"Changed answers, {called[reader]}", header, rows, note))
    for question in (OWN, FINAL):
        try:
            agreed = agreement_of(ratings_of(log, project, question))
        except ReviewError:
            continue  # fewer than two readers answered it
        rows = []
        for each in agreed.figures:
            title = each.name
            for reader, word in called.items():
                title = title.replace(reader, word)
            known = np.isfinite([each.low, each.high]).all()
            spread = f"{each.low:.3f} to {each.high:.3f}" if known else ""
            rows.append([title, str(each.score), spread, str(each.units)])
        tables.append(
            Table(
                f"Agreement of readers, {question}",
                ["", "value", "95 % interval", "cases"],
                rows,
                f"Intervals over {agreed.patients} patients.",
            )
        )
    return tables


def _case(
    reviewed: Reviewed, facts: SlideFacts, project: Project, second: str, *, fully_annotated: bool
) -> Case:
    main = facts.predictions[0]
    known = class_of_label(reviewed.label, main, project.positive)
    others = [each.run for each in facts.predictions[1:] if each.model == second]
    return Case(
        run=main.run,
        other=others[0] if others else None,
        annotations=DRAWN_HERE if _is_judged(reviewed, fully_annotated=fully_annotated) else "",
        label="" if known is None else main.classes[known],
        patient=reviewed.patient,
    )


def _is_judged(reviewed: Reviewed, *, fully_annotated: bool) -> bool:
    """Whether somebody has drawn something on a slide, and it is known where that is all."""
    with open_slide(reviewed.slide) as slide:
        regions = kept_regions(slide.info)
    marked = any(region.class_name == REGION for region in walk(regions))
    return bool(regions) and (marked or fully_annotated)
