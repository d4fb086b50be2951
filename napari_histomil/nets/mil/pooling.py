r"""Mean and maximum pooling: the two that need no attention, and what others must beat.

.. math:: h_i = f(x_i), \qquad s_i = W h_i + b

mean: :math:`logit = W \frac{1}{N} \sum_i h_i + b = \frac{1}{N} \sum_i s_i`;
max: :math:`logit_c = \max_i s_{ic}`: a bag is what its most convincing instance is.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from napari_histomil.nets.mil.model import (
    Aggregate,
    AttentionMap,
    Bag,
    MILModel,
    all_of,
    embedding,
)


class _Scorer(MILModel):
    """Instances are embedded and scored by one linear layer.

    Parameters
    ----------
    dim, classes, clinical
        See `MILModel`.
    hidden
        Widths of the fully connected layers before; none: the features as they are.
    dropout
        After each of them.
    """

    def __init__(
        self,
        dim: int,
        classes: int,
        *,
        hidden: Sequence[int] = (512,),
        dropout: float = 0.25,
        clinical: int = 0,
    ) -> None:
        super().__init__(dim, classes, clinical=clinical)
        self.embed, width = embedding(dim, hidden, dropout)
        self.classifier = nn.Linear(width, classes)

    def score(self, bag: Bag) -> tuple[Tensor, Tensor]:
        """Return embedded instances [N, L] and their own logits [N, C]."""
        assert isinstance(bag, Tensor)
        h = self.embed(bag)
        return h, self.classifier(h)


class MeanPooling(_Scorer):
    """The mean of all instances; its map is uniform, contributions say more."""

    def aggregate(self, bag: Bag) -> Aggregate:
        """Answer from the mean of the scores."""
        h, scores = self.score(bag)  # [N, L], [N, C]
        uniform = scores.new_full((1, len(scores)), 1 / len(scores))
        bias = self.classifier.bias
        return Aggregate(
            logits=scores.mean(0),
            maps=(AttentionMap(0, "uniform", None, uniform, all_of(scores)),),
            contributions=(scores - bias).T / len(scores),
            bias=bias,
            instance_scores=scores,
            embedding=h.mean(0),
        )


class MaxPooling(_Scorer):
    """The maximum of each class over the instances; its map is 1 at that instance, else 0."""

    def aggregate(self, bag: Bag) -> Aggregate:
        """Answer from the largest scores."""
        _, scores = self.score(bag)  # [N, C]
        logits, best = scores.max(0)
        chosen = torch.zeros_like(scores.T).scatter(1, best[:, None], 1.0)  # [C, N]
        return Aggregate(
            logits=logits,
            maps=(AttentionMap(0, "argmax", None, chosen, all_of(scores)),),
            instance_scores=scores,
        )
