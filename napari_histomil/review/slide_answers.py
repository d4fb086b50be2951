"""One answer for a slide from the scores of its tiles: baselines that MIL has to beat.

With s_1 .. s_n the scores of a slide's tiles (those that were skipped, NaN, left out):

``mean``         their mean
``max``          the highest
``top5``         the mean of the 5 highest, of all where there are fewer
``top10%``       the mean of the highest tenth, rounded up, so of one tile or more
``majority``     the share of tiles whose score is 0.5 or more: the slide is called positive
                 where that is more than half of them

(Campanella et al., Nat. Med. 25 (2019) 1301 compare with max; Coudray et al., Nat. Med. 24 (2018)
1559 with mean and the share of positive tiles.)
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_histomil.errors import RunError
from napari_histomil.review.ranking import auroc, ranked_intervals

VOTE = 0.5
"""Score from which a tile votes for the class."""


@dataclass(frozen=True, slots=True)
class Rule:
    """How tiles become one answer."""

    kind: Literal["mean", "max", "top", "majority"]
    count: int = 0
    """Of ``top``: how many tiles; 0 where a share is meant."""
    share: float = 0.0
    """Of ``top``: which part of the tiles."""

    def __str__(self) -> str:
        if self.kind != "top":
            return self.kind
        return f"top{self.count}" if self.count else f"top{100 * self.share:g}%"


RULES = (Rule("mean"), Rule("max"), Rule("top", 5), Rule("top", share=0.1), Rule("majority"))


def read_rule(text: str) -> Rule:
    """Read ``mean``, ``max``, ``majority``, ``top5`` or ``top10%``.

    Raises
    ------
    RunError
        If it is none of them.
    """
    if text in ("mean", "max", "majority"):
        return Rule(text)  # type: ignore[arg-type]
    match = re.fullmatch(r"top-?(\d+(?:\.\d+)?)(%?)", text)
    value = float(match[1]) if match else 0.0
    if match and match[2] and 0 < value <= 100:
        return Rule("top", share=value / 100)
    if match and not match[2] and value >= 1 and value.is_integer():
        return Rule("top", int(value))
    raise RunError(f"{text!r} is no rule: use mean, max, majority, top5 or top10%.")


def slide_answer(scores: NDArray[np.floating], rule: Rule) -> float:
    """Return the answer for a slide, 0 to 1.

    Parameters
    ----------
    scores
        [n], probability of the class in each tile, e.g. a column of ``RunStore.scores``.
    rule
        See above.

    Raises
    ------
    RunError
        If no tile has a score.
    """
    known = np.asarray(scores, float)[np.isfinite(scores)]
    if not len(known):
        raise RunError("No tile of the slide has a score: there is nothing to answer from.")
    if rule.kind == "mean":
        return float(known.mean())
    if rule.kind == "majority":
        return float((known >= VOTE).mean())
    count = 1
    if rule.kind == "top":
        # 0.1 * 30 is a little above 3 in binary: that is no fourth tile
        count = rule.count or math.ceil(rule.share * len(known) - 1e-9)
    count = min(max(count, 1), len(known))
    return float(np.partition(known, len(known) - count)[-count:].mean())


def compare_rules(
    slides: Sequence[NDArray[np.floating]],
    truth: NDArray[np.bool_],
    patients: NDArray[np.str_],
    *,
    rules: Sequence[Rule] = RULES,
    rounds: int = 2000,
) -> dict[str, dict[str, Any]]:
    """Return each rule's AUROC over slides, with its 95 % interval by bootstrap over patients.

    Parameters
    ----------
    slides
        Scores of the tiles of each slide.
    truth
        bool [slides], whether it is of the class.
    patients
        [slides]; slides of one are drawn together.
    rules
        Which are compared.
    rounds
        Of the bootstrap.
    """
    compared = {}
    for rule in rules:
        answers = np.array([slide_answer(scores, rule) for scores in slides])
        spread = ranked_intervals(truth, [answers], patients, rounds=rounds)["auroc"]
        called = answers > VOTE if rule.kind == "majority" else answers >= VOTE
        compared[str(rule)] = {
            "auroc": auroc(truth, answers),
            "auroc_95": list(spread),
            "accuracy": float((called == truth).mean()),
        }
    return compared
