"""Connected pieces of a class in the truth and in the answer, matched: nuclei, glands.

A true and a found piece are the same where more than half of their union is common (IoU > 0.5):
then no piece can have two partners. F1 is 2 TP / (2 TP + FP + FN), segmentation quality the mean
IoU of the matched, panoptic quality their product (Kirillov et al., CVPR 2019).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_histomil.review.truth import UNJUDGED, Labels

TOUCHING = np.ones((3, 3), bool)
"""Pixels that touch at a corner belong together."""


@dataclass(frozen=True, slots=True, eq=False)
class ObjectCounts:
    """Pieces of each class in fields, matched."""

    counts: NDArray[np.int64]
    """[F, K, 3], matched pieces, found ones without a true one, true ones that were not found."""
    overlap: NDArray[np.float64]
    """[F, K], sum of the IoU of the matched."""

    @classmethod
    def join(cls, parts: Sequence[ObjectCounts]) -> ObjectCounts:
        """Put counts of fields one after the other."""
        return cls(
            np.concatenate([p.counts for p in parts]), np.concatenate([p.overlap for p in parts])
        )

    def where(self, keep: NDArray[np.bool_]) -> ObjectCounts:
        """Return the counts of some of the fields."""
        return ObjectCounts(self.counts[keep], self.overlap[keep])


def count_objects(truth: Labels, answer: Labels, classes: int) -> ObjectCounts:
    """Match the pieces of each class of a field.

    Parameters
    ----------
    truth, answer
        [h, w], indices of classes; what is unjudged in the truth does not count in either.
    classes
        How many there are.
    """
    known = truth != UNJUDGED
    counts, overlap = np.zeros((1, classes, 3), np.int64), np.zeros((1, classes))
    for index in range(classes):
        true, n_true = ndimage.label((truth == index) & known, TOUCHING)
        found, n_found = ndimage.label((answer == index) & known, TOUCHING)
        ious = matched(true, found)
        counts[0, index] = len(ious), n_found - len(ious), n_true - len(ious)
        overlap[0, index] = ious.sum()
    return ObjectCounts(counts, overlap)


def matched(true: NDArray[np.int32], found: NDArray[np.int32]) -> NDArray[np.float64]:
    """Return the IoU of each pair of labelled pieces for which it is above 0.5.

    Parameters
    ----------
    true, found
        [h, w], 0 where there is none, else the number of the piece.
    """
    areas_true, areas_found = np.bincount(true.ravel()), np.bincount(found.ravel())
    both = (true > 0) & (found > 0)
    pairs, common = np.unique(np.stack([true[both], found[both]]), axis=1, return_counts=True)
    union = areas_true[pairs[0]] + areas_found[pairs[1]] - common
    ious: NDArray[np.float64] = common / union
    return ious[ious > 0.5]
