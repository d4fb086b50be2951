from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from napari_histomil.errors import RunError
from napari_histomil.geometry import Rect
from napari_histomil.inference.job import Job, RegionSpec
from napari_histomil.inference.plan import Piece, Plan, select_tiles, spread_tiles
from napari_histomil.slides.readers import open_slide
from napari_histomil.tiling import GridSpec, TileGrid

SQUARE = TileGrid(  # 16 blocks of 8 x 8 cells of 10 px
    GridSpec(1.0, 10, 10), (1.0, 1.0), (320, 320), np.empty((0, 2), np.int32)
)


def square() -> TileGrid:
    cells = np.indices((32, 32), dtype=np.int32).reshape(2, -1).T
    from napari_histomil.tiling import morton

    return replace(SQUARE, cells=cells[np.argsort(morton(cells))])


def take_all(plan: Plan) -> list[Piece]:
    pieces = []
    while (piece := plan.take()) is not None:
        pieces.append(piece)
    return pieces


def test_every_tile_that_is_not_done_comes_once() -> None:
    grid, done = square(), np.zeros(16, bool)
    done[[0, 5]] = True
    plan = Plan(grid, done, piece_tiles=16, near=None)
    taken: list[Piece] = []
    threads = [Thread(target=lambda: taken.extend(take_all(plan))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tiles = sorted(t for piece in taken for t in range(piece.tiles.start, piece.tiles.stop))
    expected = [t for t in range(1024) if not done[t // 64]]
    assert tiles == expected
    assert {piece.count for piece in taken} == {16}


def test_the_block_in_view_comes_first_and_the_view_may_move() -> None:
    grid = square()
    views = iter([(300.0, 300.0), (300.0, 300.0), None, (5.0, 5.0), *[(5.0, 5.0)] * 12])
    plan = Plan(grid, np.zeros(16, bool), piece_tiles=64, near=lambda: next(views))
    centers = [grid.bounding_rect_px0(plan.take().tiles).center_px0 for _ in range(4)]  # type: ignore[union-attr]
    assert centers[0] == (280, 280), "the block that holds (300, 300)"
    assert centers[1] in {(200, 280), (280, 200)}, "one beside it"
    assert centers[2] == (40, 40), "nobody looks: Morton order"
    assert centers[3] in {(120, 40), (40, 120)}, "the view has moved, the first is taken"


def test_pieces_are_the_same_in_any_order() -> None:
    grid, rng = square(), np.random.default_rng(0)
    orders = [
        {(p.block, p.tiles.start) for p in take_all(Plan(grid, done, piece_tiles=16, near=near))}
        for done, near in [
            (np.zeros(16, bool), None),
            (np.zeros(16, bool), lambda: tuple(rng.uniform(0, 320, 2))),
        ]
    ]
    assert orders[0] == orders[1]


def test_a_sample_is_spread() -> None:
    assert spread_tiles(square(), 4).tolist() == [0, 341, 682, 1023]
    few = square().select(np.arange(1024) < 3)
    assert spread_tiles(few, 32).tolist() == [0, 1, 2]


MakeJob = Callable[..., Job]


def test_a_rectangle_chooses_cells_by_their_share(slide_path: Path, make_job: MakeJob) -> None:
    # cells are 32 px; the rectangle holds a tenth of column 3 and all of column 4
    region = RegionSpec("rect", Rect(4 * 32 - 3.2, 0, 32 + 3.2, 64))
    with open_slide(slide_path) as slide:
        grid = select_tiles(slide, make_job(region=region))
        assert sorted(map(tuple, grid.cells.tolist())) == [(0, 3), (0, 4), (1, 3), (1, 4)]
        half = replace(region, min_fraction=0.5)
        grid = select_tiles(slide, make_job(region=half))
        assert sorted(map(tuple, grid.cells.tolist())) == [(0, 4), (1, 4)]


def test_polygons_choose_by_their_area(slide_path: Path, make_job: MakeJob) -> None:
    # a triangle over half of cell (0, 0); a square over (2, 2) .. (4, 4) with the cell in its
    # middle cut out; and the square again: what two polygons cover counts once
    hole = "(96 96, 128 96, 128 128, 96 128, 96 96)"
    square = f"POLYGON ((64 64, 160 64, 160 160, 64 160, 64 64), {hole})"
    wkt = ("POLYGON ((0 0, 32 0, 0 32, 0 0))", square, square)
    job = make_job(region=RegionSpec("polygons", polygons_wkt=wkt, min_fraction=0.5))
    ring = {(r, c) for r in (2, 3, 4) for c in (2, 3, 4)} - {(3, 3)}
    with open_slide(slide_path) as slide:
        assert set(map(tuple, select_tiles(slide, job).cells.tolist())) == {(0, 0), *ring}
        more = replace(job, region=replace(job.region, min_fraction=0.51))
        assert set(map(tuple, select_tiles(slide, more).cells.tolist())) == ring


def test_all_is_all(slide_path: Path, make_job: MakeJob) -> None:
    with open_slide(slide_path) as slide:
        assert len(select_tiles(slide, make_job())) == 38 * 29


def test_a_region_beside_the_slide_is_told(slide_path: Path, make_job: MakeJob) -> None:
    job = make_job(region=RegionSpec("rect", Rect(5000, 5000, 100, 100)))
    with open_slide(slide_path) as slide, pytest.raises(RunError, match="larger region"):
        select_tiles(slide, job)


def test_text_that_is_no_polygon_is_told(slide_path: Path, make_job: MakeJob) -> None:
    job = make_job(region=RegionSpec("polygons", polygons_wkt=("POLYGON ((0 0, 1",)))
    with open_slide(slide_path) as slide, pytest.raises(RunError, match="cannot be used"):
        select_tiles(slide, job)
