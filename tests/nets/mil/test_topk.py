from __future__ import annotations

import math

import torch

from napari_histomil.nets.mil.topk import hard_top_k, perturbed_top_k


def test_the_largest_in_the_order_of_the_bag() -> None:
    x = torch.tensor([0.1, 0.9, 0.3, 0.8])
    assert hard_top_k(x, 2).tolist() == [1, 3]
    assert hard_top_k(x, 9).tolist() == [0, 1, 2, 3]


def test_little_noise_gives_hard_indicators() -> None:
    x = torch.tensor([0.1, 0.9, 0.3, 0.8])
    soft = perturbed_top_k(x, 2, sigma=1e-4, samples=10)
    assert torch.allclose(soft, torch.tensor([[0.0, 1, 0, 0], [0, 0, 0, 1]]))


def test_mean_and_gradient_are_those_of_the_perturbed_maximum() -> None:
    """Of two scores the first is larger with probability Phi(d / (sigma sqrt 2))."""
    torch.manual_seed(0)
    sigma, x = 0.5, torch.tensor([0.3, 0.1], dtype=torch.float64, requires_grad=True)
    soft = perturbed_top_k(x, 1, sigma=sigma, samples=400_000)
    soft[0, 0].backward()
    z = 0.2 / (sigma * math.sqrt(2))
    likely = 0.5 * (1 + math.erf(z / math.sqrt(2)))
    slope = math.exp(-z * z / 2) / math.sqrt(2 * math.pi) / (sigma * math.sqrt(2))
    assert torch.allclose(soft[0], torch.tensor([likely, 1 - likely]).double(), atol=5e-3)
    assert torch.allclose(x.grad, torch.tensor([slope, -slope]).double(), atol=1e-2)


def test_rows_sum_to_one() -> None:
    torch.manual_seed(0)
    soft = perturbed_top_k(torch.rand(20), 5, sigma=0.3, samples=64)
    assert torch.allclose(soft.sum(1), torch.ones(5))
