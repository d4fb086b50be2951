from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_histomil import tissue
from napari_histomil.slides import glass
from napari_histomil.slides.glass import find_glass, from_afar
from napari_histomil.slides.readers import open_slide
from napari_histomil.slides.slide import Slide, read_rect
from napari_histomil.slides.tiles import TiledSlide
from napari_histomil.tissue import find_tissue

WIDTH, HEIGHT, TILE = 5000, 4000, 128


@cache
def scene(bright: bool = True) -> np.ndarray:
    """Noisy glass with a solid piece of tissue, a faint one and a speck."""
    rng = np.random.default_rng(3)
    y, x = np.ogrid[:HEIGHT, :WIDTH]
    noise = np.tile(rng.integers(-2, 3, (500, 500, 1), np.int8), (8, 10, 1))
    texture = np.tile(rng.integers(-30, 31, (50, 125, 1), np.int8), (10, 5, 1))
    texture = texture.repeat(8, 0).repeat(8, 1)  # [4000, 5000, 1]
    image = np.full((HEIGHT, WIDTH, 3), (241, 239, 242), np.uint8)
    solid = (x - 1800) ** 2 + (y - 1500) ** 2 < 900**2
    image[solid] = np.add(texture, (180, 110, 170), dtype=np.int16)[solid]
    faint = (x - 4000) ** 2 + (y - 2900) ** 2 < 500**2
    image[faint] = np.add(texture // 6, (228, 208, 232), dtype=np.int16)[faint]
    image[300:420, 4300:4420] = (150, 90, 160)
    image += noise.view(np.uint8)  # wraps around to what is meant
    return image if bright else 245 - image


@pytest.fixture(scope="module")
def one_level(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("glass") / "one.tif", scene())


def write(path: Path, image: np.ndarray) -> Path:
    tifffile.imwrite(path, image, tile=(TILE, TILE), compression="jpeg", photometric="rgb",
                     compressionargs={"level": 75}, resolution=(20_000, 20_000),
                     resolutionunit="CENTIMETER", metadata=None)  # fmt: skip
    return path


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[int, int, int]]:
    """How often each tile of any slide was decoded."""
    counts: Counter[tuple[int, int, int]] = Counter()
    make = TiledSlide._make

    def counted(self: TiledSlide, level: int, row: int, column: int, halvings: int) -> np.ndarray:
        counts[level, row, column] += 1
        return make(self, level, row, column, halvings)

    monkeypatch.setattr(TiledSlide, "_make", counted)
    return counts


def test_tissue_is_found_without_decoding_glass(
    one_level: Path,
    decoded: Counter[tuple[int, int, int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with open_slide(one_level) as slide:
        quick = find_tissue(slide).mask
        few = len(decoded)
        found = find_glass(slide, 0)
        assert found is not None
        monkeypatch.setattr(tissue, "from_afar", lambda slide, level, shrink: slide)
        exact = find_tissue(slide).mask
    total = -(-WIDTH // TILE) * -(-HEIGHT // TILE)
    assert few < 0.6 * total
    assert max(decoded.values()) <= 4, "for the sample, for the overview, and for this test"
    assert 0.15 < exact.mean() < 0.2
    assert (quick & exact).sum() / (quick | exact).sum() > 0.99
    height, width = exact.shape
    assert not exact[:, -width // 50 :].any(), "glass is glass"
    assert exact[height * 2900 // HEIGHT, width * 4000 // WIDTH], "the faint piece"
    rows = np.arange(exact.shape[0]) * HEIGHT // exact.shape[0] // TILE
    columns = np.arange(exact.shape[1]) * WIDTH // exact.shape[1] // TILE
    assert not (exact & found.tiles[rows][:, columns]).any()


def test_the_overview_is_that_of_all_pixels(one_level: Path) -> None:
    """Right to a grey level or two where there is something; one colour where there is glass."""
    with open_slide(one_level) as slide:
        seen = from_afar(slide, 0, 16.0)
        assert seen is not slide
        whole = (WIDTH, HEIGHT)
        quick = read_rect(seen, (0, 0), whole, (WIDTH // 8, HEIGHT // 8)).astype(int)
        exact = read_rect(slide, (0, 0), whole, (WIDTH // 8, HEIGHT // 8)).astype(int)
    assert np.abs(quick - exact).max() <= 4
    assert np.abs(quick - exact)[100:250, 130:300].max() <= 3, "tissue"


def test_small_levels_are_read_as_they_are(tmp_path: Path) -> None:
    path = write(tmp_path / "small.tif", scene()[:1000, :1000])
    with open_slide(path) as slide:
        assert from_afar(slide, 0, 16.0) is slide


def test_dark_slides_have_no_glass(tmp_path: Path) -> None:
    with open_slide(write(tmp_path / "dark.tif", scene(False))) as slide:
        assert find_glass(slide, 0) is None


def test_a_slide_full_of_tissue_has_no_glass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(glass, "MIN_TILES", 20)
    with open_slide(write(tmp_path / "full.tif", scene()[1100:1900, 1400:2200])) as slide:
        assert find_glass(slide, 0) is None


def test_bytes_that_tell_nothing(one_level: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where every tile is stored as it is: then all of them are decoded."""

    def same(self: TiledSlide, level: int) -> np.ndarray:
        return np.full((32, 40), 99)

    with open_slide(one_level) as slide:
        monkeypatch.setattr(TiledSlide, "tile_bytes", same)
        assert find_glass(slide, 0) is None


def test_a_slide_from_afar_is_a_slide(one_level: Path) -> None:
    with open_slide(one_level) as slide:
        seen: Slide = from_afar(slide, 0, 16.0)
        beyond = seen.read_region((-80, -80), 0, (20, 20))
        assert (beyond[:10] == 255).all()
        assert (beyond[10:, 10:] != 255).any()
        assert (seen.read_region((WIDTH + 80, 0), 0, (5, 5)) == 255).all()
        seen.close()
        slide.read_region((0, 0), 0, (1, 1))
