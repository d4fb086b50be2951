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
from napari_histomil.training.selfsupervised.method import (
    Method,
    make_teacher,
    mlp,
    momentum_at,
    move,
    products,
)


class MocoV3(Method):
    """Student (backbone, projector, predictor) and teacher (backbone, projector)."""

    def __init__(self, backbone: nn.Module, width: int, options: MocoOptions) -> None:
        super().__init__(backbone)
        self.options = options
        patches = getattr(backbone, "patch_embed", None)
        if isinstance(patches, nn.Module):
            patches.requires_grad_(False)
        size, hidden = options.projection, options.hidden
        self.projector = mlp((width, hidden, hidden, size), last_norm=True)
        self.predictor = mlp((size, hidden, size), last_norm=True)
        self.teacher = make_teacher(nn.Sequential(self.backbone, self.projector))

    def forward(self, views: Sequence[Tensor], share: float) -> tuple[Tensor, Tensor]:
        """Return the loss of both views, and the student's embeddings."""
        assert self.teacher is not None
        embeddings = [self.backbone(view) for view in views]
        queries = [self.predictor(self.projector(e)).float() for e in embeddings]
        with torch.no_grad():
            keys = [self.teacher(view).float() for view in views]
        temperature = self.options.temperature
        loss = info_nce(queries[0], keys[1], temperature)
        loss = loss + info_nce(queries[1], keys[0], temperature)
        return loss, torch.cat(embeddings)

    def follow(self, share: float) -> float:
        """Move the teacher."""
        assert self.teacher is not None
        momentum = momentum_at(self.options.momentum, share)
        move(self.teacher, nn.Sequential(self.backbone, self.projector), momentum)
        return momentum


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
