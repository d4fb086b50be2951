"""Labelled pixels lie where they belong, and groups never lie on both sides."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shapely.geometry import Polygon, box

from napari_histomil.annotations.geojson import write_geojson
from napari_histomil.annotations.model import AnnotationClass, Region, SlideFrame
from napari_histomil.errors import TrainingError
from napari_histomil.slides.readers import open_slide
from napari_histomil.slides.synthetic import write_synthetic
from napari_histomil.training.config import Source, read_config
from napari_histomil.training.data import (
    make_synthetic,
    read_slide,
    read_sources,
    read_tiles,
    refuse_leakage,
    split_groups,
)
from napari_histomil.training.fields import UNLABELLED, array_field, cut_around


def test_tiles_are_read_with_groups_and_threshold(toy: Path) -> None:
    fields = read_sources(read_config(toy / "train.toml"), toy)
    assert [f.group for f in fields] == [
        "toy tiles/a+b", "toy tiles/a+b", "toy tiles/c", "toy tiles/d",
    ]  # fmt: skip
    _, labels = fields[0].cut((0, 0), 128)
    assert labels[:, :64].max() == 0
    assert labels[:, 64:].min() == 1


def test_channels_stored_as_bgr_are_turned(toy: Path) -> None:
    source = read_config(toy / "train.toml").sources[0]
    Image.new("RGB", (128, 128), (10, 20, 30)).save(toy / "tiles" / "images" / "a.png")
    image, _ = read_tiles(replace(source, channel_order="bgr"), toy, 1.0)[0].cut((0, 0), 4)
    assert image[0, 0].tolist() == [30, 20, 10]


def test_tiles_of_another_resolution_are_averaged(toy: Path) -> None:
    source = read_config(toy / "train.toml").sources[0]
    field = read_tiles(replace(source, mpp=0.5), toy, 1.0)[0]
    assert field.size_px == (64, 64)
    assert field.cut((0, 0), 64)[1].mean() == 0.5


def test_a_mask_without_its_picture_is_refused(toy: Path) -> None:
    (toy / "tiles" / "images" / "c.png").unlink()
    with pytest.raises(TrainingError, match="c has no partner"):
        read_sources(read_config(toy / "train.toml"), toy)


def test_a_group_of_a_missing_picture_is_refused(toy: Path) -> None:
    source = replace(read_config(toy / "train.toml").sources[0], groups=(("a", "nobody"),))
    with pytest.raises(TrainingError, match="nobody"):
        read_tiles(source, toy, 1.0)


def test_no_data_is_one_sentence(toy: Path) -> None:
    with pytest.raises(TrainingError, match="name the data's folder with --data"):
        read_sources(read_config(toy / "train.toml"), toy / "elsewhere")


def test_pieces_are_mirrored_and_slides_end_in_glass() -> None:
    image = np.arange(16, dtype=np.uint8).reshape(4, 4)[..., None].repeat(3, axis=2)
    labels = np.ones((4, 4), np.uint8)
    piece = array_field("p", "g", "s", image, labels, mirrored=True)
    pixels, _ = piece.cut((-2, 0), 4)
    assert pixels[0, :, 0].tolist() == [2, 1, 0, 1]
    slide = array_field("p", "g", "s", image, labels, mirrored=False)
    pixels, found = slide.cut((-2, 2), 4)
    assert pixels[0, :, 0].tolist() == [255, 255, 8, 9]
    assert found[:2].tolist() == [[0, 0, 1, 1]] * 2
    assert pixels[2:].min() == 255


def test_a_slide_with_regions(tmp_path: Path) -> None:
    write_synthetic(tmp_path / "s.tiff", width=512, height=512, mpp=0.5, seed=1)
    frame = SlideFrame()
    with open_slide(tmp_path / "s.tiff") as slide:
        frame = SlideFrame.of(slide.info)
    tumor = AnnotationClass("Tumor", (200, 0, 0))
    other = AnnotationClass("Other", (255, 200, 0))
    ring = Polygon(box(100, 100, 300, 300).exterior, [box(150, 150, 200, 200).exterior])
    write_geojson(
        tmp_path / "s.geojson",
        [Region(ring, tumor), Region(box(0, 0, 50, 50), other)],
        frame=frame,
    )
    source = Source(
        "slide",
        "slides",
        "CC0-1.0",
        1.0,
        path="s.tiff",
        annotations="s.geojson",
        class_names={"Tumor": "tumor"},
    )
    field = read_slide(source, tmp_path, 1.0, ["normal", "tumor"])
    with field.slide:
        image, labels = field.cut((40, 40), 120)  # level-0 px 80 to 320, halved
        assert image.shape == (120, 120, 3)
        expected = np.full((120, 120), UNLABELLED, np.uint8)
        expected[10:110, 10:110] = 1
        expected[35:60, 35:60] = UNLABELLED
        np.testing.assert_array_equal(labels, expected)
        rng = np.random.default_rng(0)
        for _ in range(20):
            x, y = field.centre(rng)
            assert 50 <= x < 150
            assert 50 <= y < 150
        rest = replace(field, unannotated=0).cut((40, 40), 120)[1]
        assert set(np.unique(rest)) == {0, 1}
    with pytest.raises(TrainingError, match="holds no region of Necrosis"):
        read_slide(
            replace(source, class_names={"Necrosis": "tumor"}), tmp_path, 1.0, ["normal", "tumor"]
        )
    with pytest.raises(TrainingError, match="'cancer' is none of the classes"):
        read_slide(
            replace(source, class_names={"Tumor": "cancer"}), tmp_path, 1.0, ["normal", "tumor"]
        )


def test_a_synthetic_field_knows_tumour_and_glass() -> None:
    size = (512, 512)
    whole = make_synthetic(3, "s", 1.0, size)
    tissue = make_synthetic(3, "s", 1.0, size, only_tissue=True)
    assert whole.size_px == (256, 256)
    assert 0 < whole.labels.mean() < 1
    np.testing.assert_array_equal(whole.image, tissue.image)
    glass = tissue.labels == UNLABELLED
    assert glass.any()
    assert whole.labels[glass].max() == 0
    np.testing.assert_array_equal(whole.labels[~glass], tissue.labels[~glass])
    assert whole.image[glass].mean() > whole.image[~glass].mean()


def test_groups_are_split_whole_and_evenly() -> None:
    groups = ["x"] * 6 + ["y"] * 2 + ["z"] * 2 + [f"s{i}" for i in range(10)]
    parts = split_groups(groups, 5)
    assert sorted(g for part in parts for g in part) == sorted(set(groups))
    assert sorted(sum(groups.count(g) for g in part) for part in parts) == [3, 3, 4, 4, 6]
    assert parts == split_groups(list(reversed(groups)), 5)
    with pytest.raises(TrainingError, match="2 groups cannot be split into 3 folds"):
        split_groups(["a", "b", "b"], 3)


def test_leakage_is_refused() -> None:
    image, labels = np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.uint8)
    a, b, c = (
        array_field(name, group, "s", image, labels, mirrored=True)
        for name, group in (("a", "one"), ("b", "one"), ("c", "two"))
    )
    refuse_leakage([a, b], [c])
    with pytest.raises(TrainingError, match="one is both in the training and in the test"):
        refuse_leakage([a, c], [b])


def test_sources_are_drawn_by_their_share() -> None:
    labels = np.zeros((4, 4), np.uint8)
    fields = [
        array_field(str(i), str(i), source, np.full((4, 4, 3), i, np.uint8), labels, mirrored=True)
        for i, source in enumerate(["many", "many", "few", "none"])
    ]
    rng = np.random.default_rng(0)
    shares = {"many": 0.75, "few": 0.25, "none": 0.0}
    drawn = [int(cut_around(fields, shares, 2, rng)[0][0, 0, 0]) for _ in range(400)]
    assert set(drawn) == {0, 1, 2}
    assert 0.15 < drawn.count(2) / 400 < 0.35
