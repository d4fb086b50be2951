"""What files say as a whole: kept with the set, undone with the step, written back, or named."""

from __future__ import annotations

import json

import pytest
from shapely.geometry import Point

from napari_histomil.annotations import commands
from napari_histomil.annotations.extras import joined
from napari_histomil.annotations.formats import read_annotations, write_annotations
from napari_histomil.annotations.geojson import read_geojson, write_geojson
from napari_histomil.annotations.keeping import AnnotationKeeper
from napari_histomil.annotations.model import Region, SlideFrame
from napari_histomil.annotations.xml_files import parse_xml, unknown_notes

FRAME = SlideFrame((0.0, 0.0), "slide.svs", "ab" * 32)
GROUP = {"name": "a", "parent": "None", "color": "#ff0000", "attributes": {"x": "1"}}
GROUPS = {"groups": [GROUP]}


def bring_in(keeper: AnnotationKeeper, extra: dict) -> None:
    said, notes = joined(keeper.annotations.extra, extra, "a file")
    assert notes == []
    keeper.do(commands.bring_in(keeper.annotations, [Region(Point(1, 2))], "a file", extra=said))


def test_it_is_kept_undone_and_there_on_another_day(tmp_path):
    keeper = AnnotationKeeper.open(tmp_path, FRAME)
    bring_in(keeper, {"asap": GROUPS})
    bring_in(keeper, {"crs": {"type": "name"}})
    keeper.undo()
    keeper.redo()
    keeper.close()
    assert read_geojson(tmp_path / "annotations.geojson").extra == {
        "asap": GROUPS, "crs": {"type": "name"},
    }  # fmt: skip
    keeper = AnnotationKeeper.open(tmp_path, FRAME)
    assert keeper.annotations.extra["asap"] == GROUPS
    keeper.undo()
    assert keeper.annotations.extra == {"asap": GROUPS}
    keeper.undo()
    assert keeper.annotations.extra == {}
    keeper.redo()
    keeper.close()
    assert read_geojson(tmp_path / "annotations.geojson").extra == {"asap": GROUPS}


def test_a_killed_program_has_it_from_the_journal(tmp_path):
    keeper = AnnotationKeeper.open(tmp_path, FRAME)
    bring_in(keeper, {"crs": 1})
    keeper.saver.journal.close()  # as a kill: the file was never written
    assert not (tmp_path / "annotations.geojson").exists()
    again = AnnotationKeeper.open(tmp_path, FRAME)
    assert again.annotations.extra == {"crs": 1}
    again.close()


@pytest.mark.parametrize(
    ("choice", "left", "said"),
    [
        ("theirs", {"crs": 2, "more": 3}, ""),
        ("both", {"crs": 1, "more": 3}, "something else about 'crs'"),
        ("ours", {"crs": 1}, ""),
    ],
)
def test_another_program_changes_it(tmp_path, choice, left, said):
    keeper = AnnotationKeeper.open(tmp_path, FRAME)
    bring_in(keeper, {"crs": 1})
    keeper.file_soon()
    keeper.saver.wait()
    path = tmp_path / "annotations.geojson"
    write_geojson(path, keeper.annotations, frame=FRAME, extra={"crs": 2, "more": 3})
    keeper.file_soon()
    keeper.saver.wait()
    keeper.resolve(choice)
    assert keeper.annotations.extra == left
    assert said in " ".join(keeper.notes)
    keeper.close()
    assert read_geojson(path).extra == left


def test_groups_of_two_files_of_asap_are_put_together():
    other = {"name": "b", "parent": "None", "color": "", "attributes": {}}
    extra, notes = joined({"asap": GROUPS}, {"asap": {"groups": [*GROUPS["groups"], other]}}, "f")
    assert extra == {"asap": {"groups": [*GROUPS["groups"], other]}}
    assert notes == []
    changed = {"groups": [GROUPS["groups"][0] | {"attributes": {}}]}
    extra, notes = joined({"asap": GROUPS}, {"asap": changed}, "f.xml")
    assert extra == {"asap": GROUPS}
    (note,) = notes
    assert note.startswith("f.xml says something else about its group a than what is kept here")
    assert note.endswith("that of f.xml was left out.")


def test_what_no_file_could_hold_is_named_and_not_kept():
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    extra, notes = joined({}, {"deep": deep, "crs": 1}, "f.geojson")
    assert extra == {"crs": 1}
    assert "'deep' of f.geojson cannot be kept" in notes[0]


def test_a_kept_member_cannot_take_the_place_of_ours(tmp_path):
    path = tmp_path / "a.geojson"
    hostile = {"type": "Feature", "features": [], "histomil": 7, "crs": 1}
    write_geojson(path, [Region(Point(1, 2))], frame=FRAME, extra=hostile)
    file = read_geojson(path)
    assert (len(file.regions), file.frame, file.extra) == (1, FRAME, {"crs": 1})


def test_elements_that_nobody_reads_are_named(tmp_path):
    path = tmp_path / "a.xml"
    write_annotations(path, [Region(Point(1, 2))], to="asap")
    text = path.read_text().replace("<Coordinates>", "<Coordinates><Comment>hm</Comment>")
    path.write_text(text.replace('Name=""', 'Name="" Confidence="0.5"'))
    (note,) = read_annotations(path).notes
    assert "left out: <Comment>, Confidence of <Annotation> and the text in <Comment>." in note
    write_annotations(path, [Region(Point(1, 2))], to="imagescope")
    path.write_text(path.read_text().replace("<Plots/>", "<Plots/><Inputs/>"))
    assert "it was left out: <Inputs>." in read_annotations(path).notes[-1]


def test_of_many_names_the_rest_is_counted():
    root = parse_xml("<a>{}</a>".format("".join(f"<x{n}/>" for n in range(9))).encode())
    (note,) = unknown_notes(root, {"a": ()}, "ASAP")
    assert "<x0>, <x1>, <x2>, <x3> and 5 others." in note


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (
            {"type": "MultiPolygon", "coordinates": [[[[0, 0, 5], [9, 0, 5], [9, 9, 5]]]]},
            "1 shapes have heights",
        ),
        ({"type": "Point", "coordinates": [1, 2, 3]}, "1 shapes have heights"),
        (
            {"elements": [{"type": "point", "center": [1, 2, 3]}]},
            "1 elements have heights",
        ),
        (
            {"elements": [{"type": "point", "center": [1, 2, 0], "score": 1}]},
            "Members of elements that the format does not have were left out: 'score'",
        ),
    ],
)
def test_numbers_and_members_that_have_no_place_are_named(tmp_path, document, words):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(document))
    assert words in " ".join(read_annotations(path).notes)


def test_a_table_of_tiles_names_what_the_file_said(tmp_path):
    tile = Region(Point(5, 5).buffer(5).envelope, object_type="tile")
    notes = write_annotations(tmp_path / "a.csv", [tile], extra={"crs": 1, "asap": GROUPS})
    assert "belongs to the file as a whole: 'crs' and 'asap'" in " ".join(notes)
