"""Views are cut where they should be, at the scale they should have, in colours of tissue."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_histomil.training.selfsupervised.config import Views
from napari_histomil.training.selfsupervised.views import blur, cut, recolor, vary

STILL = Views(
    field=1.0, zoom=(1.0, 1.0), color_probability=0, grey_probability=0, blur_probability=0
)


def random() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def test_a_view_of_the_whole_square_is_one_of_its_eight_positions() -> None:
    square = torch.rand(1, 3, 8, 8, generator=random())
    turned = [torch.rot90(square, n, (2, 3)) for n in range(4)]
    positions = [*turned, *(t.flip(3) for t in turned)]
    views = vary(square.expand(64, 3, 8, 8), 8, STILL, random())
    met = set()
    for view in views:
        same = [n for n, p in enumerate(positions) if torch.allclose(p[0], view, atol=1e-4)]
        assert len(same) == 1
        met.add(same[0])
    assert met == set(range(8))


def test_views_lie_inside_the_square_at_their_zoom() -> None:
    """Pixels hold their own place, so a view says where it was cut and how large it is."""
    side = 30
    ramp = (torch.arange(side) + 0.5) / side
    square = torch.stack(
        [ramp.expand(side, side), ramp[:, None].expand(side, side), torch.zeros(side, side)]
    )
    views = cut(square.expand(200, 3, side, side), 10, (0.5, 2.0), random())
    width = (views[:, :2].amax((2, 3)) - views[:, :2].amin((2, 3))).amax(1) * side * 10 / 9
    assert float(width.min()) == pytest.approx(10 / 2.0, rel=0.05)
    assert float(width.max()) == pytest.approx(10 / 0.5, rel=0.05)
    assert float(torch.log(10 / width).mean()) == pytest.approx(0, abs=0.1)
    middles = views[:, :2].mean((2, 3)) * side
    assert (middles - width[:, None] / 2 > -0.6).all()
    assert (middles + width[:, None] / 2 < side + 0.6).all()
    assert float(middles.std()) > 3


def test_colours_change_along_the_stains() -> None:
    pink = torch.tensor([0.85, 0.55, 0.75])[:, None, None].expand(300, 3, 4, 4)
    only_stain = replace(
        STILL, color_probability=1.0, stain_shift=0, brightness=0, contrast=0, saturation=0
    )
    density = -torch.log(recolor(pink, only_stain, random()))[:, :, 0, 0]
    before = -torch.log(pink[:, :, 0, 0])
    assert float((density / before - 1).abs().max()) < 0.6
    assert float(density.std(dim=0).min()) > 0.01
    assert torch.equal(recolor(pink, STILL, random()), pink)


def test_probabilities_are_parts_of_the_batch() -> None:
    squares = torch.rand(400, 3, 12, 12, generator=random())
    grey = recolor(squares, replace(STILL, grey_probability=0.25), random())
    part = (grey[:, 0] == grey[:, 1]).all(dim=1).all(dim=1).float().mean()
    assert float(part) == pytest.approx(0.25, abs=0.06)
    solarised = vary(squares, 12, replace(STILL, solarise_probability=1.0), random())
    assert float(solarised.max()) <= 0.5
    blurred = vary(squares, 12, replace(STILL, blur_probability=0.5), random())
    same = vary(squares, 12, STILL, random())
    kept = (blurred == same).all(dim=3).all(dim=2).all(dim=1).float().mean()
    assert float(kept) == pytest.approx(0.5, abs=0.07)


def test_blur_is_a_gaussian() -> None:
    point = torch.zeros(2, 3, 15, 15)
    point[:, :, 7, 7] = 1
    seen = blur(point, (1.0, 1.0), random())
    assert torch.allclose(seen.sum((2, 3)), torch.ones(2, 3), atol=1e-5)
    assert float(seen[0, 0, 7, 8] / seen[0, 0, 7, 7]) == pytest.approx(np.exp(-0.5), rel=1e-4)
    assert float(seen[0, 0, 8, 8] / seen[0, 0, 7, 7]) == pytest.approx(np.exp(-1), rel=1e-4)
