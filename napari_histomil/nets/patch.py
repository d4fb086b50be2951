"""A patch classifier that answers for the middle of its tile and sees the tissue around it.

Usual classifiers average the last feature map over the whole tile, so that a tile with context
answers for the context too. Here two means go into the linear head: that of the cell in the
middle, and that of the whole tile. Each is brought to mean 0 and variance 1 over its channels
(Ba et al. 2016, layer normalisation): it then says which features are strong, not how strong all
are, so that tissue unlike any seen in training cannot get an answer beyond all others.

Means commute with the head, so every cell inside a tile can be asked in one pass, which training
uses: many answers to learn from for one forward.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional


class CentrePatch(nn.Module):
    """Logits of the cell in the middle of a tile.

    Parameters
    ----------
    classes
        Number of outputs.
    backbone
        A name that timm knows and that can give feature maps.
    backbone_arguments
        Further keywords of ``timm.create_model``.
    level
        Which feature map of the backbone is used, counted as timm does.
    cell_px
        Side of the cell; a multiple of the feature map's stride.
    dropout
        On the features, in training only.

    Raises
    ------
    ValueError
        If the cell is not a whole number of feature pixels.
    """

    def __init__(
        self,
        classes: int,
        backbone: str,
        backbone_arguments: Mapping[str, Any] | None = None,
        level: int = 3,
        cell_px: int = 64,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.backbone = timm.create_model(
            backbone,
            **{
                **(backbone_arguments or {}),
                "pretrained": False,
                "features_only": True,
                "out_indices": (level,),
            },
        )
        facts: Any = self.backbone.feature_info
        self.stride_px: int = facts.reduction()[0]
        if cell_px % self.stride_px:
            raise ValueError(
                f"a cell of {cell_px} px is no whole number of features of {self.stride_px} px"
            )
        self.cell = cell_px // self.stride_px
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(2 * facts.channels()[0], classes)

    def forward(self, x: Tensor) -> Tensor:
        """Answer for the middle: [B, 3, T, T] -> logits [B, classes]."""
        features = self.backbone(x)[0]  # (B, D, h, w)
        top = (features.shape[2] - self.cell) // 2
        left = (features.shape[3] - self.cell) // 2
        middle = features[:, :, top : top + self.cell, left : left + self.cell]
        return self._answer(middle.mean((2, 3)), features.mean((2, 3)))

    def cells(self, x: Tensor, step_px: int) -> Tensor:
        """Answer for every cell inside the tile, `step_px` apart, from its corner.

        [B, 3, T, T] -> logits [B, classes, n, n] with n = (T - cell) / step + 1; the one in the
        middle, if there is one, is that of `forward`.
        """
        features = self.backbone(x)[0]  # (B, D, h, w)
        own = functional.avg_pool2d(features, self.cell, max(step_px // self.stride_px, 1))
        around = features.mean((2, 3), keepdim=True).expand_as(own)
        return self._answer(own.movedim(1, -1), around.movedim(1, -1)).movedim(-1, 1)

    def _answer(self, own: Tensor, around: Tensor) -> Tensor:
        """[..., D] of the cell and of the tile -> logits [..., classes]."""
        size = own.shape[-1:]
        parts = [functional.layer_norm(own, size), functional.layer_norm(around, size)]
        logits: Tensor = self.head(self.dropout(torch.cat(parts, dim=-1)))
        return logits
