"""The legend over the canvas: what it lists, where it stands, and that it is in nobody's way."""

from __future__ import annotations

import numpy as np
import pytest
from napari.settings import get_plugin_settings
from npe2 import PluginManifest
from qtpy.QtCore import QPoint
from qtpy.QtGui import QImage

from napari_histomil.annotations import commands
from napari_histomil.annotations.classes import ClassSet
from napari_histomil.annotations.model import AnnotationClass, class_named
from napari_histomil.ui import camera
from napari_histomil.ui.figure import save_figure, take_figure
from napari_histomil.ui.figure_paint import FigureOptions, paint
from napari_histomil.ui.legend import LegendEntry, entries_of
from napari_histomil.ui.region_layers import region_layers
from napari_histomil.ui.widgets.figure_dialog import FigureDialog
from napari_histomil.ui.widgets.legend import MARGIN_PX, MOST_LINES, Legend, free_corner

TUMOR, STROMA = class_named("Tumor").color, class_named("Stroma").color


def names(legend: Legend) -> list[str]:
    return [entry.name for entry in legend.entries] if legend.isVisible() else []


def grabbed(widget) -> np.ndarray:
    image = widget.grab().toImage().convertToFormat(QImage.Format.Format_RGB888)
    rows = np.frombuffer(image.constBits().asstring(image.sizeInBytes()), np.uint8)
    rows = rows.reshape(image.height(), image.bytesPerLine())[:, : 3 * image.width()]
    return rows.reshape(image.height(), image.width(), 3)


def close_to(pixels: np.ndarray, color) -> int:
    return int((np.abs(pixels.astype(int) - color).max(axis=2) <= 3).sum())


@pytest.fixture
def legend(npe2pm, plugin_settings, desk) -> Legend:
    npe2pm.register(PluginManifest.from_distribution("napari-histomil"))
    return desk.dock.legend


def test_the_order_is_that_of_the_list_then_foreign_classes_then_none():
    classes = ClassSet((AnnotationClass("B", (1, 2, 3)), AnnotationClass("A", (4, 5, 6))))
    listed = entries_of(["foreign", None, "A", "B"], classes)
    assert [each.name for each in listed] == ["B", "A", "foreign", "unclassified"]
    assert [each.color for each in listed[:2]] == [(1, 2, 3), (4, 5, 6)]
    assert listed[3].color == (255, 0, 0)


def test_it_lists_what_is_drawn_and_follows_it(legend, desk):
    assert names(legend) == [], "nothing is drawn"
    assert not legend.isVisible()
    desk.draw((10, 10, 60, 60), "Stroma")
    first = desk.draw((100, 100, 200, 200), "Tumor")
    desk.draw((300, 300, 400, 400))
    assert names(legend) == ["Tumor", "Stroma", "unclassified"]
    pixels = grabbed(legend)
    for color in (TUMOR, STROMA, (255, 0, 0)):
        assert close_to(pixels, color) > 60, "a chip of its colour"
    desk.state.set_hidden(["Stroma"])
    desk.settle()
    assert names(legend) == ["Tumor", "unclassified"]
    desk.state.set_hidden(())
    classes = desk.state.classes
    desk.state.set_classes(classes.moved("Stroma", 0))
    desk.settle()
    assert names(legend) == ["Stroma", "Tumor", "unclassified"]
    desk.state.attempt(lambda regions: commands.delete(regions, [first]))
    desk.settle()
    assert names(legend) == ["Stroma", "unclassified"]
    desk.state.undo()
    desk.settle()
    assert "Tumor" in names(legend)
    layers = region_layers(desk.viewer)
    desk.until(lambda: layers.picture is not None)
    layers.picture.visible = False
    if layers.shapes is not None:
        layers.shapes.visible = False
    desk.settle()
    assert not legend.isVisible(), "what is not seen needs no legend"


def test_it_goes_with_the_slide(legend, desk):
    desk.draw((10, 10, 60, 60), "Stroma")
    assert legend.isVisible()
    desk.state.session.close_slide(desk.state.slide)
    desk.settle()
    assert not legend.isVisible()


def test_the_choice_is_remembered(legend, desk):
    desk.draw((10, 10, 60, 60), "Stroma")
    action = desk.dock.classes.legend_action
    assert action.isChecked()
    action.trigger()
    desk.settle()
    assert not legend.isVisible()
    assert get_plugin_settings("napari-histomil").annotating.legend is False
    legend.shown = True
    assert action.isChecked()
    assert legend.isVisible()
    assert get_plugin_settings("napari-histomil").annotating.legend is True


def test_the_mouse_goes_through_it_to_the_canvas(legend, desk):
    desk.draw((10, 10, 60, 60), "Stroma")
    canvas = legend.parentWidget()
    assert legend.geometry().contains(QPoint(MARGIN_PX + 5, canvas.height() - MARGIN_PX - 5))
    assert canvas.childAt(legend.geometry().center()) is not legend


def test_it_leaves_a_corner_that_napari_takes(legend, desk):
    desk.draw((10, 10, 60, 60), "Stroma")
    canvas, bar = legend.parentWidget(), desk.viewer.canvas.overlays.scale_bar
    bar.visible = True
    assert free_corner(desk.viewer) == "bottom_left", "the bar is on the right"
    bar.position = "bottom_left"
    desk.settle()
    assert legend.geometry().topLeft() == QPoint(MARGIN_PX, MARGIN_PX)
    desk.viewer.canvas.overlays.axes.visible = True
    bar.position = "top_left"
    desk.settle()
    corner = QPoint(canvas.width() - MARGIN_PX, canvas.height() - MARGIN_PX)
    assert legend.geometry().bottomRight() + QPoint(1, 1) == corner
    desk.viewer.canvas.overlays.axes.visible = bar.visible = False
    desk.settle()
    assert legend.geometry().left() == MARGIN_PX


def test_many_classes_and_long_names_stay_small(legend, desk):
    desk.viewer.window._qt_window.resize(1280, 900)
    long = "Invasive carcinoma of no special type, solid growth"
    many = [AnnotationClass(f"Class {n}", (n, n, n)) for n in range(30)]
    desk.state.set_classes(ClassSet((AnnotationClass(long, (9, 9, 9)), *many)))
    desk.draw((10, 10, 60, 60), long)
    for n in range(20):
        desk.draw((10, 10, 60 + n, 60), f"Class {n}")
    words = [text for text, _ in legend.lines]
    assert words[0].startswith("Invasive")
    assert words[0].endswith("…")
    assert len(words) <= MOST_LINES + 1
    assert words[-1] == f"+ {21 - (len(words) - 1)} more"
    canvas = legend.parentWidget()
    assert legend.width() <= 0.4 * canvas.width()
    assert legend.height() <= 0.5 * canvas.height()


# --- in a figure ------------------------------------------------------------------------------


def test_a_figure_explains_the_regions_in_view(legend, desk, tmp_path):
    viewer, slide = desk.viewer, desk.state.slide
    desk.draw((10, 10, 60, 60), "Stroma")
    desk.draw((700, 600, 800, 700), "Tumor")
    desk.draw((-900, -900, 1900, 1700), "Region*")  # all around: no line of it is in view
    desk.until(lambda: region_layers(viewer).complete)
    taken = take_figure(viewer, slide, FigureOptions())
    assert taken.classes == (LegendEntry("Tumor", TUMOR), LegendEntry("Stroma", STROMA))
    height = taken.picture.shape[0]
    strip = paint(taken)[height:]
    assert close_to(strip, TUMOR) > 60
    assert close_to(strip, STROMA) > 60
    assert take_figure(viewer, slide, FigureOptions(classes=False)).classes == ()
    desk.state.set_hidden(["Stroma"])
    assert [each.name for each in take_figure(viewer, slide, FigureOptions()).classes] == ["Tumor"]
    desk.state.set_hidden(())
    viewer.scene.camera.zoom *= 4
    camera.go_to_px0(viewer, slide.info, (40, 40))
    desk.until(lambda: region_layers(viewer).complete)
    near = take_figure(viewer, slide, FigureOptions())
    assert [each.name for each in near.classes] == ["Stroma"], "the other is not in view"
    dialog = FigureDialog(viewer, slide, heatmap=False)
    assert dialog.options().classes
    dialog.classes_box.setChecked(False)
    assert not dialog.options().classes
    dialog.deleteLater()
    for name in ("a.png", "a.tif", "a.pdf"):
        save_figure(viewer, slide, tmp_path / name)
        assert (tmp_path / name).stat().st_size > 1000


def test_many_classes_in_a_figure_take_more_rows_and_nothing_is_lost(legend, desk):
    many = [AnnotationClass(f"Class number {n}", (8 * n, 200 - 8 * n, 99)) for n in range(20)]
    desk.state.set_classes(ClassSet(tuple(many)))
    for n in range(20):
        desk.draw((10, 10, 60 + n, 60), f"Class number {n}")
    taken = take_figure(desk.viewer, desk.state.slide, FigureOptions())
    strip = paint(taken)[taken.picture.shape[0] :]
    for kind in many:
        assert close_to(strip, kind.color) > 60, kind.name
