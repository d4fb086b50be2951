r"""Attention and gated attention (Ilse, Tomczak and Welling, ICML 2018), and their parts.

.. math::

    h_i = f(x_i), \qquad
    e_i = w^T \tanh(V h_i + v) + b \quad\text{or gated}\quad
    e_i = w^T (\tanh(V h_i + v) \odot \sigma(U h_i + u)) + b

    a = \mathrm{softmax}(e), \qquad z = \sum_i a_i h_i, \qquad logit = W z + c

So each instance contributes :math:`a_i W h_i` to the logits, exactly. The map is class-agnostic:
it says where the model looks, the contribution says what for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_histomil.nets.mil.model import (
    Aggregate,
    AttentionMap,
    Bag,
    MILModel,
    all_of,
    embedding,
)

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh_,  # in place: of a large bag, memory takes longer than the function
    "relu": torch.relu_,
    "gelu": F.gelu,
}

PIECE = 1024
"""Instances that a processor scores at once."""


class AttentionScores(nn.Module):
    """The attention of instances before its softmax.

    Parameters
    ----------
    dim
        Width of an instance.
    hidden
        Width of V and U.
    heads
        Rows of attention.
    gated
        Whether there is U.
    dropout
        After the activations.
    activation
        Applied to V h: ``tanh`` in the paper; some descendants have ``relu`` or ``gelu``.
    """

    def __init__(
        self,
        dim: int,
        hidden: int,
        heads: int = 1,
        *,
        gated: bool = True,
        dropout: float = 0.0,
        activation: str = "tanh",
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"attention has no activation {activation!r}")
        self.activation = ACTIVATIONS[activation]
        self.v = nn.Linear(dim, hidden)
        self.u = nn.Linear(dim, hidden) if gated else None
        self.w = nn.Linear(hidden, heads)
        self.dropout = nn.Dropout(dropout)

    def forward(self, h: Tensor) -> Tensor:
        """Return raw attention [K, N] of instances [N, D]."""
        a = self.dropout(self.activation(self.v(h)))  # [N, L]
        if self.u is not None:
            a = a * self.dropout(self.u(h).sigmoid_())
        raw: Tensor = self.w(a).T  # [K, N]
        return raw


@dataclass(frozen=True, slots=True)
class Attended:
    """What attention makes of instances."""

    raw: tuple[Tensor, ...]
    """[K, N] before the softmax, by each of the scorers."""
    value: Tensor
    """[K, N] softmax of the first."""
    pooled: Tensor
    """[K, L] sums of the instances, weighted by it."""
    votes: Tensor
    """[C, N] what each instance says of each class, W h."""


def attend(
    embed: nn.Module, scorers: Sequence[nn.Module], weight: Tensor, features: Tensor
) -> Attended:
    """Embed instances, score them, and pool them by the first of the scores.

    Where a processor computes without gradients each piece of the bag is looked at once, while it
    is in the cache: what all activations at once write and read takes longer than the products.
    The sum so far is scaled down where higher attention comes (Milakov and Gimelshein 2018).

    Parameters
    ----------
    embed
        [n, D] -> [n, L].
    scorers
        [n, L] -> raw attention [K, n] each.
    weight
        [C, L] of the classifier.
    features
        [N, D]
    """
    if torch.is_grad_enabled() or features.device.type != "cpu":
        h = embed(features)  # [N, L]
        raws = tuple(scorer(h) for scorer in scorers)  # [K, N] each
        value = raws[0].softmax(1)
        return Attended(raws, value, value @ h, weight @ h.T)
    scored: list[list[Tensor]] = [[] for _ in scorers]
    votes: list[Tensor] = []
    most = features.new_full((), -torch.inf)  # broadcasts with the first piece
    total = pooled = features.new_zeros(())
    for piece in torch.split(features, PIECE):
        h = embed(piece)  # [n, L]
        for own, scorer in zip(scored, scorers, strict=True):
            own.append(scorer(h))
        raw = scored[0][-1]  # [K, n]
        highest = raw.max(1, keepdim=True).values.clamp(min=most)  # [K, 1]
        share, before = (raw - highest).exp(), (most - highest).exp()
        total = total * before + share.sum(1, keepdim=True)
        pooled = pooled * before + share @ h
        most = highest
        votes.append(weight @ h.T)
    raws = tuple(torch.cat(own, 1) for own in scored)
    return Attended(raws, raws[0].softmax(1), pooled / total, torch.cat(votes, 1))


class AttentionMIL(MILModel):
    """Attention pooling.

    Parameters
    ----------
    dim, classes, clinical
        See `MILModel`.
    gated
        Whether attention is gated.
    hidden
        Widths of the fully connected layers before attention; none: the features as they are.
    attention
        Width of the attention's layers.
    dropout
        After each of the fully connected layers.
    attention_dropout
        In the attention's layers.
    attention_activation
        See `AttentionScores`; ``tanh`` in the paper.
    """

    def __init__(
        self,
        dim: int,
        classes: int,
        *,
        gated: bool = False,
        hidden: Sequence[int] = (512,),
        attention: int = 128,
        dropout: float = 0.25,
        attention_dropout: float = 0.0,
        attention_activation: str = "tanh",
        clinical: int = 0,
    ) -> None:
        super().__init__(dim, classes, clinical=clinical)
        self.embed, width = embedding(dim, hidden, dropout)
        self.attention = AttentionScores(
            width,
            attention,
            gated=gated,
            dropout=attention_dropout,
            activation=attention_activation,
        )
        self.classifier = nn.Linear(width, classes)

    def aggregate(self, bag: Bag) -> Aggregate:
        """Answer from the sum of the instances, weighted by attention."""
        assert isinstance(bag, Tensor)
        found = attend(self.embed, (self.attention,), self.classifier.weight, bag)
        z = found.pooled[0]  # [L]
        return Aggregate(
            logits=self.classifier(z),
            maps=(AttentionMap(0, "attention", found.raw[0], found.value, all_of(bag)),),
            contributions=found.value * found.votes,  # [C, N]
            bias=self.classifier.bias,
            embedding=z,
        )
