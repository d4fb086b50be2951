"""How large nuclei are on a slide, by its own µm/px: what is far off has its scale wrong.

No nucleus is segmented. The optical density of red, which haematoxylin absorbs and eosin hardly,
is looked at through scale-normalised Laplacians of Gaussians (Lindeberg, "Feature detection with
automatic scale selection", IJCV 1998): a blob of diameter d answers most at sigma = d / sqrt(8),
so the scale of the most energy is that of what there is most of on a slide: nuclei. Given as if it
were their diameter, which it is proportional to: sharp discs give 1.15 times theirs, H&E tissue of
several organs 4 to 7 µm (`docs/mil.md`).

Pixels come from the caller; none are kept.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_histomil.geometry import Rect
from napari_histomil.slides.slide import Slide, Uint8Image, read_rect
from napari_histomil.stain import LEAST_DENSITY, optical_density

WORKING_MPP = 0.5
"""Tiles are looked at with this resolution, or the slide's own where that is coarser."""
COARSEST_MPP = 2.0
"""With larger pixels a nucleus is three of them, and nothing can be said."""
TILE_PX = 512
TILES = 12

DIAMETERS_UM = 1.5 * 2.0 ** (np.arange(18) / 4)
"""1.5 to 29 µm in quarters of an octave."""
LEAST_SIGMA_PX = 0.9
"""Finer than this a Laplacian of Gaussian is no longer one on pixels."""
CLIPPED_PERCENTILE = 99
"""Denser pixels (pigment, folds, ink) count as much as these."""
LEAST_TISSUE = 0.05
"""Tiles with a smaller share of stained pixels say nothing."""

LEAST_ENERGY = 1e-5
"""Of densities of about 1: less is rounding."""

USUAL_UM = 4.8
"""Where no reference is known: the middle of what slides at their right scale give."""
TOLERANCE = 1.6
"""A factor that organs and stains differ by less than; a scale off by two exceeds it."""


@dataclass(frozen=True, slots=True)
class NuclearSize:
    """What was found."""

    diameter_um: float
    tiles: int
    """Tiles with tissue that were looked at."""


def nuclear_size(tiles: list[Uint8Image], mpp: float) -> NuclearSize | None:
    """Return the size of nuclei in tiles.

    Parameters
    ----------
    tiles
        uint8 [H, W, 3] each, RGB.
    mpp
        Their resolution in µm/px.

    Returns
    -------
    NuclearSize or None
        None if there is no tissue, the resolution is too coarse, or no size stands out.
    """
    densities = [optical_density(tile[..., 0]) for tile in tiles]
    densities = [d for d in densities if (d > LEAST_DENSITY).mean() >= LEAST_TISSUE]
    if not densities or mpp > COARSEST_MPP:
        return None
    most = float(np.percentile(np.concatenate([d.ravel() for d in densities]), CLIPPED_PERCENTILE))
    energies = np.array([_energies(np.minimum(d, most), mpp) for d in densities])  # [n, S]
    energy = energies.mean(axis=0)
    known = np.flatnonzero(np.isfinite(energy))
    best = int(known[np.argmax(energy[known])]) if len(known) else 0
    if len(known) < 3 or best in (known[0], known[-1]) or energy[best] < LEAST_ENERGY:
        return None  # no scale stands out from what is finer or coarser
    return NuclearSize(_between(energy, best), len(densities))


def slide_nuclear_size(slide: Slide, boxes_px0: NDArray[np.float64]) -> NuclearSize | None:
    """Return the size of nuclei around some tiles of a slide.

    Parameters
    ----------
    slide
        With known µm/px.
    boxes_px0
        float64 [N, 4]: x, y, width, height of tiles with tissue; some, spread evenly, are looked
        at, always the same.

    Raises
    ------
    SlideError
        If the slide cannot be read.
    """
    mpp_x, mpp_y = slide.info.mpp_xy
    mpp = max(WORKING_MPP, mpp_x, mpp_y)
    if not len(boxes_px0) or mpp > COARSEST_MPP:
        return None
    width, height = (
        min(TILE_PX * mpp / m, float(size))
        for m, size in ((mpp_x, slide.info.width_px0), (mpp_y, slide.info.height_px0))
    )
    whole = Rect(0, 0, slide.info.width_px0, slide.info.height_px0)
    chosen = np.unique(np.linspace(0, len(boxes_px0) - 1, TILES).round().astype(int))
    tiles: dict[tuple[float, float], Uint8Image] = {}
    for x, y, w, h in boxes_px0[chosen]:
        # whole pixels of the slide's own, within it
        corner = (
            float(round(min(max(x + w / 2 - width / 2, 0), whole.right_px0 - width))),
            float(round(min(max(y + h / 2 - height / 2, 0), whole.bottom_px0 - height))),
        )
        size = (max(round(width * mpp_x / mpp), 1), max(round(height * mpp_y / mpp), 1))
        if corner not in tiles:
            tiles[corner] = read_rect(slide, corner, (width, height), size)
    return nuclear_size(list(tiles.values()), mpp)


def scale_warning(found: NuclearSize | None, reference_um: float | None) -> str | None:
    """Return a sentence if nuclei are much larger or smaller than they should be.

    Parameters
    ----------
    found
        Of the slide.
    reference_um
        The same number of the slides that the model was trained on; None if that is not known:
        then what is usual counts.
    """
    if found is None:
        return None
    ratio = found.diameter_um / (reference_um or USUAL_UM)
    if 1 / TOLERANCE <= ratio <= TOLERANCE:
        return None
    whose = (
        f"{reference_um:.1f} µm on the slides that the model was trained on"
        if reference_um
        else f"about {USUAL_UM:.0f} µm is usual"
    )
    return (
        f"Nuclei seem to be {found.diameter_um:.1f} µm across, and {whose}: the slide's µm/px may "
        f"be wrong by a factor of about {_round_factor(ratio):g} (it says too "
        f"{'many' if ratio > 1 else 'few'} µm), and then the answer means nothing."
    )


def _energies(density: NDArray[np.float32], mpp: float) -> NDArray[np.float64]:
    """Return the mean square answer of dark blobs at each of `DIAMETERS_UM`, NaN where unknown.

    Coarse scales are looked at in a coarser picture: all of them cost little more than the finest.
    """
    energies = np.full(len(DIAMETERS_UM), np.nan)
    picture, halved = density, 1
    for index, diameter in enumerate(DIAMETERS_UM):
        sigma = diameter / mpp / math.sqrt(8) / halved
        while sigma > 4:
            height, width = (side // 2 for side in picture.shape)
            four = picture[: 2 * height, : 2 * width].reshape(height, 2, width, 2)
            picture, halved, sigma = four.mean(axis=(1, 3)), 2 * halved, sigma / 2
        if sigma < LEAST_SIGMA_PX or min(picture.shape) < 6 * sigma:
            continue
        answer = -(sigma**2) * ndimage.gaussian_laplace(picture, sigma)
        energies[index] = float(np.square(np.maximum(answer, 0)).mean())
    return energies


def _between(energy: NDArray[np.float64], best: int) -> float:
    """Return the diameter at the top of the parabola through the best scale and its neighbours."""
    before, top, after = np.log(energy[best - 1 : best + 2])
    bend = before - 2 * top + after
    shift = 0.5 * (before - after) / bend if bend < 0 else 0.0
    return float(DIAMETERS_UM[0] * 2 ** ((best + shift) / 4))


def _round_factor(ratio: float) -> float:
    factor = ratio if ratio > 1 else 1 / ratio
    return round(2 * factor) / 2
