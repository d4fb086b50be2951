"""What is to be computed (`Job`) and how far it is (`Progress`); no torch, no pixels.

A job holds everything that decides the result and nothing of this machine: its canonical JSON,
hashed, is the run's id. So a moved folder or a renamed slide keeps its runs, and running the same
job again resumes it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from napari_histomil.errors import RunError
from napari_histomil.geometry import Rect
from napari_histomil.manifest import ModelManifest
from napari_histomil.slides.slide import SlideInfo
from napari_histomil.stain import Condition
from napari_histomil.tiling import GridSpec, children_a_side

RegionKind = Literal["tissue", "all", "rect", "polygons"]
StainMethod = Literal["none", "macenko", "reinhard"]


@dataclass(frozen=True, slots=True)
class SlideRef:
    """A slide by content. Path is for opening it and is not hashed; all else decides."""

    path: Path
    fingerprint: str
    mpp_xy: tuple[float, float]
    icc: bool = False
    """Whether the model is given colours converted to sRGB; nearly none was trained on such."""
    reader: str | None = None
    """The reader that the person forced; readers differ between the pixels of a level."""


@dataclass(frozen=True, slots=True)
class ModelRef:
    """A model by content. Name and path are for finding it and are not hashed."""

    name: str
    path: Path
    sha256: str


@dataclass(frozen=True, slots=True)
class RegionSpec:
    """Where to look: `kind` and, for ``rect`` and ``polygons``, its geometry.

    Tiles whose cell holds at least `min_fraction` of the region are looked at. For ``rect`` and
    ``polygons`` glass inside the region is looked at too: the person said so.
    """

    kind: RegionKind = "tissue"
    rect_px0: Rect | None = None
    polygons_wkt: tuple[str, ...] = ()
    """Well-known text of each polygon, level-0 pixels."""
    min_fraction: float = 0.1

    def __post_init__(self) -> None:
        if self.kind == "rect" and self.rect_px0 is None:
            raise RunError("A region of kind 'rect' needs a rectangle in level-0 pixels.")
        if self.kind == "polygons" and not self.polygons_wkt:
            raise RunError("The region holds no polygon: draw one, or choose tissue or all.")
        if not 0 <= self.min_fraction <= 1:
            raise RunError(f"min_fraction must lie in 0 to 1, not {self.min_fraction}.")


@dataclass(frozen=True, slots=True)
class StainSpec:
    """What is done to the stains before the model; fitted once a slide on its tissue.

    Raises
    ------
    RunError
        If there is a condition and a normalisation, which would undo it.
    """

    method: StainMethod = "none"
    """Normalisation."""
    condition: Condition | None = None
    """As if the slide had been stained otherwise: what would the model say?"""

    def __post_init__(self) -> None:
        if self.condition is not None and self.method != "none":
            raise RunError(
                f"A stain condition ({self.condition}) would be undone by the stain normalisation "
                f"{self.method}: run without normalisation (--stain none)."
            )

    def canonical(self) -> dict[str, Any]:
        """Return it as plain JSON values; what is not asked for has no name."""
        condition = {"condition": self.condition} if self.condition is not None else {}
        return {"method": self.method, **condition}


@dataclass(frozen=True, slots=True)
class MilSpec:
    """How a MIL model is asked, other than once by itself."""

    members: tuple[ModelRef, ...] = ()
    """Further models of an ensemble, of the same classes, encoder and grids."""
    passes: int = 0
    """So many answers with dropout on tell how sure the model is (Gal and Ghahramani 2016)."""
    finer: int = 1
    """The map is made at a stride this many times smaller: between the bag's tiles others are
    looked at with the model's attention. The answer stays that of the bag."""

    def __post_init__(self) -> None:
        if self.passes < 0 or self.passes == 1:
            raise RunError(
                f"{self.passes} pass(es) with dropout have no spread: ask for 10 or so."
            )
        if self.finer < 1:
            raise RunError(f"The stride cannot be divided by {self.finer}: choose 2 or 4.")

    def canonical(self) -> dict[str, Any]:
        """Return what is not the default as plain JSON values."""
        return {
            **({"members": [m.sha256 for m in self.members]} if self.members else {}),
            **({"passes": self.passes} if self.passes else {}),
            **({"finer": self.finer} if self.finer > 1 else {}),
        }


@dataclass(frozen=True, slots=True)
class Job:
    """Everything that decides a result."""

    slide: SlideRef
    model: ModelRef
    task: str
    grids: tuple[GridSpec, ...]
    """The grid of the result. Of features at one of several magnifications, the grid of the lowest
    after it: the tiles are then all children of that grid's tiles in the region. Of a MIL model
    those of its bag, the lowest magnification first."""
    region: RegionSpec = field(default_factory=RegionSpec)
    stain: StainSpec = field(default_factory=StainSpec)
    tta: bool = False
    """Whether features are the mean over the eight ways in which a tile can lie."""
    mil: MilSpec = field(default_factory=MilSpec)

    def canonical(self) -> dict[str, Any]:
        """Return what decides the result as plain JSON values, without names and paths."""
        rect = self.region.rect_px0
        slide: dict[str, Any] = {
            "fingerprint": self.slide.fingerprint,
            "mpp_xy": [float(value) for value in self.slide.mpp_xy],
        }
        if self.slide.icc:  # what is not asked for has no name: so jobs of before keep their ids
            slide["icc"] = True
        if self.slide.reader is not None:
            slide["reader"] = self.slide.reader
        return {
            "schema_version": 1,
            "slide": slide,
            "model": {"sha256": self.model.sha256},
            "task": self.task,
            "grids": [_canonical_grid(grid) for grid in self.grids],
            "region": {
                "kind": self.region.kind,
                "rect_px0": rect
                and [float(v) for v in (rect.x_px0, rect.y_px0, rect.width_px0, rect.height_px0)],
                "polygons_wkt": sorted(self.region.polygons_wkt),
                "min_fraction": float(self.region.min_fraction),
            },
            "stain": self.stain.canonical(),
            **({"tta": True} if self.tta else {}),
            **({"mil": self.mil.canonical()} if self.mil != MilSpec() else {}),
        }

    @property
    def run_id(self) -> str:
        """First 16 hexadecimal digits of the sha256 of the canonical JSON."""
        return id_of(self.canonical())


def id_of(canonical: dict[str, Any]) -> str:
    """Return the id of what is described by plain JSON values: 16 hexadecimal digits."""
    text = json.dumps(canonical, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _canonical_grid(grid: GridSpec) -> dict[str, Any]:
    sizes = {"tile_px": int(grid.tile_px), "stride_px": int(grid.stride_px)}
    if grid.margin_px:
        sizes["margin_px"] = int(grid.margin_px)
    return {"mpp": float(grid.mpp), **sizes}


@dataclass(frozen=True, slots=True)
class Progress:
    """One more block is safely on disk."""

    done: int
    """Tiles done, those of earlier sessions included."""
    total: int
    resumed: int
    """Tiles that were already done when this session began."""
    seconds: float
    """Since this session began to work on tiles; loading the model is not counted."""
    rect_px0: Rect
    """What the newest block covers."""
    store: Path
    stage: str = ""
    """What is going on, of jobs of several parts: ``features at 4 µm/px``; ``answer``
    and ``checks`` have no tiles of their own."""

    @property
    def tiles_per_second(self) -> float:
        """Speed of this session."""
        return (self.done - self.resumed) / self.seconds if self.seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Estimated time to the end at this session's speed; None before the first tile."""
        speed = self.tiles_per_second
        return (self.total - self.done) / speed if speed > 0 else None


def plan_job(
    info: SlideInfo,
    model: ModelManifest,
    *,
    region: RegionSpec | None = None,
    stain: StainMethod | None = None,
    condition: Condition | None = None,
    mpp: float | None = None,
    stride_px: int | None = None,
    reader: str | None = None,
    icc: bool = False,
    tta: bool = False,
    within: GridSpec | None = None,
    mil: MilSpec | None = None,
) -> Job:
    """Return the job that runs `model` on a slide with the model's own settings, or others.

    Parameters
    ----------
    info
        The slide's facts.
    model
        The model.
    region
        Where to look; tissue by default.
    stain
        Stain normalisation; the model's own by default. Of a chain, before its last model.
    condition
        As if the slide had been stained otherwise; not for chains.
    mpp, stride_px
        Resolution and stride other than the model's; of a chain, of its last model.
    reader
        The slide's reader, where it is forced.
    icc
        Whether the model is given colours converted to sRGB. A slide that is only shown so is
        still looked at as it is stored, as models were trained.
    tta
        Test-time augmentation of an encoder: the mean over a tile's eight turns and flips.
    within
        Grid of the lowest magnification where an encoder looks at several: this job's tiles are
        all that lie within a cell of that grid that is looked at, also on glass, and white where
        such a cell reaches beyond the slide. So every tile has as many children.
    mil
        How a MIL model is asked; once, by itself, by default.

    Raises
    ------
    MissingMppError
        If the slide's µm/px are unknown.
    RunError
        If mpp or stride make no grid, the model works only within a chain, this grid does not
        divide the one it shall lie within, or what is for encoders is asked of another model.
    """
    if model.inputs:
        raise RunError(
            f"{model.name} refines heatmaps and is given one by a chain: run a chain that names "
            f"it, see 'histomil models chain --help'."
        )
    if model.task == "mil":
        if tta or within is not None or mpp is not None or stride_px is not None:
            raise RunError(
                f"{model.name} takes features as it was trained on: its grids and the ways tiles "
                f"lie cannot be chosen."
            )
        chosen = StainSpec(model.stain if stain is None else stain, condition)
        return _plan_mil(info, model, region, chosen, reader, mil or MilSpec(), icc=icc)
    if condition is not None and model.chain is not None:
        raise RunError(
            f"{model.name} is a chain, and a stain condition is for single models: ask them one "
            f"by one."
        )
    if mil is not None:
        raise RunError(f"{model.name} is no MIL model: members, passes and finer are for those.")
    grid = GridSpec(
        mpp=model.grid.mpp if mpp is None else mpp,
        tile_px=model.grid.tile_px,
        stride_px=model.grid.stride_px if stride_px is None else stride_px,
        margin_px=model.grid.margin_px,
    )
    if (tta or within is not None) and model.task != "embed":
        raise RunError(
            f"{model.name} is no encoder: test-time augmentation and nested magnifications are "
            f"for features."
        )
    if within == grid:
        within = None
    if within is not None:
        children_a_side(within, grid)
    if model.segments and (grid.tile_px - grid.stride_px) % 2:
        raise RunError(
            f"Tiles of {grid.tile_px} px every {grid.stride_px} px do not lie on the pixels of "
            f"the result: choose a stride that is {'even' if grid.tile_px % 2 == 0 else 'odd'}."
        )
    return Job(
        slide=SlideRef(info.path, info.fingerprint, info.mpp_xy, icc=icc, reader=reader),
        model=ModelRef(model.name, model.path, model.sha256),
        task=model.task,
        grids=(grid,) if within is None else (grid, within),
        region=region or RegionSpec(),
        stain=StainSpec(model.stain if stain is None else stain, condition),
        tta=tta,
    )


REFINABLE = ("mil/attention", "mil/gated-attention", "mil/clam-sb", "mil/clam-mb")
"""Models whose attention to a tile, before the softmax, depends on that tile alone."""


def _plan_mil(
    info: SlideInfo,
    model: ModelManifest,
    region: RegionSpec | None,
    stain: StainSpec,
    reader: str | None,
    mil: MilSpec,
    *,
    icc: bool,
) -> Job:
    assert model.mil is not None
    if model.mil.clinical:
        raise RunError(
            f"{model.name} needs clinical variables of the patient "
            f"({', '.join(model.mil.clinical)}), and a slide has none: ask it from Python."
        )
    grids = model.mil.grids
    if mil.finer > 1:
        if model.architecture not in REFINABLE:
            raise RunError(
                f"{model.name} ({model.architecture}) has no attention that can be asked about "
                f"tiles between those of the bag: leave the finer map out."
            )
        if grids[-1].stride_px % mil.finer:
            raise RunError(
                f"The stride of {model.name}, {grids[-1].stride_px} px, cannot be divided by "
                f"{mil.finer}."
            )
    return Job(
        slide=SlideRef(info.path, info.fingerprint, info.mpp_xy, icc=icc, reader=reader),
        model=ModelRef(model.name, model.path, model.sha256),
        task="mil",
        grids=grids,
        region=region or RegionSpec(),
        stain=stain,
        mil=mil,
    )
