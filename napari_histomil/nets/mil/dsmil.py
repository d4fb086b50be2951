r"""DSMIL (Li, Li and Eliceiri, CVPR 2021): two streams, the second looks where the first is sure.

.. math::

    s_i = W_0 h_i + b_0, \qquad m_c = \arg\max_i s_{ic}, \qquad
    q_i = Q(h_i), \qquad v_i = V(h_i)

    e_{ci} = q_i \cdot q_{m_c} / \sqrt{|q|}, \qquad a_c = \mathrm{softmax}(e_c), \qquad
    B_c = \sum_i a_{ci} v_i, \qquad logit_c = \sum_d \langle F_{cd}, B_d \rangle + f_c

F is a convolution over whole bag vectors: each class sees those of all classes. So instance i
contributes :math:`\sum_d a_{di} \langle F_{cd}, v_i \rangle` to class c, exactly. Each class is a
question of its own: probabilities are sigmoids. In training the maximum of the instance scores is
asked, too, with half the weight.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

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


class DSMIL(MILModel):
    """Dual-stream MIL.

    Parameters
    ----------
    dim, classes, clinical
        See `MILModel`.
    hidden, dropout
        Fully connected layers before; the paper has none.
    query
        Width of the queries.
    nonlinear
        Whether Q is two layers with ReLU and tanh, or one linear.
    values
        ``identity``: V is the instance itself; ``linear``: one layer; ``relu``: with ReLU after.
    average
        Whether a probability is the mean of the bag's and of the maximum instance score's
        (the authors' option for testing).
    """

    def __init__(
        self,
        dim: int,
        classes: int,
        *,
        hidden: Sequence[int] = (),
        dropout: float = 0.0,
        query: int = 128,
        nonlinear: bool = True,
        values: str = "identity",
        average: bool = False,
        clinical: int = 0,
    ) -> None:
        super().__init__(dim, classes, clinical=clinical)
        if values not in ("identity", "linear", "relu"):
            raise ValueError(f"values is 'identity', 'linear' or 'relu', not {values!r}")
        self.activation = "sigmoid"
        self.embed, width = embedding(dim, hidden, dropout)
        self.instance = nn.Linear(width, classes)
        self.query: nn.Module = nn.Linear(width, query)
        if nonlinear:
            self.query = nn.Sequential(self.query, nn.ReLU(), nn.Linear(query, query), nn.Tanh())
        self.value = nn.Linear(width, width) if values != "identity" else None
        self.value_relu = values == "relu"
        self.fuse = nn.Conv1d(classes, classes, kernel_size=width)
        self.average = average

    def aggregate(self, bag: Bag) -> Aggregate:
        """Answer from the instances that resemble the critical one of each class."""
        assert isinstance(bag, Tensor)
        h = self.embed(bag)  # [N, L]
        scores = self.instance(h)  # [N, C]
        q = self.query(h)  # [N, Q]
        critical = self.query(h[scores.argmax(0)])  # [C, Q]
        raw = critical @ q.T / q.shape[1] ** 0.5  # [C, N]
        a = raw.softmax(1)
        v = h if self.value is None else self.value(h)  # [N, L]
        v = v.relu() if self.value_relu else v
        weight, bias = self.fuse.weight, self.fuse.bias  # [C, D = C, L], [C]
        # d after d, so that nothing is as large as C x C x N
        parts = torch.zeros_like(raw)
        for d in range(self.classes):
            parts = parts + a[d] * (weight[:, d] @ v.T)  # [C, N]
        vectors = a @ v  # [C, L]
        return Aggregate(
            logits=self.fuse(vectors[None])[0, :, 0],
            maps=(AttentionMap(0, "critical", raw, a, all_of(h)),),
            contributions=parts,
            bias=bias,
            instance_scores=scores,
            embedding=vectors.flatten(),
        )

    def training_loss(
        self, bag: Bag, target: Tensor, *, criterion: Criterion, clinical: Tensor | None = None
    ) -> tuple[Tensor, MILOutput]:
        """Return the mean of both streams' losses; see `MILModel`."""
        output = self(bag, clinical)
        assert output.instance_scores is not None
        highest = output.instance_scores.max(0).values  # [C]
        both = criterion(output.logits, target) + criterion(highest, target)
        return 0.5 * both, output

    def probabilities(self, logits: Tensor, instance_scores: Tensor | None) -> Tensor:
        """Return sigmoids [C]; with `average` their mean with those of the maximum instances."""
        bag = self.activate(logits)
        if not self.average or instance_scores is None:
            return bag
        return (bag + self.activate(instance_scores.max(0).values)) / 2
