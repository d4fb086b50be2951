"""Groups stay whole, folds are even, and nothing that is held out is learnt from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_histomil.errors import TrainingError
from napari_histomil.training.config import Split
from napari_histomil.training.fields import ArrayField, array_field
from napari_histomil.training.splits import (
    connect,
    connect_sources,
    hold_out,
    refuse_leakage,
    split_groups,
)


def test_groups_are_split_whole_and_evenly() -> None:
    groups = ["x"] * 6 + ["y"] * 2 + ["z"] * 2 + [f"s{i}" for i in range(10)]
    parts = split_groups(groups, 5)
    assert sorted(g for part in parts for g in part) == sorted(set(groups))
    assert sorted(sum(groups.count(g) for g in part) for part in parts) == [3, 3, 4, 4, 6]
    assert parts == split_groups(list(reversed(groups)), 5)
    with pytest.raises(TrainingError, match="2 groups cannot be split into 3 folds"):
        split_groups(["a", "b", "b"], 3)


def test_what_two_sources_share_is_one_group() -> None:
    own = piece("t1", "1", 0, patient="P1"), piece("t2", "2", 1, slide="x.svs")
    other = [
        replace(piece(name, group, 0, **tags), source="r", group=f"r/{group}")
        for name, group, tags in (
            ("t1", "1", {"patient": "P1", "slide": "y.svs"}),
            ("t5", "5", {"slide": "x.svs"}),
            ("t6", "6", {"patient": "P6", "slide": "y.svs"}),
            ("t7", "7", {"patient": "P7"}),
        )
    ]
    fields = connect_sources([*own, *other])
    assert [f.group for f in fields] == ["s/1", "s/2", "s/1", "s/2", "s/1", "r/7"]
    assert [f.name for f in fields] == ["t1", "t2", "t1 (r)", "t5", "t6", "t7"]
    assert [f.source for f in fields] == ["s", "s", "r", "r", "r", "r"]
    assert fields[0] is own[0]


def test_leakage_is_refused() -> None:
    image, labels = np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.uint8)
    a, b, c = (
        array_field(name, group, "s", image, labels, mirrored=True)
        for name, group in (("a", "one"), ("b", "one"), ("c", "two"))
    )
    refuse_leakage([a, b], [c])
    with pytest.raises(TrainingError, match="one is both in the training and in the test"):
        refuse_leakage([a, c], [b])


def piece(name: str, group: str, *labels: int, **tags: str) -> ArrayField:
    index = np.array([labels], np.uint8)
    image = np.zeros((1, len(labels), 3), np.uint8)
    return array_field(name, f"s/{group}", "s", image, index, mirrored=True, tags=tags)


def test_what_shares_a_patient_or_a_slide_is_one_group() -> None:
    keys = [["p1", "s1"], ["p2", "s2"], ["p3", "s2"], ["p4"], ["s1", "p4"]]
    groups = connect(keys)
    assert groups[0] == groups[3] == groups[4]
    assert groups[1] == groups[2] != groups[0]


def test_a_split_is_by_groups_and_keeps_both_classes_on_every_side() -> None:
    fields = [piece(f"{g}{i}", f"g{g}", 0, int(g < 3)) for g in range(12) for i in range(2)]
    for seed in range(5):
        sides = hold_out(fields, Split(validation=0.25, test=0.25, seed=seed))
        groups = [{f.group for f in part} for part in (sides.train, sides.validation, sides.test)]
        assert [len(g) for g in groups] == [6, 3, 3]
        assert len(set.union(*groups)) == 12
        for part in (sides.train, sides.validation, sides.test):
            assert {label for f in part for label in f.present} == {0, 1}
    first = hold_out(fields, Split(validation=0.25, seed=0)).validation
    assert first == hold_out(fields[::-1], Split(validation=0.25, seed=0)).validation[::-1]


def test_groups_may_be_named_by_patient_slide_or_picture() -> None:
    fields = [piece(c, c, 0, 1, patient=f"p{c}", slide=f"{c}.svs") for c in "abcd"]
    named = Split(validation_groups=("pa", "b.svs"), test_groups=("c",))
    sides = hold_out(fields, named)
    assert [f.name for f in sides.validation] == ["a", "b"]
    assert [f.name for f in sides.test] == ["c"]
    assert [f.name for f in hold_out(fields, named, test=False).train] == ["c", "d"]
    with pytest.raises(TrainingError, match="no group, patient, slide or picture 'z'"):
        hold_out(fields, Split(test_groups=("z",)))
    with pytest.raises(TrainingError, match="s/a is both in the validation and in the test"):
        hold_out(fields, Split(validation_groups=("a",), test_groups=("pa",)))
    with pytest.raises(TrainingError, match="leaves no group for the training"):
        hold_out(fields, Split(validation_groups=("s",)))
    with pytest.raises(TrainingError, match=r"1 groups .* cannot be split"):
        hold_out(fields[:1], Split(validation=0.5))
