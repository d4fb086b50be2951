from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from napari_histomil.errors import RunError
from napari_histomil.results import FeatureStore
from napari_histomil.results.bag import Bag, EncoderFacts, bag_of_runs, mismatches
from napari_histomil.tiling import BLOCK_TILES, GridSpec, TileGrid, morton

SIZE = (4000, 3000)


def grid_of(mpp: float, cells: list[tuple[int, int]]) -> TileGrid:
    array = np.array(cells, np.int32)
    array = array[np.argsort(morton(array), kind="stable")]
    return TileGrid(GridSpec(mpp, 32, 32), (0.5, 0.5), SIZE, array)


def children(cells: list[tuple[int, int]], sides: int) -> list[tuple[int, int]]:
    ways = [(i, j) for i in range(sides) for j in range(sides)]
    return [(r * sides + i, c * sides + j) for r, c in cells for i, j in ways]


def value(cells: NDArray[np.int32]) -> NDArray[np.float32]:
    """Features that tell where a tile lies: row, column, 1."""
    return np.column_stack([cells, np.ones(len(cells))]).astype(np.float32)


def make(
    path: Path, grid: TileGrid, *, skipped: tuple[int, ...] = (), **changes: Any
) -> FeatureStore:
    store = FeatureStore.create(
        path / f"{grid.spec.mpp:g}-{len(list(path.glob('*')))}.zarr",
        run_id="abc",
        job={"task": "embed", **changes.pop("job", {})},
        slide={
            "name": "slide ü.svs", "fingerprint": changes.pop("fingerprint", "f"),
            "width_px0": SIZE[0], "height_px0": SIZE[1], "mpp_xy": [0.5, 0.5], "bounds_px0": None,
        },
        model={"name": "tiny", "sha256": "e", "embedding_dim": 3, **changes},
        classes=(),
        grid=grid,
    )  # fmt: skip
    rows = value(grid.cells)
    rows[list(skipped)] = np.nan
    blocks = {
        index: rows[start : start + BLOCK_TILES]
        for index, start in enumerate(range(0, len(grid), BLOCK_TILES))
    }
    with store:
        store.write_blocks(blocks, skipped=dict.fromkeys(skipped, "cannot be read"))
    return store


COARSE = [(0, 0), (0, 1), (2, 1), (1, 3), (7, 9)]


def test_one_magnification_is_the_run_as_it_is_stored(tmp_path: Path) -> None:
    cells = [(r, c) for r in range(9) for c in range(11)]
    store = make(tmp_path, grid_of(1.0, cells))
    bag = bag_of_runs([store])
    (level,) = bag.levels
    np.testing.assert_array_equal(np.asarray(level.features), store.features)
    np.testing.assert_array_equal(level.xy_px0, store.grid.cells[:, ::-1] * 64.0)
    assert (level.side_px0, level.mpp, level.parents, level.dim) == ((64, 64), 1.0, None, 3)
    assert level.features.dtype == np.float16
    np.testing.assert_array_equal(level.features[5:70], store.features[5:70])
    np.testing.assert_array_equal(level.features[[70, 3]], store.features[[70, 3]])
    assert bag.encoder == EncoderFacts("tiny", "e")
    assert (bag.slide.name, bag.slide.size_px0) == ("slide ü.svs", SIZE)
    np.testing.assert_array_equal(level.centers_px0[0], [32, 32])


def test_tiles_that_could_not_be_read_are_left_out(tmp_path: Path) -> None:
    store = make(tmp_path, grid_of(1.0, children([(0, 0), (0, 1)], 8)), skipped=(3, 100))
    (level,) = bag_of_runs([store]).levels
    assert len(level) == len(level.features) == len(level.grid or ()) == 126
    kept = np.delete(np.arange(128), [3, 100])
    np.testing.assert_array_equal(level.features[:], store.features[kept])
    np.testing.assert_array_equal(level.features[2:5], store.features[[2, 4, 5]])
    np.testing.assert_array_equal(level.xy_px0, store.grid.tile_rects_px0[kept, :2])


@pytest.mark.parametrize("sides", [2, 3, 4])
def test_children_lie_one_after_the_other_in_the_order_of_their_parents(
    tmp_path: Path, sides: int
) -> None:
    fine = make(tmp_path, grid_of(1.0, children(COARSE, sides)), skipped=(2,))
    coarse = make(tmp_path, grid_of(float(sides), COARSE))
    bag = bag_of_runs([fine, coarse])
    low, high = bag.levels
    assert [level.mpp for level in bag.levels] == [sides, 1.0], "lowest magnification first"
    assert low.parents is None
    assert high.parents is not None
    np.testing.assert_array_equal(high.parents, np.repeat(np.arange(len(COARSE)), sides**2))
    rows = np.asarray(high.features).astype(int)
    read = rows[:, 2] == 1
    assert (~read).sum() == 1, "the tile that could not be read is zeros: nesting stays regular"
    parents = np.asarray(low.features).astype(int)[high.parents, :2]
    np.testing.assert_array_equal(rows[read, :2] // sides, parents[read])
    assert high.grid is not None
    np.testing.assert_array_equal(rows[read, :2], high.grid.cells[read])
    np.testing.assert_array_equal(high.xy_px0[0], low.xy_px0[0])


def test_three_magnifications(tmp_path: Path) -> None:
    mid, fine = children(COARSE, 2), children(COARSE, 4)
    runs = [make(tmp_path, grid_of(m, c)) for m, c in ((4.0, COARSE), (1.0, fine), (2.0, mid))]
    bag = bag_of_runs(runs)
    assert [len(level) for level in bag.levels] == [5, 20, 80]
    _, _, high = bag.levels
    assert high.parents is not None
    np.testing.assert_array_equal(high.parents, np.repeat(np.arange(20), 4))


@pytest.mark.parametrize(
    ("fine", "changes", "why"),
    [
        (children(COARSE, 2)[1:], {}, "has not all 4 tiles"),
        (children([*COARSE, (3, 3)], 2), {"fingerprint": "g"}, "different slides"),
        (children(COARSE, 2), {"sha256": "other"}, "different encoders"),
        (children(COARSE, 2), {"job": {"tta": True}}, "different kinds of augmentation"),
    ],
)
def test_what_does_not_belong_together_is_a_sentence(
    tmp_path: Path, fine: list[tuple[int, int]], changes: dict[str, Any], why: str
) -> None:
    runs = [make(tmp_path, grid_of(2.0, COARSE)), make(tmp_path, grid_of(1.0, fine), **changes)]
    with pytest.raises(RunError, match=why):
        bag_of_runs(runs)


def test_tiles_outside_the_parents_are_left_out(tmp_path: Path) -> None:
    fine = children([*COARSE, (3, 3)], 2)
    runs = [make(tmp_path, grid_of(2.0, COARSE)), make(tmp_path, grid_of(1.0, fine))]
    assert [len(level) for level in bag_of_runs(runs).levels] == [5, 20]


def test_an_unfinished_run_is_no_bag(tmp_path: Path) -> None:
    store = make(tmp_path, grid_of(1.0, children(COARSE, 8)))
    with FeatureStore.open(store.path, writable=True) as writer:
        writer._array("done")[:] = [True, False, True, True, True]
    with pytest.raises(RunError, match=r"is not finished \(256 of 320 tiles\)"):
        bag_of_runs([FeatureStore.open(store.path)])


def bag(tmp_path: Path) -> Bag:
    return bag_of_runs([make(tmp_path, grid_of(1.0, COARSE))])


@pytest.mark.parametrize(
    ("encoder", "grids", "found"),
    [
        (EncoderFacts("tiny", "e"), [GridSpec(1.0, 32, 32)], None),
        (EncoderFacts("Tiny"), [], None),
        (EncoderFacts("tiny", "other"), [], "those of tiny: its answer means nothing"),
        (EncoderFacts("uni"), [], "of the encoder tiny.*those of uni"),
        (EncoderFacts("tiny", "e", tta=True), [], "test-time augmentation"),
        (EncoderFacts("tiny"), [GridSpec(0.5, 32, 32)], "have 1 µm/px.*trained on 0.5"),
        (EncoderFacts("tiny"), [GridSpec(1.0, 64, 64)], "have 32 µm a side.*trained on 64"),
    ],
)  # fmt: skip
def test_a_bag_of_another_kind_is_told(
    tmp_path: Path, encoder: EncoderFacts, grids: list[GridSpec], found: str | None
) -> None:
    told = mismatches(bag(tmp_path), dim=3, encoder=encoder, grids=grids)
    if found is None:
        assert told == []
    else:
        (sentence,) = told
        assert re.search(found, sentence)


def test_a_bag_of_another_width_cannot_be_taken(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="have 3 values a tile, and the model takes 512"):
        mismatches(bag(tmp_path), dim=512)
    with pytest.raises(RunError, match="has 1 magnifications, and the model takes 2"):
        mismatches(bag(tmp_path), dim=3, grids=[GridSpec(2.0, 32, 32), GridSpec(1.0, 32, 32)])
