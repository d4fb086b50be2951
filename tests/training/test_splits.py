"""Groups stay whole, folds are even, and nothing that is held out is learnt from."""

from __future__ import annotations

import numpy as np
import pytest

from napari_histomil.errors import TrainingError
from napari_histomil.training.fields import array_field
from napari_histomil.training.splits import refuse_leakage, split_groups


def test_groups_are_split_whole_and_evenly() -> None:
    groups = ["x"] * 6 + ["y"] * 2 + ["z"] * 2 + [f"s{i}" for i in range(10)]
    parts = split_groups(groups, 5)
    assert sorted(g for part in parts for g in part) == sorted(set(groups))
    assert sorted(sum(groups.count(g) for g in part) for part in parts) == [3, 3, 4, 4, 6]
    assert parts == split_groups(list(reversed(groups)), 5)
    with pytest.raises(TrainingError, match="2 groups cannot be split into 3 folds"):
        split_groups(["a", "b", "b"], 3)


def test_leakage_is_refused() -> None:
    image, labels = np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.uint8)
    a, b, c = (
        array_field(name, group, "s", image, labels, mirrored=True)
        for name, group in (("a", "one"), ("b", "one"), ("c", "two"))
    )
    refuse_leakage([a, b], [c])
    with pytest.raises(TrainingError, match="one is both in the training and in the test"):
        refuse_leakage([a, c], [b])
