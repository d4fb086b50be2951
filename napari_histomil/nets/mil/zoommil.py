r"""ZoomMIL (Thandiackal et al., ECCV 2022): look at all, zoom into the K that are worth it.

At each magnification l, the lowest first, with gated attention as in `abmil.py`:

.. math::

    h^l_i = f_l(x^l_i), \qquad a^l = \mathrm{softmax}(g_l(h^l)), \qquad z^l = \sum_i a^l_i h^l_i

    T^l = \mathrm{topK}(\mathrm{softmax}(g'_l(h^l))), \qquad
    x^{l+1} = \text{children of } T^l

    logit = W \sum_l z^l + b

In training topK is that of perturbed scores (`topk.py`), so that the auxiliary attention g' learns
what to zoom into, and the children of a chosen one are mixtures. So each instance that was reached
contributes :math:`a^l_i W h^l_i` to the logits, exactly, and contributions of all magnifications
add up. Patches that were not reached were not examined: they have no attention, not one of 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from napari_histomil.errors import ModelError
from napari_histomil.nets.mil.abmil import AttentionScores, attend
from napari_histomil.nets.mil.model import (
    Aggregate,
    AttentionMap,
    Bag,
    MILModel,
    MILOutput,
    all_of,
    embedding,
)
from napari_histomil.nets.mil.topk import hard_top_k, perturbed_top_k

Children = Callable[[int, Tensor], tuple[Tensor, Tensor]]
"""(level, rows [R] of it) -> features [M, D] of their children at the next level, and which rows
[M] of that level they are."""

_Descend = Callable[[int, Tensor, Tensor], tuple[Tensor, Tensor]]
"""(level, selection [N_l], index [N_l]) -> features and index of the next level."""


class ZoomMIL(MILModel):
    """Attention at several magnifications, each on what the one below has chosen.

    Parameters
    ----------
    dim, classes, clinical
        See `MILModel`.
    magnifications
        Levels of a bag.
    k
        How many patches of a level are zoomed into; one number, or one for each level but the
        highest.
    hidden
        Width of the embedded instances.
    attention
        Width of the attention's layers.
    dropout
        After embedding and in attention.
    sigma
        Standard deviation of the noise on the selecting softmax, in training.
    samples
        How many samples of it.
    """

    def __init__(
        self,
        dim: int,
        classes: int,
        *,
        magnifications: int = 3,
        k: int | Sequence[int] = 12,
        hidden: int = 512,
        attention: int = 256,
        dropout: float = 0.25,
        sigma: float = 0.002,
        samples: int = 100,
        clinical: int = 0,
    ) -> None:
        super().__init__(dim, classes, clinical=clinical)
        self.magnifications = magnifications
        lower = magnifications - 1
        self.k = (k,) * lower if isinstance(k, int) else tuple(k)
        if lower < 1 or len(self.k) != lower or min(self.k) < 1:
            raise ValueError(
                f"{magnifications} magnifications need a k of at least 1 for each but the highest"
            )
        self.sigma = sigma
        self.samples = samples

        def scores() -> AttentionScores:
            return AttentionScores(hidden, attention, dropout=dropout)

        self.embed = nn.ModuleList(
            embedding(dim, (hidden,), dropout)[0] for _ in range(magnifications)
        )
        self.attention = nn.ModuleList(scores() for _ in range(magnifications))
        self.selection = nn.ModuleList(scores() for _ in range(lower))
        self.classifier = nn.Linear(hidden, classes)

    def aggregate(self, bag: Bag) -> Aggregate:
        """Answer from a bag whose levels are all there; of the higher ones few rows are used."""
        assert not isinstance(bag, Tensor)
        levels = list(bag)

        def mixed(level: int, selection: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
            chosen = perturbed_top_k(
                selection, self.k[level], sigma=self.sigma, samples=self.samples
            )  # [K, N_l]
            for higher in range(level + 1, len(levels)):
                rows = levels[higher].reshape(len(selection), -1)  # [N_l, r * D]
                levels[higher] = (chosen @ rows).reshape(-1, self.dim)  # [K * r, D]
            index = index[hard_top_k(selection, self.k[level])]
            return levels[level + 1], children_of(index, len(bag[level + 1]) // len(bag[level]))

        def sliced(level: int, rows: Tensor) -> tuple[Tensor, Tensor]:
            index = children_of(rows, len(bag[level + 1]) // len(bag[level]))
            return bag[level + 1][index], index

        return self._zoom(levels[0], mixed if self.training else self._choosing(sliced))

    def examine(
        self, lowest: Tensor, children: Children, clinical: Tensor | None = None
    ) -> MILOutput:
        """Answer without a bag of the higher magnifications: what is needed is asked for.

        Parameters
        ----------
        lowest
            [N, D] features of the lowest magnification.
        children
            Gives the features of the chosen patches' children; called once for each level but the
            last. A patch may have any number of children.
        clinical
            See `forward`.

        Raises
        ------
        ModelError
            As `forward`; or if nothing that was chosen has children.
        """
        if self.training:
            raise ModelError("Examining is for evaluation: in training all of the bag is needed.")
        kind = self.classifier.weight

        def checked(level: int, rows: Tensor) -> tuple[Tensor, Tensor]:
            features, index = children(level, rows)
            if features.shape != (len(index), self.dim) or not len(index):
                raise ModelError(
                    f"Magnification {level + 2} of {self.magnifications} gave features of shape "
                    f"{list(features.shape)} for the {len(rows)} chosen patches, and the model "
                    f"takes [N, {self.dim}]."
                )
            return features.to(kind), index

        if lowest.ndim != 2 or lowest.shape[1] != self.dim or not len(lowest):
            raise ModelError(
                f"The bag's lowest magnification has the shape {list(lowest.shape)}, and the "
                f"model takes [N, {self.dim}] with at least one tile."
            )
        return self.complete(self._zoom(lowest.to(kind), self._choosing(checked)), clinical)

    def _choosing(self, children: Children) -> _Descend:
        def descend(level: int, selection: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
            return children(level, index[hard_top_k(selection, self.k[level])])

        return descend

    def _zoom(self, features: Tensor, descend: _Descend) -> Aggregate:
        index = all_of(features)
        maps: list[AttentionMap] = []
        contributions: list[Tensor] = []
        pooled = self.classifier.weight.new_zeros(self.classifier.in_features)  # [L]
        for level in range(self.magnifications):
            last = level == self.magnifications - 1
            scorers = [self.attention[level], *([] if last else [self.selection[level]])]
            found = attend(self.embed[level], scorers, self.classifier.weight, features)
            pooled = pooled + found.pooled[0]
            contributions.append(found.value * found.votes)  # [C, N_l]
            if not last:
                wish = found.raw[1]  # [1, N_l]
                chances = wish.softmax(1)
                maps.append(AttentionMap(level, "selection", wish, chances, index))
            maps.append(AttentionMap(level, "attention", found.raw[0], found.value, index))
            if not last:
                features, index = descend(level, chances[0], index)
        return Aggregate(
            logits=self.classifier(pooled),
            maps=tuple(maps),
            contributions=torch.cat(contributions, 1),
            bias=self.classifier.bias,
            embedding=pooled,
        )


def children_of(rows: Tensor, each: int) -> Tensor:
    """Return the rows [R * each] of the next level that belong to rows [R], in their order."""
    return (rows[:, None] * each + torch.arange(each, device=rows.device)).flatten()
