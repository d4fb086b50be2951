"""Lists of regions: order, filter, sizes and totals, by values."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from shapely.geometry import LineString, MultiPoint, Point, Polygon, box

from napari_histomil.annotations import listing
from napari_histomil.annotations.collection import AnnotationSet
from napari_histomil.annotations.listing import Filter, Measures, order
from napari_histomil.annotations.measure import diameter_um
from napari_histomil.annotations.model import Region, class_named

MPP = (0.5, 0.25)
TUMOR, STROMA = class_named("Tumor"), class_named("Stroma")


def in_order(regions, column, *, descending=False, measures=None):
    places = order(regions, column, measures or Measures(MPP), descending=descending)
    return [regions[n].name for n in places]


def test_sizes_run_from_points_over_lines_to_areas_and_broken_ones_come_last():
    bow = Polygon([(0, 0), (10, 10), (10, 0), (0, 10)])
    regions = [
        Region(box(0, 0, 9, 9), name="large"),
        Region(bow, name="broken"),
        Region(LineString([(0, 0), (500, 0)]), name="long"),
        Region(box(0, 0, 1, 1), name="small"),
        Region(Point(0, 0), name="point"),
        Region(LineString([(0, 0), (5, 0)]), name="short"),
    ]
    up = ["point", "short", "long", "small", "large", "broken"]
    assert in_order(regions, "Size") == up
    assert in_order(regions, "Size", descending=True) == [*up[-2::-1], "broken"]


def test_texts_are_ordered_without_case_and_empty_ones_last_either_way():
    regions = [Region(Point(n, 0), name=name) for n, name in enumerate(("b", None, "A", "c"))]
    assert in_order(regions, "Name") == ["A", "b", "c", None]
    assert in_order(regions, "Name", descending=True) == ["c", "b", "A", None]


def test_a_state_is_ordered_by_how_far_it_is_and_a_time_by_the_last_change():
    regions = [
        Region(Point(0, 0), name="l", metadata={"state": "locked", "created": "2026-03-01T"}),
        Region(Point(0, 0), name="d", metadata={"created": "2026-02-01T"}),
        Region(
            Point(0, 0),
            name="r",
            metadata={"state": "reviewed", "created": "2026-01-01T", "edited": "2026-04-01T"},
        ),
    ]
    assert in_order(regions, "State") == ["d", "r", "l"]
    assert in_order(regions, "Time") == ["d", "l", "r"]


@given(
    st.lists(
        st.lists(st.tuples(*[st.integers(0, 50)] * 2), min_size=1, max_size=90),
        min_size=1,
        max_size=6,
    )
)
def test_diameters_of_many_are_those_of_each(shapes):
    regions = [Region(MultiPoint(points)) for points in shapes]
    expected = [diameter_um(region.geometry, MPP) for region in regions]
    assert listing.diameters_um(regions, MPP).tolist() == pytest.approx(expected)


def test_the_diameter_of_a_round_outline_of_many_corners():
    round_one = Region(Point(0, 0).buffer(100, quad_segs=64))
    assert listing.diameters_um([round_one], (0.5, 0.5)) == pytest.approx([100])
    assert listing.diameters_um([Region(Polygon())], MPP).tolist() == [0]
    assert listing.diameters_um([], MPP).tolist() == []


def test_a_filter_wants_class_state_and_every_word():
    region = Region(
        box(0, 0, 1, 1), TUMOR, name="left edge", metadata={"note": "Check AGAIN", "author": "Ada"}
    )
    assert Filter().shows(region)
    assert not Filter()
    assert Filter("Tumor", "draft", "again  LEFT ada").shows(region)
    assert not Filter(text="again right").shows(region)
    assert not Filter("Stroma").shows(region)
    assert not Filter("").shows(region)
    assert Filter("").shows(Region(box(0, 0, 1, 1)))
    assert not Filter(state="reviewed").shows(region)
    assert Filter(text=region.id[:8]).shows(region)


def test_totals_are_in_mm2_with_the_share_of_the_whole():
    regions = AnnotationSet(
        [
            Region(box(0, 0, 2000, 2000), TUMOR),
            Region(box(0, 0, 1000, 1000), STROMA),
            Region(box(0, 0, 1000, 1000), STROMA),
            Region(Point(1, 1)),
        ]
    )
    counts = {name: (each.count, each.area_px0) for name, each in regions.totals().items()}
    found = listing.totals(counts, MPP, 2.0)
    assert [(t.name, t.count) for t in found] == [("Tumor", 1), ("Stroma", 2), (None, 1)]
    assert [t.area_mm2 for t in found] == pytest.approx([0.5, 0.25, 0])
    assert [t.share for t in found] == pytest.approx([0.25, 0.125, 0])
    assert listing.totals(counts, MPP, None)[0].share is None


def test_a_shape_is_measured_once_and_a_changed_one_again():
    measures = Measures(MPP)
    region = Region(box(0, 0, 8, 8))
    assert measures.areas_mm2([region]) == pytest.approx([8e-6])
    assert measures.lengths_um([region]) == pytest.approx([12])
    other = region.but(geometry=box(0, 0, 8, 16))
    assert measures.areas_mm2([region, other]) == pytest.approx([8e-6, 16e-6])
    assert measures.diameters_um([other]) == pytest.approx([math.hypot(4, 4)])
    measures.forget([other])
    assert measures.areas_mm2([region]) == pytest.approx([8e-6])


@pytest.mark.parametrize(
    ("dimension", "area", "length", "text"),
    [
        (2, 1.23456, 0, "1.235 mm²"),
        (2, 42.04, 0, "42.0 mm²"),
        (2, 5.3e-5, 0, "53 µm²"),
        (2, math.nan, 0, "broken"),
        (1, 0, 12.34, "12.3 µm"),
        (1, 0, 12345.6, "12\u202f346 µm"),
        (0, 0, 0, ""),
    ],
)
def test_sizes_in_words(dimension, area, length, text):
    assert listing.size_text(dimension, area, length) == text


def test_times_are_short():
    now = datetime.now(UTC).replace(microsecond=0)
    here = now.astimezone()
    assert listing.local_time_text(now.isoformat(), now) == f"{here:%H:%M}"
    assert listing.local_time_text("2020-05-05T12:00:00Z", now) == "2020-05-05"
    assert listing.local_time_text("last week") == "last week"
    assert listing.local_time_text("") == ""


def test_many_regions_are_ordered_by_any_column():
    rng = np.random.default_rng(0)
    centers = rng.uniform(0, 1e5, (20_000, 2))
    angles = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    ring = np.column_stack([np.cos(angles), np.sin(angles)])
    xy = centers[:, None] + ring * rng.uniform(5, 20, (20_000, 1, 1))
    regions = [Region(shape, TUMOR) for shape in shapely.polygons(xy)]
    measures = Measures(MPP)
    places = {column: order(regions, column, measures) for column in listing.COLUMNS}
    areas = measures.areas_mm2(regions)[places["Size"]]
    assert (np.diff(areas) >= 0).all()
