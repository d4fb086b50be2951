from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from napari_histomil.manifest.model import class_specs
from napari_histomil.results import MilRun
from napari_histomil.results.mil import MilAnswer, MilLevel, MilMap, MilSource
from napari_histomil.review.attention_checks import answer_warnings


def make(value: Any, logits: Any = (0.0, 1.0), kind: str = "attention", **model: Any) -> MilRun:
    value = np.atleast_2d(np.asarray(value, np.float32))
    count = value.shape[1]
    answer = np.asarray(logits, np.float32)
    return MilRun(
        "a", {}, {"name": "s"}, model, class_specs(["no", "yes"]), MilSource(4),
        MilAnswer(answer, answer, answer[None]),
        (MilLevel(np.zeros((count, 2)), (1, 1), None, None, count),),
        (MilMap(0, kind, None, value, np.arange(count)),),
    )  # fmt: skip


def shares(*first: float, count: int = 20) -> np.ndarray[Any, Any]:
    rest = (1 - sum(first)) / (count - len(first))
    return np.array([*first, *np.full(count - len(first), rest)])


@pytest.mark.parametrize(
    ("run", "said"),
    [
        (make(shares(0.2)), []),
        (make(shares(0.05)), ["Attention is the same for all 20 patches"]),
        (make(shares(0.05), kind="uniform"), []),
        (make(shares(0.995)), ["One patch has 99.5%"]),
        (make(shares(0.995), kind="critical"), []),
        (make(shares(0.5, count=3)), ["only 3 patches"]),
        (make([np.nan, *shares(0.3)]), ["of 1 patches is not a number"]),
        (make(shares(0.2), (np.nan, 1)), ["answer is not a number"]),
        (make(shares(0.2), (-9, 9)), ["logits are 18 apart"]),
        (make(shares(0.2), (-9, 9), temperature=2.0), []),
        (make(shares(0.2), (-9, 9), activation="sigmoid"), []),
        (make(shares(0.2), (-16, 9), activation="sigmoid"), ["logits are 16 apart"]),
    ],
)
def test_each_oddity_is_one_sentence(run: MilRun, said: list[str]) -> None:
    found = answer_warnings(run)
    assert len(found) == len(said), found
    for sentence, part in zip(found, said, strict=True):
        assert part in sentence
