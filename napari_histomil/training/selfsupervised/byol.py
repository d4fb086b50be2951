"""BYOL: from one view, foretell what a slowly following teacher says of the other; no negatives.

J.-B. Grill et al., "Bootstrap your own latent: a new approach to self-supervised learning",
NeurIPS 2020.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from napari_histomil.training.selfsupervised.config import ByolOptions
from napari_histomil.training.selfsupervised.method import Foretelling, mlp


class Byol(Foretelling):
    """Both views foretell each other by `byol_loss`."""

    def __init__(self, backbone: nn.Module, width: int, options: ByolOptions) -> None:
        size, hidden = options.projection, options.hidden
        super().__init__(
            backbone, mlp((width, hidden, size)), mlp((size, hidden, size)), options.momentum
        )

    def forward(self, views: Sequence[Tensor], share: float) -> tuple[Tensor, Tensor]:
        """Return the loss, each view foretelling the other, and the student's embeddings."""
        foretold, wanted, embeddings = self.answers(views)
        loss = byol_loss(foretold[0], wanted[1]) + byol_loss(foretold[1], wanted[0])
        return loss, embeddings


def byol_loss(foretold: Tensor, wanted: Tensor) -> Tensor:
    """Return the mean squared distance of normalised vectors (equation 2 of the paper).

    ``|| q / |q| - z / |z| ||² = 2 - 2 cos(q, z)``: 0 where they agree, 4 where they are opposite.

    Parameters
    ----------
    foretold, wanted
        float [N, P].
    """
    return (2 - 2 * functional.cosine_similarity(foretold, wanted, dim=1)).mean()
