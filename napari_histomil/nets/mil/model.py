"""What all MIL models share: the bag they take, the answer they give, and how they are trained.

A bag is the features of a slide's tiles; a model says the classes of the whole bag, and what it
looked at. How it does so is in one file a model; which there are is in `build.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from napari_histomil.errors import ModelError

Bag = Tensor | Sequence[Tensor]
"""Features [N, D] of one magnification, or of several: the lowest first, the children of row i in
consecutive rows, each row with as many children."""

Criterion = Callable[[Tensor, Tensor], Tensor]
"""A loss of (logits [C], target) as those of torch.nn take them for one example."""


@dataclass(frozen=True, slots=True)
class AttentionMap:
    """What a model looked at, at one magnification."""

    magnification: int
    """Which level of the bag, 0 the lowest."""
    kind: str
    """What the numbers mean: a key of `manifest.mil.MAP_KINDS`, whose value says it."""
    raw: Tensor | None
    """[K, N_l] before the softmax; none where the method has none."""
    value: Tensor | None
    """[K, N_l] as the model used it; row k is class k where K > 1."""
    index: Tensor
    """[N_l] rows of the bag's level that the columns belong to, each once. A row that is missing
    was not examined."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Aggregate:
    """What the instances say, before clinical variables, temperature and activation.

    Contributions are columns of what ``logits = bias + contributions.sum(1)`` adds up, for models
    where that is exact: one for each instance; with several magnifications one for each instance
    that was examined, level after level in the order of the maps of the kind ``attention``.
    """

    logits: Tensor
    """[C]"""
    maps: tuple[AttentionMap, ...] = ()
    contributions: Tensor | None = None
    """[C, N] in units of the logits, or none where no exact ones exist."""
    bias: Tensor | None = None
    """[C] what the logits are without any contribution."""
    instance_scores: Tensor | None = None
    """[N, C] logits of the instances themselves, of models that score them."""
    embedding: Tensor | None = None
    """[E] the bag as the last layer sees it, before clinical variables; of several vectors one
    after the other. None where classes are answered from different instances."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MILOutput(Aggregate):
    """The answer for a bag."""

    probabilities: Tensor
    """[C] after temperature and activation."""
    clinical: Tensor | None = None
    """[C, V] contributions of the clinical variables; their sum is part of `logits`."""

    @property
    def attention_raw(self) -> Tensor | None:
        """Raw attention [K, N_l] of the last map, that of the highest magnification."""
        return self.maps[-1].raw if self.maps else None

    @property
    def attention(self) -> Tensor | None:
        """Attention [K, N_l] of the last map as the model used it."""
        return self.maps[-1].value if self.maps else None

    def contributions_of(self) -> tuple[tuple[int, Tensor, Tensor], ...]:
        """Return contributions by level: (magnification, index [N_l], contributions [C, N_l])."""
        if self.contributions is None:
            return ()
        pooling = [m for m in self.maps if m.kind != "selection"]
        parts = torch.split(self.contributions, [len(m.index) for m in pooling], dim=1)
        return tuple((m.magnification, m.index, p) for m, p in zip(pooling, parts, strict=True))


class MILModel(nn.Module, ABC):
    """A model that answers for a bag.

    Parameters
    ----------
    dim
        Values of an instance's features.
    classes
        Number of classes.
    clinical
        Number of clinical variables. They are fused late: a linear layer of them is added to the
        logits, so that contributions stay exact.

    Attributes
    ----------
    activation
        ``softmax``, or ``sigmoid`` where each class is a question of its own.
    temperature
        The logits are divided by it before the activation (Guo 2017).
    """

    magnifications: int = 1
    """Levels of the bags that it takes."""
    activation: Literal["softmax", "sigmoid"] = "softmax"
    ordered: ClassVar[bool] = False
    """Whether the order of the instances is part of the question."""

    def __init__(self, dim: int, classes: int, *, clinical: int = 0) -> None:
        super().__init__()
        self.dim = dim
        self.classes = classes
        self.temperature = 1.0
        self.clinical = nn.Linear(clinical, classes, bias=False) if clinical else None

    @abstractmethod
    def aggregate(self, bag: Bag) -> Aggregate:
        """Answer from the instances; the bag is of the right width, type and number of levels."""

    def forward(self, bag: Bag, clinical: Tensor | None = None) -> MILOutput:
        """Answer for a bag.

        Parameters
        ----------
        bag
            [N, D], or a list of such, see `Bag`. Features of any floating type, on the model's
            device.
        clinical
            [V] clinical variables, scaled as in training.

        Raises
        ------
        ModelError
            If the bag is empty, or of another width or number of magnifications, or clinical
            variables are missing or not asked for.
        """
        return self.complete(self.aggregate(self.checked(bag)), clinical)

    def training_loss(
        self, bag: Bag, target: Tensor, *, criterion: Criterion, clinical: Tensor | None = None
    ) -> tuple[Tensor, MILOutput]:
        """Return the loss of one bag, with the model's own auxiliary losses, and the answer.

        Parameters
        ----------
        bag
            See `forward`.
        target
            Number of the class, int64 []; or what `criterion` takes.
        criterion
            Loss of (logits [C], target).
        clinical
            See `forward`.
        """
        output = self(bag, clinical)
        return criterion(output.logits, target), output

    def checked(self, bag: Bag) -> Bag:
        """Return the bag in the type of the weights; refuse what the model was not made for."""
        levels = [bag] if isinstance(bag, Tensor) else list(bag)
        if len(levels) != self.magnifications or (
            isinstance(bag, Tensor) != (self.magnifications == 1)
        ):
            raise ModelError(
                f"The model takes bags of {self.magnifications} magnifications, and this one has "
                f"{len(levels)}: extract features at those that the model names."
            )
        for features in levels:
            if features.ndim != 2 or features.shape[1] != self.dim:
                raise ModelError(
                    f"The bag's features have the shape {list(features.shape)}, and the model "
                    f"takes [N, {self.dim}]: use features of the encoder that it was trained on."
                )
            if not len(features):
                raise ModelError("The bag is empty: there is no tissue tile to answer from.")
        for parents, children in pairwise(levels):
            if len(children) % len(parents):
                raise ModelError(
                    f"The bag's magnifications are not nested: {len(children)} tiles cannot be "
                    f"children of {len(parents)}, each with as many."
                )
        kind = next(self.parameters()).dtype
        levels = [features.to(kind) for features in levels]
        return levels[0] if isinstance(bag, Tensor) else levels

    def complete(self, aggregate: Aggregate, clinical: Tensor | None) -> MILOutput:
        """Add what is the same for all models: clinical variables, temperature, activation."""
        parts = None
        logits = aggregate.logits
        if (clinical is None) != (self.clinical is None):
            raise ModelError(
                "The model needs clinical variables: give the bag's."
                if clinical is None
                else "The model was trained without clinical variables: leave them out."
            )
        if self.clinical is not None and clinical is not None:
            if clinical.shape != (self.clinical.in_features,):
                raise ModelError(
                    f"The model takes {self.clinical.in_features} clinical variables, and "
                    f"{list(clinical.shape)} were given."
                )
            parts = self.clinical.weight * clinical.to(logits)  # [C, V]
            logits = logits + parts.sum(1)
        return MILOutput(
            logits=logits,
            probabilities=self.probabilities(logits, aggregate.instance_scores),
            maps=aggregate.maps,
            contributions=aggregate.contributions,
            bias=aggregate.bias,
            instance_scores=aggregate.instance_scores,
            embedding=aggregate.embedding,
            clinical=parts,
        )

    def probabilities(self, logits: Tensor, instance_scores: Tensor | None) -> Tensor:
        """Return probabilities [C] of logits [C]; a model may look at its instances, too."""
        return self.activate(logits)

    def activate(self, logits: Tensor) -> Tensor:
        """Apply temperature and activation to logits [C]."""
        scaled = logits / self.temperature
        return scaled.sigmoid() if self.activation == "sigmoid" else scaled.softmax(-1)


def embedding(dim: int, hidden: Sequence[int], dropout: float) -> tuple[nn.Sequential, int]:
    """Return fully connected layers with ReLU and dropout, and the width of the last."""
    layers: list[nn.Module] = []
    for width in hidden:
        layers += [nn.Linear(dim, width), nn.ReLU(), nn.Dropout(dropout)]
        dim = width
    return nn.Sequential(*layers), dim


def all_of(features: Tensor) -> Tensor:
    """Return the index of all rows, for maps of models that examine every instance."""
    return torch.arange(len(features), device=features.device)
