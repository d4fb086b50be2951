"""Losses of patch classifiers."""

from __future__ import annotations

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


def share_loss(logits: Tensor, shares: Tensor, known: Tensor, *, smoothing: float = 0.0) -> Tensor:
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

    Returns
    -------
    Tensor
        A number; 0 (with a gradient of 0) where no cell counts.
    """
    classes = logits.shape[1]
    target = shares * (1 - smoothing) + smoothing / classes
    loss = -(target * functional.log_softmax(logits, dim=1)).sum(dim=1)  # (B, n, n)
    weight = (known >= 0.5).to(loss.dtype)
    return (loss * weight).sum() / weight.sum().clamp_min(1e-6)
