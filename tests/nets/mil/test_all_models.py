"""What holds for every model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from napari_histomil.manifest.mil import MAP_KINDS
from napari_histomil.nets.mil import MODELS, MILModel, build_mil

SMALL: dict[str, dict[str, Any]] = {
    "transmil": {"hidden": (16,), "heads": 2},
    "zoommil": {"k": 2, "hidden": 16, "attention": 8, "magnifications": 2},
    "magnification-transformer": {"width": 16, "heads": 2},
    "dsmil": {},
}
EXACT = [name for name in MODELS if name not in ("max", "transmil")]
POOLING = [name for name in MODELS if name != "transmil"]


def small(name: str, seed: int = 0, **changes: Any) -> MILModel:
    torch.manual_seed(seed)
    arguments = SMALL.get(name, {"hidden": (16,)}) | changes
    if "attention" in name or "clam" in name:
        arguments["attention"] = 8
    return build_mil(name, 6, 3, **arguments)


def bag_of(model: MILModel, count: int = 11, seed: int = 1) -> Tensor | list[Tensor]:
    torch.manual_seed(seed)
    low = torch.randn(count, 6)
    return low if model.magnifications == 1 else [low, torch.randn(4 * count, 6)]


@pytest.mark.parametrize("name", EXACT)
def test_contributions_add_up_to_the_logits(name: str) -> None:
    model = small(name).double().eval()
    output = model(bag_of(model))
    total = output.bias + output.contributions.sum(1)
    assert torch.allclose(total, output.logits, atol=1e-5)
    assert output.contributions.abs().sum() > 0
    single = small(name).eval()
    output = single(bag_of(single))
    assert torch.allclose(output.bias + output.contributions.sum(1), output.logits, atol=1e-5)


@pytest.mark.parametrize("name", POOLING)
def test_the_order_of_a_bag_means_nothing(name: str) -> None:
    model = small(name).eval()
    bag = bag_of(model)
    torch.manual_seed(2)
    order = torch.randperm(11)
    if isinstance(bag, Tensor):
        other: Tensor | list[Tensor] = bag[order]
    else:
        other = [bag[0][order], bag[1].unflatten(0, (11, 4))[order].flatten(0, 1)]
    straight, mixed = model(bag), model(other)
    assert torch.allclose(straight.logits, mixed.logits, atol=1e-5)
    value = straight.maps[0].value[:, order]
    assert torch.allclose(value, mixed.maps[0].value, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_maps_say_what_they_are_and_where(name: str) -> None:
    model = small(name).eval()
    output = model(bag_of(model))
    assert output.maps
    assert output.logits.shape == output.probabilities.shape == (3,)
    for m in output.maps:
        assert m.kind in MAP_KINDS
        assert len(m.index.unique()) == len(m.index) == m.value.shape[1]
        if m.raw is not None:
            assert torch.allclose(m.raw.softmax(1), m.value, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in MODELS if name != "max"])
def test_the_last_layer_answers_from_the_embedding(name: str) -> None:
    model = small(name).eval()
    output = model(bag_of(model))
    z, last = output.embedding, model.fuse if name == "dsmil" else model.classifier
    if name == "dsmil":
        expected = last(z.reshape(1, 3, -1))[0, :, 0]
    elif name == "clam-mb":
        expected = (last.weight * z.reshape(3, -1)).sum(1) + last.bias
    else:
        expected = last(z)
    assert z.ndim == 1
    torch.testing.assert_close(output.logits, expected)


def test_the_maximum_has_no_embedding() -> None:
    model = small("max").eval()
    assert model(bag_of(model)).embedding is None


@pytest.mark.parametrize("name", MODELS)
def test_a_toy_set_of_bags_is_learned(name: str) -> None:
    """Bags of class c hold one instance that says so among noise."""
    model = small(name, dropout=0.0)
    torch.manual_seed(3)
    bags, targets = [], []
    for i in range(9):
        low = 0.3 * torch.randn(8, 6)
        low[i % 8, i % 3] += 3
        high = low.repeat_interleave(4, 0) + 0.1 * torch.randn(32, 6)
        bags.append(low if model.magnifications == 1 else [low, high])
        targets.append(torch.tensor(i % 3))
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(60):
        optimiser.zero_grad()
        criterion = nn.CrossEntropyLoss()
        losses = [
            model.training_loss(bag, target, criterion=criterion)[0]
            for bag, target in zip(bags, targets, strict=True)
        ]
        loss = torch.stack(losses).mean()
        loss.backward()
        optimiser.step()
        if loss < 0.1:
            break
    touched = [n for n, p in model.named_parameters() if p.grad is None]
    assert not touched
    model.eval()
    answers = [int(model(bag).logits.argmax()) for bag in bags]
    assert answers == [int(target) for target in targets]
