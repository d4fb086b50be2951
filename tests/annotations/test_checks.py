"""What is found before annotations are called done, and what is not."""

from __future__ import annotations

import pytest
from shapely.geometry import LineString, Point, Polygon, box

from napari_histomil.annotations.checks import findings
from napari_histomil.annotations.classes import ClassSet
from napari_histomil.annotations.model import AnnotationClass, Region, class_named
from napari_histomil.geometry import Rect

SLIDE = Rect(0, 0, 1000, 800)
TUMOR, STROMA, NECROSIS = (class_named(name) for name in ("Tumor", "Stroma", "Necrosis"))
EXCLUSIVE = ClassSet(exclusive=(frozenset(("Tumor", "Stroma")),))


def found(*regions, classes=EXCLUSIVE):
    return [(each.kind, each.ids) for each in findings(regions, classes, SLIDE)]


def test_nothing_is_wrong_with_what_is_right():
    regions = [
        Region(box(0, 0, 1000, 800), class_named("Region*")),
        Region(box(10, 10, 50, 50), TUMOR),
        Region(box(50, 10, 90, 50), STROMA),  # touches the tumour
        Region(box(20, 20, 60, 60), NECROSIS),  # lies over both, and may
        Region(box(5, 5, 40, 40), TUMOR),  # two of one class may overlap
        Region(Point(3, 3), STROMA),
        Region(LineString([(0, 0), (60, 60)]), STROMA),
    ]
    assert found(*regions) == []
    assert found() == []


def test_each_thing_is_found_with_its_place():
    bow = Polygon([(0, 0), (10, 10), (10, 0), (0, 10)])
    empty, broken = Region(Polygon(), TUMOR), Region(bow, TUMOR)
    beyond, far = Region(box(990, 0, 1001, 9), TUMOR), Region(box(2000, 0, 2009, 9), TUMOR)
    bare = Region(box(5, 5, 9, 9))
    result = findings([bare, far, beyond, broken, empty], EXCLUSIVE, SLIDE)
    assert [(each.kind, each.ids[0]) for each in result] == [
        ("empty", empty.id),
        ("broken", broken.id),
        ("outside", far.id),
        ("outside", beyond.id),
        ("unclassified", bare.id),
    ]
    assert [each.bounds_px0 for each in result[3:]] == [Rect(990, 0, 11, 9), Rect(5, 5, 4, 4)]
    assert result[0].bounds_px0 is None
    assert "crosses itself near x = 5, y = 5" in result[1].sentence
    assert "outside the slide" in result[2].sentence
    assert "beyond the slide's edge" in result[3].sentence


def test_exclusive_classes_that_overlap_are_found_where_they_do():
    tumor, stroma = Region(box(0, 0, 50, 50), TUMOR), Region(box(40, 30, 90, 50), STROMA)
    (overlap,) = findings([stroma, tumor], EXCLUSIVE, SLIDE)
    assert overlap.kind == "overlap"
    assert set(overlap.ids) == {tumor.id, stroma.id}
    assert overlap.bounds_px0 == Rect(40, 30, 10, 20)
    assert found(stroma, tumor, classes=ClassSet()) == []


def test_a_broken_region_is_told_of_once_and_not_intersected():
    bow = Region(Polygon([(0, 0), (10, 10), (10, 0), (0, 10)]), TUMOR)
    assert found(bow, Region(box(0, 0, 9, 9), STROMA)) == [("broken", (bow.id,))]


def test_slivers_of_rounding_are_no_overlap():
    left = Region(Polygon([(0, 0), (33.34, 0), (66.67, 300), (0, 300)]), TUMOR)
    right = Region(Polygon([(33.33, 0), (99, 0), (99, 300), (66.66, 300)]), STROMA)
    assert left.geometry.intersection(right.geometry).area > 0
    assert found(left, right) == []


def test_a_class_that_a_locked_project_has_not_is_found():
    odd = Region(box(0, 0, 9, 9), AnnotationClass("Mine", (1, 2, 3)))
    assert found(odd) == []
    assert found(odd, classes=ClassSet(locked=True)) == [("foreign", (odd.id,))]


@pytest.mark.parametrize("kind", ["detection", "cell", "tile"])
def test_what_a_program_made_needs_no_class(kind):
    assert found(Region(box(0, 0, 9, 9), object_type=kind)) == []
