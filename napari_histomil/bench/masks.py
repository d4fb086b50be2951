"""How long the mask of a whole slide takes beside rasterio's own filling, and its memory.

The slide is 100,000 x 80,000 px at 0.25 µm/px with 5,000 polygons, the mask has 1 µm/px. Both
sides fill the same polygons into the same bands; rasterio gets those that reach into a band as
shapely's objects, chosen beforehand at no cost. The sides take turns, and the median of the
rounds' own ratios counts.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from affine import Affine
from rasterio.features import rasterize

from napari_histomil.annotations.mask_facts import MaskFacts
from napari_histomil.annotations.mask_files import write_mask
from napari_histomil.annotations.masks import LabelTable, MaskGrid
from napari_histomil.annotations.model import STANDARD_CLASSES, Region
from napari_histomil.annotations.raster import NUDGE, Painting, band_rows, bands, prepare
from napari_histomil.bench.figures import AT_MOST, Figure, table, verdict
from napari_histomil.bench.peak import peak_bytes

ROUNDS = 5
POLYGONS = 5000
VERTICES = 100
SLIDE_PX0 = (100_000, 80_000)
PIXEL_PX0 = 4.0
MPP = 1.0
CLASSES = STANDARD_CLASSES[:5]

TIME_TARGET = 1.1
MEMORY_TARGET_GB = 1.0


@dataclass(frozen=True, slots=True)
class MaskFigures:
    """What was measured."""

    rounds: int
    columns: int
    rows: int
    band_rows: int
    polygons: int
    seconds: float
    """Filling all bands by `raster.bands`, median."""
    rasterio_seconds: float
    """Filling the same bands by rasterio, median."""
    ratio: float
    """Ours over rasterio's: the median of the rounds' own ratios."""
    different_pixels: int
    """Pixels in which the two masks differ."""
    peak_gb: float
    """Peak memory of a process that writes the mask as an OME-TIFF, the libraries' included."""
    base_gb: float
    """Memory of that process before it began."""

    def figures(self) -> list[Figure]:
        """Return the figures with their targets."""
        ours = f"{self.seconds:.2f} s beside {self.rasterio_seconds:.2f} s"
        return [
            Figure("mask / rasterio's filling", self.ratio, AT_MOST, TIME_TARGET, note=ours),
            Figure("pixels that differ", float(self.different_pixels), AT_MOST, 0.0),
            Figure(
                "peak memory, OME-TIFF written",
                self.peak_gb,
                AT_MOST,
                MEMORY_TARGET_GB,
                "GB",
                f"{self.base_gb:.2f} GB before it began",
            ),
        ]


def made_regions() -> list[Region]:
    """Return lobed polygons of 50 to 300 µm all over the slide, the same each time."""
    rng = np.random.default_rng(0)
    angle = np.linspace(0, 2 * np.pi, VERTICES, endpoint=False)
    way = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    regions = []
    for number in range(POLYGONS):
        center = rng.uniform((0, 0), SLIDE_PX0)
        radius = rng.uniform(100, 600) * (1 + 0.2 * np.sin(3 * angle + rng.uniform(0, 6)))
        radius *= 1 + 0.02 * rng.standard_normal(VERTICES)
        outline = np.round(center + way * radius[:, None], 2)
        regions.append(Region(shapely.Polygon(outline), CLASSES[number % len(CLASSES)]))
    return regions


def made_painting() -> Painting:
    """Return the regions made ready on the mask's grid."""
    columns, rows = (round(side / PIXEL_PX0) for side in SLIDE_PX0)
    grid = MaskGrid(columns, rows, (PIXEL_PX0, PIXEL_PX0), (MPP, MPP))
    return prepare(made_regions(), grid, LabelTable.of(CLASSES), mend=True)


def measure_masks(
    *,
    rounds: int = ROUNDS,
    say: Callable[[str], None],
    in_own_process: Callable[[Callable[[], tuple[float, float]]], tuple[float, float]],
) -> MaskFigures:
    """Measure both sides in turns, then the memory of a process that does nothing else.

    Parameters
    ----------
    rounds
        How often each side fills the mask.
    say
        Is told what is being measured.
    in_own_process
        Calls a function in a fresh Python.
    """
    say("masks, beside rasterio's own filling ...")
    painting = made_painting()
    step = band_rows(painting.grid)
    shares = [
        (top, rows, np.sort(painting.tree.query(_band_box(painting.grid, top, rows))))
        for top, rows in _spans(painting.grid.rows, step)
    ]
    different = sum(
        int(np.count_nonzero(ours != theirs))
        for ours, theirs in zip(bands(painting), _by_rasterio(painting, shares), strict=True)
    )
    times: list[tuple[float, float]] = []
    for number in range(rounds):
        sides: list[Callable[[], Iterator[Any]]] = [
            lambda: bands(painting),
            lambda: _by_rasterio(painting, shares),
        ]
        order = (0, 1) if number % 2 == 0 else (1, 0)
        took = [0.0, 0.0]
        for side in order:
            start = time.perf_counter()
            for _ in sides[side]():
                pass
            took[side] = time.perf_counter() - start
        times.append((took[0], took[1]))
    say("memory, by writing the mask in a process of its own ...")
    base, peak = in_own_process(write_and_weigh)
    return MaskFigures(
        rounds=rounds,
        columns=painting.grid.columns,
        rows=painting.grid.rows,
        band_rows=step,
        polygons=len(painting.polygons),
        seconds=statistics.median(ours for ours, _ in times),
        rasterio_seconds=statistics.median(theirs for _, theirs in times),
        ratio=statistics.median(ours / theirs for ours, theirs in times),
        different_pixels=different,
        peak_gb=peak / 1e9,
        base_gb=base / 1e9,
    )


def write_and_weigh() -> tuple[float, float]:
    """Write the mask as an OME-TIFF; return this process's peak memory before and after, bytes."""
    before = peak_bytes()
    painting = made_painting()
    facts = MaskFacts(painting.grid, painting.table)
    with tempfile.TemporaryDirectory() as folder:
        write_mask(Path(folder) / "mask.ome.tif", bands(painting), facts)
    return before, peak_bytes()


def report(figures: MaskFigures) -> str:
    """Return the figures as lines of text, Markdown too."""
    f = figures
    lines = [
        (
            f"- masks: {f.polygons:,} polygons of {VERTICES} vertices on "
            f"{SLIDE_PX0[0]:,} x {SLIDE_PX0[1]:,} px, {f.columns:,} x {f.rows:,} pixels of "
            f"{MPP:g} µm in bands of {f.band_rows} rows; {f.rounds} rounds, sides in turns"
        ),
        f"- **{verdict(f.figures())}**",
        "",
        table(f.figures()),
    ]
    return "\n".join(lines)


def as_json(figures: MaskFigures) -> dict[str, Any]:
    """Return everything that was measured, and the figures with their verdicts."""
    return asdict(figures) | {"figures": [figure.as_dict() for figure in figures.figures()]}


def _spans(rows: int, step: int) -> list[tuple[int, int]]:
    return [(top, min(step, rows - top)) for top in range(0, rows, step)]


def _band_box(grid: MaskGrid, top: int, rows: int) -> shapely.Polygon:
    width, height = grid.pixel_px0
    return shapely.box(0, top * height, grid.columns * width, (top + rows) * height)


def _by_rasterio(
    painting: Painting, shares: list[tuple[int, int, Any]]
) -> Iterator[np.ndarray[Any, Any]]:
    """Fill the bands as rasterio's documentation does, centres taken where `raster` does."""
    grid = painting.grid
    width, height = grid.pixel_px0
    for top, rows, near in shares:
        out = np.full((rows, grid.columns), painting.base, painting.table.dtype)
        pairs = zip(painting.polygons[near], painting.values[near], strict=True)
        x0, y0 = NUDGE[0] * width, (top + NUDGE[1]) * height
        transform = Affine(width, 0, x0, 0, height, y0)
        rasterize(list(pairs), out=out, transform=transform)
        yield out
