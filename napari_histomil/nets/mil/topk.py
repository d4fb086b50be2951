r"""The K largest of N scores, differentiable by perturbation (Berthet 2020; Cordonnier 2021).

.. math::

    Y = \mathbb{E}_Z\left[ \mathrm{topK}(x + \sigma Z) \right], \quad Z \sim \mathcal{N}(0, 1)^N,
    \qquad
    \partial_x Y = \mathbb{E}_Z\left[ \mathrm{topK}(x + \sigma Z)\, Z^T \right] / \sigma

Row k of an indicator is 1 at the k-th of the chosen in the order of the bag, so rows of Y are
mixtures of instances that are seldom far apart. Both means are those of the same samples.
"""

from __future__ import annotations

import torch
from torch import Tensor


def hard_top_k(x: Tensor, k: int) -> Tensor:
    """Return the rows of the `k` largest of scores [N], or of all if there are fewer, in order."""
    return x.topk(min(k, len(x))).indices.sort().values


def perturbed_top_k(x: Tensor, k: int, *, sigma: float, samples: int) -> Tensor:
    """Return soft indicators [K, N] of the `k` largest of scores [N]; each row sums to 1."""
    indicators: Tensor = _PerturbedTopK.apply(x, min(k, len(x)), sigma, samples)
    return indicators


class _PerturbedTopK(torch.autograd.Function):
    """Indicators are kept as their positions: S x K numbers instead of S x K x N."""

    @staticmethod
    def forward(ctx, x: Tensor, k: int, sigma: float, samples: int) -> Tensor:  # type: ignore[no-untyped-def]
        noise = torch.randn(samples, len(x), dtype=x.dtype, device=x.device)  # [S, N]
        chosen = (x + sigma * noise).topk(k).indices.sort().values  # [S, K]
        ctx.save_for_backward(noise, chosen)
        ctx.sigma = sigma
        share = x.new_full(chosen.T.shape, 1 / samples)
        return x.new_zeros(k, len(x)).scatter_add(1, chosen.T, share)  # [K, N]

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None, None]:  # type: ignore[no-untyped-def]
        noise, chosen = ctx.saved_tensors
        along = gradient.gather(1, chosen.T).sum(0)  # [S] gradient . indicator of each sample
        return along @ noise / (len(noise) * ctx.sigma), None, None, None
