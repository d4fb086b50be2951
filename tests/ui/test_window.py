"""The window of `histomil view`: docks in place, on a small screen, pixels where they belong."""

from __future__ import annotations

import threading
from pathlib import Path

import napari
import numpy as np
import pytest
import shapely
from PIL import Image
from qtpy.QtWidgets import QApplication

from napari_histomil.errors import OutputError, SlideError
from napari_histomil.resources import packaged
from napari_histomil.slides.readers import open_slide
from napari_histomil.tiling import GridSpec, TileGrid
from napari_histomil.ui.camera import go_to_px0, set_native
from napari_histomil.ui.draw_order import widget_of
from napari_histomil.ui.layers import heatmap_layer, polygons_layer, slide_layer
from napari_histomil.ui.preferences import PLUGIN
from napari_histomil.ui.sample_data import SAMPLE_SLIDE
from napari_histomil.ui.session import session
from napari_histomil.ui.widgets.slide import SlideWidget
from napari_histomil.ui.window import (
    DOCKS,
    SMALLEST_SIZE,
    open_window,
    screenshot_window,
    takes_long,
)


def settle(qtbot, times: int = 6) -> None:
    for _ in range(times):
        qtbot.wait(20)


@pytest.fixture
def window(make_napari_viewer, monkeypatch, qtbot):
    """Open windows in a napari of the test's own; they are closed at the end."""
    monkeypatch.setattr(napari, "Viewer", make_napari_viewer)

    def make(*args, **kwargs):
        viewer = open_window(*args, **kwargs)
        settle(qtbot)
        return viewer

    return make


def on_screen(viewer, layer_info, xy_px0):
    """Return (row, column) of the screenshot's pixel that a level-0 position lies in."""
    height, width = viewer.canvas.size
    camera = viewer.scene.camera
    mpp_x, mpp_y = layer_info.mpp_xy
    row = (xy_px0[1] * mpp_y - camera.center[-2]) * camera.zoom + height / 2
    column = (xy_px0[0] * mpp_x - camera.center[-1]) * camera.zoom + width / 2
    return row, column


@pytest.mark.parametrize("which", ["aperio", "sample"])
def test_every_pixel_at_one_to_one_is_the_slides_own(window, qtbot, data_dir, which):
    """At 1:1, with the view on whole pixels, the screen shows the slide's pixels in place."""
    path, (x, y) = {
        "aperio": (data_dir / "wsi-aperio-svs" / "CMU-1-Small-Region.svs", (1201, 903)),
        "sample": (packaged("sample_data") / SAMPLE_SLIDE, (2501, 1803)),
    }[which]
    viewer = window([path])
    info = session(viewer).active.info
    set_native(viewer, info)
    height, width = viewer.canvas.size
    # The middle of the canvas lies on a pixel's edge or centre, as its size is even or odd.
    middle = (x + (width % 2) / 2, y + (height % 2) / 2)
    go_to_px0(viewer, info, middle)
    settle(qtbot)
    shown = viewer.screenshot(canvas_only=True, flash=False)[..., :3].astype(int)
    assert shown.shape[:2] == (height, width)
    side = 300
    corner = (x - side // 2, y - side // 2)
    row, column = on_screen(viewer, info, corner)
    assert (row, column) == pytest.approx((round(row), round(column)), abs=1e-6)
    row, column = round(row), round(column)
    part = shown[row : row + side, column : column + side]
    with open_slide(path) as slide:
        expected = slide.read_region(corner, 0, (side, side)).astype(int)
    assert expected.std() > 20, "a place with something to see"
    assert np.abs(part - expected).max() <= 2
    # One pixel aside it is another picture: the comparison above can tell.
    assert np.abs(part[:, 1:] - expected[:, :-1]).mean() > 3


@pytest.mark.parametrize("zoom", [1.0, 0.37, 3.3])
def test_slide_heatmap_and_polygon_cover_the_same_pixels_of_the_screen(
    make_napari_viewer, qtbot, array_slide, checkered, zoom
):
    """A red rectangle of the slide, two cells and a polygon, at every level of the pyramid."""
    viewer = make_napari_viewer(show=True)
    session(viewer)
    slide = array_slide(checkered, (0.5, 0.25))  # x 192 to 320 µm, y 64 to 128 µm
    grid = TileGrid.cover(slide.info, GridSpec(mpp=1.0, tile_px=64, stride_px=64))
    scores = np.full(grid.shape, np.nan, np.float32)
    scores[1, 3:5] = 1
    pixels, meta, _ = slide_layer(slide)
    image = viewer.add_image(pixels, **meta | {"interpolation2d": "nearest"})
    values, meta, _ = heatmap_layer(scores, pixel_um=(64, 64), name="scores", colormap="blue")
    heatmap = viewer.add_image(values, **meta)
    boxes = [shapely.box(384, 256, 640, 512)]
    outlines, meta, _ = polygons_layer(boxes, slide.info, name="box", edge_width=0)
    polygon = viewer.add_shapes(outlines, **meta, face_color="lime")
    viewer.scene.camera.zoom = zoom
    viewer.scene.camera.center = (0, 96.3, 256.7)

    def covered(layer, channel):
        for each in (image, heatmap, polygon):
            each.visible = each is layer
        settle(qtbot, 4)
        shown = viewer.screenshot(canvas_only=True, flash=False)[..., :3].astype(int)
        others = shown.sum(axis=2) - shown[..., channel]
        return (shown[..., channel] > 100) & (others < 100)

    cells, box = covered(heatmap, 2), covered(polygon, 1)
    assert cells.sum() == pytest.approx(128 * 64 * zoom**2, rel=0.05)
    assert (cells != box).sum() <= 2 * zoom, "the corners at most"
    assert len(image.data) == 5
    for level in range(len(image.data)):
        image.locked_data_level = level
        rectangle = covered(image, 0)
        assert image.data_level == level
        assert (rectangle != cells).sum() == 0, f"level {level}"


def test_window_fits_the_smallest_screen_with_all_docks(window, tmp_path, qtbot, data_dir):
    viewer = window([data_dir / "wsi-aperio-svs" / "CMU-1-Small-Region.svs"])
    (dock,) = [each for each in QApplication.allWidgets() if isinstance(each, SlideWidget)]
    main = dock.window()
    available = main.screen().availableGeometry()
    assert main.width() <= available.width()
    assert main.height() <= available.height()
    assert main.width() >= min(SMALLEST_SIZE[0], available.width())
    assert {f"{name} (napari-histomil)" for name in DOCKS} <= set(viewer.window.dock_widgets)
    assert not dock.visibleRegion().isEmpty(), "the first tab is in front"
    assert 330 <= dock.width() <= 400
    assert viewer.canvas.size[1] > 450, "the slide has most of the window"
    for button in (*dock.navigation.magnification_buttons.values(), dock.navigation.go_button):
        right = button.mapTo(dock, button.rect().bottomRight())
        assert right.x() < dock.width(), f"{button.text()} is cut off"
        assert button.width() >= button.minimumSizeHint().width()
    picture = tmp_path / "window.png"
    screenshot_window(viewer, picture)
    with Image.open(picture) as image:
        assert image.size == (main.width(), main.height())
        colours = np.asarray(image.convert("RGB")).reshape(-1, 3)
    assert len(np.unique(colours, axis=0)) > 1000


def test_slide_stays_whole_when_the_window_changes_until_one_moves(window, qtbot, data_dir):
    viewer = window([data_dir / "wsi-aperio-svs" / "CMU-1-Small-Region.svs"])
    (dock,) = [each for each in QApplication.allWidgets() if isinstance(each, SlideWidget)]
    main, camera = dock.window(), viewer.scene.camera
    for width, height in ((1100, 700), (1250, 780)):
        main.resize(width, height)
        settle(qtbot)
        fits = 0.92 * min(
            viewer.canvas.size[0] / (2967 * 0.499), viewer.canvas.size[1] / (2220 * 0.499)
        )
        assert camera.zoom == pytest.approx(fits)
    camera.zoom = 2.0
    main.resize(1100, 700)
    settle(qtbot)
    assert camera.zoom == 2.0


def test_the_chosen_dock_is_in_front(window):
    viewer = window(front="Overlay")
    docks = viewer.window.dock_widgets
    hidden = {name: docks[f"{name} (napari-histomil)"].visibleRegion().isEmpty() for name in DOCKS}
    assert hidden == {name: name != "Overlay" for name in DOCKS}


def test_the_keys_are_the_canvas_s_from_the_start(window, data_dir):
    """Else the first field of a dock has them: J turns nothing, PgUp sets a run's stride."""
    viewer = window([data_dir / "wsi-aperio-svs" / "CMU-1-Small-Region.svs"])
    canvas = widget_of(viewer).canvas.native
    assert canvas.window().focusWidget() is canvas


def test_docks_from_the_menu_become_tabs(make_napari_viewer, qtbot):
    """napari itself opens one below the other."""
    viewer = make_napari_viewer(show=True)
    docks = []
    for name in reversed(DOCKS):
        docks.append(viewer.window.add_plugin_dock_widget(PLUGIN, name)[0])
        settle(qtbot)
    assert all(330 <= dock.width() <= 400 for dock in docks)
    assert [dock.visibleRegion().isEmpty() for dock in docks] == [True] * (len(DOCKS) - 1) + [
        False
    ]
    assert set(docks[0].window().tabifiedDockWidgets(docks[0])) == set(docks[1:])


def test_a_slide_that_does_not_open_leaves_no_window(window, data_dir):
    before = set(QApplication.topLevelWidgets())
    with pytest.raises(SlideError, match=r"broken\.svs"):
        window([data_dir / "wsi-broken" / "broken.svs"])
    left = set(QApplication.topLevelWidgets()) - before
    assert not [each for each in left if each.isVisible()]


def test_picture_that_cannot_be_written_is_one_sentence(window, tmp_path):
    viewer = window()
    with pytest.raises(OutputError, match="no-such-folder"):
        screenshot_window(viewer, tmp_path / "no-such-folder" / "window.png")


def test_slides_that_may_take_long_come_in_later(window, qtbot, data_dir, monkeypatch):
    """A DICOM folder is opened beside the window's own work."""
    path = data_dir / "wsi-dicom-cmu1-small"
    let_go = threading.Event()

    def slow(*args, **kwargs):
        assert let_go.wait(20)
        return open_slide(*args, **kwargs)

    monkeypatch.setattr("napari_histomil.ui.opening.open_slide", slow)
    viewer = window([path])
    assert not session(viewer).slides, "the window is there, and does not wait"
    let_go.set()
    qtbot.waitUntil(lambda: bool(session(viewer).slides), timeout=20_000)
    assert session(viewer).active.info.path.is_relative_to(path)


def test_what_may_take_long(tmp_path):
    (tmp_path / "series").mkdir()
    (tmp_path / "slide.zarr").mkdir()
    assert takes_long(tmp_path / "series")
    assert takes_long(tmp_path / "series" / "1.dcm")
    assert takes_long(Path("https://example.org/slide.zarr"))
    assert not takes_long(tmp_path / "slide.zarr")
    assert not takes_long(tmp_path / "slide.svs")


def test_a_dock_behind_another_and_a_closed_fold_do_nothing(window, qtbot):
    """Qt calls both visible: a search for tissue would begin with every slide that is opened."""
    viewer = window([packaged("sample_data") / SAMPLE_SLIDE], front="Slide")
    dock = viewer.window.dock_widgets["Annotate (napari-histomil)"]
    settle(qtbot)
    assert not dock.totals.is_seen
    assert not dock.head.is_seen
    dock.parentWidget().raise_()
    qtbot.waitUntil(lambda: dock.head.is_seen, timeout=5000)
    settle(qtbot)
    assert not dock.totals.is_seen
    assert dock.totals.tree.topLevelItemCount() == 0
    assert "mm²" not in dock.totals.words.text(), "nothing was looked for"
    dock.totals_fold.expand(animate=False)
    qtbot.waitUntil(lambda: "tissue" in dock.totals.words.text(), timeout=20_000)
