"""HistomicsUI's JSON: what the server's schema permits, and its own shapes."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from shapely.geometry import LineString, MultiPolygon, Point, Polygon, box

from napari_histomil.annotations.formats import read_annotations, write_annotations
from napari_histomil.annotations.model import Region, class_named
from napari_histomil.errors import AnnotationError

ID = "0123456789abcdef01234567"
RING = [[0, 0, 0], [9, 0, 0], [9, 9, 0], [0, 9, 0]]
HOLE = [[3, 3, 0], [6, 3, 0], [6, 6, 0]]

PERMITTED = {
    "polyline": {"points", "closed", "holes", "fillColor"},
    "point": {"center", "fillColor"},
    "rectangle": {"center", "width", "height", "rotation", "normal", "fillColor"},
    "ellipse": {"center", "width", "height", "rotation", "normal", "fillColor"},
    "circle": {"center", "radius", "fillColor"},
    "arrow": {"points", "fillColor"},
}
SHARED = {"id", "type", "user", "label", "group", "lineColor", "lineWidth"}
"""Properties that the server's schema names; it refuses a document with any other."""


def read(folder, *elements, **members):
    path = folder / "a.json"
    path.write_text(json.dumps({"name": "n", "elements": list(elements)} | members))
    return read_annotations(path)


def written(folder, file) -> dict:
    write_annotations(folder / "b.json", file.regions, to="dsa", extra=file.extra)
    return json.loads((folder / "b.json").read_text())


def obeys(document: dict) -> None:
    assert set(document) <= {"name", "description", "attributes", "elements"}
    assert document["name"]
    for element in document["elements"]:
        assert set(element) <= SHARED | PERMITTED[element["type"]]
        assert re.fullmatch("[0-9a-f]{24}", element.get("id", ID))
        assert re.fullmatch(
            r"#[0-9a-f]{6}|rgb\(\d+,\d+,\d+\)", element.get("lineColor", "rgb(0,0,0)")
        )
        assert isinstance(element.get("label", {"value": ""})["value"], str)


POLYLINE = {"type": "polyline", "points": RING, "closed": True, "holes": [HOLE], "id": ID,
            "group": "Tumor", "label": {"value": "A", "visibility": "hidden"},
            "lineColor": "#c80000", "fillColor": "rgba(200,0,0,0.25)", "lineWidth": 3,
            "user": {"mine": 1}}  # fmt: skip


@pytest.mark.parametrize(
    ("element", "shape"),
    [
        (POLYLINE, Polygon([p[:2] for p in RING], [[p[:2] for p in HOLE]])),
        ({"type": "polyline", "points": RING[:2]}, LineString([(0, 0), (9, 0)])),
        ({"type": "arrow", "points": RING[:2]}, LineString([(0, 0), (9, 0)])),
        ({"type": "point", "center": [1, 2, 0]}, Point(1, 2)),
        ({"type": "rectangle", "center": [5, 5, 0], "width": 4, "height": 2}, box(3, 4, 7, 6)),
        (
            {"type": "rectangle", "center": [0, 0, 0], "width": 4, "height": 2,
             "rotation": 1.5707963267948966},
            box(-1, -2, 1, 2),
        ),
    ],
)  # fmt: skip
def test_elements_come_in_and_go_out_as_they_were(tmp_path, element, shape):
    file = read(tmp_path, element)
    assert file.regions[0].geometry.equals(shape)
    (out,) = written(tmp_path, file)["elements"]
    assert {key: value for key, value in out.items() if key != "id" or "id" in element} == (
        {"closed": False} if element == {"type": "polyline", "points": RING[:2]} else {}
    ) | element
    assert read_annotations(tmp_path / "b.json") == file


@pytest.mark.parametrize(
    ("element", "area", "ellipse"),
    [
        ({"type": "circle", "center": [50, 50, 0], "radius": 10}, 314.159, True),
        ({"type": "ellipse", "center": [50, 50, 0], "width": 40, "height": 20}, 628.3, True),
        (
            {"type": "ellipse", "center": [50, 50, 0], "width": 40, "height": 20,
             "rotation": 0.5},
            628.3,
            False,
        ),
    ],
)  # fmt: skip
def test_round_elements(tmp_path, element, area, ellipse):
    file = read(tmp_path, element)
    assert file.regions[0].geometry.area == pytest.approx(area, rel=1e-3)
    assert file.regions[0].extra.geometry == ({"isEllipse": True} if ellipse else {})
    (out,) = written(tmp_path, file)["elements"]
    assert {key: out[key] for key in element} == element
    moved = replace(file.regions[0], geometry=box(0, 0, 9, 9))
    write_annotations(tmp_path / "b.json", [moved], to="dsa")
    assert read_annotations(tmp_path / "b.json").regions[0].geometry == moved.geometry


def test_what_we_write_obeys_the_servers_schema(tmp_path):
    regions = [
        Region(Polygon([(0, 0), (9, 0), (9, 9)]), class_named("Tumor"), measurements={"a": 1.5}),
        Region(MultiPolygon([box(0, 0, 1, 1), box(5, 5, 6, 6)]), name="parts", color=(1, 2, 3)),
        Region(Point(1, 2)),
        Region(LineString([(0, 0), (1, 1)])),
    ]
    write_annotations(tmp_path / "b.json", regions, to="dsa")
    obeys(json.loads((tmp_path / "b.json").read_text()))
    obeys(written(tmp_path, read(tmp_path, POLYLINE, description="d", attributes={"a": 1})))


def test_heatmaps_and_grids_are_kept_in_their_places(tmp_path):
    heatmap = {"type": "heatmap", "points": [[1, 2, 0, 0.5]], "radius": 3}
    grid = {"type": "griddata", "gridWidth": 1, "values": [1, 2], "id": ID}
    point = {"type": "point", "center": [1, 2, 0]}
    file = read(tmp_path, heatmap, point, grid, point)
    assert [note.split(" ", 6)[:5] for note in file.notes] == [
        ["1", "elements", "of", "type", "heatmap"], ["1", "elements", "of", "type", "griddata"],
    ]  # fmt: skip
    elements = written(tmp_path, file)["elements"]
    assert [elements[0], elements[2]] == [heatmap, grid]
    assert [element["type"] for element in elements] == ["heatmap", "point", "griddata", "point"]


def test_documents_of_a_server(tmp_path):
    inner = {"name": "n", "description": "d", "elements": [{"type": "point", "center": [1, 2, 0]}]}
    document = [{"_id": "x", "annotation": inner}, {"_id": "y", "annotation": inner}]
    (tmp_path / "a.json").write_text(json.dumps(document))
    file = read_annotations(tmp_path / "a.json")
    assert len(file.regions) == 2
    out = written(tmp_path, file)
    assert [(each["_id"], len(each["annotation"]["elements"])) for each in out] == [
        ("x", 1), ("y", 1),
    ]  # fmt: skip
    assert read_annotations(tmp_path / "b.json") == file


@pytest.mark.parametrize(
    ("element", "words"),
    [
        ({"type": "point"}, "points of element 1 are not lists"),
        ({"type": "point", "center": [1, "2", 0]}, "points of element 1 are not lists"),
        ({"type": "point", "center": [1e12, 2, 0]}, "farther out than any slide"),
        ({"type": "polyline", "points": RING[:2], "closed": True}, "is closed and has 2 points"),
        ({"type": "polyline", "points": RING[:1]}, "is a line of 1 points"),
        (POLYLINE | {"holes": [HOLE[:2]]}, "a hole of element 1 has fewer than 3 points"),
        (POLYLINE | {"holes": 3}, "holes of element 1 are not a list"),
        (POLYLINE | {"group": 3}, "group of element 1 is a number"),
        (POLYLINE | {"user": 3}, "field user of element 1 is a number"),
        ({"type": "circle", "center": [1, 2, 0]}, "radius of element 1 is not a finite number"),
        ({"type": "circle", "center": [1, 2, 0], "radius": "3"}, "radius of element 1"),
        ({"center": [1, 2, 0]}, "element 1 has no type"),
        (3, "element 1 is a number"),
    ],
)
def test_what_is_malformed_is_told_in_one_sentence(tmp_path, element, words):
    with pytest.raises(AnnotationError, match=words) as error:
        read(tmp_path, element)
    assert str(error.value).startswith("a.json cannot be read: ")
