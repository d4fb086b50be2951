"""Commands: what each changes, what it leaves, what is stamped, what is refused."""

from __future__ import annotations

import math

import pytest
import shapely
from shapely.geometry import Point, Polygon, box

from napari_histomil.annotations import commands
from napari_histomil.annotations.collection import AnnotationSet
from napari_histomil.annotations.model import Extra, Region, class_named, each_but
from napari_histomil.annotations.stamps import Stamp, system_user
from napari_histomil.errors import AnnotationError

THEN = Stamp("Ada", "2026-01-02T03:04:05Z")
LATER = Stamp("Bo", "2026-01-02T04:00:00Z")
TUMOR, STROMA = class_named("Tumor"), class_named("Stroma")


def drawn(*shapes, **more) -> AnnotationSet:
    regions = AnnotationSet()
    regions.do(commands.add([Region(shape, **more) for shape in shapes], THEN))
    return regions


def ids(regions: AnnotationSet) -> list[str]:
    return [region.id for region in regions]


def test_a_drawn_region_has_author_and_time_and_an_edit_its_own_time():
    regions = drawn(box(0, 0, 9, 9))
    (region,) = regions
    assert (region.author, region.created, region.edited) == ("Ada", THEN.time, "")
    command = commands.set_class(regions, ids(regions), TUMOR, LATER)
    assert command.text == "set class of 1 region to Tumor"
    regions.do(command)
    (region,) = regions
    assert (region.author, region.created, region.edited) == ("Ada", THEN.time, LATER.time)
    assert region.class_name == "Tumor"
    regions.do(commands.set_class(regions, ids(regions), None, LATER))
    assert next(iter(regions)).class_name is None


def test_a_stamp_is_of_now_and_of_the_user_of_the_system():
    stamp = Stamp.now()
    assert stamp.author == system_user()
    assert len(stamp.time) == len("2026-01-02T03:04:05Z")
    assert stamp.time.endswith("Z")
    assert Stamp.now("").author == ""


def test_what_the_file_said_of_the_old_class_goes_with_it():
    extra = Extra(classification={"note": 1}, properties={"mine": 2})
    regions = AnnotationSet([Region(Point(1, 1), classification=TUMOR, extra=extra)])
    regions.do(commands.set_class(regions, ids(regions), STROMA, LATER))
    assert next(iter(regions)).extra == Extra(properties={"mine": 2})


@pytest.mark.parametrize(
    ("make", "read", "value"),
    [
        (lambda s: commands.set_name(s, ids(s), "A", LATER), lambda r: r.name, "A"),
        (lambda s: commands.set_name(s, ids(s), "", LATER), lambda r: r.name, None),
        (lambda s: commands.set_note(s, ids(s), "odd", LATER), lambda r: r.note, "odd"),
        (lambda s: commands.set_color(s, ids(s), (1, 2, 3), LATER), lambda r: r.color, (1, 2, 3)),
        (lambda s: commands.set_locked(s, ids(s), True, LATER), lambda r: r.locked, True),
        (
            lambda s: commands.set_measurements(s, {i: {"b": 2.0} for i in ids(s)}, LATER),
            lambda r: dict(r.measurements),
            {"a": 1.0, "b": 2.0},
        ),
        (
            lambda s: commands.set_state(s, ids(s), "reviewed", LATER),
            lambda r: (r.state, r.reviewer),
            ("reviewed", "Bo"),
        ),
    ],
)
def test_words_about_regions(make, read, value):
    regions = drawn(box(0, 0, 9, 9), Point(1, 1), measurements={"a": 1.0}, name="old")
    before = list(regions)
    regions.do(make(regions))
    assert [read(region) for region in regions] == [value, value]
    assert [region.edited for region in regions] == [LATER.time] * 2
    regions.undo()
    assert list(regions) == before


def test_a_state_is_taken_back_with_its_reviewer_and_an_empty_note_is_none():
    regions = drawn(box(0, 0, 9, 9))
    regions.do(commands.set_note(regions, ids(regions), "odd", LATER))
    regions.do(commands.set_state(regions, ids(regions), "locked", LATER))
    regions.do(commands.set_state(regions, ids(regions), "draft", LATER))
    regions.do(commands.set_note(regions, ids(regions), "", LATER))
    assert set(next(iter(regions)).metadata) == {"author", "created", "edited"}


@pytest.mark.parametrize("fix", ["locked", "state"])
def test_fixed_regions_are_refused_but_can_be_spoken_of_and_freed(fix):
    regions = drawn(box(0, 0, 9, 9), box(20, 0, 29, 9), name="A")
    first = ids(regions)[:1]
    if fix == "locked":
        regions.do(commands.set_locked(regions, first, True, LATER))
    else:
        regions.do(commands.set_state(regions, first, "locked", LATER))
    everyone = ids(regions)
    for refused in (
        lambda: commands.delete(regions, everyone),
        lambda: commands.set_class(regions, everyone, TUMOR, LATER),
        lambda: commands.set_name(regions, everyone, "B", LATER),
        lambda: commands.move(regions, everyone, (1, 1), LATER),
        lambda: commands.reshape(regions, dict.fromkeys(everyone, Point(0, 0)), "brush", LATER),
        lambda: commands.exchange(regions, everyone, [], "merge", LATER),
        lambda: commands.bring_in(regions, list(regions), "a.xml", known="replace"),
    ):
        with pytest.raises(AnnotationError, match=r"Region 'A' \(\w+\) is locked and cannot be"):
            refused()
    regions.do(commands.set_note(regions, everyone, "why?", LATER))
    regions.do(commands.set_locked(regions, everyone, False, LATER))
    regions.do(commands.set_state(regions, everyone, "draft", LATER))
    regions.do(commands.delete(regions, everyone))
    assert len(regions) == 0


def test_many_fixed_regions_are_counted():
    regions = drawn(*(box(x, 0, x + 9, 9) for x in (0, 20, 40)))
    regions.do(commands.set_locked(regions, ids(regions)[1:], True, LATER))
    with pytest.raises(AnnotationError, match="2 of 3 regions are locked"):
        commands.delete(regions, ids(regions))


def test_imports_come_as_they_are_and_known_ids_as_one_chooses():
    regions = drawn(box(0, 0, 9, 9))
    (old,) = regions
    again = old.but(name="again")
    new = Region(box(50, 0, 59, 9), metadata={"author": "X"})
    for known, expected, text in (
        ("copy", ["", "again", ""], "import 2 regions from a.geojson"),
        ("replace", ["again", ""], "import 2 regions from a.geojson (1 replaced)"),
        ("skip", ["", ""], "import 1 region from a.geojson (1 were there already)"),
    ):
        command = commands.bring_in(regions, [again, new], "a.geojson", known=known)
        assert command.text == text
        regions.do(command)
        assert [region.name or "" for region in regions] == expected
        assert list(regions)[-1] == new
        regions.undo()
        assert list(regions) == [old]


def test_moving_takes_nucleus_and_children_along_and_leaves_ellipses_be():
    child = Region(Point(1, 2))
    cell = Region(
        box(0, 0, 9, 9),
        nucleus=box(2, 2, 4, 4),
        children=(child,),
        extra=Extra(geometry={"isEllipse": True}),
    )
    regions = AnnotationSet([cell])
    regions.do(commands.move(regions, [cell.id], (10, 20), LATER))
    (moved,) = regions
    assert moved.geometry.equals(box(10, 20, 19, 29))
    assert moved.nucleus.equals(box(12, 22, 14, 24))
    assert moved.children[0].geometry == Point(11, 22)
    assert moved.extra.geometry == {"isEllipse": True}
    assert (moved.id, moved.children[0].id) == (cell.id, child.id)
    regions.undo()
    assert list(regions) == [cell]


def test_a_turn_is_no_ellipse_of_the_bounds_any_more():
    regions = AnnotationSet([Region(box(0, 0, 4, 2), extra=Extra(geometry={"isEllipse": True}))])
    c, s = math.cos(0.5), math.sin(0.5)
    regions.do(commands.transform(regions, ids(regions), (c, -s, s, c, 7, 0), LATER))
    (turned,) = regions
    assert turned.extra.geometry == {}
    corners = shapely.get_coordinates(turned.geometry)
    assert any(corner == pytest.approx((4 * c + 7, 4 * s)) for corner in corners)
    assert turned.geometry.area == pytest.approx(8)


def test_reshaping_gives_other_geometries_and_ends_an_ellipse():
    regions = drawn(box(0, 0, 4, 2), extra=Extra(geometry={"isEllipse": True, "plane": {"z": 1}}))
    (old,) = regions
    regions.do(commands.reshape(regions, {old.id: box(0, 0, 5, 5)}, "brush", LATER))
    (new,) = regions
    assert (new.geometry, new.extra.geometry) == (box(0, 0, 5, 5), {"plane": {"z": 1}})
    assert (new.author, new.edited) == ("Ada", LATER.time)


def test_copies_are_drafts_of_their_own():
    regions = drawn(box(0, 0, 4, 2), name="A", classification=TUMOR)
    regions.do(commands.set_note(regions, ids(regions), "odd", THEN))
    regions.do(commands.set_state(regions, ids(regions), "reviewed", THEN))
    regions.do(commands.duplicate(regions, ids(regions), (10, 0), LATER))
    old, copy = regions
    assert copy.id != old.id
    assert copy.geometry.equals(box(10, 0, 14, 2))
    assert (copy.name, copy.class_name, copy.note) == ("A", "Tumor", "odd")
    assert (copy.author, copy.created, copy.state) == ("Bo", LATER.time, "draft")


def test_exchange_replaces_one_drops_one_adds_one():
    regions = drawn(box(0, 0, 9, 9), box(20, 0, 29, 9), box(40, 0, 49, 9))
    a, b, c = regions
    new = Region(box(60, 0, 69, 9))
    bigger = a.but(geometry=box(0, 0, 29, 9))
    command = commands.exchange(regions, [a.id, b.id, c.id], [bigger, c, new], "merge", LATER)
    assert list(command.removed) == [a.id, b.id]
    regions.do(command)
    first, second, third = regions
    assert (first.id, first.geometry, first.edited) == (a.id, bigger.geometry, LATER.time)
    assert second is c
    assert (third.id, third.author) == (new.id, "Bo")


def test_front_and_back():
    regions = drawn(*(box(x, 0, x + 9, 9) for x in (0, 20, 40)))
    a, b, c = regions
    regions.do(commands.restack(regions, [b.id, a.id], on_top=True))
    assert list(regions) == [c, a, b]
    regions.do(commands.restack(regions, [b.id], on_top=False))
    assert list(regions) == [b, c, a]
    regions.undo()
    regions.undo()
    assert list(regions) == [a, b, c]


def test_many_regions_are_checked_like_one():
    regions = [Region(Point(0, 0)), Region(box(0, 0, 1, 1), nucleus=Point(0, 0))]
    moved = each_but(regions, geometry=[Point(1, 1), box(1, 1, 2, 2)])
    assert moved == [
        regions[0].but(geometry=Point(1, 1)),
        regions[1].but(geometry=box(1, 1, 2, 2)),
    ]
    for wrong, words in (
        (Point(math.nan, 0), "not a number"),
        (Point(1e10, 0), "farther out"),
        (shapely.GeometryCollection([Point(0, 0)]), "GeometryCollection"),
        (None, "NoneType"),
    ):
        for bad in (
            lambda wrong=wrong: each_but(regions, geometry=[Point(0, 0), wrong]),
            lambda wrong=wrong: regions[0].but(geometry=wrong),
        ):
            with pytest.raises(AnnotationError, match=words):
                bad()
    with pytest.raises(AnnotationError, match="not a number"):
        each_but(regions, nucleus=[Point(math.nan, 0), None])
    with pytest.raises(AnnotationError, match="UUID"):
        each_but(regions, id=["a", "b"])
    with pytest.raises(AnnotationError, match="UUID"):
        regions[0].but(id="a")
    with pytest.raises(ValueError, match="1 values of name for 2 regions"):
        each_but(regions, name=["a"])
    for bad in (lambda: each_but(regions, colour=[1, 2]), lambda: regions[0].but(colour=1)):
        with pytest.raises(TypeError, match="colour"):
            bad()
    assert each_but([], geometry=[]) == []
    assert Region(Polygon()).but(name="x").geometry.is_empty
