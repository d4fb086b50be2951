from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_histomil.errors import HistomilError
from napari_histomil.geometry import Rect, choose_level, magnification

sides = st.floats(0, 1e5, allow_nan=False)
corners = st.floats(-1e5, 1e5, allow_nan=False)
rects = st.builds(Rect, corners, corners, sides, sides)


def test_a_rectangle_ends_before_its_right_and_bottom_edge() -> None:
    rect = Rect(10, 20, 30, 40)
    assert (rect.right_px0, rect.bottom_px0) == (40, 60)
    assert rect.center_px0 == (25, 40)
    assert Rect(40, 20, 5, 5).intersection(rect) is None, "they touch and share nothing"
    assert Rect(39, 59, 5, 5).intersection(rect) == Rect(39, 59, 1, 1)


@pytest.mark.parametrize("side", [-1, math.nan, math.inf])
def test_a_rectangle_without_sense_is_refused(side: float) -> None:
    with pytest.raises(HistomilError, match="rectangle needs"):
        Rect(0, 0, side, 1)


@given(rects, rects)
def test_intersection_does_not_depend_on_the_order(a: Rect, b: Rect) -> None:
    assert a.intersection(b) == b.intersection(a)


@given(rects)
def test_a_rectangle_intersects_itself_in_itself(rect: Rect) -> None:
    inside = rect.intersection(rect)
    if inside is None:  # no area, or so thin that adding it to the corner changes nothing
        assert rect.right_px0 == rect.x_px0 or rect.bottom_px0 == rect.y_px0
    else:
        assert inside.x_px0 == rect.x_px0
        assert inside.width_px0 == pytest.approx(rect.width_px0, abs=1e-9)


@pytest.mark.parametrize(
    ("wanted", "level"),
    [(0.5, 0), (1, 0), (3.7, 0), (3.9, 1), (4, 1), (15, 1), (16.5, 2), (1000, 2)],
)
def test_the_coarsest_level_that_has_the_detail_is_read(wanted: float, level: int) -> None:
    # 3.9: scanners write 4.0003 where they mean 4, and people 0.5 where they mean 0.499
    assert choose_level((1, 4.0003, 16.02), wanted) == level


def test_levels_need_not_be_sorted() -> None:
    assert choose_level((1, 16, 4), 8) == 2


def test_magnification_is_that_of_the_convention() -> None:
    assert [magnification(mpp) for mpp in (0.25, 0.5, 1)] == [40, 20, 10]
