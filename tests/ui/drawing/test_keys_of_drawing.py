"""Keys of drawing: on our layer they beat napari's, elsewhere some of them work too."""

from __future__ import annotations

import numpy as np
import pytest
from qtpy.QtCore import Qt
from shapely.geometry import box

from napari_histomil.annotations import commands
from napari_histomil.annotations.model import Region
from napari_histomil.ui.annotator import TOOLS
from napari_histomil.ui.keys import KEYS, LAYER_KEYS

CTRL, ALT = Qt.KeyboardModifier.ControlModifier, Qt.KeyboardModifier.AltModifier

LAYERS = {
    "none": lambda viewer: viewer.layers.selection.clear(),
    "image": lambda viewer: viewer.add_image(np.zeros((8, 8))),
    "points": lambda viewer: viewer.add_points(np.zeros((1, 2))),
    "shapes": lambda viewer: viewer.add_shapes(np.array([(0, 0), (0, 4), (4, 4), (4, 0)])),
    "vectors": lambda viewer: viewer.add_vectors(np.zeros((1, 2, 2))),
}


def drawn(hand):
    region = Region(box(100, 100, 200, 200))
    assert hand.state.do(commands.add([region], hand.state.stamp()))
    return region.id


def test_every_tool_and_every_class_has_its_key_on_our_layer(hand):
    hand.key(Qt.Key.Key_Q)
    layer = hand.layers.shapes
    for name in [name for name in LAYER_KEYS if name.startswith("tool.")]:
        hand.key(getattr(Qt.Key, f"Key_{LAYER_KEYS[name].key}"))
        assert hand.state.tool == name.removeprefix("tool.")
        assert hand.viewer.layers.selection.active is layer
        assert layer.mode == "pan_zoom"  # napari's own tools were not taken
    assert {f"tool.{tool}" for tool in TOOLS} <= set(LAYER_KEYS)
    for n in range(1, 10):
        hand.key(getattr(Qt.Key, f"Key_{n}"))
        assert hand.state.active_class == hand.state.classes.by_key(n)


def test_a_key_means_one_thing_but_for_the_next_region_and_the_next_tile():
    keys = [key.key for key in LAYER_KEYS.values()]
    assert len(set(keys)) == len(keys)
    both = set(keys) & {key.key for key in KEYS.values()}
    assert both == {"N", "Shift-N"}


@pytest.mark.parametrize("kind", LAYERS)
def test_undo_and_classes_work_whatever_layer_is_active(hand, kind):
    region_id = drawn(hand)
    hand.state.select([region_id])
    LAYERS[kind](hand.viewer)
    hand.key(Qt.Key.Key_2, ALT)
    assert hand.state.regions.get(region_id).class_name == "Stroma"
    hand.undo()
    assert hand.state.regions.get(region_id).class_name is None
    hand.redo()
    assert hand.state.regions.get(region_id).class_name == "Stroma"
    hand.undo()
    hand.undo()
    assert hand.shapes == []


def test_with_a_labels_layer_active_only_its_own_undo_acts(hand):
    drawn(hand)
    labels = hand.viewer.add_labels(np.zeros((8, 8), int))
    labels.data_setitem((np.array([2]), np.array([3])), 1)
    hand.undo()
    assert labels.data[2, 3] == 0
    assert len(hand.shapes) == 1
    hand.state.set_tool("select")  # our layer is active with every tool
    hand.undo()
    assert hand.shapes == []
