"""Each loss against values worked out by hand; what the methods share."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from napari_histomil.training.selfsupervised.byol import byol_loss
from napari_histomil.training.selfsupervised.config import DinoOptions, MocoOptions
from napari_histomil.training.selfsupervised.dino import Dino, dino_loss
from napari_histomil.training.selfsupervised.method import momentum_at, move, spread
from napari_histomil.training.selfsupervised.mocov3 import MocoV3, info_nce
from napari_histomil.training.selfsupervised.simclr import nt_xent

X, Y = [1.0, 0.0], [0.0, 1.0]


def test_nt_xent() -> None:
    """Two places whose views agree: a partner at cosine 1, two others at cosine 0."""
    first = torch.tensor([[3.0, 0.0], [0.0, 0.5]])  # lengths do not count
    loss = nt_xent(first, torch.tensor([X, Y]), temperature=0.5)
    assert float(loss) == pytest.approx(-math.log(math.e**2 / (math.e**2 + 2)))
    # the partners exchanged: own partner at 0, of the others one at 1 and one at 0
    swapped = nt_xent(first, torch.tensor([Y, X]), temperature=0.5)
    assert float(swapped) == pytest.approx(-math.log(1 / (math.e**2 + 2)))


def test_byol_loss() -> None:
    loss = byol_loss(torch.tensor([[2.0, 0.0], X, X]), torch.tensor([X, Y, [-5.0, 0.0]]))
    assert float(loss) == pytest.approx((0 + 2 + 4) / 3)
    slanted = byol_loss(torch.tensor([X]), torch.tensor([[1.0, 1.0]]))
    assert float(slanted) == pytest.approx(2 - math.sqrt(2))


def test_info_nce() -> None:
    """Own key at cosine 1, the other at cosine 0; scaled by twice the temperature."""
    loss = info_nce(torch.tensor([X, Y]), torch.tensor([[4.0, 0.0], Y]), temperature=0.25)
    assert float(loss) == pytest.approx(
        -2 * 0.25 * math.log(math.e**4 / (math.e**4 + 1)), abs=1e-6
    )


def test_dino_loss() -> None:
    """Two outputs; the teacher's first view says (3, 1) : 4, its second nothing."""
    certain, nothing = torch.tensor([[math.log(3), 0.0]]), torch.tensor([[0.0, 0.0]])
    student = torch.tensor([[math.log(4), 0.0]])  # says (4, 1) : 5
    loss = dino_loss([student, student], [certain, nothing], torch.zeros(2), 1.0, 1.0)
    first = -(0.75 * math.log(0.8) + 0.25 * math.log(0.2))
    second = -(0.5 * math.log(0.8) + 0.5 * math.log(0.2))
    assert float(loss) == pytest.approx((first + second) / 2)
    # a centre takes away what the teacher always says, temperatures sharpen
    centred = dino_loss([student, student], [certain, certain], certain[0], 0.5, 0.1)
    sharp = -(0.5 * math.log(16 / 17) + 0.5 * math.log(1 / 17))
    assert float(centred) == pytest.approx(sharp)


def test_a_small_view_is_compared_with_both_whole_ones() -> None:
    views = [torch.tensor([[float(n), 0.0]]) for n in range(3)]
    loss = dino_loss(views, views[:2], torch.zeros(2), 1.0, 1.0)
    pairs = [(0, 1), (0, 2), (1, 0), (1, 2)]  # teacher, student
    wanted = [
        functional.cross_entropy(views[s], functional.softmax(views[t], dim=1)) for t, s in pairs
    ]
    assert float(loss) == pytest.approx(float(torch.stack(wanted).mean()))


def test_losses_are_float32_inside_autocast() -> None:
    first, second = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(0))
    outside = [nt_xent(first, second, 0.04), info_nce(first, second, 0.04)]
    with torch.autocast("cpu", torch.bfloat16):
        inside = [nt_xent(first, second, 0.04), info_nce(first, second, 0.04)]
    assert inside == outside


def test_the_teacher_follows() -> None:
    assert momentum_at(0.9, 0.0) == pytest.approx(0.9)
    assert momentum_at(0.9, 0.5) == pytest.approx(0.95)
    assert momentum_at(0.9, 1.0) == pytest.approx(1.0)
    teacher, student = nn.Linear(1, 1), nn.Linear(1, 1)
    for net, value in ((teacher, 1.0), (student, 3.0)):
        nn.init.constant_(net.weight, value)
    move(teacher, student, 0.75)
    assert teacher.weight.item() == pytest.approx(1.5)
    assert student.weight.item() == 3.0


def test_spread_tells_collapse() -> None:
    even = torch.randn(4000, 16, generator=torch.Generator().manual_seed(0))
    assert spread(even) == pytest.approx(1.0, abs=0.02)
    assert spread(torch.tensor([X, Y])) == pytest.approx(0.5 * math.sqrt(2))
    assert spread(torch.tensor([[1.0, 2.0], [2.0, 4.0]])) == pytest.approx(0, abs=1e-6)


def test_dinos_centre_and_prototypes() -> None:
    options = DinoOptions(hidden=8, bottleneck=4, prototypes=6, frozen_part=0.5)
    torch.manual_seed(0)
    method = Dino(nn.Sequential(nn.Flatten(), nn.Linear(3 * 16, 5)), 5, options).train()
    assert method.teacher is not None
    views = [torch.randn(4, 3, 4, 4) for _ in range(2)]
    with torch.no_grad():
        wanted = method.teacher(torch.cat(views))
    loss, embeddings = method(views, 0.0)
    assert torch.allclose(method.centre, 0.1 * wanted.mean(dim=0), atol=1e-6)
    assert float(wanted.abs().max()) <= 1  # cosines
    assert embeddings.shape == (8, 5)
    loss.backward()
    assert all(p.grad is None for p in method.teacher.parameters())
    method.hold(0.6)
    assert method.head.prototypes.grad is not None
    method.hold(0.4)
    assert method.head.prototypes.grad is None


def test_moco_leaves_the_patch_embedding_random() -> None:
    import timm

    net = timm.create_model(
        "vit_tiny_patch16_224", img_size=16, patch_size=4, embed_dim=12, depth=1, num_heads=1,
        num_classes=0,
    )  # fmt: skip
    MocoV3(net, 12, MocoOptions(hidden=8, projection=4))
    frozen = {name for name, p in net.named_parameters() if not p.requires_grad}
    assert frozen == {"patch_embed.proj.weight", "patch_embed.proj.bias"}
