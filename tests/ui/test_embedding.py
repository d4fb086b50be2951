"""The embedding in a window: laid out in a thread, lasso to gallery and slide, and back."""

from __future__ import annotations

import numpy as np
import pytest
from qtpy.QtCore import QPoint, Qt
from shapely import box

from napari_histomil.annotations import commands
from napari_histomil.annotations.model import Region
from napari_histomil.review.tile_scores import TileScores
from napari_histomil.review.verdicts import VerdictLog
from napari_histomil.ui.annotator import annotator
from napari_histomil.ui.cloud import cloud
from napari_histomil.ui.gallery import MARKS_NAME, gallery, place_of
from napari_histomil.ui.session import session
from napari_histomil.ui.widgets.embedding import EmbeddingPanel
from napari_histomil.ui.widgets.gallery import GalleryPanel
from tests.ui.annotating import close_error, settle

SIDE = 64.0


def tiles_of(slide, seed, shift):
    """Twelve tiles in one row, the first half of them far from the second by their features."""
    rng = np.random.default_rng(seed)
    rects = np.tile([0.0, SIDE * 2, SIDE, SIDE], (12, 1))
    rects[:, 0] = SIDE * np.arange(12)
    features = rng.normal(size=(12, 6)) * 0.1
    features[6:] += 5
    return TileScores(
        slide.info.path, slide.info.fingerprint, rects, np.linspace(0, 1, 12) * shift, "P(tumor)",
        "m", features=features.astype(np.float32),
    )  # fmt: skip


@pytest.fixture
def room(make_napari_viewer, write_slide, qtbot):
    viewer = make_napari_viewer(show=True, strict_qt="raise")
    viewer.window._qt_window.resize(1280, 800)
    panels = EmbeddingPanel(viewer), GalleryPanel(viewer)
    for panel, name in zip(panels, ("Embedding", "Gallery"), strict=True):
        viewer.window.add_dock_widget(panel, name=name, area="bottom")
    shown = session(viewer)
    noise = np.random.default_rng(1).integers(0, 255, (512, 1024, 3)).astype(np.uint8)
    slides = [shown.open_slide(write_slide(255 - noise * n, f"{n}.tiff")) for n in range(2)]
    settle(qtbot)
    yield viewer, *panels, slides
    annotator(viewer).close()
    for slide in list(shown.slides):
        shown.close_slide(slide)
    settle(qtbot)


def test_lasso_marks_in_gallery_and_slide_and_regions_light_up(room, qtbot, tmp_path):
    viewer, panel, listed, slides = room
    shown = gallery(viewer)
    assert not panel.lay_button.isEnabled()
    shown.set_tiles([tiles_of(slide, n, 1 - n / 2) for n, slide in enumerate(slides)])
    qtbot.mouseClick(panel.lay_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: len(panel.scatter.layout_xy) == 24, timeout=20_000)
    assert "24 tiles of 2 slides; the axes hold" in panel.words.text()
    layout = panel.scatter.layout_xy
    second = np.tile(np.arange(12) >= 6, 2)
    sides = layout[:, 0] > 0
    assert (sides == second).all() or (sides == ~second).all()

    # A lasso around one half, drawn with the mouse.
    width, height = panel.scatter.width(), panel.scatter.height()
    corners = [(2, 2), (width // 2, 2), (width // 2, height - 2), (2, height - 2)]
    qtbot.mousePress(panel.scatter, Qt.MouseButton.LeftButton, pos=QPoint(*corners[0]))
    for corner in corners[1:]:
        qtbot.mouseMove(panel.scatter, QPoint(*corner))
    qtbot.mouseRelease(panel.scatter, Qt.MouseButton.LeftButton, pos=QPoint(*corners[-1]))
    inside = np.flatnonzero(layout[:, 0] < 0)
    assert len(shown.patches) == 12
    assert panel.scatter.marked.tolist() == inside.tolist()
    assert viewer.layers[MARKS_NAME].data.shape == (6 * 4, 2, 2)  # those of the slide shown
    assert len(listed.list.items) == 12

    # All of the lasso get a tag in one step.
    with VerdictLog.open(tmp_path / "log", reader="me") as log:
        shown.review(log)
        panel.tag_box.setText("necrosis")
        panel.tag_box.returnPressed.emit()
        assert len(log.latest()) == 12
        assert all(shown.answers(patch)["tags"] == ("necrosis",) for patch in shown.patches)
        shown.review(None)

    # What is selected in the list lights up, and so do the tiles of a selected region.
    listed.list.select(3)
    (point,) = panel.scatter.marked
    assert cloud(viewer).place(point) == place_of(shown.patches[3])
    state = annotator(viewer)
    region = Region(box(0, SIDE * 2, SIDE * 3, SIDE * 3))
    assert state.do(commands.add([region], state.stamp()))
    state.select([region.id])
    assert panel.scatter.marked.tolist() == [12, 13, 14]

    # Neighbours are looked for over all slides.
    listed.more_like_this()
    qtbot.waitUntil(lambda: "patches like the one" in listed.words.text(), timeout=20_000)
    assert {patch.slide.name for patch in shown.patches[:12]} == {"0.tiff", "1.tiff"}
    assert shown.patches[0].why == "likeness 1.00"

    panel.say_purity()
    assert panel.words.text().startswith("Purity by slide 0.")
    panel.colour_box.setCurrentText("slide")
    panel.colour_box.activated.emit(3)
    assert "0.tiff" in panel.legend.text()
    # A click on a point flies there.
    x, y = panel.scatter.view.to_pixels(layout[:1], panel.scatter.size_px)[0]
    qtbot.mouseClick(panel.scatter, Qt.MouseButton.LeftButton, pos=QPoint(int(x), int(y)))
    assert shown.current == 0
    assert session(viewer).active.name == shown.patches[0].slide.name


def test_without_features_a_sentence_says_what_to_do(room, qtbot):
    viewer, panel, _, slides = room
    bare = tiles_of(slides[0], 0, 1)
    gallery(viewer).set_tiles(
        [TileScores(bare.slide, bare.fingerprint, bare.rects_px0, bare.scores, "P", "m")]
    )
    panel.lay_out()
    qtbot.waitUntil(lambda: not cloud(viewer).busy, timeout=20_000)
    assert "no features of these slides: extract them first" in close_error(qtbot)
