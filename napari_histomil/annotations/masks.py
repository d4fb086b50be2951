"""What a label mask is: where its pixels lie (`MaskGrid`) and what values mean (`LabelTable`).

Making masks is in `raster.py`, tracing them in `tracing.py`, their files in `mask_files.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_histomil.annotations.model import (
    IGNORE,
    REGION,
    STANDARD_CLASSES,
    AnnotationClass,
    Region,
    class_named,
    is_starred,
    walk,
)
from napari_histomil.errors import AnnotationError
from napari_histomil.slides.slide import SlideInfo

LabelImage = NDArray[np.unsignedinteger[Any]]
"""uint8 or uint16 [rows, columns]."""

MAX_PIXELS = 2**36
"""A larger mask (eight times a large slide at its full resolution) is a mistake in µm/px."""

SNAP_PX = 1e-6
"""The last column is left out where the slide reaches no farther into it: rounding, no tissue."""


@dataclass(frozen=True, slots=True)
class MaskGrid:
    """The pixels of a mask: (row i, column j) spans exactly j .. j + 1 and i .. i + 1 pixels.

    The grid begins at the slide's corner. Factors are not rounded, so nothing drifts, and the
    slide's size need not be a multiple: the last pixels reach beyond its edge.

    Raises
    ------
    AnnotationError
        If there is no pixel, a pixel has no size, or there are more than `MAX_PIXELS`.
    """

    columns: int
    rows: int
    pixel_px0: tuple[float, float]
    """(width, height) of a mask pixel in level-0 pixels of the slide; may have fractions."""
    mpp_xy: tuple[float, float] | None = None
    """(width, height) of a mask pixel in µm; None where the slide does not say."""

    def __post_init__(self) -> None:
        sizes = (*self.pixel_px0, *(self.mpp_xy or ()))
        if min(self.columns, self.rows) < 1 or not all(0 < s < math.inf for s in sizes):
            raise AnnotationError(
                f"A mask of {self.columns} x {self.rows} pixels of {self.pixel_px0} level-0 "
                f"pixels cannot be: all must be above 0."
            )
        if self.columns * self.rows > MAX_PIXELS:
            raise AnnotationError(
                f"A mask of {self.columns:,} x {self.rows:,} pixels is more than can be of use: "
                f"choose a larger µm/px, or check that of the slide."
            )

    @classmethod
    def cover(cls, info: SlideInfo, mpp: float | None = None) -> MaskGrid:
        """Return the grid that covers a slide.

        Parameters
        ----------
        info
            The slide.
        mpp
            µm that a mask pixel spans, both ways; None for the slide's own pixels.

        Raises
        ------
        MissingMppError
            If `mpp` is given and the slide's own is unknown.
        """
        if mpp is None:
            known = None if info.mpp_x is None else info.mpp_xy
            return cls(info.width_px0, info.height_px0, (1.0, 1.0), known)
        if not 0 < mpp < math.inf:
            raise AnnotationError(f"The resolution of a mask must be above 0 µm/px, not {mpp}.")
        pixel_px0 = (mpp / info.mpp_xy[0], mpp / info.mpp_xy[1])
        if max(abs(pixel - 1) for pixel in pixel_px0) < SNAP_PX:
            return cls.cover(info)  # the slide's own, with a rounding error
        columns, rows = (
            max(math.ceil(size / pixel - SNAP_PX), 1)
            for size, pixel in zip((info.width_px0, info.height_px0), pixel_px0, strict=True)
        )
        return cls(columns, rows, pixel_px0, (mpp, mpp))

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        return self.rows, self.columns

    @property
    def pixel_mm2(self) -> float | None:
        """Area of a pixel in mm²; None where µm/px are unknown."""
        return None if self.mpp_xy is None else self.mpp_xy[0] * self.mpp_xy[1] / 1e6


@dataclass(frozen=True, slots=True)
class LabelTable:
    """What the values of a mask mean.

    Raises
    ------
    AnnotationError
        If two names or two values are the same, or a value fits into no 16 bits.
    """

    classes: tuple[AnnotationClass, ...]
    values: tuple[int, ...]
    """Value of each class."""
    background: int = 0
    """Looked at, and none of the classes."""
    unlabelled: int = 255
    """Nothing is known: neither one of the classes nor background."""

    def __post_init__(self) -> None:
        names = [c.name for c in self.classes]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise AnnotationError(f"The class {twice[0]} is named twice: once is enough.")
        meanings = [*zip(self.values, names, strict=True), (self.background, "background")]
        taken: dict[int, str] = {}
        for value, meaning in [*meanings, (self.unlabelled, "unlabelled")]:
            if not 0 <= value < 2**16:
                raise AnnotationError(
                    f"The value {value} of {meaning} is no whole number of 0 to 65535."
                )
            if value in taken:
                raise AnnotationError(
                    f"{meaning} and {taken[value]} both have the value {value}: a mask needs a "
                    f"value of its own for each."
                )
            taken[value] = meaning

    @classmethod
    def of(
        cls,
        classes: Sequence[AnnotationClass],
        values: Sequence[int] | None = None,
        *,
        background: int = 0,
        unlabelled: int | None = None,
    ) -> LabelTable:
        """Return a table; by default the classes are 1, 2, 3, ... in their order.

        Parameters
        ----------
        classes
            In the order of their values.
        values
            Other values than 1, 2, 3, ...
        background
            Value of what is none of the classes.
        unlabelled
            Value of what nothing is known of: 255 by default, 65535 where there are more
            than 254 classes.
        """
        chosen = tuple(values) if values is not None else tuple(range(1, len(classes) + 1))
        if len(chosen) != len(classes):
            raise AnnotationError(f"There are {len(classes)} classes and {len(chosen)} values.")
        highest = max((*chosen, background), default=0)
        if unlabelled is None:
            unlabelled = 255 if highest < 255 else 65535
        return cls(tuple(classes), chosen, background, unlabelled)

    @classmethod
    def of_regions(
        cls, regions: Iterable[Region], *, background: int = 0, unlabelled: int | None = None
    ) -> LabelTable:
        """Return a table of the classes that regions have: QuPath's first, then by name.

        ``Region*``, ``Ignore*`` and all others that end in ``*`` are no classes of tissue.
        """
        found = {
            region.class_name: region.classification
            for region in walk(regions)
            if region.classification and region.is_areal and not is_starred(region.class_name)
        }
        order = [c.name for c in STANDARD_CLASSES]
        names = sorted(found, key=lambda n: (order.index(n) if n in order else len(order), n))
        return cls.of([found[n] for n in names], background=background, unlabelled=unlabelled)

    @property
    def dtype(self) -> np.dtype[np.unsignedinteger[Any]]:
        """uint8 where every value fits, else uint16."""
        highest = max((*self.values, self.background, self.unlabelled))
        return np.dtype(np.uint8) if highest < 256 else np.dtype(np.uint16)

    @property
    def names(self) -> dict[int, str]:
        """Meaning of every value, background and unlabelled too."""
        named = {self.background: "background", self.unlabelled: "unlabelled"}
        return named | {v: c.name for v, c in zip(self.values, self.classes, strict=True)}

    def value_of(self, name: str) -> int | None:
        """Return the value of a class; of ``Tumor: Positive`` that of ``Tumor`` if need be.

        None for a class that is not in the table, and of which no part of the name is.
        """
        known = {c.name: value for c, value in zip(self.classes, self.values, strict=True)}
        parts = name.split(": ")
        for length in range(len(parts), 0, -1):
            found = known.get(": ".join(parts[:length]))
            if found is not None:
                return found
        return None


def parse_classes(
    text: str, regions: Iterable[Region] = ()
) -> tuple[list[AnnotationClass], list[int]]:
    """Read ``Tumor,Stroma`` or ``Tumor=2,Stroma=1``; colours are those of the regions.

    Returns
    -------
    classes, values
        Values are 1, 2, 3, ... in the order given where the text holds none.

    Raises
    ------
    AnnotationError
        If a name is empty or no class of tissue, some have a value and others none, or a value
        is no whole number.
    """
    known = {r.class_name: r.classification for r in walk(regions) if r.classification}
    pairs = [part.strip().rpartition("=") for part in text.split(",")]
    names = [(name if sign else value).strip() for name, sign, value in pairs]
    given = [value.strip() for _, sign, value in pairs if sign]
    for name in names:
        if not name or is_starred(name):
            raise AnnotationError(
                f"{name or 'An empty name'} in the classes '{text}' is no class of tissue: write "
                f"names with commas between them, {REGION} and {IGNORE} are understood anyway."
            )
    if given and (len(given) != len(names) or not all(v.isdecimal() for v in given)):
        raise AnnotationError(
            f"The classes '{text}' need a whole number each after '=', or none at all."
        )
    values = [int(value) for value in given] or list(range(1, len(names) + 1))
    return [known.get(name) or class_named(name) for name in names], values
