"""CAMELYON16's evaluation, worked by hand; pieces matched; candidates by maxima."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from shapely.geometry import box
from truth_runs import drawn, grid_over, picture_run, tile_run

from napari_histomil.errors import RunError
from napari_histomil.review.candidates import Candidates, maxima
from napari_histomil.review.froc import FALSE_POSITIVES, Hits, froc, hit_lesions
from napari_histomil.review.lesion_masks import find_lesions, lesions_of
from napari_histomil.review.object_scores import called_picture, match_pieces, score_pieces
from napari_histomil.review.truth_sources import RegionTruth
from napari_histomil.tiling import GridSpec

MPP = 7.5
"""Dilation then reaches 4 pixels straight on: 5 are 37.5 µm, and that is not nearer."""


def picture(*boxes, shape=(160, 200)):
    """Tumour in boxes (top, left, bottom, right); one with a minus before it is cut out."""
    tumour = np.zeros(shape, bool)
    for keep, top, left, bottom, right in boxes:
        tumour[top:bottom, left:right] = keep
    return tumour


def lesions(tumour, judged=None):
    judged = np.ones_like(tumour) if judged is None else judged
    return lesions_of(tumour, judged, (15.0, 15.0), MPP)


def at(*places):
    """Candidates at (row, column) of the picture."""
    rows = np.array([(c + 0.5, r + 0.5) for r, c, _ in places]) * 15
    return Candidates(rows.reshape(-1, 2), np.array([s for *_, s in places]), "by hand")


WORKED = picture(
    (1, 10, 10, 40, 40),
    (1, 10, 48, 40, 80),  # 60 µm to the right of it
    (1, 70, 10, 130, 70),
    (0, 90, 30, 110, 50),  # a hole, 150 µm wide
    (1, 100, 150, 110, 160),  # 75 µm, 142 µm after dilation: isolated cells
)


def test_lesions_as_the_challenge_counts_them() -> None:
    found = lesions(WORKED)
    assert len(found) == 3
    assert found.isolated.tolist() == [False, False, True]
    assert found.labels[20, 44] == found.labels[20, 20]  # the gap belongs to the one lesion
    assert found.labels[100, 40] == 2  # the hole is filled
    assert found.labels[10, 5] == 0  # 5 px away
    assert found.labels[10, 6] == 1
    assert found.labels[6, 6] == 0  # diagonally farther than 37.5 µm
    # the major axis of the ellipse with a square's moments is 2 / sqrt(3) of its side
    side = (10 + 2 * 4.9) * MPP  # its corners are cut round
    assert found.longest_um[2] == pytest.approx(side * 2 / 3**0.5, rel=0.06)
    assert found.area_mm2[0] == pytest.approx((900 + 960) * MPP**2 / 1e6)
    apart = lesions(picture((1, 10, 10, 40, 40), (1, 10, 52, 40, 80)))  # 90 µm
    assert len(apart) == 2
    corner = lesions(picture((1, 10, 10, 20, 20), (1, 24, 25, 34, 35)))  # by a corner only
    assert len(corner) == 1


def test_the_worked_example() -> None:
    """Two lesions 60 µm apart, isolated cells, a hole, a double hit."""
    tumour_slide = hit_lesions(
        at(
            (20, 20, 0.9),
            (20, 60, 0.8),  # the same lesion once more
            (100, 40, 0.6),  # in the hole
            (105, 155, 0.95),  # isolated cells
            (150, 100, 0.7),
        ),
        lesions(WORKED),
        "a",
        "a",
    )
    assert tumour_slide.found.tolist() == [0.9, 0.6, 0]
    assert tumour_slide.false.tolist() == [0.7]
    assert tumour_slide.lesions == 2
    normal = hit_lesions(at((5, 5, 0.85), (9, 90, 0.5)), lesions(picture()), "b", "b")
    found = froc([tumour_slide, normal], rounds=100)
    assert found.thresholds == (0.5, 0.6, 0.7, 0.85, 0.9)
    assert found.false_positives == (1.5, 1, 1, 0.5, 0, 0)
    assert found.sensitivity == (1, 1, 0.5, 0.5, 0.5, 0)
    assert found.at == (0.5, 0.5, 1, 1, 1, 1)
    assert found.score == pytest.approx(5 / 6)
    assert (found.slides, found.lesions, found.isolated, found.patients) == (2, 2, 1, 2)
    assert found.low == found.high == found.score  # each stratum has one patient
    assert found.document()["false_positives_a_slide"] == list(FALSE_POSITIVES)


def test_between_two_points_it_is_a_straight_line() -> None:
    none = np.zeros(1, bool)
    slides = [Hits("a", "a", np.array([0.9, 0.2]), none.repeat(2), np.array([0.5, 0.1]))]
    found = froc(slides)
    # thresholds 0.2, 0.5, 0.9: (1, 1), (1, 1/2), (0, 1/2)
    assert found.at == (0.5, 0.5, 1, 1, 1, 1)
    lower = froc([*slides, Hits("b", "b", np.zeros(0), none[:0], np.array([0.3]))], rounds=10)
    assert lower.false_positives == (1, 1, 0.5, 0, 0)
    assert lower.at[:3] == (0.5, 0.5, 1)
    steep = froc([Hits("a", "a", np.array([0.4, 0.3]), none.repeat(2), np.array([0.8, 0.5, 0.1]))])
    # (2, 1), (2, 1/2), (2, 0), (1, 0), (0, 0)
    assert steep.at == (0, 0, 0, 1, 1, 1)


def test_the_lowest_threshold_is_skipped_as_in_the_script() -> None:
    none = np.zeros(2, bool)
    found = froc([Hits("a", "a", np.array([0.9, 0.3]), none, np.array([0.5]))])
    assert found.sensitivity == (0.5, 0.5, 0)
    assert found.score == 0.5


def test_where_nobody_judged_a_candidate_is_nothing() -> None:
    judged = np.ones_like(WORKED)
    judged[:, 90:] = False
    found = hit_lesions(
        at((150, 100, 0.7), (150, 20, 0.4), (400, 20, 0.3)), lesions(WORKED, judged), "a", "a"
    )
    assert found.false.tolist() == [0.4]


def test_without_a_lesion_there_is_no_curve() -> None:
    with pytest.raises(RunError, match="no lesion larger than isolated"):
        froc([hit_lesions(at((1, 1, 0.5)), lesions(picture()), "a", "a")])


# --- of runs ----------------------------------------------------------------------------------

GRID = grid_over(960, 640)  # 30 x 20 cells of 32 µm


def hot(*spots):
    scores = np.full(GRID.shape, 0.05)
    for row, column, value in spots:
        scores[row, column] = value
    return scores.ravel()


def test_maxima_of_tiles(tmp_path: Path) -> None:
    run = tile_run(tmp_path, GRID, hot((5, 5, 0.9), (5, 7, 0.8), (5, 8, 0.7)))
    found = maxima(run, "tumor", radius_um=75)
    assert found.score[:2] == pytest.approx([0.9, 0.7])  # 0.8 is 64 µm away
    np.testing.assert_allclose(found.xy_px0[0], [5.5 * 64, 5.5 * 64])
    assert found.how == "maxima of tiles, 75 µm apart or more"


def test_maxima_of_a_segmentation(tmp_path: Path) -> None:
    p = np.zeros((640, 960))
    p[100:120, 300:340] = 0.5
    p[104:112, 312:320] = 1
    grid = grid_over(960, 640, GridSpec(1.0, 512, 512))
    found = maxima(picture_run(tmp_path, grid, p), "tumor")
    assert found.score.tolist() == [1]
    np.testing.assert_allclose(found.xy_px0, [[2 * 316, 2 * 108]], atol=16)


def test_from_regions_and_a_run_to_a_curve_and_pieces(tmp_path: Path) -> None:
    regions = [
        drawn(box(0, 0, 960, 640), "Region*"),
        drawn(box(128, 128, 448, 448), "Tumor"),
        drawn(box(640, 128, 704, 192), "Tumor"),  # isolated
    ]
    truth = RegionTruth(regions, "a")
    scores = np.full(GRID.shape, 0.05)
    scores[4:14, 4:12] = 0.9  # 8 of the lesion's 10 columns
    scores[18, 25] = 0.6
    run = tile_run(tmp_path, GRID, scores.ravel())
    found = find_lesions(truth, "tumor", run.grid)
    assert found.isolated.tolist() == [False, True]
    curve = froc([hit_lesions(maxima(run, "tumor"), found, "a", "a")])
    assert curve.at[2] == 1  # one false positive at 0.6
    assert curve.low is None
    pieces = match_pieces(found, called_picture(run, "tumor", 0.5, found.mpp), "a", "a")
    assert (pieces.matched, pieces.extra, pieces.missed) == (1, 1, 1)
    assert (pieces.touched, pieces.apart) == (1, 1)
    assert pieces.overlap == pytest.approx(0.8)
    said = score_pieces([pieces], 0.5)
    assert said.figures["precision"].value == 0.5
    assert said.figures["panoptic_quality"].value == pytest.approx(2 * 0.8 / 4)
    assert said.touched_95[0] < 0.5 < said.touched_95[1]
    empty = find_lesions(RegionTruth(regions[:1], "a"), "tumor", run.grid)
    nothing = match_pieces(empty, np.zeros_like(empty.tumour), "b", "b")
    assert score_pieces([nothing], 0.5).figures["recall"].reason == "the truth has no piece"
    both = score_pieces([pieces, nothing], 0.5, rounds=30).figures["recall"]
    assert (both.value, both.low) == (0.5, 0.5)
