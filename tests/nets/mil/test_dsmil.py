from __future__ import annotations

import pytest
import torch
from torch import nn

from napari_histomil.nets.mil import build_mil


def test_each_row_is_highest_near_the_critical_instance() -> None:
    model = build_mil("dsmil", 4, 2, nonlinear=False).eval()
    bag = torch.randn(9, 4)
    output = model(bag)
    critical = output.instance_scores.argmax(0)
    q = model.query(bag)
    raw = torch.stack([q @ q[i] / 128**0.5 for i in critical])
    assert torch.allclose(output.attention_raw, raw, atol=1e-6)
    assert torch.allclose(output.attention, raw.softmax(1), atol=1e-6)


def test_each_class_is_a_question_and_streams_may_be_averaged() -> None:
    bag = torch.randn(9, 4)
    model = build_mil("dsmil", 4, 2).eval()
    output = model(bag)
    assert torch.allclose(output.probabilities, output.logits.sigmoid())
    model.average = True
    highest = output.instance_scores.max(0).values.sigmoid()
    assert torch.allclose(model(bag).probabilities, (output.logits.sigmoid() + highest) / 2)


@pytest.mark.parametrize("values", ["identity", "linear", "relu"])
def test_both_streams_are_trained(values: str) -> None:
    model = build_mil("dsmil", 4, 2, values=values)
    loss, _ = model.training_loss(
        torch.randn(9, 4), torch.tensor(1), criterion=nn.CrossEntropyLoss()
    )
    loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.instance.parameters())
    assert model.fuse.weight.grad.abs().sum() > 0
