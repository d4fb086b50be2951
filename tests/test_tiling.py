from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_histomil.errors import MissingMppError, RunError
from napari_histomil.slides.slide import Level, SlideInfo
from napari_histomil.tiling import BLOCK_TILES, GridSpec, TileGrid, any_within, morton


def make_info(
    width: int = 4096, height: int = 8192, mpp: tuple[float, float] | None = (0.25, 0.25)
) -> SlideInfo:
    return SlideInfo(
        path=Path("slide.svs"),
        reader="tiff",
        vendor="test",
        width_px0=width,
        height_px0=height,
        mpp_x=mpp and mpp[0],
        mpp_y=mpp and mpp[1],
        mpp_source=mpp and "file",
        objective_power=None,
        levels=(Level(width, height, 1.0, 256, 256),),
        channels=("red", "green", "blue"),
        dtype="uint8",
        composite="",
        bounds_px0=None,
        associated_images=(),
        properties={},
        fingerprint="0" * 64,
    )


def test_the_journey_of_a_tile() -> None:
    """Slide 0.25 µm/px, 256 px at 0.5 µm/px: the example of docs/architecture.md."""
    grid = TileGrid.cover(make_info(), GridSpec(0.5, 256, 256))
    tile = int(np.flatnonzero((grid.cells == (3, 5)).all(axis=1))[0])
    assert grid.shape == (16, 8)
    assert grid.xy_px0[tile].tolist() == [2560, 1536]
    assert grid.tile_size_px0 == (512, 512)
    assert grid.cell_rects_px0[tile].tolist() == [2560, 1536, 512, 512]
    assert grid.cell_area_um2 == 128**2


def test_tiles_with_context_are_centred_on_their_cells() -> None:
    grid = TileGrid.cover(make_info(), GridSpec(0.5, 96, 64))
    first = int(np.flatnonzero((grid.cells == 0).all(axis=1))[0])
    assert grid.cell_rects_px0[first].tolist() == [0, 0, 128, 128]
    # 16 px of context at 0.5 µm/px are 32 level-0 px
    assert grid.tile_rects_px0[first].tolist() == [-32, -32, 192, 192]
    centre = lambda rects: rects[:, :2] + rects[:, 2:] / 2  # noqa: E731
    np.testing.assert_allclose(centre(grid.tile_rects_px0), centre(grid.cell_rects_px0))


specs = st.builds(
    lambda mpp, stride, context: GridSpec(mpp, stride + context, stride),
    st.floats(0.2, 8),
    st.integers(16, 300),
    st.integers(0, 100),
)


@given(
    specs,
    st.integers(1, 20_000),
    st.integers(1, 20_000),
    st.tuples(st.floats(0.1, 2), st.floats(0.1, 2)),
)
def test_cells_tile_the_slide(
    spec: GridSpec, width: int, height: int, mpp: tuple[float, float]
) -> None:
    empty = TileGrid(spec, mpp, (width, height), np.empty((0, 2), np.int32))
    rows, columns = empty.shape
    cell_width, cell_height = empty.cell_size_px0
    # covered to the last pixel but for rounding, and no row or column that holds nothing
    assert rows * cell_height >= height - 1e-5 * cell_height
    assert columns * cell_width >= width - 1e-5 * cell_width
    assert (rows - 1) * cell_height < height
    assert (columns - 1) * cell_width < width
    corner = TileGrid(spec, mpp, (width, height), np.array([[rows - 1, columns - 1]], np.int32))
    beside = TileGrid(spec, mpp, (width, height), np.array([[rows - 1, columns]], np.int32))
    x, _, cell, _ = corner.cell_rects_px0[0]
    assert beside.cell_rects_px0[0, 0] == pytest.approx(x + cell), "no gap, no overlap"
    assert 0 < corner.visible_fraction[0] <= 1 + 1e-9


def test_rounding_makes_no_row_of_its_own() -> None:
    # 0.1 is not a binary fraction: 30 cells of 10 px need 300.0000...6 px
    grid = TileGrid.cover(make_info(300, 300, (0.1, 0.1)), GridSpec(0.1, 10, 10))
    assert grid.shape == (30, 30)


def test_a_slide_smaller_than_a_tile_has_one() -> None:
    grid = TileGrid.cover(make_info(100, 50), GridSpec(1.0, 512, 256))
    assert grid.shape == (1, 1)
    assert grid.visible_fraction[0] == pytest.approx(100 * 50 / 1024**2)


def test_pixels_need_not_be_square() -> None:
    grid = TileGrid.cover(make_info(1000, 1000, (0.5, 0.25)), GridSpec(1.0, 100, 100))
    assert grid.cell_size_px0 == (200, 400)
    assert grid.shape == (3, 5)


def test_a_slide_without_mpp_has_no_grid() -> None:
    with pytest.raises(MissingMppError, match="--slide-mpp"):
        TileGrid.cover(make_info(mpp=None), GridSpec(0.5, 256, 256))


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ((0, 256, 256), "above 0"),
        ((float("nan"), 256, 256), "above 0"),
        ((1.0, 0, 0), "at least 1 px"),
        ((1.0, 256, 257), "gaps"),
    ],
)
def test_a_grid_without_sense_is_refused(spec: tuple[float, int, int], words: str) -> None:
    with pytest.raises(RunError, match=words):
        GridSpec(*spec)


def test_more_tiles_than_memory_holds_are_refused() -> None:
    with pytest.raises(RunError, match=r"at 1000 µm/px has .* check the slide's µm/px"):
        TileGrid.cover(make_info(4000, 3000, (1000.0, 1000.0)), GridSpec(1.0, 32, 16))


def test_morton_by_hand() -> None:
    cells = np.array([(0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (2, 0), (3, 5)], np.int32)
    # row 3 = 011, column 5 = 101: bits of row and column in turns, row first: 01 10 11
    assert morton(cells).tolist() == [0, 1, 2, 3, 4, 8, 0b011011]
    far = np.array([(2**31 - 1, 2**31 - 1)], np.int32)
    assert morton(far).tolist() == [2**62 - 1]


def test_a_block_is_a_square_of_neighbours() -> None:
    grid = TileGrid.cover(make_info(4096, 4096), GridSpec(0.25, 256, 256))  # 16 x 16 cells
    blocks = list(grid.blocks())
    assert [b.stop - b.start for b in blocks] == [BLOCK_TILES] * 4
    rect = grid.bounding_rect_px0(blocks[0])
    assert (rect.x_px0, rect.y_px0, rect.width_px0, rect.height_px0) == (0, 0, 2048, 2048)
    corners = {(grid.bounding_rect_px0(b).x_px0, grid.bounding_rect_px0(b).y_px0) for b in blocks}
    assert corners == {(0, 0), (2048, 0), (0, 2048), (2048, 2048)}


def test_selecting_keeps_the_order() -> None:
    grid = TileGrid.cover(make_info(), GridSpec(0.5, 256, 256))
    keep = np.zeros(len(grid), bool)
    keep[[3, 70, 100]] = True
    chosen = grid.select(keep)
    assert chosen.cells.tolist() == grid.cells[[3, 70, 100]].tolist()
    assert chosen.shape == grid.shape, "a heatmap keeps the slide's frame"
    assert [b.stop - b.start for b in chosen.blocks()] == [3]


@given(st.integers(0, 2**31), st.floats(0, 40))
def test_any_within_is_what_looking_at_every_pixel_gives(seed: int, margin: float) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((7, 9)) < 0.1
    rects = np.column_stack([rng.uniform(-20, 110, (30, 2)), rng.uniform(1, 30, (30, 2))])
    margins = np.array([margin, margin / 2])
    low, high = rects[:, :2] - margins, rects[:, :2] + rects[:, 2:] + margins
    wanted = np.zeros(30, bool)
    for row, column in np.argwhere(mask):
        first, last = np.array([column * 10.0, row * 12.0]), np.array([10.0, 12.0])
        wanted |= ((low < first + last) & (high > first)).all(axis=1)
    np.testing.assert_array_equal(any_within(mask, (10.0, 12.0), rects, margins), wanted)


def test_what_only_touches_is_not_within() -> None:
    mask = np.zeros((4, 4), bool)
    mask[1, 1] = True
    rects = np.array([[0.0, 0, 10, 10], [20, 10, 10, 10], [9, 9, 2, 2], [10, 10, 10, 10]])
    assert any_within(mask, (10.0, 10.0), rects).tolist() == [False, False, True, True]
