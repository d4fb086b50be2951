"""`histomil annotations`: convert, info, validate."""

from __future__ import annotations

import json

import pytest
from shapely.geometry import Point, Polygon, box

from napari_histomil.annotations.formats import FORMATS, read_annotations, write_annotations
from napari_histomil.annotations.model import Region, class_named
from napari_histomil.cli.annotations import NAMES
from napari_histomil.geometry import Rect

TUMOR, STROMA = class_named("Tumor"), class_named("Stroma")


@pytest.fixture
def drawn(tmp_path):
    """A file with a tumour that has a hole, and stroma that overlaps it."""
    path = tmp_path / "мої регіони.geojson"
    hole = [(40, 40), (60, 40), (60, 60), (40, 60)]
    shell = [(0, 0), (200, 0), (200, 100), (0, 100)]
    write_annotations(
        path,
        [
            Region(Polygon(shell, [hole]), TUMOR, name="A"),
            Region(box(190, 0, 300, 100), STROMA),
        ],
    )
    return path


def test_all_formats_can_be_asked_for():
    assert tuple(FORMATS) == NAMES


@pytest.mark.parametrize("to", ["asap", "imagescope", "halo", "dsa", "geojson"])
def test_there_and_back(histomil, drawn, tmp_path, to):
    out, back = tmp_path / "out.xml", tmp_path / "back.geojson"
    said = histomil("annotations", "convert", drawn, out, "--to", to)
    assert (said.code, said.out) == (0, f"{out}\n")
    assert read_annotations(out).format == to
    assert histomil("annotations", "convert", out, back).code == 0
    assert read_annotations(back).regions == read_annotations(drawn).regions


def test_a_format_that_nothing_tells_and_a_file_that_is_there(histomil, drawn, tmp_path):
    said = histomil("annotations", "convert", drawn, tmp_path / "a.xml")
    assert (said.code, said.out) == (2, "")
    assert "does not tell the format: say which (asap or imagescope)" in said.complaint
    before = drawn.read_bytes()
    said = histomil("annotations", "convert", drawn, drawn)
    assert said.code == 2
    assert "exists already" in said.complaint
    assert drawn.read_bytes() == before
    assert histomil("annotations", "convert", drawn, drawn, "--force").code == 0


def test_camelyon_cut_outs_are_cut(histomil, tmp_path):
    source = tmp_path / "a.xml"
    outer, inner = [(0, 0), (9, 0), (9, 9), (0, 9)], [(3, 3), (6, 3), (6, 6), (3, 6)]
    source.write_text(
        "<ASAP_Annotations><Annotations>"
        + "".join(
            f'<Annotation Name="" Type="Polygon" PartOfGroup="{group}" Color="">'
            f"<Coordinates>"
            + "".join(f'<Coordinate Order="{n}" X="{x}" Y="{y}"/>' for n, (x, y) in enumerate(xy))
            + "</Coordinates></Annotation>"
            for group, xy in (("_0", outer), ("_2", inner), ("normal", inner))
        )
        + '</Annotations><AnnotationGroups><Group Name="_0"/><Group Name="_2"/>'
        '<Group Name="normal"/></AnnotationGroups></ASAP_Annotations>'
    )
    out = tmp_path / "a.geojson"
    assert histomil("annotations", "convert", source, out, "--map", "camelyon").code == 0
    tumor, normal = read_annotations(out).regions
    assert tumor.geometry == Polygon(outer, [inner])
    assert (tumor.classification, normal.class_name) == (TUMOR, "Normal")


def test_scores_of_tiles_become_classes(histomil, tmp_path):
    table = tmp_path / "a.csv"
    table.write_text("minx,miny,width,height,prob_a,prob_b\n0,0,8,8,0.25,0.75\n")
    out = tmp_path / "a.geojson"
    assert histomil("annotations", "convert", table, out, "--top-class").code == 0
    (tile,) = read_annotations(out).regions
    assert (tile.object_type, tile.class_name) == ("tile", "b")


def test_info(histomil, drawn, slide):
    said = histomil("annotations", "info", drawn)
    assert said.code == 0
    assert "format    QuPath GeoJSON\nregions   2\n" in said.out
    assert "Tumor          1           19600\n" in said.out
    said = histomil("annotations", "info", drawn, "--slide", slide, "--json")
    tumor, stroma = json.loads(said.out)["classes"]
    assert tumor == {
        "class": "Tumor", "regions": 1, "area_px2": 19600.0, "broken": 0, "area_mm2": 0.0049,
    }  # fmt: skip
    assert stroma["area_mm2"] == pytest.approx(11000 / 4e6)


def test_nothing_wrong(histomil, drawn, slide):
    said = histomil("annotations", "validate", drawn, "--slide", slide)
    assert (said.code, said.out, said.err) == (0, "", "")


def test_what_is_wrong_is_one_line_each(histomil, tmp_path, slide, drawn):
    path = tmp_path / "b.geojson"
    crossing = Polygon([(0, 0), (9, 9), (9, 0), (0, 9)])
    regions = [
        Region(crossing, TUMOR, name="crossing"),
        Region(box(630, 0, 650, 9), TUMOR, name="edge"),
        Region(Point(700, 9), TUMOR, name="gone"),
        Region(box(0, 0, 5, 5), name="classless"),
    ]
    write_annotations(path, [*regions, regions[3]])
    said = histomil("annotations", "validate", path, "--slide", slide)
    assert said.code == 1
    lines = said.out.splitlines()
    assert len(lines) == 6
    assert lines[0] == "1 objects had the id of another object and got new ids."
    assert "'crossing' Tumor" in lines[1]
    assert "crosses itself near x = 4, y = 4" in lines[1]
    assert [line.count("has no class.") for line in lines[2:4]] == [1, 1]
    assert "reaches outside the slide (640 x 512 px), at x = 630" in lines[4]
    assert "lies outside the slide" in lines[5]
    said = histomil("annotations", "validate", drawn, "--exclusive", "Tumor,Stroma")
    assert (said.code, said.out.count("\n")) == (1, 1)
    assert "overlap near x = 195, y = 50" in said.out
    said = histomil("annotations", "validate", drawn, path)
    assert all(line.startswith("b.geojson: ") for line in said.out.splitlines())


@pytest.mark.parametrize("verb", ["info", "validate"])
@pytest.mark.parametrize("content", ["", "<a/>", "<Annotations><", '{"type": 1}', "\0"])
def test_what_cannot_be_read_is_2(histomil, tmp_path, verb, content):
    path = tmp_path / "a.xml"
    path.write_text(content)
    said = histomil("annotations", verb, path)
    assert (said.code, said.out) == (2, "")
    assert said.complaint.count("a.xml") == 1


def test_another_slide_is_refused_and_nothing_written(histomil, tmp_path, slide):
    far = tmp_path / "far.xml"
    write_annotations(far, [Region(box(5000, 0, 5001, 9), TUMOR)], to="asap")
    out = tmp_path / "out.geojson"
    said = histomil("annotations", "convert", far, out, "--slide", slide)
    assert said.code == 2
    assert "All annotations lie outside слайд [1] 50%.tif (640 x 512 px)" in said.complaint
    assert not out.exists()


def test_a_slide_with_bounds_moves_only_what_qupath_counts(histomil, tmp_path, slide, monkeypatch):
    from dataclasses import replace

    from napari_histomil.cli import annotations as family

    def opened(*args, **options):
        found = open_slide(*args, **options)
        found.info = replace(found.info, bounds_px0=Rect(100, 50, 500, 400))
        return found

    open_slide = family.open_slide_with
    monkeypatch.setattr(family, "open_slide_with", opened)
    asap, out = tmp_path / "a.xml", tmp_path / "a.geojson"
    write_annotations(asap, [Region(box(110, 60, 120, 70), TUMOR)], to="asap")
    assert histomil("annotations", "convert", asap, out, "--slide", slide).code == 0
    ring = json.loads(out.read_text())["features"][0]["geometry"]["coordinates"][0]
    assert [min(x) for x in zip(*ring, strict=True)] == [10, 10]
    back = tmp_path / "b.xml"
    said = histomil("annotations", "convert", out, back, "--to", "asap", "--slide", slide)
    assert said.code == 0
    assert read_annotations(back).regions[0].geometry.bounds == (110, 60, 120, 70)
