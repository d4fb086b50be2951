from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from napari_histomil.nets.mil import MODELS, MILModel, build_mil
from napari_histomil.training.mil.config import WITHOUT, Mhim
from napari_histomil.training.mil.mhim import (
    MaskedMining,
    attention_of,
    consistency,
    left,
)
from napari_histomil.training.mil.scheme import Example, Step

SMALL: dict[str, dict[str, Any]] = {
    "transmil": {"hidden": (8,), "heads": 2},
    "zoommil": {"k": 2, "hidden": 8, "attention": 4, "magnifications": 2},
    "magnification-transformer": {"width": 8, "heads": 2},
}


def small(name: str) -> MILModel:
    torch.manual_seed(0)
    return build_mil(name, 4, 2, **SMALL.get(name, {"hidden": (8,)}))


def step_of(bags: list[Any], progress: float = 0.0) -> Step:
    examples = (Example(bag, torch.tensor(n % 2), None) for n, bag in enumerate(bags))
    return Step(examples, len(bags), progress, torch.Generator().manual_seed(0))


class Seeing(torch.nn.Module):
    """Notes which bags a net learns from."""

    def __init__(self, net: MILModel) -> None:
        super().__init__()
        self.net, self.seen = net, []

    def training_loss(self, bag: Any, target: Tensor, **more: Any) -> Any:
        self.seen.append(bag)
        return self.net.training_loss(bag, target, **more)


def test_the_highest_go_by_lot_the_lowest_and_any_at_random() -> None:
    attention = torch.arange(100.0).flip(0)  # instance 0 has the most
    random = torch.Generator().manual_seed(0)
    none = Mhim("mhim", high=0.0, low=0.0, random=0.0)
    assert left(attention, none, 0.0, random).tolist() == list(range(100))

    whole = replace(none, high=0.1, high_part=1.0)
    assert left(attention, whole, 0.1, random).tolist() == list(range(10, 100))
    halves = replace(none, high=0.1)
    draws = [set(range(100)) - set(left(attention, halves, 0.1, random).tolist()) for _ in "abc"]
    assert all(len(masked) == 10 and max(masked) < 20 for masked in draws)
    assert draws[0] != draws[1] != draws[2]

    low = replace(none, low=0.3)
    assert left(attention, low, 0.0, random).tolist() == list(range(70))
    anyhow = left(attention, replace(none, random=0.6), 0.0, random)
    assert len(anyhow) == 40
    assert torch.equal(anyhow, anyhow.sort().values)
    assert len(set(anyhow.tolist()) & set(range(50))) in range(8, 33)


def test_a_small_bag_loses_nothing_to_small_shares_and_is_never_empty() -> None:
    random = torch.Generator().manual_seed(0)
    few = Mhim("mhim", high=0.1, low=0.1, random=0.1)
    assert left(torch.rand(4), few, 0.1, random).tolist() == [0, 1, 2, 3]
    all_but_none = Mhim("mhim", high=0.0, low=0.9, random=0.0)
    assert left(torch.rand(1), all_but_none, 0.0, random).tolist() == [0]


def test_the_student_learns_without_what_the_teacher_looks_at() -> None:
    net = small("gated-attention")
    scheme = MaskedMining(Mhim("mhim", high=0.25, high_part=1.0, random=0.0), net)
    bag = torch.randn(8, 4)
    order = attention_of(scheme.teacher(bag)).argsort(descending=True)
    for progress, easy in ((0.0, 2), (0.5, 1), (0.99, 0)):
        watched = Seeing(net)
        list(scheme.losses(watched, step_of([bag], progress), F.cross_entropy))  # type: ignore[arg-type]
        assert torch.equal(watched.seen[0], bag[order[easy:].sort().values])


def test_nested_bags_are_masked_as_trees() -> None:
    net = small("zoommil")
    scheme = MaskedMining(Mhim("mhim", high=0.0, random=0.5), net)
    low = torch.arange(6.0)[:, None].repeat(1, 4)
    watched = Seeing(net)
    list(scheme.losses(watched, step_of([[low, low.repeat_interleave(4, 0)]]), F.cross_entropy))  # type: ignore[arg-type]
    below, above = watched.seen[0]
    assert below.shape == (3, 4)
    assert torch.equal(above, below.repeat_interleave(4, 0))


def test_the_loss_is_that_of_the_bag_and_of_the_distance_to_the_teacher() -> None:
    net = small("attention").eval()
    unmasked = Mhim("mhim", high=0.0, random=0.0, consistency=0.5)
    scheme = MaskedMining(unmasked, net)
    with torch.no_grad():
        net.embed[0].weight += 0.3
    bags = [torch.randn(5, 4), torch.randn(7, 4)]
    losses = list(scheme.losses(net, step_of(bags), F.cross_entropy))
    assert len(losses) == 2
    own, seen = net(bags[1]), scheme.teacher(bags[1])
    share = (seen.embedding / 0.1).softmax(0)
    distance = F.cross_entropy(own.embedding, share)
    torch.testing.assert_close(consistency(own.embedding, seen.embedding, 0.1), distance)
    expected = F.cross_entropy(own.logits, torch.tensor(1)) + 0.5 * distance
    torch.testing.assert_close(losses[1], expected / 2)


def test_gradients_reach_the_student_and_not_the_teacher_which_follows() -> None:
    net = small("gated-attention")
    scheme = MaskedMining(Mhim("mhim", momentum=0.8), net)
    for loss in scheme.losses(net, step_of([torch.randn(9, 4)]), F.cross_entropy):
        loss.backward()
    assert all(p.grad is not None for p in net.parameters())
    assert all(p.grad is None and not p.requires_grad for p in scheme.parameters())
    before = scheme.teacher.classifier.bias.clone()
    with torch.no_grad():
        net.classifier.bias += 1.0
    scheme.stepped(net, 0)  # a tenth stays of weights that have seen nothing
    torch.testing.assert_close(scheme.teacher.classifier.bias, before + 0.9)
    before = scheme.teacher.classifier.bias.clone()
    scheme.stepped(net, 10_000)
    moved = scheme.teacher.classifier.bias - before
    torch.testing.assert_close(moved, 0.2 * (net.classifier.bias - before))


@pytest.mark.parametrize("name", [name for name in MODELS if name not in WITHOUT["mhim"]])
def test_every_model_with_attention_can_be_a_teacher(name: str) -> None:
    net = small(name)
    bags = [
        torch.randn(9, 4) if net.magnifications == 1 else [torch.randn(9, 4), torch.randn(36, 4)]
        for _ in "ab"
    ]
    scheme = MaskedMining(Mhim("mhim", high=0.2, low=0.1, random=0.2), net)
    losses = list(scheme.losses(net, step_of(bags), F.cross_entropy))
    assert all(loss.isfinite() and loss.requires_grad for loss in losses)
    assert attention_of(scheme.teacher(bags[0])).shape == (9,)
