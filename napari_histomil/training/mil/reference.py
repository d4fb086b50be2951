"""What the training's slides look like: against it a slide is held.

A model that has seen 1,000 tiles of attention 0.001 each says something else than one that has
seen 3 of 0.3; so attention is compared as multiples of the uniform, a . N.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

import numpy as np
import torch

from napari_histomil.nets.mil import MILModel
from napari_histomil.review.nuclear_size import slide_nuclear_size
from napari_histomil.slides.readers import open_slide
from napari_histomil.tiling import GridSpec, TileGrid
from napari_histomil.tissue import find_tissue
from napari_histomil.training.mil.bags import BagData
from napari_histomil.training.mil.table import Case

SOFTMAX_KINDS = ("attention", "class attention", "critical", "selection")
"""Maps whose rows sum to 1, so that a . N means something."""

QUANTILES = 101

MOST_SLIDES = 24
"""So many, spread over the table, tell how large nuclei are."""


@torch.inference_mode()
def reference_of(data: BagData, net: MILModel, cases: Sequence[Case]) -> dict[str, Any]:
    """Return the reference distribution of a net's attention.

    Parameters
    ----------
    data
        The bags.
    net
        The finished net.
    cases
        The training's slides. Each counts the same, however many tiles it has.

    Returns
    -------
    dict
        ``slides``; ``attention_quantiles``: of each map of the output, in its order, 101 quantiles
        (0, 1, ... 100 %) of a . N over tiles and heads; [] where the map is no softmax.
    """
    at = np.linspace(0, 1, 10 * (QUANTILES - 1) + 1)
    found: list[list[np.ndarray[Any, Any]]] = []
    for case in cases:
        clinical = torch.tensor(case.clinical) if case.clinical else None
        maps = net(data.read(case), clinical).maps
        found = found or [[] for _ in maps]
        for own, shown in zip(found, maps, strict=True):
            if shown.kind in SOFTMAX_KINDS and shown.value is not None:
                multiples = (shown.value * shown.value.shape[1]).flatten().double().numpy()
                own.append(np.quantile(multiples, at))
    quantiles = [
        [float(f"{v:.6g}") for v in np.quantile(np.concatenate(own), np.linspace(0, 1, QUANTILES))]
        if own
        else []
        for own in found
    ]
    return {"slides": len(cases), "attention_quantiles": quantiles}


def nuclear_um(cases: Sequence[Case], grid: GridSpec) -> float | None:
    """Return the median size of nuclei on the training's slides.

    Parameters
    ----------
    cases
        The training's slides; those that are only files of features have no pixels.
    grid
        The model's; its tiles with tissue are looked at.

    Returns
    -------
    float or None
        See `review.nuclear_size`; None where no slide tells it.

    Raises
    ------
    SlideError
        If a slide cannot be read, or has no µm/px.
    """
    paths = sorted({case.slide for case in cases if case.slide is not None})
    chosen = np.unique(np.linspace(0, max(len(paths) - 1, 0), MOST_SLIDES).round().astype(int))
    found = []
    for index in chosen[: len(paths)]:
        with open_slide(paths[index]) as slide:
            cells = TileGrid.cover(slide.info, grid).cell_rects_px0
            size = slide_nuclear_size(slide, cells[find_tissue(slide).fraction(cells) >= 0.5])
        if size is not None:
            found.append(size.diameter_um)
    return round(median(found), 2) if found else None
