from __future__ import annotations

import torch

from napari_histomil.nets.mil import build_mil


def test_mean_is_the_mean_of_the_scores() -> None:
    model = build_mil("mean", 4, 3, hidden=(8, 6)).eval()
    bag = torch.randn(7, 4)
    output = model(bag)
    assert output.instance_scores is not None
    assert torch.allclose(output.logits, output.instance_scores.mean(0), atol=1e-6)
    single = model(bag[2:3])
    assert torch.allclose(single.logits, output.instance_scores[2], atol=1e-6)
    assert torch.allclose(output.attention, torch.full((1, 7), 1 / 7))


def test_max_is_one_instance_a_class() -> None:
    model = build_mil("max", 4, 3, hidden=()).eval()
    bag = torch.randn(7, 4)
    output = model(bag)
    scores = model.classifier(bag)
    assert torch.equal(output.logits, scores.max(0).values)
    assert torch.equal(output.attention.argmax(1), scores.argmax(0))
    assert torch.equal(output.attention.sum(1), torch.ones(3))
    assert output.contributions is None
