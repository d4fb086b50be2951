from __future__ import annotations

import math

import pytest
import torch

from napari_histomil.nets.mil import abmil, build_mil


def test_attention_is_the_equation_of_the_paper() -> None:
    model = build_mil("attention", 2, 1, hidden=(), attention=1).eval()
    with torch.no_grad():
        model.attention.v.weight.copy_(torch.tensor([[1.0, 0.0]]))
        model.attention.v.bias.zero_()
        model.attention.w.weight.fill_(2.0)
        model.attention.w.bias.zero_()
        model.classifier.weight.copy_(torch.tensor([[0.0, 1.0]]))
        model.classifier.bias.fill_(0.5)
    bag = torch.tensor([[0.0, 3.0], [1.0, 5.0]])
    output = model(bag)
    e = 2 * math.tanh(1.0)
    share = math.exp(e) / (1 + math.exp(e))
    assert torch.allclose(output.attention_raw, torch.tensor([[0.0, e]]))
    assert torch.allclose(output.attention, torch.tensor([[1 - share, share]]))
    assert torch.allclose(output.logits, torch.tensor([0.5 + 3 * (1 - share) + 5 * share]))
    assert torch.allclose(output.contributions, torch.tensor([[3 * (1 - share), 5 * share]]))


@pytest.mark.parametrize("hidden", [(), (6,)])
def test_pieces_are_the_whole(hidden: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(abmil, "PIECE", 3)
    model = build_mil("gated-attention", 4, 2, hidden=hidden).eval()
    bag = torch.randn(10, 4)
    whole = model(bag)
    with torch.no_grad():
        pieces = model(bag)
    assert torch.allclose(pieces.logits, whole.logits, atol=1e-6)
    assert torch.allclose(pieces.attention_raw, whole.attention_raw, atol=1e-6)
    assert torch.allclose(pieces.contributions, whole.contributions, atol=1e-6)


def test_a_closed_gate_makes_attention_uniform() -> None:
    model = build_mil("gated-attention", 4, 2).eval()
    bag = torch.randn(6, 4)
    assert not torch.allclose(model(bag).attention, torch.full((1, 6), 1 / 6))
    with torch.no_grad():
        model.attention.u.weight.zero_()
        model.attention.u.bias.fill_(-100)
    assert torch.allclose(model(bag).attention, torch.full((1, 6), 1 / 6))
