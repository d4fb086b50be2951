"""Every key of the table arrives, whatever kind of layer is active."""

from __future__ import annotations

import numpy as np
import pytest
from napari.utils.shortcuts import default_shortcuts
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel, QWidget

from napari_histomil.ui.keys import CLASS_KEYS, KEY_SHEET, KEYS, LAYER_KEYS, KeySheet, bind, rows

LAYERS = {
    "none": lambda viewer: None,
    "image": lambda viewer: viewer.add_image(np.zeros((8, 8))),
    "labels": lambda viewer: viewer.add_labels(np.zeros((8, 8), int)),
    "points": lambda viewer: viewer.add_points(np.zeros((1, 2))),
    "shapes": lambda viewer: viewer.add_shapes(np.array([(0, 0), (0, 4), (4, 4), (4, 0)])),
    "vectors": lambda viewer: viewer.add_vectors(np.zeros((1, 2, 2))),
}

QT_KEYS = {",": Qt.Key.Key_Comma, ".": Qt.Key.Key_Period}
MODIFIERS = {
    "Control": Qt.KeyboardModifier.ControlModifier,
    "Shift": Qt.KeyboardModifier.ShiftModifier,
    "Alt": Qt.KeyboardModifier.AltModifier,
}


class Listener(QWidget):
    def __init__(self) -> None:
        super().__init__()
        self.heard: list[str] = []

    def hear(self, name: str) -> None:
        self.heard.append(name)


def press(qtbot, window, key: str) -> None:
    *modifiers, last = key.split("-")
    code = QT_KEYS.get(last) or getattr(Qt.Key, f"Key_{last}")
    held = Qt.KeyboardModifier.NoModifier
    for modifier in modifiers:
        held |= MODIFIERS[modifier]
    qtbot.keyPress(window, code, held)
    qtbot.keyRelease(window, code, held)


@pytest.mark.parametrize("kind", LAYERS)
def test_every_key_arrives_with_every_kind_of_layer(make_napari_viewer, qtbot, kind):
    viewer = make_napari_viewer()
    LAYERS[kind](viewer)
    listener = Listener()
    qtbot.addWidget(listener)
    names = [name for name in KEYS if name != KEY_SHEET]  # that one: test_slide.py
    for name in names:
        bind(viewer, name, listener.hear, name)
    dock = viewer.window.add_dock_widget(QLabel("any dock"))
    for name in names:
        press(qtbot, dock.window(), KEYS[name].key)
    assert listener.heard == names
    viewer.window.remove_dock_widget(dock)


def test_no_key_is_one_of_naparis_own():
    taken = {str(binding) for bindings in default_shortcuts.values() for binding in bindings}
    ours = {key.key.replace("Control", "Ctrl").replace("-", "+") for key in KEYS.values()}
    assert len(ours) == len(KEYS)
    assert not ours & taken


def test_the_key_of_a_closed_dock_does_nothing(make_napari_viewer, qtbot):
    viewer = make_napari_viewer()
    listener = Listener()
    bind(viewer, "overlay.toggle", listener.hear, "toggle")
    heard = listener.heard
    dock = viewer.window.add_dock_widget(QLabel("any dock"))
    press(qtbot, dock.window(), "U")
    assert heard == ["toggle"]
    listener.deleteLater()
    qtbot.waitUntil(lambda: _deleted(listener))
    press(qtbot, dock.window(), "U")
    assert heard == ["toggle"]
    viewer.window.remove_dock_widget(dock)


def _deleted(widget: QWidget) -> bool:
    from qtpy.compat import isalive

    return not isalive(widget)


def test_the_sheet_lists_every_key(qtbot):
    sheet = KeySheet()
    qtbot.addWidget(sheet)
    texts = {label.text() for label in sheet.findChildren(QLabel)}
    for row in rows():
        assert row.text in texts
        assert row.what in texts
    for name, key in (KEYS | LAYER_KEYS).items():
        assert key.text, f"Qt knows no key {key.key}"
        if name.partition(".")[0] in CLASS_KEYS:
            assert any(key.text in text for text in texts) or key.text[-1] in "2345678"
        else:
            assert {key.text, key.what} <= texts
    assert KEYS[KEY_SHEET].text == "?"
