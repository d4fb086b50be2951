"""Dialogs: the sentence, the diagnostics, the question for µm/px."""

from __future__ import annotations

from pathlib import Path

import pytest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication, QDialogButtonBox, QWidget

from napari_histomil.errors import SlideError
from napari_histomil.ui.dialogs import ask_mpp, diagnostics, show_error


@pytest.fixture
def owner(qtbot):
    widget = QWidget()
    qtbot.addWidget(widget)
    widget.show()
    return widget


def raised(error: Exception) -> Exception:
    """Return the error with a traceback."""
    with pytest.raises(type(error)) as caught:
        raise error
    return caught.value


def test_error_is_one_sentence_and_diagnostics_are_copied(qtbot, owner, array_slide, checkered):
    info = array_slide(checkered).info
    error = raised(SlideError("slide.svs cannot be read: it is truncated."))
    dialog = show_error(error, owner, info=info)
    assert dialog.sentence == "slide.svs cannot be read: it is truncated."
    assert dialog.details.isHidden()
    qtbot.mouseClick(dialog.details_button, Qt.MouseButton.LeftButton)
    assert dialog.details.isVisible()
    qtbot.mouseClick(dialog.copy_button, Qt.MouseButton.LeftButton)
    copied = QApplication.clipboard().text()
    assert copied.startswith(dialog.sentence)
    for part in ("napari-histomil", "Python 3", "1500 x 1037 px", "Traceback", info.fingerprint):
        assert part in copied
    close = dialog.findChild(QDialogButtonBox).button(QDialogButtonBox.StandardButton.Close)
    qtbot.mouseClick(close, Qt.MouseButton.LeftButton)


def test_a_bug_says_that_it_is_one(owner):
    dialog = show_error(raised(KeyError("left")), owner)
    assert "should not have" in dialog.sentence
    assert "KeyError: 'left'" in dialog.sentence
    dialog.close()


def test_diagnostics_leave_out_the_persons_folders(array_slide, checkered):
    home = Path.home()
    info = array_slide(checkered, name=str(home / "patients" / "meier.svs")).info
    text = diagnostics(raised(SlideError(f"{home}/patients cannot be read")), info)
    assert str(home) not in text.replace("~", "")
    assert "slide: meier.svs" in text


def test_mpp_question_suggests_what_the_objective_means(qtbot, owner, array_slide, checkered):
    answers = []
    dialog = ask_mpp(array_slide(checkered, None, power=40).info, answers.append, owner)
    assert dialog.edit.text() == "0.25"
    assert dialog.means.text() == "about 40x, a slide of 0.375 x 0.259 mm"
    qtbot.mouseClick(dialog.accept_button, Qt.MouseButton.LeftButton)
    assert answers == [0.25]


def test_mpp_question_takes_only_what_can_be(qtbot, owner, array_slide, checkered):
    answers = []
    dialog = ask_mpp(array_slide(checkered, None).info, answers.append, owner)
    assert dialog.edit.text() == ""
    for nonsense in ("0", "x", "0,25", "1e9", "-3"):
        dialog.edit.clear()
        qtbot.keyClicks(dialog.edit, nonsense)
        assert not dialog.accept_button.isEnabled() or nonsense in ("-3", "1e9", "0,25"), nonsense
    dialog.edit.clear()
    qtbot.keyClicks(dialog.edit, "0.46")
    assert dialog.mpp == 0.46
    qtbot.mouseClick(dialog.skip_button, Qt.MouseButton.LeftButton)
    assert answers == []
