"""Tiles to train on: which are made, what they hold, who is on which side."""

from __future__ import annotations

import csv
import json
from collections import Counter

import numpy as np
import pytest
import tifffile
from PIL import Image
from shapely.geometry import box

from napari_histomil.annotations.masks import LabelTable
from napari_histomil.annotations.model import Region, class_named
from napari_histomil.annotations.training_tiles import (
    AnnotatedSlide,
    TileOptions,
    split_groups,
    unique_names,
    write_tiles,
)
from napari_histomil.errors import AnnotationError, OutputError
from napari_histomil.slides.readers import open_slide
from napari_histomil.slides.slide import read_rect
from napari_histomil.tiling import GridSpec

TUMOR, WHERE = class_named("Tumor"), class_named("Region*")
TABLE = LabelTable.of([TUMOR])
REGIONS = (Region(box(0, 0, 600, 500), WHERE), Region(box(100, 100, 300, 200), TUMOR))


@pytest.fixture
def slide(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (500, 700, 3), np.uint8)
    path = tmp_path / "зріз.tif"
    per_cm = 1e4 / 0.5
    tifffile.imwrite(
        path,
        pixels,
        tile=(128, 128),
        photometric="rgb",
        resolution=(per_cm, per_cm),
        resolutionunit="CENTIMETER",
    )
    with open_slide(path) as opened:
        yield opened


def options(**changes):
    return TileOptions(**({"spec": GridSpec(1.0, 64, 64), "table": TABLE} | changes))


def make(out, slides, **changes):
    *_, last = write_tiles(out, slides, options(**changes))
    with (out / "manifest.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert last.written == len(lines)
    return lines


def test_tiles_hold_the_slide_and_the_mask_at_their_place(tmp_path, slide):
    out = tmp_path / "tiles"
    one = AnnotatedSlide(slide, REGIONS, "s", "Петро", "train")
    lines = make(out, [one])
    places = {(float(line["x_px0"]), float(line["y_px0"])) for line in lines}
    # 128 px a tile; of column 4 (512 to 640) 88 px of 128 are inside, of row 3 (384 to 512) 116
    assert places == {(128.0 * i, 128.0 * j) for i in range(5) for j in range(4)}
    assert {path.name for path in (out / "images").iterdir()} == {line["tile"] for line in lines}
    for line in lines:
        x, y = int(float(line["x_px0"])), int(float(line["y_px0"]))
        image = np.asarray(Image.open(out / "images" / line["tile"]))
        mask = np.asarray(Image.open(out / "masks" / line["tile"]))
        np.testing.assert_array_equal(image, read_rect(slide, (x, y), (128, 128), (64, 64)))
        row, column = np.indices((64, 64)) * 2 + 1
        row, column = row + y, column + x
        expected = np.full((64, 64), 255)
        expected[(column < 600) & (row < 500)] = 0
        expected[(column > 100) & (column < 300) & (row > 100) & (row < 200)] = 1
        np.testing.assert_array_equal(mask, expected)
        assert float(line["share Tumor"]) == pytest.approx((mask == 1).mean(), abs=1e-6)
        assert float(line["share unlabelled"]) == pytest.approx((mask == 255).mean(), abs=1e-6)
        assert (line["slide"], line["patient"], line["split"]) == ("зріз.tif", "Петро", "train")
    classes = json.loads((out / "classes.json").read_text(encoding="utf-8"))
    assert classes["classes"] == [{"value": 1, "name": "Tumor", "color": [200, 0, 0]}]


def test_only_what_is_labelled_enough_and_on_the_slide(tmp_path, slide):
    one = AnnotatedSlide(slide, REGIONS, "s", "p", "train")
    strict = make(tmp_path / "a", [one], min_labelled=1.0)
    assert len(strict) == 4 * 3
    lesions = make(
        tmp_path / "b", [AnnotatedSlide(slide, REGIONS[1:], "s", "p", "train")], min_labelled=0.2
    )
    assert {line["share background"] for line in lesions} == {"0.0"}
    whole = make(tmp_path / "c", [one], fully_annotated=True, min_labelled=0.01)
    assert len(whole) == 6 * 4
    corner = np.asarray(Image.open(tmp_path / "c" / "masks" / "s_640_384.png"))
    assert (corner[:58, :30] == 0).all()
    assert (corner[58:] == 255).all()
    assert (corner[:, 30:] == 255).all()
    with pytest.raises(AnnotationError, match="No tile is labelled to 50% or more"):
        make(tmp_path / "d", [AnnotatedSlide(slide, (), "s", "p", "train")])
    assert not (tmp_path / "d").exists()


def test_the_folder_is_replaced_whole_or_stays(tmp_path, slide):
    out = tmp_path / "tiles"
    one = AnnotatedSlide(slide, REGIONS, "s", "p", "train")
    before = make(out, [one])
    started = write_tiles(out, [one], options(min_labelled=1.0))
    next(started)
    started.close()  # cancelled
    assert len(list((out / "images").iterdir())) == len(before)
    make(out, [one], min_labelled=1.0)
    assert len(list((out / "images").iterdir())) == 12
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiles", "зріз.tif"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("dear")
    with pytest.raises(OutputError, match="something else"):
        make(tmp_path / "mine", [one])


def test_nobody_is_on_both_sides_and_no_name_stands_for_two(tmp_path, slide):
    sides = [AnnotatedSlide(slide, REGIONS, n, "p", s) for n, s in (("a", "train"), ("b", "val"))]
    with pytest.raises(AnnotationError, match="p is in train and in val"):
        make(tmp_path / "x", sides)
    with pytest.raises(AnnotationError, match="Two slides are called a"):
        make(tmp_path / "x", [sides[0], sides[0]])
    with pytest.raises(AnnotationError, match="above 0 and at most 1"):
        make(tmp_path / "x", sides[:1], min_labelled=1.5)


def test_splits_are_by_chance_repeatable_and_of_the_shares_asked_for():
    groups = [f"p{i}" for i in range(20)]
    split = split_groups(groups, {"train": 0.7, "val": 0.15, "test": 0.15}, seed=1)
    assert Counter(split.values()) == {"train": 14, "val": 3, "test": 3}
    assert split_groups([*groups[::-1], *groups], {"train": 70, "val": 15, "test": 15}, 1) == split
    assert split_groups(groups, {"train": 0.7, "val": 0.15, "test": 0.15}, seed=2) != split
    few = split_groups(["a", "b", "c"], {"train": 0.98, "val": 0.01, "test": 0.01})
    assert Counter(few.values()) == {"train": 1, "val": 1, "test": 1}
    for count in range(2, 30):
        sizes = Counter(split_groups(map(str, range(count)), {"a": 0.8, "b": 0.2}).values())
        assert sum(sizes.values()) == count
        assert abs(sizes["b"] - max(0.2 * count, 1)) <= 0.5


def test_splits_that_cannot_be_are_refused():
    with pytest.raises(AnnotationError, match="1 patients or slides cannot be put into 2"):
        split_groups(["a", "a"], {"train": 0.8, "val": 0.2})
    with pytest.raises(AnnotationError, match="above 0"):
        split_groups(["a", "b"], {"train": 1, "val": 0})


def test_names_of_tiles_are_those_of_slides_numbered_where_they_repeat(tmp_path):
    paths = [tmp_path / n for n in ("a.ome.tif", "b.svs", "x/b.svs", "a.svs")]
    assert unique_names(paths) == ["a", "b", "b-2", "a-2"]
