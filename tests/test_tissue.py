"""Tissue is found where it is, on slides made and real, and counted exactly."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from napari_histomil.slides.readers import open_slide
from napari_histomil.slides.slide import Level, SlideInfo
from napari_histomil.slides.synthetic import Stains, SyntheticSlide
from napari_histomil.tissue import TissueMask, TissueOptions, find_tissue


@dataclass(frozen=True)
class ArraySlide:
    """A slide in memory, as far as finding tissue needs one."""

    pixels: NDArray[np.uint8]
    mpp: float | None = None

    @property
    def info(self) -> SlideInfo:
        height, width = self.pixels.shape[:2]
        return SlideInfo(
            path=Path("array"),
            reader="array",
            vendor="",
            width_px0=width,
            height_px0=height,
            mpp_x=self.mpp,
            mpp_y=self.mpp,
            mpp_source=None,
            objective_power=None,
            levels=(Level(width, height, 1.0, width, height),),
            channels=("red", "green", "blue"),
            dtype="uint8",
            composite="",
            bounds_px0=None,
            associated_images=(),
            properties={},
            fingerprint="",
        )

    def read_region(
        self, xy_px0: tuple[int, int], level: int, size: tuple[int, int]
    ) -> NDArray[np.uint8]:
        (x, y), (width, height) = xy_px0, size
        return self.pixels[y : y + height, x : x + width]


def synthetic(width: int, height: int, mpp: float, seed: int, **look: object) -> SyntheticSlide:
    return SyntheticSlide(width, height, mpp=mpp, seed=seed, **look)  # type: ignore[arg-type]


def find(slide: SyntheticSlide) -> TissueMask:
    pixels = slide.read((0, 0), (slide.width, slide.height))
    return find_tissue(ArraySlide(pixels, slide.mpp))  # type: ignore[arg-type]


def centres_um(found: TissueMask, mpp: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    y, x = np.indices(found.mask.shape, dtype=np.float32)
    return (x + 0.5) * found.scale_px0[0] * mpp, (y + 0.5) * found.scale_px0[1] * mpp


# --- synthetic slides: the truth is known ------------------------------------------------------


@pytest.mark.parametrize(
    ("width", "height", "mpp", "seed"),
    [(1800, 1400, 1.0, 0), (1024, 1024, 0.5, 3), (1000, 1300, 2.0, 5), (800, 600, 4.0, 8)],
)
def test_synthetic_tissue_is_found(width: int, height: int, mpp: float, seed: int) -> None:
    slide = synthetic(width, height, mpp, seed)
    found = find(slide)
    x, y = centres_um(found, mpp)
    truth = slide.scene.tissue_depth(x, y) > 0
    dice = 2 * (truth & found.mask).sum() / (truth.sum() + found.mask.sum())
    assert found.kind == "brightfield"
    assert dice >= 0.94
    fat = truth & (slide.scene.node.depth_um(x, y) < -20)
    assert found.mask[fat].mean() > 0.8
    glass = slide.scene.tissue_depth(x, y) < -60
    assert not found.mask[glass].any()  # with it all of the pen


@pytest.mark.parametrize("pen", ["green", "black"])
def test_pen_across_the_section_is_left_out(pen: str) -> None:
    slide = synthetic(1200, 1000, 2.0, 1)
    pixels = slide.read((0, 0), (1200, 1000))
    ink = {"green": (60, 165, 95), "black": (35, 35, 38)}[pen]
    band = np.s_[:, 560:620]
    pixels[band] = (pixels[band].astype(float) / 244 * ink).astype(np.uint8)
    found = find_tissue(ArraySlide(pixels, 2.0))  # type: ignore[arg-type]
    scale = found.scale_px0[0]
    line = np.s_[:, round(565 / scale) : round(615 / scale)]
    assert found.mask[line].mean() < 0.02
    x, y = centres_um(found, 2.0)
    node = slide.scene.node.depth_um(x, y) > 0
    away = node & ((x < 520 * 2) | (x > 660 * 2))
    assert found.mask[away].mean() > 0.97
    with_ink = find_tissue(
        ArraySlide(pixels, 2.0),  # type: ignore[arg-type]
        options=TissueOptions(leave_out_ink=False),
    )
    assert with_ink.mask[line].mean() > 0.25


def test_blue_pen_on_glass_is_left_out() -> None:
    slide = synthetic(1000, 1000, 2.0, 1, pen="blue")
    found = find(slide)
    assert not found.mask[slide.scene.pen_depth(*centres_um(found, 2.0)) > -20].any()


def test_faint_section_is_found() -> None:
    slide = synthetic(1600, 1200, 1.0, 2, stains=Stains(strength=0.12), pen="")
    found = find(slide)
    x, y = centres_um(found, 1.0)
    node = slide.scene.node.depth_um(x, y) > 0
    assert found.mask[node].mean() > 0.95
    assert found.mask[slide.scene.tissue_depth(x, y) < -60].mean() < 0.01


def test_dark_edges_and_cover_slip_are_left_out() -> None:
    slide = synthetic(1600, 1200, 1.0, 4, pen="")
    pixels = slide.read((0, 0), (1600, 1200))
    clean = find_tissue(ArraySlide(pixels, 1.0))  # type: ignore[arg-type]
    dirty = pixels.copy()
    dirty[:, :90] = 25  # holder
    dirty[:40] = (dirty[:40] * 0.75).astype(np.uint8)  # shadow
    dirty[:, 1540:1552] = 60  # edge of the cover slip
    rows, columns = np.indices(dirty.shape[:2])
    for cx, cy in ((200, 1100), (1450, 100), (1300, 1150)):  # grains of dust
        dirty[np.hypot(columns - cx, rows - cy) < 8] = (120, 90, 60)
    found = find_tissue(ArraySlide(dirty, 1.0))  # type: ignore[arg-type]
    assert (found.mask != clean.mask).mean() < 0.002


def test_unknown_mpp_makes_no_difference_worth_mentioning() -> None:
    slide = synthetic(1200, 900, 2.0, 6)
    pixels = slide.read((0, 0), (1200, 900))
    known = find_tissue(ArraySlide(pixels, 2.0))  # type: ignore[arg-type]
    unknown = find_tissue(ArraySlide(pixels))  # type: ignore[arg-type]
    assert unknown.mask.mean() == pytest.approx(known.mask.mean(), rel=0.05)


# --- slides of one colour ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("color", "share"),
    [
        ((255, 255, 255), 0),
        ((236, 234, 238), 0),
        ((0, 0, 0), 0),
        ((160, 90, 170), 1),
        ((225, 190, 220), 1),
    ],
)
@pytest.mark.parametrize("mpp", [None, 0.25])
def test_uniform_slides(color: tuple[int, int, int], share: float, mpp: float | None) -> None:
    pixels = np.full((900, 1100, 3), color, np.uint8)
    assert find_tissue(ArraySlide(pixels, mpp)).mask.mean() == share  # type: ignore[arg-type]


def test_noisy_glass_holds_no_tissue() -> None:
    rng = np.random.default_rng(0)
    light = 235 + rng.normal(0, 1.5, (1000, 1000, 3)) + np.linspace(-8, 8, 1000)[:, None, None]
    pixels = np.clip(light, 0, 255).astype(np.uint8)
    assert not find_tissue(ArraySlide(pixels, 8.0)).mask.any()  # type: ignore[arg-type]


# --- real images -------------------------------------------------------------------------------


def real_image(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        white = Image.new("RGBA", image.size, "white")
        return np.asarray(Image.alpha_composite(white, image.convert("RGBA")).convert("RGB"))


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("almost-white-1", 0, 0),
        ("no-tissue", 0, 0.002),
        ("no-tissue-line", 0, 0.002),
        ("no-tissue-green-pen", 0, 0),
        ("low-nuclei-score-level1", 0.5, 1),  # fat
        ("medium-nuclei-score-green-pen-level1", 0.4, 0.65),
        ("tcga-green-pen", 0.8, 0.92),
        ("tcga-lung-rgb", 0.85, 1),
        ("tissue-level0-4302-10273-4814-10785", 0.85, 1),
        ("tissue-level2-3000-7666-7096-11763", 0.75, 0.88),
    ],
)
def test_real_tiles(data_dir: Path, name: str, least: float, most: float) -> None:
    pixels = real_image(data_dir / "tiles-histolab-tissue" / f"{name}.png")
    found = find_tissue(ArraySlide(pixels))  # type: ignore[arg-type]
    assert found.kind == "brightfield"
    assert least <= found.mask.mean() <= most


def test_real_pen_is_left_out(data_dir: Path) -> None:
    pixels = real_image(data_dir / "tiles-histolab-tissue" / "tcga-green-pen.png")
    found = find_tissue(ArraySlide(pixels))  # type: ignore[arg-type]
    smooth = ndimage.uniform_filter(pixels.astype(float), (15, 15, 0))
    green = smooth[..., 1] > smooth[..., 0] + 15
    assert 0.05 < green.mean() < 0.2
    assert found.mask[green].mean() < 0.06
    red = smooth[..., 0] > smooth[..., 1] + 40
    assert found.mask[red].mean() > 0.99


def test_real_lymph_nodes_with_fat(data_dir: Path) -> None:
    path = data_dir / "wsi-dicom-camelyon-thumb" / "multi_frame_jpeg_camelyon_challenge_image.dcm"
    with open_slide(path) as slide:
        found = find_tissue(slide)
        pixels = slide.read_region((0, 0), 0, (slide.info.width_px0, slide.info.height_px0))
    assert 0.3 < found.mask.mean() < 0.5
    purple = pixels[..., 1] < 150
    assert found.mask[purple].mean() > 0.99
    border = np.concatenate([found.mask[:5].ravel(), found.mask[-5:].ravel()])
    assert not border.any()
    assert len(found.polygons()) <= 12  # four sections and their shreds


def test_real_section_reaching_the_edge(data_dir: Path) -> None:
    with open_slide(data_dir / "wsi-aperio-svs" / "CMU-1-Small-Region.svs") as slide:
        found = find_tissue(slide)
    assert 0.36 < found.mask.mean() < 0.48
    height, width = found.mask.shape
    assert not found.mask[: height // 4, : width // 20].any()  # glass on the left
    assert found.mask[-3:, width // 3 : width // 2].all()  # cut off below, not eroded
    assert len(found.polygons()) <= 4


def test_real_fluorescence(data_dir: Path) -> None:
    with open_slide(data_dir / "wsi-hamamatsu-ndpi" / "test3-DAPI-2-387.ndpi") as slide:
        found = find_tissue(slide)
        size = found.mask.shape[1], found.mask.shape[0]
        level = slide.info.levels[-1]
        small = slide.read_region((0, 0), len(slide.info.levels) - 1, (level.width, level.height))
    assert found.kind == "fluorescence"
    assert 0.6 < found.mask.mean() < 0.92
    glow = np.asarray(Image.fromarray(small.max(axis=2)).resize(size, Image.Resampling.BOX))
    assert found.mask[glow > 60].mean() > 0.99
    assert not found.mask[-20:].all(axis=0).any()  # dark below the section


def test_black_fluorescence_holds_nothing() -> None:
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 6, (600, 600, 3)).astype(np.uint8)
    found = find_tissue(ArraySlide(pixels, 1.0))  # type: ignore[arg-type]
    assert found.kind == "fluorescence"
    assert not found.mask.any()
    pixels[200:400, 100:300, 2] += 90
    found = find_tissue(ArraySlide(pixels, 1.0))  # type: ignore[arg-type]
    assert found.mask[180:340, 90:250].all()  # of 512 px that show 600
    assert found.mask.mean() < 1.6 / 9


# --- counting ----------------------------------------------------------------------------------

MASKS = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12))
SCALE = (3.5, 2.0)


@settings(max_examples=60, deadline=None)
@given(
    mask=MASKS,
    rects=hnp.arrays(
        np.float64, st.tuples(st.integers(1, 5), st.just(4)), elements=st.floats(0, 40, width=32)
    ),
)
def test_fraction_is_the_exact_area(mask: NDArray[np.bool_], rects: NDArray[np.float64]) -> None:
    rects[:, :2] -= 8
    tissue = TissueMask(mask, SCALE, "brightfield")
    pixels = shapely.union_all(
        [
            shapely.box(x * SCALE[0], y * SCALE[1], (x + 1) * SCALE[0], (y + 1) * SCALE[1])
            for y, x in np.argwhere(mask)
        ]
    )
    for rect, share in zip(rects, tissue.fraction(rects), strict=True):
        x, y, width, height = rect.tolist()
        box = shapely.box(x, y, x + width, y + height)
        expected = box.intersection(pixels).area / box.area if box.area > 1e-9 else None
        if expected is not None:
            assert share == pytest.approx(expected, abs=1e-6)


def test_rectangle_without_area_holds_nothing() -> None:
    tissue = TissueMask(np.ones((4, 4), np.bool_), (1.0, 1.0), "brightfield")
    assert tissue.fraction(np.array([[1.0, 1.0, 0.0, 2.0]])).tolist() == [0.0]
    assert tissue.fraction(np.empty((0, 4))).shape == (0,)
    assert tissue.fraction(np.array([[-2.0, 0.0, 4.0, 4.0]])).tolist() == [0.5]


@settings(max_examples=60, deadline=None)
@given(mask=MASKS)
def test_polygons_are_the_mask(mask: NDArray[np.bool_]) -> None:
    polygons = TissueMask(mask, SCALE, "brightfield").polygons()
    assert all(polygon.is_valid for polygon in polygons)
    y, x = np.indices(mask.shape)
    inside = np.zeros(mask.shape, int)
    for polygon in polygons:
        inside += shapely.contains_xy(polygon, (x + 0.5) * SCALE[0], (y + 0.5) * SCALE[1])
    np.testing.assert_array_equal(inside, mask.astype(int))
    area = sum(polygon.area for polygon in polygons)
    assert area == pytest.approx(mask.sum() * SCALE[0] * SCALE[1])
    assert len(polygons) == ndimage.label(mask)[1]
    assert [p.area for p in polygons] == sorted((p.area for p in polygons), reverse=True)


def test_area_counts_micrometres() -> None:
    mask = np.zeros((10, 10), np.bool_)
    mask[2:5, 1:9] = True
    assert TissueMask(mask, (16.0, 16.0), "brightfield").area_um2((0.25, 0.5)) == 24 * 4 * 8
