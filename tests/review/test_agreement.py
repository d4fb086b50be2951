"""Two readers on one slide: areas, figures, differences."""

from __future__ import annotations

import numpy as np
import pytest
from shapely.geometry import Polygon, box

from napari_histomil.annotations import raster
from napari_histomil.annotations.masks import LabelTable
from napari_histomil.annotations.model import Region, class_named
from napari_histomil.errors import AnnotationError
from napari_histomil.geometry import Rect
from napari_histomil.review.agreement import (
    difference_map,
    judge,
    pair_bands,
    prepare_comparison,
)
from napari_histomil.review.metrics import Score
from tests.annotations.mask_material import slide_info

INFO = slide_info(2000, 1600, (0.5, 0.5))
TUMOR, STROMA = class_named("Tumor"), class_named("Stroma")
WHERE, IGNORED = class_named("Region*"), class_named("Ignore*")


def everywhere(*regions):
    return [Region(box(0, 0, 2000, 1600), WHERE), *regions]


def compared(first, second, mpp=2.0, min_um2=0.0, **options):
    comparison = prepare_comparison(first, second, INFO, mpp, **options)
    return judge(comparison, pair_bands(comparison), min_um2=min_um2)


def test_figures_of_two_rectangles_by_hand():
    # 1000 x 800 µm; A 200 x 200 µm, B the same moved by 50 µm
    one = everywhere(Region(box(400, 400, 800, 800), TUMOR))
    two = everywhere(Region(box(500, 400, 900, 800), TUMOR))
    found = compared(one, two)
    assert found.area_mm2 == pytest.approx(0.8)
    assert found.mpp == (2.0, 2.0)
    tumor, background = found.classes
    assert (tumor.first_mm2, tumor.second_mm2) == pytest.approx((0.04, 0.04))
    assert tumor.dice.value == pytest.approx(0.75)
    assert tumor.iou.value == pytest.approx(150 / 250)
    assert tumor.negative_agreement.value == pytest.approx(1.5 / 1.52)
    assert found.observed.value == pytest.approx(0.78 / 0.8)
    expected = 0.05**2 + 0.95**2
    assert tumor.kappa.value == pytest.approx((0.975 - expected) / (1 - expected))
    assert found.kappa.value == pytest.approx(tumor.kappa.value)
    # Top and bottom 150 µm of each lie on the other, 50 µm run away from its corner.
    assert tumor.boundary.median_um < tumor.boundary.mean_um < 50
    assert tumor.boundary.hausdorff95_um == pytest.approx(50)
    assert (background.name, background.boundary) == ("background", None)
    first, second = found.differences
    assert {(d.first, d.second) for d in (first, second)} == {
        ("Tumor", "background"),
        ("background", "Tumor"),
    }
    assert first.area_mm2 == pytest.approx(0.01)
    only_a = next(d for d in found.differences if d.first == "Tumor")
    assert only_a.region.geometry.equals(box(400, 400, 500, 800))
    assert only_a.region.class_name == "A Tumor, B background"
    assert only_a.region.metadata == {"A": "Tumor", "B": "background"}
    assert only_a.region.measurements["Area mm^2"] == pytest.approx(0.01)


def test_the_same_twice_agrees_in_everything():
    one = everywhere(Region(box(400, 400, 800, 800), TUMOR), Region(box(0, 0, 99, 99), STROMA))
    found = compared(one, one)
    for kind in found.classes:
        assert kind.dice == kind.iou == kind.kappa == Score(1.0)
    assert found.kappa == Score(1.0)
    assert (found.differences, found.slivers) == ((), 0)
    assert found.classes[0].boundary.mean_um == 0


def test_only_what_both_have_marked_is_compared():
    one = [Region(box(0, 0, 1200, 1600), WHERE), Region(box(100, 100, 300, 300), TUMOR)]
    two = [Region(box(800, 0, 2000, 1600), WHERE), Region(box(900, 0, 1000, 1600), IGNORED)]
    found = compared(one, two)
    assert found.area_mm2 == pytest.approx((0.4 - 0.1) * 0.8 * 0.5)
    assert found.differences == ()  # A's lesion lies where B did not look
    assert found.classes[0].dice == Score(None, "neither has Tumor")


def test_a_rectangle_or_a_complete_slide_need_no_region():
    one, two = [Region(box(0, 0, 400, 400), TUMOR)], [Region(box(0, 0, 400, 200), TUMOR)]
    with pytest.raises(AnnotationError, match=r"A has no Region\*"):
        compared(one, two)
    found = compared(one, two, rect=Rect(0, 0, 400, 400))
    assert found.area_mm2 == pytest.approx(0.04)
    assert found.kappa == Score(None, "A has Tumor throughout")
    assert found.observed.value == pytest.approx(0.5)
    whole = compared(one, two, fully_annotated=True)
    assert whole.area_mm2 == pytest.approx(0.8)
    assert whole.kappa.value < 1


def test_a_rater_who_saw_nothing_has_no_kappa_and_it_says_who():
    found = compared(everywhere(Region(box(0, 0, 99, 99), TUMOR)), everywhere(), raters=("x", "y"))
    assert found.kappa == Score(None, "y has background throughout")
    assert found.classes[0].kappa == Score(None, "y has no Tumor throughout")
    assert found.classes[0].boundary is None
    assert found.observed.value > 0.99


def test_regions_that_do_not_meet_are_refused():
    one, two = [Region(box(0, 0, 9, 9), WHERE)], [Region(box(20, 0, 30, 9), WHERE)]
    with pytest.raises(AnnotationError, match="no place in which both A and B are complete"):
        compared(one, two)
    tiny = [Region(box(0.1, 0.1, 0.2, 0.2), WHERE)]
    with pytest.raises(AnnotationError, match="No pixel of 2 µm"):
        compared(tiny, tiny)


def test_small_differences_are_counted_not_listed():
    one = everywhere(Region(box(400, 400, 800, 800), TUMOR), Region(box(0, 0, 8, 8), TUMOR))
    two = everywhere(Region(box(500, 400, 900, 800), TUMOR))
    found = compared(one, two, min_um2=17)
    assert (len(found.differences), found.slivers) == (2, 1)
    assert found.slivers_mm2 == pytest.approx(16e-6)
    assert len(compared(one, two, min_um2=16).differences) == 3


def test_broken_shapes_are_refused_or_mended():
    bow_tie = Region(Polygon([(0, 0), (400, 400), (400, 0), (0, 400)]), TUMOR)
    with pytest.raises(AnnotationError, match="crosses itself"):
        compared(everywhere(bow_tie), everywhere())
    found = compared(everywhere(bow_tie), everywhere(), mend=True)
    assert "mended" in found.notes[0]


def test_figures_are_those_of_the_masks(monkeypatch):
    """Random shapes in many bands, against masks that are painted whole."""
    monkeypatch.setattr(raster, "BAND_BYTES", 1)
    rng = np.random.default_rng(1)
    sides = []
    for _ in range(2):
        corners = rng.uniform(0, 1500, (30, 2))
        sides.append(
            everywhere(
                *(
                    Region(box(x, y, x + rng.uniform(20, 400), y + 200), (TUMOR, STROMA)[i % 2])
                    for i, (x, y) in enumerate(corners)
                ),
                Region(box(700, 700, 900, 900), IGNORED),
            )
        )
    comparison = prepare_comparison(*sides, INFO, 0.7)
    found = judge(comparison, pair_bands(comparison))
    table = LabelTable.of([TUMOR, STROMA])
    masks = []
    for side in sides:
        painting = raster.prepare(side, comparison.grid, table)
        masks.append(np.concatenate(list(raster.bands(painting))))
    assert masks[0].shape[0] > 2 * 512
    both = (masks[0] != 255) & (masks[1] != 255)
    expected = [
        [int((both & (masks[0] == a) & (masks[1] == b)).sum()) for b in (1, 2, 0)]
        for a in (1, 2, 0)
    ]
    np.testing.assert_array_equal(found.confusion.counts, expected)
    differing = np.sum(both & (masks[0] != masks[1]))
    assert sum(d.area_mm2 for d in found.differences) == pytest.approx(differing * 0.49e-6)
    areas = [d.area_mm2 for d in found.differences]
    assert areas == sorted(areas, reverse=True)
    bands, meaning = difference_map(comparison)
    whole = np.concatenate(list(bands))
    np.testing.assert_array_equal(whole == meaning.unlabelled, ~both)
    np.testing.assert_array_equal(whole == 0, both & (masks[0] == masks[1]))
    value = next(v for v, name in meaning.names.items() if name == "A Tumor, B Stroma")
    np.testing.assert_array_equal(whole == value, both & (masks[0] == 1) & (masks[1] == 2))
