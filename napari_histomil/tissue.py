"""Where a slide holds tissue: a mask made from an overview, and its share of any tile.

In brightfield, tissue is what absorbs some colours of light more than others: glass, dust, the
edge of a cover slip and black ink absorb all alike. The threshold is Otsu's (1979), held within
limits so that a slide without tissue gives an empty mask and a slide full of it a full one. In
fluorescence, tissue is what glows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy import ndimage
from shapely.geometry import Polygon
from skimage.filters import threshold_otsu

from napari_histomil.geometry import choose_level
from napari_histomil.slides.glass import from_afar
from napari_histomil.slides.slide import Slide, Uint8Image, read_rect

Mask = NDArray[np.bool_]
Floats = NDArray[np.float32]

OVERVIEW_MAX_PX = 4_000_000
OVERVIEW_MIN_SIDE_PX = 512
"""Small images are looked at more closely than asked for, as far as they have pixels."""
UNKNOWN_OVERVIEW_SIDE_PX = 1500
"""Longer side of the overview where a slide does not say its µm/px."""
CHROMA_LIMITS = 0.045, 0.09
"""Between these lies the threshold for tissue: differences of optical density (natural log)."""
FAINT_GREEN = 0.010
"""Faint tissue is followed, from where it is surer, down to this mean optical density of green
above that of red and blue; unevenly lit or tinted glass has less."""
FAINT_UM = 32.0
"""The mean is taken over about so much: as much as the cells of fat are wide."""
SURE_SHARE = 0.02
"""Share of a faint piece that must be surely tissue."""
INK_DENSITY = 0.06
"""Optical density from which ink is told from tissue by its colour."""
INK_PX = 7
"""Ink is judged by the mean of so many px: its lines are wider, and evens out what lies below."""
GLOW_LIMITS = 5.0, 40.0
"""Between these lies the threshold for fluorescence: grey levels above the background."""


@dataclass(frozen=True, slots=True)
class TissueOptions:
    """How tissue is looked for; areas count where the slide says its µm/px, shares elsewhere."""

    overview_mpp: float = 8.0
    """Resolution that is looked at."""
    min_area_um2: float = 10_000.0
    """Smaller pieces are dropped, but none of more than `min_share` of the slide."""
    max_hole_um2: float = 50_000.0
    """Smaller holes are filled: lumina, vessels, fat cells."""
    min_share: float = 0.001
    max_hole_share: float = 0.002
    leave_out_ink: bool = True
    """Leave out green, blue and black ink; False for blue or green stains."""


@dataclass(frozen=True, slots=True, eq=False)
class TissueMask:
    """Tissue over the whole slide."""

    mask: Mask
    scale_px0: tuple[float, float]
    """Level-0 px that a mask pixel spans along (x, y)."""
    kind: str
    """``brightfield`` or ``fluorescence``."""

    def fraction(self, rects_px0: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the share of each rectangle's area that is tissue, exact at fractional edges.

        Parameters
        ----------
        rects_px0
            float [N, 4]: x, y, width, height in level-0 px; what lies outside the slide is no
            tissue, a rectangle without area holds none.

        Returns
        -------
        float64 array [N]
        """
        rects = np.asarray(rects_px0, np.float64).reshape(-1, 4)
        height, width = self.mask.shape
        sums = np.zeros((height + 1, width + 1))
        np.cumsum(np.cumsum(self.mask, axis=0, dtype=np.float64), axis=1, out=sums[1:, 1:])

        def before(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
            """Return the tissue above and left of points; linear inside a pixel, so exact."""
            x, y = np.clip(x, 0, width), np.clip(y, 0, height)
            ix = np.minimum(x.astype(np.int64), width - 1)
            iy = np.minimum(y.astype(np.int64), height - 1)
            fx, fy = x - ix, y - iy
            top = sums[iy, ix] * (1 - fx) + sums[iy, ix + 1] * fx
            low = sums[iy + 1, ix] * (1 - fx) + sums[iy + 1, ix + 1] * fx
            total: NDArray[np.float64] = top * (1 - fy) + low * fy
            return total

        x0, y0 = rects[:, 0] / self.scale_px0[0], rects[:, 1] / self.scale_px0[1]
        x1 = (rects[:, 0] + rects[:, 2]) / self.scale_px0[0]
        y1 = (rects[:, 1] + rects[:, 3]) / self.scale_px0[1]
        tissue = before(x1, y1) - before(x0, y1) - before(x1, y0) + before(x0, y0)
        area = (x1 - x0) * (y1 - y0)
        share = np.divide(tissue, area, out=np.zeros_like(area), where=area > 0)
        return np.clip(share, 0, 1)

    def area_um2(self, mpp_xy: tuple[float, float]) -> float:
        """Return the tissue's area in µm² on a slide of that many µm/px along (x, y)."""
        pixel = self.scale_px0[0] * mpp_xy[0] * self.scale_px0[1] * mpp_xy[1]
        return float(np.count_nonzero(self.mask)) * pixel

    def polygons(self) -> list[Polygon]:
        """Return the tissue as polygons with holes in level-0 px, along the mask's pixel edges.

        They do not overlap; pieces that touch only at a corner are separate. Largest first.
        """
        lines = np.concatenate(
            [_edges(self.mask), _edges(self.mask.T)[:, :, ::-1]]  # [M, 2 ends, (x, y)]
        )
        faces = shapely.get_parts(shapely.polygonize(shapely.linestrings(lines)))
        inside = shapely.point_on_surface(faces)
        columns, rows = shapely.get_x(inside).astype(int), shapely.get_y(inside).astype(int)
        scaled = shapely.transform(faces[self.mask[rows, columns]], lambda xy: xy * self.scale_px0)
        return sorted(scaled.tolist(), key=lambda polygon: -polygon.area)


def _edges(mask: Mask) -> NDArray[np.int64]:
    """Return the horizontal edges of the mask as lines [M, 2 ends, (x, y)].

    A line ends where the side that the mask lies on changes, so lines meet only at their ends.
    """
    height, width = mask.shape
    padded = np.zeros((height + 2, width + 2), np.int8)
    padded[1:-1, 1:-1] = mask
    step = np.diff(padded, axis=0)  # [height + 1, width + 2]: 1 into the mask, -1 out of it
    change = np.diff(step, axis=1) != 0
    starts = change & (step[:, 1:] != 0)
    ends = change & (step[:, :-1] != 0)
    y, x0 = np.nonzero(starts)
    _, x1 = np.nonzero(ends)
    return np.stack([np.stack([x0, y], axis=1), np.stack([x1, y], axis=1)], axis=1)


def find_tissue(slide: Slide, *, options: TissueOptions | None = None) -> TissueMask:
    """Find the tissue of a slide on an overview of it.

    Parameters
    ----------
    slide
        An open slide; it need not know its µm/px.
    options
        How to look; the defaults suit H&E and immunohistochemistry.

    Raises
    ------
    SlideError
        If the slide cannot be read.
    """
    options = options or TissueOptions()
    info = slide.info
    size = _overview_size(info.width_px0, info.height_px0, info.mpp_x, info.mpp_y, options)
    scale = info.width_px0 / size[0], info.height_px0 / size[1]
    level = choose_level(info.downsamples, min(scale))
    seen = from_afar(slide, level, min(scale) / info.downsamples[level])
    image = read_rect(seen, (0, 0), (info.width_px0, info.height_px0), size)
    pixel_um = None
    if info.mpp_x is not None and info.mpp_y is not None:
        pixel_um = float(np.sqrt(scale[0] * info.mpp_x * scale[1] * info.mpp_y))
    # Where µm/px are unknown, a pixel of the overview is taken for what it usually is.
    blur_px = FAINT_UM / (pixel_um or options.overview_mpp) / 2
    if is_fluorescence(image):
        mask, kind = _glowing(image, blur_px), "fluorescence"
    else:
        mask, kind = _absorbing(image, blur_px, options.leave_out_ink), "brightfield"
    whole = mask.size
    smallest, hole = options.min_share * whole, options.max_hole_share * whole
    if pixel_um is not None:
        smallest = min(options.min_area_um2 / pixel_um**2, 10 * smallest)
        hole = options.max_hole_um2 / pixel_um**2
    return TissueMask(_clean(mask, smallest, hole), scale, kind)


def _overview_size(
    width_px0: int,
    height_px0: int,
    mpp_x: float | None,
    mpp_y: float | None,
    options: TissueOptions,
) -> tuple[int, int]:
    longer = max(width_px0, height_px0)
    if mpp_x is None or mpp_y is None:
        factor = longer / UNKNOWN_OVERVIEW_SIDE_PX, longer / UNKNOWN_OVERVIEW_SIDE_PX
    else:
        factor = options.overview_mpp / mpp_x, options.overview_mpp / mpp_y
    closest = longer / OVERVIEW_MIN_SIDE_PX
    width, height = (
        side / max(min(f, closest), 1.0)
        for side, f in zip((width_px0, height_px0), factor, strict=True)
    )
    shrink = min((OVERVIEW_MAX_PX / (width * height)) ** 0.5, 1.0)
    return max(round(width * shrink), 1), max(round(height * shrink), 1)


def is_fluorescence(image: Uint8Image) -> bool:
    """Tell bright on black from pixels uint8 [..., 3]: much of it dark, and nowhere glass."""
    glass = image.min(axis=-1) > 150
    dark = image.max(axis=-1) < 60
    return bool(glass.mean() < 0.005 and dark.mean() > 0.3)


def _glowing(image: Uint8Image, blur_px: float) -> Mask:
    """Return where a fluorescence image glows; nuclei lie apart, so they are blurred together."""
    glow = ndimage.gaussian_filter(image.max(axis=2).astype(np.float32), blur_px)
    background = float(np.percentile(glow, 2))
    above = np.log1p(np.maximum(glow - background, 0))
    if float(above.max()) < np.log1p(GLOW_LIMITS[0]):
        return np.zeros(glow.shape, np.bool_)
    threshold = np.clip(np.expm1(_otsu(above)), *GLOW_LIMITS)
    found: Mask = glow - background > threshold
    return found


def _otsu(values: Floats) -> float:
    return float(threshold_otsu(values))  # type: ignore[no-untyped-call]


def _absorbing(image: Uint8Image, blur_px: float, leave_out_ink: bool) -> Mask:
    """Return where a brightfield image absorbs light as stained tissue does."""
    density = _density(image)
    absorbed = np.maximum(density, 0)
    chroma = absorbed.max(axis=2) - absorbed.min(axis=2)
    ink = _ink(absorbed) if leave_out_ink else np.zeros(chroma.shape, np.bool_)
    if ink.all():
        return ~ink
    threshold = np.clip(_otsu(np.sqrt(chroma[~ink])) ** 2, *CHROMA_LIMITS)
    sure = (chroma > threshold) & ~ink
    # Averaged without what is surely solid, or its blur would spill over its edge; the membranes
    # between fat cells may be sure but are thin, and count.
    solid = ndimage.binary_opening(sure, structure=_disc(2))
    unsure = (~solid & ~ink).astype(np.float32)
    weight = ndimage.gaussian_filter(unsure, blur_px)
    green = density[..., 1] - (density[..., 0] + density[..., 2]) / 2
    faint = ndimage.gaussian_filter(green * unsure, blur_px)
    weak = (faint > FAINT_GREEN * weight) & (unsure > 0)
    labels, count = ndimage.label(weak | sure, structure=np.ones((3, 3)))
    # A faint piece is tissue if something in it is surely so.
    total = np.bincount(labels.ravel(), minlength=count + 1)
    keep = np.bincount(labels[sure], minlength=count + 1) > SURE_SHARE * total
    keep[0] = False
    found: Mask = keep[labels]
    return found


def _density(image: Uint8Image) -> Floats:
    """Return the optical density [h, w, 3] against the glass of this image, natural log.

    It is not cut at 0, so that noise averages out. Glass is the median of what is bright and
    nearly grey; where there is none, white.
    """
    pixels = image.reshape(-1, 3)
    low, high = pixels.min(axis=1), pixels.max(axis=1)
    bright = (low > 200) & (high - low < 24)
    glass = np.full(3, 245.0, np.float32)
    if bright.mean() > 0.01:
        clear = pixels[bright & (low >= np.percentile(low[bright], 50))]
        glass = np.median(clear, axis=0).astype(np.float32)
    # Below 12 grey levels the camera's noise would decide the colour.
    light = np.maximum(image.astype(np.float32), 12.0)
    density: Floats = np.log(glass / light)
    return density


def _ink(density: Floats) -> Mask:
    """Return ink: green and blue let green light pass better than red, black is dark and grey.

    Stains of tissue absorb green at least nearly as well as red. Red ink is not told from blood.
    """
    smooth = ndimage.uniform_filter(density, (INK_PX, INK_PX, 1))
    red, green = smooth[..., 0], smooth[..., 1]
    high, low = smooth.max(axis=2), smooth.min(axis=2)
    coloured = (high > INK_DENSITY) & (green < 0.78 * red)
    grey = (high - low) / np.maximum(high, 1e-3)
    black = (low > 0.45) & (grey < 0.2) | (low > 1.5) & (grey < 0.35)
    ink = ndimage.binary_opening(coloured | black, structure=np.ones((3, 3)))
    labels, count = ndimage.label(ink)
    area = np.bincount(labels.ravel(), minlength=count + 1)
    keep = area >= 40
    keep[0] = False
    # The line's soft edge has too little colour of its own to be told.
    grown: Mask = ndimage.binary_dilation(keep[labels], structure=np.ones((3, 3)), iterations=2)
    return grown


def _clean(mask: Mask, smallest_px: float, hole_px: float) -> Mask:
    """Close gaps of a pixel or two, fill small holes, drop hair lines and small pieces."""
    wide = np.pad(mask, 3, mode="edge")
    closed = ndimage.binary_closing(wide, structure=_disc(2))[3:-3, 3:-3]
    holes, count = ndimage.label(~closed)
    area = np.bincount(holes.ravel(), minlength=count + 1)
    edge = np.unique(np.concatenate([holes[0], holes[-1], holes[:, 0], holes[:, -1]]))
    fill = area <= hole_px
    fill[edge] = False  # what reaches the edge of the slide is no hole
    fill[0] = False
    filled = closed | fill[holes]
    thick = ndimage.binary_opening(np.pad(filled, 3, mode="edge"), structure=_disc(1))[3:-3, 3:-3]
    pieces, count = ndimage.label(thick)
    area = np.bincount(pieces.ravel(), minlength=count + 1)
    keep = area >= smallest_px
    keep[0] = False
    kept: Mask = keep[pieces]
    return kept


def _disc(radius: int) -> Mask:
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    disc: Mask = x * x + y * y <= (radius + 0.5) ** 2
    return disc
