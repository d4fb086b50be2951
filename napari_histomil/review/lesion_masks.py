"""Where the lesions of a truth are, as CAMELYON16's evaluation counts them.

Ehteshami Bejnordi et al., JAMA 318 (2017) 2199, and its ``evaluation_FROC.py``: tumour is dilated
by 37.5 µm, so that gaps below 75 µm merge, holes are filled, and what touches, also at a corner,
is one lesion. Lesions whose longest axis is then below 275 µm are isolated tumour cells. The
challenge looked at every 32nd pixel, 7.8 µm; so do we, at 8 µm.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import regionprops_table

from napari_histomil.annotations.masks import MaskGrid
from napari_histomil.review.objects import TOUCHING
from napari_histomil.review.truth import (
    UNJUDGED,
    Bools,
    Floats,
    Labels,
    Truth,
    bands_of,
    positive_indices,
)
from napari_histomil.tiling import TileGrid

LESION_MPP = 8.0
"""µm/px at which lesions are looked for."""

DILATION_UM = 37.5
"""Half of the widest gap that is bridged."""

ISOLATED_UM = 275.0
"""Lesions whose longest axis is shorter, after dilation, are isolated tumour cells."""


@dataclass(frozen=True, slots=True, eq=False)
class Lesions:
    """The lesions of one slide."""

    labels: NDArray[np.int32] = field(repr=False)
    """int32 [rows, columns]: 0 for none, else the number of the lesion from 1 on, dilated."""
    tumour: Bools = field(repr=False)
    """bool [rows, columns]: what was drawn."""
    judged: Bools = field(repr=False)
    """bool [rows, columns]"""
    pixel_px0: tuple[float, float]
    """(width, height) of a pixel in level-0 pixels."""
    mpp: float
    longest_um: Floats = field(repr=False)
    """float64 [L], longest axis of each dilated lesion."""
    area_mm2: Floats = field(repr=False)
    """float64 [L], area of the tumour drawn in it."""

    def __len__(self) -> int:
        return len(self.longest_um)

    @property
    def isolated(self) -> Bools:
        """Bool [L], which are isolated tumour cells: neither hit nor miss nor false positive."""
        return np.asarray(self.longest_um < ISOLATED_UM)

    def at(self, xy_px0: Floats) -> tuple[NDArray[np.int32], Bools]:
        """Return the lesion at each place (0 for none), and whether it was judged there.

        Parameters
        ----------
        xy_px0
            float64 [M, 2]
        """
        column, row = np.floor(xy_px0 / np.array(self.pixel_px0)).astype(np.int64).T
        rows, columns = self.labels.shape
        inside = (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
        row, column = np.clip(row, 0, rows - 1), np.clip(column, 0, columns - 1)
        number = np.where(inside, self.labels[row, column], 0).astype(np.int32)
        return number, inside & self.judged[row, column]


def lesion_grid(grid: TileGrid, mpp: float = LESION_MPP) -> MaskGrid:
    """Return the pixels at which lesions of a run's slide are looked for."""
    (width, height), (mpp_x, mpp_y) = grid.slide_size_px0, grid.slide_mpp
    columns, rows = math.ceil(width * mpp_x / mpp - 1e-6), math.ceil(height * mpp_y / mpp - 1e-6)
    return MaskGrid(max(columns, 1), max(rows, 1), (mpp / mpp_x, mpp / mpp_y), (mpp, mpp))


def find_lesions(
    truth: Truth, positive: str, grid: TileGrid, *, mpp: float = LESION_MPP
) -> Lesions:
    """Return the lesions of a slide.

    Parameters
    ----------
    truth
        Of the slide.
    positive
        Class of the truth that lesions are of.
    grid
        Of a run of the slide: it knows its size.
    mpp
        µm/px to look at.
    """
    pixels = lesion_grid(grid, mpp)
    parts = [band for _, band in bands_of(truth, pixels, grid.slide_size_px0)]
    labels: Labels = np.concatenate(parts)
    tumour = np.isin(labels, positive_indices(truth.names, positive))
    return lesions_of(tumour, labels != UNJUDGED, pixels.pixel_px0, mpp)


def lesions_of(
    tumour: Bools, judged: Bools, pixel_px0: tuple[float, float], mpp: float
) -> Lesions:
    """Return the lesions of a picture of tumour.

    Parameters
    ----------
    tumour, judged
        bool [rows, columns]
    pixel_px0
        (width, height) of a pixel in level-0 pixels.
    mpp
        µm that a pixel spans.
    """
    if tumour.any():
        near = ndimage.distance_transform_edt(~tumour) < DILATION_UM / mpp
        labels, _ = ndimage.label(ndimage.binary_fill_holes(near), TOUCHING)
    else:
        labels = np.zeros(tumour.shape, np.int32)
    labels = labels.astype(np.int32)
    drawn = np.where(tumour, labels, 0)
    return Lesions(
        labels=labels,
        tumour=tumour,
        judged=judged,
        pixel_px0=pixel_px0,
        mpp=mpp,
        longest_um=_longest(labels) * mpp,
        area_mm2=np.bincount(drawn.ravel())[1:].astype(np.float64) * (mpp**2 / 1e6),
    )


def _longest(labels: NDArray[np.int32]) -> Floats:
    """Return the longest axis of each label in pixels: of the ellipse with its moments."""
    properties = ("axis_major_length",)
    found = regionprops_table(labels, properties=properties)  # type: ignore[no-untyped-call]
    axis: Floats = np.asarray(found["axis_major_length"], np.float64)
    return axis
