"""A segmentation over its slide: to the pixel, its picture, areas, the dock's part, its errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
from napari.components import ViewerModel
from qtpy.QtCore import Qt

from napari_histomil.annotations.classes import ClassSet
from napari_histomil.annotations.model import AnnotationClass
from napari_histomil.errors import RunError
from napari_histomil.exchange.labels import Steps
from napari_histomil.geometry import Rect
from napari_histomil.manifest import ClassSpec
from napari_histomil.results import SegmentationStore, run_path
from napari_histomil.slides.slide import SlideInfo
from napari_histomil.tiling import GridSpec, TileGrid
from napari_histomil.ui import segmentation_painter
from napari_histomil.ui.camera import go_to_px0
from napari_histomil.ui.colours import colour_steps
from napari_histomil.ui.layers import rect_around_px0, to_world_um
from napari_histomil.ui.linked import Shown, linked
from napari_histomil.ui.minimap import heat_picture
from napari_histomil.ui.orientation import Orientation, set_orientation
from napari_histomil.ui.overlays import overlays
from napari_histomil.ui.painting import painting
from napari_histomil.ui.run_facts import doubts
from napari_histomil.ui.segmentation_painter import values_at
from napari_histomil.ui.segmentation_picture import (
    MOST_PIXELS,
    frame_for,
    overview_level,
    paint,
)
from napari_histomil.ui.segmentation_work import Stopped, exact_facts, take_regions, write
from napari_histomil.ui.session import session
from napari_histomil.ui.view_state import _run_state, bring_back_run
from napari_histomil.ui.widgets.overlay import OverlayWidget
from napari_histomil.ui.widgets.segmentation_file import SegmentationFileDialog

CLASSES = (
    ClassSpec("background", (200, 200, 200)),
    ClassSpec("Tumor", (200, 0, 0)),
    ClassSpec("Stroma", (0, 160, 60)),
)
MPP, SLIDE_MPP = 1.0, 0.5


@pytest.fixture
def make_segmentation() -> Callable[..., SegmentationStore]:
    """Store probabilities [3, rows, columns] at 1 µm/px over a slide of 0.5 µm/px."""

    def make(
        info: SlideInfo,
        whole: np.ndarray,
        *,
        bands: int | None = None,
        activation: str = "softmax",
        region: str = "tissue",
    ) -> SegmentationStore:
        grid = TileGrid.cover(info, GridSpec(MPP, 64, 32))
        path = run_path(info.path, "5" * 16, fingerprint=info.fingerprint)
        with SegmentationStore.create(
            path,
            run_id=path.stem,
            job={"task": "segment", "region": {"kind": region}, "stain": {"method": "none"}},
            slide={
                "name": info.path.name,
                "path": str(info.path),
                "fingerprint": info.fingerprint,
                "width_px0": info.width_px0,
                "height_px0": info.height_px0,
                "mpp_xy": list(info.mpp_xy),
                "bounds_px0": None,
            },
            model={
                "name": "unet",
                "sha256": "0" * 64,
                "activation": activation,
                "background_class": "background",
                "positive_class": "Tumor",
            },
            classes=CLASSES,
            grid=grid,
        ) as store:
            for band in store.picture.bands[:bands]:
                store.write_band(band, lambda part, rows=band.rows: whole[:, rows, part])
        return SegmentationStore.open(path)

    return make


def probabilities() -> np.ndarray:
    """[3, 519, 750] for the slide `checkered`: tumour is its red square, and stroma below it.

    The square is x 192 to 320, y 128 to 256 at 1 µm/px; a hole of 4 x 5 px is in it, a spot of
    3 x 3 px beside it.
    """
    whole = np.zeros((3, 519, 750), np.float32)
    whole[1, 128:256, 192:320] = 0.8
    whole[1, 150:154, 200:205] = 0
    whole[1, 100:103, 100:103] = 0.9
    whole[2, 300:400, 50:700] = 0.6
    whole[0] = 1 - whole[1:].sum(axis=0)
    return whole


@pytest.fixture
def shown(write_slide, checkered, make_segmentation, qtbot) -> SimpleNamespace:
    """Layers and camera without a window."""
    viewer = ViewerModel()
    viewer.canvas.size = (600, 800)
    slide = session(viewer).open_slide(write_slide(checkered))
    run = overlays(viewer).add(make_segmentation(slide.info, probabilities()))
    found = SimpleNamespace(viewer=viewer, slide=slide, run=run, view=run.segmentation)
    qtbot.waitUntil(lambda: run.painter.complete and found.view.facts is not None)
    yield found
    session(viewer).close_slide(slide)


def colour_at(shown: SimpleNamespace, xy_px0: tuple[float, float]) -> tuple[int, ...]:
    """Return the colour of the layer's pixel at a place of the slide."""
    layer = shown.run.layer
    row, column = np.rint(layer.world_to_data(to_world_um(xy_px0, shown.slide.info))).astype(int)
    assert 0 <= row < layer.data.shape[0]
    assert 0 <= column < layer.data.shape[1]
    return tuple(layer.data[row, column].tolist())


TUMOR, STROMA, NOTHING = (200, 0, 0, 255), (0, 160, 60, 255), (0, 0, 0, 0)


@pytest.mark.parametrize("zoom", [8.0, 2.0, 1.0])
@pytest.mark.parametrize("turn", [Orientation(0), Orientation(1, mirrored=True)])
def test_it_lies_on_the_slide_to_the_pixel(shown, qtbot, zoom, turn):
    """On the picture's finest level, at the level-0 pixels around edges and the hole."""
    viewer, info = shown.viewer, shown.slide.info
    set_orientation(viewer, turn)
    viewer.scene.camera.zoom = zoom  # screen pixels a µm
    go_to_px0(viewer, info, (400, 280))
    qtbot.waitUntil(lambda: shown.run.painter.complete)
    for x, y in ((384.1, 256.1), (385.9, 290), (450, 256.1), (399.9, 302), (402, 299.9)):
        assert colour_at(shown, (x, y)) == TUMOR
    for x, y in ((383.9, 257), (385, 255.9), (400.1, 300.1), (409.9, 307.9)):
        assert colour_at(shown, (x, y)) == NOTHING
    around = rect_around_px0(viewer, info, 0).intersection(info.rect_px0)
    for x in (around.x_px0 + 1, around.right_px0 - 1):
        for y in (around.y_px0 + 1, around.bottom_px0 - 1):
            colour_at(shown, (x, y))  # all that is in view is in the picture


def test_from_afar_it_is_a_coarser_level_in_the_same_place(shown, qtbot):
    shown.viewer.scene.camera.zoom = 0.25
    qtbot.waitUntil(lambda: shown.run.painter.complete)
    assert shown.run.layer.affine.affine_matrix[-2, -2] == 2.0, "the picture has two levels"
    assert colour_at(shown, (386, 258)) == TUMOR
    assert colour_at(shown, (382, 258)) == NOTHING


def test_the_canvas_shows_it_over_the_very_pixels(
    make_napari_viewer, write_slide, checkered, make_segmentation, qtbot
):
    """The red square is covered by green wherever it lies on the screen, and nothing else is."""
    viewer = make_napari_viewer(show=True)
    slide = session(viewer).open_slide(write_slide(checkered))
    green = probabilities()[[0, 2, 1]]  # stroma is where tumour was
    run = overlays(viewer).add(make_segmentation(slide.info, green))
    run.segmentation.change(on=(False, False, True))
    run.segmentation.change_steps(fill_holes_um2=1000, remove_objects_um2=1000)
    run.layer.opacity = 1.0
    upside_down = Orientation(2, mirrored=True)
    for zoom, turn in ((2.0, Orientation(0)), (1.0, Orientation(3)), (3.0, upside_down)):
        set_orientation(viewer, turn)
        viewer.scene.camera.zoom = zoom
        go_to_px0(viewer, slide.info, (512, 384))  # the middle of the square
        seen = []
        for visible in (False, True):
            run.layer.visible = visible
            assert painting(slide.layer).wait(20)
            assert run.painter.wait(20)
            shot = viewer.screenshot(canvas_only=True, flash=False)[..., :3].astype(int)
            redder = shot[..., 0] - shot[..., 1]
            seen.append(_bounds(redder < -100 if visible else redder > 100))
        assert np.ptp(seen[0][0]) == pytest.approx(128 * zoom, abs=2)
        # The slide is drawn smoothly, so its own edge is known to half a pixel of it.
        np.testing.assert_allclose(seen[1], seen[0], atol=1, err_msg=f"at {zoom}, {turn}")
    session(viewer).close_slide(slide)


def _bounds(mask: np.ndarray) -> np.ndarray:
    """First and last row and column of what is in a mask, which is full between them."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    inside = mask[rows[0] + 2 : rows[-1] - 1, columns[0] + 2 : columns[-1] - 1]
    assert inside.all()
    return np.array([(rows[0], rows[-1]), (columns[0], columns[-1])])


def test_outlines_are_the_outermost_pixels(shown, qtbot):
    shown.viewer.scene.camera.zoom = 1.0
    go_to_px0(shown.viewer, shown.slide.info, (400, 280))
    shown.view.change(outline=True, on=(False, True, False))
    qtbot.waitUntil(lambda: shown.run.painter.complete)
    assert colour_at(shown, (385, 300)) == TUMOR
    assert colour_at(shown, (387, 300)) == TUMOR, "two pixels of the screen wide"
    assert colour_at(shown, (390, 300)) == NOTHING


def test_steps_act_on_what_is_in_view(shown, qtbot):
    """Sizes are µm²: the hole has 20, the spot 9; a pixel has 1."""
    shown.viewer.scene.camera.zoom = 1.0
    go_to_px0(shown.viewer, shown.slide.info, (400, 280))
    qtbot.waitUntil(lambda: shown.run.painter.complete)
    assert colour_at(shown, (203, 203)) == TUMOR
    shown.view.change_steps(fill_holes_um2=21, remove_objects_um2=10)
    qtbot.waitUntil(lambda: shown.run.painter.complete)
    assert colour_at(shown, (203, 203)) == NOTHING
    assert colour_at(shown, (402, 302)) == TUMOR
    shown.view.change_steps(fill_holes_um2=20, remove_objects_um2=9)
    qtbot.waitUntil(lambda: shown.run.painter.complete)
    assert colour_at(shown, (203, 203)) == TUMOR, "an object of just so much stays"
    assert colour_at(shown, (402, 302)) == NOTHING


def test_what_lies_on_the_pictures_edge_is_not_called_small(shown):
    """A preview sees a part of it only."""
    store = shown.view.store
    stored = store.read(0, slice(100, 130), slice(98, 110))
    steps = Steps(remove_objects_um2=10)
    style = replace(shown.view.style, steps=steps)
    inside = paint(store, stored, style, pixel_um=1.0, line=1)
    assert inside[0, 2:5, 3].all(), "the spot touches the upper edge"
    stored = store.read(0, slice(98, 130), slice(98, 110))
    assert not paint(store, stored, style, pixel_um=1.0, line=1).any()


def test_a_probability_is_coloured_and_cut(shown, qtbot):
    shown.viewer.scene.camera.zoom = 1.0
    go_to_px0(shown.viewer, shown.slide.info, (400, 280))
    shown.view.change(probability=True, colours="viridis")
    qtbot.waitUntil(lambda: shown.run.painter.complete)
    steps = colour_steps("viridis")
    sure, none = colour_at(shown, (385, 300)), colour_at(shown, (350, 300))
    assert np.abs(np.array(sure[:3]) - steps[round(0.8 * 255)]).max() <= 2
    assert none == (*steps[0], 255)
    shown.view.change_steps(threshold=0.85)
    qtbot.waitUntil(lambda: shown.run.painter.complete)
    assert colour_at(shown, (385, 300))[3] == 0
    assert colour_at(shown, (203, 203))[3] == 255, "the spot has 0.9"


def test_rough_areas_come_by_themselves_and_exact_ones_are_those_of_the_export(shown, qtbot):
    tumor = (128 * 128 - 4 * 5 + 9) / 1e6
    assert not shown.view.facts.exact
    assert shown.view.facts.areas_mm2["Tumor"] == pytest.approx(tumor, rel=0.01)
    assert shown.view.facts.looked_at_mm2 == pytest.approx(519 * 750 / 1e6, rel=0.01)
    steps = Steps(fill_holes_um2=21, remove_objects_um2=10)
    exact = exact_facts(shown.view.store, steps, lambda: None)
    assert exact.exact
    assert exact.areas_mm2["Tumor"] == pytest.approx(128 * 128 / 1e6, rel=1e-9)
    plain = exact_facts(shown.view.store, Steps(), lambda: None)
    assert plain.areas_mm2["Tumor"] == pytest.approx(tumor, rel=1e-9)
    assert plain.looked_at_mm2 == pytest.approx(519 * 750 / 1e6, rel=1e-9)


def test_the_frame_is_bounded_however_large_slide_and_screen_are(shown):
    """100,000 x 80,000 px: no more pixels are read than a screen has use for."""
    rows, columns = 80_000, 100_000
    shapes = [(-(-rows >> k), -(-columns >> k)) for k in range(8)]
    store = SimpleNamespace(picture=SimpleNamespace(pixel_px0=(1.0, 1.0)), level_shapes=shapes)
    view = Rect(0, 0, columns, rows)
    for screen_px0 in (0.25, 1.0, 30.0):  # even where the view is all of the slide
        frame = frame_for(store, view, screen_px0)
        area = (frame.right - frame.left) * (frame.bottom - frame.top)
        assert area <= MOST_PIXELS
    assert frame_for(store, Rect(-500, -500, 400, 400), 1.0) is None
    assert overview_level(store) == 7


def test_bands_that_are_written_later_appear(write_slide, checkered, make_segmentation, qtbot):
    viewer = ViewerModel()
    viewer.canvas.size = (600, 800)
    slide = session(viewer).open_slide(write_slide(checkered))
    store = make_segmentation(slide.info, probabilities(), bands=0)
    run = overlays(viewer).add(store)
    qtbot.waitUntil(lambda: run.painter.complete and run.segmentation.facts is not None)
    assert not run.layer.data.any()
    assert run.segmentation.facts.done_tiles == 0
    assert "Not finished" in doubts(run)[0]
    with SegmentationStore.open(store.path, writable=True) as writer:
        for band in writer.picture.bands:
            writer.write_band(band, lambda part, rows=band.rows: probabilities()[:, rows, part])
    run.segmentation.fill([slide.info.rect_px0])
    qtbot.waitUntil(lambda: run.segmentation.facts.done_tiles == len(store.grid))
    assert run.painter.complete
    assert run.layer.data.any()
    assert doubts(run) == []
    session(viewer).close_slide(slide)


def test_a_torn_chunk_is_said_once_in_a_sentence(shown, qtbot, monkeypatch):
    said = []
    monkeypatch.setattr(
        segmentation_painter, "show_error", lambda error, *_, **__: said.append(error)
    )
    chunks = sorted((shown.view.store.path / "0" / "c" / "1").rglob("*"))
    for chunk in (each for each in chunks if each.is_file()):
        chunk.write_bytes(chunk.read_bytes()[:-1] + b"?")
    shown.viewer.scene.camera.zoom = 1.0
    shown.view.fill()
    shown.view.fill()
    qtbot.waitUntil(lambda: shown.run.painter.complete)
    assert [type(error) for error in said] == [RunError]
    assert "is damaged" in str(said[0])
    with pytest.raises(RunError, match="run its job again to mend it"):
        values_at(shown.view.store, (400, 300))


@pytest.fixture
def dock(shown, qtbot) -> OverlayWidget:
    widget = OverlayWidget(shown.viewer)
    qtbot.addWidget(widget)
    widget.show()
    qtbot.waitUntil(lambda: shown.view.tissue_mm2 is not None, timeout=20_000)
    return widget


def rows_of(part) -> list[list[str]]:
    items = [part.tree.topLevelItem(n) for n in range(part.tree.topLevelItemCount())]
    return [[item.text(column) for column in range(3)] for item in items]


def test_the_dock_shows_what_applies_and_steers_it(dock, shown, qtbot):
    part = dock.segmentation
    assert not part.isHidden()
    assert dock.threshold.isHidden() or not dock.threshold.isVisible()
    assert [row[0] for row in rows_of(part)] == ["background", "Tumor", "Stroma"]
    assert part.tree.topLevelItem(0).checkState(0) == Qt.CheckState.Unchecked
    share = 100 * shown.view.facts.areas_mm2["Tumor"] / shown.view.tissue_mm2
    assert rows_of(part)[1][2] == f"{share:.1f} %"
    part.tree.topLevelItem(2).setCheckState(0, Qt.CheckState.Unchecked)
    assert shown.view.names_on == ("Tumor",)
    part.threshold.value_changed.emit(0.7)
    assert shown.view.style.steps.threshold == 0.7
    part.threshold.value_changed.emit(0.0)
    assert shown.view.style.steps.threshold is None, "the most likely class counts"
    part.holes_box.setValue(50)
    part.smooth_box.setValue(2.5)
    assert shown.view.style.steps == Steps(None, 50, 2.5)
    part.show_box.setCurrentIndex(1)
    part._set_show()
    assert shown.view.style.probability
    assert not part.holes_box.isEnabled()
    assert "choose “Classes”" in part.holes_box.toolTip()
    part.tree.topLevelItem(1).setCheckState(0, Qt.CheckState.Unchecked)
    assert not part.annotate_button.isEnabled()
    assert part.annotate_button.toolTip() == "Tick a class above first"


def test_the_pointer_reads_the_models_own_values(dock, shown, qtbot):
    info = shown.slide.info
    for xy, said in (
        ((385, 300), "background 0.20, <b>Tumor 0.80</b>, Stroma 0.00"),
        ((203, 203), "background 0.10, <b>Tumor 0.90</b>, Stroma 0.00"),
        ((-5, 10), "outside the slide"),
    ):
        dock.read_out(tuple(to_world_um(xy, info)))
        qtbot.waitUntil(lambda said=said: said in dock.readout.text())


def test_measure_and_files_from_the_dock(dock, shown, qtbot, tmp_path):
    part = dock.segmentation
    shown.view.change(on=(False, True, False))
    shown.view.change_steps(fill_holes_um2=21, remove_objects_um2=10)
    part.measure()
    qtbot.waitUntil(lambda: shown.view.facts.exact, timeout=20_000)
    assert rows_of(part)[1][1] == "0.0164"
    assert part.areas_label.text().startswith("Exact, after all steps.")
    for kind, name in (
        ("regions", "r.geojson"),
        ("labels", "l.ome.tif"),
        ("outlines", "o.zarr"),
        ("probability", "p.zarr"),
    ):
        dialog = SegmentationFileDialog(shown.run, part)
        said = []
        dialog.said.connect(said.append)
        dialog.what_box.setCurrentIndex(dialog.what_box.findData(kind))
        dialog.format_box.setCurrentIndex(dialog.format_box.findData(name[name.index(".") :]))
        dialog.write(tmp_path / name)
        qtbot.waitUntil(lambda said=said: bool(said), timeout=20_000)
        assert (tmp_path / name).exists()
    features = json.loads((tmp_path / "r.geojson").read_text("utf-8"))["features"]
    assert len(features) == 1
    labels = tifffile.imread(tmp_path / "l.ome.tif")
    assert (labels == labels[140, 200]).sum() == 128 * 128


def test_a_models_class_is_the_persons_of_that_name(shown):
    own = AnnotationClass("TUMOR", (1, 2, 3))
    taken = take_regions(
        shown.view.store, Steps(), ("Tumor",), (0, 0), ClassSet(classes=(own,)), lambda: None
    )
    assert taken.command.added
    assert {each.classification for each in taken.command.added.values()} == {own}
    assert taken.classes == (own,)
    taken = take_regions(
        shown.view.store, Steps(), ("Tumor",), (0, 0), ClassSet(classes=()), lambda: None
    )
    assert {each.class_name for each in taken.command.added.values()} == {"Tumor"}


def test_a_cancelled_file_leaves_nothing(shown, tmp_path):
    def turn() -> None:
        raise Stopped

    names = {"labels": "l.ome.tif", "probability": "p.zarr", "regions": "r.geojson"}
    for kind, name in names.items():
        with pytest.raises(Stopped):
            write(shown.view.store, tmp_path / name, kind, Steps(), ("Tumor",), turn)
    assert [each.name for each in tmp_path.iterdir() if "slide" not in each.name] == []


def test_how_it_was_shown_comes_back(shown):
    shown.view.change(outline=True, on=(False, False, True))
    shown.view.change_steps(threshold=0.7, smooth_um=3.0)
    shown.run.layer.opacity = 0.4
    state = _run_state(shown.viewer, shown.run)
    json.dumps(state)
    style = shown.view.style
    shown.view.style = replace(style, outline=False, on=(True, True, True), steps=Steps())
    bring_back_run(shown.run, state)
    assert shown.view.style == style
    bring_back_run(shown.run, {"threshold": "x", "smooth_um": -4, "classes_on": 3, "outline": 1})
    assert shown.view.style.steps == Steps()


def test_the_second_view_and_the_minimap_show_it(shown, qtbot):
    second = linked(shown.viewer)
    second.open()
    assert ("This slide with the segmentation", Shown(current=True)) in second.choices()
    picture = next(
        each
        for each in second.view.layers
        if each.metadata.get("histomil", {}).get("kind") == "segmentation"
    )
    qtbot.waitUntil(lambda: bool(picture.data.any()))
    assert "with Tumor, Stroma (unet)" in second.label("right")
    assert not shown.run.layer.visible, "the first view then shows the bare tissue"
    small = heat_picture(shown.run)
    assert small.shape[2] == 4
    assert small.any()
    second.close()


def test_a_run_of_another_slide_or_scale_is_refused_in_a_sentence(
    shown, write_slide, checkered, qtbot
):
    store = shown.view.store
    session(shown.viewer).set_mpp(shown.slide, 0.25)
    with pytest.raises(RunError, match=r"is open with other µm/px: set them in the Slide dock"):
        overlays(shown.viewer).add(store)
    viewer = ViewerModel()
    with pytest.raises(RunError, match=r"belongs to the slide slide\.tiff, which is not open"):
        overlays(viewer).add(store)
