"""Lesions of an annotation: how long, in which group, and what the model gave at best."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from shapely import Point, Polygon, box

from napari_histomil.annotations.model import Region, class_named
from napari_histomil.errors import AnnotationError
from napari_histomil.review.lesions import lesions_of, longest_axis_um, size_group
from napari_histomil.review.tile_scores import TileScores

MPP = (0.5, 0.25)


def tumor(shape, name="Tumor"):
    return Region(shape, class_named(name))


@pytest.fixture
def tiles():
    """Four cells of 1000 px side by side; the last was not looked at."""
    rects = np.array([[n * 1000.0, 0, 1000, 1000] for n in range(4)])
    return TileScores(
        Path("a.svs"), "f" * 64, rects, np.array([0.1, 0.8, 0.3, math.nan]), "P(tumor)", "m"
    )


def test_each_lesion_has_its_size_and_the_best_score_in_it(tiles):
    cells = tumor(box(10, 10, 210, 110))  # 100 x 25 µm, in the first tile
    micro = tumor(box(500, 0, 2500, 800))  # 1000 x 200 µm, over three
    macro = tumor(box(-3000, 5000, 3000, 6000))  # 3000 x 250 µm, where no tile is
    other = tumor(box(0, 0, 10, 10), "Stroma")
    found = lesions_of([cells, other, micro, macro, tumor(Point(1, 1))], "Tumor", tiles, MPP)
    assert [each.region for each in found] == [macro.id, cells.id, micro.id]
    assert [each.group for each in found] == ["macro", "isolated cells", "micro"]
    assert math.isnan(found[0].best)
    assert [each.best for each in found[1:]] == [0.1, 0.8]
    assert [each.tiles for each in found] == [0, 1, 3]
    assert found[1].longest_mm == pytest.approx(math.hypot(0.1, 0.025))
    assert found[2].area_mm2 == pytest.approx(1.0 * 0.2)
    assert (found[2].xy_px0, found[2].size_px0) == ((500, 0), (2000, 800))


def test_groups_end_where_the_classification_says():
    groups = [size_group(mm) for mm in (0.2, 0.2001, 2.0, 2.001)]
    assert groups == ["isolated cells", "micro", "micro", "macro"]
    ring = Point(0, 0).buffer(100).difference(Point(0, 0).buffer(50))
    assert longest_axis_um(ring, (1.0, 1.0)) == pytest.approx(200, rel=1e-3)


def test_a_broken_outline_is_a_sentence(tiles):
    bow = tumor(Polygon([(0, 0), (10, 10), (10, 0), (0, 10)]))
    with pytest.raises(AnnotationError, match="crosses itself"):
        lesions_of([bow], "Tumor", tiles, MPP)
