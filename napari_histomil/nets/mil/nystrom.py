r"""Nyström attention (Xiong et al., AAAI 2021): self-attention without an N x N matrix.

Queries and keys are averaged over m runs of neighbouring tokens, the landmarks
:math:`\tilde Q, \tilde K`:

.. math::

    \hat S V = \underbrace{\mathrm{softmax}(Q \tilde K^T / \sqrt d)}_{N \times m}
    \underbrace{\mathrm{softmax}(\tilde Q \tilde K^T / \sqrt d)^{+}}_{m \times m}
    \underbrace{\mathrm{softmax}(\tilde Q K^T / \sqrt d)}_{m \times N} V

The pseudo-inverse is that of six steps of the iteration of Razavi et al. (2014). A depth-wise
convolution of V along the tokens is added. Sequences are padded with zeros at the front to a
multiple of m.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class NystromAttention(nn.Module):
    """Multi-head Nyström self-attention.

    Parameters
    ----------
    dim
        Width of a token.
    heads
        Number of heads; each is ``dim // heads`` wide unless `head_dim` says otherwise.
    landmarks
        m.
    kernel
        Length of the convolution, odd.
    dropout
        After the last layer.
    head_dim
        Width of a head.
    """

    ITERATIONS = 6

    def __init__(
        self,
        dim: int,
        heads: int,
        landmarks: int,
        *,
        kernel: int = 33,
        dropout: float = 0.1,
        head_dim: int | None = None,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.head_dim = head_dim or dim // heads
        self.landmarks = landmarks
        inner = heads * self.head_dim
        self.qkv = nn.Linear(dim, 3 * inner, bias=False)
        self.out = nn.Sequential(nn.Linear(inner, dim), nn.Dropout(dropout))
        self.local = nn.Conv2d(
            heads, heads, (kernel, 1), padding=(kernel // 2, 0), groups=heads, bias=False
        )

    def forward(self, x: Tensor, row: int | None = None) -> tuple[Tensor, Tensor | None]:
        """Attend.

        Parameters
        ----------
        x
            [N, D] tokens.
        row
            A token whose row of the Nyström product is wanted, too.

        Returns
        -------
        tuple
            [N, D], and that row [N], the mean of the heads, or none.
        """
        m = self.landmarks
        front = -len(x) % m
        x = F.pad(x, (0, 0, front, 0))  # [P, D], P a multiple of m
        q, k, v = self.qkv(x).view(len(x), 3, self.heads, self.head_dim).permute(1, 2, 0, 3)
        scale = self.head_dim**-0.5
        q_marks = q.unflatten(1, (m, -1)).mean(2) * scale  # [H, m, d]
        k_marks = k.unflatten(1, (m, -1)).mean(2)
        inverse = pseudo_inverse((q_marks @ k_marks.mT).softmax(-1), self.ITERATIONS)
        local = self.local(v[None])[0]  # [H, P, d]
        outs, rows = [], []
        for head in range(
            self.heads
        ):  # one after the other: [H, P, m] would be the largest of all
            from_marks = (q_marks[head] @ k[head].T).softmax(-1)  # [m, P]
            to_marks = (q[head] @ (k_marks[head].T * scale)).softmax(-1)  # [P, m]
            outs.append(
                local[head] + to_marks @ (inverse[head] @ (from_marks @ v[head]))
            )  # [P, d]
            if row is not None:
                rows.append(to_marks[front + row] @ inverse[head] @ from_marks)  # [P]
        out = self.out(torch.cat(outs, 1)[front:])  # [N, D]
        return out, torch.stack(rows).mean(0)[front:] if rows else None


def pseudo_inverse(x: Tensor, iterations: int) -> Tensor:
    """Return approximate pseudo-inverses of [..., m, m] by Razavi's third-order iteration.

    The start is scaled by the largest sums of the whole batch, as in Nyströmformer's code.
    """
    size = x.abs()
    z = x.mT / (size.sum(-1).max() * size.sum(-2).max())
    one = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
    for _ in range(iterations):
        xz = x @ z
        z = 0.25 * z @ (13 * one - xz @ (15 * one - xz @ (7 * one - xz)))
    return z
