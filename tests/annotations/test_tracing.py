"""Mask -> regions -> mask is the same mask; the bands leave no traces."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from shapely.geometry import Polygon, box

from napari_histomil.annotations import raster, tracing
from napari_histomil.annotations.masks import LabelTable, MaskGrid
from napari_histomil.annotations.model import class_named
from napari_histomil.annotations.tracing import regions_from_mask

TABLE = LabelTable.of([class_named("Tumor"), class_named("Stroma")])
CHECKERBOARD = (np.indices((9, 8)).sum(0) % 2).astype(np.uint8)
DIAGONAL = np.array([[1, 1, 1, 1], [1, 0, 1, 1], [1, 1, 0, 1], [1, 1, 1, 1]], np.uint8)


def cut(mask, rows):
    return [mask[top : top + rows] for top in range(0, len(mask), rows)]


def traced(mask, rows=None, pixel=(1.0, 1.0)):
    grid = MaskGrid(mask.shape[1], mask.shape[0], pixel)
    return regions_from_mask(cut(mask, rows or len(mask)), grid, TABLE)


def painted(regions, mask, pixel=(1.0, 1.0)):
    grid = MaskGrid(mask.shape[1], mask.shape[0], pixel)
    return np.concatenate(list(raster.bands(raster.prepare(regions, grid, TABLE))))


def as_text(regions):
    return sorted((r.class_name, shapely.normalize(r.geometry).wkt) for r in regions)


masks = st.tuples(st.integers(1, 12), st.integers(1, 12)).flatmap(
    lambda shape: arrays(np.uint8, shape, elements=st.sampled_from([0, 1, 2, 255]))
)
pixels = st.tuples(st.floats(0.1, 9), st.floats(0.1, 9))


@settings(max_examples=150, deadline=None)
@given(masks, st.integers(1, 5), pixels)
@example(CHECKERBOARD, 1, (1.0, 1.0))
@example(CHECKERBOARD, 2, (4.008, 3.99))
@example(DIAGONAL, 2, (1.0, 1.0))
@example(np.where(DIAGONAL == 0, 255, DIAGONAL).astype(np.uint8), 1, (1.0, 1.0))
def test_mask_to_regions_to_mask_is_the_same_and_bands_leave_no_traces(mask, rows, pixel):
    regions = traced(mask, rows, pixel)
    assert [r.problem() for r in regions] == [None] * len(regions)
    np.testing.assert_array_equal(painted(regions, mask, pixel), mask)
    assert as_text(regions) == as_text(traced(mask, None, pixel))


@settings(max_examples=60, deadline=None)
@given(masks, pixels)
def test_regions_to_mask_to_regions_to_mask_is_the_same(mask, pixel):
    first = painted(traced(mask, None, pixel), mask, pixel)
    again = traced(first, 2, pixel)
    assert as_text(again) == as_text(traced(mask, None, pixel))
    np.testing.assert_array_equal(painted(again, mask, pixel), mask)


def test_outlines_turn_at_corners_of_pixels_and_keep_holes():
    mask = np.full((6, 5), 255, np.uint8)
    mask[1:5, 0:4] = 1
    mask[2:4, 1:3] = 255
    (region,) = traced(mask, rows=1, pixel=(2.0, 3.0))
    expected = Polygon(box(0, 3, 8, 15).exterior, [box(2, 6, 6, 12).exterior])
    assert region.class_name == "Tumor"
    assert region.geometry.equals(expected)
    assert len(shapely.get_coordinates(region.geometry)) == 10  # no vertex at a seam


def test_parts_that_meet_at_a_corner_are_two():
    mask = np.array([[1, 255], [255, 1]], np.uint8)
    regions = traced(mask)
    assert [r.geometry.bounds for r in regions] == [(0, 0, 1, 1), (1, 1, 2, 2)]


def test_region_covers_what_is_labelled_only_where_some_of_it_is_background():
    mask = np.full((5, 12), 255, np.uint8)
    mask[1:4, 1:6] = 0
    mask[2, 3] = 1
    mask[2, 8:10] = 2
    regions = traced(mask, rows=2)
    assert [(r.class_name, r.geometry.bounds) for r in regions] == [
        ("Region*", (1, 1, 6, 4)),
        ("Tumor", (3, 2, 4, 3)),
        ("Stroma", (8, 2, 10, 3)),
    ]
    assert regions[0].geometry.area == 15  # the lesion is within what was looked at


def test_a_value_without_a_class_is_traced_under_its_number():
    mask = np.array([[7, 1]], np.uint8)
    assert [r.class_name for r in traced(mask)] == ["Tumor", "Value 7"]


def test_wide_bands_are_traced_in_strips(monkeypatch: pytest.MonkeyPatch):
    mask = np.random.default_rng(2).choice(np.array([0, 1, 255], np.uint8), (40, 30))
    whole = as_text(traced(mask))
    monkeypatch.setattr(tracing, "PIXELS_AT_ONCE", 100)
    assert as_text(traced(mask)) == whole


def test_order_is_of_place_whatever_the_bands():
    mask = np.full((6, 3), 255, np.uint8)
    mask[:, 0], mask[1, 2], mask[4, 2] = 1, 1, 1  # the first part ends last
    for rows in (1, 6):
        tops = [r.geometry.bounds[1] for r in traced(mask, rows)]
        assert tops == [0, 1, 4]
