from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_histomil.errors import OutputError, RunError
from napari_histomil.exchange.attention import shown_map, write_geojson, write_h5
from napari_histomil.exchange.attention_pictures import picture, write_png, write_tiff
from napari_histomil.manifest.model import class_specs
from napari_histomil.results import MilRun
from napari_histomil.results.mil import (
    MilAnswer,
    MilContributions,
    MilLevel,
    MilMap,
    MilSource,
)
from napari_histomil.tiling import GridSpec, TileGrid

SIZE = (1000, 700)


def make_run(*, foreign: bool = False, **changes: Any) -> MilRun:
    """Six tiles of 64 px in two rows, three of them on one class-wise map of two rows."""
    cells = np.array([[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]], np.int32)
    grid = TileGrid(GridSpec(1.0, 32, 32), (0.5, 0.5), SIZE, cells)
    xy = grid.tile_rects_px0[:, :2] + (7.25 if foreign else 0)
    level = MilLevel(xy, (64.0, 64.0), 1.0, None if foreign else grid, 6)
    raw = np.array([[3, 1, 2], [1, 2, 3]], np.float32)
    value = np.exp(raw) / np.exp(raw).sum(1, keepdims=True)
    run = MilRun(
        run_id="0123456789abcdef",
        job={},
        slide={"name": "a ü.svs", "path": None, "fingerprint": "f", "width_px0": SIZE[0],
               "height_px0": SIZE[1], "mpp_xy": [0.5, 0.5], "bounds_px0": [10, 20, 900, 600]},
        model={"name": "toy", "sha256": "m"},
        classes=class_specs(["normal", "tumor"]),
        source=MilSource(4),
        answer=MilAnswer(np.array([0, 1.0]), np.array([0.25, 0.75]), np.array([[0.25, 0.75]])),
        levels=(level,),
        maps=(MilMap(0, "class attention", raw, value, np.array([5, 0, 4])),),
        contributions=(
            MilContributions(0, np.array([0, 4, 5]), np.array([[1, 2, 3], [-1, -2, 4.0]])),
        ),
    )  # fmt: skip
    return replace(run, **changes)


def test_clams_heatmap_holds_raw_attention_of_the_class(tmp_path: Path) -> None:
    assert write_h5(shown_map(make_run()), tmp_path / "a.h5") == 3
    with h5py.File(tmp_path / "a.h5") as file:
        scores, coords = file["attention_scores"], file["coords"]
        assert (scores.dtype, scores.shape, coords.dtype) == (np.float32, (3, 1), np.int64)
        np.testing.assert_array_equal(scores[:, 0], [1, 2, 3], "of the predicted class")
        np.testing.assert_array_equal(coords, [[128, 64], [0, 0], [64, 64]])
        assert json.loads(file.attrs["run"])["probabilities"] == {"normal": 0.25, "tumor": 0.75}
    write_h5(shown_map(make_run(), class_name="normal"), tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5") as file:
        np.testing.assert_array_equal(file["attention_scores"][:, 0], [3, 1, 2])


def test_geojson_has_a_tile_with_all_numbers(tmp_path: Path) -> None:
    assert write_geojson(shown_map(make_run()), tmp_path / "a.geojson") == 3
    document = json.loads((tmp_path / "a.geojson").read_text("utf-8"))
    first, second, _ = document["features"]
    assert first["geometry"]["coordinates"][0][3] == [128 - 10, 64 - 20], "QuPath's frame"
    assert first["geometry"]["coordinates"][0][1] == [192 - 10, 128 - 20]
    measurements = first["properties"]["measurements"]
    assert measurements["attention raw"] == 1
    assert measurements["attention rank"] == pytest.approx(1 / 3)
    assert measurements["contribution normal"] == 3
    assert measurements["contribution tumor"] == 4
    assert second["properties"]["measurements"]["contribution tumor"] == -1
    again = write_geojson(shown_map(make_run()), tmp_path / "b.geojson")
    assert again == 3
    assert (tmp_path / "a.geojson").read_bytes() == (tmp_path / "b.geojson").read_bytes()


@pytest.mark.parametrize("foreign", [False, True])
def test_asap_finds_a_whole_scale_and_the_tiles_where_they_are(
    tmp_path: Path, *, foreign: bool
) -> None:
    path = tmp_path / "a ü_likelihood_map.tif"
    run = make_run(foreign=foreign)
    rows, columns = write_tiff(shown_map(run), path)
    scale = SIZE[0] // columns
    assert scale == SIZE[1] // rows, "ASAP divides sizes, both must give the same"
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        assert page.is_tiled
        assert page.dtype == np.float32
        image = page.asarray()
        assert "hottest tile" in json.loads(page.description)["values"]
    assert image.shape == (rows, columns)
    assert (image.min(), image.max()) == (0, 1)
    shift = 7.25 if foreign else 0
    for (x, y), rank in zip([(128, 64), (0, 0), (64, 64)], (1 / 3, 2 / 3, 1), strict=True):
        middle = int((y + shift + 32) / scale), int((x + shift + 32) / scale)
        assert image[middle] == pytest.approx(rank)
    assert image[int(32 / scale), int(400 / scale)] == 0


def test_a_large_map_has_coarser_levels(tmp_path: Path) -> None:
    slide = {**make_run().slide, "width_px0": 40_000, "height_px0": 31_000}
    write_tiff(shown_map(make_run(foreign=True, slide=slide)), tmp_path / "a.tif")
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        sizes = [page.shape for page in tiff.pages]
    assert sizes[0][1] > 1000
    for (h, w), (half_h, half_w) in pairwise(sizes):
        assert (half_h, half_w) == (-(-h // 2), -(-w // 2))
    assert max(sizes[-1]) <= 256


def test_foreign_tiles_that_overlap_are_averaged() -> None:
    level = MilLevel(np.array([[0.0, 0], [2, 0]]), (4.0, 4.0), None, None, 2)
    maps = (MilMap(0, "attention", None, np.array([[0.25, 0.75]]), np.arange(2)),)
    shown = shown_map(make_run(levels=(level,), maps=maps, slide={"name": "s"}))
    made = picture(shown, shown.values("softmax"))
    np.testing.assert_array_equal(made.image[0], [0.25, 0.25, 0.5, 0.5, 0.75, 0.75])
    assert made.pixel_px0 == (1, 1)


@pytest.mark.parametrize("values", ["rank", "contribution"])
def test_a_picture_for_people(tmp_path: Path, values: str) -> None:
    write_png(shown_map(make_run()), tmp_path / "a.png", None, values)
    with Image.open(tmp_path / "a.png") as image:
        assert max(image.size) > 1000
        assert "tumor 0.750" in image.text["Title"]
        assert ("says nothing about presence" in image.text["Title"]) == (values == "rank")


def test_what_cannot_be_written_is_told(tmp_path: Path) -> None:
    run = make_run()
    with pytest.raises(RunError, match="has no class 'x': choose one of normal, tumor"):
        shown_map(run, class_name="x")
    with pytest.raises(RunError, match="has no map of level 3"):
        shown_map(run, level=3)
    bare = make_run(contributions=(), maps=(replace(run.maps[0], raw=None),))
    with pytest.raises(RunError, match="no exact contributions"):
        shown_map(bare).values("contribution")
    with pytest.raises(RunError, match="no attention before a softmax"):
        shown_map(bare).values("raw")
    with pytest.raises(RunError, match="how large the slide"):
        write_tiff(shown_map(make_run(slide={"name": "s"})), tmp_path / "a.tif")
    with pytest.raises(OutputError):
        write_h5(shown_map(run), tmp_path / "no" / "a.h5")
