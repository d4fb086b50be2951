r"""A small transformer across magnifications, after HIPT (Chen et al., CVPR 2022).

From the highest magnification down, each patch takes in its children, as in HIPT's hierarchy of
cells, patches and regions, but with features of a frozen encoder and a patch's own features at its
own magnification as the first token:

.. math::

    t^L_i = f_L(x^L_i), \qquad
    t^l_i = \mathrm{Transformer}_l([f_l(x^l_i), t^{l+1}_{j} + e_{l}, j \in children(i)])_1

    a = \mathrm{softmax}(g(t^1)), \qquad logit = W \sum_i a_i t^1_i + b

with gated attention g as in `abmil.py`. The map is over the patches of the lowest magnification:
each stands for all that lies under it, and contributes :math:`a_i W t^1_i`, exactly. Children are
a set.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from napari_histomil.nets.mil.abmil import AttentionScores
from napari_histomil.nets.mil.model import (
    Aggregate,
    AttentionMap,
    Bag,
    MILModel,
    all_of,
)


class MagnificationTransformer(MILModel):
    """Children are taken in by their parents, and these are pooled by attention.

    Parameters
    ----------
    dim, classes, clinical
        See `MILModel`.
    magnifications
        Levels of a bag.
    width
        Of a token.
    heads
        Of self-attention.
    layers
        Of each transformer.
    attention
        Width of the pooling attention's layers.
    dropout
        In all layers.
    """

    def __init__(
        self,
        dim: int,
        classes: int,
        *,
        magnifications: int = 2,
        width: int = 192,
        heads: int = 4,
        layers: int = 1,
        attention: int = 128,
        dropout: float = 0.1,
        clinical: int = 0,
    ) -> None:
        super().__init__(dim, classes, clinical=clinical)
        if width % heads or magnifications < 2:
            raise ValueError("width must be a multiple of heads, and magnifications at least 2")
        self.magnifications = magnifications
        self.embed = nn.ModuleList(nn.Linear(dim, width) for _ in range(magnifications))
        self.kind = nn.Parameter(torch.randn(magnifications - 1, width) * 0.02)
        self.transformers = nn.ModuleList(
            nn.Sequential(
                *(
                    nn.TransformerEncoderLayer(
                        width, heads, 2 * width, dropout, batch_first=True, norm_first=True
                    )
                    for _ in range(layers)
                )
            )
            for _ in range(magnifications - 1)
        )
        self.norm = nn.LayerNorm(width)
        self.attention = AttentionScores(width, attention, dropout=dropout)
        self.classifier = nn.Linear(width, classes)

    def aggregate(self, bag: Bag) -> Aggregate:
        """Answer from the patches of the lowest magnification, each with all under it."""
        assert not isinstance(bag, Tensor)
        tokens = self.embed[-1](bag[-1])  # [N_L, W]
        for level in reversed(range(self.magnifications - 1)):
            own = self.embed[level](bag[level])[:, None]  # [N_l, 1, W]
            children = tokens.unflatten(0, (len(own), -1)) + self.kind[level]  # [N_l, r, W]
            tokens = self.transformers[level](torch.cat([own, children], 1))[:, 0]  # [N_l, W]
        t = self.norm(tokens)
        raw = self.attention(t)  # [1, N_1]
        a = raw.softmax(1)
        z = (a @ t)[0]  # [W]
        return Aggregate(
            logits=self.classifier(z),
            maps=(AttentionMap(0, "attention", raw, a, all_of(t)),),
            contributions=a * (self.classifier.weight @ t.T),
            bias=self.classifier.bias,
            embedding=z,
        )
