from __future__ import annotations

import pytest
import torch

from napari_histomil.nets.mil import MILModel, build_mil


@pytest.fixture
def model() -> MILModel:
    torch.manual_seed(0)
    return build_mil("transmil", 6, 2, hidden=(32,), heads=4).eval()


def test_repeated_tokens_are_added_to_their_originals(model: MILModel) -> None:
    bag = torch.randn(7, 6)  # a square of 9: the first two come twice
    weights = model(bag).attention[0]
    twice = model(torch.cat([bag, bag[:2]])).attention[0]  # the same sequence, nothing repeated
    assert torch.allclose(weights[2:], twice[2:7], atol=1e-6)
    assert torch.allclose(weights[:2], twice[:2] + twice[7:], atol=1e-6)


def test_its_map_is_no_softmax(model: MILModel) -> None:
    output = model(torch.randn(50, 6))
    assert output.attention_raw is None
    assert output.attention.shape == (1, 50)
    assert output.contributions is None


def test_order_is_part_of_the_question(model: MILModel) -> None:
    bag = torch.randn(30, 6)
    assert not torch.allclose(model(bag).logits, model(bag.flip(0)).logits, atol=1e-4)
    assert type(model).ordered


@pytest.mark.parametrize("count", [1, 2, 3, 16, 17])
def test_any_number_of_patches_is_a_bag(model: MILModel, count: int) -> None:
    output = model(torch.randn(count, 6))
    assert output.attention.shape == (1, count)
    assert torch.isfinite(output.logits).all()
