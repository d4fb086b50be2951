"""Geometry of the drawing tools: what a hand did -> a shape, in level-0 pixels.

Pure functions; which tool is in the hand, and what the screen shows meanwhile, is the window's.
Tolerances are given by the caller, who knows how large a pixel of the screen is on the slide.
"""

from __future__ import annotations

import math

import numpy as np
import shapely
from numpy.typing import ArrayLike, NDArray
from rasterio import features
from rasterio.transform import Affine
from scipy import ndimage
from shapely.geometry import LineString, MultiPoint, Point, Polygon
from skimage import color

from napari_histomil.annotations.edit import Areal, add_to, areal, mended, on_grid, subtract
from napari_histomil.annotations.model import Extra
from napari_histomil.errors import AnnotationError

ELLIPSE = Extra(geometry={"isEllipse": True})
"""Goes with the polygon of an ellipse: QuPath then shows and edits it as one."""

ELLIPSE_ERROR_PX0 = 0.25
"""How far the polygon of an ellipse may lie inside it."""

CIRCLE_QUARTER = 12
"""Segments of a quarter of the brush: 0.2 % of its radius from a circle."""

RUN = 16
"""So many steps of a brush are widened at once."""

WAND_CLOSING = 2
"""Gaps of so many pixels of the patch are closed in what the wand found."""


def freehand(path_px0: ArrayLike, tolerance_px0: float) -> Areal:
    """Return the polygon that a path goes round.

    Parameters
    ----------
    path_px0
        float [N, 2], (x, y); it is closed. Where it crosses itself, all that it goes round is
        inside.
    tolerance_px0
        How far the outline may lie from the path: a pixel of the screen.

    Raises
    ------
    AnnotationError
        If it goes round nothing.
    """
    path = _path(path_px0)
    if len(np.unique(path, axis=0)) < 3:
        raise AnnotationError("A polygon needs three different points.")
    outline = Polygon(path)
    simple = shapely.simplify(outline, tolerance_px0, preserve_topology=True)
    shape = simple if simple.area > 0 else outline
    return areal(mended(shape), "with an area")


def freehand_line(path_px0: ArrayLike, tolerance_px0: float) -> LineString:
    """Return the line that a path draws; see `freehand`.

    Raises
    ------
    AnnotationError
        If it has no length.
    """
    path = _path(path_px0)
    line = on_grid(shapely.simplify(LineString(path), tolerance_px0)) if len(path) > 1 else None
    if line is None or not line.length:
        raise AnnotationError("A line needs two different points.")
    return line


def points(positions_px0: ArrayLike) -> Point | MultiPoint:
    """Return one point, or several as one shape, of float [N, 2].

    Raises
    ------
    AnnotationError
        If there is none.
    """
    xy = _path(positions_px0)
    if not len(xy):
        raise AnnotationError("There is no point.")
    return on_grid(Point(xy[0]) if len(xy) == 1 else MultiPoint(xy))


def rectangle(a_px0: tuple[float, float], b_px0: tuple[float, float]) -> Polygon:
    """Return the rectangle between two opposite corners.

    Raises
    ------
    AnnotationError
        If it has no area.
    """
    (ax, ay), (bx, by) = a_px0, b_px0
    return areal(shapely.box(min(ax, bx), min(ay, by), max(ax, bx), max(ay, by)), "with an area")


def ellipse(a_px0: tuple[float, float], b_px0: tuple[float, float]) -> Polygon:
    """Return a polygon for the ellipse in the rectangle of two corners; see `ELLIPSE`.

    Its bounds are those of the ellipse, from which QuPath makes it again.

    Raises
    ------
    AnnotationError
        If it has no area.
    """
    x0, y0, x1, y1 = rectangle(a_px0, b_px0).bounds
    rx, ry = (x1 - x0) / 2, (y1 - y0) / 2
    # The chord of an angle t lies r (1 - cos(t / 2)) inside the circle.
    step = 2 * math.acos(max(0.0, 1 - ELLIPSE_ERROR_PX0 / max(rx, ry)))
    quarter = min(max(math.ceil(math.pi / 2 / step), 8), 256)
    angles = np.arange(4 * quarter) * (math.pi / 2 / quarter)
    xy = np.stack([x0 + rx + rx * np.cos(angles), y0 + ry + ry * np.sin(angles)], axis=1)
    xy[0, 0], xy[quarter, 1], xy[2 * quarter, 0], xy[3 * quarter, 1] = x1, y1, x0, y0
    return areal(Polygon(xy))


# --- brush -------------------------------------------------------------------------------------


def stroke(path_px0: ArrayLike, radius_px0: float) -> Areal:
    """Return what a round brush covers on its way.

    Parameters
    ----------
    path_px0
        float [N, 2]: where its centre went; one point is a dab.
    radius_px0
        Half its width.

    Raises
    ------
    AnnotationError
        If there is no path or no width.
    """
    path = _path(path_px0)
    if not len(path) or not radius_px0 > 0:
        raise AnnotationError("A brush needs a way and a width.")
    # A hand's tremor that is far below the brush's width would cost vertices and show nothing.
    way = shapely.get_coordinates(
        shapely.simplify(LineString(np.vstack([path, path[-1:]])), radius_px0 / 50)
    )
    round_runs = shapely.buffer(_onward_runs(way), radius_px0, quad_segs=CIRCLE_QUARTER)
    return areal(shapely.union_all(round_runs), "of the stroke")


def _onward_runs(way: NDArray[np.float64]) -> list[LineString]:
    """Cut a way wherever it turns back: no piece meets itself.

    GEOS 3.14 at times fills what a way that goes over itself goes round, and takes seconds for one
    of some thousand points.
    """
    steps = np.diff(way, axis=0)
    runs, start = [], 0
    for n in range(1, len(steps)):
        if steps[n] @ steps[start] <= 0 or n - start >= RUN:
            runs.append(LineString(way[start : n + 1]))
            start = n
    return [*runs, LineString(way[start:])]


def brushed(shape: Areal, painted: Areal, *, erase: bool = False) -> Areal:
    """Return a shape with a stroke added, or taken away.

    Raises
    ------
    AnnotationError
        If the shape is broken, or nothing is left.
    """
    return subtract(shape, painted) if erase else add_to(shape, painted)


# --- wand --------------------------------------------------------------------------------------


def wand(
    rgb: NDArray[np.uint8],
    seed_xy: tuple[float, float],
    tolerance: float,
    *,
    origin_px0: tuple[float, float],
    px0_per_pixel: float,
    smooth: float = 2.0,
) -> Areal:
    """Return the area of similar colour around a place of a picture.

    Method: distance in CIE Lab (CIE76) of the picture, smoothed by a Gaussian, to its colour at
    the seed; what is connected to the seed within the tolerance; narrow gaps closed.

    Parameters
    ----------
    rgb
        uint8 [height, width, 3]: the view around the pointer.
    seed_xy
        Where the pointer is, in pixels of the picture.
    tolerance
        Largest distance of a colour; 2 is just seen, 10 is another shade.
    origin_px0
        (x, y) of the picture's top left corner on the slide.
    px0_per_pixel
        Level-0 pixels that a pixel of the picture spans.
    smooth
        Standard deviation of the Gaussian in pixels of the picture; 0 for none.

    Raises
    ------
    AnnotationError
        If the seed is not in the picture.
    """
    height, width = rgb.shape[:2]
    column, row = math.floor(seed_xy[0]), math.floor(seed_xy[1])
    if not (0 <= row < height and 0 <= column < width):
        raise AnnotationError("The wand must begin inside the view.")
    blurred = ndimage.gaussian_filter(rgb.astype(np.float32) / 255, (smooth, smooth, 0))
    lab = color.rgb2lab(blurred)  # [height, width, 3]
    near = np.linalg.norm(lab - lab[row, column], axis=2) <= tolerance
    connected, _ = ndimage.label(near)
    found = connected == connected[row, column]
    padded = np.pad(found, WAND_CLOSING)  # else the closing eats what touches the border
    closed = ndimage.binary_closing(padded, iterations=WAND_CLOSING)
    inner = closed[WAND_CLOSING:-WAND_CLOSING, WAND_CLOSING:-WAND_CLOSING] | found
    place = Affine(px0_per_pixel, 0, origin_px0[0], 0, px0_per_pixel, origin_px0[1])
    outlines = features.shapes(inner.astype(np.uint8), mask=inner, transform=place)
    polygons = [shapely.geometry.shape(outline) for outline, _ in outlines]
    # Stairs of single pixels are the grid's, not the tissue's.
    steps = shapely.simplify(shapely.union_all(polygons), 0.75 * px0_per_pixel)
    return areal(mended(steps))


def _path(path_px0: ArrayLike) -> NDArray[np.float64]:
    path = np.asarray(path_px0, dtype=np.float64).reshape(-1, 2)
    if not np.isfinite(path).all():
        raise AnnotationError("A place of the path is not a number.")
    return path
