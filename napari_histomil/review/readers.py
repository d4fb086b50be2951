"""How far readers agree: kappa and alpha over cases or regions, intervals, and what most say.

* Cohen's kappa of two readers (Educ. Psychol. Meas. 20 (1960) 37), with quadratic weights
  1 - (i - j)² / (k - 1)² only for answers declared ordered (Cohen, Psychol. Bull. 70 (1968) 213);
* Fleiss' kappa of several who all answered everything (Psychol. Bull. 76 (1971) 378), also of one
  answer against all others;
* Krippendorff's alpha where some answers are missing (Content Analysis, 2004, ch. 11; nominal, or
  ordinal for ordered answers).

What is counted are cases or regions, never pixels; intervals are drawn over patients, as the
slides of one are alike.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_histomil.errors import ReviewError, listed
from napari_histomil.review.blind import FINAL, OWN
from napari_histomil.review.intervals import draws, interval
from napari_histomil.review.metrics import Confusion, Score, kappa
from napari_histomil.review.project import Project
from napari_histomil.review.verdicts import Place, Verdict, VerdictLog

UNRESOLVED = "unresolved"
MISSING = -1
ROUNDS = 2000

Codes = NDArray[np.int64]
Unit = tuple[str, Place | None]
"""What is judged: a case, or a place of it."""


@dataclass(frozen=True, slots=True, eq=False)
class Ratings:
    """What readers answered to one question."""

    question: str
    readers: tuple[str, ...]
    answers: tuple[str, ...]
    """The possible answers, in order."""
    units: tuple[Unit, ...]
    codes: Codes
    """int64 [units, readers]: index of the answer, -1 where there is none."""
    groups: tuple[str, ...]
    """Of each unit the patient."""

    @property
    def is_complete(self) -> bool:
        """Whether every reader answered about every unit."""
        return bool((self.codes != MISSING).all())


def ratings_of(log: VerdictLog, project: Project, question: str) -> Ratings:
    """Return what all readers answered to a question, about cases or about places.

    Parameters
    ----------
    log
        Of all readers.
    project
        Of the cases.
    question
        One of the form whose answers are choices, a scale or a flag; or ``own answer`` or
        ``final answer``.

    Raises
    ------
    ReviewError
        If it is no such question, or fewer than two readers answered it.
    """
    answers = _answers(project, question)
    patients = {case.name: case.patient for case in project.cases}
    given: dict[Unit, dict[str, str]] = {}
    for verdict in _counting(log, question):
        if verdict.case in patients and str(verdict.answer) in answers:
            unit = verdict.case, verdict.place
            given.setdefault(unit, {})[verdict.reader] = str(verdict.answer)
    readers = tuple(sorted({reader for each in given.values() for reader in each}))
    if len(readers) < 2:
        who = listed(readers) if readers else "nobody"
        raise ReviewError(f"Agreement needs two readers or more; {who} answered {question!r}.")
    units = tuple(sorted(given, key=lambda u: (u[0], u[1].xy_px0 if u[1] else (0.0, 0.0))))
    codes = np.full((len(units), len(readers)), MISSING, np.int64)
    for row, unit in enumerate(units):
        for column, reader in enumerate(readers):
            if reader in given[unit]:
                codes[row, column] = answers.index(given[unit][reader])
    return Ratings(
        question, readers, answers, units, codes, tuple(patients[case] for case, _ in units)
    )


def _answers(project: Project, question: str) -> tuple[str, ...]:
    if question in (OWN, FINAL):
        return project.possible_answers
    asked = project.form[question]
    if asked.kind == "flag":
        return ("False", "True")
    if not asked.names or asked.kind == "tags":
        raise ReviewError(
            f"{question!r} is answered in free words or several tags: agreement is counted of "
            f"choices, scales and flags."
        )
    return asked.names


def _counting(log: VerdictLog, question: str) -> list[Verdict]:
    """Return the verdicts that count: of own answers the first, else the last of each."""
    if question != OWN:
        return [v for v in log.latest() if v.question == question]
    readers = {v.reader for v in log.all()}
    return [v for reader in readers for v in log.first(reader) if v.question == OWN]


# --- figures -----------------------------------------------------------------------------------


def cohen(
    one: Codes,
    other: Codes,
    answers: tuple[str, ...],
    *,
    ordered: bool = False,
    readers: tuple[str, str] = ("the first", "the second"),
) -> Score:
    """Return Cohen's kappa of two readers, over units that both answered; see `metrics.kappa`.

    Parameters
    ----------
    one, other
        int64 [units], -1 for none.
    answers
        The possible ones.
    ordered
        They are in order: weights 1 - (i - j)² / (k - 1)².
    readers
        What the two are called.
    """
    both = (one != MISSING) & (other != MISSING)
    counts = np.zeros((len(answers), len(answers)), np.int64)
    np.add.at(counts, (one[both], other[both]), 1)
    return kappa(Confusion(counts, answers, readers), "quadratic" if ordered else "none")


def fleiss(counts: NDArray[np.floating], *, answer: int | None = None) -> Score:
    """Return Fleiss' kappa.

    Parameters
    ----------
    counts
        [units, answers]: how many readers gave each answer; as many readers for each unit.
    answer
        Of this answer against all others; None for all of them.
    """
    readers = counts.sum(axis=1)
    if not len(counts) or readers[0] < 2 or (readers != readers[0]).any():
        return Score(None, "the units were not answered by one number of readers, two or more")
    n, share = readers[0], counts.sum(axis=0) / counts.sum()
    if answer is not None:
        p, own = share[answer], counts[:, answer]
        chance = p * (1 - p)
        if np.isclose(chance, 0):
            return Score(None, "all readers agree on this answer throughout")
        apart = float((own * (n - own)).sum() / (len(counts) * n * (n - 1)))
        return Score(1 - apart / float(chance))
    observed = float(((counts**2).sum(axis=1) - n).mean() / (n * (n - 1)))
    expected = float((share**2).sum())
    if np.isclose(expected, 1):
        return Score(None, "all readers gave one and the same answer throughout")
    return Score((observed - expected) / (1 - expected))


def krippendorff(counts: NDArray[np.floating], *, ordered: bool = False) -> Score:
    """Return Krippendorff's alpha, nominal or, of ordered answers, ordinal.

    Parameters
    ----------
    counts
        [units, answers]: how many readers gave each answer; units that fewer than two readers
        answered do not count.
    ordered
        The answers are in order.
    """
    counts = counts[counts.sum(axis=1) >= 2].astype(float)
    if not len(counts):
        return Score(None, "no unit was answered by two readers")
    pairs = counts[:, :, None] * counts[:, None, :]
    index = np.arange(counts.shape[1])
    pairs[:, index, index] -= counts
    together = (pairs / (counts.sum(axis=1) - 1)[:, None, None]).sum(axis=0)
    each = together.sum(axis=0)
    if ordered:
        below = np.cumsum(each) - each / 2  # n_c and n_k count half
        away = (below[:, None] - below) ** 2
    else:
        away = 1.0 - np.eye(len(each))
    expected = float((np.outer(each, each) * away).sum()) / (each.sum() - 1)
    if np.isclose(expected, 0):
        return Score(None, "all readers gave one and the same answer throughout")
    return Score(1 - float((together * away).sum()) / expected)


def counts_of(codes: Codes, answers: int) -> NDArray[np.float64]:
    """Return how many readers gave each answer: float64 [units, answers]."""
    return np.stack([(codes == n).sum(axis=1) for n in range(answers)], axis=1).astype(float)


# --- all of it ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure with its 95 % interval over patients."""

    name: str
    score: Score
    low: float
    high: float
    units: int
    """How many units it is over."""


@dataclass(frozen=True, slots=True)
class ReaderAgreement:
    """How far readers agree on one question."""

    ratings: Ratings
    figures: tuple[Figure, ...]
    patients: int
    """From how many patients the units are: what intervals are drawn over."""
    consensus: Mapping[Unit, str]
    """What most readers say, or `UNRESOLVED`."""
    disputed: tuple[Unit, ...]
    """Units on which readers differ, the most divided first."""


def agreement_of(
    ratings: Ratings, *, ordered: bool = False, rounds: int = ROUNDS, seed: int = 0
) -> ReaderAgreement:
    """Return every figure of the readers' agreement.

    Two readers have Cohen's kappa; more of them one a pair, and Fleiss' kappa, also of each
    answer, if all answered everything, else Krippendorff's alpha.

    Parameters
    ----------
    ratings
        What they answered.
    ordered
        The answers are in order; of a scale they are.
    rounds
        Of the bootstrap over patients.
    seed
        Of its drawing.
    """
    k = len(ratings.answers)
    names = ratings.readers
    wanted: list[tuple[str, Callable[[Codes], Score]]] = [
        (f"Cohen's kappa, {names[a]} and {names[b]}", _pair(a, b, ratings, ordered))
        for a in range(len(names))
        for b in range(a + 1, len(names))
    ]
    if len(names) > 2 and ratings.is_complete and not ordered:
        wanted.append(("Fleiss' kappa", lambda c: fleiss(counts_of(c, k))))
        wanted += [
            (f"Fleiss' kappa of {answer}", _one_answer(n, k))
            for n, answer in enumerate(ratings.answers)
            if k > 2
        ]
    if not ratings.is_complete or (len(names) > 2 and ordered):
        wanted.append(
            ("Krippendorff's alpha", lambda c: krippendorff(counts_of(c, k), ordered=ordered))
        )
    patients = sorted(set(ratings.groups))
    rows = [np.flatnonzero(np.array(ratings.groups) == patient) for patient in patients]
    times = draws(len(patients), rounds, seed=seed).astype(int)
    drawn = [
        np.concatenate([np.tile(rows[n], t) for n, t in enumerate(each) if t]) for each in times
    ]
    figures = []
    for name, figure in wanted:
        values = [figure(ratings.codes[rows]).value for rows in drawn]
        low, high = interval(np.array([np.nan if v is None else v for v in values], float))
        figures.append(Figure(name, figure(ratings.codes), low, high, _units(name, ratings)))
    return ReaderAgreement(
        ratings, tuple(figures), len(patients), consensus(ratings), disputed(ratings)
    )


def _pair(a: int, b: int, ratings: Ratings, ordered: bool) -> Callable[[Codes], Score]:
    names = ratings.readers[a], ratings.readers[b]
    return lambda codes: cohen(
        codes[:, a], codes[:, b], ratings.answers, ordered=ordered, readers=names
    )


def _one_answer(n: int, answers: int) -> Callable[[Codes], Score]:
    return lambda codes: fleiss(counts_of(codes, answers), answer=n)


def _units(name: str, ratings: Ratings) -> int:
    """Return how many units a figure is over."""
    there = ratings.codes != MISSING
    if name.startswith("Cohen"):
        pairs = [
            (f"{a} and {b}", there[:, n] & there[:, m])
            for n, a in enumerate(ratings.readers)
            for m, b in enumerate(ratings.readers)
        ]
        return int(next(both.sum() for words, both in pairs if name.endswith(f", {words}")))
    return int((there.sum(axis=1) >= 2).sum())


def consensus(ratings: Ratings) -> dict[Unit, str]:
    """Return what most readers say of each unit; a tie, or a single answer, is unresolved."""
    found: dict[Unit, str] = {}
    for unit, codes in zip(ratings.units, ratings.codes, strict=True):
        times = Counter(int(code) for code in codes if code != MISSING).most_common(2)
        tie = len(times) > 1 and times[0][1] == times[1][1]
        alone = not times or times[0][1] < 2
        found[unit] = UNRESOLVED if tie or alone else ratings.answers[times[0][0]]
    return found


def disputed(ratings: Ratings) -> tuple[Unit, ...]:
    """Return the units on which readers differ, the most divided first: a worklist."""

    def divided(codes: Codes) -> float:
        given = codes[codes != MISSING]
        return 1 - max(Counter(given.tolist()).values(), default=0) / max(len(given), 1)

    shares = [divided(codes) for codes in ratings.codes]
    order: Sequence[int] = np.argsort([-share for share in shares], kind="stable").tolist()
    return tuple(ratings.units[n] for n in order if shares[n] > 0)
