"""Numbers of tiles out of stored runs: which class, which map, which features lie over them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_histomil.errors import RunError
from napari_histomil.manifest import ClassSpec
from napari_histomil.results import FeatureStore, RunStore
from napari_histomil.results.bag import EncoderFacts
from napari_histomil.results.mil import MilAnswer, MilLevel, MilMap, MilRun, MilSource
from napari_histomil.review.tile_scores import (
    attention_of_run,
    nearest_places,
    read_tiles,
    scores_of_run,
)
from napari_histomil.tiling import GridSpec, TileGrid

SLIDE = {
    "name": "a.svs", "path": "/was/a.svs", "fingerprint": "f" * 64, "width_px0": 1000,
    "height_px0": 500, "mpp_xy": [0.5, 0.5], "bounds_px0": None,
}  # fmt: skip
CLASSES = (ClassSpec("normal", (90, 90, 180)), ClassSpec("tumor", (200, 0, 0)))


def grid_of(side_um: float) -> TileGrid:
    spec = GridSpec(1.0, int(side_um), int(side_um))
    empty = TileGrid(spec, (0.5, 0.5), (1000, 500), np.empty((0, 2), np.int32))
    rows, columns = empty.shape
    cells = np.indices((rows, columns), dtype=np.int32).reshape(2, -1).T
    return TileGrid(spec, (0.5, 0.5), (1000, 500), cells)


@pytest.fixture
def scored(tmp_path) -> RunStore:
    grid = grid_of(100)  # cells of 200 px: 5 x 3
    model = {"name": "small", "sha256": "s", "positive_class": "tumor"}
    tumor = np.linspace(0, 1, len(grid), dtype=np.float32)
    with RunStore.create(
        tmp_path / "s.zarr", run_id="s", job={"task": "classify"}, slide=SLIDE, model=model,
        classes=CLASSES, grid=grid,
    ) as run:  # fmt: skip
        run.write_block(0, np.column_stack([1 - tumor, tumor]))
    return run


def embedded(path: Path, **slide) -> FeatureStore:
    """Features of cells of 100 px that say (row, column); the first could not be read."""
    grid = grid_of(50)
    rows = grid.cells.astype(np.float32)
    rows[0] = np.nan
    with FeatureStore.create(
        path / "f.zarr", run_id="f", job={"task": "embed"}, slide={**SLIDE, **slide},
        model={"name": "enc", "sha256": "e", "embedding_dim": 2}, classes=(), grid=grid,
    ) as run:  # fmt: skip
        run.write_blocks({0: rows}, skipped={0: "cannot be read"})
    return run


def test_a_patch_classifier_gives_the_probability_of_its_positive_class(scored):
    tiles = scores_of_run(scored)
    assert (tiles.what, tiles.model, tiles.is_probability) == ("P(tumor)", "small", True)
    assert (tiles.slide, tiles.fingerprint) == (Path("/was/a.svs"), "f" * 64)
    np.testing.assert_allclose(tiles.scores, np.linspace(0, 1, 15), atol=1e-6)
    np.testing.assert_array_equal(tiles.rects_px0[6], [200, 200, 200, 200])
    np.testing.assert_array_equal(tiles.centers_px0[6], [300, 300])
    other = scores_of_run(scored, "normal", slide=Path("/is/b.svs"))
    np.testing.assert_allclose(other.scores, 1 - tiles.scores, atol=1e-6)
    assert other.slide == Path("/is/b.svs")
    with pytest.raises(RunError, match="no class 'Tumour': choose one of normal, tumor"):
        scores_of_run(scored, "Tumour")


def test_tiles_get_the_features_that_lie_over_them(scored, tmp_path):
    tiles = scores_of_run(scored).with_features(embedded(tmp_path))
    got = np.asarray(tiles.features[np.array([6, 0, 6])])
    # of the four small tiles in each, all as near to the middle, one
    assert got.shape == (3, 2)
    assert {tuple(row) for row in got[[0, 2]].tolist()} <= {(r, c) for r in (2, 3) for c in (2, 3)}
    assert np.isfinite(got).all()
    with pytest.raises(RunError, match="features of another slide"):
        scores_of_run(scored).with_features(embedded(tmp_path / "o", fingerprint="other"))


def mil_run(maps) -> MilRun:
    grid = grid_of(100)
    level = MilLevel(grid.tile_rects_px0[:, :2], grid.tile_size_px0, 1.0, grid, len(grid))
    answer = np.array([0.2, 0.8], np.float32)
    return MilRun(
        "m", {"task": "mil"}, SLIDE, {"name": "mil"}, CLASSES,
        MilSource(2, EncoderFacts("enc", "e"), runs=("f",)),
        MilAnswer(answer, answer, answer[None]), (level,), maps,
    )  # fmt: skip


def test_attention_is_times_what_a_tile_would_have_by_chance():
    value = np.array([[0.25, 0.75]], np.float32)
    tiles = attention_of_run(mil_run((MilMap(0, "attention", None, value, np.array([4, 2])),)))
    assert (tiles.what, tiles.is_probability) == ("attention x uniform", False)
    assert np.flatnonzero(np.isfinite(tiles.scores)).tolist() == [2, 4]
    assert tiles.scores[[4, 2]].tolist() == [0.25 * 15, 0.75 * 15]


def test_a_map_without_shares_is_taken_as_it_is_and_none_is_a_sentence():
    raw = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)
    tiles = attention_of_run(mil_run((MilMap(0, "instance", raw, None, np.array([0, 1])),)))
    assert tiles.scores[:2].tolist() == [3.0, 4.0]  # the row of the predicted class
    with pytest.raises(RunError, match="says nothing of single tiles"):
        attention_of_run(mil_run(()))


def test_the_nearest_place_within_reach():
    places = np.array([[0.0, 0.0], [10.0, 0.0]])
    of = np.array([[1.0, 0.0], [9.0, 0.0], [30.0, 0.0]])
    assert nearest_places(places, of, within_px0=5).tolist() == [0, 1, -1]
    assert nearest_places(np.empty((0, 2)), of).tolist() == [-1, -1, -1]


def test_a_run_is_read_with_the_features_beside_it(scored, tmp_path):
    slide = tmp_path / "a.svs"
    slide.write_bytes(b"")
    with RunStore.create(
        tmp_path / "t.zarr", run_id="t", job={"task": "classify"},
        slide={**SLIDE, "path": str(slide)}, model={"name": "small"}, classes=CLASSES,
        grid=grid_of(100),
    ) as run:  # fmt: skip
        run.write_block(0, np.full((15, 2), 0.5, np.float32))
    tiles = read_tiles(run.path)
    assert (tiles.slide, tiles.run, tiles.features) == (slide, run.path, None)
    features = embedded(tmp_path)
    assert read_tiles(run.path).features.shape == (15, 2)
    with pytest.raises(RunError, match="'embed', which gives tiles no score"):
        read_tiles(features.path)
    slide.unlink()
    with pytest.raises(RunError, match="is not found: put it back"):
        read_tiles(run.path)
