"""Reading blindly: an own answer is locked before the model's is shown, and both are kept.

The first answer that a reader locks for a case is the one that counts, whatever is added later;
it cannot be taken back. After the model's answer was shown, the reader may give another, final
one; the table of what became of answers says what the model changed.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from napari_histomil.errors import ReviewError, listed
from napari_histomil.review.project import Project
from napari_histomil.review.verdicts import Verdict, VerdictLog

OWN, CONFIDENCE, FINAL, REVEALED = "own answer", "confidence", "final answer", "revealed"
SECONDS, POSITION = "seconds", "position"
CONFIDENCES = (1, 2, 3, 4, 5)


@dataclass(frozen=True, slots=True)
class OwnAnswer:
    """What a reader answered for a case before seeing the model's answer."""

    case: str
    reader: str
    answer: str
    confidence: int
    """1, a guess, to 5, certain."""
    at: str
    """When it was locked, UTC in ISO 8601."""
    seconds: int = 0
    """How long the case had been on the screen."""
    position: int = 0
    """Where the case was in the reader's order, from 1; 0 if it was opened out of order."""


def order(project: Project, reader: str) -> list[str]:
    """Return the names of the cases in the order in which a reader reads them blindly.

    It depends on seed, reader and names alone: cases that are added later leave the others' order
    as it was, and each reader has another one, so that fatigue does not fall on the same cases.
    """

    def drawn(name: str) -> bytes:
        return hashlib.sha256(f"{project.seed}\0{reader}\0{name}".encode()).digest()

    return sorted((case.name for case in project.cases), key=drawn)


def lock(
    log: VerdictLog,
    project: Project,
    case: str,
    answer: str,
    confidence: int,
    *,
    seconds: float = 0,
) -> OwnAnswer:
    """Lock a reader's own answer; it is on the disk when this returns, in one step.

    Raises
    ------
    ReviewError
        If one is locked already, or it is none of the possible answers.
    OutputError
        If it cannot be written: nothing is locked.
    """
    if answer not in project.possible_answers:
        raise ReviewError(
            f"{answer!r} is none of the answers: {listed(project.possible_answers)}."
        )
    if confidence not in CONFIDENCES:
        raise ReviewError(f"The confidence is a number of 1 to 5, not {confidence!r}.")
    if own_answer(log, case) is not None:
        raise ReviewError(f"Your own answer for {project[case].name} is locked already.")
    position = order(project, log.reader).index(case) + 1
    log.append(
        Verdict(case, None, OWN, answer),
        Verdict(case, None, CONFIDENCE, confidence),
        Verdict(case, None, SECONDS, round(seconds)),
        Verdict(case, None, POSITION, position),
        for_good=True,
    )
    found = own_answer(log, case)
    assert found is not None, "it was just written"
    return found


def own_answer(log: VerdictLog, case: str, reader: str | None = None) -> OwnAnswer | None:
    """Return what a reader (the log's by default) locked for a case; None for nothing."""
    return own_answers(log, reader).get(case)


def own_answers(log: VerdictLog, reader: str | None = None) -> dict[str, OwnAnswer]:
    """Return all that a reader (the log's by default) locked, by case; the first counts."""
    who = log.reader if reader is None else reader
    parts: dict[str, dict[str, Verdict]] = {}
    for verdict in log.first(who):
        if verdict.place is None and verdict.question in (OWN, CONFIDENCE, SECONDS, POSITION):
            parts.setdefault(verdict.case, {}).setdefault(verdict.question, verdict)
    return {
        case: OwnAnswer(
            case=case,
            reader=who,
            answer=str(found[OWN].answer),
            confidence=_int(found.get(CONFIDENCE)),
            at=found[OWN].at,
            seconds=_int(found.get(SECONDS)),
            position=_int(found.get(POSITION)),
        )
        for case, found in parts.items()
        if OWN in found
    }


def _int(verdict: Verdict | None) -> int:
    return verdict.answer if verdict is not None and isinstance(verdict.answer, int) else 0


def reveal(log: VerdictLog, project: Project, case: str, answer: str, run: str) -> None:
    """Note that a model's answer was shown, and which.

    Raises
    ------
    ReviewError
        If the project is read blindly and no own answer is locked.
    """
    if project.blind and own_answer(log, case) is None:
        raise ReviewError(
            f"Lock your own answer for {case} first: then the model's answer is shown."
        )
    if log.answer(case, REVEALED, model=run) != answer:
        log.append(Verdict(case, None, REVEALED, answer, model=run), for_good=True)


def decide(log: VerdictLog, project: Project, case: str, answer: str) -> None:
    """Keep the answer that a reader ends with, having seen the model's.

    Raises
    ------
    ReviewError
        If it is none of the possible answers.
    """
    if answer not in project.possible_answers:
        raise ReviewError(
            f"{answer!r} is none of the answers: {listed(project.possible_answers)}."
        )
    log.append(Verdict(case, None, FINAL, answer))


def final_answer(log: VerdictLog, case: str, reader: str | None = None) -> str | None:
    """Return the answer that a reader ends with: the final one, else the own one."""
    final = log.answer(case, FINAL, reader=reader)
    if isinstance(final, str):
        return final
    own = own_answer(log, case, reader)
    return None if own is None else own.answer


@dataclass(frozen=True, slots=True)
class Changes:
    """What became of own answers once the model's was shown."""

    answers: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    """counts[i][j]: cases with the own answer i and the final answer j."""
    to_model: int
    """Of the changed ones: how many ended with the model's answer."""
    from_model: int
    """... and how many had it before."""

    @property
    def total(self) -> int:
        """Cases with an own answer."""
        return sum(map(sum, self.counts))

    @property
    def changed(self) -> int:
        """Cases whose final answer is another."""
        return self.total - sum(row[n] for n, row in enumerate(self.counts))


def changes(log: VerdictLog, project: Project, reader: str | None = None) -> Changes:
    """Count what became of a reader's own answers, over cases whose model's answer was shown."""
    who = log.reader if reader is None else reader
    own = own_answers(log, who)
    shown: dict[str, str] = {}
    for verdict in log.latest(reader=who):
        if verdict.question == REVEALED:
            shown.setdefault(verdict.case, str(verdict.answer))
    pairs: Counter[tuple[str, str]] = Counter()
    to_model = from_model = 0
    for case, first in own.items():
        last = final_answer(log, case, who)
        if case not in shown or last is None:
            continue
        pairs[first.answer, last] += 1
        if first.answer != last:
            to_model += same_answer(last, shown[case])
            from_model += same_answer(first.answer, shown[case])
    return Changes(
        project.possible_answers, _table(pairs, project.possible_answers), to_model, from_model
    )


def same_answer(one: str, other: str) -> bool:
    """Return whether two words name one answer."""
    return one.casefold() == other.casefold()


def _table(pairs: Counter[tuple[str, str]], answers: Sequence[str]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(pairs[one, two] for two in answers) for one in answers)
