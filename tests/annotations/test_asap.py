"""ASAP's XML: what its files hold in the wild, and what ASAP demands of ours."""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element

import pytest
from defusedxml.ElementTree import parse
from shapely.geometry import LineString, MultiPoint, MultiPolygon, Point, Polygon, box

from napari_histomil.annotations.formats import read_annotations, write_annotations
from napari_histomil.annotations.model import Region, class_named
from napari_histomil.errors import AnnotationError

SQUARE = [(0, 0), (9, 0), (9, 9), (0, 9)]
HOLE = [(3, 3), (6, 3), (6, 6), (3, 6)]


def annotation(xy, kind="Polygon", group="None", color="#F4FA58", name="a", order=None) -> str:
    numbers = range(len(xy)) if order is None else order
    vertices = "".join(
        f'<Coordinate Order="{n}" X="{x}" Y="{y}"/>' for n, (x, y) in zip(numbers, xy, strict=True)
    )
    return (
        f'<Annotation Name="{name}" Type="{kind}" PartOfGroup="{group}" Color="{color}">'
        f"<Coordinates>{vertices}</Coordinates></Annotation>"
    )


def group(name, parent="None", color="#64FE2E", attributes="") -> str:
    return (
        f'<Group Name="{name}" PartOfGroup="{parent}" Color="{color}">'
        f"<Attributes>{attributes}</Attributes></Group>"
    )


def document(*annotations, groups="") -> str:
    return (
        f"<ASAP_Annotations><Annotations>{''.join(annotations)}</Annotations>"
        f"<AnnotationGroups>{groups}</AnnotationGroups></ASAP_Annotations>"
    )


def read(folder: Path, text: str):
    (folder / "a.xml").write_text(text, encoding="utf-8")
    return read_annotations(folder / "a.xml")


def written(folder: Path, *regions: Region, extra=None) -> Element:
    write_annotations(folder / "out.xml", regions, to="asap", extra=extra)
    return parse(folder / "out.xml").getroot()


@pytest.mark.parametrize(
    ("kind", "xy", "shape"),
    [
        ("Polygon", SQUARE, Polygon(SQUARE)),
        ("Spline", SQUARE, Polygon(SQUARE)),
        ("Rectangle", SQUARE, Polygon(SQUARE)),
        ("Polygon", [*SQUARE, SQUARE[0]], Polygon(SQUARE)),
        ("Dot", [(1, 2)], Point(1, 2)),
        ("PointSet", [(1, 2)], MultiPoint([(1, 2)])),
        ("PointSet", [(1, 2), (3, 4)], MultiPoint([(1, 2), (3, 4)])),
        ("Measurement", [(1, 2), (3, 4)], LineString([(1, 2), (3, 4)])),
        ("None", [(1, 2)], Point(1, 2)),
        ("None", [], Polygon()),
        ("Polygon", [(1, 2)], Point(1, 2)),
        ("Polygon", [(1, 2), (3, 4)], LineString([(1, 2), (3, 4)])),
        ("Blob", [(1, 2), (3, 4)], MultiPoint([(1, 2), (3, 4)])),
    ],
)
def test_types_come_in_and_go_out_again(tmp_path, kind, xy, shape):
    file = read(tmp_path, document(annotation(xy, kind)))
    (region,) = file.regions
    assert region.geometry == shape
    (out,) = written(tmp_path, region).iter("Annotation")
    assert out.get("Type") == kind
    assert read_annotations(tmp_path / "out.xml").regions == (region,)


def test_of_a_changed_spline_the_type_stays_and_of_a_rectangle_it_goes(tmp_path):
    from dataclasses import replace

    pentagon = Polygon([*SQUARE, (-3, 4)])
    for kind, expected in (("Spline", "Spline"), ("Rectangle", "Polygon")):
        (region,) = read(tmp_path, document(annotation(SQUARE, kind))).regions
        (out,) = written(tmp_path, replace(region, geometry=pentagon)).iter("Annotation")
        assert out.get("Type") == expected


def test_numbers_with_decimal_commas(tmp_path):
    text = document(annotation(SQUARE)).replace('X="9"', 'X="9,25"')
    (region,) = read(tmp_path, text).regions
    assert region.geometry.bounds == (0, 0, 9.25, 9)
    assert "9.25" in (written(tmp_path, region), (tmp_path / "out.xml").read_text())[1]


@pytest.mark.parametrize("root", [False, True])
def test_files_without_a_root(tmp_path, root):
    inner = document(annotation(SQUARE, group="t"), groups=group("t"))
    inner = inner.replace("<ASAP_Annotations>", "").replace("</ASAP_Annotations>", "")
    (region,) = read(tmp_path, '<?xml version="1.0"?>\n' + inner).regions
    assert region.class_name == "t"
    alone = f"<Annotations>{annotation(SQUARE)}</Annotations>"
    assert read(tmp_path, alone).regions[0].geometry == Polygon(SQUARE)


def test_order_is_the_order_of_vertices_and_ours_has_no_gaps(tmp_path):
    shuffled = [SQUARE[n] for n in (2, 0, 3, 1)]
    file = read(tmp_path, document(annotation(shuffled, order=(2, 0, 3, 1))))
    assert (file.regions[0].geometry, file.notes) == (Polygon(SQUARE), ())
    file = read(tmp_path, document(annotation(SQUARE, order=(0, 5, "", 5))))
    assert file.regions[0].geometry == Polygon(SQUARE)
    assert "number their vertices with gaps" in file.notes[0]
    out = written(tmp_path, *file.regions)
    assert [each.get("Order") for each in out.iter("Coordinate")] == ["0", "1", "2", "3"]


def test_groups_are_classes_with_colours_parents_and_attributes(tmp_path):
    groups = (
        group("tissue", color="#112233")
        + group("tumour", "tissue", "", '<Attribute grade="3"/>')
        + group("empty")
    )
    file = read(tmp_path, document(annotation(SQUARE, group="tumour"), groups=groups))
    (region,) = file.regions
    assert region.classification == class_named("tumour")
    out = written(tmp_path, region, extra=file.extra)
    assert [dict(each.items()) for each in out.iter("Group")] == [
        {"Name": "tissue", "PartOfGroup": "None", "Color": "#112233"},
        {"Name": "tumour", "PartOfGroup": "tissue", "Color": ""},
        {"Name": "empty", "PartOfGroup": "None", "Color": "#64FE2E"},
    ]
    assert [dict(each.items()) for each in out.iter("Attribute")] == [{"grade": "3"}]


def test_a_group_that_nobody_declared_is_declared_when_written(tmp_path):
    file = read(tmp_path, document(annotation(SQUARE, group="t")))
    assert "ASAP refuses the file" in file.notes[0]
    out = written(tmp_path, *file.regions, extra=file.extra)
    assert [each.get("Name") for each in out.iter("Group")] == ["t"]


def test_every_group_that_is_used_is_declared(tmp_path):
    holed = Polygon(SQUARE, [HOLE])
    regions = [
        Region(holed), Region(holed, class_named("None")), Region(holed, class_named("A holes")),
        Region(holed, class_named("A")), Region(Point(0, 0), class_named("\x01")),
    ]  # fmt: skip
    out = written(tmp_path, *regions)
    declared = {each.get("Name") for each in out.iter("Group")} | {"None"}
    assert {each.get("PartOfGroup") for each in out.iter("Annotation")} <= declared
    assert {each.get("PartOfGroup") for each in out.iter("Group")} <= declared
    assert read_annotations(tmp_path / "out.xml").regions == tuple(regions)


def test_parts_and_holes_survive_what_asap_keeps(tmp_path):
    region = Region(
        MultiPolygon([Polygon(SQUARE, [HOLE]), box(20, 0, 29, 9)]), class_named("Tumor"), name="A"
    )
    out = written(tmp_path, region)
    for each in out.iter("Annotation"):  # ASAP does not know this attribute
        each.attrib.pop("Histomil", None)
    out.attrib.clear()
    from xml.etree.ElementTree import tostring

    (again,) = read(tmp_path, tostring(out, encoding="unicode")).regions
    assert again.geometry == region.geometry
    assert (again.classification, again.name) == (region.classification, "A")


def test_a_hole_that_somebody_draws_in_asap_counts(tmp_path):
    region = Region(Polygon(SQUARE, [HOLE]), class_named("Tumor"))
    written(tmp_path, region)
    text = (tmp_path / "out.xml").read_text()
    drawn = annotation([(1, 1), (2, 1), (2, 2)], group="Tumor holes")
    (again,) = read(tmp_path, text.replace("</Annotations>", f"{drawn}</Annotations>")).regions
    assert again.geometry.area == 81 - 9 - 0.5


def test_notes_on_what_asap_does_not_keep(tmp_path):
    plain = read(tmp_path, document(annotation(SQUARE))).regions
    assert write_annotations(tmp_path / "b", plain, to="asap") == ()
    notes = write_annotations(
        tmp_path / "b",
        [Region(LineString([(0, 0), (1, 1), (2, 0)]), measurements={"a": 1.0})],
        to="asap",
    )
    assert "is lost if ASAP saves it" in notes[0]
    assert "1 lines of more than two points" in notes[1]


BOMB = (
    '<!DOCTYPE a [<!ENTITY a "lol">'
    + "".join(
        f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )
    + "]>"
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (document(annotation(SQUARE))[:-9], "is not whole or not XML: .* in line 1, column"),
        (BOMB + document(annotation(SQUARE, name="&i;")), "document type or entities"),
        ('<!DOCTYPE a SYSTEM "file:///etc/passwd">' + document(), "document type or entities"),
        (
            document(annotation([(0, "NaN"), *SQUARE])),
            r"vertex 1 of annotation 1 \(a\) is",
        ),
        (document(annotation([(0, "1e999"), *SQUARE])), "is not two finite numbers"),
        (document(annotation([(0, ""), *SQUARE])), "is not two finite numbers"),
        (document(annotation([(0, "1.234,5"), *SQUARE])), "is not two finite numbers"),
        (document(annotation([(0, "1_0"), *SQUARE])), "is not two finite numbers"),
        (document(annotation([(0, 1e12), *SQUARE])), "1e\\+12 px, farther out than any slide"),
        (
            document("<Annotation><Coordinates><Coordinate/></Coordinates></Annotation>"),
            "X = None",
        ),
        (document('<Annotation Histomil="{" Name="a"/>'), "kept of annotation 1 .* is damaged"),
        ("<a>" * 100_000, "not whole"),
        ("<svg/>", r"XML of another kind \(svg\)"),
    ],
)
def test_what_is_malformed_is_told_in_one_sentence(tmp_path, text, words):
    with pytest.raises(AnnotationError, match=words) as error:
        read(tmp_path, text)
    assert str(error.value).startswith("a.xml cannot be read: ")
    assert "\n" not in str(error.value)


def test_a_crossing_outline_is_read_and_written_as_it_is(tmp_path):
    ring = [(0, 0), (9, 9), (9, 0), (0, 9)]
    (region,) = read(tmp_path, document(annotation(ring))).regions
    assert "crosses itself" in region.problem()
    written(tmp_path, region)
    assert read_annotations(tmp_path / "out.xml").regions == (region,)


def test_every_truncation_is_refused(tmp_path):
    text = document(annotation(SQUARE, group="t"), groups=group("t"))
    for length in range(1, len(text), 5):
        with pytest.raises(AnnotationError, match=r"a\.xml"):
            read(tmp_path, text[:length])
