"""A day's work with the Annotate dock, from the next slide of a list to files others accept."""

from __future__ import annotations

import json

from qtpy.QtCore import Qt
from shapely.geometry import Polygon, box

from napari_histomil.annotations.classes import ClassSet, write_classes
from napari_histomil.annotations.formats import read_annotations, write_annotations
from napari_histomil.annotations.model import AnnotationClass, Region, SlideFrame, class_named
from napari_histomil.annotations.stamps import Stamp, as_drawn
from napari_histomil.ui.widgets.export_dialog import ExportDialog
from tests.ui.annotating import WHITE, dialog_of

TUMOR, STROMA = class_named("Tumor"), class_named("Stroma")
BO = Stamp("Bo", "2026-01-02T03:04:05Z")


def checked(desk) -> None:
    """Press "Done" and wait for what it says."""
    desk.settle()
    desk.dock.done.done_button.click()
    desk.until(lambda: not desk.dock.done._checking)


def test_a_days_work(desk, tmp_path, write_slide, plugin_settings):
    dock, state = desk.dock, desk.state
    state.author = "Ada"

    # The lead has fixed the classes; the next slide of the folder is shown.
    folder = tmp_path / "cohort"
    folder.mkdir()
    for n, name in enumerate(("a.tiff", "b.tiff")):
        pixels = WHITE.copy()
        pixels[:50, :50] = 40 * (n + 1)  # else both would be one slide
        write_slide(pixels, f"cohort/{name}")
    project = tmp_path / "project.json"
    kinds = (TUMOR, STROMA, class_named("Region*"), class_named("Ignore*"))
    write_classes(
        project, ClassSet(kinds, exclusive=(frozenset(("Tumor", "Stroma")),), locked=True)
    )
    dock.classes.load(project)
    dock.done.take_folder(folder)
    desk.until(lambda: state.slide is not None and state.slide.name == "a.tiff")
    desk.settle()
    assert not dock.classes.add_button.isEnabled()
    assert "Slide 1 of 2 of the folder, next: b.tiff" in dock.done.list_label.text()

    # What is drawn: an area that is complete, lesions, and four mistakes.
    desk.draw((50, 50, 900, 700), "Region*")
    tumor = desk.draw((100, 100, 300, 300), "Tumor")
    overlap = desk.draw((250, 100, 450, 300), "Stroma")
    bare = desk.draw((600, 100, 700, 200))
    bow = desk.draw(Polygon([(600, 400), (700, 500), (700, 400), (600, 500)]), "Tumor")
    beyond = desk.draw((950, 300, 1010, 400), "Tumor")

    # "Done" refuses, lists each, and an arrow key flies there.
    checked(desk)
    assert "4 things have to be mended" in dock.done.words.text()
    assert [each.kind for each in dock.done.found] == [
        "broken", "outside", "unclassified", "overlap",
    ]  # fmt: skip
    assert state.selected == {bow}
    assert "crosses itself" in dock.done.sentence.text()
    tree = dock.done.tree
    assert [tree.topLevelItem(n).text(0) for n in range(4)] == [
        "Broken outline: Tumor", "Beyond the slide: Tumor", "No class: no class",
        "Overlap: Tumor and Stroma",
    ]  # fmt: skip
    desk.qtbot.keyClick(tree, Qt.Key.Key_Down)
    assert state.selected == {beyond}
    desk.qtbot.keyClick(tree, Qt.Key.Key_Down)
    assert state.selected == {bare}
    center = desk.viewer.scene.camera.center[-2:]
    assert abs(center[0] - 75) < 1, "y 150 px are 75 µm"
    assert abs(center[1] - 325) < 1
    desk.qtbot.keyClick(tree, Qt.Key.Key_Down)
    assert state.selected == {tumor, overlap}
    assert {each.state for each in state.regions} == {"draft"}, "nothing is called reviewed yet"

    # Each is mended, and then it is done.
    actions = dock.regions.actions_row
    state.select([bow])
    menu = {action.text(): action for action in actions.more_menu.actions()}
    menu["Mend broken outlines"].trigger()
    state.select([bare])
    actions.set_class("Stroma")
    state.select([beyond])
    state.delete_selected()
    state.select([overlap])
    state.delete_selected()
    checked(desk)
    assert dock.done.words.text() == "✓ Done: 4 regions reviewed by Ada."
    assert {(each.state, each.reviewer) for each in state.regions} == {("reviewed", "Ada")}

    # A second reader agrees on one region, and differs on the others.
    second = [
        Region(box(50, 50, 900, 700), class_named("Region*")),
        Region(box(100, 100, 300, 300), STROMA),
        Region(box(600, 100, 700, 160), STROMA),
        Region(box(100, 500, 200, 600), TUMOR),
    ]
    theirs = tmp_path / "bo.geojson"
    frame = SlideFrame.of(state.slide.info)
    write_annotations(theirs, [as_drawn(each, BO) for each in second], frame=frame)
    dock.differences_fold.expand(animate=False)
    part = dock.differences
    part.load(theirs)
    desk.until(lambda: part.reader == "Bo")
    part.compare_button.click()
    desk.until(lambda: bool(part.found))
    rows = [part.table.tree.topLevelItem(n) for n in range(part.table.tree.topLevelItemCount())]
    dice = {item.text(0): item.text(1) for item in rows}
    assert "0.137 mm²" in part.table.words.text(), "106 x 81 pixels of 4 µm, named"
    assert dice["Tumor"] == "0.00"
    kinds_found = [each.kind for each in part.found]
    assert sorted(kinds_found) == ["only mine", "only theirs", "other class", "other outline"]

    # Each is settled by one key, and each key is one step.
    steps = {"other class": "T", "other outline": "B", "only mine": "M", "only theirs": "T"}
    before = list(state.regions)
    part.tree.setFocus()
    desk.settle()
    for kind in kinds_found:
        desk.qtbot.keyClick(part.tree, steps[kind])
        desk.settle(2)
    assert part.words.text() == "All differences are settled."
    by_id = {each.id: each for each in state.regions}
    assert by_id[tumor].class_name == "Stroma"
    assert by_id[bare].geometry.equals(box(600, 100, 700, 200))
    assert second[3].id in by_id
    assert bow in by_id
    while list(state.regions) != before:
        assert state.undo() is not None
    desk.settle()
    assert "differences are left" in part.words.text(), "an undone decision is open again"

    # What is exported is what QuPath reads: a FeatureCollection with its names for things.
    dock.files.export_button.click()
    dialog = dialog_of(ExportDialog)
    out = tmp_path / "out.geojson"
    dialog.write(out)
    desk.until(out.exists)
    desk.until(lambda: "out.geojson" in dock.files.words.text())
    document = json.loads(out.read_text("utf-8"))
    assert document["type"] == "FeatureCollection"
    for feature in document["features"]:
        assert feature["type"] == "Feature"
        assert feature["properties"]["objectType"] == "annotation"
        assert set(feature["properties"]["classification"]) >= {"name", "color"}
    assert len(read_annotations(out, frame=frame).regions) == 4

    # The next slide comes, empty; the first one was kept.
    kept = state.keeper.folder
    dock.done.next_button.click()
    desk.until(lambda: state.slide is not None and state.slide.name == "b.tiff")
    desk.settle()
    assert len(state.regions) == 0
    assert not dock.done.next_button.isEnabled()
    assert len(read_annotations(kept / "annotations.geojson", frame=frame).regions) == 4
    assert AnnotationClass("Tumor", (200, 0, 0)) in state.classes.classes
