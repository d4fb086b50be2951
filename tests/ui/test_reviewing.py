"""The review in a window: blind answers, places by key, cases opened ahead, the table."""

from __future__ import annotations

from dataclasses import replace

import pytest
from qtpy.QtCore import Qt

from napari_histomil.errors import ReviewError
from napari_histomil.results import find_results, open_result
from napari_histomil.review.project import open_project, write_project
from napari_histomil.review.verdicts import Verdict, VerdictLog
from napari_histomil.ui.annotator import annotator
from napari_histomil.ui.overlays import overlays
from tests.ui.annotating import close_error, settle


def blind_project(table):
    project = open_project(table)
    project = replace(project, blind=True, answers=("normal", "tumor"))
    write_project(project)
    return project


def test_failures_are_listed_first_and_opened_by_a_double_click(room, cohort):
    room.open(cohort)
    room.gathered()
    assert room.column("case") == ["0.tiff", "1.tiff", "2.tiff", "3.tiff"]
    error = room.dock.cases.model.columns.index("error")
    room.dock.cases._sort(error)
    assert room.column("case")[0] == "2.tiff", (
        "tumor, and the mean of its two hottest tiles is 0.45"
    )
    assert room.column("error") == ["0.550", "0.325", "0.150", "0.075"]
    room.dock.cases.filter_box.setText("label == 'tumor' and error < 0.4")
    room.until(lambda: room.column("case") == ["0.tiff"])
    room.dock.cases.filter_box.setText("label ==")
    room.until(lambda: "no filter" in room.dock.cases.words.text())
    assert room.column("case") == ["0.tiff"], "what is listed stays"
    room.dock.cases.filter_box.setText("")
    room.until(lambda: len(room.column("case")) == 4)
    room.dock.cases.table.doubleClicked.emit(room.dock.cases.model.index(0, 0))
    room.read("2.tiff")
    assert "P(tumor) 0.450" in room.dock.case.result.text()
    assert overlays(room.viewer).current is not None, "not blind: the map is there at once"


def test_blind_nothing_is_shown_before_the_answer_is_locked(room, cohort):
    project = blind_project(cohort)
    room.open(project.path)
    room.gathered()
    first = room.state.current.name
    assert room.state.stage == "own"
    assert overlays(room.viewer).current is None
    assert set(room.column("p")) == {""}, "nothing in the table either"
    assert room.dock.case.answer_buttons[1].text() == "2  tumor"
    assert not room.dock.case.lock_button.isEnabled()
    room.press(Qt.Key.Key_Return)
    assert "how sure you are" in room.dock.case.problem.text()
    assert room.dock.case.problem.isVisible()

    room.press("2")
    assert room.state.given == "tumor"
    room.press(Qt.Key.Key_Backspace)
    assert room.state.given is None
    room.press("2", "4")
    assert (room.state.given, room.state.confidence) == ("tumor", 4)
    room.press(Qt.Key.Key_Return)
    assert room.state.stage == "shown"
    assert overlays(room.viewer).current.layer.visible
    assert "P(tumor)" in room.dock.case.result.text()
    assert "tumor, 4 of 5 sure" in room.dock.case.result.text()
    shown = dict(zip(room.column("case"), room.column("p"), strict=True))
    assert [name for name, p in shown.items() if p] == [first]


def test_a_result_that_something_lays_over_a_blind_slide_is_taken_away(room, cohort):
    project = blind_project(cohort)
    told = []
    room.state.told.connect(told.append)
    room.open(project.path)
    slide = room.state.session.active
    overlays(room.viewer).add(open_result(find_results(slide.info)[0]))
    assert room.state.session.runs_of(slide) == []
    assert told == ["Results are shown once your own answer is locked."]


def test_places_are_judged_by_one_key_each_and_taken_back(room, cohort):
    room.open(cohort)
    state = room.state
    assert len(state.places) > 2
    assert state.places[0].score == pytest.approx(0.9)
    room.press("N")
    assert state.at == 0
    room.press("1")
    assert state.at == 1, "the next place comes by itself"
    room.press("6", "9")
    assert state.at == 2
    question = state.project.form["region"]
    assert state.answer_to(question, state.places[1].place) == "mimic"
    assert state.answer_to(state.project.form["missed"], state.places[2].place) is True
    room.press(Qt.Key.Key_Backspace)
    assert state.answer_to(state.project.form["missed"], state.places[2].place) is None
    room.press(Qt.Key.Key_Backspace)
    assert state.at == 1
    assert not state.is_judged(1)
    assert state.is_judged(0)
    for _ in range(len(state.places) - 1):
        room.press("N")
    assert state.at is None, "after the last place the whole slide is seen"


def test_what_is_missed_is_clicked_and_becomes_a_region(room, cohort):
    room.open(cohort)
    room.press("A")
    assert room.state.marking
    assert "Click on the slide" in room.dock.case.place_words.text()
    room.qtbot.mouseClick(room.canvas, Qt.MouseButton.LeftButton, pos=room.canvas.rect().center())
    room.until(lambda: not room.state.marking)
    regions = list(annotator(room.viewer).regions)
    assert [region.class_name for region in regions] == ["Missed"]
    assert room.state.row(room.state.current).values["missed"] == 1
    (missed,) = [v for v in room.state.log.latest() if v.question == "missed"]
    x, y = missed.place.xy_px0
    assert regions[0].geometry.bounds[:2] == pytest.approx((x, y), abs=1)


def test_the_next_case_is_opened_ahead_and_enter_goes_there(room, cohort):
    room.open(cohort)
    room.until(lambda: room.state._ahead.ready == ("1.tiff",))
    before = room.state.session.active
    room.press(Qt.Key.Key_Return)
    assert room.state.current.name == "1.tiff", "at once: nothing is waited for"
    assert room.state.session.active is not before
    assert before not in room.state.session.slides, "one slide is open at a time"
    room.gathered()
    assert room.column("status") == ["done", "in work", "to do", "to do"] or room.column(
        "status"
    ) == ["done", "to do", "to do", "to do"]
    room.press((Qt.KeyboardModifier.AltModifier, Qt.Key.Key_Left))
    room.read("0.tiff")


def test_the_last_case_ends_with_a_table_of_what_changed(room, cohort):
    project = blind_project(cohort)
    room.open(project.path)
    for n in range(4):
        room.press("1", "3", Qt.Key.Key_Return)
        assert room.state.stage == "shown"
        if n == 0:
            room.press("2")  # having seen the model's, the first answer is another
        name = room.state.current.name
        room.press(Qt.Key.Key_Return)
        if n < 3:
            room.until(lambda: room.state.current.name != name)  # noqa: B023
    words = room.dock.case.end_words.text()
    assert "All 4 cases are done" in words
    assert "1 of 4 own answers were changed" in words
    assert room.dock.case.end_words.isVisible()


def test_a_reader_goes_on_where_one_stopped(room, cohort):
    project = blind_project(cohort)
    room.open(project.path)
    first = room.state.current.name
    room.press("2", "5", Qt.Key.Key_Return, "N", "1", "3")
    assert room.state.at == 2
    room.state.close()
    room.open(project.path)
    assert room.state.current.name == first
    assert room.state.stage == "shown"
    assert room.state.at == 2, "the first place that is not judged"
    with VerdictLog.open(project.verdicts, reader="", read_only=True) as log:
        assert len([v for v in log.latest() if v.question == "right"]) == 2


def test_keys_are_the_layers_own_while_a_tool_is_held_and_words_are_written(room, cohort):
    room.open(cohort)
    room.press("N")
    field = room.dock.case.place_form.fields["note"]
    field.setFocus()
    room.qtbot.keyClicks(field, "1 vessel")
    assert field.text() == "1 vessel"
    assert room.state.at == 0
    room.qtbot.keyClick(field, Qt.Key.Key_Return)
    settle(room.qtbot)
    note = room.state.project.form["note"]
    assert room.state.answer_to(note, room.state.place) == "1 vessel"
    assert room.state.current.name == "0.tiff", "Enter ended the note, and not the case"
    annotator(room.viewer).set_tool("polygon")
    room.press("1")
    assert room.state.at == 0
    annotator(room.viewer).set_tool("move")
    room.press("1")
    assert room.state.at == 1


def test_a_slide_that_is_gone_is_told_and_the_others_are_read(room, cohort):
    (cohort.parent / "1.tiff").unlink()
    room.open(cohort)
    room.until(lambda: room.state._problems)
    assert "⚠ 1 cannot be opened" in room.dock.cases.words.text()
    room.state.go(room.state.project["1.tiff"])
    room.until(lambda: not room.state.waits)
    assert "1.tiff" in close_error(room.qtbot)
    assert room.state.current.name == "0.tiff"


def test_the_large_table_has_all_columns_and_thumbnails(room, cohort):
    room.open(cohort)
    room.gathered()
    room.dock.show_table()
    settle(room.qtbot)
    table = room.dock._table_dock.widget()
    model = table.model
    assert {"patient", "uncertainty", "area_mm2", "tags"} <= set(model.columns)
    assert model.data(model.index(0, 0), Qt.ItemDataRole.DecorationRole) is not None
    texts = [model.data(model.index(0, n)) for n in range(model.columnCount())]
    assert texts[:3] == ["0.tiff", "P0", "tumor"]


def test_what_cannot_be_opened_is_a_dialog_and_what_was_there_stays(room, cohort, tmp_path):
    room.open(cohort)
    assert not room.dock.open(tmp_path / "none.csv")
    assert "does not exist" in close_error(room.qtbot)
    assert room.state.current.name == "0.tiff"
    room.dock.reader_box.setText(" ")
    assert not room.dock.open(cohort)
    assert "who reads" in close_error(room.qtbot)


def test_a_slide_that_is_open_already_is_read_where_it_is_and_stays(room, cohort):
    slide = room.state.session.open_slide(cohort.parent / "0.tiff")
    room.open(blind_project(cohort).path)
    order = [case.name for case in room.state.reading_order()]
    room.state.go(room.state.project["0.tiff"])
    room.read("0.tiff")
    assert room.state.session.active is slide
    room.press("1", "3", Qt.Key.Key_Return, Qt.Key.Key_Return)
    room.until(lambda: room.state.current.name != "0.tiff")
    assert room.state.current.name in order
    assert slide in room.state.session.slides, "who opened it closes it"
    assert len(room.state.session.slides) == 2


def test_others_keep_verdicts_about_places_of_any_case(room, cohort):
    room.open(cohort)
    place = room.state.places[0].place
    verdict = Verdict("2.tiff", place, "region", "mimic", model="run")
    room.state.keep(verdict, replace(verdict, case="3.tiff"))
    assert [room.state.row(c).values["judged"] for c in room.state.project.cases] == [0, 0, 1, 1]
    assert room.state.log.take_back()
    room.open(blind_project(cohort).path)
    with pytest.raises(ReviewError, match=r"Lock your own answer for 2\.tiff"):
        room.state.keep(verdict)
