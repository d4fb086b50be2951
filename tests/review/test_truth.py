"""What is true of tiles: shares counted by hand, where nothing is judged, which sources agree."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from shapely.geometry import Point, box
from truth_runs import drawn, grid_over, picture_run, tile_run

from napari_histomil.annotations.mask_facts import MaskFacts
from napari_histomil.annotations.mask_files import write_mask
from napari_histomil.annotations.mask_reading import open_mask
from napari_histomil.annotations.masks import LabelTable, MaskGrid
from napari_histomil.annotations.model import class_named
from napari_histomil.annotations.raster import bands, prepare
from napari_histomil.errors import AnnotationError, RunError
from napari_histomil.review.truth import UNJUDGED, bands_of, positive_indices, tile_truth
from napari_histomil.review.truth_sources import MaskTruth, RegionTruth, RunTruth
from napari_histomil.slides.readers import open_slide

GRID = grid_over(160, 96)  # 5 x 3 cells of 32 µm


def share_image(truth, grid=GRID, positive="Tumor", **options):
    found = tile_truth(truth, grid, positive, **options)
    return found, found.share.reshape(grid.shape)


def test_a_tile_is_what_its_cell_holds_by_a_named_share() -> None:
    regions = [
        drawn(box(0, 0, 160, 96), "Region*"),
        drawn(box(0, 0, 32, 32), "Tumor"),  # the whole cell
        drawn(box(32, 0, 48, 32), "Tumor"),  # half
        drawn(box(64, 0, 65, 32), "Tumor"),  # 1/32: not mixed
        drawn(box(96, 0, 98, 32), "Tumor"),  # 1/16: mixed, and negative
        drawn(box(0, 32, 31, 64), "Tumor: Metastasis"),  # 31/32, a kind of it
        drawn(box(0, 64, 32, 96), "Stroma"),
    ]
    truth = RegionTruth(regions, "file.geojson")
    found, share = share_image(truth)
    np.testing.assert_allclose(share[0], [1, 0.5, 1 / 32, 1 / 16, 0])
    np.testing.assert_allclose(share[1:, 0], [31 / 32, 0])
    assert np.flatnonzero(found.positive).tolist() == [0, 1, 5]
    assert np.flatnonzero(found.mixed).tolist() == [1, 3]
    assert (found.judged == 1).all()
    assert "50% of its judged area" in found.rule
    assert "inside Region* and without Ignore*" in found.rule
    strict, _ = share_image(truth, from_share=0.75)
    assert np.flatnonzero(strict.positive).tolist() == [0, 5]
    positive, rest = found.pixels()
    assert positive.sum() + rest.sum() == 15 * 32 * 32
    assert found.pixel_um2 == 1
    stroma = found.names.index("Stroma")
    assert found.counts is not None
    assert found.counts[:, stroma].tolist() == [0] * 10 + [1024] + [0] * 4


def test_only_what_was_annotated_exhaustively_is_judged() -> None:
    regions = [
        drawn(box(0, 0, 80, 32), "Region*"),  # two cells and a half
        drawn(box(0, 0, 16, 32), "Tumor"),
        drawn(box(16, 0, 32, 16), "Ignore*"),
        drawn(box(32, 0, 52, 32), "Ignore*"),  # more than half of the second
        drawn(box(64, 0, 80, 8), "Tumor"),
        drawn(box(96, 64, 128, 96), "Tumor"),  # outside: nobody said all is annotated there
    ]
    found, share = share_image(RegionTruth(regions, "a"))
    assert share[0, 0] == pytest.approx(512 / 768)
    assert np.isnan(share[0, 1])
    assert share[0, 2] == pytest.approx(8 / 32)  # of the half that was judged
    assert found.known.sum() == 2
    assert not found.positive[13]
    declared, share = share_image(RegionTruth(regions, "a", fully_annotated=True))
    assert share[2, 3] == 1
    assert np.isnan(share[0, 1])  # still ignored
    assert declared.known.sum() == 14
    assert "declared fully annotated" in declared.rule


def test_without_a_region_or_with_all_of_it_ignored_it_is_refused() -> None:
    tumor = drawn(box(0, 0, 9, 9), "Tumor")
    with pytest.raises(AnnotationError, match=r"no Region\*.*declare the slide fully annotated"):
        RegionTruth([tumor], "a.xml")
    everything = [drawn(box(0, 0, 90, 90), n) for n in ("Region*", "Ignore*")]
    with pytest.raises(AnnotationError, match="is ignored"):
        RegionTruth([tumor, *everything], "a.xml")


def test_beyond_the_slide_nothing_is_judged_and_edge_tiles_count_what_they_have() -> None:
    grid = grid_over(72, 32)  # the third cell has 8 of 32 µm
    found, share = share_image(
        RegionTruth([drawn(box(0, 0, 68, 40), "Tumor")], "a", fully_annotated=True), grid
    )
    np.testing.assert_allclose(share, [[1, 1, 0.5]])
    np.testing.assert_allclose(found.judged, [1, 1, 0.25])


def test_what_the_run_did_not_look_at_is_counted_apart() -> None:
    some = GRID.select(np.arange(15) > 0)
    regions = [drawn(box(0, 0, 16, 32), "Tumor"), drawn(box(0, 0, 32, 96), "Region*")]
    found = tile_truth(RegionTruth(regions, "a"), some, "Tumor")
    assert found.unseen is not None
    assert found.unseen.tolist() == [512, 512]


def test_a_mask_says_what_the_regions_say(tmp_path: Path) -> None:
    regions = [
        drawn(box(0, 0, 128, 96), "Region*"),
        drawn(Point(50, 40).buffer(30), "Tumor"),
        drawn(box(96, 0, 128, 20), "Ignore*"),
    ]
    pixels = MaskGrid(160, 96, (2.0, 2.0), (1.0, 1.0))
    table = LabelTable.of([class_named("Tumor")])
    write_mask(
        tmp_path / "m.ome.tif",
        bands(prepare(regions, pixels, table)),
        MaskFacts(pixels, table, "slide.tif"),
    )
    drawn_share = tile_truth(RegionTruth(regions, "a"), GRID, "tumor")
    with open_mask(tmp_path / "m.ome.tif") as mask:
        truth = MaskTruth(mask)
        painted_share = tile_truth(truth, GRID, "tumor")
        np.testing.assert_array_equal(painted_share.share, drawn_share.share)
        coarse = np.concatenate(
            [b for _, b in bands_of(truth, MaskGrid(40, 24, (8, 8)), (320, 192))]
        )
        assert coarse[10, 12] == 0
        assert coarse[0, 0] == 1
        assert coarse[0, 35] == UNJUDGED
        whole = tile_truth(MaskTruth(mask, fully_annotated=True), GRID, "tumor")
    assert whole.known.all()


def test_a_mask_of_another_program_says_nothing_of_its_zeros(tmp_path: Path) -> None:
    values = np.zeros((48, 80), np.uint8)
    values[:16, :16] = 255
    tifffile.imwrite(tmp_path / "m.tif", values)
    white = np.full((192, 320, 3), 255, np.uint8)
    tifffile.imwrite(tmp_path / "s.tif", white, tile=(64, 64), photometric="rgb")
    with open_slide(tmp_path / "s.tif", mpp=(0.5, 0.5)) as slide:
        info = slide.info
    with open_mask(tmp_path / "m.tif", info) as mask:
        truth = MaskTruth(mask, {255: "Tumor"})
        assert truth.names == ("Tumor", "background")
        found = tile_truth(truth, GRID, "Tumor")
        assert found.known.sum() == 1
        declared = tile_truth(MaskTruth(mask, {255: "Tumor"}, fully_annotated=True), GRID, "Tumor")
    assert declared.known.all()
    assert declared.positive.sum() == 1


def test_another_run_is_a_truth(tmp_path: Path) -> None:
    scores = np.linspace(0, 1, 15)
    scores[3] = np.nan
    run = tile_run(tmp_path, GRID, scores)
    found, _ = share_image(RunTruth(run, "tumor", 0.6), positive="tumor")
    known = np.arange(15) != 3
    np.testing.assert_array_equal(found.known, known)
    np.testing.assert_array_equal(found.positive, (scores >= np.float32(0.6)) & known)
    picture = np.zeros((96, 160))
    picture[:, :40] = 1
    found, share = share_image(RunTruth(picture_run(tmp_path, GRID, picture), "tumor"),
                               positive="tumor")  # fmt: skip
    np.testing.assert_allclose(share, [[1, 0.25, 0, 0, 0]] * 3)
    with pytest.raises(RunError, match="has no class necrosis"):
        RunTruth(run, "necrosis")


def test_a_class_and_those_derived_from_it() -> None:
    names = ("Tumor", "Tumor: a", "Tumors", "stroma", "background")
    assert positive_indices(names, "tumor") == (0, 1)
    assert positive_indices(names, "Stroma") == (3,)
    assert positive_indices(names, "x") == ()
