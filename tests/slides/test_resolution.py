"""Which resolutions are believed."""

from __future__ import annotations

from pathlib import Path

import pytest

from napari_histomil.errors import SlideError
from napari_histomil.slides.resolution import (
    given_mpp,
    mpp_from_dots,
    plausible_magnification,
    plausible_mpp,
)


@pytest.mark.parametrize("value", [0.1, "0.2528", 0.25, 0.5, 28.97, 1, 128.0])
def test_plausible(value: object):
    assert plausible_mpp(value, value) == (float(value), float(value))


@pytest.mark.parametrize(
    "value", [0, -0.5, 1e9, 1e-9, "nan", "inf", "", "half", None, [], b"0.5", "1,5"]
)
def test_implausible(value: object):
    assert plausible_mpp(value, 0.5) is None
    assert plausible_mpp(0.5, value) is None


@pytest.mark.parametrize(("value", "power"), [("20", 20.0), (40, 40.0), ("1.25", 1.25)])
def test_magnification(value: object, power: float):
    assert plausible_magnification(value) == power


@pytest.mark.parametrize("value", ["0", -20, 5000, "twenty", None])
def test_no_magnification(value: object):
    assert plausible_magnification(value) is None


@pytest.mark.parametrize(
    ("dots", "unit", "mpp"),
    [
        ((50_800, 50_800), 25_400.0, (0.5, 0.5)),
        ((20_000, 40_000), 10_000.0, (0.5, 0.25)),
        ((72, 72), 25_400.0, None),
        ((72.009, 72.009), 25_400.0, None),
        ((96, 96), 25_400.0, None),
        ((118.11, 118.11), 10_000.0, None),  # 300 dpi
        ((0, 20_000), 10_000.0, None),
        ((float("inf"), 1.0), 10_000.0, None),
        ((1, 1), 25_400.0, None),
        ((72, 25_400), 25_400.0, (25_400 / 72, 1.0)),  # not a printer's pair
    ],
)
def test_resolution_tags(dots: tuple, unit: float, mpp: tuple | None):
    assert mpp_from_dots(dots, unit) == (pytest.approx(mpp) if mpp else None)


def test_given():
    assert given_mpp(0.5, Path("a.svs")) == (0.5, 0.5)
    assert given_mpp([0.5, 0.25], Path("a.svs")) == (0.5, 0.25)
    with pytest.raises(SlideError, match=r"a\.svs.*one number, or two"):
        given_mpp((1.0, 2.0, 3.0), Path("a.svs"))
