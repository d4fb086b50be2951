"""Files of the Annotate dock: import with a mapping, export, masks, another program's changes."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest
import tifffile
from shapely.geometry import box

from napari_histomil.annotations import raster
from napari_histomil.annotations.formats import read_annotations, write_annotations
from napari_histomil.annotations.mapping import BUILT_IN
from napari_histomil.annotations.mask_reading import open_mask
from napari_histomil.annotations.model import AnnotationClass, Region, SlideFrame, class_named
from napari_histomil.ui.widgets import annotate_files
from napari_histomil.ui.widgets.export_dialog import ExportDialog
from napari_histomil.ui.widgets.import_dialog import ImportDialog
from napari_histomil.ui.widgets.mask_dialog import MaskDialog
from tests.ui.annotating import WHITE, close_error, dialog_of


def imported(desk, path) -> ImportDialog:
    """Read a file as the button does; returns the dialog that asks about it."""
    desk.dock.files.import_file(path)
    desk.until(lambda: desk.dock.files._job is None)
    return dialog_of(ImportDialog)


def bring_in(desk, dialog: ImportDialog) -> None:
    """Press Import, and wait until the regions are there."""
    dialog.import_button.click()
    desk.until(lambda: desk.dock.files._job is None)


def choose(box_, words: str) -> None:
    box_.setCurrentIndex(next(n for n in range(box_.count()) if words in box_.itemText(n)))


@pytest.fixture
def groups(tmp_path):
    """A file of ASAP with two groups and one region without."""
    path = tmp_path / "theirs.xml"
    write_annotations(
        path,
        [
            Region(box(100, 100, 300, 300), AnnotationClass("metastases", (255, 0, 0))),
            Region(box(150, 150, 200, 200), AnnotationClass("Exclusion", (0, 255, 0))),
            Region(box(500, 500, 600, 600), AnnotationClass("ink", (0, 0, 255))),
        ],
        to="asap",
    )
    return path


def test_groups_become_classes_holes_or_nothing_in_one_step(desk, groups):
    dialog = imported(desk, groups)
    assert [(group.name, group.count) for group in dialog.groups] == [
        ("metastases", 1), ("Exclusion", 1), ("ink", 1),
    ]  # fmt: skip
    choose(dialog.boxes["metastases"], "Tumor")
    choose(dialog.boxes["Exclusion"], "cut out")
    choose(dialog.boxes["ink"], "left out")
    bring_in(desk, dialog)
    (region,) = desk.state.regions
    assert (region.class_name, region.geometry.area) == ("Tumor", 200**2 - 50**2)
    assert "import 1 region from theirs.xml" in desk.dock.files.words.text()
    assert "1 regions of ink were left out" in desk.dock.files.words.text()
    desk.state.undo()
    assert len(desk.state.regions) == 0


def test_a_mapping_of_the_project_fills_the_boxes(desk, groups, tmp_path):
    mapping = tmp_path / "map.json"
    mapping.write_text(json.dumps({"metastases": "Lesion", "*": "ignore"}))
    dialog = imported(desk, groups)
    dialog.show_mapping(BUILT_IN["camelyon"])
    assert dialog.boxes["Exclusion"].currentText() == "is cut out of Tumor"
    dialog.load_mapping(mapping)
    assert dialog.boxes["metastases"].currentText() == "Lesion"
    assert dialog.boxes["ink"].currentText() == "is left out"
    bring_in(desk, dialog)
    assert [each.class_name for each in desk.state.regions] == ["Lesion"]
    assert "Lesion" in desk.classes(), "a class that came in is listed"


def test_what_is_here_already_comes_as_a_copy_or_not_at_all(desk, tmp_path):
    region = desk.draw((100, 100, 200, 200), "Tumor")
    path = tmp_path / "same.geojson"
    write_annotations(path, list(desk.state.regions))
    dialog = imported(desk, path)
    assert dialog.known_box.isEnabled()
    choose(dialog.known_box, "left out")
    bring_in(desk, dialog)
    assert [each.id for each in desk.state.regions] == [region]
    bring_in(desk, imported(desk, path))
    assert len(desk.state.regions) == 2


def test_what_a_file_says_as_a_whole_is_kept_undone_and_exported(desk, tmp_path):
    path = tmp_path / "theirs.xml"
    path.write_text(
        "<ASAP_Annotations><Annotations>"
        '<Annotation Name="a" Type="Dot" PartOfGroup="mitosis" Color="#00ff00"><Coordinates>'
        '<Coordinate Order="0" X="5" Y="6" /></Coordinates></Annotation></Annotations>'
        '<AnnotationGroups><Group Name="mitosis" PartOfGroup="None" Color="#00ff00">'
        '<Attributes><Attribute stain="HE, twice" /></Attributes></Group></AnnotationGroups>'
        "</ASAP_Annotations>"
    )
    other = tmp_path / "other.geojson"
    other.write_text(json.dumps({"type": "FeatureCollection", "features": [], "crs": "slide"}))
    bring_in(desk, imported(desk, path))
    bring_in(desk, imported(desk, other))
    assert "import 0 regions from other.geojson" in desk.dock.files.words.text()
    desk.dock.files.export_button.click()
    dialog = dialog_of(ExportDialog)
    dialog.format_box.setCurrentIndex(dialog.format_box.findData("asap"))
    out = tmp_path / "out.xml"
    dialog.write(out)
    desk.until(lambda: "out.xml" in desk.dock.files.words.text())
    assert '<Attribute stain="HE, twice" />' in out.read_text()
    assert read_annotations(out).extra["crs"] == "slide"
    desk.state.undo()
    desk.state.undo()
    assert desk.state.regions.extra == {}
    desk.state.redo()
    assert desk.state.regions.extra["asap"]["groups"][0]["attributes"] == {"stain": "HE, twice"}


def test_what_two_files_say_differently_is_named(desk, tmp_path):
    for name, value in (("a.geojson", 1), ("b.geojson", 2)):
        path = tmp_path / name
        path.write_text(json.dumps({"type": "FeatureCollection", "features": [], "crs": value}))
        bring_in(desk, imported(desk, path))
    assert "b.geojson says something else about 'crs'" in desk.dock.files.words.text()


def test_the_window_is_free_while_a_mapping_cuts_holes(desk, groups, monkeypatch):
    begun, go_on = threading.Event(), threading.Event()
    real = annotate_files.arrival

    def slow(*given, **more):
        begun.set()
        assert threading.current_thread() is not threading.main_thread()
        assert go_on.wait(10)
        return real(*given, **more)

    monkeypatch.setattr(annotate_files, "arrival", slow)
    dialog = imported(desk, groups)
    choose(dialog.boxes["Exclusion"], "cut out")
    dialog.import_button.click()  # comes back at once
    files = desk.dock.files
    desk.until(begun.is_set)
    assert files.words.text() == "Bringing in theirs.xml…"
    assert not files.import_button.isEnabled()
    drawn = desk.draw((700, 700, 800, 800), "Stroma")
    go_on.set()
    desk.until(lambda: files._job is None)
    assert [each.class_name for each in desk.state.regions] == ["Stroma", "metastases", "ink"]
    assert drawn in desk.state.regions
    assert files.import_button.isEnabled()


def test_a_slide_that_is_closed_meanwhile_gets_nothing(desk, groups, monkeypatch):
    go_on = threading.Event()
    real = annotate_files.arrival
    monkeypatch.setattr(
        annotate_files, "arrival", lambda *given, **more: go_on.wait(10) and real(*given, **more)
    )
    imported(desk, groups).import_button.click()
    job, slide = desk.dock.files._job, desk.state.slide
    desk.state.session.close_slide(slide)
    assert job.cancelled
    go_on.set()
    desk.until(lambda: desk.dock.files._job is None)
    assert desk.dock.files.words.text() == ""
    assert not list(slide.info.path.parent.glob("*.histomil"))


@pytest.mark.parametrize("text", ["", "{", "<xml/>", '{"type": "Topology"}'])
def test_a_file_that_cannot_be_read_is_one_sentence_and_changes_nothing(desk, tmp_path, text):
    path = tmp_path / "bad.json"
    path.write_text(text)
    desk.dock.files.import_file(path)
    desk.until(lambda: desk.dock.files._job is None)
    assert "bad.json" in close_error(desk.qtbot)
    assert len(desk.state.regions) == 0


def test_a_file_of_another_slide_is_refused(desk, tmp_path):
    path = tmp_path / "far.geojson"
    write_annotations(path, [Region(box(50_000, 50_000, 50_010, 50_010))])
    desk.dock.files.import_file(path)
    desk.until(lambda: desk.dock.files._job is None)
    assert "another slide" in close_error(desk.qtbot)


def test_what_is_selected_is_exported_and_the_notes_are_shown(desk, tmp_path):
    desk.draw((100, 100, 200, 200), "Tumor")
    chosen = desk.draw((300, 300, 400, 400), "Stroma", name="S")
    desk.state.select([chosen])
    desk.dock.files.export_button.click()
    dialog = dialog_of(ExportDialog)
    dialog.which_box.setCurrentIndex(dialog.which_box.findData("chosen"))
    path = tmp_path / "out.geojson"
    dialog.write(path)
    desk.until(lambda: "1 region written to out.geojson" in desk.dock.files.words.text())
    file = read_annotations(path, frame=SlideFrame.of(desk.state.slide.info))
    assert [(each.id, each.name) for each in file.regions] == [(chosen, "S")]


def test_a_mask_has_the_classes_in_order_and_says_unlabelled(desk, tmp_path):
    desk.draw((0, 0, 400, 400), "Region*")
    desk.draw((0, 0, 100, 100), "Tumor")
    desk.draw((200, 200, 300, 300), "Stroma")
    desk.dock.files.mask_button.click()
    dialog = dialog_of(MaskDialog)
    assert [each.name for each in dialog.classes] == ["Tumor", "Stroma"]
    dialog.tree.setCurrentItem(dialog.tree.topLevelItem(1))
    dialog.move(-1)
    dialog.unlabelled_box.setValue(99)
    path = tmp_path / "mask.ome.tif"
    dialog.write(path)
    desk.until(lambda: "mask.ome.tif" in desk.dock.files.words.text())
    pixels = tifffile.imread(path)  # 2 µm a pixel: 4 pixels of the slide
    assert pixels.shape == (200, 250)
    assert [pixels[5, 5], pixels[60, 60], pixels[30, 30], pixels[150, 150]] == [2, 1, 0, 99]
    with open_mask(path, desk.state.slide.info) as mask:
        assert [each.name for each in mask.facts.table.classes] == ["Stroma", "Tumor"]


def test_a_cancelled_mask_leaves_nothing(desk, tmp_path, monkeypatch):
    cancelled, bands = threading.Event(), raster.bands

    def waiting_bands(painting):
        assert cancelled.wait(10)
        yield from bands(painting)

    monkeypatch.setattr(raster, "bands", waiting_bands)  # else it may be done before the click
    desk.draw((0, 0, 400, 400), "Tumor")
    desk.dock.files.mask_button.click()
    dialog = dialog_of(MaskDialog)
    path = tmp_path / "mask.ome.tif"
    dialog.write(path)
    dialog.reject()
    cancelled.set()
    desk.until(lambda: dialog.write_button.isEnabled())
    assert list(tmp_path.glob("mask*")) == []
    dialog.reject()
    desk.settle()


def test_a_broken_outline_stops_the_mask_with_a_sentence(desk, tmp_path):
    bow = np.array([(0, 0), (100, 100), (100, 0), (0, 100)])
    from shapely.geometry import Polygon

    desk.draw(Polygon(bow), "Tumor")
    desk.dock.files.mask_button.click()
    dialog = dialog_of(MaskDialog)
    dialog.write(tmp_path / "mask.png")
    desk.until(lambda: dialog.write_button.isEnabled())
    assert "broken" in close_error(desk.qtbot)
    dialog.reject()
    desk.settle()


@pytest.mark.parametrize(
    ("choice", "classes"),
    [("theirs", ["Stroma"]), ("ours", ["Tumor"]), ("both", ["Tumor", "Stroma"])],
)
def test_a_file_that_another_program_changed_is_settled(desk, choice, classes):
    region = desk.draw((0, 0, 100, 100), "Tumor")
    keeper = desk.state.keeper
    keeper.file_soon()
    keeper.saver.wait()
    path = keeper.folder / "annotations.geojson"
    other = desk.get(region).but(classification=class_named("Stroma"))
    write_annotations(path, [other], frame=keeper.frame)
    keeper.file_soon()
    files = desk.dock.files
    desk.until(lambda: files.conflict_label.isVisible())
    assert "another program" in files.conflict_label.text()
    files.choice_buttons[choice].click()
    desk.until(lambda: not files.conflict_label.isVisible())
    assert [each.class_name for each in desk.state.regions] == classes
    said = {"theirs": "Done: take 1 region of", "ours": "kept beside", "both": "bring in 1 region"}
    assert said[choice] in files.words.text()


def test_the_outlines_of_a_second_reader_do_not_stay_on_the_next_slide(
    desk, tmp_path, write_slide
):
    desk.draw((100, 100, 300, 300), "Tumor")
    theirs = tmp_path / "bo.geojson"
    write_annotations(theirs, [Region(box(100, 100, 350, 300), class_named("Tumor"))])
    part = desk.dock.differences
    desk.dock.differences_fold.expand(animate=False)
    part.load(theirs)
    desk.until(lambda: bool(part.reader))
    part.full_box.setChecked(True)
    part.compare()
    desk.until(lambda: bool(part.found))
    assert [each.name for each in desk.viewer.layers if "second reader" in each.name]
    desk.dock.differences_fold.collapse(animate=False)
    pixels = WHITE.copy()
    pixels[:50, :50] = 40
    desk.state.session.open_slide(write_slide(pixels, "next.tiff"))
    desk.settle()
    assert not [each.name for each in desk.viewer.layers if "second reader" in each.name]
    assert part.reader == ""
