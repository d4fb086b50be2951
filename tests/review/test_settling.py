"""Two readers' regions: which answer each other, and what settling does."""

from __future__ import annotations

import pytest
from shapely.geometry import LineString, MultiPolygon, Point, Polygon, box

from napari_histomil.annotations.collection import AnnotationSet
from napari_histomil.annotations.model import Region, class_named
from napari_histomil.annotations.stamps import Stamp
from napari_histomil.errors import AnnotationError
from napari_histomil.review.settling import disagreements, settle

STAMP = Stamp("Ada", "2026-01-02T03:04:05Z")
TUMOR, STROMA = class_named("Tumor"), class_named("Stroma")


def differ(mine, theirs, tolerance=5.0):
    return disagreements(mine, theirs, tolerance_px0=tolerance)


def kinds(mine, theirs, tolerance=5.0):
    return [each.kind for each in differ(mine, theirs, tolerance)]


def test_readers_who_agree_have_nothing_to_settle():
    mine = [Region(box(0, 0, 100, 100), TUMOR), Region(Point(5, 5), STROMA)]
    theirs = [Region(box(0, 0, 100, 101), TUMOR), Region(Point(6, 6), STROMA)]
    assert kinds(mine, theirs) == []
    assert kinds([], []) == []


def test_each_kind_is_told_from_top_to_bottom():
    mine = [
        Region(box(0, 300, 100, 400), TUMOR),
        Region(box(0, 0, 100, 100), TUMOR),
        Region(box(0, 600, 100, 700), STROMA),
    ]
    theirs = [
        Region(box(0, 300, 100, 370), TUMOR),
        Region(box(0, 0, 100, 100), STROMA),
        Region(box(0, 900, 100, 990), STROMA),
    ]
    found = differ(mine, theirs)
    assert [each.kind for each in found] == [
        "other class", "other outline", "only mine", "only theirs",
    ]  # fmt: skip
    assert [each.iou for each in found] == pytest.approx([1, 0.7, 0, 0])
    assert [each.sentence("Bo") for each in found] == [
        "Tumor here, Stroma for Bo",
        "Tumor: outlines share 70%",
        "Stroma: Bo has nothing here",
        "Stroma: only Bo has it",
    ]


def test_the_better_partner_is_taken_whatever_the_order():
    mine = [Region(box(0, 0, 100, 60), TUMOR), Region(box(0, 0, 100, 100), TUMOR)]
    theirs = [Region(box(0, 0, 100, 99), TUMOR)]
    (left,) = differ(mine, theirs)
    assert (left.kind, left.mine) == ("only mine", mine[0])


def test_lines_and_points_answer_each_other_within_the_tolerance():
    mine = [Region(LineString([(0, 0), (100, 0)]), TUMOR)]
    assert kinds(mine, [Region(LineString([(0, 4), (100, 4)]), TUMOR)]) == []
    assert kinds(mine, [Region(LineString([(0, 4), (100, 9)]), TUMOR)]) == [
        "only mine", "only theirs",
    ]  # fmt: skip
    assert len(kinds([Region(Point(0, 0))], [Region(box(0, 0, 9, 9))])) == 2


def test_a_broken_outline_is_compared_by_what_it_covers():
    bow = Polygon([(0, 0), (10, 10), (10, 0), (0, 10)])
    covered = MultiPolygon(
        [Polygon([(0, 0), (5, 5), (0, 10)]), Polygon([(10, 0), (10, 10), (5, 5)])]
    )
    assert kinds([Region(bow, TUMOR)], [Region(covered, TUMOR)], 0.1) == []


def settled(mine, theirs, choice):
    """Settle the one difference of two sets; return the regions that there are then."""
    regions = AnnotationSet(mine)
    (difference,) = differ(mine, theirs)
    command = settle(regions, difference, choice, "Bo", STAMP)
    if command is not None:
        regions.do(command)
        assert regions.undo() is not None
        assert list(regions) == mine, "one step takes it back"
        regions.redo()
    return list(regions)


def test_what_only_one_has_goes_or_comes():
    one = Region(box(0, 0, 9, 9), TUMOR)
    assert settled([one], [], "theirs") == []
    assert settled([one], [], "mine") == settled([one], [], "both") == [one]
    assert settled([], [one], "theirs") == settled([], [one], "both") == [one]
    assert settled([], [one], "mine") == []


def test_a_class_is_taken_kept_or_both_are_there():
    mine, theirs = Region(box(0, 0, 9, 9), TUMOR), Region(box(0, 0, 9, 9), STROMA)
    (taken,) = settled([mine], [theirs], "theirs")
    assert (taken.id, taken.class_name, taken.edited) == (mine.id, "Stroma", STAMP.time)
    assert settled([mine], [theirs], "mine") == [mine]
    assert settled([mine], [theirs], "both") == [mine, theirs]
    copy = theirs.but(id=mine.id)  # a set that began as a copy of mine
    both = settled([mine], [copy], "both")
    assert [each.class_name for each in both] == ["Tumor", "Stroma"]
    assert both[0].id != both[1].id


def test_a_class_comes_with_its_outline_where_that_differs_too():
    mine, theirs = Region(box(0, 0, 10, 10), TUMOR), Region(box(0, 0, 10, 8), STROMA)
    (taken,) = settled([mine], [theirs], "theirs")
    assert (taken.class_name, taken.geometry) == ("Stroma", theirs.geometry)


def test_an_outline_is_taken_or_joined():
    mine, theirs = Region(box(0, 0, 10, 10), TUMOR), Region(box(2, 0, 12, 10), TUMOR)
    (taken,) = settled([mine], [theirs], "theirs")
    assert (taken.id, taken.geometry) == (mine.id, theirs.geometry)
    (joined,) = settled([mine], [theirs], "both")
    assert joined.geometry.equals(box(0, 0, 12, 10))


def test_a_fixed_region_and_one_that_has_changed_are_refused():
    mine = Region(box(0, 0, 10, 10), TUMOR, locked=True)
    (difference,) = differ([mine], [])
    with pytest.raises(AnnotationError, match="locked"):
        settle(AnnotationSet([mine]), difference, "theirs", "Bo", STAMP)
    changed = AnnotationSet([mine.but(name="other")])
    with pytest.raises(AnnotationError, match="compare again"):
        settle(changed, difference, "theirs", "Bo", STAMP)
