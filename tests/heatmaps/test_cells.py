"""Where tiles are drawn: one pixel a cell on our grids, and tiles that fit no grid."""

from __future__ import annotations

import numpy as np
import pytest

from napari_histomil.heatmaps import CellPicture, cells, picture_of_cells, score_image
from napari_histomil.tiling import GridSpec, TileGrid

SLIDE = (1000, 800)


def test_a_grid_has_a_pixel_a_cell():
    every = np.indices((4, 5), dtype=np.int32).reshape(2, -1).T
    grid = TileGrid(GridSpec(0.5, 256, 200), (0.5, 0.5), (900, 750), every[[7, 3, 19]])
    picture = CellPicture.of_grid(grid)
    values = np.array([0.25, np.nan, 0.75])
    np.testing.assert_array_equal(picture.image(values), score_image(grid, values))
    assert picture.tile_at((450.0, 250.0)) == 0
    assert picture.tile_at((650.0, 250.0)) is None
    assert picture.tile_at((-1.0, 0.0)) is None
    np.testing.assert_allclose(picture.areas_px0, grid.visible_fraction * 200**2)
    assert picture.areas_px0[2] == 100 * 150, "the last cell ends with the slide"


def test_nested_tiles_beyond_the_slide_are_not_drawn():
    cells = np.array([(0, 0), (0, 5), (4, 1)], np.int32)  # of 4 x 5
    grid = TileGrid(GridSpec(0.5, 200, 200), (0.5, 0.5), (900, 750), cells)
    picture = CellPicture.of_grid(grid)
    assert picture.areas_px0.tolist() == [200**2, 0, 0]
    assert np.unique(picture.tiles).tolist() == [-1, 0]


def test_tiles_of_one_lattice_are_a_pixel_each():
    xy = np.array([(130, 70), (194, 70), (130, 134), (322, 70)])
    picture = picture_of_cells(xy, (64, 64), SLIDE)
    assert (picture.corner_px0, picture.pixel_px0) == ((130, 70), (64, 64))
    np.testing.assert_array_equal(picture.tiles, [[0, 1, -1, 3], [2, -1, -1, -1]])
    image = picture.image(np.array([1.0, 2, np.nan, 4]))
    np.testing.assert_array_equal(image, [[1, 2, np.nan, 4], [np.nan] * 4])


def test_each_contour_has_a_lattice_of_its_own():
    first = np.array([(0, 0), (64, 0), (128, 0)])
    second = first + np.array([16, 208])  # a quarter of a tile aside
    picture = picture_of_cells(np.vstack([first, second]), (64, 64), SLIDE)
    assert picture.pixel_px0 == (16, 16)
    for number, (x, y) in enumerate(np.vstack([first, second])):
        for corner in ((0.5, 0.5), (63.5, 63.5)):
            assert picture.tile_at((x + corner[0], y + corner[1])) == number
    assert picture.tile_at((8.0, 210.0)) is None
    np.testing.assert_array_equal(picture.areas_px0, 64.0**2)


def test_overlapping_tiles_are_drawn_where_they_alone_answer():
    xy = np.array([(x, y) for y in (0, 32) for x in (0, 32, 64)])  # tiles of 64, half over
    picture = picture_of_cells(xy, (64, 64), SLIDE)
    assert picture.pixel_px0 == (32, 32)
    assert picture.corner_px0 == (16, 16)
    np.testing.assert_array_equal(picture.tiles, [[0, 1, 2], [3, 4, 5]])


def test_corners_of_any_fraction_are_rounded_and_no_tile_gets_lost():
    rng = np.random.default_rng(1)
    lattice = np.stack(np.meshgrid(np.arange(9.0), np.arange(7.0)), -1).reshape(-1, 2) * 64
    xy = lattice + rng.uniform(0, 6, lattice.shape)
    picture = picture_of_cells(xy, (58, 58), SLIDE)
    assert set(picture.tiles.ravel()) - {-1} == set(range(len(xy)))
    off = [
        number
        for number, middle in enumerate(xy + 29)
        if picture.tile_at((middle[0], middle[1])) != number
    ]
    assert off == []


def test_a_single_tile_beyond_the_edge_counts_what_is_on_the_slide():
    picture = picture_of_cells(np.array([(950.0, -20.0)]), (100, 40), SLIDE)
    assert picture.tiles.tolist() == [[0]]
    assert picture.areas_px0.tolist() == [50 * 20]


def test_tiles_strewn_over_anything_stay_in_bounded_memory(monkeypatch):
    monkeypatch.setattr(cells, "MOST_PIXELS", 10_000)
    rng = np.random.default_rng(0)
    xy = rng.uniform(0, 1e6, (50, 2))
    picture = picture_of_cells(xy, (64, 64), (1_000_000, 1_000_000))
    assert picture.tiles.size <= 11_000
    assert picture.tiles.max() > 0


def test_equal_corners_share_a_place():
    picture = picture_of_cells(np.zeros((3, 2)), (64, 64), SLIDE)
    assert picture.tiles.tolist() == [[2]]
    assert picture.areas_px0.tolist() == [0, 0, pytest.approx(64**2)]
