from __future__ import annotations

import pytest
import torch

from napari_histomil.errors import ModelError
from napari_histomil.nets.mil import build_mil, effects


def test_effects_of_a_mean_are_known() -> None:
    model = build_mil("mean", 4, 2).eval()
    bag = torch.randn(5, 4)
    scores = model(bag).instance_scores
    answer = effects(model, bag, [0, 3])
    assert torch.allclose(answer.single, scores[[0, 3]].T, atol=1e-6)
    others = torch.stack([scores[[1, 2, 3, 4]].mean(0), scores[[0, 1, 2, 4]].mean(0)], 1)
    assert torch.allclose(answer.left_out, scores.mean(0)[:, None] - others, atol=1e-6)


def test_a_patch_goes_with_its_children() -> None:
    model = build_mil("magnification-transformer", 4, 2, width=16, heads=2).eval()
    low, high = torch.randn(3, 4), torch.randn(12, 4)
    answer = effects(model, [low, high], [1])
    assert torch.allclose(answer.single[:, 0], model([low[1:2], high[4:8]]).logits)
    without = model([low[[0, 2]], high[[0, 1, 2, 3, 8, 9, 10, 11]]]).logits
    whole = model([low, high]).logits
    assert torch.allclose(answer.left_out[:, 0], whole - without, atol=1e-6)


def test_odd_questions_are_told() -> None:
    model = build_mil("mean", 4, 2).eval()
    with pytest.raises(ModelError, match="has 5 patches"):
        effects(model, torch.zeros(5, 4), [5])
    assert effects(model, torch.zeros(1, 4), [0]).left_out.isnan().all()
    with pytest.raises(ModelError, match="evaluation mode"):
        effects(model.train(), torch.zeros(5, 4), [0])
