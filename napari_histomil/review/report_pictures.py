"""The pictures of a report: a slide with its outcomes, its worst errors, each with a scale bar."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from napari_histomil.geometry import choose_level
from napari_histomil.heatmaps.scores import hottest
from napari_histomil.review.outcome_map import (
    FALSE_NEGATIVE,
    FALSE_POSITIVE,
    UNKNOWN,
    SlideOutcome,
)
from napari_histomil.slides.glass import from_afar
from napari_histomil.slides.slide import Slide, Uint8Image, read_rect

OVERVIEW_PX = 1000
"""Longer side of the picture of a slide."""

PATCH_PX = 224
PATCH_UM = 224.0
"""Side of a patch, so that it is seen at 10x."""

APART_UM = 300.0
"""No two patches lie nearer, so that one place does not fill the page."""

COLOURS = np.array(
    [(0, 0, 0, 0), (0, 158, 115, 150), (230, 159, 0, 170), (213, 0, 94, 170), (0, 0, 0, 0)],
    np.uint8,
)
"""RGBA of each outcome; what is rightly called negative is left as it is."""

OUTCOME_NAMES = ("true positive", "false positive", "false negative")


@dataclass(frozen=True, slots=True)
class Patch:
    """One place of a slide."""

    jpeg: bytes = field(repr=False)
    score: float
    kind: str
    """``false positive`` or ``false negative``."""
    xy_px0: tuple[float, float]
    """Its middle."""


@dataclass(frozen=True, slots=True)
class SlidePictures:
    """What is shown of one slide."""

    overview: bytes = field(repr=False)
    """JPEG: the slide with its outcomes."""
    patches: tuple[Patch, ...]


def slide_pictures(
    slide: Slide, outcome: SlideOutcome, threshold: float, *, most: int = 4
) -> SlidePictures:
    """Return the pictures of a slide.

    Parameters
    ----------
    slide
        Open; its µm/px are known.
    outcome
        Of a run of it.
    threshold
        Called positive from here on.
    most
        Patches of each kind of error, at most.

    Raises
    ------
    SlideError
        If it cannot be read.
    """
    codes = outcome.outcome(threshold)
    patches = []
    for kind, code, sign in (
        ("false positive", FALSE_POSITIVE, 1.0),
        ("false negative", FALSE_NEGATIVE, -1.0),
    ):
        values = np.where(codes == code, sign * outcome.score, np.nan)
        chosen = hottest(outcome.grid, values, count=most, min_distance_um=APART_UM)
        rects = outcome.grid.cell_rects_px0[chosen]
        middles = rects[:, :2] + rects[:, 2:] / 2
        for tile, (x, y) in zip(chosen.tolist(), middles.tolist(), strict=True):
            patches.append(Patch(_patch(slide, (x, y)), float(outcome.score[tile]), kind, (x, y)))
    return SlidePictures(_overview(slide, outcome.picture(threshold)), tuple(patches))


def _overview(slide: Slide, codes: NDArray[np.uint8]) -> bytes:
    info = slide.info
    size0 = info.width_px0, info.height_px0
    shrink = max(max(size0) / OVERVIEW_PX, 1.0)
    size = max(round(size0[0] / shrink), 1), max(round(size0[1] / shrink), 1)
    level = choose_level(info.downsamples, shrink)
    seen = from_afar(slide, level, shrink / info.downsamples[level])
    base = Image.fromarray(read_rect(seen, (0, 0), size0, size)).convert("RGBA")
    colours = Image.fromarray(COLOURS[codes]).resize(size, Image.Resampling.NEAREST)
    if (codes != UNKNOWN).any():
        base.alpha_composite(colours)
    picture = base.convert("RGB")
    draw_scale_bar(picture, info.mpp * shrink)
    return jpeg(np.asarray(picture))


def _patch(slide: Slide, middle_px0: tuple[float, float]) -> bytes:
    mpp_x, mpp_y = slide.info.mpp_xy
    size0 = PATCH_UM / mpp_x, PATCH_UM / mpp_y
    corner = middle_px0[0] - size0[0] / 2, middle_px0[1] - size0[1] / 2
    picture = Image.fromarray(read_rect(slide, corner, size0, (PATCH_PX, PATCH_PX)))
    draw_scale_bar(picture, PATCH_UM / PATCH_PX)
    return jpeg(np.asarray(picture))


def draw_scale_bar(picture: Image.Image, mpp: float) -> float:
    """Draw a scale bar into the lower left corner; returns its length in µm.

    Parameters
    ----------
    picture
        RGB, changed in place.
    mpp
        µm that one of its pixels spans.
    """
    um = round_length(picture.width * mpp / 4)
    width, height = um / mpp, max(picture.height // 120, 3)
    left, bottom = picture.width // 40 + 2, picture.height - picture.height // 40 - 4
    words = f"{um / 1000:g} mm" if um >= 1000 else f"{um:g} µm"
    font = _font(max(picture.height // 40, 12))
    draw = ImageDraw.Draw(picture)
    box = draw.textbbox((left, bottom - height - 4), words, font=font, anchor="ls")
    draw.rectangle(
        (left - 5, box[1] - 4, max(left + width, box[2]) + 5, bottom + 4), fill=(255, 255, 255)
    )
    draw.rectangle((left, bottom - height, left + width, bottom), fill=(0, 0, 0))
    draw.text((left, bottom - height - 4), words, fill=(0, 0, 0), font=font, anchor="ls")
    return um


def _font(size_px: int) -> ImageFont.FreeTypeFont:
    """Return a font that has µ, which Pillow's own has not: matplotlib brings one."""
    from matplotlib import get_data_path

    return ImageFont.truetype(
        str(Path(get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")), size_px
    )


def round_length(um: float) -> float:
    """Return the longest of 1, 2, 5 times a power of 10 that is not longer."""
    power = 10.0 ** math.floor(math.log10(um))
    return max(power * m for m in (1, 2, 5) if power * m <= um * (1 + 1e-9))


def jpeg(pixels: Uint8Image) -> bytes:
    """Return pixels [h, w, 3] as a JPEG."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=88)
    return stream.getvalue()
