r"""Models of torchmil (Castro-Macías), by their class names there: an optional package.

A model of torchmil answers one question with one logit z. For one class that is the logit, with a
sigmoid. For two it is shared, :math:`logit = (-z/2, z/2)`, so that

.. math:: softmax(logit)_2 = \sigma(z), \qquad
    -\log softmax(logit)_c = BCE(z, c - 1),

its own probability and its own loss, whatever the temperature. More classes it cannot tell apart.

Taken are those that answer from features alone, and the same each time; `READINGS` names them and
what each returns. Left out are those that need the tiles' neighbours or places, which no bag says
(CAMIL, DeepGraphSurv, GTP, PatchGCN, SETMIL, and all with Sm or Smooth in their names); that draw
at random in answering (DTFDMIL, VAEABMIL); whose prototypes another trainer must move (IIBMIL);
and TransMIL, whose map takes N x N values there: ours computes its one row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from napari_histomil.errors import ModelError, brief
from napari_histomil.nets.mil.model import (
    Aggregate,
    AttentionMap,
    Bag,
    Criterion,
    MILModel,
    MILOutput,
    all_of,
)

PREFIX = "torchmil/"
INSTALL = 'pip install "napari-histomil[torchmil]"'

_NOT_TOLD = {
    "in_shape": "the width of the features says it",
    "feat_ext": "features come as the encoder made them",
    "criterion": "the training has its own",
    "transf_dropout": "torchmil would drop attention in its answers, too",
}
"""Arguments that are not taken, and why."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a model of torchmil returns beside its logit."""

    kind: str = "attention"
    """Of its map, a key of `manifest.mil.MAP_KINDS`."""
    softmaxed: bool = False
    """Whether its attention is what it used, else it is what the softmax is taken of."""
    scores: bool = False
    """Whether it scores the instances, by `return_inst_pred`."""
    auxiliary: str | None = None
    """Name of its `compute_loss`'s second loss, which adds to that of the bag."""


READINGS: Mapping[str, Reading] = {
    "ABMIL": Reading(),
    "CLAM_SB": Reading(auxiliary="InstLoss"),
    # its attention is documented as "before normalization", and is after it
    "DSMIL": Reading("critical", softmaxed=True, scores=True, auxiliary="BCEWithLogitsLoss_max"),
    "TransformerABMIL": Reading(),
}
"""Name of the class -> what it returns."""


class TorchmilModel(MILModel):
    """A model of torchmil in the shape of ours, without contributions.

    Parameters
    ----------
    name
        A key of `READINGS`.
    dim, classes, clinical
        See `MILModel`; one class or two.
    **arguments
        Of the class in torchmil.

    Raises
    ------
    ModelError
        If torchmil is not installed, or its model is not among those taken or for so many classes.
    ValueError
        If an argument is none that can be told.
    """

    def __init__(
        self, name: str, dim: int, classes: int, *, clinical: int = 0, **arguments: Any
    ) -> None:
        super().__init__(dim, classes, clinical=clinical)
        if name not in READINGS:
            raise ModelError(
                f"There is no MIL model {PREFIX + name!r}: of torchmil's those that answer from "
                f"features alone are taken, {', '.join(PREFIX + known for known in READINGS)}."
            )
        if classes not in (1, 2):
            raise ModelError(
                f"{PREFIX}{name} tells two classes apart, not {classes}: choose another model."
            )
        for argument in _NOT_TOLD.keys() & arguments.keys():
            raise ValueError(f"{argument} is not taken: {_NOT_TOLD[argument]}")
        try:
            models = import_module("torchmil.models")
        except ImportError as error:
            raise ModelError(
                f"{PREFIX}{name} needs torchmil ({brief(error)}): {INSTALL}."
            ) from error
        self.reading = READINGS[name]
        self.net: Any = getattr(models, name)(in_shape=(dim,), **arguments)
        if classes == 1:
            self.activation = "sigmoid"

    def aggregate(self, bag: Bag) -> Aggregate:
        """Answer as `forward` of torchmil's model does for a batch of this one bag."""
        assert isinstance(bag, Tensor)
        asked = {"return_inst_pred": True} if self.reading.scores else {}
        z, attention, *scores = self.net(bag[None], return_att=True, **asked)  # [1], [1, N(, 1)]
        row = attention.reshape(1, len(bag))
        raw, value = (None, row) if self.reading.softmaxed else (row, row.softmax(1))
        return Aggregate(
            logits=self._shared(z)[0],
            maps=(AttentionMap(0, self.reading.kind, raw, value, all_of(bag)),),
            instance_scores=self._shared(scores[0][0]) if scores else None,
        )

    def training_loss(
        self, bag: Bag, target: Tensor, *, criterion: Criterion, clinical: Tensor | None = None
    ) -> tuple[Tensor, MILOutput]:
        """Return the bag's loss and torchmil's second one, if any, added; see `MILModel`."""
        output = self(bag, clinical)
        loss = criterion(output.logits, target)
        if self.reading.auxiliary is not None:  # its loss answers anew: twice a step
            features = self.checked(bag)
            assert isinstance(features, Tensor)
            _, losses = self.net.compute_loss(target.reshape(1), features[None])
            loss = loss + losses[self.reading.auxiliary]
        return loss, output

    def _shared(self, z: Tensor) -> Tensor:
        """Return the logits [M, C] that say the same as the single ones [M]."""
        return z[:, None] if self.classes == 1 else torch.stack([-z / 2, z / 2], 1)
