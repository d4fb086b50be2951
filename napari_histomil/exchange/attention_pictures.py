"""What a MIL model looked at as pictures: a TIFF that ASAP lays over a slide, a PNG for people."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tifffile

from napari_histomil.errors import RunError
from napari_histomil.exchange.attention import VALUES, Floats, Shown, origin, slide_size
from napari_histomil.exchange.rasters import (
    OPACITY,
    PNG_LONG_SIDE_PX,
    TIFF_TILE_PX,
    draw_scale_bar,
    save_png,
)
from napari_histomil.files import whole_file
from napari_histomil.results.segmentation import sum_of_four
from napari_histomil.slides.slide import Slide, read_rect

ASAP_SUFFIX = "_likelihood_map.tif"
"""ASAP shows ``<slide's name without suffix>_likelihood_map.tif`` beside a slide by itself."""

PIXELS_A_TILE = 4
"""Tiles that fit no grid are drawn on pixels of a quarter of their side."""


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """Values as a picture over the slide, from its corner on."""

    image: Floats = field(repr=False)
    """float32 [rows, columns], NaN where no tile is."""
    pixel_px0: tuple[float, float]
    """(width, height) of a pixel, level-0 px."""


def picture(shown: Shown, values: Floats) -> Picture:
    """Lay values [M] of a map's tiles out.

    On one of our grids a pixel is a cell. Tiles of others are drawn as their footprints, rounded
    to a quarter of a tile; where they overlap the mean counts.
    """
    level, index = shown.level, shown.map.index
    if level.grid is not None:
        cells = level.grid.cells[index]
        rows, columns = np.maximum(level.grid.shape, cells.max(axis=0) + 1)
        image = np.full((int(rows), int(columns)), np.nan, np.float32)
        image[cells[:, 0], cells[:, 1]] = values
        rows, columns = level.grid.shape  # children of tiles at the edge lie beyond the slide
        return Picture(image[:rows, :columns], level.grid.cell_size_px0)
    pixel = np.array(level.side_px0) / PIXELS_A_TILE
    corners = np.rint(level.xy_px0[index] / pixel).astype(np.int64)
    corners = np.maximum(corners, 0)
    size = slide_size(shown)
    shape = corners.max(axis=0) + PIXELS_A_TILE
    if size is not None:
        shape = np.maximum(shape, np.ceil(np.array(size) / pixel).astype(np.int64))
    sums, counts = np.zeros(shape[::-1]), np.zeros(shape[::-1], np.int32)
    for dy in range(PIXELS_A_TILE):
        for dx in range(PIXELS_A_TILE):
            place = corners[:, 1] + dy, corners[:, 0] + dx
            np.add.at(sums, place, values)
            np.add.at(counts, place, 1)
    means = np.full(sums.shape, np.nan)
    np.divide(sums, counts, out=means, where=counts > 0)
    return Picture(means.astype(np.float32), (float(pixel[0]), float(pixel[1])))


def write_tiff(shown: Shown, path: Path, values: str = "rank") -> tuple[int, int]:
    """Write a map as a tiled, pyramidal float32 TIFF that ASAP lays over the slide by itself.

    ASAP takes the whole number of slide pixels per pixel of the map from both sizes, and colours
    values of 0 to 1: a pixel is so many slide pixels here, an eighth of a tile or less, and 0
    stands where no tile is. Tiles' edges are rounded by at most half a pixel.

    Parameters
    ----------
    shown
        The map.
    path
        Where; ``<slide without suffix>_likelihood_map.tif`` for ASAP.
    values
        A name of `VALUES`; ``rank`` lies in 0 to 1.

    Returns
    -------
    (rows, columns)

    Raises
    ------
    RunError
        If nobody knows the slide's size, or the model has no such values.
    OutputError
        If the file cannot be written there.
    """
    size = slide_size(shown)
    if size is None:
        raise RunError(
            f"Nobody knows how large the slide of {shown.run.path.name} is: run the model again "
            f"with the slide beside its features."
        )
    step = _step_px0(size, shown.level.side_px0)
    columns, rows = size[0] // step, size[1] // step
    made = picture(shown, shown.values(values))
    at = [
        np.minimum(((np.arange(count) + 0.5) * step / pixel).astype(np.int64), side - 1)
        for count, pixel, side in zip(
            (rows, columns), made.pixel_px0[::-1], made.image.shape, strict=True
        )
    ]
    level = np.nan_to_num(made.image[np.ix_(*at)], nan=0.0)
    levels = [level]
    while max(level.shape) > TIFF_TILE_PX:
        level = np.pad(level, [(0, side % 2) for side in level.shape], mode="edge")
        level = sum_of_four(level[None].astype(np.float64))[0].astype(np.float32) / 4
        levels.append(level)
    mpp = shown.run.slide.get("mpp_xy")
    with whole_file(path) as part, tifffile.TiffWriter(part) as tiff:
        for index, each in enumerate(levels):
            resolution = (
                {
                    "resolution": tuple(1e4 / (m * step * 2**index) for m in mpp),
                    "resolutionunit": "CENTIMETER",
                }
                if mpp is not None
                else {}
            )
            tiff.write(
                np.ascontiguousarray(each),
                photometric="minisblack",
                tile=(TIFF_TILE_PX, TIFF_TILE_PX),
                compression="lzw",
                subfiletype=int(index > 0),
                metadata=None,
                description=json.dumps({**origin(shown.run), "values": VALUES[values]})
                if index == 0
                else None,
                **resolution,
            )
    return rows, columns


def _step_px0(size: tuple[int, int], side_px0: tuple[float, float]) -> int:
    """Return how many slide pixels a pixel of the map has: ASAP divides sizes without rest.

    It finds the same number again only where what is cut off is less than a pixel each.
    """
    step = max(int(min(side_px0) / PIXELS_A_TILE / 2), 1)
    while step > 1 and any(side // max(side // step, 1) != step for side in size):
        step -= 1
    return step


def write_png(shown: Shown, path: Path, slide: Slide | None = None, values: str = "rank") -> None:
    """Write a map over the slide as a picture for people, with a colour bar and the answer.

    Parameters
    ----------
    shown
        The map.
    path
        Where.
    slide
        The slide; without it the map alone is drawn.
    values
        A name of `VALUES`. Contributions are drawn diverging around 0.

    Raises
    ------
    RunError
        If the model has no such values, or `slide` is another slide.
    OutputError
        If the file cannot be written there.
    """
    # The object-oriented interface: pyplot would look for a display and keep every figure.
    from matplotlib.figure import Figure

    run = shown.run
    if slide is not None and run.slide["fingerprint"] not in ("", slide.info.fingerprint):
        raise RunError(
            f"{slide.info.path.name} is not the slide of this run ({run.slide['name']}): its "
            f"content is different."
        )
    made = picture(shown, shown.values(values))
    pixel_x, pixel_y = made.pixel_px0
    extent = made.image.shape[1] * pixel_x, made.image.shape[0] * pixel_y
    width, height = (
        slide_size(shown) or extent
        if slide is None
        else (slide.info.width_px0, slide.info.height_px0)
    )
    longest = max(width, height)
    size = (
        max(round(PNG_LONG_SIDE_PX * width / longest), 1),
        max(round(PNG_LONG_SIDE_PX * height / longest), 1),
    )
    figure = Figure(
        figsize=(max(size[0] / 200, 3) + 1.2, max(size[1] / 200, 2) + 1.4),
        dpi=200,
        layout="constrained",
    )
    axes = figure.add_subplot()
    mpp = run.slide.get("mpp_xy")
    um_x, um_y = mpp or (1.0, 1.0)  # without a scale pixels are drawn, and no bar
    if slide is not None:
        over = read_rect(slide, (0, 0), (width, height), size)
        axes.imshow(over, extent=(0, width * um_x, height * um_y, 0))
    known = made.image[np.isfinite(made.image)]
    most = float(np.abs(known).max()) if known.size else 1.0
    limits = {
        "rank": (0.0, 1.0),
        "contribution": (-most, most),
    }.get(values, (float(known.min()) if known.size else 0.0, float(known.max(initial=0.0))))
    image = axes.imshow(
        np.ma.masked_invalid(made.image),
        extent=(0, extent[0] * um_x, extent[1] * um_y, 0),
        vmin=limits[0],
        vmax=limits[1],
        cmap="RdBu_r" if values == "contribution" else "viridis",
        alpha=OPACITY if slide is not None else 1,
        interpolation="nearest",
    )
    axes.set(xlim=(0, width * um_x), ylim=(height * um_y, 0), xticks=[], yticks=[])
    bar = figure.colorbar(image, cax=axes.inset_axes((1.02, 0, 0.04, 1)))
    assert bar.solids is not None
    bar.solids.set(alpha=1)  # the colours of the map itself, not mixed with white
    answer = ", ".join(
        f"{name} {p:.3f}"
        for name, p in zip(run.class_names, run.answer.probabilities, strict=True)
    )
    about = f" of {shown.class_name}" if values == "contribution" or _a_row_a_class(shown) else ""
    title = f"{run.slide['name']}\n{run.model['name']}: {answer}"
    if values == "rank":
        title += "\nhot = highest in this slide; says nothing about presence"
    axes.set_title(title, fontsize=8, parse_math=False)
    bar.set_label(f"{shown.map.kind}{about}, {values}", parse_math=False)
    if mpp:
        draw_scale_bar(axes, width * um_x, height * um_y)
    save_png(figure, path, title, origin(run))


def _a_row_a_class(shown: Shown) -> bool:
    found = shown.map.value if shown.map.value is not None else shown.map.raw
    return found is not None and len(found) > 1
