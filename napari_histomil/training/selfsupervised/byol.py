"""BYOL: from one view, foretell what a slowly following teacher says of the other; no negatives.

J.-B. Grill et al., "Bootstrap your own latent: a new approach to self-supervised learning",
NeurIPS 2020.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_histomil.training.selfsupervised.config import ByolOptions
from napari_histomil.training.selfsupervised.method import (
    Method,
    make_teacher,
    mlp,
    momentum_at,
    move,
)


class Byol(Method):
    """Student (backbone, projector, predictor) and teacher (backbone, projector)."""

    def __init__(self, backbone: nn.Module, width: int, options: ByolOptions) -> None:
        super().__init__(backbone)
        self.options = options
        self.projector = mlp((width, options.hidden, options.projection))
        self.predictor = mlp((options.projection, options.hidden, options.projection))
        self.teacher = make_teacher(nn.Sequential(self.backbone, self.projector))

    def forward(self, views: Sequence[Tensor], share: float) -> tuple[Tensor, Tensor]:
        """Return the loss, each view foretelling the other, and the student's embeddings."""
        assert self.teacher is not None
        embeddings = [self.backbone(view) for view in views]
        foretold = [self.predictor(self.projector(e)).float() for e in embeddings]
        with torch.no_grad():
            wanted = [self.teacher(view).float() for view in views]
        loss = byol_loss(foretold[0], wanted[1]) + byol_loss(foretold[1], wanted[0])
        return loss, torch.cat(embeddings)

    def follow(self, share: float) -> float:
        """Move the teacher."""
        assert self.teacher is not None
        momentum = momentum_at(self.options.momentum, share)
        move(self.teacher, nn.Sequential(self.backbone, self.projector), momentum)
        return momentum


def byol_loss(foretold: Tensor, wanted: Tensor) -> Tensor:
    """Return the mean squared distance of normalised vectors (equation 2 of the paper).

    ``|| q / |q| - z / |z| ||² = 2 - 2 cos(q, z)``: 0 where they agree, 4 where they are opposite.

    Parameters
    ----------
    foretold, wanted
        float [N, P].
    """
    return (2 - 2 * functional.cosine_similarity(foretold, wanted, dim=1)).mean()
