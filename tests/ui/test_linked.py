"""The second view as a model: what it shows, where, and how both views move; no window."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image

from napari_histomil.manifest import ClassSpec
from napari_histomil.results import RunStore, run_path
from napari_histomil.slides.alignment import PointPair, align
from napari_histomil.slides.readers import open_slide
from napari_histomil.tiling import GridSpec, TileGrid
from napari_histomil.ui.heatmap_view import HeatmapView
from napari_histomil.ui.layers import pyramid_of, slide_layer
from napari_histomil.ui.linked import Linked, Shown, linked
from napari_histomil.ui.orientation import (
    STRAIGHT,
    Orientation,
    center_of_world,
    orientation_of,
    set_orientation,
)
from napari_histomil.ui.overlays import overlays
from napari_histomil.ui.painting import painting
from napari_histomil.ui.session import RunView, session


@pytest.fixture
def viewer():
    return ViewerModel()


@pytest.fixture
def store(write_slide, checkered) -> RunStore:
    """A run over a slide of 1500 x 1037 px at 0.5 µm/px: cells of 64 px."""
    return make_store(write_slide(checkered, "run.tiff"))


def make_store(path, run_id: str = "0" * 16):
    with open_slide(path) as slide:
        info = slide.info
    grid = TileGrid.cover(info, GridSpec(mpp=1.0, tile_px=32, stride_px=32))
    tumor = np.random.default_rng(0).uniform(size=len(grid)).astype(np.float32)
    with RunStore.create(
        run_path(info.path, run_id, fingerprint=info.fingerprint),
        run_id=run_id,
        job={"stain": {"method": "none"}, "region": {"kind": "all"}},
        slide={
            "name": info.path.name, "path": str(info.path), "fingerprint": info.fingerprint,
            "width_px0": info.width_px0, "height_px0": info.height_px0,
            "mpp_xy": list(info.mpp_xy), "bounds_px0": None,
        },
        model={"name": "maker", "path": "", "sha256": "ab" * 32, "positive_class": "tumor"},
        classes=(ClassSpec("normal", (90, 90, 180)), ClassSpec("tumor", (200, 0, 0))),
        grid=grid,
    ) as store:  # fmt: skip
        for index, tiles in enumerate(grid.blocks()):
            store.write_block(index, np.column_stack([1 - tumor, tumor])[tiles])
    return RunStore.open(store.path)


@pytest.fixture
def laid(viewer, store) -> Linked:
    """A slide with its heatmap; the second view is not open yet."""
    session(viewer).open_slide(store.path.parents[2] / "run.tiff")
    overlays(viewer).add(store)
    return linked(viewer)


@pytest.fixture
def two(viewer, array_slide, checkered) -> Linked:
    """Two slides of different µm/px; the one opened last is to the left."""
    add(viewer, array_slide(checkered, (0.25, 0.25), name="right.tiff"), "b" * 64)
    add(viewer, array_slide(checkered, name="left.tiff"), "a" * 64)
    return linked(viewer)


def add(viewer, slide, fingerprint: str) -> None:
    slide.info = replace(slide.info, fingerprint=fingerprint)
    session(viewer).add_slide(slide_layer(slide))


def test_nothing_to_show_without_a_slide(viewer):
    second = linked(viewer)
    second.open()
    assert second.choices() == []
    assert second.view is None


def test_the_heatmap_goes_to_the_right_and_comes_back(laid, viewer):
    run = overlays(viewer).current
    laid.open()
    assert laid.shown == Shown(current=True)
    assert [layer.name for layer in laid.view.layers] == ["run.tiff", run.layer.name]
    assert not run.layer.visible
    assert laid.label("left") == ["run.tiff", "without heatmap"]
    assert laid.label("right") == ["run.tiff", "with tumor (maker)"]
    laid.open(Shown())
    assert [layer.visible for layer in laid.view.layers] == [True, False]
    assert run.layer.visible
    assert laid.label("left") == ["run.tiff", "with tumor (maker)"]
    laid.open(Shown(current=True))
    laid.close()
    assert run.layer.visible
    assert laid.view is None


def test_the_second_heatmap_is_the_same_picture_and_follows(laid, viewer):
    run = overlays(viewer).current
    laid.open()
    layer = laid.view.layers[1]
    assert layer.data is run.layer.data
    np.testing.assert_allclose(layer.data_to_world((2, 3)), run.layer.data_to_world((2, 3)))
    drawn = []
    layer.events.set_data.connect(lambda _: drawn.append(np.nansum(layer.data)))
    before = np.nansum(layer.data)
    run.heatmap.class_index = 0
    run.heatmap.colours = "magma" if run.heatmap.colours != "magma" else "viridis"
    run.heatmap.threshold = 0.5
    assert drawn
    assert drawn[-1] != before
    assert layer.colormap.name == run.layer.colormap.name
    assert laid.label("right")[1] == "with normal (maker)"
    overlays(viewer).stronger()
    assert layer.opacity == run.layer.opacity == 0.6
    run.heatmap.fill(run.heatmap.scores)
    count = len(drawn)
    laid.close()
    run.heatmap.threshold = 0.2
    assert len(drawn) == count, "a closed view hears no more of the heatmap"


def test_the_second_view_has_the_theme_of_the_first(laid, viewer):
    viewer.theme = "light"
    laid.open()
    assert laid.view.theme == "light"
    viewer.theme = "dark"
    assert laid.view.theme == "dark"


def test_another_run_and_the_loss_of_it(laid, viewer, store):
    more = make_store(store.path.parents[2] / "run.tiff", "1" * 16)
    first = overlays(viewer).current
    added = overlays(viewer).add(more)
    assert [shown.run for _, shown in laid.choices()[2:]] == [first, added]
    laid.open(Shown(run=first))
    assert laid.run is first
    assert overlays(viewer).current is added
    assert not added.layer.visible
    session(viewer).remove_run(first)
    assert laid.run is added, "the current one takes its place"
    overlays(viewer).add(store)
    assert laid.run.store.run_id == store.run_id, "the current one is followed"
    for run in list(session(viewer).runs):
        session(viewer).remove_run(run)
    assert laid.run is None
    assert [layer.visible for layer in laid.view.layers] == [True, False]
    assert laid.view.layers[1].data.shape == (1, 1), "it keeps no run's picture"


# ----------------------------------------------------------------------------------- cameras


def looks_at(viewer):
    camera = viewer.scene.camera
    return (*np.round(center_of_world(viewer), 9), round(camera.zoom, 9), orientation_of(viewer))


def test_both_views_move_together_and_neither_moves_twice(laid, viewer):
    viewer.scene.camera.zoom = 0.7
    laid.open()
    assert looks_at(laid.view) == looks_at(viewer)
    moves = []
    for each in (viewer, laid.view):
        each.scene.camera.events.center.connect(lambda event: moves.append(event.value))
    viewer.scene.camera.center = (0, 120.5, 33.25)
    assert looks_at(laid.view) == looks_at(viewer)
    laid.view.scene.camera.center = (0, 10.5, 3.25)
    laid.view.scene.camera.zoom = 3.3
    assert looks_at(laid.view) == looks_at(viewer)
    assert len(moves) == 4, "one event for each view and move"


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("quarters", range(4))
def test_a_turned_or_flipped_view_turns_the_other(laid, viewer, quarters, mirrored):
    laid.open()
    viewer.scene.camera.center = (0, 120.5, 33.25)
    viewer.scene.camera.zoom = 3.3
    before = looks_at(viewer)
    for turned, other in ((viewer, laid.view), (laid.view, viewer)):
        set_orientation(turned, Orientation(quarters, mirrored))
        assert (
            looks_at(other) == looks_at(turned) == (*before[:3], Orientation(quarters, mirrored))
        )
        set_orientation(turned, STRAIGHT)
        assert looks_at(other) == looks_at(turned) == before


def test_apart_each_moves_by_itself_until_they_are_joined_again(laid, viewer):
    laid.open()
    laid.joined = False
    laid.view.scene.camera.center = (0, 1.0, 2.0)
    viewer.scene.camera.center = (0, 100.0, 200.0)
    assert looks_at(laid.view)[:2] == (1.0, 2.0)
    laid.joined = True
    assert looks_at(laid.view) == looks_at(viewer)
    assert looks_at(viewer)[:2] == (100.0, 200.0)


def test_choosing_what_is_shown_moves_nothing(laid, viewer):
    viewer.scene.camera.center = (0, 100.0, 200.0)
    viewer.scene.camera.zoom = 2.5
    before = looks_at(viewer)
    laid.open()
    laid.open(Shown())
    laid.open(Shown(current=True))
    assert looks_at(viewer) == looks_at(laid.view) == before


# --------------------------------------------------------------------------------- two slides


def test_two_slides_lie_corner_on_corner_in_µm(two):
    assert [words for words, _ in two.choices()] == ["This slide without heatmap", "right.tiff"]
    two.open()
    assert two.right.name == "right.tiff"
    assert two.label("right") == ["right.tiff", "not aligned"]
    # 0.5 and 0.25 µm/px: one place has twice the numbers in the finer slide.
    world = two.to_world("left", (300.0, 200.0))
    np.testing.assert_allclose(two.to_px0("right", world), (600.0, 400.0))
    np.testing.assert_allclose(two.layer.data_to_world((400 - 0.5, 600 - 0.5)), world)


def test_without_µm_per_px_pixels_lie_on_pixels_and_it_is_said(viewer, array_slide, checkered):
    add(viewer, array_slide(checkered, None, name="right.tiff"), "b" * 64)
    add(viewer, array_slide(checkered, name="left.tiff"), "a" * 64)
    second = linked(viewer)
    second.open()
    world = second.to_world("left", (300.0, 200.0))
    np.testing.assert_allclose(second.to_px0("right", world), (300.0, 200.0))
    assert "µm/px unknown" in second.label("right")[1]


@pytest.mark.parametrize("turned", [False, True], ids=["upright", "turned"])
def test_an_alignment_turns_the_picture_and_no_coordinate(two, turned):
    two.open()
    if turned:  # a first view whose slide is turned: the second one turns with it
        two.left.layer.affine = np.array([[0.0, -1, 300], [1, 0, 20], [0, 0, 1]])
    pairs = [
        PointPair((100.0, 100.0), (1000.0, 150.0)),
        PointPair((500.0, 100.0), (1000.0, 950.0)),
        PointPair((100.0, 300.0), (1400.0, 150.0)),
    ]
    two.alignment = align(pairs, two.left.info, two.right.info)
    assert two.alignment.mirrored
    assert max(two.alignment.residuals) < 1e-6
    for pair in pairs:
        world = two.to_world("left", pair.first_px0)
        np.testing.assert_allclose(two.to_px0("left", world), pair.first_px0, atol=1e-9)
        np.testing.assert_allclose(two.to_px0("right", world), pair.second_px0, atol=1e-6)
        x, y = pair.second_px0
        np.testing.assert_allclose(two.layer.data_to_world((y - 0.5, x - 0.5)), world, atol=1e-6)
        left_x, left_y = pair.first_px0
        np.testing.assert_allclose(
            two.left.layer.data_to_world((left_y - 0.5, left_x - 0.5)), world, atol=1e-6
        )
    np.testing.assert_allclose(two.right.layer.affine.affine_matrix, np.eye(3))
    assert two.label("right")[1] == "aligned by 3 pairs, flipped"


def test_the_slide_of_the_second_view_coming_to_the_left_swaps_them(two, viewer):
    two.open()
    left, right = two.left, two.right
    layer = two.layer
    session(viewer).show_only(right)
    assert (two.left, two.right) == (right, left)
    assert two.layer is layer, "layers that come and go crash Mesa's OpenGL"
    assert two.layer.name == "left.tiff"
    np.testing.assert_allclose(two.layer.scale, left.layer.scale)
    assert pyramid_of(two.layer) is pyramid_of(left.layer)
    assert painting(two.layer).pyramid is pyramid_of(left.layer)


@pytest.mark.parametrize("which", [0, 1], ids=["right", "left"])
def test_a_closed_slide_closes_the_view(two, viewer, which):
    two.open()
    view = two.view
    session(viewer).close_slide(session(viewer).slides[which])
    assert two.view is None
    assert len(view.layers) == 0
    assert len(session(viewer).slides) == 1


def test_a_removed_layer_closes_the_view(laid, viewer):
    laid.open()
    viewer.layers.remove(session(viewer).slides[0].layer)
    assert laid.view is None
    assert laid.choices() == []


def test_other_µm_per_px_show_the_slide_anew(laid, viewer):
    laid.open()
    slide = session(viewer).active
    session(viewer).set_mpp(slide, 0.25)
    assert laid.right is slide
    np.testing.assert_allclose(laid.layer.scale, slide.layer.scale)
    assert laid.layer.metadata["histomil"]["slide"] is slide.slide


def test_closing_gives_everything_back(laid, viewer):
    listening = len(viewer.mouse_move_callbacks), len(viewer.mouse_drag_callbacks)
    laid.open()
    gone = [weakref.ref(laid.view), *(weakref.ref(layer) for layer in laid.view.layers)]
    laid.close()
    laid.close()
    gc.collect()
    assert [each() for each in gone] == [None] * 3
    assert (len(viewer.mouse_move_callbacks), len(viewer.mouse_drag_callbacks)) == listening
    # The slide itself stays open.
    assert session(viewer).slides[0].slide.read_region((0, 0), 0, (4, 4)).shape == (4, 4, 3)


# ------------------------------------------------------------------------------------ pointer


def press(viewer, *events: tuple[str, tuple[float, float], tuple[int, int]]) -> None:
    """Send a press, moves and a release to a viewer as napari does."""
    generators: list[tuple[Iterator[None], SimpleNamespace]] = []
    for kind, world, px in events:
        event = SimpleNamespace(type=kind, position=world, pos=px, modifiers=())
        if kind == "mouse_press":
            for callback in viewer.mouse_drag_callbacks:
                kept = SimpleNamespace(**vars(event))
                generator = callback(viewer, kept)
                next(generator, None)
                generators.append((generator, kept))
            continue
        for generator, kept in generators:
            vars(kept).update(vars(event))
            next(generator, None)


def test_clicks_are_places_of_each_slide(two, viewer):
    two.open()
    heard = []
    two.clicked.connect(lambda *heard_of: heard.append(heard_of))
    down, up = ("mouse_press", (50.0, 75.0), (10, 10)), ("mouse_release", (50.0, 75.0), (11, 9))
    press(viewer, down, up)
    assert heard == [], "nobody has asked for a place"
    two.picking = True
    press(viewer, down, up)
    press(two.view, down, ("mouse_move", (50.0, 75.0), (12, 10)), up)
    assert heard == [("left", (150.0, 100.0)), ("right", (300.0, 200.0))]
    press(viewer, down, ("mouse_move", (50.0, 75.0), (40, 10)), up)
    assert len(heard) == 2, "that was a drag"


def test_the_pointer_of_either_view_is_told(two, viewer):
    two.open()
    heard = []
    two.pointed.connect(lambda side, world: heard.append((side, *world)))
    for each in (viewer, two.view):
        for callback in each.mouse_move_callbacks:
            callback(each, SimpleNamespace(position=(5.0, 7.0)))
    assert heard == [("left", 5.0, 7.0), ("right", 5.0, 7.0)]


def test_a_hundred_thousand_cells_are_one_picture(viewer, array_slide):
    slide = array_slide(np.full((1280, 2560, 3), 200, np.uint8))
    add(viewer, slide, "a" * 64)
    grid = TileGrid.cover(slide.info, GridSpec(mpp=1.0, tile_px=3, stride_px=3))
    scores = np.random.default_rng(0).uniform(size=(len(grid), 1)).astype(np.float32)
    heatmap = HeatmapView(grid, ("tumor",), scores)
    layer = Image(heatmap.image)
    store = SimpleNamespace(model={"name": "maker"})
    session(viewer).add_run(RunView(store, session(viewer).active, layer, heatmap))
    second = linked(viewer)
    second.open()
    assert second.view.layers[1].data.size > 90_000
    assert second.view.layers[1].data is layer.data, "shared, not copied"
