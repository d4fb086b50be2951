"""Where a truth comes from: regions that people drew, a mask, another run of the same slide.

Regions and masks count only where somebody has looked at everything: inside ``Region*`` (of a
mask: where it is not unlabelled), without ``Ignore*``. A slide without is refused, unless the
person declares that all of it was annotated; the rule then says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import Polygon

from napari_histomil.annotations.mask_reading import MaskFile
from napari_histomil.annotations.masks import LabelTable, MaskGrid
from napari_histomil.annotations.model import IGNORE, REGION, Region, walk
from napari_histomil.annotations.raster import (
    Painting,
    is_unknown,
    paint_area,
    prepare,
    sound_shapes,
    window,
)
from napari_histomil.errors import AnnotationError, RunError
from napari_histomil.results import RunStore, SegmentationStore
from napari_histomil.results.segmentation import CERTAIN, UNKNOWN
from napari_histomil.review.truth import BACKGROUND, UNJUDGED, Labels

MOST_CLASSES = 250
"""More do not fit beside `UNJUDGED` into a byte."""


@dataclass(slots=True, eq=False)
class RegionTruth:
    """Regions of a slide. Of two that overlap the one drawn later counts.

    Parameters
    ----------
    regions
        All of the slide, ``Region*`` and ``Ignore*`` among them.
    source
        What they are called: the name of a file, or of a reader.
    fully_annotated
        Whether the person says that the whole slide was annotated.

    Raises
    ------
    AnnotationError
        If nobody has said where the slide was annotated, all of it is ignored, or there are more
        than `MOST_CLASSES`.
    """

    regions: Sequence[Region] = field(repr=False)
    source: str
    fully_annotated: bool = False
    mend: bool = True
    notes: tuple[str, ...] = field(init=False, default=())
    """Sentences for the person about what does not count, or was mended."""
    _table: LabelTable = field(init=False, repr=False)
    _judged: list[Polygon] = field(init=False, repr=False)
    _painted: tuple[MaskGrid, Painting, Painting | None] | None = field(
        init=False, default=None, repr=False
    )

    def __post_init__(self) -> None:
        table = LabelTable.of_regions(self.regions)
        if len(table.classes) > MOST_CLASSES:
            raise AnnotationError(
                f"{self.source} has {len(table.classes)} classes, more than can be scored: "
                f"leave out those that do not matter."
            )
        count = len(table.classes)
        self._table = LabelTable.of(
            table.classes, range(count), background=count, unlabelled=UNJUDGED
        )
        self._judged = self._marked()

    @property
    def names(self) -> tuple[str, ...]:
        """The classes that are drawn, and `BACKGROUND`."""
        return (*(kind.name for kind in self._table.classes), BACKGROUND)

    @property
    def rule(self) -> str:
        """Where it comes from and what was judged."""
        if self.fully_annotated:
            return f"{self.source}, declared fully annotated, without {IGNORE}"
        return f"{self.source}, inside {REGION} and without {IGNORE}"

    def labels(self, grid: MaskGrid, rows: slice) -> Labels:
        """Return the labels of some rows of a grid."""
        if self._painted is None or self._painted[0] != grid:
            painting = prepare(
                self.regions, grid, self._table, fully_annotated=True, mend=self.mend
            )
            self.notes = painting.notes
            area = None if self.fully_annotated else paint_area(self._judged, grid)
            self._painted = grid, painting, area
        _, painting, area = self._painted
        corner, size = (0, rows.start), (grid.columns, rows.stop - rows.start)
        labels = window(painting, corner, size).astype(np.uint8)
        if area is not None:
            labels[window(area, corner, size) == 0] = UNJUDGED
        return labels

    def _marked(self) -> list[Polygon]:
        """Return what was annotated exhaustively; nothing where that is the whole slide."""
        areal = [region for region in walk(self.regions) if region.is_areal]
        shapes, _ = sound_shapes(areal, mend=self.mend)
        marked = [s for s, r in zip(shapes, areal, strict=True) if r.class_name == REGION]
        if self.fully_annotated:
            return []
        if not marked:
            raise AnnotationError(
                f"{self.source} has no {REGION}, so it is not known where everything was "
                f"annotated: mark that, or declare the slide fully annotated."
            )
        ignored = [s for s, r in zip(shapes, areal, strict=True) if is_unknown(r)]
        area = shapely.difference(shapely.union_all(marked), shapely.union_all(ignored))
        parts = [p for p in shapely.get_parts(area) if isinstance(p, Polygon) and p.area]
        if not parts:
            raise AnnotationError(
                f"All of {REGION} in {self.source} is ignored: nothing is left to be scored."
            )
        return parts


@dataclass(slots=True, eq=False)
class MaskTruth:
    """An open mask file. Its unlabelled pixels were not judged.

    Parameters
    ----------
    mask
        Open, of the run's slide; it is read a few rows at a time.
    values
        Value -> class, where the mask does not say it itself.
    fully_annotated
        Whether the person says that what is unlabelled was looked at and is background.

    Raises
    ------
    AnnotationError
        If it has more classes than fit.
    """

    mask: MaskFile = field(repr=False)
    values: dict[int, str] | None = None
    fully_annotated: bool = False
    _index: NDArray[np.uint8] = field(init=False, repr=False)
    _names: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        table = self.mask.facts.table
        kinds = {v: k.name for v, k in zip(table.values, table.classes, strict=True)}
        kinds |= self.values or {}
        if len(kinds) > MOST_CLASSES:
            raise AnnotationError(
                f"{self.mask.path.name} has {len(kinds)} classes, more than can be scored."
            )
        self._names = (*dict.fromkeys(kinds.values()), BACKGROUND)
        last = len(self._names) - 1
        self._index = np.full(2**16, UNJUDGED, np.uint8)
        self._index[table.background] = last
        self._index[table.unlabelled] = last if self.fully_annotated else UNJUDGED
        for value, name in kinds.items():
            self._index[value] = self._names.index(name)

    @property
    def names(self) -> tuple[str, ...]:
        """The mask's classes, and `BACKGROUND`."""
        return self._names

    @property
    def rule(self) -> str:
        """Where it comes from and what was judged."""
        judged = "declared fully annotated" if self.fully_annotated else "where it is labelled"
        return f"{self.mask.path.name}, {judged}"

    def labels(self, grid: MaskGrid, rows: slice) -> Labels:
        """Return the labels of some rows of a grid."""
        own = self.mask.facts.grid
        y = (np.arange(rows.start, rows.stop) + 0.5) * grid.pixel_px0[1] / own.pixel_px0[1]
        x = (np.arange(grid.columns) + 0.5) * grid.pixel_px0[0] / own.pixel_px0[0]
        row, column = y.astype(np.int64), x.astype(np.int64)
        labels = np.full((len(row), len(column)), UNJUDGED, np.uint8)
        inside, across = row < own.rows, column < own.columns
        if inside.any():
            first, stop = int(row[0]), int(row[inside][-1]) + 1
            band = self.mask.rows(first, stop)
            picked = self._index[band[row[inside] - first][:, column[across]]]
            labels[np.ix_(inside, across)] = picked
        return labels


@dataclass(slots=True, eq=False)
class RunTruth:
    """Another run of the same slide: what it calls the class is taken for true.

    Parameters
    ----------
    run
        Of a patch classifier or a model that segments.
    threshold
        From which probability on of its positive class.
    """

    run: RunStore | SegmentationStore = field(repr=False)
    positive: str
    threshold: float = 0.5
    _cells: Labels | None = field(init=False, default=None, repr=False)
    """Of a patch classifier: a label a cell."""

    def __post_init__(self) -> None:
        if self.positive not in self.run.class_names:
            raise RunError(
                f"The run {self.run.path.name} has no class {self.positive}: it has "
                f"{', '.join(self.run.class_names)}."
            )
        if isinstance(self.run, RunStore):
            scores = self.run.scores[:, self.run.class_names.index(self.positive)]
            self._cells = np.full(self.run.grid.shape, UNJUDGED, np.uint8)
            known = np.isfinite(scores)
            self._cells[tuple(self.run.grid.cells[known].T)] = scores[known] < self.threshold

    @property
    def names(self) -> tuple[str, ...]:
        """The class, and `BACKGROUND`."""
        return self.positive, BACKGROUND

    @property
    def rule(self) -> str:
        """Where it comes from."""
        model = self.run.model.get("name", "a model")
        return f"the run of {model}, {self.positive} from {self.threshold:g} on"

    def labels(self, grid: MaskGrid, rows: slice) -> Labels:
        """Return the labels of some rows of a grid."""
        y0 = (np.arange(rows.start, rows.stop) + 0.5) * grid.pixel_px0[1]
        x0 = (np.arange(grid.columns) + 0.5) * grid.pixel_px0[0]
        if isinstance(self.run, RunStore):
            assert self._cells is not None, "laid out when the truth was made"
            picture, first, (width, height) = self._cells, 0, self.run.grid.cell_size_px0
        else:
            width, height = self.run.picture.pixel_px0
            stop = min(int(y0[-1] / height) + 1, self.run.picture.shape[0])
            first = min(int(y0[0] / height), stop)
            picture = self._pixels(self.run, slice(first, stop))
        row, column = (y0 / height).astype(np.int64) - first, (x0 / width).astype(np.int64)
        labels = np.full((len(row), len(column)), UNJUDGED, np.uint8)
        inside, across = row < picture.shape[0], column < picture.shape[1]
        labels[np.ix_(inside, across)] = picture[row[inside]][:, column[across]]
        return labels

    def _pixels(self, run: SegmentationStore, rows: slice) -> Labels:
        stored = run.strip(rows)[run.class_names.index(self.positive)]
        said: Labels = np.asarray(stored < self.threshold * CERTAIN, np.uint8)
        said[stored == UNKNOWN] = UNJUDGED
        return said
