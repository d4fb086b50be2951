"""Sets of classes: keys, groups, priority, the lead's lock; files of ours and of QuPath."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.geometry import Point

from napari_histomil.annotations.classes import ClassSet, read_classes, write_classes
from napari_histomil.annotations.model import STANDARD_CLASSES, AnnotationClass, Region
from napari_histomil.errors import AnnotationError

A, B, C = (AnnotationClass(name, (n, n, n)) for n, name in enumerate("ABC"))


def test_at_first_the_classes_are_those_of_qupath_on_the_keys_1_to_9():
    classes = ClassSet()
    assert classes.classes == STANDARD_CLASSES
    assert [classes.by_key(key).name for key in range(1, 10)] == [
        each.name for each in STANDARD_CLASSES
    ]
    assert (classes.key_of("Stroma"), classes.key_of("Cyst"), classes.by_key(0)) == (2, None, None)
    assert classes.rivals("Tumor") == frozenset()
    assert classes.by_priority() == STANDARD_CLASSES


def test_groups_say_what_may_not_overlap_and_priority_what_wins():
    classes = ClassSet(
        (A, B, C), exclusive=(frozenset("AB"), frozenset("BC")), priority=("C", "B")
    )
    assert classes.rivals("A") == {"B"}
    assert classes.rivals("B") == {"A", "C"}
    assert classes.rivals(None) == frozenset()
    assert classes.by_priority() == (C, B, A)


def test_classes_come_go_and_are_renamed_with_all_that_names_them():
    classes = ClassSet((A, B), {1: "B"}, (frozenset("AB"),), ("A", "B"))
    more = classes.with_class(C)
    assert more.classes == (A, B, C)
    assert more.key_of("C") == 2
    d = AnnotationClass("D", (9, 9, 9))
    renamed = more.changed("B", d)
    assert renamed.classes == (A, d, C)
    assert (renamed.by_key(1), renamed.rivals("D"), renamed.priority) == (d, {"A"}, ("A", "D"))
    less = renamed.without("D")
    assert (less.classes, less.keys, less.exclusive, less.priority) == (
        (A, C),
        {2: "C"},
        (),
        ("A",),
    )
    assert more.moved("C", 0).classes == (C, A, B)
    assert more.moved("C", 0).keys == more.keys
    for wrong in (
        lambda: more.with_class(A),
        lambda: more.changed("A", B),
        lambda: more.without("X"),
        lambda: more.moved("X", 0),
        lambda: ClassSet((AnnotationClass(" ", (0, 0, 0)),)),
        lambda: ClassSet((A,), {0: "A"}),
        lambda: ClassSet((A,), {1: "B"}),
        lambda: ClassSet((A,), exclusive=(frozenset("AB"),)),
    ):
        with pytest.raises(AnnotationError):
            wrong()


def test_what_the_lead_locked_stays():
    classes = ClassSet((A, B), locked=True)
    for refused in (
        lambda: classes.with_class(C),
        lambda: classes.without("A"),
        lambda: classes.changed("A", C),
    ):
        with pytest.raises(AnnotationError, match="locked by its lead"):
            refused()
    regions = [Region(Point(0, 0), classification=C), Region(Point(0, 0))]
    assert classes.adopting(regions) is classes
    assert classes.foreign(regions) == ["C"]


def test_classes_of_regions_are_taken_over_in_their_colours():
    inner = Region(Point(0, 0), classification=C)
    regions = [Region(Point(0, 0), classification=B, children=(inner,)), Region(Point(0, 0))]
    classes = ClassSet((A,)).adopting(regions)
    assert classes.classes == (A, B, C)
    assert classes.named("C") == C
    assert classes.foreign(regions) == []


names = st.text(min_size=1, max_size=8).filter(str.strip)
colors = st.tuples(*[st.integers(0, 255)] * 3)


@settings(max_examples=40)
@given(
    st.lists(
        st.builds(AnnotationClass, names, colors, st.integers(0, 255)),
        min_size=1,
        max_size=12,
        unique_by=lambda each: each.name,
    ),
    st.data(),
)
def test_files_keep_everything(tmp_path_factory, classes, data):
    listed = [each.name for each in classes]
    chosen = st.lists(st.sampled_from(listed), unique=True)
    groups = data.draw(st.lists(chosen, max_size=2))
    given_set = ClassSet(
        tuple(classes),
        data.draw(
            st.dictionaries(st.integers(1, 9), st.sampled_from(listed), min_size=1).map(
                lambda keys: {k: n for n, k in {n: k for k, n in keys.items()}.items()}
            )
        ),
        tuple(frozenset(group) for group in groups if len(group) > 1),
        tuple(data.draw(chosen)),
        data.draw(st.booleans()),
    )
    path = tmp_path_factory.mktemp("classes") / "classes.json"
    write_classes(path, given_set)
    assert read_classes(path) == given_set


def test_the_classes_of_a_qupath_project(tmp_path):
    path = tmp_path / "classes.json"
    path.write_text(
        json.dumps(
            {
                "pathClasses": [
                    {"name": None, "color": -1},
                    {"name": "Tumor", "color": -3670016},
                    {"name": "Tumor: Positive", "color": 0x010203},
                    {"name": "Cyst"},
                ]
            }
        )
    )
    classes = read_classes(path)
    assert [(each.name, each.color) for each in classes.classes[:2]] == [
        ("Tumor", (200, 0, 0)),
        ("Tumor: Positive", (1, 2, 3)),
    ]
    assert classes.classes[2].name == "Cyst"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "no list of classes"),
        ("[]", "no list of classes"),
        ("{}", "schema_version is missing"),
        ('{"schema_version": 2, "classes": []}', "newer version"),
        ('{"schema_version": 1}', "no list of classes"),
        ('{"schema_version": 1, "classes": [3]}', "no list of classes"),
        ('{"schema_version": 1, "classes": [{"color": [1, 2, 3]}]}', "class 1 has no name"),
        (
            '{"schema_version": 1, "classes": [{"name": "A", "color": [1, 2]}]}',
            "colour of class 1",
        ),
        ('{"schema_version": 1, "classes": [{"name": "A", "color": [1, 2, 256]}]}', "colour"),
        (
            '{"schema_version": 1, "classes": [{"name": "A", "color": 1, "key": 10}]}',
            "key of class",
        ),
        ('{"schema_version": 1, "classes": [{"name": "A", "color": 1, "alpha": "x"}]}', "alpha"),
        (
            (
                '{"schema_version": 1, "classes": [{"name": "A", "color": 1},'
                '{"name": "A", "color": 1}]}'
            ),
            "stands twice",
        ),
        ('{"schema_version": 1, "classes": [], "exclusive": 1}', "exclusive"),
        ('{"schema_version": 1, "classes": [], "exclusive": [["X"]]}', None),
        ('{"schema_version": 1, "classes": [], "exclusive": [["X", "Y"]]}', "no class"),
        ('{"schema_version": 1, "classes": [], "exclusive": [[1]]}', "no list of names"),
        ('{"schema_version": 1, "classes": [], "priority": {}}', "priority"),
        ('{"schema_version": 1, "classes": [], "locked": 1}', "locked"),
        ('{"pathClasses": 1}', "pathClasses"),
        ('{"pathClasses": [' + ",".join(['{"name": "A"}'] * 1001) + "]}", "more than 1,000"),
        ("[" * 100_000, "no list of classes"),
    ],
)
def test_what_is_no_list_of_classes_is_refused_in_one_sentence(tmp_path, content, words):
    path = tmp_path / "classes.json"
    path.write_text(content)
    if words is None:
        assert read_classes(path).exclusive == ()
        return
    with pytest.raises(AnnotationError, match=words) as error:
        read_classes(path)
    assert str(error.value).startswith("classes.json ")
    assert str(error.value).count(".") == 2


def test_a_missing_file_is_said(tmp_path):
    with pytest.raises(AnnotationError, match="cannot be read: No such file"):
        read_classes(tmp_path / "classes.json")
