"""DINO: from any view, also a small one, tell what the teacher says of the whole tile.

M. Caron et al., "Emerging properties in self-supervised vision transformers", ICCV 2021. The
teacher's answer is sharpened by a low temperature and centred by its own running mean: the one
keeps it from being the same everywhere, the other from always being one output. (The paper's
growing weight decay and warmed-up teacher temperature are left out. Its head has batch norms, as
the paper's code has for convolutional nets, and one before the sphere too: without them the short
trainings of our tests collapsed.)
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_histomil.training.selfsupervised.config import DinoOptions
from napari_histomil.training.selfsupervised.method import (
    Method,
    follow,
    make_teacher,
    mlp,
    products,
)


class DinoHead(nn.Module):
    """Three layers to a bottleneck on the unit sphere, then cosines with learnt prototypes."""

    def __init__(self, width: int, options: DinoOptions) -> None:
        super().__init__()
        sizes = (width, options.hidden, options.hidden, options.bottleneck)
        self.layers = mlp(sizes, last_norm=True)
        self.prototypes = nn.Parameter(torch.randn(options.prototypes, options.bottleneck))
        """Their length does not matter: the paper's weight norm with its gain held at 1."""

    def forward(self, embeddings: Tensor) -> Tensor:
        """[N, D] -> answers float32 [N, K]."""
        unit = functional.normalize(self.layers(embeddings).float(), dim=1)
        return products(unit, functional.normalize(self.prototypes, dim=1))


class Dino(Method):
    """Student and teacher, both a backbone with a `DinoHead`; the teacher's centre."""

    centre: Tensor
    """[K], running mean of the teacher's answers."""

    def __init__(self, backbone: nn.Module, width: int, options: DinoOptions) -> None:
        super().__init__(backbone)
        self.options = options
        self.head = DinoHead(width, options)
        self.teacher = make_teacher(nn.Sequential(self.backbone, self.head))
        self.register_buffer("centre", torch.zeros(options.prototypes))

    def forward(self, views: Sequence[Tensor], share: float) -> tuple[Tensor, Tensor]:
        """Return the loss over all pairs of a teacher's and another student's view."""
        assert self.teacher is not None
        whole, small = list(views[:2]), list(views[2:])
        embeddings = [self.backbone(torch.cat(whole))]
        if small:
            embeddings.append(self.backbone(torch.cat(small)))
        answers = self.head(torch.cat(embeddings))
        with torch.no_grad():
            wanted = self.teacher(torch.cat(whole))
        loss = dino_loss(
            answers.chunk(len(views)),
            wanted.chunk(2),
            self.centre,
            self.options.student_temperature,
            self.options.teacher_temperature,
        )
        self.centre = self.centre.lerp(wanted.mean(dim=0), 1 - self.options.centre_momentum)
        return loss, embeddings[0]

    def hold(self, share: float) -> None:
        """Leave the prototypes as they are in the first steps."""
        if share < self.options.frozen_part:
            self.head.prototypes.grad = None

    def follow(self, share: float) -> float:
        """Move the teacher."""
        return follow(self.teacher, (self.backbone, self.head), self.options.momentum, share)


def dino_loss(
    student: Sequence[Tensor],
    teacher: Sequence[Tensor],
    centre: Tensor,
    student_temperature: float,
    teacher_temperature: float,
) -> Tensor:
    """Return the cross-entropy of the student's answers against the teacher's (equation 3).

    For a teacher's view t and a student's view v != t::

        loss = -sum over k of softmax((g_t - centre) / t_teacher)_k log softmax(g_v / t_student)_k

    Parameters
    ----------
    student
        float [B, K] of each view.
    teacher
        float [B, K] of each of the first views.
    centre
        float [K].

    Returns
    -------
    Tensor
        The mean over all pairs and places.
    """
    targets = [functional.softmax((t - centre) / teacher_temperature, dim=1) for t in teacher]
    given = [functional.log_softmax(s / student_temperature, dim=1) for s in student]
    pairs = [
        -(target * log).sum(dim=1).mean()
        for n, target in enumerate(targets)
        for m, log in enumerate(given)
        if m != n
    ]
    return torch.stack(pairs).mean()
