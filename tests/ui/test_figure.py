"""The view as a figure: whole, sharp, with what explains it, and without the slide's name."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from PIL import Image
from qtpy.QtWidgets import QApplication, QWidget

from napari_histomil.errors import HistomilError, OutputError
from napari_histomil.slides.readers import open_slide
from napari_histomil.ui import camera
from napari_histomil.ui.colours import colour_steps
from napari_histomil.ui.dialogs import ErrorDialog
from napari_histomil.ui.figure import grab, save_figure, take_figure
from napari_histomil.ui.figure_paint import FigureOptions, paint, scale_bar_um
from napari_histomil.ui.orientation import Orientation, set_orientation
from napari_histomil.ui.overlays import overlays
from napari_histomil.ui.session import session
from napari_histomil.ui.widgets.figure_dialog import FigureDialog

BARE = FigureOptions(scale_bar=False, magnification=False, colour_bar=False)


@pytest.fixture
def path(write_slide):
    """1500 x 1037 px in which every place is another colour, with edges one pixel sharp."""
    rows, columns = np.mgrid[:1037, :1500]
    pixels = np.stack([columns % 256, rows % 256, (columns // 64 + rows // 64) * 5], -1)
    return write_slide(pixels.astype(np.uint8), "Doe, Jane.tiff")


@pytest.fixture
def viewer(make_napari_viewer, qtbot, path):
    viewer = make_napari_viewer(show=True)
    session(viewer).open_slide(path)
    camera.set_native(viewer, session(viewer).active.info)
    camera.go_to_px0(viewer, session(viewer).active.info, (700, 500))
    qtbot.wait(100)
    return viewer


def with_run(viewer, path, make_run):
    with open_slide(path) as slide:
        store = make_run(slide.info)
    return overlays(viewer).add(store)


def test_the_picture_is_what_is_seen_without_what_napari_draws_over_it(viewer):
    slide = session(viewer).active
    viewer.canvas.overlays.scale_bar.visible = True
    seen = viewer.screenshot(canvas_only=True, flash=False)[..., :3]
    viewer.canvas.overlays.scale_bar.visible = False
    bare = viewer.screenshot(canvas_only=True, flash=False)[..., :3]
    assert (seen != bare).any(), "the scale bar can be told"
    viewer.canvas.overlays.scale_bar.visible = True
    picture = take_figure(viewer, slide, BARE)
    np.testing.assert_array_equal(picture.picture, bare)
    np.testing.assert_array_equal(paint(picture), bare)
    assert viewer.canvas.overlays.scale_bar.visible


@pytest.mark.parametrize("orientation", [Orientation(), Orientation(1, True)])
def test_twice_the_resolution_shows_the_same_view_twice_as_fine(viewer, qtbot, orientation):
    slide = session(viewer).active
    set_orientation(viewer, orientation)
    view = viewer.scene.camera
    view.zoom /= 2  # so that the finer picture is sharper too
    before = view.zoom, view.center
    once, twice = grab(viewer, slide, 1).astype(int), grab(viewer, slide, 2).astype(int)
    assert (view.zoom, view.center) == before
    assert twice.shape == (2 * once.shape[0], 2 * once.shape[1], 3)
    height, width = once.shape[:2]
    means = twice.reshape(height, 2, width, 2, 3).mean(axis=(1, 3))
    edges = (np.abs(np.diff(means, axis=1)).max(axis=2) > 40)[:-1]
    smooth = ~(edges | np.roll(edges, 1, 1) | np.roll(edges, -1, 1))
    apart = np.abs(means - once)[:-1, :-1].max(axis=2)
    assert np.median(apart[smooth]) <= 2, "the same place"
    assert np.percentile(apart[smooth], 90) <= 6
    shifted = np.abs(means[:, 4:] - once[:, :-4])[:-1].max(axis=2)
    assert np.median(shifted) > 4, "the comparison above can tell another place"
    # the four quarters join: no line between them
    for axis, at in ((0, height), (1, width)):
        seam = np.abs(np.diff(twice, axis=axis)).mean(axis=(1 - axis, 2))[at - 4 : at + 3]
        assert seam[3] <= 2 * np.median(seam)


def test_scale_bar_magnification_and_colours_are_in_it(viewer, path, make_run):
    slide = session(viewer).active
    run = with_run(viewer, path, make_run)
    run.heatmap.threshold = 0.25
    run.heatmap.colours = "magma"
    taken = take_figure(viewer, slide, FigureOptions(title="Title µ²"))
    assert taken.um_per_pixel == pytest.approx(0.5)
    assert taken.power == pytest.approx(20)
    assert taken.legend.ends == ("0", "1")
    assert taken.legend.title == "score of tumor"
    drawn = paint(taken)
    height, width = taken.picture.shape[:2]
    top = next(r for r in range(200) if (drawn[r] == taken.picture[0]).all(axis=-1).mean() > 0.9)
    assert top > 20, "a line for the title"
    picture, strip = drawn[top : top + height], drawn[top + height :]
    # the scale bar: black, a fifth of the width at most, a round length
    bar = scale_bar_um(width * 0.5)
    dark = (picture < 40).all(axis=2)[height // 2 :, : width // 2]
    assert dark.sum(axis=1).max() == pytest.approx(bar / 0.5, abs=3)
    # the colours above the threshold, none below
    steps = colour_steps("magma")
    high = np.abs(strip.astype(int) - steps[230]).max(axis=2) <= 2
    low = np.abs(strip.astype(int) - steps[40]).max(axis=2) <= 2
    assert high.any()
    assert not low.any()
    run.layer.visible = False
    assert take_figure(viewer, slide, FigureOptions()).legend is None


def test_the_slides_name_is_in_no_file_unless_asked_for(viewer, path, make_run, tmp_path):
    slide = session(viewer).active
    with_run(viewer, path, make_run)
    for name in ("a.png", "a.tif", "a.pdf"):
        file = tmp_path / name
        save_figure(viewer, slide, file)
        content = file.read_bytes()
        for word in (b"Jane", b"Doe", "Jane".encode("utf-16-be"), str(tmp_path).encode()):
            assert word not in content
    dialog = FigureDialog(viewer, slide, heatmap=True)
    assert dialog.options() == FigureOptions(classes=False), "no regions are drawn"
    dialog.name_box.setChecked(True)
    dialog.title_edit.setText(" Case 7 ")
    assert dialog.options().title == "Case 7 - Doe, Jane.tiff"
    dialog.deleteLater()


def test_files_are_readable_and_know_their_scale(viewer, tmp_path):
    slide = session(viewer).active
    drawn = paint(take_figure(viewer, slide, FigureOptions()))
    save_figure(viewer, slide, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        np.testing.assert_array_equal(np.asarray(image), drawn)
    save_figure(viewer, slide, tmp_path / "a.TIFF")
    with tifffile.TiffFile(tmp_path / "a.TIFF") as tiff:
        page = tiff.pages.first
        np.testing.assert_array_equal(page.asarray(), drawn)
        numerator, denominator = page.tags["XResolution"].value
        assert 1e4 * denominator / numerator == pytest.approx(0.5, rel=1e-4)
        assert page.tags["ResolutionUnit"].value == 3
    save_figure(viewer, slide, tmp_path / "a.pdf")
    pdf = (tmp_path / "a.pdf").read_bytes()
    assert pdf.startswith(b"%PDF")
    assert b"%%EOF" in pdf[-20:]
    assert sorted(path.name for path in tmp_path.glob("a.*")) == ["a.TIFF", "a.pdf", "a.png"]


def test_without_a_resolution_there_is_no_scale(make_napari_viewer, array_slide, checkered):
    from napari_histomil.ui.layers import slide_layer

    viewer = make_napari_viewer(show=True)
    slide = session(viewer).add_slide(slide_layer(array_slide(checkered, None)))
    taken = take_figure(viewer, slide, FigureOptions())
    assert (taken.um_per_pixel, taken.power) == (None, None)
    np.testing.assert_array_equal(paint(taken), taken.picture)
    assert (taken.picture[:3] == 255).all(), "around the slide it is white, as on paper"
    assert viewer.canvas.background_color_override is None


def test_what_cannot_be_written_is_one_sentence_and_leaves_nothing(viewer, tmp_path, monkeypatch):
    slide = session(viewer).active
    with pytest.raises(OutputError, match=r"end its name in \.png, \.tif or \.pdf"):
        save_figure(viewer, slide, tmp_path / "figure.bmp")
    with pytest.raises(OutputError, match="does not exist"):
        save_figure(viewer, slide, tmp_path / "none" / "figure.png")

    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("napari_histomil.files.os.replace", refuse)
    parent = QWidget()
    dialog = FigureDialog(viewer, slide, heatmap=False, parent=parent)
    before = sorted(tmp_path.iterdir())
    for name in ("a.png", "a.tif", "a.pdf"):
        assert not dialog.save(tmp_path / name)
    errors = [each for each in QApplication.topLevelWidgets() if isinstance(each, ErrorDialog)]
    assert len(errors) == 3
    assert all("No space left on device" in error.sentence for error in errors)
    for widget in (*errors, dialog, parent):
        widget.close()
        widget.deleteLater()
    assert sorted(tmp_path.iterdir()) == before


def test_a_picture_that_does_not_become_complete_is_one_sentence(viewer, monkeypatch):
    slide = session(viewer).active
    monkeypatch.setattr(
        "napari_histomil.ui.figure.painting", lambda _: type("P", (), {"wait": lambda *_: False})
    )
    viewer.canvas.overlays.scale_bar.visible = True
    with pytest.raises(HistomilError, match="was not complete after"):
        take_figure(viewer, slide, FigureOptions())
    assert viewer.canvas.overlays.scale_bar.visible
