r"""CLAM-SB and CLAM-MB (Lu et al., Nature Biomedical Engineering 2021).

Gated attention as in `abmil.py` with one row (SB), or one a class (MB):

.. math::

    z_c = \sum_i a_{k(c) i} h_i, \qquad logit_c = W_c z_c + b_c, \qquad
    k(c) = 1 \text{ (SB)},\; c \text{ (MB)}

In training the B instances of highest and of lowest attention are told apart by a classifier of
the bag's class, "cluster c or not": pseudo-labels 1 and 0; with `subtyping` the highest of the
other classes are pseudo-labelled 0 by theirs. The loss is
:math:`w \cdot bag + (1 - w) \cdot instance`, where the instance loss is the smooth top-1 SVM
(Berrada 2018) :math:`\tau \log \sum_j \exp((\alpha [j \ne y] + s_j) / \tau) - s_y` with
:math:`\alpha = \tau = 1`, or cross-entropy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_histomil.nets.mil.abmil import Attended, AttentionScores, attend
from napari_histomil.nets.mil.model import (
    Aggregate,
    AttentionMap,
    Bag,
    Criterion,
    MILModel,
    MILOutput,
    all_of,
    embedding,
)


class CLAM(MILModel):
    """Attention pooling whose attention is trained by instance clustering.

    Parameters
    ----------
    dim, classes, clinical
        See `MILModel`.
    branches
        ``sb``: one row of attention; ``mb``: one a class.
    gated, hidden, attention, dropout
        See `AttentionMIL`; dropout is in the attention's layers, too. CLAM's "small" has an
        attention of 256, "big" of 384.
    instances
        How many instances of highest, and of lowest, attention are clustered.
    subtyping
        Whether the classes exclude one another: then the other classes' branches are trained, too.
    bag_weight
        Share of the bag's loss.
    instance_loss
        ``svm`` (smooth top-1) or ``cross-entropy``.
    """

    def __init__(
        self,
        dim: int,
        classes: int,
        *,
        branches: Literal["sb", "mb"] = "sb",
        gated: bool = True,
        hidden: Sequence[int] = (512,),
        attention: int = 256,
        dropout: float = 0.25,
        instances: int = 8,
        subtyping: bool = False,
        bag_weight: float = 0.7,
        instance_loss: Literal["svm", "cross-entropy"] = "svm",
        clinical: int = 0,
    ) -> None:
        super().__init__(dim, classes, clinical=clinical)
        self.heads = classes if branches == "mb" else 1
        self.embed, width = embedding(dim, hidden, dropout)
        self.attention = AttentionScores(
            width, attention, self.heads, gated=gated, dropout=dropout
        )
        self.classifier = nn.Linear(width, classes)
        self.instance_classifiers = nn.ModuleList(nn.Linear(width, 2) for _ in range(classes))
        self.instances = instances
        self.subtyping = subtyping
        self.bag_weight = bag_weight
        self.margin = 1.0 if instance_loss == "svm" else 0.0

    def aggregate(self, bag: Bag) -> Aggregate:
        """Answer from the sums of the instances, weighted by attention."""
        assert isinstance(bag, Tensor)
        return self._answer(attend(self.embed, (self.attention,), self.classifier.weight, bag))

    def training_loss(
        self, bag: Bag, target: Tensor, *, criterion: Criterion, clinical: Tensor | None = None
    ) -> tuple[Tensor, MILOutput]:
        """Return the weighted sum of the bag's and the instances' loss; see `MILModel`."""
        h = self.embed(self.checked(bag))  # [N, L]
        found = attend(nn.Identity(), (self.attention,), self.classifier.weight, h)
        output = self.complete(self._answer(found), clinical)
        bag_loss = criterion(output.logits, target)
        instance_loss = self.instance_loss(h, found.raw[0], int(target))
        return self.bag_weight * bag_loss + (1 - self.bag_weight) * instance_loss, output

    def instance_loss(self, h: Tensor, raw: Tensor, target: int) -> Tensor:
        """Return the clustering loss of embedded instances [N, L] under raw attention [K, N]."""
        count = min(self.instances, len(h))
        losses = []
        for c, classifier in enumerate(self.instance_classifiers):
            row = raw[c if self.heads > 1 else 0]
            if c == target:
                chosen = torch.cat([row.topk(count).indices, (-row).topk(count).indices])
                wanted = torch.arange(2, device=h.device).flip(0).repeat_interleave(count)
            elif self.subtyping:
                chosen = row.topk(count).indices
                wanted = chosen.new_zeros(count)
            else:
                continue
            losses.append(smooth_svm(classifier(h[chosen]), wanted, self.margin))
        return torch.stack(losses).mean()

    def _answer(self, found: Attended) -> Aggregate:
        (raw,), z = found.raw, found.pooled  # [K, N], [K, L]
        kind = "class attention" if self.heads > 1 else "attention"
        return Aggregate(
            logits=(self.classifier.weight * z).sum(1) + self.classifier.bias,
            maps=(AttentionMap(0, kind, raw, found.value, all_of(raw.T)),),
            contributions=found.value * found.votes,  # [C, N]
            bias=self.classifier.bias,
            embedding=z.flatten(),
        )


def smooth_svm(scores: Tensor, target: Tensor, margin: float = 1.0) -> Tensor:
    """Return the mean smooth top-1 SVM loss of scores [N, C]; cross-entropy without a margin."""
    return F.cross_entropy(scores + margin * (1 - F.one_hot(target, scores.shape[1])), target)
