"""Killed in the middle of a stroke: what was done before is there."""

from __future__ import annotations

import signal
import subprocess
import sys

import numpy as np

from napari_histomil.annotations.keeping import open_annotations
from napari_histomil.slides.readers import open_slide

DRAW = """
import sys
from pathlib import Path
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication
from napari_histomil.ui.drawing.canvas import attach_drawing
from napari_histomil.ui.window import open_window

viewer = open_window([Path(sys.argv[1])])
drawing = attach_drawing(viewer, next(iter(viewer.window.dock_widgets.values())))
canvas = drawing.parent()
state = drawing.state
state.brush_um = 20


def stroke(x, y, finish):
    QTest.mousePress(canvas, Qt.MouseButton.LeftButton, pos=QPoint(x, y))
    for n in range(20):
        QTest.mouseMove(canvas, QPoint(x + n, y))
        QApplication.processEvents()
    if finish:
        QTest.mouseRelease(canvas, Qt.MouseButton.LeftButton, pos=QPoint(x + 20, y))


state.set_tool("brush")
stroke(200, 200, True)
state.set_class("Tumor")
stroke(200, 300, True)
stroke(200, 400, False)
print("in the middle of a stroke", len(state.regions), flush=True)
while True:
    QApplication.processEvents()
"""


def test_killed_in_the_middle_of_a_stroke_that_stroke_is_lost_at_most(write_slide):
    path = write_slide(np.full((800, 1000, 3), 245, np.uint8))
    with subprocess.Popen(
        [sys.executable, "-c", DRAW, str(path)], stdout=subprocess.PIPE, text=True
    ) as drawing:
        try:
            assert drawing.stdout.readline().split()[-1] == "2"
        finally:
            drawing.send_signal(signal.SIGKILL)
            drawing.wait()
    with open_slide(path) as slide:
        keeper = open_annotations(slide.info)
    assert keeper.why_read_only is None
    assert [region.class_name for region in keeper.annotations] == [None, "Tumor"]
    assert keeper.undo() is not None
    assert keeper.undo() is not None
    assert len(keeper.annotations) == 0
    keeper.close()
