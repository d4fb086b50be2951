"""Ask a net that segments about the pixels of labelled fields: stitched exactly as in a run.

A field is gone through in bands of the same picture (`results/bands.py`), under the same window
(`inference/stitch.py`) as a slide, so that nothing is resized and memory is that of a band. Kept
are counts, a regular sample of pixels for what needs probabilities, and where it was worst.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import shapely
from numpy.typing import NDArray
from torch import nn

from napari_histomil.errors import TrainingError
from napari_histomil.inference.backends import Net
from napari_histomil.inference.stitch import Stitcher, window
from napari_histomil.results.bands import BAND_PX, Picture, Stretch
from napari_histomil.review.objects import ObjectCounts, count_objects
from napari_histomil.tiling import TileGrid
from napari_histomil.training.asking import Described, Logits, answerer, positive_index
from napari_histomil.training.cells import Answers, join_cells
from napari_histomil.training.fields import UNLABELLED, Field, SlideField, Uint8

SAMPLE_PX = 2**14
"""About so many pixels of a field are kept with their probabilities, on a regular grid."""

WINDOW_PX = 256
"""Side of the square that is shown of a field where it was answered worst."""

MOST_OBJECT_PX = 2**27
"""Objects are counted on a whole field: one of more pixels would need gigabytes."""

BATCH_PX = 2**20
"""Pixels of a batch of tiles."""

NOBODY = 1e-7
"""Smallest probability that is told from 0."""

Part = tuple[tuple[int, int], NDArray[np.float32], Uint8]
"""((top, left), probabilities [K, h, w], labels [h, w]) of a rectangle of a field."""

_NONE = np.zeros((0, 0), np.uint8)


@dataclass(frozen=True, slots=True, eq=False)
class Spot:
    """A square of a field, and what the net said there."""

    field: str
    group: str
    xy_px: tuple[int, int]
    """First pixel in the field."""
    loss: float
    """Mean cross-entropy of its labelled pixels."""
    answer: Uint8
    """[h, w], index of the likeliest class; with sigmoid K where none has 0.5."""


@dataclass(frozen=True, slots=True, eq=False)
class PixelAnswers:
    """What was answered about the pixels of fields, one row a field."""

    classes: tuple[str, ...]
    background: str | None
    field: NDArray[np.str_]
    group: NDArray[np.str_]
    counts: NDArray[np.int64]
    """[F, K, 3], for each class its true positive, false positive and false negative pixels."""
    labelled: NDArray[np.int64]
    """[F], pixels that somebody has judged."""
    sample: Answers
    """Pixels on a regular grid; the logits are logarithms of stitched probabilities."""
    objects: ObjectCounts | None = None
    worst: tuple[Spot, ...] = ()
    """Of each field the square that was answered worst."""

    def __len__(self) -> int:
        return len(self.field)

    def where(self, keep: NDArray[np.bool_]) -> PixelAnswers:
        """Return the answers for some of the fields, [F] of bool."""
        groups = self.group[keep]
        return replace(
            self,
            field=self.field[keep],
            group=groups,
            counts=self.counts[keep],
            labelled=self.labelled[keep],
            sample=self.sample.where(_within(self.sample, self.field[keep], groups)),
            objects=None if self.objects is None else self.objects.where(keep),
            worst=tuple(spot for spot in self.worst if spot.group in groups),
        )


def _within(
    sample: Answers, field: NDArray[np.str_], group: NDArray[np.str_]
) -> NDArray[np.bool_]:
    """Say of each sampled pixel whether its field is one of these."""
    own = set(zip(field.tolist(), group.tolist(), strict=True))
    pairs = zip(sample.field.tolist(), sample.group.tolist(), strict=True)
    return np.fromiter((pair in own for pair in pairs), bool, len(sample))


def join_pixels(parts: Sequence[PixelAnswers]) -> PixelAnswers:
    """Put answers for fields one after the other."""
    objects = [p.objects for p in parts if p.objects is not None]
    return PixelAnswers(
        parts[0].classes,
        parts[0].background,
        np.concatenate([p.field for p in parts]),
        np.concatenate([p.group for p in parts]),
        np.concatenate([p.counts for p in parts]),
        np.concatenate([p.labelled for p in parts]),
        join_cells([p.sample for p in parts]),
        ObjectCounts.join(objects) if objects else None,
        tuple(spot for p in parts for spot in p.worst),
    )


def ask_pixels(
    model: Described, net: nn.Module | Net, field: Field, *, objects: bool = False
) -> PixelAnswers:
    """Return a net's answers about the labelled pixels of a field.

    Tiles that no labelled pixel needs are not asked about. Logits are not divided by a model's
    temperature: where overlapping tiles contradict each other, dividing before they are added up,
    as a run does, may tip a pixel that is near even; everywhere else it is the same.

    Parameters
    ----------
    model, net, field
        As of `ask_cells`.
    objects
        As of `count_pixels`.

    Raises
    ------
    TrainingError
        As `count_pixels` does.
    """
    return count_pixels(model, field, _bands(model, net, field), objects=objects)


def count_pixels(
    model: Described, field: Field, parts: Iterable[Part], *, objects: bool = False
) -> PixelAnswers:
    """Return what answers about the labelled pixels of a field come to.

    Parameters
    ----------
    model
        What was asked.
    field
        What it was asked about.
    parts
        The answers; together they cover whatever is labelled.
    objects
        Whether connected pieces are matched too; the field then has to fit into memory.

    Raises
    ------
    TrainingError
        If objects are to be counted on a field that is too large.
    """
    classes = len(model.classes)
    width, height = field.size_px
    if objects and width * height > MOST_OBJECT_PX:
        raise TrainingError(
            f"{field.name} has {width} x {height} px: objects are counted on fields of at most "
            f"{MOST_OBJECT_PX} px, cut it into smaller ones or leave the objects out."
        )
    step = max(math.ceil(math.sqrt(width * height / SAMPLE_PX)), 1)
    counts, labelled = np.zeros((classes, 3), np.int64), 0
    sampled: list[Answers] = []
    spots: list[Spot] = []
    whole = np.full((2, height, width), UNLABELLED, np.uint8) if objects else None
    for (top, left), probabilities, labels in parts:
        known = labels != UNLABELLED
        if not known.any():
            continue
        answer = _decide(probabilities, model.activation)
        for index in range(classes):
            is_so, said = (labels == index) & known, _said(probabilities, answer, index, model)
            said &= known
            both = int((is_so & said).sum())
            counts[index] += both, int(said.sum()) - both, int(is_so.sum()) - both
        labelled += int(known.sum())
        rows = slice(-(top - step // 2) % step, None, step)
        columns = slice(-(left - step // 2) % step, None, step)
        sampled.append(
            _sample(model, field, probabilities[:, rows, columns], labels[rows, columns],
                    (left + (columns.start or 0), top + (rows.start or 0)), step)
        )  # fmt: skip
        spots += _spots(model, field, (top, left), probabilities, labels, answer)
        if whole is not None:
            part = np.s_[top : top + labels.shape[0], left : left + labels.shape[1]]
            whole[0][part], whole[1][part] = labels, answer
    return PixelAnswers(
        tuple(c.name for c in model.classes),
        model.background_class or None,
        np.array([field.name]),
        np.array([field.group]),
        counts[None],
        np.array([labelled]),
        join_cells(sampled) if sampled else _sample(
            model, field, np.zeros((classes, 0, 0), np.float32), _NONE, (0, 0), 1
        ),
        count_objects(whole[0], whole[1], classes) if whole is not None else None,
        # a whole square says more than a strip at the field's end
        tuple(sorted(spots, key=lambda s: (s.answer.size < WINDOW_PX**2, -s.loss))[:1]),
    )  # fmt: skip


def _bands(model: Described, net: nn.Module | Net, field: Field) -> Iterator[Part]:
    """Yield a field band by band; a pixel that no tile answered for is unlabelled."""
    picture = Picture(_grid(model, field))
    answer = answerer(model, net)
    for stretch in picture.stretches(np.zeros(len(picture.bands), bool)):
        yield from _stretch(model, answer, field, picture, stretch)


def _grid(model: Described, field: Field) -> TileGrid:
    """Return the tiles that cover a field, as if it were a slide of the model's µm/px."""
    spec = model.grid
    mpp, size = (spec.mpp, spec.mpp), field.size_px
    shape = TileGrid(spec, mpp, size, np.empty((0, 2), np.int32)).shape
    wanted = np.ones(shape, bool)
    drawn = _drawn(field)
    if drawn is not None:
        wanted[:] = False  # most of a slide is no region's: it is not even read
        overhang = (spec.inner_px - spec.stride_px) // 2
        reach = np.array([-1, -1, 1, 1]) * (overhang + 1)
        cells = (drawn + reach) // spec.stride_px
        for left, top, right, bottom in np.maximum(cells, 0).astype(int):
            wanted[top : bottom + 1, left : right + 1] = True
    return TileGrid(spec, mpp, size, np.argwhere(wanted).astype(np.int32))


def _drawn(field: Field) -> NDArray[np.float64] | None:
    """Return (left, top, right, bottom) of what is labelled on a slide, in the field's pixels.

    None where anything may be: on pieces of tissue, and slides that were looked at all over.
    """
    if not isinstance(field, SlideField):
        return None
    painting = field.painting
    if field.label_of[painting.base] != UNLABELLED:
        return None
    own = field.label_of[painting.values] != UNLABELLED
    bounds: NDArray[np.float64] = shapely.bounds(painting.polygons[own]) / np.tile(
        painting.grid.pixel_px0, 2
    )
    return bounds


def _stretch(
    model: Described, logits_of: Logits, field: Field, picture: Picture, stretch: Stretch
) -> Iterator[Part]:
    spec, bands = model.grid, list(stretch.bands)
    weights = window(spec.inner_px, spec.stride_px)
    stitcher = Stitcher(stretch.rows, stretch.columns, len(model.classes), weights, BAND_PX)
    cells: dict[tuple[int, int], Uint8] = {}
    batch = max(BATCH_PX // spec.tile_px**2, 1)

    def finished(stop: int) -> Iterator[Part]:
        while bands and bands[0].rows.stop <= stop:
            band = bands.pop(0)
            probabilities = stitcher.take(band.rows.stop)
            labels = _labels(cells, band.rows, band.columns, spec.stride_px)
            labels[np.isnan(probabilities[0])] = UNLABELLED
            yield (band.rows.start, band.columns.start), probabilities, labels
            for key in [k for k in cells if (k[0] + 1) * spec.stride_px <= band.rows.stop]:
                del cells[key]

    for tiles in picture.rows_of_tiles(stretch):
        yield from finished(picture.corner(tiles.start)[0])
        for start in range(tiles.start, tiles.stop, batch):
            corners, images = [], []
            for tile in range(start, min(start + batch, tiles.stop)):
                top, left = picture.corner(tile)
                margin = spec.margin_px
                image, labels = field.cut((left - margin, top - margin), spec.tile_px)
                if (labels[margin : spec.tile_px - margin, margin : spec.tile_px - margin]
                        == UNLABELLED).all():  # fmt: skip
                    continue
                row, column = (int(v) for v in picture.grid.cells[tile])
                edge = picture.overhang_px + margin
                inside = slice(edge, edge + spec.stride_px)
                cells[row, column] = labels[inside, inside]
                corners.append((top, left))
                images.append(image)
            if images:
                inner = slice(spec.margin_px, spec.tile_px - spec.margin_px)
                answer = logits_of(np.stack(images))[:, :, inner, inner]
                if model.activation == "sigmoid":
                    answer = answer.sigmoid()
                else:
                    answer = answer.softmax(dim=1)
                for corner, one in zip(corners, answer.cpu().numpy(), strict=True):
                    stitcher.add(corner, one)
    yield from finished(stretch.rows.stop)


def _labels(
    cells: dict[tuple[int, int], Uint8], rows: slice, columns: slice, stride: int
) -> Uint8:
    """Put the labels of cells together to those of a band."""
    first_row, first_column = rows.start // stride, columns.start // stride
    down, across = -(-rows.stop // stride) - first_row, -(-columns.stop // stride) - first_column
    labels = np.full((down * stride, across * stride), UNLABELLED, np.uint8)
    for i in range(down):
        for j in range(across):
            cell = cells.get((first_row + i, first_column + j))
            if cell is not None:
                labels[i * stride : (i + 1) * stride, j * stride : (j + 1) * stride] = cell
    top, left = rows.start - first_row * stride, columns.start - first_column * stride
    height, width = rows.stop - rows.start, columns.stop - columns.start
    return labels[top : top + height, left : left + width]


def _decide(probabilities: NDArray[np.float32], activation: str) -> Uint8:
    """Return the likeliest class of each pixel; with sigmoid K where none has 0.5."""
    best: Uint8 = probabilities.argmax(axis=0).astype(np.uint8)
    if activation == "sigmoid":
        best[probabilities.max(axis=0) < 0.5] = len(probabilities)
    return best


def _said(
    probabilities: NDArray[np.float32], answer: Uint8, index: int, model: Described
) -> NDArray[np.bool_]:
    said: NDArray[np.bool_] = (
        probabilities[index] >= 0.5 if model.activation == "sigmoid" else answer == index
    )
    return said


def _sample(
    model: Described,
    field: Field,
    probabilities: NDArray[np.float32],
    labels: Uint8,
    first_xy: tuple[int, int],
    step: int,
) -> Answers:
    """Return the labelled pixels of a part [K, h, w] that was taken every `step` pixels."""
    rows, columns = np.nonzero(labels != UNLABELLED)
    p = np.clip(probabilities[:, rows, columns].T.astype(float), NOBODY, 1 - NOBODY)
    logits = np.log(p) - np.log1p(-p) if model.activation == "sigmoid" else np.log(p)
    value = labels[rows, columns]
    return Answers(
        np.full(len(rows), field.name),
        np.full(len(rows), field.group),
        np.stack([first_xy[0] + step * columns, first_xy[1] + step * rows], 1).astype(np.int32),
        (value[:, None] == np.arange(len(model.classes))).astype(float),
        logits,
        positive_index(model),
        model.activation,
    )


def _spots(
    model: Described,
    field: Field,
    corner: tuple[int, int],
    probabilities: NDArray[np.float32],
    labels: Uint8,
    answer: Uint8,
) -> Iterator[Spot]:
    """Yield the worst square of a band."""
    known = labels != UNLABELLED
    if model.activation == "sigmoid":
        p = np.clip(probabilities, NOBODY, 1 - NOBODY)
        hot = labels == np.arange(len(p))[:, None, None]
        loss = -np.where(hot, np.log(p), np.log1p(-p)).sum(axis=0)
    else:
        index = np.where(known, labels, 0)[None]
        loss = -np.log(np.maximum(np.take_along_axis(probabilities, index, axis=0)[0], NOBODY))
    loss = np.where(known, loss, 0)
    height, width = labels.shape
    worst = None
    for top in _starts(height):
        for left in _starts(width):
            part = np.s_[top : top + WINDOW_PX, left : left + WINDOW_PX]
            share = float(known[part].mean())
            if share >= 0.25:
                mean = float(loss[part].sum() / known[part].sum())
                if worst is None or mean > worst[0]:
                    worst = mean, (top, left), part
    if worst is not None:
        mean, (top, left), part = worst
        xy = corner[1] + left, corner[0] + top
        yield Spot(field.name, field.group, xy, mean, answer[part].copy())


def _starts(length: int) -> list[int]:
    """Return where squares begin along a side, half of one apart, the last one at the end."""
    last = max(length - WINDOW_PX, 0)
    return [*range(0, last, WINDOW_PX // 2), last]
