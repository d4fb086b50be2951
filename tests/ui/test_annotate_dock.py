"""The Annotate dock in a real window: head, classes, tools, list, details."""

from __future__ import annotations

import json

import pytest
from qtpy.QtCore import QItemSelectionModel, Qt
from qtpy.QtGui import QIcon
from shapely.geometry import LineString, Point, Polygon, box

from napari_histomil.annotations import commands
from napari_histomil.annotations.classes import ClassSet, read_classes, write_classes
from napari_histomil.annotations.collection import Command
from napari_histomil.annotations.model import AnnotationClass
from napari_histomil.resources import user_data_dir
from napari_histomil.ui import class_store
from napari_histomil.ui.tool_icons import PICTURES
from napari_histomil.ui.widgets.annotate import AnnotateWidget
from napari_histomil.ui.widgets.panel import DOCK_WIDTH
from tests.ui.annotating import close_error


def empty_dock(make_napari_viewer, qtbot):
    viewer = make_napari_viewer(show=True, strict_qt="raise")
    holder = viewer.window.add_dock_widget(AnnotateWidget(viewer), name="Annotate", area="right")
    qtbot.wait(100)
    return holder.widget()


def test_without_a_slide_everything_says_why_it_cannot_be_done(make_napari_viewer, qtbot):
    dock = empty_dock(make_napari_viewer, qtbot)
    assert "Open a slide" in dock.head.slide_label.text()
    for button in (
        dock.head.undo_button, dock.tools.tool_buttons["brush"], dock.files.import_button,
        dock.files.export_button, dock.files.mask_button, dock.done.done_button,
    ):  # fmt: skip
        assert not button.isEnabled()
        assert "slide" in button.toolTip().lower()
    assert "Open a slide" in dock.regions.words.text()


def test_a_class_has_its_colour_in_a_selected_row_too(desk):
    for row in range(2):
        icon = desk.dock.classes.tree.topLevelItem(row).icon(0)
        colours = [
            icon.pixmap(14, 14, mode).toImage().pixelColor(7, 7).getRgb()[:3]
            for mode in (QIcon.Mode.Normal, QIcon.Mode.Selected)
        ]
        assert colours == [desk.state.classes.classes[row].color] * 2


def test_the_dock_has_its_width_and_nothing_beside_it(desk):
    for part in (desk.dock.details_fold, desk.dock.totals_fold, desk.dock.differences_fold):
        part.expand(animate=False)
    desk.settle()
    assert desk.dock.minimumSizeHint().width() <= DOCK_WIDTH


# --- head ---------------------------------------------------------------------------------------


def test_the_head_says_who_draws_what_is_undone_and_that_it_is_saved(desk):
    head = desk.dock.head
    head.author_box.setText("Ada Lovelace")
    head.author_box.editingFinished.emit()
    region = desk.draw((10, 10, 60, 60), "Tumor")
    assert desk.get(region).author == "Ada Lovelace"
    assert head.undo_button.toolTip().startswith("Undo: draw 1 region")
    assert head.saved_label.text().startswith("Saved ")
    head.undo_button.click()
    desk.settle()
    assert len(desk.state.regions) == 0
    assert not head.undo_button.isEnabled()
    assert head.redo_button.toolTip().startswith("Redo: draw 1 region")
    head.redo_button.click()
    desk.settle()
    assert [each.id for each in desk.state.regions] == [region]


def test_what_cannot_be_saved_is_said_in_red(desk, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    desk.draw((0, 0, 9, 9))
    desk.until(lambda: desk.dock.head.saved_label.text().startswith("Saved"))
    monkeypatch.setattr("os.fsync", full)
    desk.state.do(commands.add([], desk.state.stamp(), "nothing"))
    desk.until(lambda: desk.dock.head.saved_label.text().startswith("Not saved"))
    assert "No space left" in desk.dock.head.saved_label.text()
    assert "color" in desk.dock.head.saved_label.styleSheet()
    monkeypatch.undo()
    desk.state.keeper.saver.retry()
    desk.until(lambda: desk.dock.head.saved_label.text().startswith("Saved"))
    assert desk.dock.head.saved_label.styleSheet() == ""


# --- classes ------------------------------------------------------------------------------------


def test_classes_show_keys_counts_and_areas(desk):
    desk.draw((0, 0, 200, 200), "Tumor")
    desk.draw((0, 0, 100, 200), "Tumor")
    desk.draw(Point(5, 5))
    shown = desk.classes()
    assert list(shown)[:2] == ["Tumor", "Stroma"]
    assert shown["Tumor"] == ["1", "2", "0.015 mm²"]
    assert shown["Stroma"] == ["2", "", ""]
    assert shown["unclassified"] == ["", "1", ""]


def test_choosing_a_class_draws_in_it_and_unticking_hides_it(desk):
    desk.choose_class("Stroma")
    assert desk.state.active_class.name == "Stroma"
    item = desk.dock.classes.tree.currentItem()
    item.setCheckState(0, Qt.CheckState.Unchecked)
    desk.settle()
    assert desk.state.hidden == {"Stroma"}
    desk.state.set_hidden(())
    desk.settle()
    assert desk.dock.classes.tree.currentItem().checkState(0) == Qt.CheckState.Checked


def test_a_class_is_added_renamed_and_recoloured_on_its_regions_too_and_kept(desk):
    classes = desk.dock.classes
    classes.add_class("  Mitosis ")
    assert desk.state.active_class.name == "Mitosis"
    region = desk.draw((0, 0, 10, 10), "Mitosis")
    classes.rename("Mitosis", "Mitotic figure")
    desk.settle()
    assert desk.get(region).class_name == "Mitotic figure"
    assert desk.state.active_class.name == "Mitotic figure"
    classes.recolour("Mitotic figure", (1, 2, 3))
    assert desk.get(region).shown_color == (1, 2, 3)
    kept = read_classes(user_data_dir() / class_store.OWN_FILE)
    assert kept.named("Mitotic figure") == AnnotationClass("Mitotic figure", (1, 2, 3))
    desk.state.undo()
    assert desk.get(region).shown_color != (1, 2, 3)
    classes.add_class("Tumor")
    assert "stands twice" in close_error(desk.qtbot)
    classes.add_class(" ")
    assert "needs a name" in close_error(desk.qtbot)


def test_renaming_a_class_leaves_locked_regions_and_says_so(desk, monkeypatch):
    told = []
    monkeypatch.setattr(desk.state, "tell", told.append)
    locked = desk.draw((0, 0, 10, 10), "Tumor", locked=True)
    free = desk.draw((0, 0, 20, 20), "Tumor")
    desk.dock.classes.rename("Tumor", "Carcinoma")
    desk.settle()
    assert desk.errors() == []
    assert [desk.get(each).class_name for each in (locked, free)] == ["Tumor", "Carcinoma"], told
    assert told == ["1 locked regions keep Tumor as it was."]
    assert "Tumor" in desk.classes(), "what regions have is listed, also when it is foreign"


def test_classes_move_and_keep_their_keys_and_a_key_can_be_given(desk):
    desk.choose_class("Stroma")
    desk.dock.classes.up_button.click()
    desk.settle()
    assert list(desk.classes())[:2] == ["Stroma", "Tumor"]
    assert desk.classes()["Stroma"][0] == "2"
    desk.dock.classes.give_key("Stroma", 1)
    desk.settle()
    assert (desk.classes()["Stroma"][0], desk.classes()["Tumor"][0]) == ("1", "")
    desk.dock.classes.remove_button.click()
    desk.settle()
    assert "Stroma" not in desk.classes()


def test_a_projects_classes_are_loaded_and_locked_ones_stay(desk, tmp_path, plugin_settings):
    path = tmp_path / "project.json"
    lesion = AnnotationClass("Lesion", (9, 8, 7))
    write_classes(path, ClassSet((lesion,), exclusive=(), locked=True))
    desk.dock.classes.load(path)
    desk.settle()
    assert list(desk.classes()) == ["Lesion", "unclassified"]
    classes = desk.dock.classes
    for button in (classes.add_button, classes.rename_button, classes.color_button):
        assert not button.isEnabled()
        assert "locked by its lead" in button.toolTip()
    classes.rename("Lesion", "Other")
    assert "locked by its lead" in close_error(desk.qtbot)
    assert read_classes(path).classes == (lesion,)


def test_a_file_that_is_no_list_of_classes_changes_nothing(desk, tmp_path):
    path = tmp_path / "no.json"
    path.write_text(json.dumps([1, 2]))
    desk.dock.classes.load(path)
    assert "no list of classes" in close_error(desk.qtbot)
    assert list(desk.classes())[:2] == ["Tumor", "Stroma"]


def test_classes_saved_as_lead_are_locked_for_all(desk, tmp_path):
    path = tmp_path / "lead.json"
    desk.dock.classes.save(path, locked=True)
    desk.settle()
    assert read_classes(path).locked
    assert not desk.dock.classes.add_button.isEnabled()


def test_what_region_and_ignore_mean_is_said(desk):
    tree = desk.dock.classes.tree
    items = [tree.topLevelItem(n) for n in range(tree.topLevelItemCount())]
    said = {item.text(0): item.toolTip(0) for item in items}
    assert "no annotation there is background" in said["Region*"]
    assert "not to be looked at" in said["Ignore*"]


# --- tools --------------------------------------------------------------------------------------


def test_every_tool_has_a_picture_and_a_button_that_takes_it(desk):
    for tool, button in desk.dock.tools.tool_buttons.items():
        assert tool in PICTURES
        button.click()
        assert desk.state.tool == tool
        assert not button.icon().isNull()
    desk.state.set_tool("brush")
    desk.settle()
    assert desk.dock.tools.tool_buttons["brush"].isChecked()
    assert "Brush" in desk.dock.tools.words.text()


def test_size_tolerance_and_mode_go_both_ways(desk):
    tools = desk.dock.tools
    tools.brush_box.setValue(42)
    tools.wand_box.setValue(3)
    assert (desk.state.brush_um, desk.state.wand_tolerance) == (42, 3)
    desk.state.brush_um = 55
    desk.settle()
    assert tools.brush_box.value() == 55
    assert not tools.mode_buttons["add"].isEnabled()
    assert "Select a region" in tools.mode_buttons["add"].toolTip()
    desk.state.select([desk.draw((0, 0, 9, 9))])
    desk.settle()
    tools.mode_buttons["subtract"].click()
    assert desk.state.mode == "subtract"


# --- list ---------------------------------------------------------------------------------------


@pytest.fixture
def three(desk):
    """A small tumour, a large stroma and a line without a class."""
    small = desk.draw((100, 100, 140, 140), "Tumor", name="b", metadata={"note": "look again"})
    large = desk.draw((300, 100, 700, 500), "Stroma", name="a")
    line = desk.draw(LineString([(0, 0), (300, 400)]))
    return small, large, line


def test_the_list_shows_what_is_known_of_each(desk, three):
    assert desk.rows("Class") == ["unclassified", "Stroma", "Tumor"]
    assert desk.rows("Size") == ["250 µm", "0.040 mm²", "400 µm²"]
    assert desk.rows("Diameter") == ["250 µm", "283 µm", "28.3 µm"]
    assert desk.rows("Name") == ["", "a", "b"]
    assert desk.rows("Note") == ["", "", "look again"]
    assert desk.rows("State") == ["draft"] * 3
    assert desk.dock.regions.words.text() == "3 regions"


def test_the_list_is_sorted_and_filtered(desk, three):
    regions = desk.dock.regions
    regions.table.sortByColumn(1, Qt.SortOrder.AscendingOrder)
    assert desk.rows("Name") == ["a", "b", ""]
    regions.table.sortByColumn(2, Qt.SortOrder.DescendingOrder)
    assert desk.rows("Class") == ["Stroma", "Tumor", "unclassified"]
    regions.text_box.setText("again")
    desk.until(lambda: regions.model.rowCount() == 1)
    assert regions.words.text() == "1 of 3 regions shown"
    regions.text_box.setText("")
    desk.until(lambda: regions.model.rowCount() == 3)
    regions.class_box.setCurrentIndex(regions.class_box.findData(""))
    regions.class_box.activated.emit(0)
    assert desk.rows("Class") == ["unclassified"]
    desk.state.select(three[2:])
    desk.dock.regions.actions_row.set_class("Tumor")
    desk.settle()
    assert regions.model.rowCount() == 3, "a class that nothing has is no filter any more"


def test_selecting_in_the_list_selects_and_flies_and_the_other_way_round(desk, three):
    table = desk.dock.regions.table
    table.selectRow(2)
    assert desk.state.selected == {three[0]}
    center = desk.viewer.scene.camera.center[-2:]
    assert center == pytest.approx((60, 60), abs=1), "at the small one, in µm"
    desk.state.select([three[1], three[2]])
    rows = sorted(index.row() for index in table.selectionModel().selectedRows())
    assert rows == [0, 1]
    assert "2 selected" in desk.dock.regions.words.text()
    table.selectionModel().select(
        desk.dock.regions.model.index(2, 0),
        QItemSelectionModel.SelectionFlag.Select | QItemSelectionModel.SelectionFlag.Rows,
    )
    assert desk.state.selected == set(three)


def test_next_and_previous_go_by_the_list(desk, three):
    desk.dock.regions.table.sortByColumn(1, Qt.SortOrder.AscendingOrder)
    desk.dock.regions.actions_row.next_button.click()
    assert desk.state.selected == {three[1]}
    desk.state.step(+1)
    assert desk.state.selected == {three[0]}
    desk.dock.regions.actions_row.previous_button.click()
    assert desk.state.selected == {three[1]}


def test_names_and_notes_are_written_in_the_list(desk, three):
    model = desk.dock.regions.model
    row = model.rows_of([three[0]])[0]
    assert model.setData(model.index(row, 6), "sure now")
    assert model.setData(model.index(row, 1), "nest 7")
    desk.settle()
    assert (desk.get(three[0]).note, desk.get(three[0]).name) == ("sure now", "nest 7")
    assert desk.rows("Note")[row] == "sure now"
    desk.state.undo()
    desk.state.undo()
    desk.settle()
    assert (desk.rows("Note")[row], desk.rows("Name")[row]) == ("look again", "b")


def test_a_region_that_was_just_drawn_and_selected_has_its_row(desk, three):
    region = desk.draw((0, 0, 9, 9), "Other")
    desk.state.select([region])
    assert desk.dock.regions.model.rows_of([region]) == [0]
    assert [i.row() for i in desk.dock.regions.table.selectionModel().selectedRows()] == [0]


def test_del_in_the_list_deletes_and_undo_brings_back(desk, three):
    desk.state.select(three[:2])
    desk.qtbot.keyClick(desk.dock.regions.table, Qt.Key.Key_Delete)
    desk.settle()
    assert [each.id for each in desk.state.regions] == [three[2]]
    desk.state.undo()
    desk.settle()
    assert desk.dock.regions.model.rowCount() == 3


# --- what can be done with the selected ones --------------------------------------------------


def test_state_lock_and_class_of_many_in_one_step_each(desk, three):
    actions = desk.dock.regions.actions_row
    desk.state.author = "Bo"
    desk.state.select(three)
    desk.settle()
    actions.set_state("reviewed")
    assert {desk.get(each).state for each in three} == {"reviewed"}
    assert {desk.get(each).reviewer for each in three} == {"Bo"}
    actions.set_class("Necrosis")
    actions.lock_button.click()
    assert all(desk.get(each).locked for each in three)
    actions.set_class("Tumor")
    assert "locked" in close_error(desk.qtbot)
    actions.lock_button.click()
    assert not any(desk.get(each).locked for each in three)
    desk.settle()
    assert desk.rows("State") == ["reviewed"] * 3


def test_merge_duplicate_simplify_and_order(desk):
    actions = desk.dock.regions.actions_row
    one = desk.draw((0, 0, 100, 100), "Tumor")
    other = desk.draw((50, 0, 200, 100), "Tumor")
    desk.state.select([one, other])
    desk.settle()
    menu = {action.text(): action for action in actions.more_menu.actions()}
    menu["Merge into one region"].trigger()
    (merged,) = desk.state.regions
    assert merged.geometry.equals(box(0, 0, 200, 100))
    desk.state.select([merged.id])
    menu["Duplicate"].trigger()
    assert len(desk.state.regions) == 2
    (copy,) = desk.state.selected
    assert copy != merged.id
    menu["Bring to the back"].trigger()
    assert next(iter(desk.state.regions)).id == copy
    round_one = desk.draw(Point(500, 500).buffer(100, quad_segs=32), "Tumor")
    desk.state.select([round_one])
    actions.simplify(5.0)
    assert len(desk.get(round_one).geometry.exterior.coords) < 40


def test_without_a_selection_the_buttons_say_so(desk, three):
    desk.state.select(())
    desk.settle()
    actions = desk.dock.regions.actions_row
    for button in (actions.class_button, actions.delete_button, actions.more_button):
        assert not button.isEnabled()
        assert button.toolTip() == "Select regions first"


# --- details ------------------------------------------------------------------------------------


@pytest.fixture
def details(desk, three):
    desk.dock.details_fold.expand(animate=False)
    desk.state.select(three[:1])
    desk.settle(6)
    return desk.dock.details


def test_details_say_sizes_in_um_and_pixels_in_the_tooltip(desk, three, details):
    assert "400 µm²" in details.words.text()
    assert "perimeter 80.0 µm, longest diameter 28.3 µm" in details.words.text()
    assert "x 100 to 140, y 100 to 140; 5 vertices" in details.words.toolTip()
    desk.state.select(three[:2])
    desk.settle()
    assert "2 regions are selected" in details.words.text()


def test_a_note_a_name_and_a_measurement_are_steps(desk, three, details):
    details.note_box.setPlainText("two words")
    details.keep_note()
    details.name_box.setText("nest 1")
    details.name_box.editingFinished.emit()
    details.measure_name.setText("Ki-67 %")
    details.measure_value.setText("12,5")
    assert details.measure_button.isEnabled()
    details.measure_button.click()
    desk.settle()
    region = desk.get(three[0])
    assert (region.note, region.name, region.measurements) == (
        "two words", "nest 1", {"Ki-67 %": 12.5},
    )  # fmt: skip
    details.measurements.setCurrentItem(details.measurements.topLevelItem(0))
    details.unmeasure_button.click()
    assert desk.get(three[0]).measurements == {}
    desk.state.undo()
    assert desk.get(three[0]).measurements == {"Ki-67 %": 12.5}
    details.measure_name.setText("x")
    details.measure_value.setText("many")
    assert not details.measure_button.isEnabled()


def test_history_is_shown_and_gone_back_to(desk, three, details):
    desk.dock.regions.actions_row.set_class("Necrosis")
    desk.settle(6)
    history = details.history
    texts = [history.tree.topLevelItem(n).text(2) for n in range(history.tree.topLevelItemCount())]
    assert texts == ["set class of 1 region to Necrosis", "draw 1 region"]
    assert not history.revert_button.isEnabled()
    history.tree.setCurrentItem(history.tree.topLevelItem(1))
    history.revert_button.click()
    desk.settle(6)
    assert desk.get(three[0]).class_name == "Tumor"
    assert desk.state.regions.can_undo.startswith("back to")
    desk.state.undo()
    assert desk.get(three[0]).class_name == "Necrosis"


def test_totals_are_shares_of_slide_and_tissue(desk, three):
    desk.dock.totals_fold.expand(animate=False)
    desk.settle(6)
    tree = desk.dock.totals.tree
    rows = [[tree.topLevelItem(n).text(c) for c in range(4)] for n in range(3)]
    assert rows == [
        ["Stroma", "1", "0.040", "20.0 %"],
        ["Tumor", "1", "0.000", "0.2 %"],
        ["unclassified", "1", "0.000", "0.0 %"],
    ]
    assert "Slide 0.200 mm²" in desk.dock.totals.words.text()


def test_a_broken_shape_is_called_so(desk):
    bow = Polygon([(0, 0), (10, 10), (10, 0), (0, 10)])
    region = desk.draw(bow, "Tumor")
    assert desk.rows("Size") == ["broken"]
    desk.state.select([region])
    menu = {action.text(): action for action in desk.dock.regions.actions_row.more_menu.actions()}
    menu["Mend broken outlines"].trigger()
    desk.settle()
    assert desk.rows("Size") == ["12.5 µm²"]


def test_a_step_from_elsewhere_is_shown_too(desk, three):
    region = desk.get(three[0])
    desk.state.do(Command("elsewhere", {region.id: region}))
    desk.settle()
    assert desk.rows("Class") == ["unclassified", "Stroma"]
