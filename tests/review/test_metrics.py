"""Figures against scikit-learn and against what can be computed by hand."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn import metrics as sk

from napari_histomil.review import metrics
from napari_histomil.review.metrics import Confusion, Score

NAMES = ("a", "b", "c", "d")


def drawn(seed, classes=4, places=500):
    rng = np.random.default_rng(seed)
    first = rng.choice(classes, places, p=0.4 / classes + 0.6 * rng.dirichlet(np.ones(classes)))
    second = np.where(rng.random(places) < 0.6, first, rng.integers(0, classes, places))
    return first, second, Confusion(metrics.count(first, second, range(classes)), NAMES[:classes])


@pytest.mark.parametrize("seed", range(6))
def test_figures_are_those_of_scikit_learn(seed):
    first, second, confusion = drawn(seed)
    np.testing.assert_array_equal(
        confusion.counts, sk.confusion_matrix(first, second, labels=range(4))
    )
    assert metrics.accuracy(confusion).value == pytest.approx(sk.accuracy_score(first, second))
    assert metrics.balanced_accuracy(confusion).value == pytest.approx(
        sk.balanced_accuracy_score(first, second)
    )
    for index in range(4):
        one = {"labels": [index], "average": None}
        for ours, theirs in (
            (metrics.precision, sk.precision_score),
            (metrics.recall, sk.recall_score),
            (metrics.f1, sk.f1_score),
            (metrics.iou, sk.jaccard_score),
        ):
            assert ours(confusion, index).value == pytest.approx(theirs(first, second, **one)[0])
        rest = metrics.kappa(confusion.one_against_rest(index)).value
        assert rest == pytest.approx(sk.cohen_kappa_score(first == index, second == index))
    assert metrics.kappa(confusion).value == pytest.approx(sk.cohen_kappa_score(first, second))
    assert metrics.kappa(confusion, "quadratic").value == pytest.approx(
        sk.cohen_kappa_score(first, second, weights="quadratic", labels=range(4))
    )


def test_a_small_table_by_hand():
    # Cohen 1960's kind of table: 20 yes/yes, 5 yes/no, 10 no/yes, 15 no/no
    confusion = Confusion(np.array([[20, 5], [10, 15]]), ("yes", "no"))
    assert metrics.accuracy(confusion) == Score(0.7)
    assert metrics.kappa(confusion).value == pytest.approx(0.4)  # (0.7 - 0.5) / (1 - 0.5)
    assert metrics.positive_agreement(confusion, 0).value == pytest.approx(40 / 55)
    assert metrics.negative_agreement(confusion, 0).value == pytest.approx(30 / 45)
    assert metrics.dice(confusion, 1).value == metrics.negative_agreement(confusion, 0).value


def test_quadratic_weights_by_hand():
    counts = np.array([[2, 1, 0], [0, 2, 1], [1, 0, 3]])
    agree = 1 - np.array([[0, 1, 4], [1, 0, 1], [4, 1, 0]]) / 4
    observed = (agree * counts).sum() / 10
    expected = (agree * np.outer([3, 3, 4], [3, 3, 4])).sum() / 100
    value = metrics.kappa(Confusion(counts, NAMES[:3]), "quadratic").value
    assert value == pytest.approx((observed - expected) / (1 - expected))


@pytest.mark.parametrize("weights", ["none", "quadratic"])
@pytest.mark.parametrize(
    ("counts", "who"),
    [
        ([[9, 0], [0, 0]], "Ann has a throughout"),
        ([[5, 4], [0, 0]], "Ann has a throughout"),
        ([[0, 3], [0, 6]], "Bob has b throughout"),
    ],
)
def test_a_rater_with_one_class_throughout_has_no_kappa(counts, who, weights):
    confusion = Confusion(np.array(counts), ("a", "b"), ("Ann", "Bob"))
    assert metrics.kappa(confusion, weights) == Score(None, who)


def test_what_is_undefined_says_why():
    confusion = Confusion(np.array([[5, 0, 2], [0, 0, 0], [0, 0, 0]]), NAMES[:3], ("Ann", "Bob"))
    assert metrics.dice(confusion, 1) == Score(None, "neither has b")
    assert metrics.iou(confusion, 1) == Score(None, "neither has b")
    assert metrics.recall(confusion, 2) == Score(None, "Ann has no c")
    assert metrics.precision(confusion, 1) == Score(None, "Bob has no b")
    assert metrics.precision(confusion, 2) == Score(0.0)
    everything = Confusion(np.array([[5, 0], [0, 0]]), ("a", "b"))
    assert metrics.negative_agreement(everything, 0).reason == "all is a for both"
    nothing = Confusion(np.zeros((2, 2), np.int64), ("a", "b"))
    for figure in (metrics.accuracy, metrics.balanced_accuracy, metrics.kappa):
        assert figure(nothing) == Score(None, "nothing was compared")
    assert str(Score(None, "x")) == "undefined"
    assert str(Score(0.12345)) == "0.123"


def test_balanced_accuracy_leaves_out_what_the_truth_has_not():
    first, second, _ = drawn(1, classes=3)
    first = np.where(first == 2, 1, first)
    confusion = Confusion(metrics.count(first, second, range(3)), NAMES[:3])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn notes the class that the truth lacks
        expected = sk.balanced_accuracy_score(first, second)
    assert metrics.balanced_accuracy(confusion).value == pytest.approx(expected)


def test_counts_of_bands_add_up_and_leave_out_what_is_unlabelled():
    rng = np.random.default_rng(0)
    first, second = (rng.choice(np.array([0, 7, 255], np.uint8), (40, 30)) for _ in range(2))
    whole = metrics.count(first, second, (0, 7))
    rows = [slice(top, top + 9) for top in range(0, 40, 9)]
    bands = sum(metrics.count(first[band], second[band], (0, 7)) for band in rows)
    np.testing.assert_array_equal(whole, bands)
    assert whole.sum() == ((first != 255) & (second != 255)).sum()
    where = np.zeros((40, 30), bool)
    where[:5] = True
    np.testing.assert_array_equal(
        metrics.count(first, second, (0, 7), where), metrics.count(first[:5], second[:5], (0, 7))
    )
