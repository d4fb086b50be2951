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
    "tanh": torch.tanh,
    "relu": F.relu,
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
        if not torch.is_grad_enabled() and self.activation is torch.tanh and not self.training:
            a = self.v(h).tanh_()  # in place, as writing takes as long as computing
            gated: Tensor = a if self.u is None else a.mul_(self.u(h).sigmoid_())
            quick: Tensor = self.w(gated).T
            return quick
        a = self.dropout(self.activation(self.v(h)))  # [N, L]
        if self.u is not None:
            a = a * self.dropout(self.u(h).sigmoid())
        raw: Tensor = self.w(a).T  # [K, N]
        return raw


def embed_and_score(
    embed: nn.Sequential, attention: AttentionScores, features: Tensor
) -> tuple[Tensor, Tensor]:
    """Return embedded instances [N, L] and their raw attention [K, N].

    Where a processor computes without gradients it does so in pieces that stay in its cache: the
    activations of all at once take longer than the products.
    """
    if torch.is_grad_enabled() or features.device.type != "cpu":
        h = embed(features)
        return h, attention(h)
    embedded, raw = [], []
    for piece in torch.split(features, PIECE):
        embedded.append(embed(piece))
        raw.append(attention(embedded[-1]))
    return torch.cat(embedded) if len(embed) else features, torch.cat(raw, 1)


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
        if torch.is_grad_enabled() or bag.device.type != "cpu":
            h = self.embed(bag)  # [N, L]
            raw = self.attention(h)  # [1, N]
            z, votes = (raw.softmax(1) @ h)[0], self.classifier.weight @ h.T  # [L], [C, N]
        else:
            raw, z, votes = self._in_pieces(bag)
        a = raw.softmax(1)
        contributions = a * votes
        return Aggregate(
            logits=self.classifier(z),
            maps=(AttentionMap(0, "attention", raw, a, all_of(bag)),),
            contributions=contributions,
            bias=self.classifier.bias,
            embedding=z,
        )

    def _in_pieces(self, bag: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return raw attention [1, N], the sum by its softmax [L], and W h of each [C, N].

        Each piece is looked at once, while it is in the processor's cache; the sum so far is
        scaled down where higher attention comes (Milakov and Gimelshein 2018).
        """
        raws, votes = [], []
        most, weight = bag.new_full((1, 1), -torch.inf), bag.new_zeros(1, 1)
        total = bag.new_zeros(1, self.classifier.in_features)
        for piece in torch.split(bag, PIECE):
            h = self.embed(piece)
            raw = self.attention(h)  # [1, n]
            higher = torch.maximum(most, raw.max(1, keepdim=True).values)
            share, before = (raw - higher).exp(), (most - higher).exp()
            total, weight = total * before + share @ h, weight * before + share.sum(1, True)
            most = higher
            raws.append(raw)
            votes.append(self.classifier.weight @ h.T)
        return torch.cat(raws, 1), (total / weight)[0], torch.cat(votes, 1)
