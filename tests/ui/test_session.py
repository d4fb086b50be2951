"""The session follows the layer list: adopt, choose, close; one session a viewer."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image
from napari.utils._proxies import PublicOnlyProxy

from napari_histomil.errors import SlideError
from napari_histomil.slides.readers import open_slide
from napari_histomil.ui.layers import slide_layer, slide_of
from napari_histomil.ui.session import session


def add(viewer, slide):
    data, attributes, _ = slide_layer(slide)
    return viewer.add_image(data, **attributes)


@pytest.fixture
def viewer():
    return ViewerModel()


@pytest.fixture
def slide(array_slide, checkered):
    return array_slide(checkered)


def test_one_session_a_viewer_also_through_a_plugins_proxy(viewer):
    assert session(viewer) is session(PublicOnlyProxy(viewer))
    assert session(viewer) is not session(ViewerModel())


def test_session_dies_with_its_viewer(array_slide, checkered):
    viewer = ViewerModel()
    opened = session(viewer).add_slide(slide_layer(array_slide(checkered)))
    gone = weakref.ref(viewer), weakref.ref(session(viewer)), weakref.ref(opened)
    del viewer, opened
    gc.collect()
    assert [each() for each in gone] == [None, None, None]


def test_slides_that_were_there_before_are_adopted(viewer, slide):
    add(viewer, slide)
    assert [each.slide for each in session(viewer).slides] == [slide]
    assert session(viewer).active.slide is slide


def test_a_slide_from_naparis_file_menu_is_adopted_and_shown_alone(
    viewer, slide, array_slide, checkered
):
    said = []
    session(viewer).slide_opened.connect(lambda each: said.append(("opened", each.slide)))
    session(viewer).active_changed.connect(lambda each: said.append(("active", each.slide)))
    first = add(viewer, slide)
    viewer.add_image(np.zeros((5, 5)))
    other = array_slide(checkered, name="other.tiff")
    second = add(viewer, other)
    assert said == [("opened", slide), ("active", slide), ("opened", other), ("active", other)]
    assert (first.visible, second.visible) == (False, True)
    assert [each.name for each in session(viewer).slides] == ["array.tiff", "other.tiff"]


def test_selecting_a_layer_makes_its_slide_the_active_one(viewer, slide, array_slide, checkered):
    first = add(viewer, slide)
    second = add(viewer, array_slide(checkered, name="other.tiff"))
    first.visible = True
    viewer.layers.selection.active = first
    assert session(viewer).active.slide is slide
    viewer.layers.selection.clear()
    assert session(viewer).active.slide is slide
    first.visible = False
    viewer.layers.selection.active = second
    assert session(viewer).active.layer is second


def test_docks_do_not_speak_of_a_hidden_slide_while_another_is_seen(
    viewer, slide, array_slide, checkered
):
    session(viewer)
    first = add(viewer, slide)
    second = add(viewer, array_slide(checkered, name="other.tiff"))
    points = viewer.add_points()
    viewer.layers.move(viewer.layers.index(points), 1)  # above the hidden one
    viewer.layers.selection.active = points
    viewer.layers.remove(points)  # napari selects a layer beside it
    viewer.layers.selection.active = first
    assert session(viewer).active.layer is second
    second.visible = False
    viewer.layers.selection.active = second
    viewer.layers.selection.active = first
    assert session(viewer).active.layer is first


def test_a_slide_is_closed_with_its_last_layer(viewer, slide):
    said = []
    held = session(viewer)
    held.slide_closed.connect(said.append)
    layer = add(viewer, slide)
    (opened,) = held.slides
    data, state, _ = layer.as_layer_data_tuple()
    copy = viewer.add_layer(Image(data, **{**state, "name": "copy"}))
    assert slide_of(copy) is slide
    assert len(held.slides) == 1
    viewer.layers.remove(layer)
    assert not slide.closed
    assert opened.layer is copy
    assert said == []
    viewer.layers.remove(copy)
    assert slide.closed
    assert (held.slides, held.active, said) == ([], None, [opened])


def test_close_slide_removes_its_layer(viewer, slide, array_slide, checkered):
    held = session(viewer)
    first = held.add_slide(slide_layer(slide))
    held.add_slide(slide_layer(array_slide(checkered, name="other.tiff")))
    held.close_slide(held.active)
    assert held.active is first
    assert first.layer.visible, "the slide that is spoken of is seen"
    assert list(viewer.layers) == [first.layer]


def test_open_slide_fits_the_slide_not_its_padding(viewer, write_slide):
    pixels = np.full((1000, 600, 3), 200, np.uint8)
    viewer.canvas.size = (500, 500)
    opened = session(viewer).open_slide(write_slide(pixels, mpp=0.5))
    assert opened.info.mpp_xy == pytest.approx((0.5, 0.5))
    assert viewer.scene.camera.center[-2:] == pytest.approx((250, 150))
    assert viewer.scene.camera.zoom == pytest.approx(0.92)  # 92 % of 500 px for 500 µm


def test_a_broken_file_leaves_no_layer(viewer, tmp_path):
    broken = tmp_path / "broken.svs"
    broken.write_bytes(b"no slide")
    with pytest.raises(SlideError, match=r"broken\.svs"):
        session(viewer).open_slide(broken)
    assert len(viewer.layers) == 0
    assert session(viewer).slides == []


def test_set_mpp_scales_the_layer_in_place_and_is_remembered(viewer, write_slide):
    path = write_slide(np.full((1000, 600, 3), 200, np.uint8), mpp=None)
    held = session(viewer)
    opened = held.open_slide(path)
    layer, before, zoom = opened.layer, opened.slide, viewer.scene.camera.zoom
    assert not opened.has_mpp
    changed = []
    held.slide_changed.connect(changed.append)
    held.set_mpp(opened, 0.25)
    assert changed == [opened]
    assert list(viewer.layers) == [layer]
    assert slide_of(layer) is opened.slide is not before
    assert [str(unit) for unit in layer.units] == ["micrometer", "micrometer"]
    np.testing.assert_allclose(layer.data_to_world((999.5, 599.5)), (250, 150))
    assert viewer.scene.camera.center[-2:] == pytest.approx((125, 75)), "still the same place"
    assert viewer.scene.camera.zoom == pytest.approx(4 * zoom)
    with pytest.raises(SlideError):
        before.read_region((0, 0), 0, (10, 10))
    with open_slide(path) as again:
        assert again.info.mpp_xy == (0.25, 0.25)
        assert again.info.mpp_source == "remembered"


def test_absurd_mpp_changes_nothing(viewer, write_slide):
    opened = session(viewer).open_slide(write_slide(np.zeros((300, 300, 3), np.uint8), mpp=None))
    with pytest.raises(SlideError):
        session(viewer).set_mpp(opened, -1.0)
    assert not opened.has_mpp
    assert np.asarray(opened.slide.read_region((0, 0), 0, (1, 1))).max() == 0
