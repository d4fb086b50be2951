"""Losses against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from napari_histomil.training.losses import cell_shares, pixel_loss, share_loss


def test_shares_of_cells() -> None:
    labels = torch.zeros(1, 2, 4, 4)
    labels[0, 0, :, :2] = 1  # left half is the first class
    labels[0, 1, :2, 2:] = 1  # top right the second; bottom right is unlabelled
    shares, known = cell_shares(labels, 4, 4)
    assert shares[0, :, 0, 0].tolist() == pytest.approx([2 / 3, 1 / 3])
    assert known[0, 0, 0].item() == pytest.approx(0.75)
    shares, known = cell_shares(labels, 2, 2)
    assert known[0].tolist() == [[1, 1], [1, 0]]
    assert shares[0, 1].tolist() == [[0, 1], [0, 0]]


def test_cross_entropy_against_a_share() -> None:
    logits = torch.tensor([math.log(3.0), 0.0]).reshape(1, 2, 1, 1)  # probabilities 3/4, 1/4
    shares = torch.tensor([0.25, 0.75]).reshape(1, 2, 1, 1)
    known = torch.ones(1, 1, 1)
    by_hand = -(0.25 * math.log(0.75) + 0.75 * math.log(0.25))
    assert share_loss(logits, shares, known).item() == pytest.approx(by_hand)
    smooth = -(0.275 * math.log(0.75) + 0.725 * math.log(0.25))  # 0.9 * share + 0.1 / 2
    assert share_loss(logits, shares, known, smoothing=0.1).item() == pytest.approx(smooth)


def test_a_third_asks_for_a_third() -> None:
    shares = torch.tensor([2 / 3, 1 / 3]).reshape(1, 2, 1, 1)
    logits = torch.log(shares).requires_grad_()
    share_loss(logits, shares, torch.ones(1, 1, 1)).backward()
    assert logits.grad is not None
    assert logits.grad.abs().max().item() < 1e-6


def test_unlabelled_cells_do_not_count() -> None:
    logits = torch.tensor([[0.0, 5.0], [0.0, -5.0]]).reshape(1, 2, 1, 2)
    shares = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).reshape(1, 2, 1, 2)
    known = torch.tensor([1.0, 0.4]).reshape(1, 1, 2)
    assert share_loss(logits, shares, known).item() == pytest.approx(math.log(2))
    none = logits.clone().requires_grad_()
    loss = share_loss(none, shares, torch.zeros(1, 1, 2))
    loss.backward()
    assert loss.item() == 0
    assert none.grad is not None
    assert none.grad.abs().max().item() == 0


def test_pixels_by_hand() -> None:
    logits = torch.tensor([[math.log(3.0), 0.0], [0.0, 0.0]])  # chances of class 0: 3/4, 1/2
    logits = torch.stack([logits[:, 0], logits[:, 1]]).reshape(1, 2, 1, 2)
    labels = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).reshape(1, 2, 1, 2)
    entropy = -(math.log(0.75) + math.log(0.5)) / 2
    assert pixel_loss(logits, labels, dice=0).item() == pytest.approx(entropy)
    weights = torch.tensor([1.0, 3.0])
    weighted = -(math.log(0.75) + 3 * math.log(0.5)) / 4
    found = pixel_loss(logits, labels, dice=0, class_weights=weights)
    assert found.item() == pytest.approx(weighted)
    dice = [1 - 2 * 0.75 / (1.25 + 1), 1 - 2 * 0.5 / (0.75 + 1)]  # of class 0 and of class 1
    both = pixel_loss(logits, labels, dice=2.0)
    assert both.item() == pytest.approx(entropy + 2 * sum(dice) / 2)
    one = pixel_loss(logits, labels, dice=2.0, background=0)
    assert one.item() == pytest.approx(entropy + 2 * dice[1])


def test_classes_that_do_not_exclude_one_another_by_hand() -> None:
    logits = torch.tensor([math.log(3.0), 0.0]).reshape(1, 1, 1, 2)  # chances 3/4, 1/2
    labels = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).reshape(1, 2, 1, 2)  # the class, and none
    entropy = -(math.log(0.75) + math.log(0.5)) / 2
    assert pixel_loss(logits, labels, sigmoid=True, dice=0).item() == pytest.approx(entropy)
    dice = 1 - 2 * 0.75 / (1.25 + 1)
    assert pixel_loss(logits, labels, sigmoid=True).item() == pytest.approx(entropy + dice)


@pytest.mark.parametrize("sigmoid", [False, True])
def test_unlabelled_pixels_never_enter(sigmoid: bool) -> None:
    random = torch.Generator().manual_seed(0)
    labels = torch.zeros(2, 3, 4, 4)
    labels[:, 0, :2], labels[:, 1, 2:] = 1, 1
    labels[:, :, :, 3] = 0
    logits = torch.randn(2, 2 if sigmoid else 3, 4, 4, generator=random)
    other = logits.clone()
    other[..., 3] = 50 * torch.randn(other[..., 3].shape, generator=random)
    losses = []
    for values in (logits, other):
        values.requires_grad_()
        loss = pixel_loss(values, labels, sigmoid=sigmoid, smoothing=0.1)
        loss.backward()
        assert values.grad is not None
        assert values.grad[..., 3].abs().max().item() == 0
        assert values.grad[..., :3].abs().max().item() > 0
        losses.append(loss.item())
    assert losses[0] == losses[1]
    none = pixel_loss(logits, torch.zeros_like(labels), sigmoid=sigmoid)
    assert none.item() == 0
