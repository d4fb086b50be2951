from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from napari_histomil.nets.mil import MODELS, MILModel, build_mil
from napari_histomil.training.mil.config import WITHOUT, ScMil
from napari_histomil.training.mil.contrastive import ContrastiveBags, contrast, embedding_width
from napari_histomil.training.mil.scheme import Example, Step


def step_of(bags: list[Any], progress: float) -> Step:
    examples = (Example(bag, torch.tensor(n % 2), None) for n, bag in enumerate(bags))
    return Step(examples, len(bags), progress, torch.Generator())


def small(name: str) -> MILModel:
    torch.manual_seed(0)
    arguments: dict[str, Any] = {
        "transmil": {"hidden": (8,), "heads": 2},
        "zoommil": {"k": 2, "hidden": 8, "attention": 4, "magnifications": 2},
        "magnification-transformer": {"width": 8, "heads": 2},
    }.get(name, {"hidden": (8,)})
    return build_mil(name, 4, 2, **arguments)


def test_the_loss_is_that_of_the_paper() -> None:
    torch.manual_seed(0)
    z = F.normalize(torch.randn(6, 3), dim=1).double()
    labels = torch.tensor([0, 1, 0, 0, 1, 2])  # the last has no partner
    terms = []
    for i in range(5):
        others = [j for j in range(6) if j != i]
        total = sum(math.exp(float(z[i] @ z[j]) / 0.5) for j in others)
        own = [j for j in others if labels[j] == labels[i]]
        logs = [float(z[i] @ z[p]) / 0.5 - math.log(total) for p in own]
        terms.append(-sum(logs) / len(own))
    assert float(contrast(z, labels, 0.5)) == pytest.approx(sum(terms) / 5)


def test_bags_without_partners_give_no_loss_and_no_nan() -> None:
    for labels in ([0], [0, 1], [0, 1, 1]):
        z = F.normalize(torch.randn(len(labels), 3), dim=1).requires_grad_()
        loss = contrast(z, torch.tensor(labels), 0.1)
        loss.backward()  # type: ignore[no-untyped-call]
        assert z.grad is not None
        assert z.grad.isfinite().all()
        assert (float(loss.detach()) == 0) == (len(labels) < 3)


def test_learning_passes_from_the_embedding_to_the_classifier() -> None:
    net = small("gated-attention").eval()
    scheme = ContrastiveBags(ScMil("sc-mil", projection=5), net)
    torch.manual_seed(1)
    bags = [torch.randn(6, 4) for _ in range(4)]

    def reached(progress: float) -> dict[str, float]:
        net.zero_grad()
        scheme.zero_grad()
        (loss,) = scheme.losses(net, step_of(bags, progress), F.cross_entropy)
        loss.backward()  # type: ignore[no-untyped-call]
        named = {**dict(net.named_parameters()), **dict(scheme.named_parameters())}
        return {name: float(p.grad.abs().sum()) for name, p in named.items()}  # type: ignore[union-attr]

    first, half, last = reached(0.0), reached(0.5), reached(1.0)
    for name in ("embed.0.weight", "attention.w.weight", "attention.u.weight"):
        assert min(first[name], half[name], last[name]) > 0
    assert first["classifier.weight"] == 0 < half["classifier.weight"]
    assert half["classifier.weight"] == pytest.approx(last["classifier.weight"] / 2, rel=1e-5)
    assert first["head.0.weight"] > 0
    assert first["head.2.weight"] == pytest.approx(2 * half["head.2.weight"], rel=1e-5)
    assert last["head.2.weight"] == 0


@pytest.mark.parametrize("name", [name for name in MODELS if name not in WITHOUT["sc-mil"]])
def test_every_model_with_an_embedding_can_be_compared(name: str) -> None:
    net = small(name)
    scheme = ContrastiveBags(ScMil("sc-mil", projection=5), net)
    assert net.training
    bags = [
        torch.randn(9, 4) if net.magnifications == 1 else [torch.randn(9, 4), torch.randn(36, 4)]
        for _ in range(4)
    ]
    (loss,) = scheme.losses(net, step_of(bags, 0.5), F.cross_entropy)
    assert loss.isfinite()
    assert len(net(bags[0]).embedding) == embedding_width(net)
