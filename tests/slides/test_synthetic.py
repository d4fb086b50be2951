"""The synthetic slide: the same pixels however they are asked for, and a truth that is true."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import openslide
import pytest
import shapely
import tifffile
from numpy.typing import NDArray

from napari_histomil.annotations.geojson import read_geojson
from napari_histomil.errors import HistomilError
from napari_histomil.slides.readers import open_slide
from napari_histomil.slides.synthetic import SyntheticSlide, write_synthetic
from napari_histomil.slides.synthetic.__main__ import main
from napari_histomil.slides.synthetic.fields import Fields
from napari_histomil.slides.synthetic.histology import Histology
from napari_histomil.slides.synthetic.noise import hash01


@pytest.fixture(scope="module")
def small() -> SyntheticSlide:
    return SyntheticSlide(1500, 1200, mpp=1.0, seed=3)


@pytest.fixture(scope="module")
def pixels(small: SyntheticSlide) -> NDArray[np.uint8]:
    return small.read((0, 0), (1500, 1200))


def test_any_region_alone_equals_the_whole(
    small: SyntheticSlide, pixels: NDArray[np.uint8]
) -> None:
    alone = SyntheticSlide(1500, 1200, mpp=1.0, seed=3)
    np.testing.assert_array_equal(alone.read((450, 333), (301, 402)), pixels[333:735, 450:751])


def test_outside_the_slide_is_white(small: SyntheticSlide, pixels: NDArray[np.uint8]) -> None:
    region = small.read((-20, 1150), (100, 100))
    assert (region[:, :20] == 255).all()
    assert (region[50:] == 255).all()
    np.testing.assert_array_equal(region[:50, 20:], pixels[1150:, :80])


@pytest.mark.parametrize("mpp", [0.25, 0.499, 1.0])
def test_cells_and_fibres_cross_block_edges_unharmed(mpp: float) -> None:
    """One large block and the four small ones in its place hold the same matter."""
    slide = SyntheticSlide(round(1500 / mpp), round(1500 / mpp), mpp=mpp, seed=1)
    small, large = Histology(slide.scene, mpp, 128), Histology(slide.scene, mpp, 256)
    for corner in (slide.truth.tumour[0].centroid, slide.truth.tissue[0].centroid):
        bx, by = int(corner.x // 256), int(corner.y // 256)
        whole = large.matter(bx, by, _fields(slide, bx, by, 256))
        for i in (0, 1):
            for j in (0, 1):
                column, row = 2 * bx + i, 2 * by + j
                part = small.matter(column, row, _fields(slide, column, row, 128))
                place = np.s_[128 * j : 128 * j + 128, 128 * i : 128 * i + 128]
                # Fibres are looked up at rounded places, which rounding may move by a texel.
                for name in ("hematoxylin", "eosin"):
                    gap = np.abs(getattr(whole, name)[place] - getattr(part, name))
                    assert np.quantile(gap, 0.999) < 1e-3, name
                    assert gap.max() < 0.2, name


def _fields(slide: SyntheticSlide, bx: int, by: int, side: int) -> Fields:
    return Fields(slide.scene, (bx * side * slide.mpp, by * side * slide.mpp), side * slide.mpp)


def test_a_seed_is_a_slide(pixels: NDArray[np.uint8]) -> None:
    other = SyntheticSlide(1500, 1200, mpp=1.0, seed=4).read((500, 500), (200, 200))
    assert np.abs(other.astype(int) - pixels[500:700, 500:700]).mean() > 10


def test_hash_is_even_and_independent_of_neighbours() -> None:
    x, y = np.meshgrid(np.arange(-100, 100), np.arange(-100, 100))
    values = hash01(x, y, 5)
    assert values.min() >= 0
    assert values.max() < 1
    counts, _ = np.histogram(values, bins=20, range=(0, 1))
    assert counts.min() > 1800  # 2000 expected, standard deviation 44
    assert counts.max() < 2200
    for other in (values[:, 1:], hash01(x, y, 6)[:, 1:]):
        assert abs(np.corrcoef(values[:, :-1].ravel(), other.ravel())[0, 1]) < 0.03


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("width", "height"), [(1024, 1024), (2400, 1200), (900, 2000)])
def test_truth_is_sound(width: int, height: int, seed: int) -> None:
    truth = SyntheticSlide(width, height, mpp=1.0, seed=seed).truth
    slide = shapely.box(0, 0, width, height)
    tissue = shapely.union_all(truth.tissue)
    assert truth.tumour
    assert tissue.is_valid
    assert tissue.within(slide)
    assert 0.2 < tissue.area / slide.area < 0.6
    for polygon in truth.tumour:
        assert polygon.is_valid
        assert polygon.difference(tissue).area < 1
    assert 0.03 < sum(polygon.area for polygon in truth.tumour) / tissue.area < 0.5


def test_masks_are_the_polygons(small: SyntheticSlide) -> None:
    truth = small.truth
    for mask, polygons in zip(truth.masks(4.0), (truth.tumour, truth.tissue), strict=True):
        assert mask.shape == (300, 375)
        y, x = np.indices(mask.shape) * 4.0 + 2.0
        inside = shapely.contains_xy(shapely.union_all(polygons), x, y)
        assert (inside != mask).mean() < 1e-3


def test_pixels_show_what_the_truth_says(small: SyntheticSlide, pixels: NDArray[np.uint8]) -> None:
    tumour, tissue = small.truth.masks(1.0)
    x, y = np.arange(1500, dtype=np.float32)[None, :], np.arange(1200, dtype=np.float32)[:, None]
    scene = small.scene
    glass = (scene.tissue_depth(x, y) < -50) & (scene.pen_depth(x, y) < -10)
    ink = scene.pen_depth(x, y) > 4
    assert pixels[glass].min() > 225
    assert pixels[ink][:, 1].mean() > pixels[ink][:, 0].mean() + 60  # green
    node = scene.node.depth_um(x, y) > 60
    assert np.median(pixels[node & ~tumour][:, 1]) < 160
    lymphoid = pixels[node & ~tumour].astype(float).mean(axis=0)
    nests = pixels[tumour].astype(float).mean(axis=0)
    assert lymphoid[2] > lymphoid[0] > lymphoid[1]  # hematoxylin and eosin: purple
    assert np.abs(nests - lymphoid).max() > 8
    assert tissue[node].all()


def test_pen_is_optional_and_coloured() -> None:
    blue = SyntheticSlide(600, 600, mpp=2.0, seed=0, pen="blue").read((0, 0), (600, 600))
    none = SyntheticSlide(600, 600, mpp=2.0, seed=0, pen="").read((0, 0), (600, 600))
    differ = (blue != none).any(axis=-1)
    assert 0.001 < differ.mean() < 0.1
    assert blue[differ][:, 2].mean() > blue[differ][:, 0].mean() + 60
    with pytest.raises(HistomilError, match="yellow"):
        SyntheticSlide(600, 600, pen="yellow")


@pytest.mark.parametrize("size", [(1300, 700), (520, 600)])
def test_written_slide_holds_the_pixels_at_every_level(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    path = tmp_path / "ein Präparat [1].tiff"
    truth = write_synthetic(path, width=size[0], height=size[1], mpp=0.8, seed=5)
    slide = SyntheticSlide(*size, mpp=0.8, seed=5)
    expected = slide.read((0, 0), size).astype(float)
    assert truth.tumour == slide.truth.tumour
    with tifffile.TiffFile(path) as tiff:
        for index, page in enumerate(tiff.pages):
            found = page.asarray().astype(float)
            height, width = expected.shape[0] // 2**index, expected.shape[1] // 2**index
            cropped = expected[: height * 2**index, : width * 2**index]
            mean = cropped.reshape(height, 2**index, width, 2**index, 3).mean(axis=(1, 3))
            assert np.abs(found[:height, :width] - mean).mean() < 6, index
    with open_slide(path) as opened, openslide.OpenSlide(path) as by_openslide:
        assert (opened.info.width_px0, opened.info.height_px0) == size
        assert opened.info.mpp_xy == pytest.approx((0.8, 0.8), rel=1e-6)
        assert by_openslide.dimensions == size
        assert float(by_openslide.properties["openslide.mpp-x"]) == pytest.approx(0.8, rel=1e-4)
        assert max(opened.info.levels[-1].width, opened.info.levels[-1].height) <= 512


def test_command_writes_the_same_bytes_twice(tmp_path: Path) -> None:
    files = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        path = tmp_path / folder / "s.tiff"
        assert main([str(path), "--width", "700", "--height", "600", "--mpp", "1"]) == 0
        files.append((path.read_bytes(), path.with_suffix(".geojson").read_bytes()))
    assert files[0] == files[1]


def test_command_writes_annotations_that_are_read_back(tmp_path: Path) -> None:
    path = tmp_path / "s.tiff"
    assert main([str(path), "--width", "900", "--height", "800", "--mpp", "2", "--seed", "7"]) == 0
    truth = SyntheticSlide(900, 800, mpp=2.0, seed=7).truth
    regions = read_geojson(path.with_suffix(".geojson")).regions
    for name, polygons in (("Tumor", truth.tumour), ("Region*", truth.tissue)):
        found = shapely.union_all([r.geometry for r in regions if r.class_name == name])
        expected = shapely.union_all(polygons)
        assert found.symmetric_difference(expected).area / expected.area < 0.01
    document = json.loads(path.with_suffix(".geojson").read_text())
    with open_slide(path) as slide:
        assert document["histomil"]["slide"] == {
            "name": "s.tiff",
            "fingerprint": slide.info.fingerprint,
        }


def test_command_refuses_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path / "s.tiff"), "--width", "10"]) == 2
    assert "10 x 4500" in capsys.readouterr().err
    assert main([str(tmp_path / "none" / "s.tiff"), "--width", "600", "--height", "600"]) == 2
    assert "none" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_sample_slide_is_what_its_command_makes(repository: Path) -> None:
    folder = repository / "sample_data"
    slide = SyntheticSlide(6000, 4500)
    centre = slide.truth.tumour[0].centroid
    corner = int(centre.x) // 256 * 256, int(centre.y) // 256 * 256
    with open_slide(folder / "synthetic-lymph-node.tiff") as opened:
        assert (opened.info.width_px0, opened.info.height_px0) == (6000, 4500)
        assert opened.info.mpp_xy == pytest.approx((0.5, 0.5))
        stored = opened.read_region(corner, 0, (256, 256)).astype(float)
        document = json.loads((folder / "synthetic-lymph-node.geojson").read_text())
        assert document["histomil"]["slide"]["fingerprint"] == opened.info.fingerprint
    assert np.abs(stored - slide.read(corner, (256, 256))).mean() < 6  # JPEG
    assert sum(file.stat().st_size for file in folder.iterdir()) < 6e6
    tumours = [
        f for f in document["features"] if f["properties"]["classification"]["name"] == "Tumor"
    ]
    assert len(tumours) == len(slide.truth.tumour)
