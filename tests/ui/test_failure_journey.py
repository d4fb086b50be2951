"""From patients by error to the cause of it, on slides put together from real tissue.

A researcher opens a review, sorts it by error, looks at the worst case's lesions and at what was
missed, judges by key, lays features out, takes a lasso, and leaves with tables.
"""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest
from qtpy.QtCore import QPoint, Qt
from qtpy.QtWidgets import QApplication

from napari_histomil.ui.annotator import annotator
from napari_histomil.ui.cloud import cloud
from napari_histomil.ui.gallery import FRAME_NAME, gallery
from napari_histomil.ui.overlays import overlays
from napari_histomil.ui.session import session
from napari_histomil.ui.torch_shield import shield_torch
from napari_histomil.ui.widgets.annotate import AnnotateWidget
from napari_histomil.ui.widgets.gallery import LESIONS
from napari_histomil.ui.widgets.review import ReviewWidget
from tests.ui.annotating import settle
from tests.ui.failure_slides import MODEL, run_shipped, write_failure_slides

LONG = 240_000  # ms: on a busy machine


@pytest.fixture
def study(tmp_path, data_dir):
    """A table of three slides with labels and centres, their annotations and results."""
    if not (data_dir / "seg-camelyon-tumor").is_dir():
        pytest.skip(f"no tiles: {data_dir / 'seg-camelyon-tumor'} is missing")
    paths = write_failure_slides(tmp_path, data_dir)
    run_shipped(paths)
    table = tmp_path / "study.csv"
    rows = [["slide", "patient", "label", "centre"]]
    rows += [[path.name, f"patient {n}", "tumor", "AB"[n % 2]] for n, path in enumerate(paths)]
    with table.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return table


def picture(window, name: str) -> None:
    """Keep a picture of the window where somebody wants to look at it."""
    folder = os.environ.get("HISTOMIL_PICTURES")
    if folder:
        QApplication.processEvents()
        window.grab().save(str(Path(folder) / f"{name}.png"))


def press(qtbot, panel, key, modifier=Qt.KeyboardModifier.NoModifier) -> None:
    panel.list.setFocus()
    qtbot.keyClick(panel.list, key, modifier)


def test_from_the_worst_case_to_its_cause(make_napari_viewer, study, tmp_path, qtbot):
    shield_torch()
    viewer = make_napari_viewer(show=True)
    window = viewer.window._qt_window
    window.resize(1280, 800)
    dock = ReviewWidget(viewer)
    viewer.window.add_dock_widget(dock, area="right", name="Review")
    annotate = AnnotateWidget(viewer)
    viewer.window.add_dock_widget(annotate, area="right", name="Annotate", tabify=True)
    settle(qtbot)
    dock.parentWidget().raise_()
    settle(qtbot)

    # Patients by error: the first is the worst.
    dock.reader_box.setText("me")
    assert dock.open(study)
    state = dock.state
    qtbot.waitUntil(lambda: len(state.facts) == 3 and state.current is not None, timeout=LONG)
    state.list_by("error", descending=True)
    errors = [row.values["error"] for row in state.shown]
    assert errors == sorted(errors, reverse=True)
    state.go(state.shown[0].case)
    qtbot.waitUntil(lambda: state.current is state.shown[0].case and not state.waits, timeout=LONG)
    part = dock.gallery
    assert part.model_box.currentText() == MODEL
    assert len(part.runs()) == 3
    picture(window, "review-worst-case")

    # The gallery of all cases, with the annotations as the truth: what was missed.
    part.truth_box.setChecked(True)
    part.open_gallery()
    shown = gallery(viewer)
    qtbot.waitUntil(lambda: len(shown.tiles) == 3, timeout=LONG)
    panel = part.panels["Gallery"]
    assert all(np.isfinite(tiles.truth).any() for tiles in shown.tiles)
    panel.kind_box.setCurrentText("false negatives")
    panel.list_patches()
    missed = list(shown.patches)
    assert missed
    assert all(patch.score < 0.5 <= patch.truth for patch in missed)
    assert [patch.score for patch in missed] == sorted(patch.score for patch in missed)
    settle(qtbot)
    qtbot.waitUntil(panel.list.is_complete, timeout=LONG)

    # A click flies to the worst of them, with the result over the slide and a frame around it.
    panel.list.select(0)
    panel.list.went.emit(0)
    slide = session(viewer).active
    assert slide.info.fingerprint == missed[0].fingerprint
    assert overlays(viewer).current.slide is slide
    assert overlays(viewer).current.layer.visible
    assert FRAME_NAME in [layer.name for layer in viewer.layers]
    settle(qtbot)

    # Judged by key; the thumbnail shows it, and it is on the disk.
    press(qtbot, panel, Qt.Key.Key_3)
    press(qtbot, panel, Qt.Key.Key_4)
    assert shown.answers(missed[0]) == {"right": "wrong", "region": "lesion"}
    press(qtbot, panel, Qt.Key.Key_Right)
    press(qtbot, panel, Qt.Key.Key_2)
    panel.tag_box.setText("histiocytes")
    qtbot.keyClick(panel.tag_box, Qt.Key.Key_Return)
    assert panel.list.badge_of(1).text == "partly, histiocytes"
    case = {facts.fingerprint: name for name, facts in state.facts.items()}
    assert {v.case for v in state.log.latest() if v.place is not None} <= set(case.values())
    picture(window, "review-gallery")

    # Lesions with their size group, the one that the model came least near to first.
    panel.kind_box.setCurrentText(LESIONS)
    panel.list_patches()
    lesions = list(shown.patches)
    assert lesions
    assert all("mm long" in patch.why for patch in lesions)
    assert {patch.why.split(",")[0] for patch in lesions} <= {"isolated cells", "micro", "macro"}
    best = [patch.score for patch in lesions]
    assert best == sorted(best)
    panel.list.went.emit(0)
    qtbot.waitUntil(panel.list.is_complete, timeout=LONG)
    picture(window, "review-lesions")

    # A correction becomes a region, which can be undone.
    panel.kind_box.setCurrentText("false positives")
    panel.list_patches()
    if shown.patches:
        panel.list.went.emit(0)
        regions = annotator(viewer)
        qtbot.waitUntil(lambda: not regions.is_reading, timeout=LONG)
        before = len(regions.regions)
        panel.list.select(0)
        panel.class_box.setCurrentText("Stroma")
        press(qtbot, panel, Qt.Key.Key_A)
        assert len(regions.regions) == before + 1
        regions.undo()
        assert len(regions.regions) == before

    # The features of the same tiles, coloured by error; a lasso lists its patches.
    part.open_embedding()
    embedding = part.panels["Embedding"]
    settle(qtbot)
    embedding.lay_out()
    qtbot.waitUntil(lambda: cloud(viewer).laid is not None, timeout=LONG)
    settle(qtbot)
    for name in ("slide", "centre", "verdict", "class (truth)", "error"):
        embedding.colour_box.setCurrentText(name)
        embedding.colour_box.activated.emit(0)
        assert embedding.legend.text()
    width, height = embedding.scatter.width(), embedding.scatter.height()
    corners = [(3, 3), (width // 2, 3), (width // 2, height - 3), (3, height - 3)]
    qtbot.mousePress(embedding.scatter, Qt.MouseButton.LeftButton, pos=QPoint(*corners[0]))
    for corner in corners[1:]:
        qtbot.mouseMove(embedding.scatter, QPoint(*corner))
    qtbot.mouseRelease(embedding.scatter, Qt.MouseButton.LeftButton, pos=QPoint(*corners[-1]))
    assert shown.title == "patches of a lasso"
    assert 0 < len(shown.patches) < len(cloud(viewer).laid.points)
    picture(window, "review-embedding")
    embedding.say_purity()
    assert "nearest neighbours are of the same one of 3 groups" in embedding.words.text()

    # Out of the window: the list with verdicts, and tags by centre.
    panel.kind_box.setCurrentText("false negatives")
    panel.list_patches()
    panel.write_list(tmp_path / "missed.csv")
    with (tmp_path / "missed.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["right"] for row in rows[:2]] == ["wrong", "partly"]
    assert rows[1]["tags"] == "histiocytes"
    part.group_box.setCurrentText("by centre")
    part.write_tags(tmp_path / "tags.csv")
    assert (tmp_path / "tags.csv").read_text("utf-8").startswith("tags,")
    assert "histiocytes,1" in (tmp_path / "tags.csv").read_text("utf-8")

    annotator(viewer).close()
    for each in list(session(viewer).slides):
        session(viewer).close_slide(each)
    settle(qtbot)
