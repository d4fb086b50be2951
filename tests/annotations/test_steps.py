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
from napari_histomil.annotations.steps import command_from_step, settled, step_from_command
from napari_histomil.errors import AnnotationError
from napari_histomil.journal import json_bytes

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
    step = json.loads(json_bytes(step_from_command(done, shift)))
    backward = command_from_step(step, "step", annotations.get, shift, done=True)
    again = AnnotationSet(last)
    again.do(backward.inverse())
    assert list(again) == first
    forward = command_from_step(step, "step", again.get, shift, done=False)
    again.do(forward)
    assert list(again) == last


def test_equal_changes_are_written_once():
    old = [Region(Point(x, 0), name="a") for x in range(5)]
    new = [each.but(name="b" if n else "c") for n, each in enumerate(old)]
    command = Command("x", {r.id: r for r in old}, {r.id: r for r in new})
    changed = step_from_command(command, (0, 0))["changed"]
    assert [len(each["ids"]) for each in changed] == [1, 4]
    assert changed[1]["before"] == {"name": "a"}
    assert changed[1]["after"] == {"name": "b"}


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
    step = step_from_command(Command("x", added={region.id: region}), (0, 0))
    command = command_from_step(json.loads(json_bytes(step)), "x", None, (0, 0), done=False)
    (back,) = command.added.values()
    assert back.children[0].id == child.id
    assert math.isnan(back.children[0].measurements["a"])
    assert back.measurements == {"b": math.inf}


@pytest.mark.parametrize(
    "step",
    [
        {"removed": [{}]},
        {"added": 3},
        {"changed": [{"ids": ["x"], "before": {}}]},
        {"changed": [{"ids": [str(uuid.UUID(int=1))], "before": {}, "after": {"nose": 1}}]},
        {"changed": [{"ids": [str(uuid.UUID(int=1))], "before": {}, "after": {"geometry": 1}}]},
        {"added_at": {"x": "y"}},
        [],
    ],
)
def test_a_step_that_does_not_fit_is_said(step):
    annotations = AnnotationSet([Region(Point(0, 0), id=str(uuid.UUID(int=1)))])
    with pytest.raises(AnnotationError):
        command_from_step(step, "step", annotations.get, (0, 0), done=False)


def test_a_shape_that_rounding_would_break_stays_valid():
    thin = shapely.Polygon([(0, 0), (100, 0.004), (0, 0.011), (50, 0.005)]).buffer(0)
    sliver = shapely.union(thin, box(0, -50, 100, 0))
    assert sliver.is_valid
    region = Region(sliver)
    command = settled(Command("x", added={region.id: region}), (0, 0))
    assert command.added[region.id].geometry.is_valid
