"""A pathologist validates a model on real tissue: blind, by keys, killed in the middle."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from PIL import Image
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication

from napari_histomil.cli import main
from napari_histomil.review import blind
from napari_histomil.review.project import open_project, write_project
from napari_histomil.review.verdicts import VerdictLog
from napari_histomil.ui.annotator import annotator
from napari_histomil.ui.camera import magnification
from napari_histomil.ui.overlays import overlays
from napari_histomil.ui.painting import complete
from napari_histomil.ui.window import screenshot_window
from tests.ui.annotating import settle
from tests.ui.review_room import make_room

MODEL = "metastasis-patch-small"
MPP = 0.97
GLASS_PX = 128
SLIDES = {
    "node 1": (("10672", "10674"), ("10678", "10680")),
    "node 2": (("10679", "10673"), ("10686", "10072")),
    "node 3": (("10683", "10671"), ("10676", "10681")),
}
"""Names of tiles of 512 px, laid side by side: 1 mm of tissue each way."""

LONG = 240_000  # ms: on a busy machine


def put_together(folder, kind, rows):
    return np.vstack(
        [
            np.hstack([np.asarray(Image.open(folder / kind / f"{n}.jpg")) for n in row])
            for row in rows
        ]
    )


@pytest.fixture  # of one test: the index of slides seen is the person's, where tests have no own
def nodes(data_dir, tmp_path):
    """Three slides with the runs of the shipped model, and a table of what they are."""
    tiles = data_dir / "seg-camelyon-tumor"
    if not tiles.is_dir():
        pytest.skip(f"no tiles: {tiles} is missing")
    folder = tmp_path / "lymph nodes"
    folder.mkdir()
    lines = ["slide,patient,label,site"]
    for n, (name, rows) in enumerate(SLIDES.items()):
        pixels = put_together(tiles, "images", rows)[..., ::-1]  # stored as BGR
        around = ((GLASS_PX, GLASS_PX), (GLASS_PX, GLASS_PX), (0, 0))
        tifffile.imwrite(
            folder / f"{name}.tiff",
            np.pad(pixels, around, constant_values=243),
            photometric="rgb",
            tile=(256, 256),
            compression="deflate",
            resolution=(1e4 / MPP, 1e4 / MPP),
            resolutionunit="CENTIMETER",
        )
        tumour = put_together(tiles, "masks", rows).max() > 127
        lines.append(
            f"{name}.tiff,P{n // 2 + 1},{'tumor' if tumour else 'normal'},site {'AB'[n % 2]}"
        )
    (folder / "nodes.csv").write_text("\n".join(lines) + "\n", "utf-8")
    names = [str(folder / f"{name}.tiff") for name in SLIDES]
    assert main(["run", MODEL, *names, "--device", "cpu"]) == 0
    project = replace(
        open_project(folder / "nodes.csv"), blind=True, seed=1, answers=("normal", "tumor")
    )
    write_project(project)
    return project


READ_AND_DIE = """
import sys
from pathlib import Path
import torch
import napari
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication
from napari_histomil.ui.widgets.review import ReviewWidget

viewer = napari.Viewer()
dock = ReviewWidget(viewer)
viewer.window.add_dock_widget(dock, area="right")
window = viewer.window._qt_window
while not window.isActiveWindow():  # keys are those of the window in front
    window.activateWindow()
    QApplication.processEvents()
dock.reader_box.setText("Ada")
state = dock.state
assert dock.open(Path(sys.argv[1]))
while state.current is None or not window.isActiveWindow():
    QApplication.processEvents()
canvas = viewer.window._qt_viewer.canvas.native
for key in ("2", "4", Qt.Key.Key_Return, "N", "1", "1", "6"):
    QTest.keyClick(canvas, key)
print(state.current.name, state.at, flush=True)
while True:
    QApplication.processEvents()
"""


def test_blind_start_to_end_table_killed_in_the_middle(make_napari_viewer, qtbot, nodes, tmp_path):
    order = blind.order(nodes, "Ada")

    # The first case is begun in a process that is killed after three places.
    with subprocess.Popen(
        [sys.executable, "-c", READ_AND_DIE, str(nodes.path)], stdout=subprocess.PIPE, text=True
    ) as reader:
        told = reader.stdout.readline().split()
        os.kill(reader.pid, signal.SIGKILL)
    assert " ".join(told) == f"{order[0]} 3"

    # The next day: the same case, locked, at the first place that is not judged.
    room = make_room(make_napari_viewer, qtbot)
    state, viewer = room.state, room.viewer
    pictures = os.environ.get("HISTOMIL_PICTURES")

    def picture(name) -> None:
        if pictures:
            viewer.window._qt_window.resize(1280, 800)
            settle(qtbot)
            screenshot_window(viewer, tmp_path / f"{name}.png")
            (tmp_path / f"{name}.png").rename(f"{pictures}/{name}.png")

    room.open(nodes.path)
    assert (state.current.name, state.stage, state.at) == (order[0], "shown", 3)
    assert len(state.places) == 10
    assert magnification(viewer) == pytest.approx(20, rel=1e-3)
    for key in "1126":
        room.press(key)
    picture("review-place")
    room.press("1", "1", "3")
    assert state.at is None, "all ten are judged: the whole slide is seen"
    judged = {v.place for v in state.log.latest() if v.place is not None}
    assert len(judged) == 10

    # The overlay is toggled, and a missed lesion clicked: the only use of the mouse.
    layer = overlays(viewer).current.layer
    room.press("U")
    assert not layer.visible
    room.press("U")
    assert layer.visible
    room.press("A")
    qtbot.mouseClick(room.canvas, Qt.MouseButton.LeftButton, pos=room.canvas.rect().center())
    room.until(lambda: not state.marking)
    assert [region.class_name for region in annotator(viewer).regions] == ["Missed"]
    room.until(lambda: state._ahead.ready == (order[1],))
    picture("review-shown")

    # Enter: the next slide, opened before, without any result of the model on it.
    began = time.perf_counter()
    room.press(Qt.Key.Key_Return)
    assert state.current.name == order[1], "it does not have to be waited for"
    assert complete(viewer, 60)
    QApplication.processEvents()
    print(f"the next slide is complete after {time.perf_counter() - began:.2f} s")
    assert state.stage == "own"
    assert overlays(viewer).current is None
    picture("review-blind")
    room.press("2", "3")
    room.press(Qt.Key.Key_Return)
    assert overlays(viewer).current is not None
    assert "P(tumor)" in room.dock.case.result.text()
    room.press("1")  # having seen the model's answer, another one
    room.press(Qt.Key.Key_Return)
    room.read(order[2])
    room.press("1", "5", Qt.Key.Key_Return, Qt.Key.Key_Return)

    # The end: what became of the answers, and the table of all cases.
    words = room.dock.case.end_words.text()
    assert "All 3 cases are done" in words
    assert "1 of 3 own answers were changed" in words
    room.gathered()
    assert room.column("status") == ["done"] * 3
    assert all(room.column("p"))
    state.list_by("error", descending=True)
    errors = [float(text) for text in room.column("error")]
    assert errors == sorted(errors, reverse=True)
    room.dock.show_table()
    settle(qtbot)
    picture("review-end")
    state.close()
    with VerdictLog.open(nodes.verdicts, reader="", read_only=True) as log:
        own = blind.own_answers(log, "Ada")
        assert [own[name].answer for name in order] == ["tumor", "tumor", "normal"]
        assert [own[name].confidence for name in order] == [4, 3, 5]
        assert [own[name].position for name in order] == [1, 2, 3]
        assert blind.changes(log, nodes, "Ada").changed == 1
    for slide in list(state.session.slides):
        state.session.close_slide(slide)
    settle(qtbot)
