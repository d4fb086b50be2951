"""Recording what a window shows: off until one agrees, views as they were, what was never seen."""

from __future__ import annotations

import json

import pytest
from qtpy.QtCore import Qt

from napari_histomil.review.viewing import folder_of, read_views
from napari_histomil.ui.camera import go_to_px0, set_magnification
from napari_histomil.ui.recorder import recorder
from napari_histomil.ui.widgets.recording import LAYER, ConsentDialog, RecordingPart
from tests.ui.annotating import dialog_of, settle


@pytest.fixture
def part(room):
    room.dock.folds["How I read"].expand(animate=False)
    return room.dock.folds["How I read"].findChild(RecordingPart)


def test_it_is_off_until_one_agrees_and_then_says_so(room, part, cohort, qtbot):
    assert not part.record_box.isEnabled(), "nothing is under review"
    room.open(cohort)
    project = room.state.project
    part.record_box.click()
    dialog = dialog_of(ConsentDialog)
    assert "not gaze" in dialog.words.text()
    assert str(folder_of(project)) in dialog.words.text()
    assert not part.record_box.isChecked()
    dialog.refuse_button.click()
    settle(qtbot, 2)
    assert not recorder(room.viewer).on
    assert not folder_of(project).exists()

    part.record_box.click()
    dialog_of(ConsentDialog).agree_button.click()
    settle(qtbot, 2)
    assert recorder(room.viewer).on
    assert part.record_box.text().startswith("●")
    part.record_box.click()
    assert not recorder(room.viewer).on


def test_views_are_recorded_mapped_and_exported(
    room,
    part,
    cohort,
    qtbot,
    tmp_path,
):
    room.open(cohort)
    mine, slide = recorder(room.viewer), room.state.session.active
    now = [0.0]
    mine.clock = lambda: now[0]
    mine.start()
    now[0] = 3.0
    set_magnification(room.viewer, 20)  # two changes at once: the first is no view
    go_to_px0(room.viewer, slide.info, (100.0, 100.0))
    now[0] = 1000.0  # nobody was there any more
    room.press(Qt.Key.Key_Return)
    room.read("1.tiff")
    now[0] = 1001.0
    mine.stop()
    (views,) = read_views(room.state.project).values()
    first, second = views[:2]
    assert (first.case, first.seconds, first.overlay) == ("0.tiff", 3.0, True)
    assert second.seconds == 60.0
    assert second.power == pytest.approx(20)
    assert second.slide == slide.info.fingerprint
    assert views[-1].case == "1.tiff"
    total = sum(view.seconds for view in views)
    assert total <= 3 + 60 + 1 + 1e-6

    part.show_coverage()
    room.until(lambda: LAYER in room.viewer.layers)
    assert "never seen" in part.words.text() or "No tissue" in part.words.text()
    part.export(tmp_path / "steps.json")
    document = json.loads((tmp_path / "steps.json").read_text("utf-8"))
    steps = document["readers"]["Ada"]["steps"]
    assert steps[0]["kind"] == "inspect"
    assert sum(step["seconds"] for step in steps) == pytest.approx(total)
