"""How weights that others published are named, and what timm calls them.

Nothing is dropped in silence: what a published file has besides the vision transformer (a text
tower, a token for masks) is named here, and all else must fit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

State = Mapping[str, Tensor]

_BLOCK = re.compile(r"encoder\.layer\.(\d+)\.(.+)\.(weight|bias|lambda1)")

_IN_BLOCK = {
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "norm1": "norm1",
    "norm2": "norm2",
    "attention.output.dense": "attn.proj",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
    "mlp.weights_in": "mlp.fc1",
    "mlp.weights_out": "mlp.fc2",
    "layer_scale1": "ls1",
    "layer_scale2": "ls2",
}

_CONCH_POOL = {
    "visual.attn_pool_contrast.query": "pool.query",
    "visual.attn_pool_contrast.ln_q.": "pool.norm_query.",
    "visual.attn_pool_contrast.ln_k.": "pool.norm_tokens.",
    "visual.attn_pool_contrast.attn.": "pool.attention.",
    "visual.ln_contrast.": "pool.norm.",
}


def of_timm(state: State) -> dict[str, Tensor]:
    """Return the weights of a net of timm as the backbone of `token_encoder.TokenEncoder`."""
    return {f"backbone.{name}": tensor for name, tensor in state.items()}


def of_transformers(state: State) -> dict[str, Tensor]:
    """Return the weights of a ``ViTModel`` or ``Dinov2Model`` of transformers, as `of_timm`.

    Query, key and value are one matrix in timm. Where there are registers, the class token's
    position is added to the token itself, as timm does with DINOv2's.
    """
    found: dict[str, Tensor] = {}
    parts: dict[str, dict[str, Tensor]] = {}
    for full, tensor in state.items():
        name = re.sub(r"^(vit|dinov2)\.", "", full)
        if name.startswith("pooler.") or name == "embeddings.mask_token":
            continue
        if (match := _BLOCK.fullmatch(name)) is None:
            found[_outside_blocks(name)] = tensor
            continue
        block, layer, kind = match.groups()
        if layer.startswith("attention.attention."):
            parts.setdefault(f"blocks.{block}.attn.qkv.{kind}", {})[layer[20:]] = tensor
        else:
            renamed = "gamma" if kind == "lambda1" else kind
            found[f"blocks.{block}.{_IN_BLOCK.get(layer, layer)}.{renamed}"] = tensor
    for name, part in parts.items():
        found[name] = torch.cat([part[which] for which in ("query", "key", "value")])
    if "reg_token" in found:
        position = found["pos_embed"]
        found["cls_token"] = found["cls_token"] + position[:, :1]
        found["pos_embed"] = position[:, 1:].contiguous()
    return of_timm(found)


def of_conch(state: State) -> dict[str, Tensor]:
    """Return the weights of CONCH's vision tower before its last projection."""
    found = {}
    for name, tensor in state.items():
        if name.startswith("visual.trunk."):
            found[f"backbone.{name[13:]}"] = tensor
        for theirs, ours in _CONCH_POOL.items():
            if name.startswith(theirs):
                found[ours + name[len(theirs) :]] = tensor
    return found


def _outside_blocks(name: str) -> str:
    known = {
        "embeddings.cls_token": "cls_token",
        "embeddings.position_embeddings": "pos_embed",
        "embeddings.register_tokens": "reg_token",
    }
    name = known.get(name, name)
    name = name.replace("embeddings.patch_embeddings.projection.", "patch_embed.proj.")
    return name.replace("layernorm.", "norm.")


NAMES: dict[str, Callable[[State], dict[str, Tensor]]] = {
    "timm": of_timm,
    "transformers": of_transformers,
    "conch": of_conch,
}
"""Whose names -> what gives ours."""
