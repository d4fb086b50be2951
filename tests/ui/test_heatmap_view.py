"""What is shown of a run: image, numbers, tiles by position, the tour; no screen needed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_histomil.heatmaps import NORMALISATIONS, normalise, threshold_stats
from napari_histomil.slides.slide import Level, SlideInfo
from napari_histomil.tiling import GridSpec, TileGrid
from napari_histomil.ui import heatmap_view
from napari_histomil.ui.colours import COLOUR_MAPS, colour_map, colour_steps
from napari_histomil.ui.heatmap_view import HeatmapView


@pytest.fixture
def grid() -> TileGrid:
    """7 x 10 cells of 100 µm = 200 px, without the first row."""
    info = SlideInfo(
        Path("s.tiff"), "tiff", "", 1950, 1400, 0.5, 0.5, "file", None,
        (Level(1950, 1400, 1.0, 256, 256),), ("red", "green", "blue"), "uint8", "", None, (), {},
        "0" * 64,
    )  # fmt: skip
    whole = TileGrid.cover(info, GridSpec(1.0, 200, 100))
    return whole.select(whole.cells[:, 0] > 0)


@pytest.fixture
def view(grid) -> HeatmapView:
    rng = np.random.default_rng(0)
    tumor = rng.uniform(size=len(grid)).astype(np.float32)
    tumor[3] = np.nan
    scores = np.column_stack([1 - tumor, tumor])
    return HeatmapView(grid, ["normal", "tumor"], scores, first_class="tumor")


def test_the_positive_class_comes_first_else_the_last(grid):
    scores = np.zeros((len(grid), 3), np.float32)
    assert HeatmapView(grid, "abc", scores, first_class="b").class_name == "b"
    assert HeatmapView(grid, "abc", scores, first_class=None).class_name == "c"
    assert HeatmapView(grid, "abc", scores, first_class="gone").class_name == "c"


@pytest.mark.parametrize("method", NORMALISATIONS)
@pytest.mark.parametrize("threshold", [0.0, 0.6])
def test_image_is_the_normalised_scores_above_the_raw_threshold(view, grid, method, threshold):
    image = view.image
    view.normalisation = method
    view.threshold = threshold
    assert view.image is image, "the layer's array is changed in place"
    expected = np.full(grid.shape, np.nan)
    normalised = normalise(view.values, method)
    for cell, raw, shown in zip(grid.cells, view.values, normalised, strict=True):
        if raw >= threshold:
            expected[tuple(cell)] = shown
    np.testing.assert_allclose(image, expected, rtol=1e-6)
    assert np.isnan(image[0]).all(), "no tiles, no colour"


def test_stats_are_those_of_the_raw_scores_whatever_is_shown(view, grid):
    view.threshold = 0.6
    expected = threshold_stats(grid, view.values, 0.6)
    assert 0 < expected.tiles < len(grid) - 1
    for method in NORMALISATIONS:
        view.normalisation = method
        assert view.stats() == expected
        assert np.isfinite(view.image).sum() == expected.tiles


def test_another_class_has_its_own_image_and_tour(view):
    before, hottest = view.image.copy(), view.step(1)
    view.class_index = 0
    assert view.stop is None
    np.testing.assert_allclose(view.image, 1 - before, atol=1e-6)
    assert view.step(1) != hottest


def test_changes_are_told_once_and_only_if_there_are_any(view):
    heard = []
    view.changed.connect(lambda: heard.append("changed"))
    view.filled.connect(lambda: heard.append("filled"))
    view.class_index, view.normalisation = view.class_index, view.normalisation
    view.colours, view.threshold = view.colours, view.threshold
    assert heard == []
    view.threshold = 0.5
    view.colours = "magma"
    view.fill(view.scores)
    assert heard == ["changed", "changed", "filled"]


def test_fill_shows_newer_scores(view, grid):
    assert view.done_tiles == len(grid) - 1
    newer = view.scores.copy()
    newer[3] = (0.25, 0.75)
    view.fill(newer)
    assert view.done_tiles == len(grid)
    assert view.image[tuple(grid.cells[3])] == np.float32(0.75)


def test_tile_at_knows_the_cell_not_the_tiles_context(view, grid):
    for tile in range(len(grid)):
        row, column = grid.cells[tile]
        for dx, dy in ((0, 0), (199.9, 199.9), (100, 50)):
            assert view.tile_at((column * 200 + dx, row * 200 + dy)) == tile
    assert view.tile_at((100, 100)) is None, "first row: not in the region"
    for outside in ((-0.1, 500), (500, -0.1), (2000, 500), (500, 1400)):
        assert view.tile_at(outside) is None


def test_the_tour_goes_down_apart_and_ends_at_both_ends(view, grid):
    tiles = []
    while view.stop is None or view.stop < view.tour.size - 1:
        tiles.append(view.step(1))
    assert tiles == list(view.tour)
    assert view.step(1) == tiles[-1]
    assert view.step(-1) == tiles[-2]
    scores = view.values[tiles]
    assert scores[0] == np.nanmax(view.values)
    assert (np.diff(scores) <= 0).all()
    centres = grid.cells[tiles] * grid.spec.cell_um
    distance = np.linalg.norm(centres[:, None] - centres[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    assert distance.min() >= heatmap_view.HOTTEST_APART_UM
    for _ in tiles:
        first = view.step(-1)
    assert first == tiles[0]


def test_a_tour_of_nothing_goes_nowhere(grid):
    empty = HeatmapView(grid, ["a"], np.full((len(grid), 1), np.nan, np.float32))
    assert empty.step(1) is None
    assert empty.scale_ends == ("0", "1")
    empty.normalisation = "min-max"
    assert empty.scale_ends == ("", "")
    assert empty.stats().tiles == 0


@pytest.mark.parametrize("method", NORMALISATIONS)
def test_the_mark_on_the_scale_lies_where_the_shown_colours_begin(view, method):
    view.normalisation = method
    view.threshold = 0.6
    mark = view.shown_share(0.6)
    lowest_shown = np.nanmin(view.image)
    below = normalise(view.values, method)[view.values < 0.6].max()
    assert below <= mark + 1e-6
    assert mark <= lowest_shown + 1e-6


@pytest.mark.parametrize("name", COLOUR_MAPS)
def test_colour_maps_are_opaque_with_transparent_nan_and_tell_low_from_high(name):
    colours = np.asarray(colour_map(name).map(np.linspace(0, 1, 11)))
    assert (colours[:, 3] == 1).all()
    assert tuple(colour_map(name).map(np.array([np.nan]))[0]) == (0, 0, 0, 0)
    lightness = colours[:, :3] @ (0.2126, 0.7152, 0.0722)
    if name == "blue-white-red":
        assert lightness[5] > 0.9
        assert (np.diff(lightness[:6]) > 0).all()
        assert (np.diff(lightness[5:]) < 0).all()
        assert colours[0, 2] > colours[0, 0]
        assert colours[-1, 0] > colours[-1, 2]
    else:
        assert (np.diff(lightness) > 0).all(), "lightness alone tells the order"
    assert colour_steps(name).shape == (256, 3)


def test_an_unknown_colour_map_is_an_error():
    with pytest.raises(KeyError, match="rainbow"):
        colour_map("rainbow")
