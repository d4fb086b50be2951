"""Scales of attention: each value by hand, NaN never touched, and what can be shown of which."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import percentileofscore

from napari_histomil.errors import HistomilError
from napari_histomil.heatmaps import (
    OF_THIS_SLIDE,
    SCALES,
    AttentionRow,
    rank_percentile,
    reference_percentile,
    rescale,
    scales_of,
    span_of,
)

RAW = np.array([1.0, np.nan, 3.0, 1.0, 2.0])
SHARES = np.exp(RAW) / np.nansum(np.exp(RAW))


def row(**changes) -> AttentionRow:
    facts = {"value": SHARES, "raw": RAW, "tiles": 4, "shares": True, "coarse": None}
    return AttentionRow(**(facts | changes))


def test_scales_by_hand():
    np.testing.assert_array_equal(rescale(row(), "raw"), RAW)
    np.testing.assert_allclose(rescale(row(), "softmax"), SHARES)
    np.testing.assert_allclose(rescale(row(), "x uniform"), SHARES * 4)
    expected = (SHARES - SHARES[0]) / (SHARES[2] - SHARES[0])
    np.testing.assert_allclose(rescale(row(), "min-max"), expected)
    # ranks 1 and 2 are shared by the two lowest: 1.5 of 4
    np.testing.assert_allclose(rescale(row(), "rank"), [37.5, np.nan, 100, 37.5, 75])
    known = rescale(row(quantiles=np.array([0.0, 1.0, 2.0, 4.0, 8.0])), "reference")
    low, high, middle = SHARES[0] * 4, SHARES[2] * 4, SHARES[4] * 4
    assert low < middle < 1 < 2 < high < 4
    expected = [25 * low, np.nan, 50 + 25 * (high - 2) / 2, 25 * low, 25 * middle]
    np.testing.assert_allclose(known, expected)


def test_only_what_a_method_has_is_offered():
    assert scales_of(row()) == ("raw", "softmax", "x uniform", "min-max", "rank")
    assert scales_of(row(quantiles=np.arange(3.0))) == tuple(SCALES)
    assert scales_of(row(raw=None)) == ("softmax", "x uniform", "min-max", "rank")
    no_softmax = row(raw=None, shares=False, quantiles=np.arange(3.0))
    assert scales_of(no_softmax) == ("raw", "min-max", "rank")
    np.testing.assert_array_equal(rescale(no_softmax, "raw"), SHARES)
    with pytest.raises(HistomilError, match="choose one of raw, min-max, rank"):
        rescale(no_softmax, "softmax")
    assert set(OF_THIS_SLIDE) < set(SCALES)


def test_a_saturated_softmax_is_still_ranked_by_what_was_before_it():
    raw = np.array([-900.0, 0.0, -800.0, -1000.0])
    saturated = row(raw=raw, value=np.array([0.0, 1, 0, 0]))
    np.testing.assert_array_equal(rescale(saturated, "rank"), [50, 100, 75, 25])


def test_a_finer_map_is_ranked_against_the_coarse_pass():
    coarse = np.array([0.0, 1.0, 2.0, 3.0])
    fine = np.array([-1.0, 0.0, 0.5, 1.0, 3.0, 9.0, np.nan])
    # below all: half a rank; between the first two: a rank and a half; above all: not over 100
    expected = [12.5, 25, 37.5, 50, 100, 100, np.nan]
    np.testing.assert_allclose(rank_percentile(fine, coarse), expected)
    np.testing.assert_allclose(rescale(row(raw=fine, value=fine, coarse=coarse), "rank"), expected)


def test_attention_of_few_and_of_many_tiles_is_the_same_times_uniform():
    few, many = np.full(10, 1 / 10), np.full(1000, 1 / 1000)
    np.testing.assert_allclose(rescale(row(value=few, tiles=10), "x uniform"), 1)
    np.testing.assert_allclose(rescale(row(value=many, tiles=1000), "x uniform"), 1)


@settings(deadline=None)
@given(hnp.arrays(np.float64, st.integers(1, 30), elements=st.sampled_from([-1, 0, 0.5, 2, 7])))
def test_ranks_are_those_of_scipy(values):
    expected = []
    for value in values:
        weak, strict = (percentileofscore(values, value, kind) for kind in ("weak", "strict"))
        expected.append((weak + strict) / 2 + 50 / values.size)
    np.testing.assert_allclose(rank_percentile(values), expected)


def test_percentiles_of_a_reference_with_equal_quantiles():
    quantiles = np.array([0.0, 0.0, 0.0, 1.0, 2.0])
    # 0 is at 0, 25 and 50 percent: their mean
    found = reference_percentile(np.array([-1, 0, 0.5, 1, 1.5, 3, np.nan]), quantiles)
    np.testing.assert_allclose(found, [0, 25, 50, 75, 87.5, 100, np.nan])


@pytest.mark.parametrize("scale", SCALES)
def test_constant_and_unknown_attention(scale):
    quantiles = np.linspace(0, 2, 101)
    constant = row(value=np.full(4, 0.25), raw=np.zeros(4), quantiles=quantiles)
    expected = {"raw": 0, "softmax": 0.25, "x uniform": 1, "min-max": 0.5, "rank": 62.5}
    np.testing.assert_allclose(rescale(constant, scale), expected.get(scale, 50))
    nothing = row(value=np.full(4, np.nan), raw=np.full(4, np.nan), quantiles=quantiles)
    assert np.isnan(rescale(nothing, scale)).all()
    span = span_of(scale, rescale(nothing, scale))
    assert np.isnan(span.share(np.array([np.nan]))).all()


def test_colours_of_the_scales():
    assert span_of("rank", np.zeros(2)).share(np.array([0, 25, 100])).tolist() == [0, 0.25, 1]
    raw = span_of("raw", np.array([-2.0, np.nan, 6.0]))
    assert (raw.low, raw.high, raw.value(0.5)) == (-2, 6, 2)
    softmax = span_of("softmax", np.array([0.1, 0.4]))
    np.testing.assert_allclose(softmax.share(np.array([0.1, 0.4, np.nan])), [0.25, 1, np.nan])
    uniform = span_of("x uniform", np.array([3.0]))
    shares = uniform.share(np.array([0, 0.01, 0.1, 1, 10, 1000]))
    np.testing.assert_allclose(shares, [0, 0, 0.25, 0.5, 0.75, 1])
    assert uniform.value(0.75) == pytest.approx(10)
    assert uniform == span_of("x uniform", np.array([0.5])), "the same on every slide"
