from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from napari_histomil.review.nuclear_size import (
    NuclearSize,
    nuclear_size,
    scale_warning,
    slide_nuclear_size,
)
from napari_histomil.slides.readers import open_slide


def discs(diameter_px: float, side: int = 400) -> NDArray[np.uint8]:
    """Blue discs on pink."""
    image = np.full((side, side, 3), (225, 150, 190), np.uint8)
    y, x = np.mgrid[:side, :side]
    rng = np.random.default_rng(0)
    step = int(3 * diameter_px)
    for cy in range(step // 2, side, step):
        for cx in range(step // 2, side, step):
            dy, dx = rng.uniform(-0.4, 0.4, 2) * diameter_px
            image[np.hypot(y - cy - dy, x - cx - dx) < diameter_px / 2] = (80, 50, 130)
    return image


@pytest.mark.parametrize("diameter_um", [4.0, 7.0, 12.0])
def test_discs_have_a_size_proportional_to_their_diameter(diameter_um: float) -> None:
    for mpp in (0.25, 0.5):
        found = nuclear_size([discs(diameter_um / mpp)], mpp)
        assert found is not None
        assert found.diameter_um == pytest.approx(1.15 * diameter_um, rel=0.05)


def test_where_nothing_can_be_said_nothing_is() -> None:
    white = np.full((200, 200, 3), 245, np.uint8)
    assert nuclear_size([white], 0.5) is None
    assert nuclear_size([], 0.5) is None
    assert nuclear_size([discs(4)], 4.0) is None
    assert nuclear_size([np.full((200, 200, 3), 120, np.uint8)], 0.5) is None
    assert scale_warning(None, 5.0) is None


def test_a_scale_off_by_two_is_told_and_a_small_difference_is_not() -> None:
    assert scale_warning(NuclearSize(6.0, 9), 5.0) is None
    assert scale_warning(NuclearSize(5.5, 9), None) is None
    high = scale_warning(NuclearSize(10.0, 9), 5.0)
    assert high is not None
    assert "10.0 µm across, and 5.0 µm on the slides" in high
    assert "factor of about 2 (it says too many µm)" in high
    low = scale_warning(NuclearSize(2.4, 9), None)
    assert low is not None
    assert "too few µm" in low


def test_a_real_slide_whose_scale_is_off_by_two_is_caught(data_dir: Path) -> None:
    path = data_dir / "wsi-aperio-svs" / "CMU-1-Small-Region.svs"
    found = {}
    for factor in (0.5, 1, 2):
        with open_slide(path, mpp=0.499 * factor) as slide:
            boxes = np.array([[x, y, 256.0, 256] for y in (400, 1400, 2200) for x in (300, 1200)])
            size = slide_nuclear_size(slide, boxes)
            assert size is not None
            found[factor] = size.diameter_um
    right = found[1]
    assert 3.5 < right < 7
    assert scale_warning(NuclearSize(right, 6), None) is None
    assert found[2] == pytest.approx(2 * right, rel=0.1)
    assert found[0.5] == pytest.approx(right / 2, rel=0.2)
    for factor in (0.5, 2):
        assert scale_warning(NuclearSize(found[factor], 6), right) is not None
        assert scale_warning(NuclearSize(found[factor], 6), None) is not None


@pytest.mark.parametrize(
    ("folder", "mpp"), [("seg-tnbc-nuclei", 0.25), ("seg-camelyon-tumor", 0.97)]
)
def test_tiles_of_other_organs_are_within_the_tolerance(
    data_dir: Path, folder: str, mpp: float
) -> None:
    files = sorted((data_dir / folder / "images").glob("*.jpg"))[:6:2]
    tiles: list[Any] = [np.asarray(Image.open(file).convert("RGB"))[:512, :512] for file in files]
    if folder == "seg-camelyon-tumor":
        tiles = [tile[..., ::-1] for tile in tiles]  # stored blue first
    found, doubled = nuclear_size(tiles, mpp), nuclear_size(tiles, 2 * mpp)
    assert found is not None
    assert doubled is not None
    assert scale_warning(found, None) is None
    assert scale_warning(doubled, None) is not None
