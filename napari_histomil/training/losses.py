"""Losses: of patch classifiers against shares of cells, of segmentations against pixels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def cell_shares(labels: Tensor, cell_px: int, step_px: int) -> tuple[Tensor, Tensor]:
    """Return what the cells of a tile hold.

    Parameters
    ----------
    labels
        float32 [B, K, T, T], share of each class in each pixel; all 0 where unlabelled.
    cell_px, step_px
        Side of the cells and their distance.

    Returns
    -------
    shares
        float32 [B, K, n, n], share of each class in the labelled part of a cell; sums to 1
        where anything is labelled, else 0.
    known
        float32 [B, n, n], share of the cell that is labelled.
    """
    shares = functional.avg_pool2d(labels, cell_px, step_px)
    known = shares.sum(dim=1)
    return shares / known.clamp_min(1e-6)[:, None], known


def share_loss(
    logits: Tensor,
    shares: Tensor,
    known: Tensor,
    *,
    smoothing: float = 0.0,
    class_weights: Tensor | None = None,
) -> Tensor:
    """Cross-entropy against the share of each class in a cell.

    A cell that is a third tumour asks for a probability of a third, so that cells on a border
    teach too instead of being forced to a side. Cells of which less than half is labelled do not
    count.

    Parameters
    ----------
    logits, shares
        [B, K, n, n].
    known
        [B, n, n], as `cell_shares` gives it.
    smoothing
        This part of the target is spread evenly over all classes.
    class_weights
        [K]: how much a cell counts is the mean of its classes' weights.

    Returns
    -------
    Tensor
        A number; 0 (with a gradient of 0) where no cell counts.
    """
    classes = logits.shape[1]
    target = shares * (1 - smoothing) + smoothing / classes
    loss = -(target * functional.log_softmax(logits, dim=1)).sum(dim=1)  # (B, n, n)
    weight = (known >= 0.5).to(loss.dtype)
    if class_weights is not None:
        weight = weight * torch.einsum("bkhw,k->bhw", shares, class_weights)
    return (loss * weight).sum() / weight.sum().clamp_min(1e-6)


KNOWN = 0.99
"""Share of a pixel that must be labelled: turned tiles are interpolated, so edges are mixtures."""


def pixel_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    sigmoid: bool = False,
    background: int | None = None,
    smoothing: float = 0.0,
    class_weights: Tensor | None = None,
    dice: float = 1.0,
) -> Tensor:
    """Cross-entropy of the labelled pixels plus soft Dice over the batch.

    The sum of both is what nnU-Net takes (Isensee et al. 2021): cross-entropy is smooth
    everywhere, Dice (Milletari et al. 2016, "V-Net") does not mind how rare a class is.

    Parameters
    ----------
    logits
        [B, K, H, W].
    labels
        Share of each class in each pixel, all 0 where unlabelled: [B, K, H, W]; with sigmoid
        [B, K + 1, H, W], the last being none of the classes.
    sigmoid
        Whether classes do not exclude one another: binary cross-entropy of each.
    background
        Class that the Dice term leaves out.
    smoothing
        This part of the target is spread evenly over all classes (over yes and no with sigmoid).
    class_weights
        [K].
    dice
        Weight of the Dice term, over classes that occur in the batch.

    Returns
    -------
    Tensor
        A number; 0 (with a gradient of 0) where nothing is labelled.
    """
    classes = logits.shape[1]
    known = (labels.sum(dim=1) > KNOWN).to(logits.dtype)  # (B, H, W)
    target = labels[:, :classes]
    weights = logits.new_ones(classes) if class_weights is None else class_weights
    if sigmoid:
        soft = target * (1 - smoothing) + smoothing / 2
        each = functional.binary_cross_entropy_with_logits(logits, soft, reduction="none")
        count = known.sum() * weights.sum()
        entropy = torch.einsum("bkhw,k,bhw->", each, weights, known) / count.clamp_min(1e-6)
        chance = torch.sigmoid(logits)
    else:
        soft = target * (1 - smoothing) + smoothing / classes
        each = -(soft * functional.log_softmax(logits, dim=1)).sum(dim=1)  # (B, H, W)
        weight = torch.einsum("bkhw,k->bhw", target, weights) * known
        entropy = (each * weight).sum() / weight.sum().clamp_min(1e-6)
        chance = torch.softmax(logits, dim=1)
    if not dice:
        return entropy
    both = (chance * target * known[:, None]).sum(dim=(0, 2, 3))  # (K,)
    true = (target * known[:, None]).sum(dim=(0, 2, 3))
    size = (chance * known[:, None]).sum(dim=(0, 2, 3)) + true
    counts = true >= 1  # pixels
    if background is not None:
        counts[background] = False
    missed = (1 - 2 * both / size.clamp_min(1e-6)) * counts
    return entropy + dice * missed.sum() / counts.sum().clamp_min(1)
