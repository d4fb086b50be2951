"""What only a model of task ``mil`` says of itself: whose features it takes, and at which grids.

The nets themselves are in `nets/mil/`; here no torch is needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from napari_histomil.errors import HistomilError, ModelError
from napari_histomil.tiling import GridSpec

MAP_KINDS: Mapping[str, str] = {
    "attention": "Softmax attention: the share of each patch in what the model decides from. It "
    "says where the model looks, not for which class.",
    "class attention": "Softmax attention of each class: the share of each patch in the score of "
    "that class.",
    "critical": "Softmax over the patches of their similarity to the class's critical patch, the "
    "one with the highest score of its own.",
    "class token": "Class-token row of the second attention layer, mean of its heads, of the "
    "Nyström product. No softmax: values may be negative and need not sum to 1.",
    "selection": "Softmax of the auxiliary attention that chooses the patches to zoom into.",
    "uniform": "The mean: each patch counts the same. Look at contributions or patch scores.",
    "argmax": "The maximum: one patch decides each class. Look at the patch scores.",
}
"""What the numbers of a map are, by its kind: for legends and files."""


@dataclass(frozen=True, slots=True)
class MilEncoder:
    """The encoder whose features a MIL model was trained on."""

    name: str
    dim: int
    """Values of a feature."""
    sha256: str | None
    """Hash of the encoder's content (`ModelManifest.sha256`); none where it is not known, as of
    foreign features."""


@dataclass(frozen=True, slots=True)
class MilMember:
    """A net of the same kind that other patients were left out of: part of an ensemble."""

    folder: str
    """A model folder of its own, inside the model's."""
    sha256: str
    """Its `ModelManifest.sha256`."""


@dataclass(frozen=True, slots=True)
class MilFacts:
    """The member ``mil`` of a `model.json`."""

    encoder: MilEncoder
    grids: tuple[GridSpec, ...]
    """Of each magnification, the lowest (largest µm/px) first; the last is the model's `grid`."""
    clinical: tuple[str, ...]
    """Names of the clinical variables that are fused late, in the order the net takes them."""
    reference: Mapping[str, Any]
    """What guard rails and percentiles compare a slide with. It decides no answer, so it is no
    part of the model's hash."""
    members: tuple[MilMember, ...] = ()
    """An ensemble beside the model, whose spread says how sure it is; none of most models."""

    def decisive(self) -> dict[str, Any]:
        """Return what decides an answer, for the model's hash."""
        found: dict[str, Any] = {
            "encoder": asdict(self.encoder),
            "grids": [asdict(grid) for grid in self.grids],
            "clinical": list(self.clinical),
        }
        if self.members:
            found["members"] = [asdict(member) for member in self.members]
        return found


def read_mil(raw: Mapping[str, Any], grid: GridSpec, file: Path) -> MilFacts:
    """Return the member ``mil`` of a `model.json` that fits the schema.

    Parameters
    ----------
    raw
        The member.
    grid
        The model's own grid.
    file
        Where it stands, for messages.

    Raises
    ------
    ModelError
        If a grid is impossible, their order is not from low to high magnification, or the last is
        not that of the model.
    """
    try:
        grids = tuple(GridSpec(**g) for g in raw["grids"])
    except HistomilError as error:
        raise ModelError(f"{file}: mil.grids: {error}") from error
    if any(after.mpp >= before.mpp for before, after in pairwise(grids)):
        raise ModelError(
            f"{file}: mil.grids must begin with the lowest magnification: each mpp smaller than "
            f"the one before, and they are {[g.mpp for g in grids]}."
        )
    if grids[-1] != grid:
        raise ModelError(
            f"{file}: the last of mil.grids, the highest magnification, must be the same as grid."
        )
    if any(g.margin_px for g in grids):
        raise ModelError(f"{file}: mil.grids: margin_px is for models that segment.")
    encoder = raw["encoder"]
    return MilFacts(
        encoder=MilEncoder(encoder["name"], encoder["dim"], encoder.get("sha256")),
        grids=grids,
        clinical=tuple(raw.get("clinical", ())),
        reference=raw.get("reference", {}),
        members=tuple(MilMember(m["folder"], m["sha256"]) for m in raw.get("members", ())),
    )
