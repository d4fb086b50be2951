"""The map of differences that is looked at: kinds, thinning, bands of any height."""

from __future__ import annotations

import numpy as np
import pytest
from shapely.geometry import box

from napari_histomil.annotations import raster
from napari_histomil.annotations.model import Region, class_named
from napari_histomil.review.agreement import judge, pair_bands, prepare_comparison
from napari_histomil.review.difference_picture import (
    ONLY_FIRST,
    ONLY_SECOND,
    OTHER_CLASS,
    SAME,
    PictureMaker,
    thinned,
)
from tests.annotations.mask_material import slide_info

INFO = slide_info(2000, 1600, (0.5, 0.5))
TUMOR, STROMA, WHERE = class_named("Tumor"), class_named("Stroma"), class_named("Region*")


def drawn(first, second, mpp=2.0, longest_px=4096):
    comparison = prepare_comparison(first, second, INFO, mpp)
    maker = PictureMaker(comparison, longest_px)
    judge(comparison, maker.watching(pair_bands(comparison)))
    return maker.picture()


@pytest.fixture
def readers():
    """Compared is x < 1200; pixels are 4 x 4 of the slide."""
    area = Region(box(0, 0, 1200, 1600), WHERE)
    mine = [area, Region(box(100, 100, 300, 300), TUMOR), Region(box(600, 600, 700, 700), TUMOR)]
    theirs = [
        area,
        Region(box(200, 100, 400, 300), TUMOR),
        Region(box(600, 600, 700, 700), STROMA),
        Region(box(1300, 100, 1400, 200), TUMOR),  # where it is not known what I see
    ]
    return mine, theirs


def test_each_place_says_who_has_drawn_what(readers):
    picture = drawn(*readers)
    assert picture.pixel_px0 == (4.0, 4.0)
    expected = np.zeros((400, 500), np.uint8)
    expected[25:75, 25:50] = ONLY_FIRST
    expected[25:75, 75:100] = ONLY_SECOND
    expected[150:175, 150:175] = OTHER_CLASS
    np.testing.assert_array_equal(picture.kinds, expected)


@pytest.mark.parametrize("longest_px", [499, 170, 77, 3])
def test_a_thinned_map_is_that_of_the_whole_however_it_comes(readers, longest_px, monkeypatch):
    whole = drawn(*readers).kinds
    monkeypatch.setattr(raster, "band_rows", lambda *_: 7)
    picture = drawn(*readers, longest_px=longest_px)
    step = -(-500 // longest_px)
    assert picture.pixel_px0 == (4.0 * step, 4.0 * step)
    assert max(picture.kinds.shape) <= longest_px
    np.testing.assert_array_equal(picture.kinds, thinned(whole, step))


def test_no_difference_is_thinned_away():
    kinds = np.zeros((9, 10), np.uint8)
    kinds[4, 4] = OTHER_CLASS
    kinds[0, 8:] = ONLY_FIRST
    kinds[1, 8] = ONLY_SECOND
    assert (thinned(kinds, 4) == [[0, 0, ONLY_FIRST], [0, OTHER_CLASS, 0], [0, 0, 0]]).all()
    assert (thinned(np.zeros((5, 5), np.uint8), 2) == SAME).all()
    np.testing.assert_array_equal(thinned(kinds, 1), kinds)
