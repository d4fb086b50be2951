r"""MHIM-MIL: masked hard instance mining (Tang et al., ICCV 2023).

A teacher, the moving average of the net, looks at the whole bag. The net, its student, learns from
what is left without some of the instances that the teacher attends to most, which are the easy
ones, and so must find the hard ones. Its bag is held to the teacher's:

.. math::

    L = L_{MIL}(\mathrm{student}(\text{masked bag}), y)
        - \alpha \sum_e \mathrm{softmax}(z_t / \tau)_e \log \mathrm{softmax}(z_s)_e,
    \qquad teacher \leftarrow m \cdot teacher + (1 - m) \cdot student

with z the bag's embedding. Masked are, each as a share of all instances: some drawn from those of
highest attention (their share falls to 0 along a half cosine), those of lowest, and any at random.
The student is what is kept, as in the authors' code, whose numbers for attention on
CAMELYON16 are the defaults.

What differs: the authors begin with a teacher that was fitted before; here it begins with the
net's first weights and follows it closely at first (m is at most (1 + step) / (10 + step)). It
looks without dropout. Numbers of instances are rounded, not rounded up: of a small bag a share of
1 % is nothing, and the only tumour is not taken from it. The authors take the shares masked later
of what is left by those before. Of several rows of attention the mean counts (theirs: a vote among
the heads of TransMIL). With several magnifications patches of the lowest are masked, with all
under them.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from napari_histomil.nets.mil import MILModel
from napari_histomil.nets.mil.model import Criterion, MILOutput
from napari_histomil.training.loop import move_average
from napari_histomil.training.mil.config import Mhim
from napari_histomil.training.mil.scheme import Scheme, Step, loss_of, rows_of

ATTENTION = ("attention", "class attention", "critical", "class token")
"""Kinds of maps that say where a net looks, see `manifest.mil.MAP_KINDS`."""


class MaskedMining(Scheme):
    """A momentum teacher that masks what is easy.

    Parameters
    ----------
    numbers
        Shares and weights.
    net
        The student before its first step.
    """

    def __init__(self, numbers: Mhim, net: MILModel) -> None:
        super().__init__()
        self.numbers = numbers
        self.teacher = copy.deepcopy(net).eval().requires_grad_(False)

    def losses(self, net: MILModel, step: Step, criterion: Criterion) -> Iterator[Tensor]:
        """Give the loss of each masked bag."""
        numbers = self.numbers
        high = numbers.high * (1 + math.cos(math.pi * step.progress)) / 2
        for example in step.examples:
            with torch.no_grad():
                seen = self.teacher(example.bag, example.clinical)
            attention = attention_of(seen)
            rows = left(attention, numbers, high, step.random)
            bag = rows_of(example.bag, rows.to(attention.device))
            loss, output = loss_of(net, example, bag, criterion)
            assert output.embedding is not None
            distance = consistency(output.embedding, seen.embedding, numbers.temperature)
            yield (loss + numbers.consistency * distance) / step.count

    def stepped(self, net: MILModel, step: int) -> None:
        """Move the teacher a little towards the student."""
        move_average(self.teacher, net, min(self.numbers.momentum, (1 + step) / (10 + step)))


def attention_of(output: MILOutput) -> Tensor:
    """Return the attention [N] to the instances of the lowest magnification, of any scale."""
    found = next(m for m in output.maps if m.kind in ATTENTION and m.magnification == 0)
    assert found.value is not None
    return found.value.mean(0)


def left(attention: Tensor, numbers: Mhim, high: float, random: torch.Generator) -> Tensor:
    """Return which instances are not masked, in their order, on the CPU.

    Parameters
    ----------
    attention
        The teacher's, [N].
    numbers
        Shares.
    high
        The share of highest attention at this time.
    random
        On the CPU.

    Returns
    -------
    Tensor
        int64 [M]; all N, if none were left.
    """
    count = len(attention)
    order = attention.argsort(descending=True, stable=True).cpu()
    masked = torch.zeros(count, dtype=torch.bool)
    easy = round(count * high)
    highest = order[: round(easy / numbers.high_part)]
    masked[highest[torch.randperm(len(highest), generator=random)[:easy]]] = True
    masked[order[count - round(count * numbers.low) :]] = True
    anyhow = round(count * numbers.random)
    masked[torch.randperm(count, generator=random)[:anyhow]] = True
    rows = (~masked).nonzero()[:, 0]
    return rows if len(rows) else torch.arange(count)


def consistency(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return the cross-entropy of a bag's embedding [E] against the teacher's, as softmaxes."""
    return -((teacher / temperature).softmax(0) * student.log_softmax(0)).sum()
