"""MoCo v3: each view finds the teacher's view of the same place among those of all places.

X. Chen, S. Xie, K. He, "An empirical study of training self-supervised vision transformers",
ICCV 2021. The patch embedding of a vision transformer stays random, as the paper advises (section
4.2): its gradients are what makes the training unstable.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_histomil.training.selfsupervised.config import MocoOptions
from napari_histomil.training.selfsupervised.method import Foretelling, mlp, products


class MocoV3(Foretelling):
    """Both views find each other by `info_nce`."""

    def __init__(self, backbone: nn.Module, width: int, options: MocoOptions) -> None:
        patches = getattr(backbone, "patch_embed", None)
        if isinstance(patches, nn.Module):
            patches.requires_grad_(False)
        size, hidden = options.projection, options.hidden
        super().__init__(
            backbone,
            mlp((width, hidden, hidden, size), last_norm=True),
            mlp((size, hidden, size), last_norm=True),
            options.momentum,
        )
        self.temperature = options.temperature

    def forward(self, views: Sequence[Tensor], share: float) -> tuple[Tensor, Tensor]:
        """Return the loss of both views, and the student's embeddings."""
        queries, keys, embeddings = self.answers(views)
        loss = info_nce(queries[0], keys[1], self.temperature)
        loss = loss + info_nce(queries[1], keys[0], self.temperature)
        return loss, embeddings


def info_nce(queries: Tensor, keys: Tensor, temperature: float) -> Tensor:
    """Return the contrastive loss over the keys of a batch (equation 1, algorithm 1 of the paper).

    With q and k normalised::

        loss_i = -2 t log( exp(q_i k_i / t) / sum over j of exp(q_i k_j / t) )

    Parameters
    ----------
    queries, keys
        float [N, P]; row n of both is the same place.
    """
    similar = products(functional.normalize(queries, dim=1), functional.normalize(keys, dim=1))
    own = torch.arange(len(queries), device=queries.device)
    return 2 * temperature * functional.cross_entropy(similar / temperature, own)
