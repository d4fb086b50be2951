"""Regions: what they refuse, which shape is broken and where, areas, where to look."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import shapely
from shapely.geometry import GeometryCollection, LineString, MultiPolygon, Point, Polygon, box

from napari_histomil.annotations.model import (
    IGNORE,
    REGION,
    STANDARD_CLASSES,
    AnnotationClass,
    Region,
    SlideFrame,
    areal_polygons,
    class_named,
    walk,
)
from napari_histomil.errors import AnnotationError
from napari_histomil.geometry import Rect
from napari_histomil.slides.slide import Level, SlideInfo

BOW_TIE = Polygon([(0, 0), (10, 10), (10, 0), (0, 10)])


def test_area_in_um2_counts_both_axes_and_leaves_holes_out():
    ring = box(0, 0, 100, 50).difference(box(10, 10, 20, 20))
    assert Region(ring).area_um2((0.5, 0.25)) == pytest.approx((5000 - 100) * 0.125)
    two = MultiPolygon([box(0, 0, 1, 1), box(5, 5, 7, 7)])
    assert Region(two).area_um2((1, 1)) == pytest.approx(5)


@pytest.mark.parametrize("shape", [Point(3, 4), LineString([(0, 0), (9, 9)]), Polygon()])
def test_what_has_no_area_has_none(shape):
    region = Region(shape)
    assert not region.is_areal
    assert region.area_um2((0.5, 0.5)) == 0


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        (BOW_TIE, "crosses itself near x = 5, y = 5"),
        (Polygon(box(0, 0, 9, 9).exterior, [box(20, 20, 22, 22).exterior]), "hole lies outside"),
        (
            Polygon(
                box(0, 0, 99, 99).exterior,
                [box(9, 9, 50, 50).exterior, box(20, 20, 30, 30).exterior],
            ),
            "a hole lies inside another hole",
        ),
        (MultiPolygon([box(0, 0, 9, 9), box(2, 2, 4, 4)]), "one of its parts lies inside another"),
        (Polygon([(1, 1), (1, 1), (1, 1)]), "fewer than three different points near x = 1, y = 1"),
    ],
)
def test_a_broken_shape_says_which_and_where(shape, words):
    region = Region(shape, name="ROI 1", classification=class_named("Tumor"))
    problem = region.problem()
    assert words in problem
    assert problem.startswith(f"Region 'ROI 1' Tumor ({region.id[:8]}) is broken")
    with pytest.raises(AnnotationError, match="is broken"):
        region.area_um2((1, 1))


def test_a_sound_shape_has_no_problem():
    assert Region(box(0, 0, 1, 1)).problem() is None


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        (GeometryCollection([Point(0, 0)]), "is a GeometryCollection: a region is a point"),
        ("polygon", "is a str"),
        (Point(math.nan, 1), "not a number"),
        (LineString([(0, 0), (math.inf, 1)]), "not a number"),
        (Point(0, -2e9), "-2e\\+09 px, farther out than any slide"),
    ],
)
def test_what_cannot_be_a_region(shape, words):
    with pytest.raises(AnnotationError, match=words):
        Region(shape)
    with pytest.raises(AnnotationError, match=words):
        Region(box(0, 0, 1, 1), nucleus=shape)


def test_ids_are_uuids_and_stay_with_the_region():
    with pytest.raises(AnnotationError, match="must be a UUID, not 'region 1'"):
        Region(Point(0, 0), id="region 1")
    first, second = Region(Point(0, 0)), Region(Point(0, 0))
    assert first.id != second.id
    assert replace(first, geometry=Point(1, 1)).id == first.id


def test_colour_shown():
    tumor = class_named("Tumor")
    assert Region(Point(0, 0)).shown_color == (255, 0, 0)
    assert Region(Point(0, 0), classification=tumor).shown_color == (200, 0, 0)
    assert Region(Point(0, 0), classification=tumor, color=(1, 2, 3)).shown_color == (1, 2, 3)


def test_standard_classes_have_qupaths_colours_and_others_one_of_their_own():
    assert class_named("Region*") == AnnotationClass("Region*", (0, 0, 180))
    assert len({c.name for c in STANDARD_CLASSES}) == 9
    assert class_named("Gland") == class_named("Gland")
    assert class_named("Gland").color != class_named("Vessel").color
    assert all(0 <= value <= 255 for value in class_named("half a pair: \ud800").color)


def test_walk_goes_into_children():
    leaf = Region(Point(0, 0), name="leaf")
    twig = Region(Point(0, 0), name="twig", children=(leaf,))
    tree = Region(Point(0, 0), name="tree", children=(twig, leaf))
    assert [region.name for region in walk([tree])] == ["tree", "twig", "leaf", "leaf"]


def test_where_to_look_is_what_has_an_area_as_drawn():
    two = MultiPolygon([box(0, 0, 1, 1), box(5, 5, 7, 7)])
    regions = [Region(two), Region(Point(3, 3)), Region(box(0, 0, 2, 2))]
    assert areal_polygons(regions) == [*two.geoms, box(0, 0, 2, 2)]


def test_ignored_regions_are_cut_out():
    outer = Region(
        box(0, 0, 10, 10),
        classification=class_named("Region*"),
        children=(Region(box(2, 2, 4, 4), classification=class_named("Ignore*")),),
    )
    (polygon,) = areal_polygons([outer])
    assert polygon.area == 96
    assert len(polygon.interiors) == 1
    nothing = Region(box(-5, -5, 50, 50), classification=class_named("Ignore*"))
    assert areal_polygons([outer, nothing]) == []
    assert areal_polygons([nothing]) == []


def test_a_broken_region_is_no_place_to_look():
    with pytest.raises(AnnotationError, match=r"crosses itself .* Mend the shape first"):
        areal_polygons([Region(BOW_TIE)])


@pytest.mark.parametrize(
    ("bounds", "origin"), [(None, (0, 0)), (Rect(1000, 250, 5000, 5000), (1000, 250))]
)
def test_the_frame_of_a_slide_begins_at_its_bounds(bounds, origin):
    info = SlideInfo(
        path=Path("folder/slide.mrxs"),
        reader="openslide",
        vendor="mirax",
        width_px0=9000,
        height_px0=9000,
        mpp_x=0.25,
        mpp_y=0.25,
        mpp_source="file",
        objective_power=40,
        levels=(Level(9000, 9000, 1.0, 256, 256),),
        channels=("red", "green", "blue"),
        dtype="uint8",
        composite="",
        bounds_px0=bounds,
        associated_images=(),
        properties={},
        fingerprint="ab" * 32,
    )
    frame = SlideFrame.of(info)
    assert frame == SlideFrame(origin, "slide.mrxs", "ab" * 32)


def test_regions_are_equal_by_value():
    one = Region(shapely.from_wkt("POLYGON ((0 0, 1 0, 1 1, 0 0))"), name="a")
    assert one == replace(one, geometry=shapely.from_wkt("POLYGON ((0 0, 1 0, 1 1, 0 0))"))
    assert one != replace(one, geometry=box(0, 0, 1, 1))


def test_what_metadata_say_of_a_region():
    told = {
        "author": "Ada",
        "created": "2026-01-02T03:04:05Z",
        "edited": "2026-01-02T03:05:00Z",
        "note": "odd",
        "state": "reviewed",
        "reviewer": "Bo",
    }
    region = Region(Point(0, 0), metadata=told)
    assert {key: getattr(region, key) for key in told} == told
    bare = Region(Point(0, 0))
    assert [getattr(bare, key) for key in told] == ["", "", "", "", "draft", ""]
    assert Region(Point(0, 0), metadata={"state": "whatever"}).state == "draft"


def test_what_is_locked_by_qupath_or_a_reviewer_is_fixed():
    assert not Region(Point(0, 0), metadata={"state": "reviewed"}).is_fixed
    assert Region(Point(0, 0), metadata={"state": "locked"}).is_fixed
    assert Region(Point(0, 0), locked=True).is_fixed


def test_classes_that_are_no_tissue_are_among_the_standard_ones():
    names = {each.name for each in STANDARD_CLASSES}
    assert {REGION, IGNORE} <= names


@pytest.mark.parametrize("wrong", ["", "7b6a8f4e", "7B6A8F4E-6F43-4D0B-9A55-0A1F7C1B8A10", "{1}"])
def test_an_id_is_a_uuid_in_one_spelling(wrong):
    with pytest.raises(AnnotationError, match="must be a UUID"):
        Region(Point(0, 0), id=wrong)
