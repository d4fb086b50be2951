"""Which tiles a gallery lists: by hand on a row of tiles, of one slide and of several."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from napari_histomil.errors import RunError
from napari_histomil.review.gallery import Choice, select, write_patches
from napari_histomil.review.tile_scores import TileScores

NAN = math.nan


def row_of_tiles(scores, truth=None, *, name="a", apart=10, features=None, **changes):
    """Tiles of 100 px in one row, `apart` cells from one to the next: none lies beside another."""
    count = len(scores)
    rects = np.tile([0.0, 0.0, 100.0, 100.0], (count, 1))
    rects[:, 0] = np.arange(count) * 100 * apart
    given = {
        "what": "P(tumor)",
        "model": "m",
        "truth": None if truth is None else np.array(truth, float),
        "features": None if features is None else np.array(features, np.float32),
    }
    return TileScores(
        Path(f"{name}.svs"), name * 64, rects, np.array(scores, float), **{**given, **changes}
    )


def listed(tiles, kind, **changes):
    """Names of slides and numbers of tiles that are listed, in order."""
    found = select(tiles, Choice(kind, **changes))
    apart = 1000
    return [(each.slide.stem, round(each.xy_px0[0] / apart)) for each in found]


SCORES = [0.9, 0.2, 0.54, NAN, 0.45, 0.7, 0.1, 0.05]
TRUTH = [0.0, 1.0, 0.2, 1.0, 0.8, 1.0, 0.5, NAN]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("false positives", [0, 2]),
        ("false negatives", [6, 1, 4]),
        ("confidently wrong", [0, 6, 1, 4, 2]),
        ("most uncertain", [2, 4, 5, 1, 0, 6, 7]),
        ("highest", [0, 5, 2, 4, 1, 6, 7]),
        ("lowest", [7, 6, 1, 4, 2, 5, 0]),
    ],
)
def test_each_kind_lists_its_tiles_in_order_of_worth(kind, expected):
    assert listed([row_of_tiles(SCORES, TRUTH)], kind) == [("a", n) for n in expected]


def test_threshold_and_share_decide_what_is_wrong():
    tiles = [row_of_tiles(SCORES, TRUTH)]
    assert listed(tiles, "false positives", threshold=0.6) == [("a", 0)]
    assert listed(tiles, "false negatives", positive_share=0.9) == [("a", 1)]
    assert listed(tiles, "false positives", positive_share=1.0) == [("a", 0), ("a", 2)]


def test_random_is_the_same_for_a_seed_and_does_not_change_with_more_slides():
    one, two = row_of_tiles(np.full(50, 0.5)), row_of_tiles(np.full(50, 0.5), name="b")
    first = listed([one], "random", count=50, a_slide=None, seed=3)
    assert sorted(first) == [("a", n) for n in range(50)]
    assert first == listed([one], "random", count=50, a_slide=None, seed=3)
    assert first != listed([one], "random", count=50, a_slide=None, seed=4)
    both = listed([one, two], "random", count=100, a_slide=None, seed=3)
    assert [each for each in both if each[0] == "a"] == first


def test_a_slide_gives_at_most_so_many_and_the_next_one_follows():
    one, two = row_of_tiles([0.9, 0.8, 0.7]), row_of_tiles([0.6, 0.5], name="b")
    assert listed([one, two], "highest", a_slide=2) == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]
    assert listed([one, two], "highest", a_slide=2, count=3)[-1] == ("b", 0)


def test_neighbours_stand_behind_the_foremost_of_them():
    # five tiles side by side: the highest takes both neighbours, the next the rest
    tiles = row_of_tiles([0.5, 0.6, 0.9, 0.7, 0.65], apart=1)
    found = select([tiles], Choice("highest"))
    assert [each.score for each in found] == [0.9, 0.65, 0.5]
    assert [[other.score for other in each.alike] for each in found] == [[0.7, 0.6], [], []]
    assert len(select([tiles], Choice("highest", group=False))) == 5


def test_what_looks_alike_is_listed_once_over_all_slides():
    one = row_of_tiles([0.9, 0.8], features=[[1, 0], [0, 1]])
    two = row_of_tiles([0.85, 0.7, 0.6], name="b", features=[[2, 0.01], [1, 1], [NAN, NAN]])
    found = select([one, two], Choice("highest"))
    assert [each.score for each in found] == [0.9, 0.8, 0.7, 0.6]
    assert [(other.slide.stem, other.score) for other in found[0].alike] == [("b", 0.85)]


def test_a_patch_says_where_it_is_and_why():
    (patch, *_) = select([row_of_tiles(SCORES, TRUTH)], Choice("false negatives"))
    assert patch.slide == Path("a.svs")
    assert patch.xy_px0 == (6000, 0)
    assert patch.size_px0 == (100, 100)
    assert patch.why == "P(tumor) 0.1, 50% of it positive"
    assert patch.truth == 0.5
    unknown = select([row_of_tiles([0.5])], Choice("highest"))
    assert math.isnan(unknown[0].truth)
    assert unknown == select([row_of_tiles([0.5])], Choice("highest"))


def test_what_cannot_be_listed_is_one_sentence():
    with pytest.raises(RunError, match="choose a ground truth first"):
        select([row_of_tiles(SCORES)], Choice("false positives"))
    attention = row_of_tiles(SCORES, TRUTH, is_probability=False, what="attention x uniform")
    with pytest.raises(RunError, match="no probability: list the highest"):
        select([attention], Choice("false positives"))
    with pytest.raises(RunError, match="There is no selection 'worst'"):
        Choice("worst")
    with pytest.raises(RunError, match="they are of different runs"):
        row_of_tiles(SCORES, TRUTH[:3])


def test_nothing_to_list_is_an_empty_gallery():
    assert select([], Choice("highest")) == []
    assert select([row_of_tiles([NAN, NAN])], Choice("highest")) == []
    assert select([row_of_tiles([0.1, 0.2], [0.0, 0.0])], Choice("false positives")) == []


def test_a_gallery_is_a_table_with_what_was_said(tmp_path):
    patches = select([row_of_tiles(SCORES, TRUTH)], Choice("highest", count=2))
    said = {0.9: {"right": "wrong", "tags": ("fold", "pen")}, 0.7: {}}
    write_patches(patches, tmp_path / "g.csv", lambda patch: said[patch.score])
    assert (tmp_path / "g.csv").read_text("utf-8").splitlines() == [
        "slide,x_px0,y_px0,width_px0,height_px0,score,truth,why,alike,right,tags",
        'a.svs,0,0,100,100,0.9,0,"P(tumor) 0.9, 0% of it positive",0,wrong,fold; pen',
        'a.svs,5000,0,100,100,0.7,1,"P(tumor) 0.7, 100% of it positive",0,,',
    ]
