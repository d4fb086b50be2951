"""MIL runs made up for tests: no model, but numbers that fit together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from napari_histomil.manifest import ClassSpec
from napari_histomil.results.bag import EncoderFacts
from napari_histomil.results.mil import (
    MilAnswer,
    MilContributions,
    MilLevel,
    MilMap,
    MilRun,
    MilSource,
)
from napari_histomil.slides.slide import SlideInfo
from napari_histomil.tiling import GridSpec, TileGrid

CLASSES = (ClassSpec("normal", (90, 90, 180)), ClassSpec("tumor", (200, 0, 0)))


def slide_facts(info: SlideInfo) -> dict[str, Any]:
    return {
        "name": info.path.name,
        "path": str(info.path),
        "fingerprint": info.fingerprint,
        "width_px0": info.width_px0,
        "height_px0": info.height_px0,
        "mpp_xy": list(info.mpp_xy),
        "bounds_px0": None,
    }


def softmax(raw: np.ndarray) -> np.ndarray:
    powers = np.exp(raw - raw.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def level_of(info: SlideInfo, mpp: float, tile_px: int = 64, *, finer_than=None) -> MilLevel:
    """Return all tiles of a slide at a resolution; finer ones overlap by half."""
    stride = tile_px if finer_than is None else tile_px // 2
    grid = TileGrid.cover(info, GridSpec(mpp, tile_px, stride))
    corners = grid.tile_rects_px0[:, :2]
    return MilLevel(corners, grid.tile_size_px0, mpp, grid, len(grid), finer_than)


def make_mil_run(info: SlideInfo, **changes: Any) -> MilRun:
    """Return the answer of a gated-attention model at 1 µm/px, one tile of which is missing."""
    rng = np.random.default_rng(0)
    level = level_of(info, 1.0)
    index = np.delete(np.arange(len(level)), 2)
    raw = rng.normal(size=(1, len(index))).astype(np.float32)
    value = softmax(raw)
    says = rng.normal(size=len(index))
    contributions = np.stack([-value[0] * says, value[0] * says]).astype(np.float32)
    bias = np.array([0.1, -0.1], np.float32)
    logits = bias + contributions.sum(axis=1)
    probabilities = softmax(logits)
    run = MilRun(
        run_id="0123456789abcdef",
        job={"task": "mil"},
        slide=slide_facts(info),
        model={
            "name": "toy-mil",
            "sha256": "ab" * 32,
            "activation": "softmax",
            "temperature": 1.7,
            "positive_class": "tumor",
            "reference": {"attention_quantiles": [np.linspace(0, 3, 101).tolist()]},
        },
        classes=CLASSES,
        source=MilSource(8, EncoderFacts("colours", "e"), runs=("a",)),
        answer=MilAnswer(logits, probabilities, probabilities[None]),
        levels=(level,),
        maps=(MilMap(0, "attention", raw, value, index),),
        contributions=(MilContributions(0, index, contributions),),
        bias=bias,
        warnings=("Only few patches: 17.",),
    )
    return replace(run, **changes)


def make_zoom_run(info: SlideInfo) -> MilRun:
    """Return a run at two magnifications: the model zoomed into two of the coarse tiles."""
    rng = np.random.default_rng(1)
    coarse, fine = level_of(info, 2.0), level_of(info, 1.0)
    parents = [tuple(cell) for cell in coarse.grid.cells[[0, 3]]]
    keep = np.array([(row // 2, column // 2) in parents for row, column in fine.grid.cells])
    grid = fine.grid.select(keep)
    fine = MilLevel(grid.tile_rects_px0[:, :2], grid.tile_size_px0, 1.0, grid, len(keep))
    every = [np.arange(len(coarse)), np.arange(len(fine))]
    maps, parts = [], []
    for level, index in enumerate(every):
        raw = rng.normal(size=(1, len(index))).astype(np.float32)
        if level == 0:
            maps.append(MilMap(0, "selection", raw + 1, softmax(raw + 1), index))
        maps.append(MilMap(level, "attention", raw, softmax(raw), index))
        parts.append(
            MilContributions(level, index, rng.normal(size=(2, len(index))).astype(np.float32))
        )
    return make_mil_run(
        info,
        run_id="fedcba9876543210",
        levels=(coarse, fine),
        maps=tuple(maps),
        contributions=tuple(parts),
    )
