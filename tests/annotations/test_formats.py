"""Every format by one entrance: told by content, out and in again without change."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from shapely import transform
from shapely.geometry import LineString, MultiLineString, MultiPoint, MultiPolygon, Point, Polygon

from napari_histomil.annotations.formats import (
    FORMATS,
    format_for,
    read_annotations,
    write_annotations,
)
from napari_histomil.annotations.model import AnnotationClass, Extra, Region, SlideFrame
from napari_histomil.errors import AnnotationError

REAL = {
    "annot-aperio-imagescope/TCGA-EJ-5519-01Z-00-DX1.xml": "imagescope",
    "annot-asap-camelyon16/tumor_076.xml": "asap",
    "annot-asap-camelyon16/tumor_085.xml": "asap",
    "annot-asap-tissue-tcga/TCGA-2G-AAGK-01Z-00-DX1.D0530A91-8CA1-47AA-95AF-AB7B901DC5B6.xml":
        "asap",
    "annot-asap-tissue-tcga/TCGA-2G-AAHN-01Z-00-DX1.B5CCB104-C436-4B80-8F47-EB9C7D13ACF0.xml":
        "asap",
    "annot-qupath-asap-shapes/asap-polygon.xml": "asap",
    "annot-qupath-asap-shapes/qupath-brush.json": "geojson",
    "annot-qupath-asap-shapes/qupath-line.json": "geojson",
    "annot-qupath-asap-shapes/qupath-point.json": "geojson",
    "annot-qupath-asap-shapes/qupath-polygon.json": "geojson",
    "annot-qupath-asap-shapes/qupath-rectangle.json": "geojson",
    "annot-qupath-geojson/qupath05.geojson": "geojson",
    "wsinfer-format/breast-tumor-resnet34.tcga-brca.csv": "wsinfer",
    "wsinfer-format/pancancer-lymphocytes-inceptionv4.tcga.csv": "wsinfer",
    "wsinfer-format/pancreas-tumor-preactresnet34.tcga-paad.csv": "wsinfer",
}  # fmt: skip
DARWIN = "annot-qupath-geojson/103S-darwin-v7.json"

SLIDE = SlideFrame((1000.0, 250.0), "зріз 1.mrxs", "ab" * 32)


# --- real files -------------------------------------------------------------------------------


def test_every_real_file_is_listed_above(data_dir):
    found = {
        path.relative_to(data_dir).as_posix()
        for pattern in ("annot-*/*", "wsinfer-format/*")
        for path in data_dir.glob(pattern)
    }
    assert found == {*REAL, DARWIN}


@pytest.mark.parametrize("name", REAL)
def test_real_files_go_in_out_and_in_without_change(data_dir, tmp_path, name):
    first = read_annotations(data_dir / name)
    assert (first.format, first.notes) == (REAL[name], ())
    path = tmp_path / "again"  # its name tells nothing
    write_annotations(path, first.regions, to=first.format, extra=first.extra)
    assert read_annotations(path) == first


@pytest.mark.parametrize("name", [name for name, kind in REAL.items() if kind == "asap"])
def test_real_files_of_asap_come_out_byte_for_byte(data_dir, tmp_path, name):
    file = read_annotations(data_dir / name)
    assert write_annotations(tmp_path / "a", file.regions, to="asap", extra=file.extra) == ()
    assert (tmp_path / "a").read_bytes() == (data_dir / name).read_bytes()


@pytest.mark.parametrize("to", ["geojson", "asap", "imagescope", "halo", "dsa"])
@pytest.mark.parametrize("name", REAL)
def test_real_files_survive_every_other_format(data_dir, tmp_path, name, to):
    first = read_annotations(data_dir / name)
    write_annotations(tmp_path / "b", first.regions, to=to, frame=first.frame, extra=first.extra)
    second = read_annotations(tmp_path / "b")
    assert second.format == to
    assert [_rounded(region) for region in second.regions] == [
        _rounded(region) for region in first.regions
    ]
    write_annotations(
        tmp_path / "c", second.regions, to=first.format, frame=second.frame, extra=second.extra
    )
    third = read_annotations(tmp_path / "c")
    assert [_rounded(region) for region in third.regions] == [
        _rounded(region) for region in first.regions
    ]
    assert third.extra.get(first.format) == first.extra.get(first.format)


def _rounded(region: Region) -> Region:
    """Hundredths of a pixel are what QuPath keeps; what a format says in its own words may go."""
    properties = {
        key: value
        for key, value in region.extra.properties.items()
        if key not in ("asap", "imagescope", "dsa")
    }
    return replace(
        region,
        geometry=transform(region.geometry, lambda xy: xy.round(2)),
        extra=replace(region.extra, properties=properties),
    )


def test_darwin_is_refused_by_name(data_dir):
    with pytest.raises(AnnotationError, match=r"it is Darwin \(V7\) JSON") as error:
        read_annotations(data_dir / DARWIN)
    assert str(error.value).count("cannot be read") == 1


# --- told by content --------------------------------------------------------------------------


@pytest.mark.parametrize("to", FORMATS)
def test_names_tell_nothing(tmp_path, to):
    tile = Region(
        Polygon([(8, 0), (8, 8), (0, 8), (0, 0)]), locked=True, object_type="tile",
        measurements={"prob_a": 0.5},
    )  # fmt: skip
    for name in ("a.xml", "a.json", "a.csv", "a"):
        write_annotations(tmp_path / name, [tile], to=to)
        file = read_annotations(tmp_path / name)
        assert (file.format, len(file.regions)) == (to, 1)
        assert file.regions[0].measurements == {"prob_a": 0.5}


@pytest.mark.parametrize(
    ("name", "to", "source", "expected"),
    [
        ("a.geojson", None, None, "geojson"),
        ("a.geojson.gz", None, None, "geojson"),
        ("a.json", None, None, "geojson"),
        ("a.json", None, "dsa", "dsa"),
        ("a.XML", None, "imagescope", "imagescope"),
        ("a.xml", "asap", "imagescope", "asap"),
        ("a.annotations", None, "asap", "halo"),
        ("a.csv", None, None, "wsinfer"),
    ],
)
def test_formats_by_suffix(name, to, source, expected):
    assert format_for(Path(name), to, source=source) == expected


@pytest.mark.parametrize(
    ("name", "to", "words"),
    [
        ("a.xml", None, "a.xml does not tell the format: say which \\(asap or imagescope\\)"),
        ("a.txt", None, "does not tell the format"),
        ("a.xml", "word", "There is no format word: choose one of geojson, asap"),
    ],
)
def test_formats_that_nothing_tells(name, to, words):
    with pytest.raises(AnnotationError, match=words):
        format_for(Path(name), to)


# --- property: what is written is what is read ------------------------------------------------

hundredths = st.integers(-10_000_000, 10_000_000).map(lambda n: n / 100)
positions = st.tuples(hundredths, hundredths)
lines = st.lists(positions, min_size=2, max_size=6, unique=True).map(LineString)
texts = st.text(st.characters(), max_size=12)
words = texts.filter(bool)
bytes_ = st.integers(0, 255)
rgb = st.tuples(bytes_, bytes_, bytes_)
json_values = st.none() | st.booleans() | st.integers(-(10**9), 10**9) | texts
unknown = st.dictionaries(words.map(lambda text: f"x{text}"), json_values, max_size=2)


@st.composite
def polygons(draw) -> Polygon:
    """A polygon on a grid with up to two holes inside: sound, as formats that put holes where
    they lie need it."""
    x, y = draw(positions)
    side = draw(st.integers(40, 400)) / 10
    shell = [(x, y), (x + side, y), (x + side, y + side), (x, y + side)]
    holes = []
    for n in range(draw(st.integers(0, 2))):
        left = x + side * (0.1 + 0.4 * n)
        holes.append([(left, y + 1), (left + side * 0.2, y + 1), (left, y + side / 2)])
    if draw(st.booleans()):
        shell.insert(1, (x + side / 2, y - draw(st.integers(1, 30)) / 10))
    rounded = [[(round(a, 4), round(b, 4)) for a, b in ring] for ring in (shell, *holes)]
    return Polygon(rounded[0], rounded[1:])


@st.composite
def multipolygons(draw) -> MultiPolygon:
    count = draw(st.integers(1, 3))
    parts = [
        transform(draw(polygons()), lambda xy, n=n: (xy + np.array([10**6 * n, 0])).round(4))
        for n in range(count)
    ]
    return MultiPolygon(parts)


shapes = st.one_of(
    positions.map(Point),
    st.lists(positions, min_size=1, max_size=4).map(MultiPoint),
    lines,
    st.lists(lines, min_size=1, max_size=3).map(MultiLineString),
    polygons(),
    multipolygons(),
)


def regions_of(children):
    return st.builds(
        Region,
        geometry=shapes,
        classification=st.none()
        | st.builds(AnnotationClass, words, rgb, st.just(255) | st.integers(1, 255)),
        id=st.uuids().map(str),
        name=st.none() | texts,
        color=st.none() | rgb,
        locked=st.booleans(),
        object_type=st.sampled_from(["annotation", "detection", "tile", "cell", "tmaCore"]),
        measurements=st.dictionaries(texts, st.floats(allow_nan=False), max_size=3),
        metadata=st.dictionaries(texts, texts, max_size=2),
        nucleus=st.none() | polygons().map(lambda p: Polygon([(0, 0), (1, 0), (1, 1)])),
        children=children,
        extra=st.builds(
            Extra,
            feature=unknown,
            properties=unknown,
            geometry=st.just({}),
            nucleus=st.just({}),
            classification=st.just({}),
        ),
    )


regions = regions_of(st.lists(regions_of(st.just(())), max_size=2).map(tuple))


@pytest.mark.parametrize("to", ["asap", "imagescope", "halo", "dsa"])
def test_what_is_written_is_what_is_read(to):
    @settings(deadline=None, max_examples=50, phases=(Phase.explicit, Phase.generate))
    @given(st.lists(regions, max_size=3, unique_by=lambda region: region.id), unknown)
    def check(drawn, extra):
        ids = [child.id for region in drawn for child in (region, *region.children)]
        if len(set(ids)) < len(ids):
            return
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "a"
            write_annotations(path, drawn, to=to, frame=SLIDE, extra=extra)
            file = read_annotations(path)
            again = Path(folder) / "b"
            write_annotations(again, file.regions, to=to, frame=file.frame, extra=file.extra)
            assert read_annotations(again).regions == file.regions
        assert [_rounded(region) for region in file.regions] == [
            _rounded(region) for region in drawn
        ]
        assert file.regions == tuple(drawn)
        assert (file.frame.slide, file.frame.fingerprint) == (SLIDE.slide, SLIDE.fingerprint)
        assert {key: file.extra[key] for key in extra} == extra

    check()


def test_a_table_of_tiles_says_what_it_has_no_room_for(tmp_path):
    tile = Region(Polygon([(8, 0), (8, 8), (0, 8), (0, 0)]), measurements={"prob_a": 0.25})
    notes = write_annotations(tmp_path / "a.csv", [tile])
    (note,) = notes
    assert note.endswith("ids, names, classes and notes: those of 1 tiles are not in it.")
    assert (tmp_path / "a.csv").read_text() == "minx,miny,width,height,prob_a\n0,0,8,8,0.25\n"
    with pytest.raises(AnnotationError, match="is no upright rectangle"):
        write_annotations(tmp_path / "b.csv", [Region(Point(0, 0))])
    assert not (tmp_path / "b.csv").exists()


def test_documents_with_numbers_that_json_has_not(tmp_path):
    (tmp_path / "a").write_text('{"name": "a", "elements": [], "attributes": {"x": 1e999}}')
    file = read_annotations(tmp_path / "a")
    write_annotations(tmp_path / "b", (), to="dsa", extra=file.extra)
    assert json.loads((tmp_path / "b").read_text())["attributes"] == {"x": "Infinity"}
