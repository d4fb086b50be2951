"""What is odd about a MIL model's answer, to judge by its numbers: a sentence each."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from napari_histomil.results import MilRun
from napari_histomil.results.mil import WEIGHTS, MilMap

FEW_PATCHES = 10
"""Fewer do not make a slide: attention is not chosen among anything."""
SATURATED_LOGITS = 15.0
"""Logits farther apart give a probability of 1 in float32, whatever else the slide shows."""
ONE_PATCH = 0.99
"""A share of attention that leaves nothing for the others."""
CONSTANT = 1e-4
"""Attention whose values differ by less, of their mean, is the same everywhere."""


def answer_warnings(run: MilRun) -> list[str]:
    """Return what whoever looks at an answer should know, a sentence each.

    NaN, the same attention everywhere, all of it on one patch, few patches, and logits so far
    apart that the probability says no more than "sure".
    """
    return list(dict.fromkeys([*_of_answer(run), *(w for m in run.maps for w in _of_map(run, m))]))


def _of_answer(run: MilRun) -> Iterator[str]:
    count = len(run.levels[0])
    if count < FEW_PATCHES:
        yield (
            f"The slide has only {count} patch{'es' if count != 1 else ''}: the answer rests on "
            f"little, and the map says next to nothing."
        )
    logits = run.answer.logits
    if not np.isfinite(logits).all():
        yield "The answer is not a number: the model's weights or the features are broken."
        return
    sigmoid = run.model.get("activation") == "sigmoid" or len(logits) == 1
    apart = float(np.abs(logits).max() if sigmoid else np.ptp(logits))
    if apart / float(run.model.get("temperature", 1.0)) > SATURATED_LOGITS:
        yield (
            f"The logits are {apart:.0f} apart, so the probability is saturated: it says no "
            f"more than which class, and not how sure that is."
        )


def _of_map(run: MilRun, each: MilMap) -> Iterator[str]:
    values = each.value
    if values is None or each.kind in ("uniform", "argmax") or each.index.size < 2:
        return
    where = f" ({each.kind}, level {each.level + 1})" if len(run.maps) > 1 else ""
    if not np.isfinite(values).all():
        bad = int((~np.isfinite(values)).any(axis=0).sum())
        yield f"The attention of {bad} patches is not a number{where}: the map shows the rest."
        return
    spread = np.ptp(values, axis=1)
    if (spread <= CONSTANT * np.abs(values).mean(axis=1)).all():
        yield (
            f"Attention is the same for all {each.index.size} patches{where}: the map shows "
            f"nothing, and the answer is that of their mean."
        )
    elif each.kind in WEIGHTS and each.index.size >= FEW_PATCHES and each.kind != "critical":
        share = float((values.max(axis=1) / values.sum(axis=1)).max())
        if share > ONE_PATCH:
            yield (
                f"One patch has {share:.1%} of the attention{where}: its softmax is saturated, "
                f"and the other patches hardly count."
            )
