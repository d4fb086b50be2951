"""Sets of regions: undo and redo of everything, exactly; what is where; totals; what is told."""

from __future__ import annotations

import uuid

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from shapely.geometry import LineString, Point, Polygon, box

from napari_histomil.annotations import spatial
from napari_histomil.annotations.collection import AnnotationSet, Change, Command
from napari_histomil.annotations.model import Region, class_named, each_but
from napari_histomil.errors import AnnotationError
from napari_histomil.geometry import Rect

CLASSES = (None, class_named("Tumor"), class_named("Stroma"))


def square(x: float, y: float = 0.0, side: float = 10.0, which: int = 0, **more) -> Region:
    return Region(box(x, y, x + side, y + side), classification=CLASSES[which], **more)


def adds(*regions: Region, at: dict[str, int] | None = None) -> Command:
    return Command("add", added={each.id: each for each in regions}, added_at=at or {})


def drops(*regions: Region) -> Command:
    return Command("delete", removed={each.id: each for each in regions})


def swaps(old: Region, new: Region) -> Command:
    return Command("change", {old.id: old}, {new.id: new})


def test_order_is_the_order_of_drawing_and_deletion_is_undone_in_its_place():
    a, b, c, d = (square(x) for x in (0, 20, 40, 60))
    regions = AnnotationSet([a, b, c])
    regions.do(adds(d))
    assert list(regions) == [a, b, c, d]
    regions.do(drops(b, c))
    assert list(regions) == [a, d]
    regions.undo()
    assert list(regions) == [a, b, c, d]
    regions.redo()
    assert list(regions) == [a, d]
    while regions.undo():
        pass
    assert list(regions) == [a, b, c]


def test_a_changed_region_keeps_its_place_and_a_moved_one_takes_another():
    a, b, c = (square(x) for x in (0, 20, 40))
    regions = AnnotationSet([a, b, c])
    again = a.but(name="A")
    regions.do(swaps(a, again))
    assert list(regions) == [again, b, c]
    regions.do(Command("front", {a.id: again}, {a.id: again}, added_at={a.id: 2}))
    assert list(regions) == [b, c, again]
    assert regions.within(Rect(0, 0, 99, 9)) == [b, c, again]
    regions.undo()
    assert list(regions) == [again, b, c]
    assert regions.within(Rect(0, 0, 99, 9)) == [again, b, c]


def test_new_regions_can_take_a_place():
    a, b, c, d = (square(x) for x in (0, 20, 40, 60))
    regions = AnnotationSet([a, b])
    done = regions.do(adds(c, d, at={c.id: 0, d.id: 2}))
    assert list(regions) == [c, a, d, b]
    assert done.added_at == {c.id: 0, d.id: 2}
    assert regions.do(adds(e := square(80))).added_at == {e.id: 4}


def test_what_is_done_anew_forgets_what_was_undone():
    a, b = square(0), square(20)
    regions = AnnotationSet()
    regions.do(adds(a))
    regions.undo()
    assert (regions.can_undo, regions.can_redo) == (None, "add")
    regions.do(adds(b))
    assert (regions.can_undo, regions.can_redo, regions.redo()) == ("add", None, None)


def test_a_command_for_what_is_not_there_changes_nothing():
    a, b = square(0), square(20)
    regions = AnnotationSet([a])
    told = []
    regions.changed.connect(told.append)
    for wrong in (
        drops(b),
        adds(a),
        swaps(a.but(name="other"), a),
        Command("both", {b.id: b}, {}),
        Command("partly", {a.id: a, b.id: b}, {}),
    ):
        with pytest.raises(AnnotationError):
            regions.do(wrong)
        assert list(regions) == [a]
        assert regions.can_undo is None
    assert told == []
    with pytest.raises(AnnotationError, match="no region"):
        regions.get(b.id)
    with pytest.raises(AnnotationError, match="no region"):
        regions.pick([a.id, b.id])
    with pytest.raises(AnnotationError, match="same id"):
        AnnotationSet([a, a])


def test_an_equal_region_may_stand_for_the_one_that_is_there():
    a = square(0, name="A")
    twin = Region(box(0, 0, 10, 10), id=a.id, name="A")
    regions = AnnotationSet([a])
    regions.do(drops(twin))
    assert len(regions) == 0
    regions.undo()
    assert list(regions) == [a]


def test_what_changed_is_told_with_the_place_it_touched():
    a, b, c = square(0), square(20), square(40, which=1)
    regions = AnnotationSet([a, b])
    told: list[Change] = []
    regions.changed.connect(told.append)
    moved = a.but(geometry=box(100, 50, 110, 60))
    regions.do(Command("mix", {a.id: a, b.id: b}, {a.id: moved, c.id: c}))
    regions.undo()
    regions.do(swaps(b, b.but(name="b")))
    regions.do(adds(nowhere := Region(Polygon())))
    assert told == [
        Change((c.id,), (a.id,), (b.id,), Rect(0, 0, 110, 60)),
        Change((b.id,), (a.id,), (c.id,), Rect(0, 0, 110, 60)),
        Change((), (b.id,), (), Rect(20, 0, 10, 10)),
        Change((nowhere.id,), (), (), None),
    ]


def test_the_topmost_region_at_a_place_comes_first_and_lines_are_hit_with_a_tolerance():
    below, above = square(0), square(5)
    line = Region(LineString([(0, 30), (100, 30)]))
    point = Region(Point(50, 50))
    regions = AnnotationSet([below, above, line, point, Region(Polygon())])
    assert regions.at((7, 7)) == [above, below]
    assert regions.at((2, 2)) == [below]
    assert regions.at((50, 33)) == []
    assert regions.at((50, 33), 3) == [line]
    assert regions.at((53, 54), 5) == [point]
    assert regions.at((53, 54), 4.9) == []
    hole = square(200, side=90).but(geometry=box(200, 0, 290, 90) - box(210, 10, 280, 80))
    regions.do(adds(hole))
    assert regions.at((245, 45), 5) == []
    assert regions.at((205, 45)) == [hole]


def test_totals_count_per_class_and_follow_every_step():
    a, b = square(0, which=1), square(20, side=5, which=1)
    c = square(40, side=2)
    regions = AnnotationSet([a, b, c])
    totals = regions.totals()
    assert {name: (t.count, t.area_px0) for name, t in totals.items()} == {
        "Tumor": (2, 125),
        None: (1, 4),
    }
    regions.do(swaps(a, a.but(classification=CLASSES[2])))
    regions.do(drops(b))
    totals = regions.totals()
    assert {name: (t.count, t.area_px0) for name, t in totals.items()} == {
        "Stroma": (1, 100),
        None: (1, 4),
    }


def test_the_regions_of_undo_are_those_of_the_set():
    regions = AnnotationSet([square(x) for x in range(0, 100, 20)])
    before = list(regions)
    after = [each.but(classification=CLASSES[1]) for each in before]
    regions.do(Command("all", {r.id: r for r in before}, {r.id: r for r in after}))
    assert all(new.geometry is old.geometry for new, old in zip(regions, before, strict=True))
    regions.undo()
    assert all(now is old for now, old in zip(regions, before, strict=True))


def test_steps_of_an_earlier_day_are_fetched_when_they_are_reached():
    a, b = square(0), square(20)
    fetched = []

    def recalled(command: Command):
        def fetch(_annotations: AnnotationSet) -> Command:
            fetched.append(command)
            return command

        return fetch

    first, second, undone = adds(a), adds(b), drops(a)
    regions = AnnotationSet([a, b], past=map(recalled, (first, second)), future=[recalled(undone)])
    assert fetched == []
    assert regions.can_redo == "delete"
    regions.undo()
    assert fetched == [undone, second]
    regions.redo()
    regions.redo()
    assert list(regions) == [b]
    for _ in range(3):
        regions.undo()
    assert list(regions) == []
    assert regions.undo() is None


@given(st.data())
def test_any_history_undoes_to_the_start_and_redoes_to_the_end(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    regions = AnnotationSet(
        square(*rng.uniform(0, 500, 2), which=int(rng.integers(3))) for _ in "abc"
    )
    states = [list(regions)]
    for kind in data.draw(st.lists(st.sampled_from("acdmx"), max_size=12)):
        now = list(regions)
        some = [each for each in now if rng.random() < 0.4]
        if kind == "a":
            new = [square(*rng.uniform(0, 500, 2)) for _ in range(rng.integers(1, 4))]
            places = {each.id: int(rng.integers(0, len(now) + 3)) for each in new[1:]}
            command = adds(*new, at=places)
        elif kind == "c":
            command = Command(
                "c",
                {r.id: r for r in some},
                {r.id: r.but(classification=CLASSES[1]) for r in some},
            )
        elif kind == "d":
            command = drops(*some)
        elif kind == "m":
            pairs = {r.id: r for r in some}
            command = Command("m", pairs, pairs, added_at={r.id: n for n, r in enumerate(some)})
        else:
            new = square(*rng.uniform(0, 500, 2), which=2)
            command = Command("x", {r.id: r for r in some}, {new.id: new})
        regions.do(command)
        states.append(list(regions))
        check(regions, rng)
    for state in states[-2::-1]:
        regions.undo()
        assert list(regions) == state
        check(regions, rng)
    assert regions.undo() is None
    for state in states[1:]:
        regions.redo()
        assert list(regions) == state
        check(regions, rng)


def check(regions: AnnotationSet, rng: np.random.Generator) -> None:
    """Hold index and totals against looking at every region."""
    x, y = rng.uniform(0, 500, 2)
    window = box(x, y, x + 100, y + 100)
    expected = [each for each in regions if each.geometry.intersects(window)]
    assert regions.within(Rect(x, y, 100, 100)) == expected
    totals = regions.totals()
    assert sum(total.count for total in totals.values()) == len(regions)
    for name, total in totals.items():
        same = [each.geometry.area for each in regions if each.class_name == name]
        assert (total.count, total.area_px0) == (len(same), pytest.approx(sum(same)))


def test_the_index_stays_right_past_its_list_of_changes(monkeypatch):
    monkeypatch.setattr(spatial, "FEWEST_CHANGES", 4)
    rng = np.random.default_rng(1)
    regions = AnnotationSet(square(*rng.uniform(0, 500, 2)) for _ in range(30))
    for _ in range(40):
        old = list(regions)[int(rng.integers(len(regions)))]
        x, y = rng.uniform(0, 500, 2)
        regions.do(swaps(old, old.but(geometry=box(x, y, x + 9, y + 9))))
        check(regions, rng)


def test_a_hundred_thousand_regions_change_class_at_once_and_back():
    shapes = shapely.points(np.random.default_rng(0).uniform(0, 1e5, (100_000, 2)))
    ids = [str(uuid.UUID(int=n)) for n in range(len(shapes))]
    everyone = each_but([Region(shapes[0])] * len(shapes), geometry=shapes, id=ids)
    regions = AnnotationSet(everyone)
    found = len(regions.within(Rect(0, 0, 10_000, 10_000)))
    assert found == (shapely.get_coordinates(shapes) <= 10_000).all(axis=1).sum()
    changed = each_but(everyone, classification=[CLASSES[1]] * len(everyone))
    by_id = [{each.id: each for each in some} for some in (everyone, changed)]
    regions.do(Command("all", *by_id))
    assert regions.totals()["Tumor"].count == 100_000
    regions.undo()
    assert set(regions.totals()) == {None}
    assert len(regions.within(Rect(0, 0, 10_000, 10_000))) == found


def test_regions_are_given_in_drawing_order_whatever_is_asked_for_first():
    everyone = [square(x) for x in range(0, 200, 20)]
    regions = AnnotationSet(everyone)
    asked = [each.id for each in (everyone[7], everyone[2], everyone[5])]
    assert regions.in_order([*asked, "gone"]) == [everyone[2], everyone[5], everyone[7]]
    front = {everyone[2].id: everyone[2]}
    regions.do(Command("front", front, front, added_at={everyone[2].id: 9}))
    assert regions.in_order(asked) == [everyone[5], everyone[7], everyone[2]]
