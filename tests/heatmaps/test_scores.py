"""Heatmaps: where values land, what normalisations do, honest areas, order of the hottest."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from napari_histomil.errors import HistomilError
from napari_histomil.heatmaps import (
    NORMALISATIONS,
    hottest,
    normalise,
    score_image,
    threshold_stats,
)
from napari_histomil.tiling import GridSpec, TileGrid


def make_grid(rows: int, columns: int, *, size_px0=None, cell_px0=100, mpp=0.5) -> TileGrid:
    cells = np.indices((rows, columns), dtype=np.int32).reshape(2, -1).T
    return TileGrid(
        GridSpec(mpp=mpp, tile_px=cell_px0, stride_px=cell_px0),
        (mpp, mpp),
        size_px0 or (columns * cell_px0, rows * cell_px0),
        cells,
    )


def test_a_value_lands_on_its_cell_and_nowhere_else():
    grid = make_grid(4, 6).select(np.arange(24) == 3 * 6 + 5)
    image = score_image(grid, np.array([0.25]))
    assert image.shape == (4, 6)
    assert image.dtype == np.float32
    assert image[3, 5] == 0.25
    assert np.isnan(image).sum() == 23


def test_order_of_tiles_does_not_matter_for_the_image():
    grid = make_grid(3, 3)
    shuffled = np.random.default_rng(0).permutation(9)
    image = score_image(grid, np.arange(9.0))
    again = score_image(
        TileGrid(grid.spec, grid.slide_mpp, grid.slide_size_px0, grid.cells[shuffled]),
        np.arange(9.0)[shuffled],
    )
    np.testing.assert_array_equal(image, again)


@pytest.mark.parametrize(
    "call",
    [
        score_image,
        lambda grid, values: threshold_stats(grid, values, 0.5),
        lambda grid, values: hottest(grid, values),
    ],
)
def test_values_that_do_not_fit_the_tiles_are_refused(call):
    with pytest.raises(HistomilError, match="4 tiles needs one value per tile"):
        call(make_grid(2, 2), np.zeros(5))


def test_normalisations_by_hand():
    values = np.array([0.2, np.nan, 0.6, 0.2, 0.4])
    np.testing.assert_array_equal(normalise(values, "raw"), values)
    np.testing.assert_allclose(normalise(values, "min-max"), [0, np.nan, 1, 0, 0.5])
    # ranks 1 and 2 are shared by the two lowest: 1.5 of 4
    np.testing.assert_allclose(normalise(values, "rank"), [0.375, np.nan, 1, 0.375, 0.75])


@pytest.mark.parametrize("method", NORMALISATIONS)
def test_constant_and_empty_values(method):
    constant = normalise(np.full(4, 0.3), method)
    expected = {"raw": 0.3, "min-max": 0.5, "rank": 0.625}[method]
    np.testing.assert_allclose(constant, expected)
    assert np.isnan(normalise(np.full(3, np.nan), method)).all()
    assert normalise(np.empty(0), method).shape == (0,)


def test_unknown_normalisation_names_the_known_ones():
    with pytest.raises(HistomilError, match="raw, min-max, rank"):
        normalise(np.zeros(1), "softmax")


@settings(deadline=None)
@given(
    hnp.arrays(np.float32, st.integers(1, 40), elements=st.floats(-5, 5, width=32)),
    st.sampled_from(["min-max", "rank"]),
)
def test_normalising_keeps_the_order_and_stays_in_0_to_1(values, method):
    result = normalise(values, method)
    assert ((result >= 0) & (result <= 1)).all()
    order = np.argsort(values, kind="stable")
    assert (np.diff(result[order]) >= 0).all()


def test_normalising_does_not_touch_its_input():
    values = np.array([1.0, 3.0])
    normalise(values, "min-max")
    np.testing.assert_array_equal(values, [1, 3])


def test_threshold_counts_cells_and_the_area_that_lies_on_the_slide():
    # 2 x 3 cells of 50 µm; the slide ends in the middle of the last column and row
    grid = make_grid(2, 3, size_px0=(250, 150))
    values = np.array([0.9, 0.1, 0.5, np.nan, 0.2, 0.8])
    stats = threshold_stats(grid, values, 0.5)
    whole = 0.05**2
    assert stats.tiles == 3
    assert stats.looked_at_tiles == 5
    assert stats.area_mm2 == pytest.approx(whole * (1 + 0.5 + 0.25))
    assert stats.looked_at_mm2 == pytest.approx(whole * (1 + 1 + 0.5 + 0.5 + 0.25))
    assert stats.percent == pytest.approx(100 * 1.75 / 3.25)


def test_all_cells_together_have_the_area_of_the_slide():
    grid = make_grid(2, 3, size_px0=(250, 150))
    stats = threshold_stats(grid, np.ones(6), 0)
    assert stats.area_mm2 == pytest.approx(0.125 * 0.075)
    assert stats.percent == 100


def test_no_values_give_zero_percent():
    stats = threshold_stats(make_grid(1, 2), np.full(2, np.nan), 0.5)
    assert (stats.tiles, stats.area_mm2, stats.percent, stats.looked_at_tiles) == (0, 0, 0, 0)


def test_hottest_in_falling_order_without_nan():
    grid = make_grid(1, 5)
    values = np.array([0.1, np.nan, 0.9, 0.5, 0.9])
    assert hottest(grid, values).tolist() == [2, 4, 3, 0]
    assert hottest(grid, values, count=2).tolist() == [2, 4]
    assert hottest(grid, values, count=0).tolist() == []


def test_hottest_passes_over_close_neighbours():
    grid = make_grid(1, 5)  # centres are 50 µm apart
    values = np.array([0.5, 0.9, 0.8, 0.7, 0.6])
    assert hottest(grid, values, min_distance_um=50).tolist() == [1, 2, 3, 4, 0]
    assert hottest(grid, values, min_distance_um=51).tolist() == [1, 3]
    assert hottest(grid, values, min_distance_um=101).tolist() == [1, 4]
    assert hottest(grid, values, min_distance_um=1e4).tolist() == [1]


@settings(deadline=None, max_examples=50)
@given(
    hnp.arrays(np.float64, 42, elements=st.floats(0, 1)),
    st.floats(1, 400),
    st.one_of(st.none(), st.integers(0, 12)),
)
def test_hottest_equals_the_plain_definition(values, distance_um, count):
    grid = make_grid(6, 7)
    centers_um = (grid.cells + 0.5) * 50
    expected: list[int] = []
    for index in np.argsort(-values, kind="stable"):
        far = all(np.hypot(*(centers_um[index] - centers_um[j])) >= distance_um for j in expected)
        if far and (count is None or len(expected) < count):
            expected.append(int(index))
    assert hottest(grid, values, count=count, min_distance_um=distance_um).tolist() == expected
