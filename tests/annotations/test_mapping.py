"""Mappings: groups become classes, are cut out, or left out."""

from __future__ import annotations

import json

import pytest
from shapely.geometry import Point, Polygon, box

from napari_histomil.annotations.files import AnnotationFile
from napari_histomil.annotations.mapping import mapped, mapping_of, read_mapping
from napari_histomil.annotations.model import AnnotationClass, Region, SlideFrame, class_named
from napari_histomil.errors import AnnotationError


def file_of(*regions: Region) -> AnnotationFile:
    return AnnotationFile(regions, SlideFrame())


def apply(mapping, *regions: Region) -> AnnotationFile:
    return mapped(file_of(*regions), mapping_of(mapping))


def test_classes_by_name_colour_none_and_rest():
    regions = [
        Region(box(0, 0, 1, 1), AnnotationClass("a", (1, 2, 3))),
        Region(box(0, 0, 1, 1), AnnotationClass("b", (16, 32, 48))),
        Region(box(0, 0, 1, 1)),
        Region(box(0, 0, 1, 1), class_named("d")),
    ]
    file = apply(
        {"a": "Tumor", "#102030": {"class": "B", "color": [9, 8, 7]}, "none": "Stroma",
         "*": {"class": "Rest", "color": "#010203"}},
        *regions,
    )  # fmt: skip
    assert [region.classification for region in file.regions] == [
        class_named("Tumor"),
        AnnotationClass("B", (9, 8, 7)),
        class_named("Stroma"),
        AnnotationClass("Rest", (1, 2, 3)),
    ]
    assert apply({}, *regions).regions == tuple(regions)


def test_what_is_ignored_is_counted():
    file = apply({"a": "ignore"}, *[Region(Point(0, 0), class_named("a"))] * 3)
    assert file.regions == ()
    assert file.notes == ("3 regions of a were left out, as the mapping says.",)


def test_a_cut_out_inside_is_a_hole_with_its_own_vertices():
    hole = [(3, 3), (6, 3), (6, 6), (3, 6)]
    outer = Region(box(0, 0, 9, 9), class_named("t"))
    file = apply({"_2": "subtract"}, outer, Region(Polygon(hole), class_named("_2")))
    assert file.regions[0].geometry == Polygon(outer.geometry.exterior, [hole])
    assert file.regions[0].id == outer.id


def test_cut_outs_over_the_edge_across_and_over_all():
    cut = class_named("_2")
    outer = Region(box(0, 0, 9, 9), class_named("t"))
    file = apply({"_2": "subtract"}, outer, Region(box(6, 0, 12, 9), cut))
    assert file.regions[0].geometry.equals(box(0, 0, 6, 9))
    file = apply({"_2": "subtract"}, outer, Region(box(4, -1, 5, 10), cut))
    assert file.regions[0].geometry.geom_type == "MultiPolygon"
    file = apply({"_2": "subtract"}, outer, Region(box(-1, -1, 10, 10), cut))
    assert (file.regions, len(file.notes)) == ((), 1)
    file = apply({"_2": "subtract"}, outer, Region(box(50, 50, 51, 51), cut))
    assert "touch no region" in file.notes[0]


def test_only_the_classes_that_are_named_are_cut():
    file = apply(
        {"x": {"subtract": "a"}},
        *(Region(box(0, 0, 9, 9), class_named(name)) for name in "ab"),
        Region(box(0, 0, 5, 9), class_named("x")),
    )
    assert [region.geometry.area for region in file.regions] == [36, 81]


def test_broken_outlines_and_children():
    crossing = Polygon([(0, 0), (9, 9), (9, 0), (0, 9)])
    child = Region(box(0, 0, 9, 9), class_named("t"))
    parent = Region(Polygon(), children=(child, Region(crossing, class_named("t"))))
    file = apply({"x": "subtract"}, parent, Region(box(0, 0, 5, 9), class_named("x")))
    (whole,) = file.regions
    assert [each.geometry.area for each in whole.children] == [36, crossing.area]
    assert "mend them first" in file.notes[0]


def test_files(tmp_path):
    path = tmp_path / "map.json"
    path.write_text(json.dumps({"a": "Tumor"}))
    table = tmp_path / "map.csv"
    table.write_text("group,class,color\na,Tumor,\nb,subtract,\nc,C,#010203\n")
    assert read_mapping(path).targets["a"] == read_mapping(table).targets["a"]
    assert read_mapping(table).targets["c"].classification.color == (1, 2, 3)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[]", "should be one object"),
        ('{"a": 1}', "'a' should become a class, 'subtract' or 'ignore', not 1"),
        ('{"a": {"class": "A", "color": [1, 2]}}', "'a' should become"),
        ('{"a": ', "is not whole or not JSON"),
        ("a,b\n1,2\n", "needs the columns group and class"),
        ("group,class\na,\n", "line 2 lacks"),
        ("\0", "needs the columns|neither JSON nor a table"),
    ],
)
def test_what_is_malformed_is_told_in_one_sentence(tmp_path, text, words):
    path = tmp_path / "m.txt"
    path.write_text(text)
    with pytest.raises(AnnotationError, match=words) as error:
        read_mapping(path)
    assert str(error.value).startswith("m.txt")
