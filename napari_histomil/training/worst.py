"""The worst errors as one picture: what was so, what was said, on the tissue itself.

Of every field the place with the largest cross-entropy is a candidate, so that one hard picture
does not fill the sheet. A classifier's cell is shown in its tile; of a segmentation a square with
the outlines of truth and answer.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from napari_histomil.files import whole_file
from napari_histomil.training.answers import AnyAnswers
from napari_histomil.training.asking import Described
from napari_histomil.training.cells import Answers
from napari_histomil.training.fields import UNLABELLED, Field, Uint8
from napari_histomil.training.pixels import WINDOW_PX, PixelAnswers

MOST = 12
"""Panels of a sheet."""

COLUMNS = 4
PANEL_PX = 288
GAP_PX = 14
TEXT_PX = 40
HEAD_PX = 46

TRUTH, ANSWER = (0, 225, 235), (255, 214, 0)
"""Cyan and yellow: neither is a colour of H&E, and colour-blind readers tell them apart."""

INK, PAPER = (30, 30, 34), (255, 255, 255)

QUALITY = 88

Font = ImageFont.FreeTypeFont

LENGTHS_UM = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000)


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """One place, and what was said about it."""

    field: str
    group: str
    xy_px: tuple[int, int]
    """First pixel shown, in the field."""
    size_px: int
    loss: float
    truth: str
    answer: str
    said: Uint8 | None = None
    """Of a segmentation: [h, w], likeliest class of each pixel."""


@dataclass(frozen=True, slots=True, eq=False)
class Sheet:
    """The picture of the worst errors, and what it shows."""

    jpeg: bytes
    facts: tuple[dict[str, Any], ...]
    """Of each panel, as JSON takes it."""

    def write(self, path: Path) -> None:
        """Write the picture.

        Raises
        ------
        OutputError
            If that cannot be done.
        """
        with whole_file(path) as part:
            part.write_bytes(self.jpeg)


def worst_sheet(
    model: Described, answers: AnyAnswers, fields: Sequence[Field], *, most: int = MOST
) -> Sheet | None:
    """Draw the worst answers about some fields; None if none of them was asked about.

    Parameters
    ----------
    model
        What was asked.
    answers
        Of one training.
    fields
        Those that may be shown (`Source.examples`); answers about others are passed over.
    most
        Panels at most.
    """
    where = {(f.name, f.group): f for f in fields}
    segments = isinstance(answers, PixelAnswers)
    candidates = _spots(answers) if isinstance(answers, PixelAnswers) else _cells(model, answers)
    shown = [e for e in candidates if (e.field, e.group) in where]
    shown = sorted(shown, key=lambda e: -e.loss)[:most]
    if not shown:
        return None
    panels = [_panel(model, e, where[e.field, e.group]) for e in shown]
    facts = tuple(
        {
            "field": e.field,
            "xy_px": list(e.xy_px),
            "size_px": e.size_px,
            "loss": round(e.loss, 4),
            "truth": e.truth,
            "answer": e.answer,
        }
        for e in shown
    )
    stream = io.BytesIO()
    _sheet(panels, shown, segments=segments).save(stream, "JPEG", quality=QUALITY)
    return Sheet(stream.getvalue(), facts)


def _cells(model: Described, answers: Answers) -> list[Example]:
    losses, chances = answers.losses, answers.probabilities()
    names, grid = [c.name for c in model.classes], model.grid
    edge = (grid.tile_px - grid.stride_px) // 2
    found = []
    for key in np.unique(np.stack([answers.field, answers.group]), axis=1).T:
        own = np.flatnonzero((answers.field == key[0]) & (answers.group == key[1]))
        row = own[losses[own].argmax()]
        true, said = int(answers.shares[row].argmax()), int(chances[row].argmax())
        x, y = (int(v) - edge for v in answers.xy_px[row])
        found.append(
            Example(
                str(answers.field[row]),
                str(answers.group[row]),
                (x, y),
                grid.tile_px,
                float(losses[row]),
                f"{names[true]} {100 * answers.shares[row, true]:.0f} %",
                f"{names[said]} {100 * chances[row, said]:.0f} %",
            )
        )
    return found


def _spots(answers: PixelAnswers) -> list[Example]:
    return [
        Example(s.field, s.group, s.xy_px, WINDOW_PX, s.loss, "", "", s.answer)
        for s in answers.worst
    ]


def _panel(model: Described, example: Example, field: Field) -> Image.Image:
    """Draw one place with outlines and a scale bar."""
    pixels, labels = field.cut(example.xy_px, example.size_px)
    if example.said is not None:  # at a field's end there is less than a whole square
        height, width = example.said.shape
        pixels, labels = pixels[:height, :width], labels[:height, :width]
    pixels = pixels[..., :3]  # a refiner's heatmap is not shown
    zoom = PANEL_PX / max(pixels.shape[:2])
    size = round(pixels.shape[1] * zoom), round(pixels.shape[0] * zoom)
    image = np.array(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))
    if example.said is not None:
        said = np.where(labels == UNLABELLED, UNLABELLED, example.said)
        _outline(image, said, ANSWER, known=labels)
        _outline(image, labels, TRUTH, known=labels)
    panel = Image.new("RGB", (PANEL_PX, PANEL_PX), PAPER)
    panel.paste(Image.fromarray(image), (0, 0))
    draw = ImageDraw.Draw(panel)
    if example.said is None:
        edge = (model.grid.tile_px - model.grid.stride_px) // 2 * zoom
        box = (edge, edge, edge + model.grid.stride_px * zoom, edge + model.grid.stride_px * zoom)
        draw.rectangle(box, outline=INK, width=4)
        draw.rectangle([box[0] + 1, box[1] + 1, box[2] - 1, box[3] - 1], outline=PAPER, width=2)
    _scale_bar(draw, model.grid.mpp / zoom)
    return panel


def _outline(
    image: Uint8, labels: NDArray[Any], color: tuple[int, int, int], *, known: Uint8
) -> None:
    """Draw the edges between classes, two pixels wide on a dark seam, into an enlarged image."""
    height, width = image.shape[:2]
    rows = (np.arange(height) * labels.shape[0]) // height
    columns = (np.arange(width) * labels.shape[1]) // width
    big, sure = labels[rows][:, columns], (known != UNLABELLED)[rows][:, columns]
    edge = np.zeros((height, width), bool)
    edge[1:] |= (big[1:] != big[:-1]) & sure[1:] & sure[:-1]
    edge[:, 1:] |= (big[:, 1:] != big[:, :-1]) & sure[:, 1:] & sure[:, :-1]
    line = _grown(edge)
    seam = _grown(_grown(line)) & ~line
    image[seam] = image[seam] // 2
    image[line] = color


def _grown(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return a mask with its neighbours above and to the left."""
    grown = mask.copy()
    grown[:-1] |= mask[1:]
    grown[:, :-1] |= mask[:, 1:]
    return grown


def _scale_bar(draw: ImageDraw.ImageDraw, um_per_px: float) -> None:
    """Draw a bar of a round length, about a quarter of the panel, with its length in µm."""
    room = PANEL_PX / 3 * um_per_px
    length = max((v for v in LENGTHS_UM if v <= room), default=room)
    width, text = length / um_per_px, f"{length:g} µm"
    font = _font(15)
    text_width = draw.textlength(text, font=font)
    left, bottom = 10, PANEL_PX - 10
    box = (left - 5, bottom - 28, left + max(width, text_width) + 6, bottom + 5)
    draw.rounded_rectangle(box, 4, fill=INK)
    draw.text((left, bottom - 26), text, font=font, fill=PAPER)
    draw.rectangle((left, bottom - 4, left + width, bottom - 1), fill=PAPER)


def _sheet(
    panels: Sequence[Image.Image], examples: Sequence[Example], *, segments: bool
) -> Image.Image:
    """Put panels together, each with two lines below it, under a line that explains."""
    columns = min(COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    pitch = PANEL_PX + GAP_PX, PANEL_PX + TEXT_PX + GAP_PX
    width = max(columns * pitch[0] + GAP_PX, 2 * pitch[0] + GAP_PX)
    sheet = Image.new("RGB", (width, rows * pitch[1] + HEAD_PX + GAP_PX // 2), PAPER)
    draw = ImageDraw.Draw(sheet)
    _legend(draw, segments=segments)
    font, small = _font(15), _font(13)
    for number, (panel, example) in enumerate(zip(panels, examples, strict=True)):
        x = GAP_PX + number % columns * pitch[0]
        y = HEAD_PX + number // columns * pitch[1]
        sheet.paste(panel, (x, y))
        loss = f"loss {example.loss:.2f}"
        room = PANEL_PX - draw.textlength(loss, font=small) - 10
        draw.text((x, y + PANEL_PX + 4), _fitting(draw, example.field, font, room), INK, font)
        draw.text((x + PANEL_PX, y + PANEL_PX + 6), loss, (90, 90, 96), small, anchor="ra")
        if not segments:
            said = f"{example.truth}, called {example.answer}"
            draw.text((x, y + PANEL_PX + 22), _fitting(draw, said, small, PANEL_PX), INK, small)
    return sheet


@lru_cache
def _font(size_px: int) -> Font:
    """Return a font that has µ, which Pillow's own lacks."""
    from matplotlib import get_data_path

    return ImageFont.truetype(Path(get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), size_px)


def _legend(draw: ImageDraw.ImageDraw, *, segments: bool) -> None:
    font = _font(17)
    x, middle = float(GAP_PX), HEAD_PX / 2
    title = "Worst errors, one of a field"
    draw.text((x, middle), title, INK, font, anchor="lm")
    x += draw.textlength(title, font=font) + 26
    if not segments:
        return
    for text, color in (("truth", TRUTH), ("answer", ANSWER)):
        draw.rectangle((x, middle - 5, x + 30, middle + 5), fill=(95, 70, 95))
        draw.rectangle((x + 2, middle - 2, x + 28, middle + 2), fill=color)
        draw.text((x + 37, middle), text, INK, font, anchor="lm")
        x += 37 + draw.textlength(text, font=font) + 20


def _fitting(draw: ImageDraw.ImageDraw, text: str, font: Font, room: float) -> str:
    """Return a text, cut in its middle where it is too long."""
    if draw.textlength(text, font=font) <= room:
        return text
    keep = len(text)
    while keep > 4 and draw.textlength(_cut(text, keep), font=font) > room:
        keep -= 1
    return _cut(text, keep)


def _cut(text: str, keep: int) -> str:
    return f"{text[: (keep + 1) // 2]}…{text[len(text) - keep // 2 :]}"
