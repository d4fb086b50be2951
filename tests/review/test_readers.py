"""Agreement of readers: against published worked examples, over verdicts, what most say."""

from __future__ import annotations

import numpy as np
import pytest

from napari_histomil.errors import ReviewError
from napari_histomil.review import blind
from napari_histomil.review.project import Case, Project
from napari_histomil.review.readers import (
    UNRESOLVED,
    Ratings,
    agreement_of,
    cohen,
    consensus,
    counts_of,
    disputed,
    fleiss,
    krippendorff,
    ratings_of,
)
from napari_histomil.review.verdicts import Place, Verdict, VerdictLog

# Fleiss, Psychol. Bull. 76 (1971) 378 has 30 patients; these are the 10 subjects, 14 raters and
# 5 answers of the widely copied worked example of his formula (kappa 0.210).
FLEISS = np.array(
    [
        [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
    ]
)  # fmt: skip

# Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), C: four observers, twelve
# units, five answers, some missing: alpha 0.743 nominal, 0.815 ordinal.
KRIPPENDORFF = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3],
        [0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0],
    ]
).T - 1  # fmt: skip


def pairs(table):
    """Return the codes of two readers whose answers make a table."""
    found = [(i, j) for i, row in enumerate(table) for j, n in enumerate(row) for _ in range(n)]
    return np.array(found).T


def test_fleiss_kappa_is_that_of_the_worked_example():
    assert fleiss(FLEISS).value == pytest.approx(0.20993, abs=1e-5)


def test_fleiss_kappa_of_each_answer_weighs_up_to_that_of_all():
    share = FLEISS.sum(axis=0) / FLEISS.sum()
    weights = share * (1 - share)
    each = [fleiss(FLEISS, answer=n).value for n in range(5)]
    assert np.dot(weights, each) / weights.sum() == pytest.approx(fleiss(FLEISS).value)


def test_krippendorffs_alpha_is_that_of_his_worked_example():
    counts = counts_of(KRIPPENDORFF, 5)
    assert krippendorff(counts).value == pytest.approx(0.743, abs=5e-4)
    assert krippendorff(counts, ordered=True).value == pytest.approx(0.815, abs=5e-4)


def test_cohens_kappa_is_that_of_worked_examples():
    # 50 grant proposals, 20 yes by both and 15 no by both: 0.4
    assert cohen(*pairs([[20, 5], [10, 15]]), ("yes", "no")).value == pytest.approx(0.4)
    # Cohen 1960, table 1, of 200 decisions: 0.492
    table = [[88, 14, 18], [10, 40, 10], [2, 6, 12]]
    assert cohen(*pairs(table), ("a", "b", "c")).value == pytest.approx(0.492, abs=5e-4)


def test_weighted_kappa_equals_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    random = np.random.default_rng(0)
    one = random.integers(0, 5, 80)
    two = np.clip(one + random.integers(-1, 2, 80), 0, 4)
    names = tuple("abcde")
    expected = metrics.cohen_kappa_score(one, two, weights="quadratic")
    assert cohen(one, two, names, ordered=True).value == pytest.approx(expected)
    assert cohen(one, two, names).value == pytest.approx(metrics.cohen_kappa_score(one, two))


@pytest.mark.parametrize(
    ("score", "words"),
    [
        (cohen(np.array([-1]), np.array([1]), ("a", "b")), "nothing was compared"),
        (cohen(np.array([0, 0]), np.array([0, 1]), ("a", "b")), "has a throughout"),
        (fleiss(np.array([[2, 0], [1, 2]])), "one number of readers"),
        (fleiss(np.array([[2, 0], [2, 0]])), "one and the same answer"),
        (fleiss(np.array([[2, 0], [2, 0]]), answer=0), "on this answer throughout"),
        (krippendorff(np.array([[1, 0], [0, 1]])), "by two readers"),
        (krippendorff(np.array([[2, 0], [3, 0]])), "one and the same answer"),
    ],
)
def test_what_says_nothing_is_undefined(score, words):
    assert score.value is None
    assert words in score.reason


def ratings(codes, answers=("no", "yes"), groups=None):
    codes = np.array(codes)
    units = tuple((f"c{n}", None) for n in range(len(codes)))
    readers = tuple("ABCD"[: codes.shape[1]])
    return Ratings("q", readers, answers, units, codes, groups or tuple(c for c, _ in units))


def test_most_decide_and_ties_are_unresolved():
    found = consensus(ratings([[1, 1, 0], [0, 1, -1], [0, -1, -1], [0, 0, 0]]))
    assert list(found.values()) == ["yes", UNRESOLVED, UNRESOLVED, "no"]


def test_the_most_divided_come_first():
    divided = disputed(ratings([[1, 1, 1, 1], [1, 1, 1, 0], [0, 0, 1, 1], [0, -1, -1, -1]]))
    assert [case for case, _ in divided] == ["c2", "c1"]


def test_figures_are_those_that_fit_and_intervals_are_over_patients():
    random = np.random.default_rng(1)
    truth = random.integers(0, 2, 60)
    codes = np.stack([np.where(random.random(60) < 0.85, truth, 1 - truth) for _ in range(3)], 1)
    groups = tuple(f"p{n // 3}" for n in range(60))
    found = agreement_of(ratings(codes, groups=groups), rounds=300)
    assert [figure.name for figure in found.figures] == [
        "Cohen's kappa, A and B", "Cohen's kappa, A and C", "Cohen's kappa, B and C",
        "Fleiss' kappa",
    ]  # fmt: skip
    assert found.patients == 20
    for figure in found.figures:
        assert figure.low < figure.score.value < figure.high
        assert figure.units == 60
    codes[:5, 2] = -1
    part = agreement_of(ratings(codes, groups=groups), rounds=50)
    assert part.figures[-1].name == "Krippendorff's alpha"
    assert [figure.units for figure in part.figures] == [60, 55, 55, 60]
    same = agreement_of(ratings(codes, groups=groups), rounds=50)
    assert same.figures == part.figures, "the same seed, the same intervals"


@pytest.fixture
def project(tmp_path):
    cases = tuple(Case(f"c{n}", tmp_path / f"{n}.svs", f"p{n // 2}") for n in range(4))
    return Project(tmp_path / "x.review.json", cases, blind=True, answers=("no", "yes"))


def test_answers_come_from_the_journals_of_all_readers(project):
    place = Place("f" * 64, (0.0, 0.0), (9.0, 9.0))
    for reader, own, seen in (("Ada", "yes", "lesion"), ("Ben", "no", "mimic")):
        with VerdictLog.open(project.verdicts, reader=reader) as log:
            blind.lock(log, project, "c0", own, 4)
            log.append(Verdict("c0", None, blind.OWN, "yes"))  # too late: the first counts
            log.append(Verdict("c1", place, "region", seen))
            log.append(Verdict("c1", None, "map quality", 4 if reader == "Ada" else 3))
            if reader == "Ada":
                log.append(Verdict("c2", place, "region", "nothing"))
    log = VerdictLog.open(project.verdicts, reader="", read_only=True)
    own = ratings_of(log, project, blind.OWN)
    assert own.readers == ("Ada", "Ben")
    assert own.codes.tolist() == [[1, 0]]
    assert own.groups == ("p0",)
    region = ratings_of(log, project, "region")
    assert region.units == (("c1", place), ("c2", place))
    assert not region.is_complete
    assert ratings_of(log, project, "map quality").codes.tolist() == [[4, 3]]
    with pytest.raises(ReviewError, match="free words"):
        ratings_of(log, project, "note")
    with pytest.raises(ReviewError, match="nobody answered 'artefact'"):
        ratings_of(log, project, "artefact")
