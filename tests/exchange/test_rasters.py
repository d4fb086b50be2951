"""Heatmaps as files: the right value at the right place, for us and for other readers."""

from __future__ import annotations

import json
import re
import uuid

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_histomil.errors import RunError
from napari_histomil.exchange.rasters import scale_bar_um, write_png, write_tiff
from napari_histomil.heatmaps import score_image
from napari_histomil.slides.readers import open_slide
from napari_histomil.tiling import GridSpec


def title_of(path):
    with Image.open(path) as picture:
        return picture.info["Title"]


def test_all_classes_are_pages_with_names_and_size(make_run, tmp_path):
    run = make_run()
    path = tmp_path / "heatmap.ome.tif"
    assert write_tiff(run, path) == (8, 11)
    with tifffile.TiffFile(path) as tiff:
        assert tiff.is_ome
        assert tiff.series[0].axes == "CYX"
        values = tiff.asarray()
        page = tiff.pages[0]
        assert page.is_tiled
        pixels = tifffile.xml2dict(tiff.ome_metadata)["OME"]["Image"]["Pixels"]
        per_cm = page.tags["XResolution"].value
    for column in range(2):
        np.testing.assert_array_equal(values[column], score_image(run.grid, run.scores[:, column]))
    assert [channel["Name"] for channel in pixels["Channel"]] == ["normal", "tumor"]
    assert (pixels["PhysicalSizeX"], pixels["PhysicalSizeY"]) == (32, 32)
    assert 1e4 * per_cm[1] / per_cm[0] == pytest.approx(32)


def test_one_class(make_run, tmp_path):
    run = make_run()
    write_tiff(run, tmp_path / "a.ome.tif", "tumor")
    values = tifffile.imread(tmp_path / "a.ome.tif")
    np.testing.assert_array_equal(np.squeeze(values), score_image(run.grid, run.scores[:, 1]))


def test_what_has_no_score_is_nan(make_run, tmp_path):
    run = make_run(blocks=1)
    write_tiff(run, tmp_path / "a.ome.tif", "tumor")
    values = np.squeeze(tifffile.imread(tmp_path / "a.ome.tif"))
    assert np.isnan(values).sum() == len(run.grid) - 64
    known = run.grid.cells[:64]
    assert np.isfinite(values[known[:, 0], known[:, 1]]).all()


def test_what_made_it_is_in_the_file(make_run, tmp_path):
    run = make_run()
    write_tiff(run, tmp_path / "a.ome.tif")
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as tiff:
        description = tifffile.xml2dict(tiff.ome_metadata)["OME"]["Image"]["Description"]
    made = description if isinstance(description, dict) else json.loads(description)
    assert made["run"] == "0123456789abcdef"
    assert made["slide"] == run.slide["name"]


def test_the_same_run_gives_the_same_file_and_names_no_machine(make_run, tmp_path):
    run = make_run()
    for name in ("a.ome.tif", "b.ome.tif"):
        write_tiff(run, tmp_path / name)
    with (
        tifffile.TiffFile(tmp_path / "a.ome.tif") as a,
        tifffile.TiffFile(tmp_path / "b.ome.tif") as b,
    ):
        assert a.ome_metadata == b.ome_metadata
        (identifier,) = re.findall(r'UUID="urn:uuid:([0-9a-f-]+)"', a.ome_metadata)
    assert uuid.UUID(identifier).version == 5  # version 1 holds the machine's address


def test_coarser_levels_are_means_of_what_is_known_and_exact_halves(
    make_run, tmp_path, monkeypatch
):
    monkeypatch.setattr("napari_histomil.exchange.rasters.TIFF_TILE_PX", 32)
    run = make_run(spec=GridSpec(mpp=0.5, tile_px=10, stride_px=10), classes=("tumor",))
    assert run.grid.shape == (50, 70)
    # padded with NaN to multiples of 4, so that every level is half the one before
    assert write_tiff(run, tmp_path / "a.ome.tif") == (52, 72)
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as tiff:
        levels = [np.squeeze(level.asarray()) for level in tiff.series[0].levels]
    assert [level.shape for level in levels] == [(52, 72), (26, 36), (13, 18)]
    image = score_image(run.grid, run.scores[:, 0])
    np.testing.assert_array_equal(levels[0][:50, :70], image)
    assert np.isnan(levels[0][50:]).all()
    assert np.isnan(levels[0][:, 70:]).all()
    np.testing.assert_allclose(levels[2][3, 5], image[12:16, 20:24].mean(), rtol=1e-6)
    # the last pixel of the coarsest level: two of four columns and rows are known
    np.testing.assert_allclose(levels[2][12, 17], image[48:, 68:].mean(), rtol=1e-6)


def test_our_own_reader_sees_the_same_place_in_heatmap_and_slide(make_run, slide_path, tmp_path):
    # the dark square of the slide spans px0 (256, 128) to (384, 256): cells (2..3, 4..5)
    plain = make_run(name="plain.zarr")
    hot = np.zeros((len(plain.grid), 2), np.float32)
    rows, columns = plain.grid.cells.T
    hot[(rows >= 2) & (rows < 4) & (columns >= 4) & (columns < 6)] = 1
    run = make_run(scores=hot)
    write_tiff(run, tmp_path / "a.ome.tif", "tumor")
    with open_slide(tmp_path / "a.ome.tif") as heatmap, open_slide(slide_path) as slide:
        assert heatmap.info.mpp_xy == pytest.approx((32, 32))
        assert (heatmap.info.width_px0, heatmap.info.height_px0) == (11, 8)
        cells = heatmap.read_region((0, 0), 0, (11, 8)).astype(int).sum(axis=2)
        factor = round(heatmap.info.mpp / slide.info.mpp)
        assert factor == 64
        bright = np.argwhere(cells > cells.mean())
        assert sorted(map(tuple, bright.tolist())) == [(2, 4), (2, 5), (3, 4), (3, 5)]
        for row, column in bright.tolist():
            under = slide.read_region((column * factor, row * factor), 0, (factor, factor))
            assert (under == (150, 60, 140)).all()


def test_an_unknown_class_names_the_known_ones(make_run, slide_path, tmp_path):
    run = make_run()
    words = "no class 'tumour': choose one of normal, tumor"
    with pytest.raises(RunError, match=words):
        write_tiff(run, tmp_path / "a.tif", "tumour")
    with open_slide(slide_path) as slide, pytest.raises(RunError, match=words):
        write_png(run, tmp_path / "a.png", slide, "tumour")


def test_the_picture_shows_the_overlay_where_the_tissue_is(make_run, slide_path, tmp_path):
    plain = make_run(name="plain.zarr")
    scores = np.full((len(plain.grid), 2), np.nan, np.float32)
    rows, columns = plain.grid.cells.T
    square = (rows >= 2) & (rows < 4) & (columns >= 4) & (columns < 6)
    scores[square] = 1
    run = make_run(scores=scores)
    path = tmp_path / "heatmap.png"
    with open_slide(slide_path) as slide:
        write_png(run, path, slide)
    with Image.open(path) as picture:
        image, metadata = np.asarray(picture.convert("RGB")).astype(int), picture.info
    assert image.shape[1] > 1000
    # half of viridis' yellow (253, 231, 37) over the tissue, and nothing over the glass
    mixed = np.abs(image - ((253 + 150) / 2, (231 + 60) / 2, (37 + 140) / 2)).max(axis=2) < 6
    height, width = np.argwhere(mixed).max(axis=0) - np.argwhere(mixed).min(axis=0)
    assert mixed.sum() > 0.9 * height * width
    assert height == pytest.approx(width, rel=0.03)
    plain_tissue = np.abs(image - (150, 60, 140)).max(axis=2) < 6
    assert plain_tissue.sum() < 0.02 * mixed.sum()
    assert metadata["Title"].startswith("слайд [1] 50%.tif\ntiny, tumor")
    assert json.loads(metadata["Description"])["run"] == run.run_id


def test_a_picture_of_an_unfinished_run_says_so(make_run, slide_path, tmp_path):
    with open_slide(slide_path) as slide:
        write_png(make_run(blocks=1), tmp_path / "a.png", slide, "normal")
    assert title_of(tmp_path / "a.png").endswith("tiny, normal\nunfinished: 64 of 88 tiles")


def test_names_that_look_like_formulas_or_lack_glyphs(make_run, slide_path, tmp_path):
    run = make_run(classes=("normal", "$\\alpha{$ 肿瘤"))
    with open_slide(slide_path) as slide:
        write_png(run, tmp_path / "a.png", slide)
    assert "$\\alpha{$" in title_of(tmp_path / "a.png")


def test_a_picture_wants_the_slide_of_the_run(make_run, tmp_path, slide_path):
    other = tmp_path / "other.tif"
    tifffile.imwrite(other, np.zeros((300, 300, 3), np.uint8), tile=(128, 128), photometric="rgb")
    with (
        open_slide(other) as slide,
        pytest.raises(RunError, match=r"other\.tif is not the slide of this run"),
    ):
        write_png(make_run(), tmp_path / "a.png", slide)


@pytest.mark.parametrize(
    ("width_um", "bar"),
    [(1000, 200), (999, 100), (5, 1), (2500, 500), (60_000, 10_000), (0.5, 0.1)],
)
def test_the_scale_bar_is_a_round_length(width_um, bar):
    assert scale_bar_um(width_um) == pytest.approx(bar)
