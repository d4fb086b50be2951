"""``histomil/token-encoder``: a vision transformer of timm that embeds a tile, pooled its own way.

What a published encoder does to a tile before and after its transformer is part of its features:
how a tile of another size is brought to the input's, and what is taken of the last tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import timm
import torch
from timm.layers.mlp import SwiGLUPacked
from torch import Tensor, nn
from torch.nn import functional

Pooling = Literal["token", "token+mean", "attention"]

MLP_LAYERS = {"swiglu": SwiGLUPacked}
"""What `model.json` calls classes that timm wants as such."""


class TokenEncoder(nn.Module):
    """Embeddings of tiles.

    Parameters
    ----------
    backbone
        A vision transformer that timm knows.
    backbone_arguments
        Keywords of ``timm.create_model``; ``mlp_layer`` may be ``swiglu``.
    pooling
        ``token``: the class token after the last norm. ``token+mean``: it and the mean of the
        patch tokens, joined (Vorontsov et al. 2024, Virchow). ``attention``: one learned query
        attends to all tokens (Lu et al. 2024, CONCH; Yu et al. 2022, CoCa).
    pooled_dim, pooled_heads
        Width and number of heads of that query.
    resize_px
        Tiles of another side are brought to it, bicubic and antialiased; 0 leaves them.
    crop_px
        The middle of this side is taken then; 0 for all of it.
    """

    def __init__(
        self,
        backbone: str,
        backbone_arguments: Mapping[str, Any] | None = None,
        pooling: Pooling = "token",
        pooled_dim: int = 512,
        pooled_heads: int = 8,
        resize_px: int = 0,
        crop_px: int = 0,
    ) -> None:
        super().__init__()
        arguments: dict[str, Any] = dict(backbone_arguments or {})
        if "mlp_layer" in arguments:
            arguments["mlp_layer"] = MLP_LAYERS[arguments["mlp_layer"]]
        net: Any = timm.create_model(
            backbone, **{**arguments, "pretrained": False, "num_classes": 0}
        )
        self.backbone = net
        if pooling not in ("token", "token+mean", "attention"):
            raise ValueError(f"there is no pooling {pooling!r}")
        self.pooling = pooling
        width = int(net.num_features)
        self.pool = (
            AttentionPool(width, pooled_dim, pooled_heads) if pooling == "attention" else None
        )
        self.dim = {"token": width, "token+mean": 2 * width, "attention": pooled_dim}[pooling]
        self.resize_px, self.crop_px = resize_px, crop_px

    def forward(self, x: Tensor) -> Tensor:
        """[B, 3, T, T] -> [B, D]."""
        backbone: Any = self.backbone
        tokens: Tensor = backbone.forward_features(self._fitted(x))  # (B, P + N, W)
        if self.pool is not None:
            pooled: Tensor = self.pool(tokens)
            return pooled
        first = tokens[:, 0]
        if self.pooling == "token":
            return first
        patches = tokens[:, backbone.num_prefix_tokens :]
        return torch.cat([first, patches.mean(1)], dim=1)

    def _fitted(self, x: Tensor) -> Tensor:
        side = self.resize_px
        if side and x.shape[-2:] != (side, side):
            x = functional.interpolate(
                x, (side, side), mode="bicubic", antialias=True, align_corners=False
            )
        if self.crop_px:
            start = (x.shape[-1] - self.crop_px) // 2
            x = x[..., start : start + self.crop_px, start : start + self.crop_px]
        return x


class AttentionPool(nn.Module):
    """One learned query that attends to tokens: [B, N, W] -> [B, D].

    Parameters
    ----------
    width
        W, of the tokens.
    dim
        D, of the query and of the answer.
    heads
        Heads of attention.
    """

    def __init__(self, width: int, dim: int, heads: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(1, dim))
        self.norm_query = nn.LayerNorm(dim)
        self.norm_tokens = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(
            dim, heads, kdim=width, vdim=width, batch_first=True
        )
        self.norm = nn.LayerNorm(dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, N, W] -> [B, D]."""
        keys = self.norm_tokens(tokens)
        query = self.norm_query(self.query).expand(len(tokens), 1, -1)  # (B, 1, D)
        answer, _ = self.attention(query, keys, keys, need_weights=False)
        pooled: Tensor = self.norm(answer[:, 0])
        return pooled
