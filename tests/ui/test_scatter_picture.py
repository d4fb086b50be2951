"""Points as a picture: where they lie, their mean colour, dots and density."""

from __future__ import annotations

import numpy as np
import pytest

from napari_histomil.ui import scatter_picture
from napari_histomil.ui.scatter_picture import FAINTEST, View, paint

RED, BLUE = (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)


@pytest.fixture
def as_density(monkeypatch):
    monkeypatch.setattr(scatter_picture, "RADII", ())


def test_all_points_are_seen_with_a_margin_and_y_grows_upwards():
    layout = np.array([[0, 0], [10, 5]], np.float32)
    view = View.fit(layout, (220, 220))
    np.testing.assert_allclose(view.to_pixels(layout, (220, 220)), [[11, 159.5], [209, 60.5]])
    assert view.to_plane((11, 159.5), (220, 220)) == pytest.approx((0, 0), abs=1e-5)


def test_a_zoom_keeps_what_is_under_the_pointer_and_a_move_follows_it():
    view, size = View((3, 4), 10), (100, 80)
    before = view.to_plane((20, 30), size)
    assert view.zoomed(2, (20, 30), size).to_plane((20, 30), size) == pytest.approx(before)
    assert view.moved((15, -5)).to_plane((35, 25), size) == pytest.approx(before)


def test_a_pixel_has_the_mean_colour_and_more_points_are_less_transparent(as_density):
    layout = np.array([[0, 0], [0, 0], [3, 0], [99, 99]], np.float32)
    colours = np.array([RED, BLUE, RED, RED], np.float32)
    out = paint(layout, colours, View((0, 0), 1), (9, 9))
    assert out[4, 4].tolist() == [128, 0, 128, 255]
    assert out[4, 7].tolist() == [255, 0, 0, round(255 * FAINTEST)]
    assert np.count_nonzero(out[..., 3]) == 2  # what lies outside is not drawn


def test_few_points_are_dots():
    out = paint(np.zeros((1, 2), np.float32), np.array([RED], np.float32), View(), (15, 15))
    rows, columns = np.nonzero(out[..., 3])
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (4, 10, 4, 10)
    assert (out[rows, columns] == [255, 0, 0, 255]).all()
