"""What is made of the bags of a step: the losses that are learnt from.

Here: the plain way, each bag by itself. What a configuration's ``[scheme]`` can name instead is in
a file each (`mhim.py`, `contrastive.py`), and derives from it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from napari_histomil.nets.mil import MILModel
from napari_histomil.nets.mil.model import Bag, Criterion, MILOutput


@dataclass(frozen=True, slots=True)
class Example:
    """A bag and what is known of it, on the device."""

    bag: Bag
    target: Tensor
    """Number of the class, int64 []."""
    clinical: Tensor | None


@dataclass(frozen=True, slots=True)
class Step:
    """The bags of a step."""

    examples: Iterator[Example]
    """Each is read when its turn comes."""
    count: int
    progress: float
    """Share of all steps that lie behind, from 0 to less than 1."""
    random: torch.Generator
    """On the CPU, of this step; what torch draws itself is seeded, too."""


class Scheme(nn.Module):
    """Each bag by itself. Parameters and buffers are what is learnt beside the net."""

    def losses(self, net: MILModel, step: Step, criterion: Criterion) -> Iterator[Tensor]:
        """Give losses one after the other; their sum is the step's.

        Gradients of one are taken before the next is asked for, so that a bag's memory is free by
        then.
        """
        for example in step.examples:
            yield loss_of(net, example, example.bag, criterion)[0] / step.count

    def stepped(self, net: MILModel, step: int) -> None:
        """Follow the net after a step; the first is 0."""


def loss_of(
    net: MILModel, example: Example, bag: Bag, criterion: Criterion
) -> tuple[Tensor, MILOutput]:
    """Return the loss of a bag, or of what is left of it, and the answer."""
    return net.training_loss(bag, example.target, criterion=criterion, clinical=example.clinical)


def rows_of(bag: Bag, rows: Tensor) -> Bag:
    """Return some rows of a bag; of nested ones rows of the lowest level with all under them."""
    if isinstance(bag, Tensor):
        return bag[rows]
    total = len(bag[0])
    return [x.reshape(total, -1, x.shape[1])[rows].reshape(-1, x.shape[1]) for x in bag]


def thinned(bag: Bag, dropout: float, most: int, random: torch.Generator) -> Bag:
    """Return a bag without some of its instances, in the same order; of nested ones as trees."""
    lowest = bag if isinstance(bag, Tensor) else bag[0]
    total = len(lowest)
    kept = max(1, round(total * (1 - dropout)))
    kept = min(kept, most) if most else kept
    if kept >= total:
        return bag
    return rows_of(bag, torch.randperm(total, generator=random)[:kept].sort().values)
