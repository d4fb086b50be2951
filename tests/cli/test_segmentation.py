"""``run`` with a model that segments, and ``segmentation``: the journey from slide to regions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from model_folders import make_segmenter_folder

from napari_histomil.annotations.geojson import read_geojson
from napari_histomil.annotations.mask_reading import open_mask
from napari_histomil.results import SegmentationStore, find_runs
from napari_histomil.slides.readers import open_slide


@pytest.fixture(scope="module")
def segmenters(tmp_path_factory):
    folder = tmp_path_factory.mktemp("segmenters")
    make_segmenter_folder(folder / "tiny-unet", background_class="normal")
    return folder


@pytest.fixture
def picture(histomil, segmenters, slide, tmp_path):
    """A finished segmentation of the whole slide."""
    said = histomil(
        "run", "tiny-unet", slide, "-o", tmp_path / "out", "--models", segmenters,
        "--region", "all",
    )  # fmt: skip
    assert said.code == 0, said.err
    return Path(said.out.strip())


def test_a_run_says_what_it_found(histomil, segmenters, slide, tmp_path):
    words = ["run", "tiny-unet", slide, "-o", tmp_path / "out", "--models", segmenters]
    said = histomil(*words)
    assert said.code == 0, said.err
    store = SegmentationStore.open(Path(said.out.strip()))
    assert store.complete
    assert len(store.grid) < 42, "only tissue is looked at"
    lines = said.err.splitlines()
    assert lines[0].startswith(f"{slide.name}: {len(store.grid)} tiles in ")
    assert lines[1].startswith(f"{slide.name}: Tumor ")
    assert lines[1].endswith(" mm² looked at")
    again = json.loads(histomil(*words, "--json").out)
    assert (again["run"], again["seconds"]) == (str(store.path), 0)
    with open_slide(slide) as opened:
        assert find_runs(opened.info, tmp_path / "out") == [], "no heatmap of patches"
        assert find_runs(opened.info, tmp_path / "out", task="segment") == [store.path]


def test_regions_and_labels_are_the_same_objects(histomil, picture, slide, tmp_path):
    steps = ["--fill-holes", "300", "--remove-objects", "100"]
    drawn, labels = tmp_path / "r.geojson", tmp_path / "l.ome.tif"
    assert histomil("segmentation", picture, "-o", drawn, *steps).code == 0
    assert histomil("segmentation", picture, "-o", labels, *steps).code == 0
    regions = read_geojson(drawn).regions
    assert regions
    assert {r.class_name for r in regions} == {"Tumor"}
    assert {r.author for r in regions} == {"tiny-unet"}
    with open_slide(slide) as opened, open_mask(labels, opened.info) as mask:
        pixels = np.concatenate(list(mask.bands()))
        assert mask.facts.grid.mpp_xy == (1.0, 1.0)
    area_px = sum(r.geometry.area for r in regions) / 4
    assert (pixels == 1).sum() == pytest.approx(area_px)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("p.ome.tif", "probability"), ("p.zarr", "probability"), ("l.zarr", "labels"),
     ("l.png", "labels"), ("o.ome.tif", "outlines"), ("r.geojson", "regions")],
)  # fmt: skip
def test_every_kind_is_written(histomil, picture, tmp_path, name, kind):
    said = histomil("segmentation", picture, "-o", tmp_path / name, "--as", kind)
    assert said.code == 0, said.err
    assert said.out.strip() == str(tmp_path / name)
    assert (tmp_path / name).exists()
    again = histomil("segmentation", picture, "-o", tmp_path / name, "--as", kind)
    assert again.code == 2
    assert "--force" in again.complaint


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["-o", "x.geojson", "--as", "labels"], "cannot hold labels"),
        (["-o", "x.ome.tif", "--as", "regions"], "cannot hold regions"),
        (["-o", "x.ome.tif", "--as", "probability", "--threshold", "0.5"], "leave the steps out"),
        (["-o", "x.geojson", "--threshold", "2"], "0 to 1"),
        (["-o", "x.geojson", "--class", "tumour"], "choose one of normal, Tumor"),
        (["-o", "x.doc"], "does not tell a format"),
    ],
)
def test_what_cannot_be_is_told(histomil, picture, tmp_path, monkeypatch, words, complaint):
    monkeypatch.chdir(tmp_path)
    said = histomil("segmentation", picture, *words)
    assert said.code == 2
    assert complaint in said.complaint
    assert not (tmp_path / words[1]).exists()


def test_each_verb_refuses_the_other_kind_of_run(histomil, picture, run_path, tmp_path):
    said = histomil("export", picture, "-o", tmp_path / "x.csv")
    assert said.code == 2
    assert "histomil segmentation" in said.complaint
    said = histomil("segmentation", run_path, "-o", tmp_path / "x.geojson")
    assert said.code == 2
    assert "no segmentation" in said.complaint


def test_models_say_their_task(histomil, segmenters):
    said = histomil("models", "show", "tiny-unet", "--models", segmenters)
    assert "segment" in said.out
    assert "margins of 16 px" in said.out
    (facts,) = [
        m
        for m in json.loads(histomil("models", "list", "--models", segmenters, "--json").out)
        if m["name"] == "tiny-unet"
    ]
    assert (facts["task"], facts["margin_px"]) == ("segment", 16)


def test_a_stride_that_does_not_fit_is_told(histomil, segmenters, slide, tmp_path):
    words = ["run", "tiny-unet", slide, "-o", tmp_path / "out", "--models", segmenters]
    said = histomil(*words, "--stride", "33")
    assert said.code == 2
    assert "a stride that is even" in said.complaint
    assert not (tmp_path / "out").exists()
