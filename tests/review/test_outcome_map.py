"""Outcomes of tiles and pixels at any threshold; two runs of one slide."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from shapely.geometry import box
from truth_runs import drawn, grid_over, picture_run, tile_run

from napari_histomil.errors import RunError
from napari_histomil.review import outcome_map
from napari_histomil.review.compare_runs import compare_runs
from napari_histomil.review.outcome_map import slide_outcome
from napari_histomil.review.truth_sources import RegionTruth
from napari_histomil.tiling import GridSpec

GRID = grid_over(160, 96)  # 5 x 3 cells of 32 µm
REGIONS = [drawn(box(0, 0, 160, 64), "Region*"), drawn(box(0, 0, 64, 32), "Tumor")]


def test_every_tile_has_its_outcome(tmp_path: Path) -> None:
    scores = np.full(15, 0.1)
    scores[[0, 2]], scores[3] = 0.9, np.nan
    run = tile_run(tmp_path, GRID, scores)
    found = slide_outcome(run, RegionTruth(REGIONS, "a"), "tumor")
    expected = [[1, 3, 2, 0, 4], [4, 4, 4, 4, 4], [0, 0, 0, 0, 0]]  # TP FN FP ? TN; not judged
    assert found.picture(0.5).tolist() == expected
    assert found.picture(0.05)[0].tolist() == [1, 1, 2, 0, 2]
    assert found.picture(0.95)[0].tolist() == [3, 3, 4, 0, 4]
    for threshold in (0.05, 0.5, 0.95):
        codes = found.outcome(threshold)
        assert found.counts["tiles"].at(threshold) == tuple(
            (codes == code).sum() for code in (1, 2, 3, 4)
        )
    assert found.figures("tiles", 0.5)["recall"].value == 0.5
    assert found.points("tiles")[0].name == "Youden"
    assert found.calibration("tiles")["brier"] == pytest.approx(
        (0.01 + 0.81 + 0.81 + 6 * 0.01) / 9
    )


def test_pixels_of_a_segmentation_on_a_coarser_level(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = grid_over(1100, 600, GridSpec(1.0, 512, 512))
    p = np.zeros((600, 1100))
    p[:300, :400] = 1
    run = picture_run(tmp_path, grid, p)
    regions = [drawn(box(0, 0, 1100, 600), "Region*"), drawn(box(0, 0, 200, 600), "Tumor")]
    monkeypatch.setattr(outcome_map, "MOST_CELLS", 600 * 500)
    found = slide_outcome(run, RegionTruth(regions, "a"), "tumor")
    image = found.picture(0.5)
    assert image.shape == (300, 550)
    assert [int(image[r, c]) for r, c in ((10, 10), (10, 150), (200, 10), (200, 300))] == [
        1, 2, 3, 4,
    ]  # fmt: skip
    assert found.counts["pixels"].at(0.5)[0] == 300 * 200


def test_two_models_on_the_same_tissue(tmp_path: Path) -> None:
    first, second = np.full(15, 0.1), np.full(15, 0.1)
    first[[0, 1, 7]] = 0.9, 0.6, 0.8
    second[[0, 2]], second[14] = (0.9, 0.7), np.nan
    one = tile_run(tmp_path, GRID, first)
    two = tile_run(tmp_path, GRID, second, model="rival")
    truth = slide_outcome(one, RegionTruth(REGIONS, "a"), "tumor").truth
    found = compare_runs(one, two, "tumor", truth)
    assert found.agreement(0.5).counts.tolist() == [[1, 2], [1, 10]]
    assert found.names == ("maker", "rival")
    rows = found.disagreements(0.5)
    assert [(r.tile, r.right) for r in rows] == [(7, "second"), (2, "first"), (1, "first")]
    assert rows[0].xy_px0 == (2.5 * 64, 1.5 * 64)
    assert [r.tile for r in found.disagreements(0.5, apart_um=40)] == [7, 1]
    assert found.disagreements(0.5, 0.75)[-1].tile == 1
    assert np.isnan(found.difference[14])
    fine = tile_run(tmp_path, grid_over(160, 96, GridSpec(1.0, 16, 16)),
                    np.arange(60) / 60, model="fine")  # fmt: skip
    middles = compare_runs(one, fine, "tumor").second
    # the middle of a coarse cell is the corner of a fine one
    assert middles.tolist() == pytest.approx([(1 + 2 * r) / 60 * 10 + (1 + 2 * c) / 60
                                              for r in range(3) for c in range(5)])  # fmt: skip
    with pytest.raises(RunError, match="compare runs of one slide"):
        compare_runs(one, tile_run(tmp_path, GRID, first, slide="b"), "tumor")
