from __future__ import annotations

import torch
import torch.nn.functional as F

from napari_histomil.nets.mil.nystrom import NystromAttention, pseudo_inverse


def test_with_as_many_landmarks_as_tokens_it_is_self_attention() -> None:
    torch.manual_seed(0)
    attention = NystromAttention(16, heads=2, landmarks=12, kernel=3).double().eval()
    torch.nn.init.zeros_(attention.local.weight)
    attention.ITERATIONS = 40  # so that the pseudo-inverse is one
    x = torch.randn(12, 16, dtype=torch.float64)
    out, row = attention(x, row=0)
    q, k, v = attention.qkv(x).view(12, 3, 2, 8).permute(1, 2, 0, 3)
    weights = (q @ k.mT / 8**0.5).softmax(-1)  # [H, N, N]
    wanted = attention.out((weights @ v).transpose(0, 1).flatten(1))
    assert torch.allclose(out, wanted, atol=1e-8)
    assert torch.allclose(row, weights[:, 0].mean(0), atol=1e-8)


def test_the_row_is_that_of_the_whole_product_without_padding() -> None:
    torch.manual_seed(0)
    attention = NystromAttention(16, heads=2, landmarks=4, kernel=3).eval()
    x = torch.randn(10, 16)
    _, row = attention(x, row=3)
    q, k, _ = attention.qkv(F.pad(x, (0, 0, 2, 0))).view(12, 3, 2, 8).permute(1, 2, 0, 3)
    q = q / 8**0.5
    q_marks, k_marks = q.unflatten(1, (4, 3)).mean(2), k.unflatten(1, (4, 3)).mean(2)
    inverse = pseudo_inverse((q_marks @ k_marks.mT).softmax(-1), 6)
    whole = (q @ k_marks.mT).softmax(-1) @ inverse @ (q_marks @ k.mT).softmax(-1)
    assert torch.allclose(row, whole[:, 2 + 3, 2:].mean(0), atol=1e-6)


def test_the_inverse_of_a_well_conditioned_matrix() -> None:
    torch.manual_seed(0)
    x = (torch.eye(6) * 4 + torch.rand(2, 6, 6)).softmax(-1).double()
    assert torch.allclose(pseudo_inverse(x, 30) @ x, torch.eye(6).double(), atol=1e-8)
