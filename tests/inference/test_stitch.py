from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from napari_histomil.inference.stitch import Stitcher, window
from napari_histomil.results import bands as bands_module
from napari_histomil.results.bands import Picture
from napari_histomil.tiling import GridSpec, TileGrid

Field = Callable[[np.ndarray, np.ndarray], np.ndarray]


@pytest.fixture(autouse=True)
def _small_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several lanes and bands in pictures of a few hundred pixels."""
    monkeypatch.setattr(bands_module, "BAND_PX", 32)
    monkeypatch.setattr(bands_module, "LANE_PX", 72)


def picture(
    width: int, height: int, spec: GridSpec, keep: Callable[[np.ndarray], np.ndarray] | None = None
) -> Picture:
    empty = TileGrid(spec, (1.0, 1.0), (width, height), np.empty((0, 2), np.int32))
    cells = np.indices(empty.shape, np.int32).reshape(2, -1).T
    cells = cells[np.random.default_rng(0).permutation(len(cells))]
    if keep is not None:
        cells = cells[keep(cells)]
    return Picture(TileGrid(spec, (1.0, 1.0), (width, height), cells))


def stitched(picture: Picture, field: Field, classes: int = 1) -> np.ndarray:
    """Stitch tiles that say what `field` says of (row, column), the whole picture."""
    spec = picture.grid.spec
    result = np.full((classes, *picture.shape), np.nan, np.float32)
    weights = window(spec.inner_px, spec.stride_px)
    for stretch in picture.stretches(np.zeros(len(picture.bands), bool)):
        stitcher = Stitcher(stretch.rows, stretch.columns, classes, weights, bands_module.BAND_PX)
        waiting = list(stretch.bands)

        def flush(stop: float) -> None:
            while waiting and waiting[0].rows.stop <= stop:  # noqa: B023
                band = waiting.pop(0)  # noqa: B023
                part = stitcher.take(band.rows.stop)  # noqa: B023
                known = picture.known(band.rows, band.columns)
                result[:, band.rows, band.columns] = np.where(known, part, np.nan)

        for tiles in picture.rows_of_tiles(stretch):
            for tile in range(tiles.start, tiles.stop):
                y, x = picture.corner(tile)
                flush(y)
                at = np.indices((spec.inner_px,) * 2) + np.array([y, x])[:, None, None]
                tile_says = np.broadcast_to(field(*at), (classes, *at.shape[1:]))
                stitcher.add((y, x), tile_says.astype(np.float32))
        flush(np.inf)
    return result


SPECS = [
    GridSpec(1.0, 32, 32),
    GridSpec(1.0, 40, 24),
    GridSpec(1.0, 48, 20, margin_px=6),
    GridSpec(1.0, 64, 10, margin_px=4),
    GridSpec(1.0, 151, 101, margin_px=5),
]


@pytest.mark.parametrize("spec", SPECS, ids=str)
@pytest.mark.parametrize("size", [(1, 1), (95, 33), (97, 300), (211, 97)])
def test_a_constant_stays_the_constant(spec: GridSpec, size: tuple[int, int]) -> None:
    result = stitched(picture(*size, spec), lambda y, x: np.full(y.shape, 0.3))
    assert result.shape == (1, size[1], size[0])
    np.testing.assert_allclose(result, 0.3, rtol=0, atol=1e-6)


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_every_pixel_lies_where_its_tiles_say(spec: GridSpec) -> None:
    """A picture that is different everywhere comes out as it is, over lanes and bands."""
    result = stitched(picture(211, 97, spec), lambda y, x: (y * 211 + x) / 2**15)
    y, x = np.indices((97, 211))
    np.testing.assert_allclose(result[0], (y * 211 + x) / 2**15, rtol=0, atol=1e-6)


@pytest.mark.parametrize("spec", SPECS[1:], ids=str)
def test_only_the_cells_of_the_grid_are_known(spec: GridSpec) -> None:
    chosen = picture(211, 97, spec, lambda cells: cells.sum(axis=1) % 3 > 0)
    result = stitched(chosen, lambda y, x: np.full(y.shape, 0.7))
    y, x = np.indices((97, 211)) // spec.stride_px
    np.testing.assert_array_equal(np.isfinite(result[0]), (y + x) % 3 > 0)
    np.testing.assert_allclose(result[np.isfinite(result)], 0.7, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("inner", "stride"), [(48, 32), (48, 24), (33, 20), (16, 16)])
def test_windows_of_neighbours_add_up_to_one(inner: int, stride: int) -> None:
    middle = window(inner, stride)[inner // 2]
    along = middle / np.sqrt(middle[inner // 2])
    sums = np.zeros(inner + 4 * stride)
    for start in range(0, 5 * stride, stride):
        sums[start : start + inner] += along
    np.testing.assert_allclose(sums[inner : 4 * stride], 1, atol=1e-6)
    assert (along > 0).all()
    assert along[0] < 0.01 or inner == stride


def test_tiles_that_disagree_meet_softly() -> None:
    """Where two tiles overlap the answer goes over from the one to the other without a step."""
    spec = GridSpec(1.0, 48, 32)
    chosen = picture(96, 32, spec)
    calls = iter([0.0, 1.0, 0.0])
    result = stitched(chosen, lambda y, x: np.full(y.shape, next(calls)))[0, 16]
    assert np.abs(np.diff(result)).max() < 0.12, "a step without overlap would be 1"
    assert result[0] == 0
    assert result[48] == 1


def test_what_is_left_is_stitched_as_in_one_go() -> None:
    """Bands done before are left out, and the others come out to the last bit as before."""
    spec = SPECS[2]
    chosen = picture(211, 97, spec)
    rng = np.random.default_rng(1)
    says = rng.random((len(chosen.grid), spec.inner_px, spec.inner_px), np.float32)
    whole = np.zeros(chosen.shape, np.float32)
    weights = window(spec.inner_px, spec.stride_px)

    def go(done: np.ndarray, into: np.ndarray) -> int:
        used = 0
        for stretch in chosen.stretches(done):
            stitcher = Stitcher(stretch.rows, stretch.columns, 1, weights, 1000)
            for tiles in chosen.rows_of_tiles(stretch):
                for tile in range(tiles.start, tiles.stop):
                    stitcher.add(chosen.corner(tile), says[tile][None])
                    used += 1
            into[stretch.rows, stretch.columns] = stitcher.take(stretch.rows.stop)[0]
        return used

    done = np.zeros(len(chosen.bands), bool)
    most = go(done, whole)
    done[[0, 1, 5, 8]] = True
    again = np.zeros_like(whole)
    assert go(done, again) < most, "tiles of bands that are done are not computed again"
    for band in chosen.bands:
        part = band.rows, band.columns
        if not done[band.index]:
            np.testing.assert_array_equal(again[part], whole[part])


def test_bands_and_tiles_that_are_done_are_counted() -> None:
    chosen = picture(211, 97, GridSpec(1.0, 40, 24))
    assert len(chosen.bands) == 3 * 4, "lanes of 72, the last wider, bands of 32 px"
    done = np.zeros(12, bool)
    assert chosen.tiles_done(done).sum() == 0
    done[:4] = True  # the first lane
    left = chosen.grid.cells[:, 1] * 24 + 12 < 72
    np.testing.assert_array_equal(chosen.tiles_done(done), left)
    assert chosen.tiles_done(np.ones(12, bool)).all()
    assert [len(s.bands) for s in chosen.stretches(done)] == [4, 4]


def test_memory_is_that_of_a_band() -> None:
    stitcher = Stitcher(slice(0, 10**6), slice(0, 96), 2, window(40, 24), 32)
    assert stitcher._sums.shape == (2, 72, 96)
