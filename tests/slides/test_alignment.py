"""Pairs of points to a transform between two slides."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_histomil.errors import AlignmentError
from napari_histomil.slides.alignment import Alignment, PointPair, align
from napari_histomil.slides.slide import Level, SlideInfo

PLACES = np.array([(1000.0, 800.0), (9000.0, 1500.0), (4000.0, 7000.0), (7000.0, 6000.0)])


def info(name: str = "a.svs", mpp: tuple[float, float] | None = (0.5, 0.5)) -> SlideInfo:
    mpp_x, mpp_y = mpp or (None, None)
    return SlideInfo(
        path=Path(name), reader="tiff", vendor="memory", width_px0=10000, height_px0=8000,
        mpp_x=mpp_x, mpp_y=mpp_y, mpp_source=None, objective_power=None,
        levels=(Level(10000, 8000, 1.0, 256, 256),), channels=("red", "green", "blue"),
        dtype="uint8", composite="", bounds_px0=None, associated_images=(), properties={},
        fingerprint=name.ljust(64, "0"),
    )  # fmt: skip


def pairs_under(
    matrix: np.ndarray, shift: tuple[float, float], points: np.ndarray
) -> list[PointPair]:
    moved = points @ matrix.T + shift
    return [PointPair(tuple(a), tuple(b)) for a, b in zip(points, moved, strict=True)]


def turn(degrees: float) -> np.ndarray:
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array([[c, -s], [s, c]])


FLIP = np.diag([-1.0, 1.0])


@given(
    degrees=st.floats(-179.9, 179.9),
    shift=st.tuples(st.floats(-1e5, 1e5), st.floats(-1e5, 1e5)),
    mirrored=st.booleans(),
    mpps=st.sampled_from([((0.5, 0.5), (0.25, 0.25)), ((0.5, 0.25), (0.3, 0.4))]),
)
def test_a_known_transform_is_found(degrees, shift, mirrored, mpps):
    first, second = info("a", mpps[0]), info("b", mpps[1])
    in_um = turn(degrees) @ (FLIP if mirrored else np.eye(2))
    matrix = np.diag(1 / np.array(mpps[1])) @ in_um @ np.diag(mpps[0])
    pairs = pairs_under(matrix, shift, PLACES[:3])
    found = align(pairs, first, second)
    assert found.mirrored == mirrored
    assert found.flip == "points"
    assert math.remainder(found.angle_deg - degrees, 360) == pytest.approx(0, abs=1e-6)
    assert found.scale == 1
    assert not found.scale_estimated
    assert not found.sizes_disagree
    assert found.apparent_scale == pytest.approx(1)
    assert max(found.residuals) < 1e-5
    np.testing.assert_allclose(found.to_second(PLACES), PLACES @ matrix.T + shift, atol=1e-5)
    np.testing.assert_allclose(found.to_first(found.to_second(PLACES)), PLACES, atol=1e-6)


def test_two_pairs_are_enough_and_do_not_tell_a_flip():
    pairs = pairs_under(turn(30) @ FLIP, (5.0, 6.0), PLACES[:2])
    assumed = align(pairs, info(), info("b"))
    assert (assumed.mirrored, assumed.flip) == (False, "assumed")
    said = align(pairs, info(), info("b"), mirrored=True)
    assert (said.mirrored, said.flip) == (True, "given")
    for each in (assumed, said):  # both are true of the two pairs
        assert max(each.residuals) < 1e-6
    there = PLACES @ (turn(30) @ FLIP).T + (5.0, 6.0)
    np.testing.assert_allclose(said.to_second(PLACES), there)
    assert np.abs(assumed.to_second(PLACES[2]) - there[2]).max() > 1000


def test_pairs_on_a_line_do_not_tell_a_flip_either():
    line = np.array([(0.0, 0.0), (1000.0, 1000.0), (3000.0, 3003.0)])
    assert align(pairs_under(np.eye(2), (0, 0), line), info(), info("b")).flip == "assumed"


def test_a_known_scale_is_kept_and_the_rest_stays_as_residual():
    pairs = pairs_under(1.2 * np.eye(2), (0, 0), PLACES)
    found = align(pairs, info(), info("b"))
    np.testing.assert_allclose(np.array(found.matrix)[:, :2], np.eye(2), atol=1e-9)
    assert found.apparent_scale == pytest.approx(1.2)
    assert found.sizes_disagree
    middle = PLACES.mean(axis=0)
    expected = 0.5 * 0.2 * np.linalg.norm(PLACES - middle, axis=1)  # µm
    np.testing.assert_allclose(found.residuals, expected)
    assert found.residual_unit == "µm"


@pytest.mark.parametrize(
    ("mpp_a", "mpp_b", "unit", "factor"),
    [(None, None, "px", 1), ((0.5, 0.5), None, "µm", 0.5), (None, (0.25, 0.25), "µm", 0.5)],
)
def test_without_a_scale_it_is_estimated(mpp_a, mpp_b, unit, factor):
    first, second = info("a", mpp_a), info("b", mpp_b)
    pairs = pairs_under(2 * turn(-70), (100.0, -50.0), PLACES)
    found = align(pairs, first, second)
    assert found.scale_estimated
    assert max(found.residuals) < 1e-6
    np.testing.assert_allclose(np.array(found.matrix)[:, :2], 2 * turn(-70), atol=1e-9)
    # A click beside the place by 10 px of the first slide is about so far off in its unit.
    beside = replace(pairs[0], first_px0=(pairs[0].first_px0[0] + 10, pairs[0].first_px0[1]))
    off = align([beside, *pairs[1:]], first, second)
    assert off.residual_unit == unit
    assert 2 * factor < max(off.residuals) < 10 * factor


def test_least_squares_beat_every_neighbour():
    rng = np.random.default_rng(1)
    pairs = [
        replace(pair, second_px0=tuple(np.array(pair.second_px0) + rng.normal(0, 40, 2)))
        for pair in pairs_under(turn(12), (30.0, 40.0), PLACES)
    ]
    found = align(pairs, info(), info("b"))
    there = np.array([pair.second_px0 for pair in pairs])

    def squares(matrix: np.ndarray, shift: np.ndarray) -> float:
        return float(((PLACES @ matrix.T + shift - there) ** 2).sum())

    matrix, shift = np.array(found.matrix)[:, :2], np.array(found.matrix)[:, 2]
    best = squares(matrix, shift)
    assert 0.25 * best == pytest.approx(np.square(found.residuals).sum())
    for degrees in (-0.05, 0.05):
        assert squares(turn(degrees) @ matrix, shift) > best
        middle = matrix @ PLACES.mean(axis=0)
        about = middle + shift - turn(degrees) @ middle
        assert squares(turn(degrees) @ matrix, about) > best
    for move in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        assert squares(matrix, shift + move) > best


def test_the_other_way_round_is_the_inverse():
    pairs = pairs_under(turn(100) @ FLIP, (300.0, 200.0), PLACES)
    there = align(pairs, info(), info("b"))
    back = align([pair.turned() for pair in pairs], info("b"), info())
    np.testing.assert_allclose(back.to_second(there.to_second(PLACES)), PLACES)
    np.testing.assert_allclose(back.to_second(PLACES), there.to_first(PLACES))


@pytest.mark.parametrize(
    ("points", "words"),
    [
        ([], "there is none: place another"),
        ([((0, 0), (0, 0))], "there is one: place another"),
        ([((0, 0), (0, 0)), ((5, 5), (900, 900))], "The points in a.svs lie at one place"),
        ([((0, 0), (7, 7)), ((500, 5), (7, 7))], "The points in b.svs lie at one place"),
        ([((0, 0), (0, 0)), ((math.nan, 5), (900, 900))], "A point in a.svs has no place"),
    ],
)
def test_pairs_that_say_nothing_are_refused_in_a_sentence(points, words):
    with pytest.raises(AlignmentError, match=words):
        align([PointPair(*pair) for pair in points], info(), info("b.svs"))


def test_pairs_that_rule_out_what_was_said_are_refused():
    square = np.array([(0.0, 0.0), (1000.0, 0.0), (1000.0, 1000.0), (0.0, 1000.0)])
    pairs = pairs_under(np.eye(2), (0, 0), square)
    with pytest.raises(AlignmentError, match="if one is flipped: choose the other"):
        align(pairs, info(mpp=None), info("b.svs"), mirrored=True)


def test_it_is_a_value():
    pairs = pairs_under(turn(5), (1.0, 2.0), PLACES)
    assert align(pairs, info(), info("b")) == align(pairs, info(), info("b"))
    assert isinstance(hash(align(pairs, info(), info("b"))), int)
    assert isinstance(align(pairs, info(), info("b")), Alignment)
