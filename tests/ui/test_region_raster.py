"""The picture of regions: every pixel where it should be, however many there are."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from rasterio import features
from rasterio.transform import Affine
from shapely.geometry import LineString, MultiPoint, MultiPolygon, Point, Polygon, box

from napari_histomil.annotations.model import Region, class_named
from napari_histomil.ui.region_raster import (
    FILL,
    LINE_PX,
    SELECTED_COLOUR,
    Cancelled,
    Frame,
    Sheet,
    paint,
)

TUMOR, STROMA, REGION = (class_named(name) for name in ("Tumor", "Stroma", "Region*"))
FRAME = Frame(0, 0, (1, 1), (120, 80))
TINT = round(255 * FILL)


def painted(regions, frame=FRAME, selected=frozenset(), hidden=frozenset(), **looks):
    return paint(Sheet.of(regions, hidden), frame, selected, **looks)


def test_a_fill_is_that_of_rasterio_holes_and_parts_included():
    shape = MultiPolygon(
        [
            Polygon(
                [(10.3, 5.2), (70.7, 12.1), (60.2, 70.9), (15.5, 60.4)],
                [[(30, 20), (45, 25), (40, 45), (28, 40)]],
            ),
            box(80, 10, 140, 30),  # reaches out of the picture
        ]
    )
    frame = Frame(0, 0, (1, 1), (120, 80))
    alpha = painted([Region(shape, TUMOR)], frame, line_px=0.0)[..., 3]
    expected = features.rasterize([(shape, 1)], (80, 120)).astype(bool)
    # Lines of no width still cover a little of the pixels they cross.
    near = features.rasterize([(shape.boundary.buffer(1.2), 1)], (80, 120), all_touched=True) > 0
    assert (alpha[expected & ~near] == TINT).all()
    assert (alpha[~expected & ~near] == 0).all()


def test_an_outline_lies_where_the_shape_is_at_any_place_and_scale():
    shape = Polygon([(1010, 520), (1090, 540), (1050, 595)])
    frame = Frame(1000, 500, (2, 2), (60, 60))
    picture = painted([Region(shape, TUMOR)], frame)
    line = picture[..., 3] > 200
    expected = features.rasterize(
        [(shape.boundary.buffer(1.5), 1)], (60, 60), transform=Affine(2, 0, 1000, 0, 2, 500)
    ).astype(bool)
    ys, xs = np.nonzero(line)
    centers = shapely.points(1000 + 2 * (xs + 0.5), 500 + 2 * (ys + 0.5))
    assert shapely.distance(centers, shape.boundary).max() < 2.5
    assert (line & expected).sum() > 0.9 * expected.sum()
    assert (picture[line][:, :3] == TUMOR.color).all()


def test_what_is_drawn_later_lies_on_top_and_what_is_selected_above_all():
    below, above = Region(box(10, 10, 60, 60), TUMOR), Region(box(30, 30, 90, 70), STROMA)
    picture = painted([below, above])
    assert tuple(picture[40, 40, :3]) == STROMA.color
    assert tuple(picture[20, 20]) == (*TUMOR.color, TINT)
    assert picture[30, 50, 3] > 200
    picture = painted([below, above], selected=frozenset([below.id]))
    assert tuple(picture[60, 20, :3]) == SELECTED_COLOUR
    assert tuple(picture[40, 40, :3]) == TUMOR.color


def test_hidden_classes_are_left_out_and_where_to_look_is_not_tinted():
    tumor, region = Region(box(10, 10, 30, 30), TUMOR), Region(box(40, 10, 70, 60), REGION)
    bare = Region(box(80, 10, 100, 30))
    picture = painted([tumor, region, bare], hidden=frozenset(["Tumor", None]))
    assert not picture[:, :38].any()
    assert not picture[:, 75:].any()
    assert picture[30, 55, 3] == 0
    assert picture[30, 40, 3] > 100


def test_a_locked_region_is_dashed():
    free = painted([Region(box(10, 10, 110, 70), TUMOR)])[..., 3] > 200
    locked = painted([Region(box(10, 10, 110, 70), TUMOR, locked=True)])[..., 3] > 200
    assert 0.3 * free.sum() < locked.sum() < 0.7 * free.sum()


def test_lines_points_and_dots():
    regions = [
        Region(LineString([(5, 40), (115, 40)]), TUMOR),
        Region(MultiPoint([(20, 20), (100, 60)]), STROMA),
        Region(Point(60, 70), STROMA),
        Region(box(50.2, 10.1, 50.9, 10.8), TUMOR),
    ]
    picture = painted(regions)
    assert (picture[39:41, 10:110, 3] > 150).all()
    for x, y in ((20, 20), (100, 60), (60, 70)):
        assert picture[y, x, 3] == 255
    assert tuple(picture[10, 50]) == (*TUMOR.color, 255)
    assert picture[10, 52, 3] == 0


def test_what_is_too_small_for_an_outline_is_a_speck_where_it_lies():
    cell = shapely.Point(50.3, 30.6).buffer(1.3)  # 2.6 px wide
    cover = painted([Region(cell, TUMOR)])[..., 3] / 255.0
    rows, columns = np.nonzero(cover)
    assert cover[30, 50] == 1
    weights = cover[rows, columns]
    assert np.average(columns + 0.5, weights=weights) == pytest.approx(50.3, abs=0.15)
    assert np.average(rows + 0.5, weights=weights) == pytest.approx(30.6, abs=0.15)
    whole = shapely.Point(50.3, 30.6).buffer(1.3 + LINE_PX / 2).area  # with its outline's width
    assert cover.sum() == pytest.approx(whole, rel=0.15)
    wide = painted([Region(box(20, 30, 23.9, 31), TUMOR)])[..., 3]
    assert np.ptp(np.nonzero(wide)[1]) > np.ptp(np.nonzero(wide)[0])


def test_long_edges_that_cross_the_picture_are_cut_to_it():
    huge = Region(Polygon([(-1e6, -1e6), (1e6, -1e6), (60, 1e6)]), TUMOR)
    picture = painted([huge, Region(LineString([(-1e7, 40), (1e7, 40)]), STROMA)])
    assert (picture[20, :, 3] == TINT).all()
    assert (picture[40, :, :3] == STROMA.color).all()


def test_nothing_and_what_lies_elsewhere_give_an_empty_picture():
    assert not painted([]).any()
    assert not painted([Region(box(500, 500, 600, 600)), Region(Polygon())]).any()


def test_it_can_be_stopped():
    def turn():
        raise Cancelled

    with pytest.raises(Cancelled):
        painted([Region(box(0, 0, 9, 9))], turn=turn)


@pytest.mark.parametrize("px0", [80.0, 20.0, 1.0])
def test_each_of_very_many_cells_is_seen(px0):
    rng = np.random.default_rng(0)
    angles = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1) * 20
    centers = rng.uniform(0, 1, (20_000, 2)) * (40_000, 40_000)
    shapes = shapely.polygons(centers[:, None] + circle)
    sheet = Sheet.of([Region(shape, TUMOR) for shape in shapes], frozenset())
    picture = paint(sheet, Frame(0, 0, (px0, px0), (500, 500)))
    x, y = (centers / px0).astype(int).T
    inside = (x < 499) & (y < 499)
    assert (picture[y[inside], x[inside], 3] > 0).mean() > 0.95
