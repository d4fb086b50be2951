"""Each method learns: its loss falls, and a linear probe beats that on random weights.

Light and contrast of the toy pictures differ more than their kinds do, so a probe with ten labels
a kind is often wrong on random weights; the views vary just these. DINO's views vary less: with
the others' it needs more steps than a test has.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from torch import nn

from napari_histomil.training.selfsupervised.config import PretrainConfig
from napari_histomil.training.selfsupervised.loop import build_method, pretrain
from napari_histomil.training.selfsupervised.tiles import ArrayPiece, Pool

LABELLED = 40


def embed(net: nn.Module, pictures: NDArray[np.uint8]) -> NDArray[np.float64]:
    middles = torch.from_numpy(pictures[:, 32:64, 32:64]).permute(0, 3, 1, 2) / 255
    with torch.inference_mode():
        embeddings: NDArray[np.float64] = net.eval()((middles - 0.5) / 0.2).double().numpy()
    return embeddings


def probe(net: nn.Module, known: Any, asked: Any) -> float:
    """Return the accuracy on the asked ones of a linear model fitted on the known ones."""
    first, second = embed(net, known.pictures[:LABELLED]), embed(net, asked.pictures)
    mean, std = first.mean(axis=0), first.std(axis=0) + 1e-9
    fitted = LogisticRegression(max_iter=3000).fit((first - mean) / std, known.kinds[:LABELLED])
    return float(fitted.score((second - mean) / std, asked.kinds))


@pytest.mark.parametrize(
    ("method", "steps", "rate", "momentum"),
    [
        ("simclr", 80, 0.01, None),
        ("byol", 120, 0.005, 0.8),
        ("mocov3", 80, 0.005, 0.9),
        ("dino", 80, 0.01, 0.9),
    ],
)
def test_it_learns(
    config: PretrainConfig,
    make_textures: Callable[[int, int], Any],
    method: Any,
    steps: int,
    rate: float,
    momentum: float | None,
) -> None:
    known, asked = make_textures(200, 0), make_textures(200, 1)
    schedule = replace(config.schedule, steps=steps, batch=32, learning_rate=rate, warm_up=5)
    config = replace(config, method=method, schedule=schedule)
    if method == "dino":
        views = replace(
            config.views, field=1.25, local_px=24, color_probability=0.8, stain=0.3,
            stain_shift=0.2, brightness=0.3, contrast=0.4,
        )  # fmt: skip
        config = replace(config, views=views)
    if momentum is not None:
        config = replace(config, **{method: replace(getattr(config, method), momentum=momentum)})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        before = probe(build_method(config)[0].backbone, known, asked)
    run = pretrain(config, Pool((tuple(map(ArrayPiece, known.pictures)),), (1.0,)), seed=0)
    while True:
        try:
            next(run)
        except StopIteration as end:
            result = end.value
            break
    losses = [point.loss for point in result.curve]
    assert np.mean(losses[-10:]) < 0.95 * np.mean(losses[:10])
    assert result.spread > 0.2
    assert probe(result.backbone, known, asked) > before + 0.1
