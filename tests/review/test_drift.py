"""How slides look, and whether one lies outside of what is usual."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from napari_histomil.errors import RunError
from napari_histomil.review.drift import (
    FEATURES,
    NUMBERS,
    Look,
    drift_of,
    look_of,
    read_reference,
    reference_of,
    verdict_of,
    write_reference,
)


def tissue(seed, *, darker=0.0, blur=0.0):
    """Tiles of two stains in patches."""
    rng = np.random.default_rng(seed)
    amount = gaussian_filter(rng.random((2, 128, 128)), (0, 2, 2))
    amount = (amount - amount.min()) / np.ptp(amount)
    density = amount[0, ..., None] * [1.3, 1.7, 0.8] + amount[1, ..., None] * [0.2, 0.9, 0.2]
    pixels = 245 * np.exp(-density * (1 + darker))
    if blur:
        pixels = gaussian_filter(pixels, (blur, blur, 0))
    return pixels.astype(np.uint8)


def look(seed, features=None, **changes):
    tiles = [tissue(100 * seed + n, **changes) for n in range(4)]
    return Look(f"{seed}.svs", look_of(tiles), features)


@pytest.fixture(scope="module")
def usual():
    rng = np.random.default_rng(0)
    return [look(n, features=rng.normal(size=8)) for n in range(5)]


def test_a_slide_like_the_others_is_as_usual(usual):
    drifts = drift_of(look(9), reference_of(usual))
    assert {each.verdict for each in drifts} == {"as usual"}
    assert verdict_of(look(9), drifts) == "9.svs looks as usual in all 7 numbers."


def test_a_dark_slide_and_a_blurred_one_are_told_by_the_number_they_differ_in(usual):
    reference = reference_of(usual)
    dark = {each.name: each for each in drift_of(look(9, darker=0.8), reference)}
    assert dark["brightness"].verdict == "far outside"
    assert dark["brightness"].spreads < 0
    assert dark["hematoxylin"].spreads > 0
    blurred = drift_of(look(9, blur=3.0), reference)
    assert blurred[0].name == "focus"
    assert blurred[0].spreads < -5
    words = verdict_of(look(9), blurred)
    assert "focus far outside" in words
    assert "extrapolation" in words


def test_features_are_held_against_how_far_the_reference_slides_are_from_one_another(usual):
    reference = reference_of(usual)
    near = drift_of(Look("n", usual[0].numbers, np.zeros(8)), reference)
    far = drift_of(Look("f", usual[0].numbers, np.full(8, 30.0)), reference)
    assert next(each for each in near if each.name == FEATURES).verdict == "as usual"
    assert (far[0].name, far[0].verdict) == (FEATURES, "far outside")
    with pytest.raises(RunError, match="different encoders"):
        drift_of(Look("x", usual[0].numbers, np.zeros(3)), reference)


def test_the_distance_of_features_by_hand():
    numbers = dict.fromkeys(NUMBERS, math.nan)
    looks = [Look(str(n), numbers, np.array([float(n), 0.0])) for n in (0, 1, 2)]
    reference = reference_of(looks)
    # spread 1 along the first; 0, 1, 2 are 1.5, 0, 1.5 from the mean of the other two
    assert reference.distance[0] == pytest.approx(1.0)
    (found, *_) = [
        each
        for each in drift_of(Look("s", numbers, np.array([4.0, 9.0])), reference)
        if each.name == FEATURES
    ]
    assert found.value == pytest.approx(3.0)
    assert found.spreads == pytest.approx(2 / np.std([1.5, 0, 1.5], ddof=1))


def test_glass_says_nothing():
    numbers = look_of([np.full((64, 64, 3), 244, np.uint8)])
    assert all(math.isnan(value) for value in numbers.values())
    assert set(numbers) == set(NUMBERS)


def test_a_reference_is_kept_as_json(usual, tmp_path):
    reference = reference_of(usual)
    write_reference(reference, tmp_path / "r.json")
    again = read_reference(tmp_path / "r.json")
    assert (again.mean, again.spread) == (reference.mean, reference.spread)
    assert drift_of(usual[0], again) == drift_of(usual[0], reference)
    (tmp_path / "bad.json").write_text("[]")
    with pytest.raises(RunError, match="is no reference of slides"):
        read_reference(tmp_path / "bad.json")
    with pytest.raises(RunError, match="2 slides do not say what is usual"):
        reference_of(usual[:2])
