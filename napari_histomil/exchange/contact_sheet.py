"""Patches of a slide on one sheet, each with its number, value and place, as a PNG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from napari_histomil.files import whole_file
from napari_histomil.slides.slide import Uint8Image

PATCH_PX = 256
"""Side of a patch on the sheet."""

GAP_PX, MARGIN_PX = 14, 20
TEXT_PX = 15
LINE_PX = 20

MOST_COLUMNS = 5
INK, PAPER, EDGE = (20, 20, 20), (255, 255, 255), (190, 190, 190)


@dataclass(frozen=True, slots=True)
class SheetPatch:
    """One patch of a sheet."""

    pixels: Uint8Image = field(repr=False)
    """[h, w, 3]."""
    lines: tuple[str, ...]
    """What stands below it."""


def write_contact_sheet(
    path: Path, patches: Sequence[SheetPatch], heading: Sequence[str]
) -> tuple[int, int]:
    """Write patches on one sheet.

    Parameters
    ----------
    path
        A ``.png``.
    patches
        The patches, in the order in which they are read.
    heading
        Lines above them: slide, model, what is shown.

    Returns
    -------
    (width, height) of the picture

    Raises
    ------
    OutputError
        If the file cannot be written there.
    """
    sheet = _drawn(patches, heading)
    with whole_file(path) as part:
        sheet.save(part, format="PNG", dpi=(150, 150))
    return sheet.size


def _drawn(patches: Sequence[SheetPatch], heading: Sequence[str]) -> Image.Image:
    columns = max(min(len(patches), MOST_COLUMNS), 1)
    rows = math.ceil(len(patches) / columns)
    lines = max((len(patch.lines) for patch in patches), default=0)
    high = PATCH_PX + lines * LINE_PX + GAP_PX
    font, bold = _font("DejaVuSans.ttf"), _font("DejaVuSans-Bold.ttf")
    top = MARGIN_PX + len(heading) * LINE_PX + GAP_PX
    wide = columns * PATCH_PX + (columns - 1) * GAP_PX
    words = max((math.ceil(font.getlength(line)) for line in heading), default=0)
    size = (max(wide, words) + 2 * MARGIN_PX, top + rows * high + MARGIN_PX - GAP_PX)
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    for n, line in enumerate(heading):
        draw.text((MARGIN_PX, MARGIN_PX + n * LINE_PX), line, INK, font if n else bold)
    for n, patch in enumerate(patches):
        x = MARGIN_PX + n % columns * (PATCH_PX + GAP_PX)
        y = top + n // columns * high
        picture = Image.fromarray(np.ascontiguousarray(patch.pixels))
        picture.thumbnail((PATCH_PX, PATCH_PX))  # keeps the shape of what is not square
        sheet.paste(picture, (x, y))
        draw.rectangle((x, y, x + picture.width - 1, y + picture.height - 1), outline=EDGE)
        for k, line in enumerate(patch.lines):
            draw.text((x, y + PATCH_PX + 3 + k * LINE_PX), line, INK, font if k else bold)
    return sheet


def _font(name: str) -> ImageFont.FreeTypeFont:
    """Return a font that is on every machine: Matplotlib brings it along."""
    import matplotlib

    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name, TEXT_PX)
