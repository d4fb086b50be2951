"""A chain in `model.json`: which models follow one another, and what each hands on.

A patch classifier looks at all of a job's region; a refiner, where there is one, looks at its
heatmap and at the slide from afar; a model that segments looks only where that leaves something to
find (H2G-Net: Pedersen et al. 2022, Frontiers in Medicine 9, 971873). Here is what the file says;
the models it names are found in `steps.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from napari_histomil.errors import HistomilError, ModelError
from napari_histomil.tiling import GridSpec

ORDERS = (("detect", "segment"), ("detect", "refine", "segment"))


@dataclass(frozen=True, slots=True)
class Step:
    """A model by its name and content."""

    model: str
    sha256: str
    """`ModelManifest.sha256`."""


@dataclass(frozen=True, slots=True)
class Look(Step):
    """A step that hands on where a class is likely."""

    class_name: str
    grid: GridSpec
    stain: Literal["none", "macenko", "reinhard"] = "none"


@dataclass(frozen=True, slots=True)
class Chain:
    """The steps, and when the last one looks."""

    detect: Look
    """A patch classifier over the whole region."""
    refine: Look | None
    """A small model that segments, from the heatmap and the slide from afar."""
    segment: Step
    """What makes the result; its grid is the chain's own."""
    threshold: float
    """The last step looks where the step before is at least so sure, ..."""
    margin_um: float
    """... and so far around it, along x and y."""

    def words(self) -> list[str]:
        """Return what is done, a line for each step."""
        looks = [("detect", self.detect), ("refine", self.refine)]
        lines = [
            f"{verb} {look.class_name} with {look.model} ({look.grid.mpp:g} µm/px, a cell of "
            f"{look.grid.cell_um:g} µm)"
            for verb, look in looks
            if look is not None
        ]
        where = f"at least {self.threshold:g}, and {self.margin_um:g} µm around"
        return [*lines, f"segment with {self.segment.model} where that is {where}"]

    def canonical(self) -> dict[str, Any]:
        """Return what decides the result as plain JSON values, without names of models."""
        looks = {"detect": self.detect, "refine": self.refine}
        return {
            **{
                verb: {
                    "sha256": look.sha256,
                    "class": look.class_name,
                    "grid": grid_json(look.grid),
                    "stain": look.stain,
                }
                for verb, look in looks.items()
                if look is not None
            },
            "segment": {"sha256": self.segment.sha256},
            "threshold": self.threshold,
            "margin_um": self.margin_um,
        }


def read_chain(steps: Sequence[Mapping[str, Any]], file: Path) -> Chain:
    """Return the chain that the member ``steps`` of a valid `model.json` states.

    Raises
    ------
    ModelError
        If the steps are not in one of `ORDERS`, or one has members of another.
    """
    order = tuple(step["do"] for step in steps)
    if order not in ORDERS:
        raise ModelError(
            f"{file}: the steps of a chain are detect, refine (or not) and segment, each once and "
            f"in this order, not {', '.join(order)}."
        )
    for step in steps:
        wanted = {"threshold", "margin_um"} if step["do"] == "segment" else {"class", "grid"}
        optional = {"stain"} if step["do"] == "detect" else set()
        given = set(step) - {"do", "model", "sha256"}
        if not wanted <= given <= wanted | optional:
            raise ModelError(
                f"{file}: the step {step['do']} of a chain has the members model, sha256, "
                f"{' and '.join(sorted(wanted))}, not {', '.join(sorted(given)) or 'these two'}."
            )
    last = steps[-1]
    return Chain(
        _look(steps[0], file),
        _look(steps[1], file) if len(steps) == 3 else None,
        Step(last["model"], last["sha256"]),
        float(last["threshold"]),
        float(last["margin_um"]),
    )


def _look(step: Mapping[str, Any], file: Path) -> Look:
    try:
        grid = GridSpec(**step["grid"])
    except HistomilError as error:
        raise ModelError(f"{file}: step {step['do']}: grid: {error}") from error
    return Look(step["model"], step["sha256"], step["class"], grid, step.get("stain", "none"))


def chain_json(chain: Chain) -> list[dict[str, Any]]:
    """Return the member ``steps`` of `model.json`."""
    looks = {"detect": chain.detect, "refine": chain.refine}
    steps: list[dict[str, Any]] = [
        {
            "do": verb,
            "model": look.model,
            "sha256": look.sha256,
            "class": look.class_name,
            "grid": grid_json(look.grid),
            **({"stain": look.stain} if verb == "detect" else {}),
        }
        for verb, look in looks.items()
        if look is not None
    ]
    last = {"threshold": chain.threshold, "margin_um": chain.margin_um}
    return [
        *steps,
        {"do": "segment", "model": chain.segment.model, "sha256": chain.segment.sha256, **last},
    ]


def grid_json(grid: GridSpec) -> dict[str, Any]:
    """Return a grid as `model.json` states it."""
    margin = {"margin_px": grid.margin_px} if grid.margin_px else {}
    return {"mpp": grid.mpp, "tile_px": grid.tile_px, "stride_px": grid.stride_px, **margin}
