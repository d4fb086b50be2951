"""Many regions reshaped at once: what comes of them, what is kept, what is refused."""

from __future__ import annotations

import pytest
from shapely.geometry import LineString, MultiPolygon, Point, Polygon, box

from napari_histomil.annotations import bulk
from napari_histomil.annotations.collection import AnnotationSet
from napari_histomil.annotations.model import Extra, Region, class_named
from napari_histomil.annotations.stamps import Stamp
from napari_histomil.errors import AnnotationError

STAMP = Stamp("Ada", "2026-01-02T03:04:05Z")
TUMOR, STROMA = class_named("Tumor"), class_named("Stroma")
ELLIPSE = Extra(geometry={"isEllipse": True})


def after(regions, make, *args):
    """Return what there is after a step on all of them; the step can be taken back exactly."""
    there = AnnotationSet(regions)
    there.do(make(there, [region.id for region in regions], *args, STAMP))
    result = list(there)
    there.undo()
    assert list(there) == list(regions)
    return result


def test_merged_regions_are_one_with_all_notes_and_children():
    child = Region(Point(1, 1))
    small = Region(box(0, 0, 10, 10), TUMOR, metadata={"note": "left"}, children=(child,))
    large = Region(box(20, 0, 50, 10), TUMOR, name="A", metadata={"note": "right"}, extra=ELLIPSE)
    (one,) = after([small, large], bulk.merge)
    assert (one.id, one.name, one.note, one.children) == (large.id, "A", "left\nright", (child,))
    assert one.geometry.area == 400
    assert "isEllipse" not in one.extra.geometry


def test_what_cannot_be_merged_is_refused():
    there = AnnotationSet([Region(box(0, 0, 9, 9), TUMOR), Region(box(0, 0, 9, 9), STROMA)])
    ids = [region.id for region in there]
    with pytest.raises(AnnotationError, match=r"different classes \(Tumor, Stroma\)"):
        bulk.merge(there, ids, STAMP)
    with pytest.raises(AnnotationError, match="two regions or more"):
        bulk.merge(there, ids[:1], STAMP)
    lines = AnnotationSet([Region(LineString([(0, 0), (1, n)])) for n in (1, 2)])
    with pytest.raises(AnnotationError, match="no area"):
        bulk.merge(lines, [region.id for region in lines], STAMP)


def test_parts_become_regions_of_their_own_and_the_largest_keeps_the_id():
    whole = Region(MultiPolygon([box(0, 0, 5, 5), box(10, 0, 20, 10)]), TUMOR, name="A")
    single = Region(box(50, 50, 60, 60))
    found = after([whole, single], bulk.take_apart)
    assert {region.geometry.area for region in found} == {100, 25}
    by_area = {region.geometry.area: region for region in found if region.id != single.id}
    assert by_area[100].id == whole.id
    assert (by_area[25].name, by_area[25].class_name) == ("A", "Tumor")
    with pytest.raises(AnnotationError, match="several parts"):
        bulk.take_apart(AnnotationSet([single]), [single.id], STAMP)


def test_holes_are_filled_where_there_are_any():
    holed = Region(box(0, 0, 10, 10) - box(2, 2, 4, 4), TUMOR)
    found = after([holed, Region(Point(0, 0)), Region(box(0, 0, 1, 1))], bulk.fill_holes)
    assert [region.geometry.area for region in found] == [100, 0, 1]
    assert [bool(region.edited) for region in found] == [True, False, False]
    with pytest.raises(AnnotationError, match="holes"):
        bulk.fill_holes(AnnotationSet(), [], STAMP)


def test_simplifying_says_how_much_it_left_out_and_refuses_to_do_nothing():
    many = Region(Point(0, 0).buffer(100, quad_segs=32), TUMOR)
    there = AnnotationSet([many, Region(box(0, 0, 9, 9))])
    command = bulk.simplify(there, [region.id for region in there], 2.0, STAMP)
    assert list(command.added) == [many.id]
    assert command.text.startswith("simplify 1 region, 129 to ")
    with pytest.raises(AnnotationError, match="larger tolerance"):
        bulk.simplify(there, [region.id for region in there][1:], 1.0, STAMP)


def test_broken_regions_are_mended_and_sound_ones_left():
    bow = Region(Polygon([(0, 0), (10, 10), (10, 0), (0, 10)]), TUMOR)
    mended, sound = after([bow, Region(box(0, 0, 1, 1))], bulk.mend)
    assert mended.problem() is None
    assert mended.geometry.area == pytest.approx(50)
    assert not sound.edited


def test_a_measurement_goes():
    region = Region(box(0, 0, 1, 1), measurements={"Ki-67 %": 12.0, "grade": 2.0})
    there = AnnotationSet([region])
    there.do(bulk.remove_measurement(there, region.id, "grade", STAMP))
    assert there.get(region.id).measurements == {"Ki-67 %": 12.0}


def test_a_fixed_region_is_refused():
    fixed = Region(box(0, 0, 10, 10) - box(2, 2, 4, 4), locked=True)
    with pytest.raises(AnnotationError, match="locked"):
        bulk.fill_holes(AnnotationSet([fixed]), [fixed.id], STAMP)
