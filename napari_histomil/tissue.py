"""Where a slide holds tissue: a mask of an overview, and shares of it for tiles.

Brightfield tissue is found by its saturation and optical density, fluorescence by its brightness.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from shapely.geometry import Polygon
from skimage.filters import threshold_otsu

from napari_histomil.slides.slide import Slide, read_rect

OVERVIEW_UM = 8.0
OVERVIEW_MAX_PX = 4_000_000


@dataclass(frozen=True, slots=True)
class TissueOptions:
    """What counts as tissue."""

    overview_mpp: float = OVERVIEW_UM
    min_area_um2: float = 20_000.0
    max_hole_um2: float = 200_000.0


@dataclass(frozen=True, slots=True, eq=False)
class TissueMask:
    """A mask of the whole slide."""

    mask: NDArray[np.bool_]
    scale_px0: tuple[float, float]
    """Level-0 px that a mask pixel spans along (x, y)."""
    kind: str
    """``brightfield`` or ``fluorescence``."""

    def fraction(self, rects_px0: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the share of each rectangle's area that is tissue, exact at fractional edges.

        Parameters
        ----------
        rects_px0
            float [N, 4]: x, y, width, height in level-0 px; outside the slide is no tissue.
        """
        rects = np.asarray(rects_px0, np.float64).reshape(-1, 4)
        height, width = self.mask.shape
        sums = np.zeros((height + 1, width + 1))
        sums[1:, 1:] = self.mask.cumsum(0, dtype=np.float64).cumsum(1)
        x0, y0 = rects[:, 0] / self.scale_px0[0], rects[:, 1] / self.scale_px0[1]
        x1 = x0 + rects[:, 2] / self.scale_px0[0]
        y1 = y0 + rects[:, 3] / self.scale_px0[1]

        def below(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
            x, y = np.clip(x, 0, width), np.clip(y, 0, height)
            ix, iy = np.minimum(x.astype(int), width - 1), np.minimum(y.astype(int), height - 1)
            fx, fy = x - ix, y - iy
            top = sums[iy, ix] * (1 - fx) + sums[iy, ix + 1] * fx
            low = sums[iy + 1, ix] * (1 - fx) + sums[iy + 1, ix + 1] * fx
            total: NDArray[np.float64] = top * (1 - fy) + low * fy
            return total

        area = (x1 - x0) * (y1 - y0)
        inside = below(x1, y1) - below(x0, y1) - below(x1, y0) + below(x0, y0)
        share: NDArray[np.float64] = np.divide(
            inside, area, out=np.zeros_like(area), where=area > 0
        )
        return np.clip(share, 0, 1)

    def area_um2(self, mpp_xy: tuple[float, float]) -> float:
        """Return the tissue's area in µm²."""
        pixel = self.scale_px0[0] * mpp_xy[0] * self.scale_px0[1] * mpp_xy[1]
        return float(self.mask.sum()) * pixel

    def polygons(self) -> list[Polygon]:
        """Return the tissue as polygons with holes in level-0 px, exact to the mask's pixels."""
        raise NotImplementedError


def find_tissue(slide: Slide, *, options: TissueOptions | None = None) -> TissueMask:
    """Find tissue on an overview of the slide."""
    options = options or TissueOptions()
    info = slide.info
    mpp = (info.mpp_x or 0.5) if info.mpp_x else 0.5
    factor = max(options.overview_mpp / mpp, 1.0)
    factor = max(factor, (info.width_px0 * info.height_px0 / OVERVIEW_MAX_PX) ** 0.5)
    size = max(round(info.width_px0 / factor), 1), max(round(info.height_px0 / factor), 1)
    image = read_rect(slide, (0, 0), (info.width_px0, info.height_px0), size)
    scale = info.width_px0 / size[0], info.height_px0 / size[1]
    rgb = ndimage.uniform_filter(image.astype(np.float32), (3, 3, 1))
    dark = float(np.median(rgb)) < 60
    value = rgb.mean(axis=2) if dark else rgb.max(axis=2) - rgb.min(axis=2)
    if float(np.ptp(value)) < 8:
        everything = not dark and float(value.mean()) > 12
        mask = np.full(value.shape, everything)
    else:
        mask = value > max(min(threshold_otsu(value), 35.0), 10.0)
        pixel = scale[0] * scale[1] * mpp * mpp
        labels, count = ndimage.label(mask)
        sizes = np.bincount(labels.ravel(), minlength=count + 1)
        keep = sizes * pixel >= options.min_area_um2
        keep[0] = False
        mask = ndimage.binary_fill_holes(keep[labels])
    return TissueMask(mask, scale, "fluorescence" if dark else "brightfield")
