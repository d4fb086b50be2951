"""What the four methods share: a backbone with a head, a teacher that follows, the spread.

A method is a module that turns views into a loss; the loop knows no more of it than `Method`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from timm.layers.drop import DropPath
from torch import Tensor, nn
from torch.nn import functional


class Method(nn.Module):
    """A backbone that learns to embed, and what it needs for that.

    Parameters
    ----------
    backbone
        [B, 3, h, w] -> embeddings [B, D].
    """

    teacher: nn.Module | None
    """Follows the student slowly; no gradient reaches it."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.teacher = None

    def forward(self, views: Sequence[Tensor], share: float) -> tuple[Tensor, Tensor]:
        """Return the loss, and the student's embeddings of the whole views.

        Parameters
        ----------
        views
            Two views [B, 3, T, T] of the same places, then smaller ones if there are any.
        share
            Part of the training that is done, 0 to 1.

        Returns
        -------
        loss
            A number.
        embeddings
            [N, D], to watch whether they collapse.
        """
        raise NotImplementedError

    def follow(self, share: float) -> float | None:
        """Move the teacher after a step; returns its momentum, None without a teacher."""
        return None

    def hold(self, share: float) -> None:
        """Take back gradients that must not move anything yet."""

    def train(self, mode: bool = True) -> Method:
        """Switch to training; a teacher never drops anything."""
        super().train(mode)
        for module in self.teacher.modules() if self.teacher is not None else ():
            if isinstance(module, (nn.Dropout, DropPath)):
                module.eval()
        return self


class Foretelling(Method):
    """From one view, foretell what the teacher says of the other: BYOL and MoCo v3.

    Student (backbone, projector, predictor) and teacher (backbone, projector).
    """

    def __init__(
        self, backbone: nn.Module, projector: nn.Module, predictor: nn.Module, momentum: float
    ) -> None:
        super().__init__(backbone)
        self.momentum, self.projector, self.predictor = momentum, projector, predictor
        self.teacher = make_teacher(nn.Sequential(self.backbone, self.projector))

    def answers(self, views: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """Return what is foretold from each view, what the teacher says of it, the embeddings."""
        assert self.teacher is not None
        embeddings = [self.backbone(view) for view in views]
        foretold = [self.predictor(self.projector(e)).float() for e in embeddings]
        with torch.no_grad():
            wanted = [self.teacher(view).float() for view in views]
        return foretold, wanted, torch.cat(embeddings)

    def follow(self, share: float) -> float:
        """Move the teacher."""
        return follow(self.teacher, (self.backbone, self.projector), self.momentum, share)


def mlp(sizes: Sequence[int], *, last_norm: bool = False) -> nn.Sequential:
    """Return linear layers with batch norm and ReLU between them; the last one may be normed."""
    layers: list[nn.Module] = []
    for number, (given, wanted) in enumerate(pairwise(sizes)):
        last = number == len(sizes) - 2
        layers.append(nn.Linear(given, wanted, bias=last and not last_norm))
        if not last:
            layers += [nn.BatchNorm1d(wanted), nn.ReLU(inplace=True)]
        elif last_norm:  # without scale and shift, as in SimCLR's and MoCo v3's code
            layers.append(nn.BatchNorm1d(wanted, affine=False))
    return nn.Sequential(*layers)


def products(first: Tensor, second: Tensor) -> Tensor:
    """Return the inner product of every pair of rows, [N, P] and [M, P] -> float32 [N, M].

    Also inside autocast: a cosine over a temperature of 0.04 is off by 0.1 in bfloat16.
    """
    with torch.autocast(first.device.type, enabled=False):
        return first.float() @ second.float().T


def make_teacher(student: nn.Module) -> nn.Module:
    """Return a copy without gradients."""
    teacher = copy.deepcopy(student)
    teacher.requires_grad_(False)
    return teacher


def momentum_at(start: float, share: float) -> float:
    """Return the teacher's momentum: from `start` to 1 along a half cosine (Grill et al. 2020)."""
    return 1 - (1 - start) * (math.cos(math.pi * share) + 1) / 2


@torch.no_grad()
def move(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """``teacher = momentum * teacher + (1 - momentum) * student``, weights and not statistics.

    (A teacher in training mode gathers the statistics of its batch norms itself.)
    """
    for mine, theirs in zip(teacher.parameters(), student.parameters(), strict=True):
        mine.lerp_(theirs, 1 - momentum)


def follow(
    teacher: nn.Module | None, student: Sequence[nn.Module], start: float, share: float
) -> float:
    """Move a teacher towards the student's parts that it is made of; returns its momentum."""
    assert teacher is not None
    momentum = momentum_at(start, share)
    move(teacher, nn.Sequential(*student), momentum)
    return momentum


def spread(embeddings: Tensor) -> float:
    """Return how far embeddings spread over the sphere: 1 evenly, 0 all in one place.

    It is the standard deviation of the normalised embeddings [N, D], mean over their dimensions,
    times the root of D (Chen and He 2021, "Exploring simple siamese representation learning",
    figure 2). Those of nets that end in a ReLU have no negative values and never reach 1.
    """
    unit = functional.normalize(embeddings.detach().float(), dim=1)
    return float(unit.std(dim=0, correction=0).mean()) * math.sqrt(unit.shape[1])
