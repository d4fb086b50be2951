"""GeoJSON: every form QuPath ever wrote comes in; what goes out is what QuPath opens."""

from __future__ import annotations

import gzip
import io
import json
import math
import tempfile
import uuid
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.geometry import LineString, MultiPoint, MultiPolygon, Point, Polygon, box

from napari_histomil.annotations import files, geojson
from napari_histomil.annotations.geojson import read_geojson, write_geojson
from napari_histomil.annotations.model import AnnotationClass, Extra, Region, SlideFrame
from napari_histomil.errors import AnnotationError, OutputError

SQUARE = [[0, 0], [4, 0], [4, 3], [0, 3], [0, 0]]
POLYGON = {"type": "Polygon", "coordinates": [SQUARE]}
ID = "7b6a8f4e-6f43-4d0b-9a55-0a1f7c1b8a10"


def feature(geometry=POLYGON, /, **properties) -> dict:
    return {"type": "Feature", "id": ID, "geometry": geometry, "properties": properties}


def save(folder: Path, document, name="file.geojson") -> Path:
    path = folder / name
    text = document if isinstance(document, str) else json.dumps(document)
    path.write_text(text, encoding="utf-8")
    return path


def read_one(folder: Path, document) -> Region:
    (region,) = read_geojson(save(folder, document)).regions
    return region


def written(folder: Path, *regions: Region, frame=None) -> dict:
    path = folder / "out.geojson"
    write_geojson(path, regions, frame=frame)
    return json.loads(path.read_text(encoding="utf-8"))


# --- real files -------------------------------------------------------------------------------

REAL = (
    "annot-qupath-geojson/qupath05.geojson",
    "annot-qupath-asap-shapes/qupath-brush.json",
    "annot-qupath-asap-shapes/qupath-line.json",
    "annot-qupath-asap-shapes/qupath-point.json",
    "annot-qupath-asap-shapes/qupath-polygon.json",
    "annot-qupath-asap-shapes/qupath-rectangle.json",
)


@pytest.mark.parametrize("suffix", ["", ".gz", ".zip"])
@pytest.mark.parametrize("name", REAL)
def test_real_files_go_in_out_and_in_without_change(data_dir, tmp_path, name, suffix):
    first = read_geojson(data_dir / name)
    path = tmp_path / f"again.geojson{suffix}"
    write_geojson(path, first.regions, frame=first.frame, extra=first.extra)
    second = read_geojson(path)
    assert second.regions == first.regions
    assert (second.extra, second.notes) == (first.extra, ())
    assert [region.problem() for region in second.regions] == [None] * len(first.regions)


def test_all_real_qupath_files_are_listed_above(data_dir):
    found = {
        path.relative_to(data_dir).as_posix()
        for path in data_dir.glob("annot-qupath-*/*")
        if path.suffix in (".json", ".geojson") and "darwin" not in path.name
    }
    assert found == set(REAL)


def test_a_file_of_qupath_05_comes_out_as_it_went_in(data_dir, tmp_path):
    path = data_dir / "annot-qupath-geojson/qupath05.geojson"
    file = read_geojson(path)
    assert [region.object_type for region in file.regions] == ["annotation"] * 3
    assert (file.regions[0].name, file.regions[0].color) == ("UT", (255, 0, 0))
    original = json.loads(path.read_text())
    assert written(tmp_path, *file.regions)["features"] == original["features"]


@pytest.mark.parametrize("name", REAL[1:])
def test_files_of_qupath_02_keep_their_coordinates(data_dir, tmp_path, name):
    original = json.loads((data_dir / name).read_text())
    (region,) = read_geojson(data_dir / name).regions
    (out,) = written(tmp_path, region)["features"]
    assert out["geometry"] == original["geometry"]
    assert out["properties"] == {
        "objectType": "annotation",
        "name": original["properties"]["name"],
    }
    assert uuid.UUID(out["id"])
    assert region.metadata == {}


def test_darwin_is_refused_by_name(data_dir):
    with pytest.raises(AnnotationError) as error:
        read_geojson(data_dir / "annot-qupath-geojson/103S-darwin-v7.json")
    assert str(error.value) == (
        "103S-darwin-v7.json cannot be read: it is Darwin (V7) JSON, not GeoJSON: "
        "export the annotations as GeoJSON."
    )


# --- forms of files ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "document",
    [
        {"type": "FeatureCollection", "features": [feature()]},
        [feature()],
        feature(),
        POLYGON,
        [POLYGON],
        [{"geometry": POLYGON}],
        {"type": "Feature", "geometry": POLYGON, "properties": None},
    ],
)
def test_forms_of_a_file(tmp_path, document):
    region = read_one(tmp_path, document)
    assert region.geometry == Polygon(SQUARE)
    assert (region.object_type, region.class_name, region.locked) == ("annotation", None, False)


def test_packed_files_are_told_by_content(tmp_path):
    data = json.dumps(feature()).encode()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.mkdir("folder")
        archive.writestr("folder/a.geojson", data)
    for name, content in [("a", gzip.compress(data)), ("b.json", packed.getvalue())]:
        (tmp_path / name).write_bytes(content)
        assert read_geojson(tmp_path / name).regions[0].geometry == Polygon(SQUARE)


def test_a_byte_order_mark_and_names_in_other_scripts(tmp_path):
    document = feature(name="Пухлина 肿瘤", classification={"name": "Ö", "color": [1, 2, 3]})
    path = tmp_path / "зріз [1] (копія).geojson"
    path.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8-sig")
    (region,) = read_geojson(path).regions
    assert (region.name, region.class_name) == ("Пухлина 肿瘤", "Ö")
    write_geojson(path, [region])
    assert "Пухлина 肿瘤" in path.read_text(encoding="utf-8")
    assert read_geojson(path).regions == (region,)


def test_equal_regions_give_equal_packed_files(tmp_path):
    region = Region(box(0, 0, 2, 2), id=ID)
    for suffix in (".gz", ".zip"):
        paths = [tmp_path / f"{n}.geojson{suffix}" for n in "ab"]
        for path in paths:
            write_geojson(path, [region])
        contents = [path.read_bytes().replace(b"b.geojson", b"a.geojson") for path in paths]
        assert contents[0] == contents[1]


def test_no_regions(tmp_path):
    write_geojson(tmp_path / "none.geojson", [])
    assert read_geojson(tmp_path / "none.geojson").regions == ()


# --- properties -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "name", "color"),
    [
        (None, None, None),
        ({}, None, None),
        ("", None, None),
        ("Tumor", "Tumor", (200, 0, 0)),
        ("Tumor: Positive", "Tumor: Positive", None),
        ({"name": "Tumor", "color": [1, 2, 3]}, "Tumor", (1, 2, 3)),
        ({"name": "Tumor"}, "Tumor", (200, 0, 0)),
        ({"name": "Tumor", "colorRGB": -3670016}, "Tumor", (200, 0, 0)),
        ({"names": ["Tumor", "Positive"], "color": [9, 8, 7]}, "Tumor: Positive", (9, 8, 7)),
        (
            {"name": "Positive", "colorRGB": 255, "parentClass": {"name": "Tumor"}},
            "Tumor: Positive",
            (0, 0, 255),
        ),
    ],
)
def test_forms_of_a_classification(tmp_path, given, name, color):
    region = read_one(tmp_path, feature(classification=given))
    assert region.class_name == name
    if color is not None:
        assert region.classification.color == color
    (out,) = written(tmp_path, region)["features"]
    if name is None:
        assert "classification" not in out["properties"]
    else:
        member = out["properties"]["classification"]
        names = {"names": name.split(": ")} if ": " in name else {"name": name}
        # without a colour QuPath refuses the whole file
        assert member == names | {"color": list(region.classification.color)}
    assert read_one(tmp_path, out) == region


def test_a_transparent_class_keeps_its_alpha(tmp_path):
    region = read_one(tmp_path, feature(classification={"name": "A", "color": [1, 2, 3, 100]}))
    assert region.classification == AnnotationClass("A", (1, 2, 3), 100)
    (out,) = written(tmp_path, region)["features"]
    assert out["properties"]["classification"] == {"name": "A", "color": [1, 2, 3, 100]}


@pytest.mark.parametrize(
    ("legacy", "kind"),
    [
        ("PathAnnotationObject", "annotation"),
        ("PathDetectionObject", "detection"),
        ("PathTileObject", "tile"),
        ("PathCellObject", "cell"),
        ("TMACoreObject", "tmaCore"),
        ("PathRootObject", "root"),
    ],
)
def test_kinds_of_objects_in_old_files(tmp_path, legacy, kind):
    assert read_one(tmp_path, feature() | {"id": legacy}).object_type == kind


@pytest.mark.parametrize("member", ["objectType", "object_type", "type"])
def test_kinds_of_objects_in_new_files(tmp_path, member):
    region = read_one(tmp_path, feature(**{member: "tile"}))
    assert region.object_type == "tile"
    (out,) = written(tmp_path, region)["features"]
    assert out["properties"] == {"objectType": "tile"}


def test_a_type_that_is_not_a_kind_of_object_is_the_files_own(tmp_path):
    region = read_one(tmp_path, feature(type="invasive"))
    assert region.object_type == "annotation"
    (out,) = written(tmp_path, region)["features"]
    assert out["properties"] == {"objectType": "annotation", "type": "invasive"}


def test_foreign_ids_become_metadata_and_the_new_id_stays_the_same(tmp_path):
    document = [feature() | {"id": 17}, feature() | {"id": "a"}, POLYGON, POLYGON]
    path = save(tmp_path, document)
    first, second = read_geojson(path), read_geojson(path)
    assert first.regions == second.regions
    assert [region.metadata.get("id") for region in first.regions] == ["17", "a", None, None]
    assert len({region.id for region in first.regions}) == 4


@pytest.mark.parametrize("text", [ID.upper(), ID.replace("-", ""), f"{{{ID}}}"])
def test_uuids_in_other_forms_are_the_same_id(tmp_path, text):
    region = read_one(tmp_path, feature() | {"id": text})
    assert (region.id, region.metadata) == (ID, {})


def test_objects_with_one_id_get_their_own_and_the_person_is_told(tmp_path):
    document = [feature(), feature(childObjects=[feature()])]
    file = read_geojson(save(tmp_path, document))
    ids = [file.regions[0].id, file.regions[1].id, file.regions[1].children[0].id]
    assert ids[0] == ID
    assert len(set(ids)) == 3
    assert file.notes == ("2 objects had the id of another object and got new ids.",)


def test_measurements_old_and_new_with_numbers_that_json_has_not(tmp_path):
    new = {"a": 1.5, "b": "NaN", "c": "Infinity", "d": "-inf", "e": None}
    old = [{"name": name, "value": value} for name, value in new.items()]
    for form in (new, old):
        region = read_one(tmp_path, feature(measurements=form))
        values = dict(region.measurements)
        assert math.isnan(values.pop("b"))
        assert math.isnan(values.pop("e"))
        assert values == {"a": 1.5, "c": math.inf, "d": -math.inf}
        (out,) = written(tmp_path, region)["features"]
        assert out["properties"]["measurements"] == {
            "a": 1.5,
            "b": "NaN",
            "c": "Infinity",
            "d": "-Infinity",
            "e": "NaN",
        }
    bare = save(tmp_path, json.dumps(feature(measurements={"a": 0})).replace(": 0}", ": NaN}"))
    assert math.isnan(read_geojson(bare).regions[0].measurements["a"])


def test_of_a_member_that_is_written_twice_the_last_wins(tmp_path):
    text = json.dumps(feature(metadata={"a": "1"}))
    text = text.replace('"metadata"', '"metadata": {"a": "0"}, "metadata"')
    assert read_geojson(save(tmp_path, text)).regions[0].metadata == {"a": "1"}


def test_colours_packed_and_listed(tmp_path):
    assert read_one(tmp_path, feature(color=[255, 200, 0])).color == (255, 200, 0)
    assert read_one(tmp_path, feature(color=-14336)).color == (255, 200, 0)


def test_cells_children_ellipses_planes_and_unknown_members_are_kept(tmp_path):
    ellipse = POLYGON | {"isEllipse": True, "plane": {"c": -1, "z": 3, "t": 0}}
    cell = feature(ellipse, objectType="cell") | {
        "id": str(uuid.uuid4()),
        "nucleusGeometry": {"type": "Polygon", "coordinates": [SQUARE], "plane": {"z": 3}},
    }
    parent = feature(
        name="core",
        isLocked=True,
        isMissing=False,
        classification={"name": "A", "color": [1, 2, 3], "note": "x"},
        metadata={"annotator": "A1"},
        childObjects=[cell],
        mine={"deep": [1, None]},
    ) | {"bbox": [0, 0, 4, 3]}
    document = {"type": "FeatureCollection", "features": [parent], "crs": {"a": 1}}
    file = read_geojson(save(tmp_path, document))
    (region,) = file.regions
    assert region.locked
    assert region.extra.properties == {"isMissing": False, "mine": {"deep": [1, None]}}
    assert region.children[0].nucleus == Polygon(SQUARE)
    path = tmp_path / "out.geojson"
    write_geojson(path, file.regions, extra=file.extra)
    out = json.loads(path.read_text())
    assert out.pop("histomil")
    parent["properties"]["objectType"] = "annotation"
    assert out == document


def test_children_under_their_other_name(tmp_path):
    child = feature(name="child") | {"id": str(uuid.uuid4())}
    assert read_one(tmp_path, feature(children=[child])).children[0].name == "child"


def test_an_object_without_a_shape_is_kept(tmp_path):
    region = read_one(tmp_path, feature(None, objectType="root"))
    assert region.geometry.is_empty
    (out,) = written(tmp_path, region)["features"]
    assert out["geometry"] is None


# --- geometry ---------------------------------------------------------------------------------


def test_rings_are_closed_and_coordinates_have_two_decimals_at_most(tmp_path):
    region = read_one(
        tmp_path, {"type": "Polygon", "coordinates": [[[0, 0], [4.123456, 0], [4, 3.1]]]}
    )
    (out,) = written(tmp_path, region)["features"]
    assert out["geometry"]["coordinates"] == [[[0, 0], [4.12, 0], [4, 3.1], [0, 0]]]
    assert "4.12," in (tmp_path / "out.geojson").read_text()


def test_heights_are_left_out(tmp_path):
    assert read_one(tmp_path, {"type": "Point", "coordinates": [1, 2, 3]}).geometry == Point(1, 2)


def test_a_shape_smaller_than_a_hundredth_of_a_pixel_does_not_break_the_file(tmp_path):
    tiny = Region(box(5, 5, 5.001, 5.001), id=ID)
    write_geojson(tmp_path / "tiny.geojson", [tiny])
    (again,) = read_geojson(tmp_path / "tiny.geojson").regions
    assert "fewer than three different points" in again.problem()


def test_a_crossing_outline_is_read_and_written_as_it_is(tmp_path):
    ring = [[0, 0], [9, 9], [9, 0], [0, 9], [0, 0]]
    region = read_one(tmp_path, {"type": "Polygon", "coordinates": [ring]})
    assert "crosses itself" in region.problem()
    (out,) = written(tmp_path, region)["features"]
    assert out["geometry"]["coordinates"] == [ring]


# --- the frame --------------------------------------------------------------------------------

CROPPED = SlideFrame((1000.0, 250.0), "slide.mrxs", "ab" * 32)


def test_what_is_written_is_in_qupaths_frame_and_says_so(tmp_path):
    region = Region(box(1000, 250, 1010.5, 260), id=ID)
    out = written(tmp_path, region, frame=CROPPED)
    assert out["histomil"] == {
        "schema_version": 1,
        "origin_px0": [1000, 250],
        "slide": {"name": "slide.mrxs", "fingerprint": "ab" * 32},
    }
    xy = out["features"][0]["geometry"]["coordinates"][0]
    assert sorted(map(tuple, xy))[0] == (0, 0)
    assert sorted(map(tuple, xy))[-1] == (10.5, 10)
    # a file that says where its origin is needs no slide to be read
    for frame in (None, CROPPED, SlideFrame((7, 7))):
        file = read_geojson(tmp_path / "out.geojson", frame=frame)
        assert file.regions == (region,)
        assert file.frame == CROPPED
        assert file.notes == ()


def test_a_file_of_qupath_is_moved_by_the_bounds_and_the_person_is_told(tmp_path):
    path = save(tmp_path, feature())
    file = read_geojson(path, frame=CROPPED)
    assert file.regions[0].geometry == Polygon([(x + 1000, y + 250) for x, y in SQUARE])
    assert file.frame == CROPPED
    (note,) = file.notes
    assert "x = 1000, y = 250, as QuPath counts" in note
    assert read_geojson(path, frame=SlideFrame()).notes == ()


def test_a_file_of_another_slide_is_noticed(tmp_path):
    path = tmp_path / "a.geojson"
    write_geojson(path, [], frame=CROPPED)
    other = replace(CROPPED, slide="other.mrxs", fingerprint="cd" * 32)
    assert read_geojson(path, frame=other).notes == (
        "The file was drawn on another slide (slide.mrxs), not on other.mrxs.",
    )


def test_moving_to_the_frame_and_back_leaves_no_dust(tmp_path):
    points = [(1000 + n * 0.01, 250 + n * 0.07) for n in range(500)]
    line = Region(LineString([(round(x, 2), round(y, 2)) for x, y in points]), id=ID)
    write_geojson(tmp_path / "a.geojson", [line], frame=CROPPED)
    assert read_geojson(tmp_path / "a.geojson").regions == (line,)


# --- property: what is written is what is read ------------------------------------------------

hundredths = st.integers(-10_000_000, 10_000_000).map(lambda n: n / 100)
positions = st.tuples(hundredths, hundredths)
lines = st.lists(positions, min_size=2, max_size=6).map(LineString)
polygons = st.builds(
    lambda shell, holes: Polygon(shell, holes),
    st.lists(positions, min_size=3, max_size=8),
    st.lists(st.lists(positions, min_size=3, max_size=5), max_size=2),
)
shapes = st.one_of(
    positions.map(Point),
    st.lists(positions, min_size=1, max_size=4).map(MultiPoint),
    lines,
    polygons,
    st.lists(polygons, min_size=1, max_size=3).map(MultiPolygon),
    st.just(Polygon()),
)
bytes_ = st.integers(0, 255)
rgb = st.tuples(bytes_, bytes_, bytes_)
texts = st.text(st.characters(), max_size=12)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(-1e9, 1e9) | texts,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=4,
)
used = {
    *("type", "id", "geometry", "nucleusGeometry", "properties", "objectType", "object_type"),
    *("name", "color", "classification", "isLocked", "measurements", "metadata", "childObjects"),
    *("children", "coordinates", "names", "colorRGB", "parentClass", "features", "histomil"),
}
unknown = st.dictionaries(texts.filter(lambda name: name not in used), json_values, max_size=2)


def regions_of(children):
    return st.builds(
        Region,
        geometry=shapes,
        classification=st.none()
        | st.builds(AnnotationClass, texts.filter(bool), rgb, st.integers(1, 255) | st.just(255)),
        id=st.uuids().map(str),
        name=st.none() | texts,
        color=st.none() | rgb,
        locked=st.booleans(),
        object_type=st.sampled_from(["annotation", "detection", "tile", "cell", "tmaCore"]),
        measurements=st.dictionaries(texts, st.floats(allow_nan=False), max_size=3),
        metadata=st.dictionaries(texts, texts, max_size=2),
        nucleus=st.none() | polygons,
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


@settings(deadline=None, max_examples=150)
@given(
    st.lists(regions, max_size=3, unique_by=lambda region: region.id),
    st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)),
    unknown,
)
def test_what_is_written_is_what_is_read(drawn, origin, extra):
    frame = SlideFrame((float(origin[0]), float(origin[1])), "slide.svs", "ab" * 32)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.geojson"
        write_geojson(path, drawn, frame=frame, extra=extra)
        file = read_geojson(path)
    assert file.regions == tuple(drawn)
    assert file.frame == frame
    assert file.extra == extra


# --- what is malformed ------------------------------------------------------------------------


def polygon_of(ring) -> dict:
    return {"type": "Polygon", "coordinates": [ring]}


NESTED: dict = feature()
for _ in range(70):
    NESTED = feature(childObjects=[NESTED])


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ("", "is empty"),
        ('{"type": "FeatureCollection", "features": [', "is not whole or not JSON: .* column 44"),
        ("type: Feature", "is not whole or not JSON"),
        ("17", "no object and no list"),
        ("[" * 100_000, "nested too deeply"),
        ('{"type": 1' + "0" * 5000 + "}", "digits"),
        (NESTED, "more than 64 other objects"),
        ({"a": 1}, "JSON of another kind"),
        ({"type": "Topology"}, "feature 1 is not a GeoJSON Feature"),
        ({"type": "FeatureCollection"}, "without a list of features"),
        ({"type": "FeatureCollection", "features": {}}, "without a list of features"),
        ([feature(), 3], "feature 2 is a number where an object is due"),
        ([feature(), None], "feature 2 is empty where an object is due"),
        ([{"type": "Feature"}], "feature 1 is not a GeoJSON Feature"),
        (feature("POLYGON"), "geometry of feature 1 is a text"),
        (feature({"type": "Circle", "coordinates": [1]}), "unknown type 'Circle'"),
        (feature({"type": "GeometryCollection", "geometries": []}), "is a GeometryCollection"),
        (feature({"type": "Polygon"}), "coordinates of feature 1 are empty, not a list"),
        (feature({"type": "Polygon", "coordinates": "0 0"}), "are a text, not a list"),
        (feature({"type": "Polygon", "coordinates": [[]]}), "not lists of two finite numbers"),
        (feature({"type": "Polygon", "coordinates": [3]}), "not lists of two finite numbers"),
        (feature({"type": "MultiPolygon", "coordinates": [[]]}), "has no outline"),
        (feature({"type": "MultiPolygon", "coordinates": [3]}), "has no outline"),
        (feature({"type": "LineString", "coordinates": [[0, 0]]}), "has one point"),
        (feature(polygon_of([[0, 0], [1, 1], [0, 0]])), "has 2 points, a polygon needs 3"),
        (feature(polygon_of([[0, 0], [1, 1]])), "has 2 points, a polygon needs 3"),
        (feature(polygon_of([[0, 0], [1, 1], [2]])), "not lists of two finite numbers"),
        (feature(polygon_of([[0, 0], [1, 1], ["2", "3"]])), "not lists of two finite numbers"),
        (feature(polygon_of([[0, 0], [1, 1], [None, 3]])), "not lists of two finite numbers"),
        (feature(polygon_of([[0, 0], [1, 1], [10**30, 3]])), "not lists of two finite|farther"),
        (feature(polygon_of([[0, 0], [1, 1], [1e300, 3]])), "1e\\+300 px, farther out"),
        (json.dumps(feature()).replace("[4, 3]", "[NaN, 3]"), "not lists of two finite numbers"),
        (json.dumps(feature()).replace("[4, 3]", "[1e999, 3]"), "not lists of two finite numbers"),
        (feature(classification=3), "classification of feature 1 is a number"),
        (feature(classification={"names": "A"}), "class names of feature 1 are not a list"),
        (feature(classification={"name": "A", "color": [1, 2]}), "not three whole numbers"),
        (feature(color=[1, 2, 300]), "not three whole numbers of 0 to 255"),
        (feature(color="red"), "not three whole numbers of 0 to 255"),
        (feature(measurements={"a": "big"}), "measurement 'a' of feature 1 is not a number"),
        (feature(measurements={"a": True}), "measurement 'a' of feature 1 is not a number"),
        (feature(measurements=3), "measurements of feature 1 is a number"),
        (feature(metadata=[1]), "metadata of feature 1 is a list"),
        (feature(childObjects=3), "childObjects of feature 1 are not a list"),
        (feature(childObjects=[3]), "feature 1, child 1 is a number"),
        ({"type": "FeatureCollection", "features": [], "histomil": 3}, "'histomil' is not what"),
        (
            {"type": "FeatureCollection", "features": [], "histomil": {"origin_px0": [1]}},
            "'origin_px0' .* is not two numbers",
        ),
        (
            {"type": "FeatureCollection", "features": [], "histomil": {"schema_version": 2}},
            "written by a newer version .* update napari-histomil",
        ),
    ],
)
def test_what_is_malformed_is_told_in_one_sentence(tmp_path, document, words):
    path = save(tmp_path, document, "мій файл.geojson")
    with pytest.raises(AnnotationError, match=words) as error:
        read_geojson(path)
    message = str(error.value)
    assert message.startswith("мій файл.geojson ")
    assert message.endswith(".")
    assert not message.endswith("..")
    assert "\n" not in message


def test_every_truncation_of_a_file_is_refused(tmp_path, data_dir):
    text = (data_dir / "annot-qupath-asap-shapes/qupath-rectangle.json").read_text().strip()
    for length in range(1, len(text), 7):
        with pytest.raises(AnnotationError, match=r"cut\.geojson"):
            read_geojson(save(tmp_path, text[:length], "cut.geojson"))


def test_files_that_are_no_text(tmp_path):
    path = tmp_path / "a.geojson"
    for content, words in [
        (b"II*\0\x88\xff\xfe", "not a text in UTF-8"),
        (gzip.compress(b"{}")[:-9], "cannot be read"),
        (b"\x1f\x8b not gzip", "cannot be read"),
        (b"PK\x03\x04 not zip", "cannot be read"),
    ]:
        path.write_bytes(content)
        with pytest.raises(AnnotationError, match=words):
            read_geojson(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", "{}")
        archive.writestr("b", "{}")
    with pytest.raises(AnnotationError, match=r"should hold one file .* it holds 2"):
        read_geojson(path)


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(AnnotationError, match="does not exist"):
        read_geojson(tmp_path / "none.geojson")
    with pytest.raises(AnnotationError, match="cannot be read"):
        read_geojson(tmp_path)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_absurd_sizes_are_refused_before_they_fill_the_memory(tmp_path, monkeypatch, pack):
    monkeypatch.setattr(files, "MAX_BYTES", 100_000)
    path = tmp_path / "a.geojson"
    path.write_bytes(pack(b" " * 200_000))
    with pytest.raises(AnnotationError, match="too much to read at once"):
        read_geojson(path)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = save(tmp_path, feature())
    before = path.read_bytes()
    with pytest.raises(AttributeError):
        write_geojson(path, [Region(Point(0, 0)), None])
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(OutputError, match=r"folder .* does not exist"):
        write_geojson(tmp_path / "none" / "a.geojson", [])
    with pytest.raises(OutputError, match="is a folder"):
        write_geojson(tmp_path, [])


# --- a file of our own is read some lines at a time --------------------------------------------


@pytest.fixture
def pieces(monkeypatch) -> list[int]:
    """Makes a piece a line or two; holds how many Features were in each that was read."""
    seen: list[int] = []
    parse = geojson.fast_json

    def watched(data: bytes):
        value = parse(data)
        if isinstance(value, list):
            seen.append(len(value))
        return value

    monkeypatch.setattr(geojson, "PIECE_BYTES", 300)
    monkeypatch.setattr(geojson, "fast_json", watched)
    return seen


def test_a_file_of_ours_is_read_in_pieces_as_in_one(tmp_path, pieces):
    tumor = AnnotationClass("Tumor, \n or not", (1, 2, 3))
    drawn = [Region(box(n, 0, n + 5, 7), tumor, name=f'"{n}",\n]}}') for n in range(9)]
    path = tmp_path / "ours.geojson"
    write_geojson(path, drawn, extra={"more": [1, {"features": []}]})
    ours = read_geojson(path)
    assert len(pieces) > 3
    assert sum(pieces) == 9
    assert list(ours.regions) == drawn
    other = save(tmp_path, json.loads(path.read_bytes()), "whole.geojson")
    assert read_geojson(other) == ours
    assert sum(pieces) == 9, "a file that is written otherwise is read in one go"


def test_what_is_wrong_in_a_later_piece_is_told_by_its_place(tmp_path, pieces):
    path = tmp_path / "ours.geojson"
    write_geojson(path, [Region(box(n, 0, n + 5, 7)) for n in range(9)])
    text = path.read_text()
    lines = text.split("\n")
    lines[8] = lines[8].replace('"Polygon"', '"Circle"')
    path.write_text("\n".join(lines))
    with pytest.raises(AnnotationError, match="feature 8"):
        read_geojson(path)
    lines[8] = lines[8].replace("{", "", 1)
    path.write_text("\n".join(lines))
    with pytest.raises(AnnotationError, match=r"not JSON: .* in line 9"):
        read_geojson(path)
