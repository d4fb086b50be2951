"""Where training tiles are cut: balanced over class, slide and any other label at once.

A *stratum* is a class in a field. Strata get weights such that every value of every label that is
to be balanced is drawn equally often, and every source by its share: iterative proportional
fitting (Deming and Stephan 1940, "On a least squares adjustment of a sampled frequency table when
the expected marginal totals are known"). Where the data allow no such weights (a class that only
one slide has), what is named last is met and the rest as nearly as it can be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_histomil.errors import TrainingError
from napari_histomil.training.fields import Field, Uint8

ROUNDS = 200
"""Of the fitting: weights stand still to 1e-6 long before, if they can."""


@dataclass(frozen=True, slots=True, eq=False)
class Sampler:
    """Draws squares of fields."""

    fields: tuple[Field, ...]
    strata: tuple[tuple[int, int | None], ...]
    """(field, label); None for any place of the field."""
    weights: NDArray[np.float64]
    """Chance of each stratum, [N]; they add up to 1."""

    def draw(self, rng: np.random.Generator) -> tuple[Field, tuple[int, int]]:
        """Return a random field and a place (x, y) in it."""
        number, label = self.strata[int(rng.choice(len(self.strata), p=self.weights))]
        chosen = self.fields[number]
        return chosen, chosen.place(rng, label)

    def cut(self, size_px: int, rng: np.random.Generator) -> tuple[Uint8, Uint8]:
        """Cut a random square: pixels [size, size, 3] and labels [size, size]."""
        chosen, (x, y) = self.draw(rng)
        return chosen.cut((x - size_px // 2, y - size_px // 2), size_px)


def sampler(
    fields: Sequence[Field], shares: Mapping[str, float], balance: Sequence[str] = ()
) -> Sampler:
    """Prepare to draw.

    Parameters
    ----------
    fields
        What to draw from.
    shares
        Source -> how often it is drawn, against the others.
    balance
        ``class``, ``slide``, ``group``, or tags of the fields. Empty: each field of a source
        equally often, any place of it.

    Raises
    ------
    TrainingError
        If nothing can be drawn, or no field has one of the tags.
    """
    used = tuple(f for f in fields if shares[f.source] > 0 and f.present)
    if not used:
        raise TrainingError("The sources hold nothing that is labelled: nothing can be learnt.")
    labels = balance and any(name == "class" for name in balance)
    strata: list[tuple[int, int | None]] = [
        (number, label)
        for number, f in enumerate(used)
        for label in (f.present if labels else (None,))
    ]
    columns = [_column(used, strata, name) for name in balance]
    sources = np.array([used[number].source for number, _ in strata])
    weights = np.ones(len(strata))
    names, which = np.unique(sources, return_inverse=True)
    wanted = np.array([shares[name] for name in names.tolist()])
    targets = [(c, np.full(c.max() + 1, 1 / (c.max() + 1))) for c in columns]
    targets.append((which, wanted / wanted.sum()))
    if not balance:  # each field of a source equally often
        weights /= np.bincount(which)[which]
    for _ in range(ROUNDS):
        before = weights.copy()
        for index, target in targets:
            weights *= (target / np.bincount(index, weights))[index]
        if np.abs(weights - before).max() < 1e-9:
            break
    return Sampler(used, tuple(strata), weights / weights.sum())


def _column(
    fields: Sequence[Field], strata: Sequence[tuple[int, int | None]], name: str
) -> NDArray[np.intp]:
    """Return the number of the value of a label for each stratum."""
    if name == "class":
        return np.unique([label for _, label in strata], return_inverse=True)[1]
    values = [_tag(fields[number], name) for number, _ in strata]
    if name not in ("slide", "group") and not any(values):
        raise TrainingError(
            f"sampling.balance names {name!r}, and no source has such a tag or column of labels."
        )
    return np.unique(values, return_inverse=True)[1]


def _tag(field: Field, name: str) -> str:
    if name == "group":
        return field.group
    if name == "slide":
        return field.tags.get("slide", field.group)
    return field.tags.get(name, "")
