"""Contributions: sums over magnifications, and colours that diverge around 0."""

from __future__ import annotations

import numpy as np
import pytest

from napari_histomil.errors import RunError
from napari_histomil.heatmaps import merge, signed_limit
from napari_histomil.tiling import GridSpec, TileGrid


def grid(mpp: float, cells: list[tuple[int, int]]) -> TileGrid:
    spec = GridSpec(mpp, 100, 100)
    return TileGrid(spec, (0.5, 0.5), (1600, 1200), np.array(cells, np.int32).reshape(-1, 2))


def test_magnifications_are_added_and_the_sum_is_kept():
    coarse = grid(2.0, [(0, 0), (0, 1), (1, 1)])  # cells of 400 px
    fine = grid(1.0, [(0, 2), (0, 3), (1, 2), (1, 3)])  # the children of the second
    values = np.array([0.4, -0.8, np.nan]), np.array([1.0, -2.0, 0.25, np.nan])
    picture, merged = merge([(coarse, values[0]), (fine, values[1])])
    np.testing.assert_allclose(merged.sum(), sum(np.nansum(v) for v in values), rtol=1e-6)
    image = picture.image(merged)
    np.testing.assert_allclose(image[:2, :2], 0.1)
    np.testing.assert_allclose(image[:2, 2:4], [[0.8, -2.2], [0.05, -0.2]], rtol=1e-6)
    assert np.isnan(image[2:]).all(), "what was not examined is not 0"
    assert picture.pixel_px0 == (200, 200)


def test_grids_that_do_not_nest_are_not_merged():
    with pytest.raises(RunError, match="do not divide"):
        merge([(grid(1.5, [(0, 0)]), np.zeros(1)), (grid(1.0, [(0, 0)]), np.zeros(1))])


def test_colours_reach_as_far_to_both_sides():
    assert signed_limit(np.array([-3.0, np.nan, 2.0])) == 3
    many = np.append(np.linspace(-1, 1, 1001), 50)
    assert signed_limit(many) == pytest.approx(0.99, abs=0.01)
    assert signed_limit(np.append(np.zeros(500), -2.0)) == 2, "a maximum: all but one are 0"
    assert signed_limit(np.full(2, np.nan)) == 0
