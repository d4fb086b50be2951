"""What single patches do to a bag's logits, for models without exact contributions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from napari_histomil.errors import ModelError
from napari_histomil.nets.mil.model import Bag, MILModel
from napari_histomil.nets.mil.zoommil import children_of


@dataclass(frozen=True, slots=True)
class Effects:
    """Two answers to "what does this patch do", in units of the logits; neither adds up."""

    single: Tensor
    """[C, M] logits of a bag of that patch alone."""
    left_out: Tensor
    """[C, M] logits of the whole bag less those of the bag without it: above 0 where the patch
    speaks for the class. Not a number where it is the only patch."""


def effects(
    model: MILModel, bag: Bag, indices: Sequence[int], clinical: Tensor | None = None
) -> Effects:
    """Ask the model once for each patch alone, and once for the bag without it.

    Parameters
    ----------
    model
        In evaluation mode.
    bag
        As `MILModel.forward`.
    indices
        [M] rows of the bag; with several magnifications of the lowest, each with all its children.
    clinical
        As `MILModel.forward`.

    Raises
    ------
    ModelError
        If the model is in training mode, where answers are random, or a row is not in the bag.
    """
    if model.training:
        raise ModelError("Effects are asked of a model in evaluation mode: call eval() first.")
    levels = [bag] if isinstance(bag, Tensor) else list(bag)
    count = len(levels[0])
    if any(not 0 <= i < count for i in indices):
        raise ModelError(f"The bag has {count} patches, and there is none of some numbers asked.")

    def part(rows: Tensor) -> Bag:
        parts = [level[children_of(rows, len(level) // count)] for level in levels]
        return parts[0] if isinstance(bag, Tensor) else parts

    rows = torch.arange(count, device=levels[0].device)
    with torch.no_grad():
        whole = model(bag, clinical).logits  # [C]
        single = [model(part(rows[i : i + 1]), clinical).logits for i in indices]
        without = [
            model(part(rows[rows != i]), clinical).logits
            if count > 1
            else torch.full_like(whole, torch.nan)
            for i in indices
        ]
    return Effects(
        single=torch.stack(single, 1), left_out=whole[:, None] - torch.stack(without, 1)
    )
