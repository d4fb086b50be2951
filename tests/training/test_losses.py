"""Losses against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from napari_histomil.training.losses import cell_shares, share_loss


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
