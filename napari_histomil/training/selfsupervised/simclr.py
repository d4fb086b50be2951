"""SimCLR: two views of a place attract each other, views of all other places repel.

T. Chen, S. Kornblith, M. Norouzi, G. Hinton, "A simple framework for contrastive learning of
visual representations", ICML 2020.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_histomil.training.selfsupervised.config import SimclrOptions
from napari_histomil.training.selfsupervised.method import Method, mlp, products


class Simclr(Method):
    """Backbone and projector, both trained by `nt_xent`."""

    def __init__(self, backbone: nn.Module, width: int, options: SimclrOptions) -> None:
        super().__init__(backbone)
        self.options = options
        self.projector = mlp((width, options.hidden, options.projection), last_norm=True)

    def forward(self, views: Sequence[Tensor], share: float) -> tuple[Tensor, Tensor]:
        """Return the loss and the embeddings of both views."""
        embeddings = self.backbone(torch.cat(list(views)))
        first, second = self.projector(embeddings).float().chunk(2)
        return nt_xent(first, second, self.options.temperature), embeddings


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Return the normalised, temperature-scaled cross-entropy (equation 1 of the paper).

    For each of the 2N views i with its partner j, with s the cosine of two projections::

        loss_i = -log( exp(s_ij / t) / sum over k != i of exp(s_ik / t) )

    Parameters
    ----------
    first, second
        float [N, P]; row n of both is the same place.

    Returns
    -------
    Tensor
        The mean over all 2N views.
    """
    unit = functional.normalize(torch.cat([first, second]), dim=1)
    n = len(first)
    similar = products(unit, unit) / temperature
    itself = torch.eye(2 * n, dtype=torch.bool, device=unit.device)
    partner = torch.arange(2 * n, device=unit.device).roll(n)
    return functional.cross_entropy(similar.masked_fill(itself, float("-inf")), partner)
