"""Commands as JSON: there and back, both ways; what does not fit is said."""

from __future__ import annotations

import json
import math
import uuid

import pytest
import shapely
from annotations.shapes_of_all_kinds import many_blobs, places
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.geometry import LineString, MultiPoint, Point, box

from napari_histomil.annotations.collection import AnnotationSet, Command
from napari_histomil.annotations.model import AnnotationClass, Extra, Region
from napari_histomil.annotations.steps import (
    command_from_step,
    region_beyond,
    settled,
    step_from_command,
)
from napari_histomil.errors import AnnotationError
from napari_histomil.journal import json_bytes

ONE, TWO = (str(uuid.UUID(int=n)) for n in (1, 2))

texts = st.text(max_size=6)
colors = st.tuples(*[st.integers(0, 255)] * 3)
shapes = st.one_of(
    many_blobs,
    places.map(Point),
    st.lists(places, min_size=2, max_size=4, unique=True).map(LineString),
    st.lists(places, min_size=1, max_size=4).map(MultiPoint),
)
numbers = st.floats(allow_nan=False)
members = st.dictionaries(texts.map("x{}".format), st.integers() | texts, max_size=2)
simple = st.builds(
    Region,
    shapes,
    classification=st.none()
    | st.builds(AnnotationClass, texts.map("C{}".format), colors, st.integers(1, 255)),
    id=st.uuids().map(str),
    name=st.none() | texts,
    color=st.none() | colors,
    locked=st.booleans(),
    object_type=st.sampled_from(["annotation", "cell", "tile"]),
    measurements=st.dictionaries(texts, numbers, max_size=2),
    metadata=st.dictionaries(texts, texts, max_size=2),
    nucleus=st.none() | shapes,
    extra=st.builds(Extra, feature=members, properties=members, geometry=members),
)
regions = st.builds(
    lambda region, children: region.but(children=tuple(children)),
    simple,
    st.lists(simple, max_size=1),
)


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from([(0.0, 0.0), (1000.0, 250.0), (0.5, 0.25)]))
def test_any_command_comes_back_from_json_both_ways(data, shift):
    before = {r.id: r for r in data.draw(st.lists(regions, max_size=3))}
    kinds = data.draw(st.lists(st.sampled_from("dck"), min_size=len(before), max_size=len(before)))
    annotations = AnnotationSet()
    annotations.do(settled(Command("x", added=before), shift))
    removed, added = {}, {}
    for region, kind in zip(annotations, kinds, strict=True):
        if kind != "k":
            removed[region.id] = region
        if kind == "c":
            added[region.id] = data.draw(regions).but(id=region.id)
    for region in data.draw(st.lists(regions, max_size=2)):
        added[region.id] = region
    first = list(annotations)
    done = annotations.do(settled(Command("step", removed, added), shift))
    last = list(annotations)
    step = json.loads(json_bytes(step_from_command(done)))
    backward = command_from_step(step, "step", annotations.get, done=True)
    again = AnnotationSet(last)
    again.do(backward.inverse())
    assert list(again) == first
    forward = command_from_step(step, "step", again.get, done=False)
    again.do(forward)
    assert list(again) == last


def test_equal_changes_are_written_once():
    old = [Region(Point(x, 0), name="a") for x in range(5)]
    new = [each.but(name="b" if n else "c") for n, each in enumerate(old)]
    command = Command("x", {r.id: r for r in old}, {r.id: r for r in new})
    changed = step_from_command(command)["changed"]
    assert changed["ids"] == [each.id for each in old]
    assert changed["before"] == {"name": {"values": ["a"], "rows": [0] * 5}}
    assert changed["after"] == {"name": {"values": ["c", "b"], "rows": [0, 1, 1, 1, 1]}}


def test_many_regions_are_written_as_wkb():
    some = {r.id: r for r in (Region(Point(n, 0.01), nucleus=None) for n in range(201))}
    step = json.loads(json_bytes(step_from_command(Command("x", added=some))))
    assert isinstance(step["added"]["geometry"][0], str)
    assert set(step["added"]) == {"ids", "geometry"}
    assert command_from_step(step, "x", None, done=False).added == some
    changed = {each: region.but(nucleus=Point(1, 1)) for each, region in some.items()}
    step = json.loads(json_bytes(step_from_command(Command("x", some, changed))))
    assert command_from_step(step, "x", changed.__getitem__, done=True).removed == some


def test_one_region_of_a_step_is_followed():
    a, b, c = (Region(Point(n, 0), name=str(n)) for n in range(3))
    after = a.but(name="A", geometry=Point(5, 5))
    command = Command("x", {a.id: a, b.id: b}, {a.id: after, c.id: c})
    step = json.loads(json_bytes(step_from_command(command)))
    for region, before, now in ((a, a, after), (b, b, None), (c, None, c)):
        assert region_beyond(step, region.id, now, back=True) == (True, before)
        assert region_beyond(step, region.id, before, back=False) == (True, now)
    other = Region(Point(9, 9))
    assert region_beyond(step, other.id, other, back=True) == (False, other)


def test_settled_commands_are_left_as_they_are():
    good = Region(box(1.25, 2, 3, 4))
    command = Command("x", added={good.id: good})
    assert settled(command, (1000, 250)) is command
    assert settled(Command("x"), (0, 0)) == Command("x")
    moved = good.but(geometry=box(1.251, 2, 3, 4))
    again = settled(Command("x", {good.id: good}, {good.id: moved}), (1000, 250))
    assert again.added[good.id].geometry.equals(good.geometry)


def test_children_keep_ids_and_numbers_that_are_none_come_back():
    child = Region(Point(1, 1), measurements={"a": math.nan})
    region = Region(box(0, 0, 9, 9), children=(child,), measurements={"b": math.inf})
    step = step_from_command(Command("x", added={region.id: region}))
    command = command_from_step(json.loads(json_bytes(step)), "x", None, done=False)
    (back,) = command.added.values()
    assert back.children[0].id == child.id
    assert math.isnan(back.children[0].measurements["a"])
    assert back.measurements == {"b": math.inf}


@pytest.mark.parametrize(
    "step",
    [
        {"removed": [{}]},
        {"added": 3},
        {"added": {"ids": [ONE]}},
        {"added": {"ids": ["x"], "geometry": [{"type": "Point", "coordinates": [0, 0]}]}},
        {"added": {"ids": [TWO], "geometry": ["zz"]}},
        {"added": {"ids": [TWO], "geometry": [{"type": "Nothing"}]}},
        {"added": {"ids": [TWO], "geometry": []}},
        {"changed": {"ids": [TWO], "after": {}}},
        {"changed": {"ids": [ONE], "after": {"nose": {"values": [1], "rows": [0]}}}},
        {"changed": {"ids": [ONE], "after": {"name": {"values": [], "rows": [0]}}}},
        {"changed": {"ids": [ONE], "after": {"name": {"values": ["a"], "rows": []}}}},
        {"added_at": {"x": "y"}},
        [],
    ],
)
def test_a_step_that_does_not_fit_is_said(step):
    annotations = AnnotationSet([Region(Point(0, 0), id=ONE)])
    with pytest.raises(AnnotationError):
        command_from_step(step, "step", annotations.get, done=False)


def test_a_shape_that_rounding_would_break_stays_valid():
    thin = shapely.Polygon([(0, 0), (100, 0.004), (0, 0.011), (50, 0.005)]).buffer(0)
    sliver = shapely.union(thin, box(0, -50, 100, 0))
    assert sliver.is_valid
    region = Region(sliver)
    command = settled(Command("x", added={region.id: region}), (0, 0))
    assert command.added[region.id].geometry.is_valid
