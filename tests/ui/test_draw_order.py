"""Every frame that is drawn shows the place where the camera is, to its edges."""

from __future__ import annotations

import numpy as np
import pytest
from napari.components import ViewerModel
from qtpy.QtWidgets import QApplication
from vispy.gloo import read_pixels

from napari_histomil.ui.camera import go_to_px0, set_native
from napari_histomil.ui.draw_order import slice_before_drawing, widget_of
from napari_histomil.ui.linked import linked
from napari_histomil.ui.painting import complete
from napari_histomil.ui.session import session
from napari_histomil.ui.widgets.linked import show_second


def black_edges(widget, move, *, steps: int = 12) -> list[int]:
    """Return the black columns and rows of each frame while the view moves."""
    found: list[int] = []

    def drawn(_event) -> None:
        black = read_pixels(alpha=False).max(axis=2) == 0
        found.append(int(black.all(axis=0).sum() + black.all(axis=1).sum()))

    event = widget.canvas.view.canvas.events.draw
    event.connect(drawn, position="last")
    for step in range(steps):
        move(step)
        for _ in range(6):
            QApplication.processEvents()
    event.disconnect(drawn)
    return found


@pytest.fixture
def noise(write_slide):
    pixels = np.random.default_rng(1).integers(40, 256, (2400, 3200, 3), np.uint8)
    return write_slide(pixels)


def test_no_frame_has_a_black_edge(make_napari_viewer, noise):
    viewer = make_napari_viewer(show=True)
    opened = session(viewer).open_slide(noise)
    set_native(viewer, opened.info)
    go_to_px0(viewer, opened.info, (1600, 1200))
    assert complete(viewer, 10)
    widget = widget_of(viewer)

    def move(step: int) -> None:
        go_to_px0(viewer, opened.info, (1600 - 50 * step, 1200 - 40 * step))

    frames = black_edges(widget, move)
    assert len(frames) >= 6
    assert max(frames) == 0


def test_nor_has_the_second_view(make_napari_viewer, noise):
    viewer = make_napari_viewer(show=True)
    opened = session(viewer).open_slide(noise)
    set_native(viewer, opened.info)
    go_to_px0(viewer, opened.info, (1600, 1200))
    views = linked(viewer)
    views.open()
    second = show_second(views)
    assert second is not None
    assert complete(viewer, 10)
    assert complete(views.view, 10)

    def move(step: int) -> None:
        go_to_px0(viewer, opened.info, (1600 - 50 * step, 1200 - 40 * step))

    frames = black_edges(widget_of(views.view), move)
    assert len(frames) >= 6
    assert max(frames) == 0
    views.close()


def test_without_a_widget_or_with_another_canvas_nothing_happens():
    assert widget_of(ViewerModel()) is None
    slice_before_drawing(None)

    class Other:
        canvas = object()

    slice_before_drawing(Other())
