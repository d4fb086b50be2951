"""Own answers before the model's: locked for good, in an order, and what the model changed."""

from __future__ import annotations

import pytest

from napari_histomil.errors import ReviewError
from napari_histomil.review import blind
from napari_histomil.review.project import Case, Project
from napari_histomil.review.verdicts import Verdict, VerdictLog


@pytest.fixture
def project(tmp_path):
    cases = tuple(Case(f"c{n}", tmp_path / f"{n}.svs", f"p{n}") for n in range(6))
    return Project(tmp_path / "x.review.json", cases, blind=True, answers=("no", "yes"))


@pytest.fixture
def log(project):
    with VerdictLog.open(project.verdicts, reader="Ada") as log:
        yield log


def test_answer_confidence_time_and_place_in_the_order_are_kept(project, log):
    locked = blind.lock(log, project, "c3", "yes", 4, seconds=12.6)
    assert (locked.answer, locked.confidence, locked.seconds) == ("yes", 4, 13)
    assert locked.position == blind.order(project, "Ada").index("c3") + 1
    assert locked.at.endswith("Z")
    log.close()
    with VerdictLog.open(project.verdicts, reader="Ada") as again:
        assert blind.own_answers(again) == {"c3": locked}
    with VerdictLog.open(project.verdicts, reader="", read_only=True) as later:
        assert blind.own_answer(later, "c3", "Ada") == locked


def test_a_locked_answer_stays(project, log):
    blind.lock(log, project, "c0", "yes", 4)
    with pytest.raises(ReviewError, match="locked already"):
        blind.lock(log, project, "c0", "no", 4)
    assert log.take_back() == ()
    log.append(Verdict("c0", None, blind.OWN, "no"))
    log.append(Verdict("c0", None, blind.OWN, None))
    assert blind.own_answer(log, "c0").answer == "yes"


@pytest.mark.parametrize(
    ("answer", "confidence", "words"),
    [("maybe", 3, "none of the answers: no and yes"), ("yes", 6, "1 to 5"), ("yes", 0, "1 to 5")],
)
def test_what_is_no_answer_is_not_locked(project, log, answer, confidence, words):
    with pytest.raises(ReviewError, match=words):
        blind.lock(log, project, "c0", answer, confidence)
    assert log.all() == []


def test_the_models_answer_is_not_shown_before(project, log):
    with pytest.raises(ReviewError, match="Lock your own answer"):
        blind.reveal(log, project, "c0", "yes", "run1")
    blind.lock(log, project, "c0", "yes", 4)
    blind.reveal(log, project, "c0", "yes", "run1")
    blind.reveal(log, project, "c0", "yes", "run1")
    assert [v.question for v in log.all()].count(blind.REVEALED) == 1


def test_what_the_model_changed_is_counted(project, log):
    #        own    model  final
    course = [
        ("c0", "yes", "no", "no"),
        ("c1", "no", "yes", "yes"),
        ("c2", "no", "no", "yes"),
        ("c3", "yes", "yes", None),
        ("c4", "no", "no", None),
    ]
    for case, own, model, final in course:
        blind.lock(log, project, case, own, 3)
        blind.reveal(log, project, case, model, "run1")
        if final is not None:
            blind.decide(log, project, case, final)
    blind.lock(log, project, "c5", "yes", 3)  # the model's answer was never shown
    found = blind.changes(log, project)
    assert found.answers == ("no", "yes")
    assert found.counts == ((1, 2), (1, 1))
    assert (found.total, found.changed) == (5, 3)
    assert (found.to_model, found.from_model) == (2, 1)
    assert blind.final_answer(log, "c0") == "no"
    assert blind.final_answer(log, "c3") == "yes"
    with pytest.raises(ReviewError, match="none of the answers"):
        blind.decide(log, project, "c0", "maybe")
