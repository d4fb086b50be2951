"""The table of cases: a row each, with what models answered and readers judged; sorted, filtered.

A case that is read blindly shows nothing of a model's before the reader has locked an own answer:
here, so that no window, table or export can tell by mistake.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from napari_histomil.errors import ReviewError, listed
from napari_histomil.review import blind
from napari_histomil.review.expression import read_filter
from napari_histomil.review.predictions import Prediction, SlideFacts, class_of_label, error_of
from napari_histomil.review.project import Case, Project
from napari_histomil.review.verdicts import Verdict, VerdictLog

STATUS = "status"
STATES = ("to do", "in work", "done")

COLUMNS: dict[str, str] = {
    "case": "name of the case",
    "patient": "whose slide it is",
    "label": "the answer that is known to be right",
    "status": "to do, in work or done, of this reader",
    "predicted": "class that the main model answers",
    "p": 'its probability of the class asked about; p["model"] of another model',
    "error": "1 - probability of the class that is right",
    "uncertainty": "entropy of the probabilities, 1 where all are equal",
    "spread": "standard deviation of p over an ensemble",
    "area_mm2": "area of the cells over the threshold",
    "right": "whether the main model is right",
    "annotations": "number of regions drawn on the slide",
    "own": "this reader's own answer, locked before the model's was shown",
    "confidence": "of the own answer, 1 to 5",
    "final": "this reader's answer after the model's was shown",
    "judged": "number of places judged",
    "missed": "number of places where the model missed something",
    "tags": "tags of the case and of its places",
    "reader": "who has judged something of it",
    "note": "notes about the case and its places",
    "fact": "what else the table says of a case, by name",
}
"""Names that a filter may use and columns that are sorted by, with what they are."""

SORTABLE = tuple(name for name in COLUMNS if name not in ("tags", "fact"))
"""Columns that rows can be put in the order of."""

HIDDEN = ("predicted", "p", "p[]", "error", "uncertainty", "spread", "area_mm2", "right", "label")
"""What a blind reader does not see before the own answer is locked."""


@dataclass(frozen=True, slots=True)
class Row:
    """A case with all that is known of it."""

    case: Case
    facts: SlideFacts | None = None
    """Of the disk; None as long as nobody has looked."""
    problem: str = ""
    """Why the slide cannot be opened."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """Every column of `COLUMNS`; None where there is nothing, or it must not be seen."""
    hidden: bool = False
    """Whether the model's answer must not be seen yet."""

    @property
    def predictions(self) -> tuple[Prediction, ...]:
        """The models' answers, the main one first; none while they must not be seen."""
        return () if self.hidden or self.facts is None else self.facts.predictions


def row_of(
    case: Case,
    project: Project,
    log: VerdictLog,
    facts: SlideFacts | None = None,
    problem: str = "",
) -> Row:
    """Return the row of a case as it is now; of several, `rows_of` is quicker."""
    own = blind.own_answer(log, case.name)
    return _row(case, project, log.latest(), log, own, facts, problem)


def rows_of(
    project: Project,
    log: VerdictLog,
    facts: Mapping[str, SlideFacts] | None = None,
    problems: Mapping[str, str] | None = None,
    *,
    only: Collection[str] | None = None,
) -> list[Row]:
    """Return the rows of all cases, in the project's order.

    Parameters
    ----------
    project
        The project.
    log
        What was judged, as this reader has it.
    facts
        `facts_of` each slide that was looked at, by name of the case.
    problems
        Why a slide cannot be opened, likewise.
    only
        Names of the cases whose rows are wanted; None for all.
    """
    judged: dict[str, list[Verdict]] = {}
    own = blind.own_answers(log)
    for verdict in log.latest():
        judged.setdefault(verdict.case, []).append(verdict)
    return [
        _row(
            case,
            project,
            judged.get(case.name, []),
            log,
            own.get(case.name),
            (facts or {}).get(case.name),
            (problems or {}).get(case.name, ""),
        )
        for case in project.cases
        if only is None or case.name in only
    ]


def _row(
    case: Case,
    project: Project,
    verdicts: Iterable[Verdict],
    log: VerdictLog,
    own: blind.OwnAnswer | None,
    facts: SlideFacts | None,
    problem: str,
) -> Row:
    verdicts = [v for v in verdicts if v.case == case.name]
    hidden = project.blind and own is None
    # While one reads blindly, others' judgements would tell as much as the model's.
    seen = [v for v in verdicts if not (project.blind and v.reader != log.reader)]
    values: dict[str, Any] = dict.fromkeys(COLUMNS)
    values |= {
        "case": case.name,
        "patient": case.patient,
        "label": case.label or None,
        "status": status_of(case.name, log.reader, verdicts),
        "own": None if own is None else own.answer,
        "confidence": None if own is None else own.confidence,
        "final": log.answer(case.name, blind.FINAL) or (own.answer if own else None),
        "judged": len({v.place for v in seen if v.place is not None}),
        "missed": sum(v.question == "missed" and v.answer is True for v in seen),
        "tags": _tags(seen),
        "reader": ", ".join(sorted({v.reader for v in seen})) or None,
        "note": "; ".join(_notes(seen, project)) or None,
        "fact[]": case.facts,
    }
    if facts is not None:
        values["annotations"] = facts.annotations
        values |= _model_values(case, project, facts.predictions)
    if hidden:
        values |= dict.fromkeys(HIDDEN)
    return Row(case, facts, problem, values, hidden)


def _model_values(
    case: Case, project: Project, predictions: Sequence[Prediction]
) -> dict[str, Any]:
    if not predictions:
        return {}
    main = predictions[0]
    predicted = main.predicted(project.threshold)
    truth = class_of_label(case.label, main, project.positive)
    return {
        "predicted": main.classes[predicted],
        "p": main.p,
        "p[]": {each.model: each.p for each in predictions},
        "error": error_of(case.label, main, project.positive),
        "uncertainty": main.uncertainty,
        "spread": main.spread,
        "area_mm2": main.area_mm2,
        "right": None if truth is None else truth == predicted,
    }


def status_of(case: str, reader: str, verdicts: Iterable[Verdict]) -> str:
    """Return how far a reader is with a case."""
    own = [v for v in verdicts if v.case == case and v.reader == reader]
    for verdict in own:
        if verdict.question == STATUS:
            return str(verdict.answer)
    return STATES[1] if own else STATES[0]


def _tags(verdicts: Iterable[Verdict]) -> tuple[str, ...]:
    found = (tag for v in verdicts if isinstance(v.answer, tuple) for tag in v.answer)
    return tuple(dict.fromkeys(found))


def _notes(verdicts: Iterable[Verdict], project: Project) -> list[str]:
    notes = {question.name for question in project.form.questions if question.kind == "note"}
    return [str(v.answer) for v in verdicts if v.question in notes and v.answer]


# --- order -------------------------------------------------------------------------------------


def filtered(rows: Sequence[Row], expression: str) -> list[Row]:
    """Return the rows that an expression is true of; see `expression`.

    Raises
    ------
    ReviewError
        If it is none.
    """
    keep = read_filter(expression, COLUMNS)
    return [row for row in rows if keep(row.values)]


def ordered(
    rows: Sequence[Row], by: str, *, descending: bool = False, patients: bool = False
) -> list[Row]:
    """Return rows in the order of a column; those without a value come last, either way.

    Parameters
    ----------
    rows
        The rows.
    by
        A column of `COLUMNS`.
    descending
        The highest first: of `error` or `uncertainty` that is the list of failures.
    patients
        Keep the slides of a patient together, patients in the order of their first slide.

    Raises
    ------
    ReviewError
        If there is no such column, or it cannot be sorted by.
    """
    if by not in SORTABLE:
        raise ReviewError(f"Cases can be sorted by {listed(SORTABLE)}, not by {by!r}.")
    have = [row for row in rows if row.values.get(by) is not None]
    lack = [row for row in rows if row.values.get(by) is None]
    have.sort(key=lambda row: _key(by, row.values[by]), reverse=descending)
    found = [*have, *lack]
    if patients:
        first: dict[str, int] = {}
        for n, row in enumerate(found):
            first.setdefault(row.case.patient, n)
        found.sort(key=lambda row: first[row.case.patient])
    return found


def _key(by: str, value: Any) -> Any:
    if by == STATUS:
        return STATES.index(value) if value in STATES else -1
    return value.casefold() if isinstance(value, str) else value


def blind_order(project: Project, reader: str) -> list[Case]:
    """Return the cases in the order in which a reader reads them blindly."""
    places = {name: n for n, name in enumerate(blind.order(project, reader))}
    return sorted(project.cases, key=lambda case: places[case.name])
