r"""TransMIL (Shao et al., NeurIPS 2021): patches attend to one another, and to their places.

.. math::

    H_0 = [cls, f(x_1), ..., f(x_N), f(x_1), ...] \text{, filled up to a square}

    H_1 = H_0 + A_1(LN(H_0)), \qquad H_2 = PPEG(H_1), \qquad H_3 = H_2 + A_2(LN(H_2))

    logit = W\, LN(H_3)_{cls} + b

A is Nyström attention (`nystrom.py`); PPEG folds the sequence into its square and adds depth-wise
convolutions of 7, 5 and 3 to it. So the order of the patches is part of the question.

The authors give no map. Ours is the class token's row of :math:`A_2`'s Nyström product, the mean
of its heads: no softmax, it may be negative and need not sum to 1. What was repeated to fill the
square is added to its originals.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_histomil.nets.mil.model import (
    Aggregate,
    AttentionMap,
    Bag,
    MILModel,
    all_of,
    embedding,
)
from napari_histomil.nets.mil.nystrom import NystromAttention


class _Layer(nn.Module):
    def __init__(self, width: int, heads: int, landmarks: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = NystromAttention(width, heads, landmarks, head_dim=width // heads)

    def forward(self, x: Tensor, row: int | None = None) -> tuple[Tensor, Tensor | None]:
        out, weights = self.attention(self.norm(x), row)
        return x + out, weights


class PositionEncoding(nn.Module):
    """The pyramid position encoding generator, PPEG."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(width, width, size, padding=size // 2, groups=width) for size in (7, 5, 3)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Encode tokens [1 + S * S, D], of which the first is the class's and stays."""
        side = isqrt(len(x) - 1)
        square = x[1:].T.reshape(1, -1, side, side)
        # the three kernels are one of the largest size
        kernel, bias = x.new_zeros(()), x.new_zeros(())
        for convolution in self.convolutions:
            assert isinstance(convolution, nn.Conv2d)
            assert convolution.bias is not None
            kernel = kernel + F.pad(convolution.weight, [3 - convolution.kernel_size[0] // 2] * 4)
            bias = bias + convolution.bias
        encoded = square + F.conv2d(square, kernel, bias, padding=3, groups=len(kernel))
        return torch.cat([x[:1], encoded.flatten(2)[0].T])


class TransMIL(MILModel):
    """Two Nyström layers with a position encoding between them.

    Parameters
    ----------
    dim, classes, clinical
        See `MILModel`.
    hidden
        Widths of the fully connected layers before; the last is that of the tokens, and a multiple
        of `heads`.
    heads
        Heads of attention.
    landmarks
        Of the Nyström approximation; half the width by default.
    dropout
        After the fully connected layers; the authors have none.
    """

    ordered: ClassVar[bool] = True

    def __init__(
        self,
        dim: int,
        classes: int,
        *,
        hidden: Sequence[int] = (512,),
        heads: int = 8,
        landmarks: int | None = None,
        dropout: float = 0.0,
        clinical: int = 0,
    ) -> None:
        super().__init__(dim, classes, clinical=clinical)
        self.embed, width = embedding(dim, hidden, dropout)
        if width % heads:
            raise ValueError(f"a width of {width} cannot be shared by {heads} heads")
        self.token = nn.Parameter(torch.randn(1, width))
        marks = landmarks or width // 2
        self.first = _Layer(width, heads, marks)
        self.position = PositionEncoding(width)
        self.second = _Layer(width, heads, marks)
        self.norm = nn.LayerNorm(width)
        self.classifier = nn.Linear(width, classes)

    def aggregate(self, bag: Bag) -> Aggregate:
        """Answer from the class token."""
        assert isinstance(bag, Tensor)
        count = len(bag)
        side = isqrt(count - 1) + 1  # the smallest square that holds all
        repeated = side * side - count  # always fewer than N
        x = self.embed(bag)  # [N, L]
        x = torch.cat([self.token, x, x[:repeated]])  # [1 + S * S, L]
        x, _ = self.first(x)
        x = self.position(x)
        x, row = self.second(x, row=0)
        weights = row[1 : 1 + count]
        weights = torch.cat([weights[:repeated] + row[1 + count :], weights[repeated:]])
        z = self.norm(x[0])  # [L]
        return Aggregate(
            logits=self.classifier(z),
            maps=(AttentionMap(0, "class token", None, weights[None], all_of(bag)),),
            embedding=z,
        )
