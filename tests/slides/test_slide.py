"""Reading rectangles at any resolution: exact areas, exact places."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_histomil.errors import SlideError
from napari_histomil.slides import slide as slide_module
from napari_histomil.slides.readers import open_slide
from napari_histomil.slides.slide import Level, Slide, axis_factors, read_rect, read_tile
from tests.slides.conftest import halves, picture, write_pyramid
from tests.slides.contract import area_mean

LEVELS = halves(picture(301, 203), 2)


@pytest.fixture(scope="module")
def one_level(tmp_path_factory: pytest.TempPathFactory):
    path = write_pyramid(tmp_path_factory.mktemp("one") / "one.tif", LEVELS[:1], mpp=0.5)
    with open_slide(path) as opened:
        yield opened


@pytest.fixture(scope="module")
def pyramid(tmp_path_factory: pytest.TempPathFactory):
    path = write_pyramid(tmp_path_factory.mktemp("three") / "three.tif", LEVELS, mpp=0.5)
    with open_slide(path) as opened:
        yield opened


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    x=st.floats(0, 150), y=st.floats(0, 100), width=st.floats(40, 150), height=st.floats(40, 100),
    columns=st.integers(1, 39), rows=st.integers(1, 39),
)  # fmt: skip
def test_every_pixel_is_the_mean_of_its_area(one_level: Slide, x, y, width, height, columns, rows):
    found = read_rect(one_level, (x, y), (width, height), (columns, rows))
    wanted = area_mean(LEVELS[0], (x, y), (width, height), (columns, rows))
    # Half a level of rounding; edges within a thousandth of a pixel are snapped to it.
    assert np.abs(found - wanted).max() <= 0.6


@pytest.mark.parametrize("factor", [1, 2, 3, 4, 8])
def test_whole_factors_are_exact(one_level: Slide, factor: int):
    found = read_rect(one_level, (5, 7), (20 * factor, 15 * factor), (20, 15))
    part = LEVELS[0][7 : 7 + 15 * factor, 5 : 5 + 20 * factor].astype(int)
    sums = part.reshape(15, factor, 20, factor, 3).sum((1, 3))
    np.testing.assert_array_equal(found, (sums + factor**2 // 2) // factor**2)
    assert found.flags.writeable


def test_outside_is_white_in_the_mean(one_level: Slide):
    found = read_rect(one_level, (-10, -10), (20, 20), (2, 2))
    assert (found[0] == 255).all()
    assert (found[1, 0] == 255).all()
    wanted = LEVELS[0][:10, :10].reshape(-1, 3).mean(0)
    assert np.abs(found[1, 1] - wanted).max() <= 0.5


def test_neighbouring_tiles_join_without_seam(one_level: Slide):
    """Stride 33.3 px: each pixel row lies where one large read puts it."""
    whole = read_rect(one_level, (0, 0), (199.8, 99.9), (60, 30))
    for column in range(6):
        tile = read_rect(one_level, (33.3 * column, 0), (33.3, 33.3), (10, 10))
        difference = tile.astype(int) - whole[:10, 10 * column : 10 * column + 10]
        assert np.abs(difference).max() <= 1


def test_the_best_level_is_read(pyramid: Slide):
    np.testing.assert_array_equal(read_tile(pyramid, (8, 12), 25, 2.0), LEVELS[2][3:28, 2:27])
    found = read_tile(pyramid, (8, 12), 10, 4.0).astype(float)
    four = LEVELS[2][3:23, 2:22].reshape(10, 2, 10, 2, 3).mean((1, 3))
    assert np.abs(found - four).max() <= 0.5


def test_finer_than_the_slide_is_interpolated_in_place(one_level: Slide):
    """A ramp of 1 grey level a pixel, enlarged 4 times, stays on its line; no seams at edges."""
    ramp = np.repeat(np.arange(200, dtype=np.uint8)[None, :, None], 64, 0).repeat(3, 2)

    class Ramp:
        info = replace(
            one_level.info, width_px0=200, height_px0=64, levels=(Level(200, 64, 1.0, 64, 64),)
        )

        def read_region(self, xy, level, size):
            padded = np.full((size[1], size[0], 3), 255, np.uint8)
            x0, y0 = max(xy[0], 0), max(xy[1], 0)
            part = ramp[y0 : xy[1] + size[1], x0 : xy[0] + size[0]]
            padded[y0 - xy[1] :, x0 - xy[0] :][: part.shape[0], : part.shape[1]] = part
            return padded

    found = read_rect(Ramp(), (40.0, 20), (25, 25), (100, 100))
    wanted = 40 + (np.arange(100) + 0.5) / 4 - 0.5
    assert np.abs(found[..., 0] - wanted).max() <= 1


def test_large_areas_are_read_in_parts(one_level: Slide, monkeypatch: pytest.MonkeyPatch):
    whole = read_rect(one_level, (0.3, 0.7), (290, 190), (31, 17))
    monkeypatch.setattr(slide_module, "BAND_PX", 5000)
    sizes = []
    read = type(one_level).read_region

    def watch(self, xy, level, size):
        sizes.append(size[0] * size[1])
        return read(self, xy, level, size)

    monkeypatch.setattr(type(one_level), "read_region", watch)
    parts = read_rect(one_level, (0.3, 0.7), (290, 190), (31, 17))
    assert max(sizes) < 7000
    assert np.abs(whole.astype(int) - parts).max() <= 1


@pytest.mark.parametrize(
    ("size", "out"), [((0, 5), (5, 5)), ((5, -1), (5, 5)), ((5, 5), (0, 5)), ((5, 5), (5, -2))]
)
def test_sides_must_be_positive(one_level: Slide, size: tuple, out: tuple):
    with pytest.raises(SlideError, match="must be above 0"):
        read_rect(one_level, (0, 0), size, out)


@pytest.mark.parametrize(
    ("size0", "size", "factors"),
    [
        ((2220, 2967), (555, 741), (4, 4)),  # cut off
        ((2220, 2967), (555, 742), (4, 4)),  # rounded up
        ((100_003, 80_001), (25_000, 20_000), (4, 4)),
        ((99_993, 79_994), (24_996, 19_997), (99_993 / 24_996, 79_994 / 19_997)),  # 4.0003
        ((900, 600), (300, 200), (3, 3)),
        ((1000, 1000), (400, 400), (2.5, 2.5)),
        ((2220, 2967), (8, 11), (256, 256)),  # the downsample says 273
    ],
)
def test_what_a_level_pixel_spans(one_level: Slide, size0: tuple, size: tuple, factors: tuple):
    downsample = (size0[0] / size[0] + size0[1] / size[1]) / 2
    info = replace(
        one_level.info,
        width_px0=size0[0],
        height_px0=size0[1],
        levels=(Level(*size0, 1.0, 256, 256), Level(*size, downsample, 256, 256)),
    )
    assert axis_factors(info, 1) == pytest.approx(factors)
    assert axis_factors(info, 0) == (1, 1)


def test_a_cut_off_level_lies_right_to_the_last_pixel(tmp_path: Path):
    """OpenSlide's mean downsample of 4.04 must not shift reads by a pixel at the far edge."""
    image = picture(1203, 43)
    levels = [image, *halves(image, 2)[2:]]
    path = write_pyramid(tmp_path / "far.tif", levels, tile=(64, 32), mpp=0.5)
    with open_slide(path) as slide:
        assert slide.info.downsamples[1] > 4.1
        found = read_tile(slide, (4 * 268, 0), 10, 2.0)
    np.testing.assert_array_equal(found, levels[1][:10, 268:278])
