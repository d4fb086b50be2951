"""ImageScope's XML and HALO's: layers, colours, ellipses, and holes that others overlook."""

from __future__ import annotations

from pathlib import Path

import pytest
from defusedxml.ElementTree import parse
from shapely.geometry import LineString, Point, Polygon, box

from napari_histomil.annotations.formats import read_annotations, write_annotations
from napari_histomil.annotations.model import AnnotationClass, Extra, Region, class_named
from napari_histomil.annotations.shapes import ellipse_ring
from napari_histomil.errors import AnnotationError

SQUARE = [(0, 0), (90, 0), (90, 90), (0, 90)]
HOLE = [(30, 30), (60, 30), (60, 60), (30, 60)]


def region(xy, number=1, kind="0", negative=0, of=0, text="", tag="Vertex") -> str:
    vertices = "".join(f'<{tag} X="{x}" Y="{y}" Z="0"/>' for x, y in xy)
    return (
        f'<Region Id="{number}" Type="{kind}" Zoom="0.05" Text="{text}" '
        f'NegativeROA="{negative}" InputRegionId="{of}"><Attributes/>'
        f"<Vertices>{vertices}</Vertices></Region>"
    )


def layer(*regions, name="Tumor", color=65280, number=1, fields="") -> str:
    return (
        f'<Annotation Id="{number}" Name="{name}" Type="4" LineColor="{color}">'
        f"<Attributes>{fields}</Attributes><Regions>{''.join(regions)}</Regions></Annotation>"
    )


def read(folder: Path, *layers, attributes='MicronsPerPixel="0.252100"'):
    path = folder / "a.xml"
    path.write_text(f"<Annotations {attributes}>{''.join(layers)}</Annotations>", "utf-8")
    return read_annotations(path)


def again(folder: Path, file, to="imagescope"):
    write_annotations(folder / "b.xml", file.regions, to=to, extra=file.extra)
    return read_annotations(folder / "b.xml")


@pytest.mark.parametrize(
    ("number", "color"),
    [(255, (255, 0, 0)), (65280, (0, 255, 0)), (16711680, (0, 0, 255)), (65535, (255, 255, 0))],
)
def test_colours_are_blue_green_red(tmp_path, number, color):
    file = read(tmp_path, layer(region(SQUARE), color=number))
    assert file.regions[0].classification == AnnotationClass("Tumor", color)
    assert again(tmp_path, file) == file
    (out,) = parse(tmp_path / "b.xml").getroot().iter("Annotation")
    assert out.get("LineColor") == str(number)


@pytest.mark.parametrize(
    ("name", "fields", "label"),
    [
        ("Tumor", '<Attribute Name="Description" Id="0" Value="x"/>', "Tumor"),
        ("", '<Attribute Name="Description" Id="0" Value="Necrosis"/>', "Necrosis"),
        ("", '<Attribute Name="CaP" Id="0" Value=""/>', "CaP"),
        ("", '<Attribute Name="Description" Id="0" Value=""/>', "Layer 2"),
        ("", "", "Layer 2"),
    ],
)
def test_what_a_layer_is_called(tmp_path, name, fields, label):
    file = read(tmp_path, layer(), layer(region(SQUARE), name=name, fields=fields, number=2))
    assert file.regions[0].class_name == label
    assert again(tmp_path, file) == file


@pytest.mark.parametrize("of", [0, 1, 7])
def test_negative_regions_are_holes_whoever_they_name(tmp_path, of):
    file = read(tmp_path, layer(region(HOLE, 2, negative=1, of=of), region(SQUARE, 1)))
    assert file.regions[0].geometry == Polygon(SQUARE, [HOLE])
    assert file.notes == ()
    assert again(tmp_path, file).regions == file.regions


def test_of_two_regions_around_it_a_hole_is_in_the_one_it_names_or_the_smaller(tmp_path):
    inner = [(10, 10), (80, 10), (80, 80), (10, 80)]
    for of, holed in ((1, 0), (0, 1), (2, 1)):
        hole = region(HOLE, 3, negative=1, of=of)
        file = read(tmp_path, layer(region(SQUARE, 1), region(inner, 2), hole))
        assert [len(each.geometry.interiors) for each in file.regions] == [
            int(n == holed) for n in range(2)
        ]
        assert again(tmp_path, file).regions == file.regions


def test_a_negative_region_at_the_edge_is_cut_off(tmp_path):
    edge = [(80, 0), (100, 0), (100, 90), (80, 90)]
    file = read(tmp_path, layer(region(SQUARE), region(edge, 2, negative=1)))
    assert file.regions[0].geometry.equals(box(0, 0, 80, 90))


def test_a_negative_region_alone_is_ignored_area(tmp_path):
    file = read(tmp_path, layer(region(SQUARE, 1, negative=1)))
    assert [each.class_name for each in file.regions] == ["Ignore*"]
    assert "lie in no region" in file.notes[0]
    assert again(tmp_path, file) == file


def test_ellipses_and_rectangles_by_their_corners(tmp_path):
    corners = [(10, 20), (50, 40)]
    file = read(tmp_path, layer(region(corners, kind="2"), region(corners, 2, kind="1")))
    ellipse, rectangle = file.regions
    assert ellipse.geometry == Polygon(ellipse_ring(10, 20, 50, 40))
    assert ellipse.geometry.bounds == (10, 20, 50, 40)
    assert ellipse.extra.geometry == {"isEllipse": True}
    assert rectangle.geometry.equals(box(10, 20, 50, 40))
    assert again(tmp_path, file) == file
    first, _ = parse(tmp_path / "b.xml").getroot().iter("Region")
    assert (first.get("Type"), len(list(first.iter("Vertex")))) == ("2", 2)


def test_an_ellipse_that_was_changed_is_an_outline(tmp_path):
    half = Region(box(0, 0, 9, 9), extra=Extra(geometry={"isEllipse": True}))
    write_annotations(tmp_path / "b.xml", [half], to="imagescope")
    assert read_annotations(tmp_path / "b.xml").regions == (half,)


@pytest.mark.parametrize("kind", ["3", "4", "5", "Ruler", "Pointer"])
def test_other_types_are_no_areas_and_are_kept(tmp_path, kind):
    file = read(tmp_path, layer(region(SQUARE[:2], kind=kind), region(SQUARE, 2, kind=kind)))
    assert [each.geometry.geom_type for each in file.regions] == ["LineString"] * 2
    assert again(tmp_path, file).regions == file.regions
    kinds = [each.get("Type") for each in parse(tmp_path / "b.xml").getroot().iter("Region")]
    assert kinds == [kind, kind]


def test_halos_variant(tmp_path):
    text = (
        '<Annotations><Annotation Name="T" Visible="True" LineColor="65280"><Regions>'
        + region(SQUARE, kind="Polygon", tag="V")
        + region([(10, 20), (50, 40)], kind="Ellipse", tag="V")
        + region([(1, 2), (3, 4)], kind="Ruler", tag="V")
        + region(HOLE, kind="Polygon", negative=1, tag="V")
        + "</Regions></Annotation></Annotations>"
    )
    (tmp_path / "a.annotations").write_text(text)
    file = read_annotations(tmp_path / "a.annotations")
    assert (file.format, file.notes) == ("halo", ())
    outline, ellipse, ruler = file.regions
    # the smallest that holds it
    assert len(outline.geometry.interiors) == 1
    assert ellipse.extra.geometry == {"isEllipse": True}
    assert ruler.geometry == LineString([(1, 2), (3, 4)])
    assert again(tmp_path, file, "halo") == file
    kinds = [each.get("Type") for each in parse(tmp_path / "b.xml").getroot().iter("Region")]
    assert kinds == ["Polygon", "Polygon", "Ellipse", "Ruler"]
    assert "<V X=" in (tmp_path / "b.xml").read_text()


def test_lengths_and_areas_are_computed(tmp_path):
    file = read(tmp_path, layer(region(SQUARE)))
    again(tmp_path, file)
    root = parse(tmp_path / "b.xml").getroot()
    (out,) = root.iter("Region")
    assert root.get("MicronsPerPixel") == "0.252100"
    assert {name: float(out.get(name)) for name in ("Length", "Area")} == {
        "Length": 360.0, "Area": 8100.0,
    }  # fmt: skip
    assert float(out.get("AreaMicrons")) == pytest.approx(8100 * 0.2521**2, abs=0.06)
    write_annotations(tmp_path / "b.xml", file.regions, to="imagescope", mpp=0.5)
    assert parse(tmp_path / "b.xml").getroot().get("MicronsPerPixel") == "0.500000"


def test_a_class_with_a_new_colour_recolours_its_layer(tmp_path):
    from dataclasses import replace

    file = read(tmp_path, layer(region(SQUARE)))
    red = replace(file.regions[0], classification=AnnotationClass("Tumor", (255, 0, 0)))
    write_annotations(tmp_path / "b.xml", [red], to="imagescope", extra=file.extra)
    (out,) = parse(tmp_path / "b.xml").getroot().iter("Annotation")
    assert out.get("LineColor") == "255"
    assert read_annotations(tmp_path / "b.xml").regions == (red,)


def test_where_imagescope_changed_a_fact_its_word_counts(tmp_path):
    drawn = Region(box(0, 0, 9, 9), class_named("Tumor"), name="A", locked=True)
    write_annotations(tmp_path / "b.xml", [drawn], to="imagescope")
    text = (tmp_path / "b.xml").read_text()
    text = text.replace('Text="A"', 'Text="B"').replace('Name="Tumor"', 'Name="Stroma"')
    (tmp_path / "b.xml").write_text(text)
    (changed,) = read_annotations(tmp_path / "b.xml").regions
    assert (changed.name, changed.class_name) == ("B", "Stroma")
    assert (changed.id, changed.locked) == (drawn.id, True)


def test_notes(tmp_path):
    regions = [Region(Point(1, 2)), Region(Polygon())]
    notes = write_annotations(tmp_path / "b.xml", regions, to="imagescope")
    assert [note.split(" ", 3)[:2] for note in notes] == [
        ["ImageScope", "has"], ["1", "points"], ["1", "objects"],
    ]  # fmt: skip
    file = read(tmp_path, layer(region([(1, 2)]).replace('Z="0"', 'Z="3"')))
    assert "one or two points only" in file.notes[0]
    assert "1 regions have heights" in file.notes[1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (layer(region([(0, "NaN"), *SQUARE], text="x")), r"of region 1 of layer 1 \(x\) is not"),
        (layer(region([("", 0), *SQUARE])), "not two finite numbers"),
        (layer(region([(1e12, 0), *SQUARE])), "farther out than any slide"),
        (layer('<Region><Attributes><Attribute Name="histomil" Value="3"/></Attributes></Region>'),
         "kept of region 1 of layer 1 is damaged"),
        (layer(fields='<Attribute Name="histomil" Value="["/>'), "kept of the file is damaged"),
        ("<Annotation>", "not whole"),
    ],
)  # fmt: skip
def test_what_is_malformed_is_told_in_one_sentence(tmp_path, text, words):
    with pytest.raises(AnnotationError, match=words) as error:
        read(tmp_path, text)
    assert str(error.value).startswith("a.xml cannot be read: ")
