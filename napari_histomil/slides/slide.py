"""What a slide is to the rest of the program: facts (`SlideInfo`) and pixels (`Slide`).

Opening files lives in `readers.py`; a slide itself knows nothing of tissue, models or viewers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import numpy as np

from napari_histomil.errors import MissingMppError, SlideError
from napari_histomil.geometry import Rect, choose_level
from napari_histomil.slides.resample import Uint8Image as Uint8Image  # for all who import a slide
from napari_histomil.slides.resample import area_mean, enlarge, reduce_whole

MAX_REGION_PX = 1 << 30
"""A single read may return this many pixels (3 GiB); a larger one is a mistake."""

BAND_PX = 1 << 24
"""Pixels of a level that are read at once to be averaged (48 MiB)."""

SNAP_PX = 1e-3
"""Edges this close to a whole pixel are on it: products of µm/px are never exact."""


@dataclass(frozen=True, slots=True)
class Level:
    """One stored resolution of a slide."""

    width: int
    height: int
    downsample: float
    """Level-0 pixels that one pixel of this level spans (mean of both axes, as OpenSlide's)."""
    tile_width: int
    tile_height: int


@dataclass(frozen=True, slots=True)
class SlideInfo:
    """All that is known of a slide without reading its pixels."""

    path: Path
    reader: str
    """Which reader opened it, one of `napari_histomil.slides.READER_NAMES`."""
    vendor: str
    width_px0: int
    height_px0: int
    mpp_x: float | None
    """Micrometres that one level-0 pixel spans along x; None if unknown."""
    mpp_y: float | None
    mpp_source: str | None
    """Where the µm/px come from: ``file``, ``given`` or ``remembered``; None if unknown."""
    objective_power: float | None
    levels: tuple[Level, ...]
    channels: tuple[str, ...]
    dtype: str
    composite: str
    """How RGB is made of the channels, in words; ``""`` where the file holds 8-bit RGB."""
    bounds_px0: Rect | None
    """Part of the slide that the scanner filled, where the file says so."""
    associated_images: tuple[str, ...]
    properties: Mapping[str, str]
    fingerprint: str
    """Identifies the content whatever the file is called: 64 hexadecimal digits."""
    icc_profile: str = ""
    """What the colour profile of the file calls itself; ``""`` where it has none."""
    icc_applied: bool = False
    """Whether pixels come in sRGB by that profile, not as they are stored."""

    @property
    def mpp_xy(self) -> tuple[float, float]:
        """Micrometres a level-0 pixel along (x, y).

        Raises
        ------
        MissingMppError
            If the slide does not say and nobody has said it for the slide.
        """
        if self.mpp_x is None or self.mpp_y is None:
            raise MissingMppError(
                f"{self.path.name} does not say how many µm one pixel spans: give it with "
                f"--slide-mpp, or in the Slide dock (0.25 is common for 40x, 0.5 for 20x)."
            )
        return self.mpp_x, self.mpp_y

    @property
    def mpp(self) -> float:
        """Mean of `mpp_xy`; raises `MissingMppError` as it does."""
        mpp_x, mpp_y = self.mpp_xy
        return (mpp_x + mpp_y) / 2

    @property
    def downsamples(self) -> tuple[float, ...]:
        """Downsample of each level against level 0."""
        return tuple(level.downsample for level in self.levels)

    @property
    def rect_px0(self) -> Rect:
        """The whole slide."""
        return Rect(0, 0, self.width_px0, self.height_px0)


class Slide(Protocol):
    """An open slide. All methods may be called from several threads at once."""

    @property
    def info(self) -> SlideInfo:
        """The slide's facts."""

    def read_region(
        self, xy_px0: tuple[int, int], level: int, size: tuple[int, int]
    ) -> Uint8Image:
        """Read a rectangle of one level, with OpenSlide's argument order and meaning.

        Parameters
        ----------
        xy_px0
            Top-left corner (x, y) in **level-0** pixels; may lie outside the slide. A corner
            belongs to pixel ``round(xy_px0 / downsample)`` of the level, so
            ``round(k * downsample)`` asks for pixel k. Between two pixels OpenSlide's own
            reader interpolates, the others take the nearest.
        level
            Index into ``info.levels``.
        size
            (width, height) in pixels **of that level**.

        Returns
        -------
        uint8 array [height, width, 3]
            RGB; white outside the slide.

        Raises
        ------
        SlideError
            If the file cannot be decoded there (the message names file, position and level),
            if the level does not exist, or if the size is negative or beyond `MAX_REGION_PX`.
        """

    def read_associated(self, name: str) -> Uint8Image:
        """Read an associated image (label, macro, thumbnail), uint8 [h, w, 3]."""

    def close(self) -> None:
        """Release the file. Reading afterwards raises `SlideError`."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


def check_region(
    info: SlideInfo, xy_px0: tuple[int, int], level: int, size: tuple[int, int]
) -> None:
    """Refuse what `Slide.read_region` cannot answer; every reader calls it first.

    Raises
    ------
    SlideError
        If the level does not exist, a side is negative, or the size is beyond `MAX_REGION_PX`.
    """
    if not 0 <= level < len(info.levels):
        raise SlideError(
            f"{info.path.name} has no level {level}: its levels are 0 to {len(info.levels) - 1}."
        )
    if min(size) < 0 or size[0] * size[1] > MAX_REGION_PX:
        raise SlideError(
            f"A region of {size[0]} x {size[1]} px cannot be read from {info.path.name} at "
            f"({xy_px0[0]}, {xy_px0[1]}) of level {level}: read it in smaller pieces."
        )


def axis_factors(info: SlideInfo, level: int) -> tuple[float, float]:
    """Return the level-0 pixels that a pixel of the level really spans, along (x, y).

    Scanners cut off or round the last column, so 2967 px become 741: that is a factor of 4, not
    of 4.004. Where a whole number explains the size it is taken, else the ratio of the sizes.
    """
    stored = info.levels[level]
    pairs = ((info.width_px0, stored.width), (info.height_px0, stored.height))
    power = 2 ** round(math.log2(stored.downsample))
    for whole in (power, round(stored.downsample)):
        if all(abs(size0 / whole - size) < 1 for size0, size in pairs):
            return float(whole), float(whole)
    return pairs[0][0] / pairs[0][1], pairs[1][0] / pairs[1][1]


def read_rect(
    slide: Slide,
    xy_px0: tuple[float, float],
    size_px0: tuple[float, float],
    out_size: tuple[int, int],
) -> Uint8Image:
    """Read any rectangle of the slide at any size, area-averaged from the best level.

    The rectangle may have fractional edges: an output pixel is the mean of exactly the area it
    covers, right to half a grey level, so neighbouring tiles neither overlap nor leave gaps.
    Where the slide has no level fine enough, pixels are interpolated bilinearly.

    Parameters
    ----------
    xy_px0, size_px0
        Top-left corner (x, y) and (width, height) of the rectangle in level-0 pixels; parts
        outside the slide are white.
    out_size
        (width, height) of the result in pixels.

    Returns
    -------
    uint8 array [height, width, 3]

    Raises
    ------
    SlideError
        If a side is not positive, or the slide cannot be read there.
    """
    if min(*size_px0, *out_size) <= 0:
        raise SlideError(
            f"{slide.info.path.name} cannot be read as {out_size[0]} x {out_size[1]} px from "
            f"{size_px0[0]:g} x {size_px0[1]:g} px: all sides must be above 0."
        )
    wanted = min(size_px0[0] / out_size[0], size_px0[1] / out_size[1])
    index = choose_level(slide.info.downsamples, wanted)
    factors = axis_factors(slide.info, index)
    # All from here on is in pixels of the level.
    corner = [xy_px0[a] / factors[a] for a in (0, 1)]
    size = [size_px0[a] / factors[a] for a in (0, 1)]
    ratio = [size[a] / out_size[a] for a in (0, 1)]
    if size[0] * size[1] > BAND_PX and max(out_size) > 1:
        return _read_halves(slide, xy_px0, size_px0, out_size)
    whole = round(ratio[0])
    on_pixels = all(
        abs(corner[a] - round(corner[a])) < SNAP_PX
        and abs(size[a] - whole * out_size[a]) < SNAP_PX
        for a in (0, 1)
    )
    if on_pixels:  # also the common case, and quick
        x, y = (round(corner[a]) for a in (0, 1))
        pixels = _read_level(slide, index, (x, y), (whole * out_size[0], whole * out_size[1]))
        return pixels if whole == 1 else reduce_whole(pixels, whole)
    enlarging = min(ratio) < 1
    margin = 1 if enlarging else 0  # a bilinear pixel looks at its neighbours
    start = [math.floor(corner[a] + SNAP_PX) - margin for a in (0, 1)]
    stop = [math.ceil(corner[a] + size[a] - SNAP_PX) + margin for a in (0, 1)]
    read_size = [max(stop[a] - start[a], 1) for a in (0, 1)]
    pixels = _read_level(slide, index, (start[0], start[1]), (read_size[0], read_size[1]))
    resize = enlarge if enlarging else area_mean
    return resize(
        pixels,
        (max(corner[0] - start[0], 0.0), max(corner[1] - start[1], 0.0)),
        (size[0], size[1]),
        out_size,
    )


def _read_halves(
    slide: Slide,
    xy_px0: tuple[float, float],
    size_px0: tuple[float, float],
    out_size: tuple[int, int],
) -> Uint8Image:
    """Read a rectangle in two parts along its longer side, to keep memory bounded."""
    axis = 0 if out_size[0] >= out_size[1] else 1
    cut = out_size[axis] // 2
    parts = []
    for first, count in ((0, cut), (cut, out_size[axis] - cut)):
        xy, size, out = list(xy_px0), list(size_px0), list(out_size)
        xy[axis] += size_px0[axis] * first / out_size[axis]
        size[axis] *= count / out_size[axis]
        out[axis] = count
        parts.append(read_rect(slide, (xy[0], xy[1]), (size[0], size[1]), (out[0], out[1])))
    return np.concatenate(parts, axis=1 - axis)


def _read_level(
    slide: Slide, index: int, xy: tuple[int, int], size: tuple[int, int]
) -> Uint8Image:
    """Read a rectangle whose corner is counted in the level's own pixels."""
    downsample = slide.info.levels[index].downsample  # read_region counts by this one number
    return slide.read_region((round(xy[0] * downsample), round(xy[1] * downsample)), index, size)


def read_tile(slide: Slide, xy_px0: tuple[float, float], size_px: int, mpp: float) -> Uint8Image:
    """Read a square tile at a resolution, area-averaged from the best level.

    Parameters
    ----------
    xy_px0
        Top-left corner (x, y) in level-0 pixels.
    size_px
        Side of the result in pixels.
    mpp
        Resolution of the result in µm/px.

    Returns
    -------
    uint8 array [size_px, size_px, 3]

    Raises
    ------
    MissingMppError
        If the slide's own µm/px are unknown.
    """
    mpp_x, mpp_y = slide.info.mpp_xy
    size_px0 = (size_px * mpp / mpp_x, size_px * mpp / mpp_y)
    return read_rect(slide, xy_px0, size_px0, (size_px, size_px))
