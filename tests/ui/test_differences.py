"""A second reader in a real window: the map of differences, and decisions that are kept."""

from __future__ import annotations

import numpy as np
import pytest
from qtpy.QtCore import Qt
from shapely.geometry import box

from napari_histomil.annotations import commands
from napari_histomil.annotations.formats import write_annotations
from napari_histomil.annotations.model import Region, SlideFrame, class_named
from napari_histomil.annotations.stamps import Stamp, as_drawn
from napari_histomil.resources import sidecar
from napari_histomil.review.decisions import FILE_NAME
from napari_histomil.ui import camera
from napari_histomil.ui.region_layers import region_layers
from napari_histomil.ui.widgets.difference_map import COLOURS, LAYER_NAME, OPACITY
from tests.ui.annotating import WHITE

BO = Stamp("Bo", "2026-11-01T08:00:00Z")
TUMOR, STROMA, WHERE = class_named("Tumor"), class_named("Stroma"), class_named("Region*")

PLACES = {"only mine": (200, 200), "only theirs": (200, 500), "other class": (600, 200)}
"""In each a square of 100 px around it is drawn otherwise."""

AGREED, BESIDE = (600, 500), (960, 400)
"""Drawn alike; not compared, but drawn by one of us."""


def around(place, side=100):
    x, y = place
    return box(x - side / 2, y - side / 2, x + side / 2, y + side / 2)


@pytest.fixture
def theirs(desk, tmp_path):
    path = tmp_path / "bo.geojson"
    regions = [
        Region(box(20, 20, 900, 700), WHERE),
        Region(around(PLACES["only theirs"]), TUMOR),
        Region(around(PLACES["other class"]), STROMA),
        Region(around(AGREED), TUMOR),
        Region(around(BESIDE, 60), TUMOR),
    ]
    frame = SlideFrame.of(desk.state.slide.info)
    write_annotations(path, [as_drawn(each, BO) for each in regions], frame=frame)
    return path


@pytest.fixture
def part(desk):
    desk.draw((20, 20, 900, 700), "Region*")
    for place, name in (
        (PLACES["only mine"], "Tumor"), (PLACES["other class"], "Tumor"), (AGREED, "Tumor"),
    ):  # fmt: skip
        desk.draw(around(place).bounds, name)
    desk.dock.differences_fold.expand(animate=False)
    desk.settle()
    return desk.dock.differences


def compared(desk, part, theirs, mpp=2.0):
    part.load(theirs)
    desk.until(lambda: part.reader == "Bo")
    part.mpp_box.setValue(mpp)
    part.compare_button.click()
    desk.until(lambda: bool(part.found) and not part._busy)


def maps(viewer):
    return [layer for layer in viewer.layers if layer.name == LAYER_NAME]


def rows(part):
    """Rows of the list by the kind of difference; the one that is not compared is `beside`."""
    items = [part.tree.topLevelItem(n) for n in range(part.tree.topLevelItemCount())]
    found = {}
    for item in items:
        each = part.found[item.data(0, Qt.ItemDataRole.UserRole)]
        beside = each.shown.geometry.centroid.x == BESIDE[0]
        found["beside" if beside else each.kind] = item
    assert len(found) == len(items)
    return found


def decisions(part):
    return {kind: item.text(1) for kind, item in rows(part).items()}


def choose(part, kind):
    part.tree.setCurrentItem(rows(part)[kind])


# --- the map ------------------------------------------------------------------------------------


def test_the_map_lies_where_they_differ_in_three_colours(desk, part, theirs):
    viewer, row = desk.viewer, part.map
    assert not row.isVisible()
    part.load(theirs)
    desk.until(lambda: part.reader == "Bo")
    assert row.isVisible()
    assert not row.box.isEnabled()
    assert row.box.toolTip() == "Compare first"
    compared(desk, part, theirs)
    (layer,) = maps(viewer)
    assert layer.visible
    assert row.box.isEnabled()
    assert viewer.layers.selection.active is not layer, "the person's tool stays"
    assert viewer.layers.index(layer) < viewer.layers.index(region_layers(viewer).picture)
    for name, _, _ in COLOURS:
        assert name in row.words.text().replace("&nbsp;", " ")
    # On the canvas: a screen pixel at the middle of each place
    region_layers(viewer).picture.visible = False
    part._layer.clear()
    if region_layers(viewer).shapes is not None:
        region_layers(viewer).shapes.visible = False
    info = desk.state.slide.info
    camera.set_native(viewer, info)
    for name, color, _ in COLOURS:
        for place, expected in (
            (PLACES[name], 255 * (1 - OPACITY) + np.array(color) * OPACITY),
            (AGREED, np.array(WHITE[0, 0])),
            (BESIDE, np.array(WHITE[0, 0])),
        ):
            for dx, dy in ((-40, -40), (40, 40)) if place in PLACES.values() else ((0, 0),):
                camera.go_to_px0(viewer, info, (place[0] + dx, place[1] + dy))
                desk.settle(3)
                seen = viewer.screenshot(canvas_only=True, flash=False)[..., :3]
                middle = seen[seen.shape[0] // 2, seen.shape[1] // 2].astype(int)
                assert np.abs(middle - expected).max() <= 4, (name, place)


def test_a_pixel_of_the_map_lies_exactly_on_the_slide(desk, part, theirs):
    compared(desk, part, theirs)
    (layer,) = maps(desk.viewer)
    # 2 µm are 4 px of 0.5 µm: its first pixel spans 0 to 4 px, 0 to 2 µm.
    np.testing.assert_allclose(layer.scale, (2, 2))
    np.testing.assert_allclose(layer.translate, (1, 1))
    rows, columns = np.nonzero(layer.data == 1)
    # A pixel is inside if its centre is: within half of one, 2 px, of the drawn edge.
    assert abs(rows.min() * 4 - 150) <= 2
    assert abs((rows.max() + 1) * 4 - 250) <= 2
    assert abs(columns.min() * 4 - 150) <= 2


def test_tick_and_eye_are_one_and_the_layer_is_made_once(desk, part, theirs):
    compared(desk, part, theirs)
    (layer,) = maps(desk.viewer)
    part.map.box.setChecked(False)
    assert not layer.visible
    layer.visible = True
    assert part.map.box.isChecked()
    layer.visible = False
    assert not part.map.box.isChecked()
    part.compare_button.click()
    desk.until(lambda: not part._busy)
    assert not layer.visible, "who has put it away need not do so again"
    part.map.box.setChecked(True)
    compared(desk, part, theirs, mpp=4.0)
    assert maps(desk.viewer) == [layer]
    assert layer.visible
    assert tuple(layer.scale) == (4, 4)
    assert layer.data.shape == (100, 125)
    desk.viewer.layers.remove(layer)
    compared(desk, part, theirs)
    assert len(maps(desk.viewer)) == 1
    assert maps(desk.viewer)[0].visible, "taken away by hand, it is made anew"


def test_the_map_goes_with_set_and_slide(desk, part, theirs, write_slide):
    compared(desk, part, theirs)
    (layer,) = maps(desk.viewer)
    part.load(theirs)
    desk.until(lambda: not part._busy)
    assert not layer.visible, "another set is not compared yet"
    assert layer.data.size == 1
    assert not part.map.box.isEnabled()
    compared(desk, part, theirs)
    assert layer.visible
    first = desk.state.slide
    desk.dock.hide()  # also while nobody sees the dock
    second = desk.state.session.open_slide(write_slide(WHITE[:300], "second.tiff"))
    desk.settle()
    assert desk.state.slide is second
    assert not layer.visible
    desk.state.session.show_only(first)
    desk.settle()
    assert not layer.visible
    desk.dock.show()
    desk.settle()
    compared(desk, part, theirs)
    assert layer.visible
    desk.state.session.close_slide(first)
    desk.settle()
    assert not layer.visible
    assert layer.data.size == 1


def test_without_a_common_area_there_is_no_map_and_it_says_so(desk, part, tmp_path):
    path = tmp_path / "cy.geojson"
    write_annotations(path, [as_drawn(Region(around(AGREED), STROMA), Stamp("Cy", BO.time))])
    part.load(path)
    desk.until(lambda: part.reader == "Cy")
    part.compare_button.click()
    desk.until(lambda: bool(part.found))
    assert "No figures" in part.map.box.toolTip()
    assert not part.map.box.isEnabled()
    assert maps(desk.viewer) == []


# --- decisions ----------------------------------------------------------------------------------


def reopened(desk):
    """Close the slide and open it again, as on another day."""
    path = desk.state.slide.info.path
    desk.state.session.close_slide(desk.state.slide)
    desk.settle()
    desk.state.session.open_slide(path)
    desk.settle()
    assert len(desk.state.regions) == 4


def test_mine_is_remembered_until_one_of_the_two_changes(desk, part, theirs):
    desk.state.author = "Ada"
    compared(desk, part, theirs)
    for kind, word in (("only mine", "both"), ("other class", "mine"), ("only theirs", "mine")):
        choose(part, kind)
        part.decide(word)
    expected = {"only mine": "both", "other class": "mine", "only theirs": "mine", "beside": ""}
    assert decisions(part) == expected
    reopened(desk)
    assert part.found == []
    compared(desk, part, theirs)
    assert decisions(part) == expected
    assert rows(part)["only mine"].toolTip(1).startswith("By Ada, ")
    assert part.tree.currentItem() is rows(part)["beside"], "the one that is open is looked at"
    assert "1 of 4 differences are left" in part.words.text()

    # My region changes: that question is open again, the others are not.
    mine = next(each.mine for each in part.found if each.kind == "other class")
    shape = {mine.id: around(PLACES["other class"], 104)}
    stamp = desk.state.stamp()
    assert desk.state.attempt(lambda regions: commands.reshape(regions, shape, "move", stamp))
    desk.settle()
    part.compare_button.click()
    desk.until(lambda: not part._busy)
    assert decisions(part) == expected | {"other class": ""}
    desk.state.undo()
    desk.settle()
    part.compare_button.click()
    desk.until(lambda: not part._busy)
    assert decisions(part)["other class"] == "mine", "and what was said of this one holds"


def test_another_mind_takes_the_decision_back(desk, part, theirs):
    compared(desk, part, theirs)
    choose(part, "other class")
    part.decide("mine")
    choose(part, "other class")
    part.decide("theirs")
    desk.state.undo()
    desk.settle()
    assert decisions(part)["other class"] == ""
    part.compare_button.click()
    desk.until(lambda: not part._busy)
    assert decisions(part)["other class"] == "", "it was overruled"


def test_another_readers_decisions_are_not_these(desk, part, theirs, tmp_path):
    compared(desk, part, theirs)
    choose(part, "other class")
    part.decide("mine")
    path = tmp_path / "cy.geojson"
    cy = Stamp("Cy", BO.time)
    write_annotations(
        path, [as_drawn(each.but(metadata={}), cy) for each in part.theirs],
        frame=SlideFrame.of(desk.state.slide.info),
    )  # fmt: skip
    part.load(path)
    desk.until(lambda: part.reader == "Cy")
    part.compare_button.click()
    desk.until(lambda: bool(part.found) and not part._busy)
    assert decisions(part)["other class"] == ""


def test_a_damaged_file_asks_again_and_is_no_error(desk, part, theirs):
    info = desk.state.slide.info
    (sidecar(info.path, info.fingerprint) / FILE_NAME).write_text('{"decisions": 7}')
    compared(desk, part, theirs)
    assert set(decisions(part).values()) == {""}
