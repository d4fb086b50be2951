from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from napari_histomil.nets.mil import build_mil
from napari_histomil.nets.mil.clam import smooth_svm


def test_each_branch_has_a_row_of_its_own() -> None:
    bag = torch.randn(9, 4)
    single = build_mil("clam-sb", 4, 3).eval()(bag)
    several = build_mil("clam-mb", 4, 3).eval()(bag)
    assert single.attention.shape == (1, 9)
    assert several.attention.shape == (3, 9)
    assert (single.maps[0].kind, several.maps[0].kind) == ("attention", "class attention")
    assert torch.allclose(several.attention.sum(1), torch.ones(3))


def test_the_smooth_svm_asks_for_a_margin() -> None:
    scores = torch.tensor([[2.0, 0.5]])
    wrong = math.log(math.exp(2.0 + 1.0) + math.exp(0.5)) - 0.5
    right = math.log(math.exp(2.0) + math.exp(0.5 + 1.0)) - 2.0
    assert torch.allclose(smooth_svm(scores, torch.tensor([1])), torch.tensor(wrong))
    assert torch.allclose(smooth_svm(scores, torch.tensor([0])), torch.tensor(right))


@pytest.mark.parametrize("subtyping", [False, True])
def test_instances_of_most_and_least_attention_are_clustered(subtyping: bool) -> None:
    model = build_mil(
        "clam-sb", 2, 2, instances=1, subtyping=subtyping, instance_loss="cross-entropy"
    )
    for c, classifier in enumerate(model.instance_classifiers):
        nn.init.zeros_(classifier.bias)
        classifier.weight.data = torch.eye(512)[:2] * (c + 1)
    h = torch.zeros(3, 512)
    h[:, 1] = torch.tensor([0.0, 5.0, 2.0])  # says "cluster" with this much
    raw = torch.tensor([[0.0, 1.0, 0.5]])

    def cost(score: float, cluster: bool) -> float:
        return math.log(1 + math.exp(-score if cluster else score))

    # class 1's classifier doubles: row 1 should be in, row 0 out; of class 0, row 1 out
    own = (cost(10, True) + cost(0, False)) / 2
    wanted = (own + cost(5, False)) / 2 if subtyping else own
    assert torch.allclose(model.instance_loss(h, raw, 1), torch.tensor(wanted), atol=1e-5)


def test_the_loss_weighs_bag_and_instances() -> None:
    model = build_mil("clam-mb", 4, 2, bag_weight=0.25).eval()
    bag, target = torch.randn(30, 4), torch.tensor(1)
    loss, output = model.training_loss(bag, target, criterion=nn.CrossEntropyLoss())
    h = model.embed(bag)
    instances = model.instance_loss(h, model.attention(h), 1)
    bag_loss = nn.functional.cross_entropy(output.logits, target)
    assert torch.allclose(loss, 0.25 * bag_loss + 0.75 * instances)


def test_a_bag_may_be_smaller_than_the_instances_clustered() -> None:
    model = build_mil("clam-sb", 4, 2)
    loss, _ = model.training_loss(
        torch.randn(3, 4), torch.tensor(0), criterion=nn.CrossEntropyLoss()
    )
    assert torch.isfinite(loss)
