from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from napari_histomil.errors import ModelError
from napari_histomil.nets.mil import MILModel, build_mil


@pytest.fixture
def model() -> MILModel:
    torch.manual_seed(0)
    return build_mil("zoommil", 6, 2, k=(3, 2), hidden=16, attention=8, dropout=0.0).eval()


@pytest.fixture
def bag() -> list[Tensor]:
    torch.manual_seed(1)
    return [torch.randn(5, 6), torch.randn(20, 6), torch.randn(80, 6)]


def test_what_was_not_reached_is_not_in_a_map(model: MILModel, bag: list[Tensor]) -> None:
    output = model(bag)
    kinds = [(m.magnification, m.kind) for m in output.maps]
    assert kinds == [
        (0, "selection"), (0, "attention"), (1, "selection"), (1, "attention"), (2, "attention"),
    ]  # fmt: skip
    low, _, middle, _, high = output.maps
    assert low.index.tolist() == [0, 1, 2, 3, 4]
    chosen = low.value[0].topk(3).indices.sort().values
    assert middle.index.tolist() == [4 * int(i) + j for i in chosen for j in range(4)]
    again = middle.index[middle.value[0].topk(2).indices.sort().values]
    assert high.index.tolist() == [4 * int(i) + j for i in again for j in range(4)]
    for m in output.maps:
        assert torch.allclose(m.value.sum(1), torch.ones(1))


def test_contributions_of_all_magnifications_add_up(model: MILModel, bag: list[Tensor]) -> None:
    output = model(bag)
    parts = output.contributions_of()
    assert [(level, len(index)) for level, index, _ in parts] == [(0, 5), (1, 12), (2, 8)]
    total = output.bias + sum(part.sum(1) for _, _, part in parts)
    assert torch.allclose(total, output.logits, atol=1e-5)


def test_only_children_of_the_chosen_are_asked_for(model: MILModel, bag: list[Tensor]) -> None:
    asked = []

    def children(level: int, rows: Tensor) -> tuple[Tensor, Tensor]:
        asked.append((level, len(rows)))
        index = (rows[:, None] * 4 + torch.arange(4)).flatten()
        return bag[level + 1][index], index

    output = model.examine(bag[0], children)
    assert asked == [(0, 3), (1, 2)]
    whole = model(bag)
    assert torch.equal(output.logits, whole.logits)
    assert torch.equal(output.maps[-1].index, whole.maps[-1].index)


def test_a_patch_may_have_any_number_of_children(model: MILModel, bag: list[Tensor]) -> None:
    def children(level: int, rows: Tensor) -> tuple[Tensor, Tensor]:
        index = torch.arange(len(rows) + 3)
        return bag[level + 1][index], index

    assert torch.isfinite(model.examine(bag[0], children).logits).all()
    with pytest.raises(ModelError, match="Magnification 2 of 3 gave features of shape"):
        model.examine(bag[0], lambda level, rows: (torch.zeros(0, 6), torch.zeros(0)))
    with pytest.raises(ModelError, match="is for evaluation"):
        model.train().examine(bag[0], children)


def test_what_cannot_be_nested_is_told(model: MILModel) -> None:
    with pytest.raises(ModelError, match="21 tiles cannot be children of 5"):
        model([torch.zeros(5, 6), torch.zeros(21, 6), torch.zeros(84, 6)])
    with pytest.raises(ModelError, match="takes bags of 3 magnifications, and this one has 1"):
        model(torch.zeros(5, 6))
    with pytest.raises(ModelError, match="need a k of at least 1 for each but the highest"):
        build_mil("zoommil", 6, 2, k=(3, 2, 1))


def test_the_choice_is_learned(model: MILModel, bag: list[Tensor]) -> None:
    model.train()
    loss, _ = model.training_loss(bag, torch.tensor(1), criterion=nn.CrossEntropyLoss())
    loss.backward()
    for selection in model.selection:
        assert selection.v.weight.grad.abs().sum() > 0


def test_without_noise_training_sees_what_evaluation_sees(
    model: MILModel, bag: list[Tensor]
) -> None:
    wanted = model(bag)
    model.sigma = 1e-9
    output = model.train()(bag)
    assert torch.allclose(output.logits, wanted.logits, atol=1e-5)
    assert torch.equal(output.maps[-1].index, wanted.maps[-1].index)
