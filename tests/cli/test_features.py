"""``features``, ``bag`` and ``models encoders``: what they print, write and refuse."""

from __future__ import annotations

import json
import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import safetensors.torch
import timm
from model_folders import make_encoder_folder

from napari_histomil.results import FeatureStore
from napari_histomil.results.bag import bag_of_runs

TINY = {"channels": [8, 16, 16, 16], "stem_width": 8}


@pytest.fixture(scope="session")
def encoders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("енкодери")
    make_encoder_folder(folder / "tiny-encoder", "resnet10t", TINY)
    return folder


@pytest.fixture
def features(histomil, encoders, tmp_path):
    """Call ``histomil features tiny-encoder ... -o out``."""

    def call(*words, encoder="tiny-encoder"):
        return histomil(
            "features", encoder, *words, "-o", tmp_path / "out", "--models", encoders,
            "--device", "cpu",
        )  # fmt: skip

    return call


def stores(said):
    return [FeatureStore.open(Path(line)) for line in said.out.splitlines()]


def test_two_magnifications_are_nested_and_written_for_others(features, slide, tmp_path, histomil):
    said = features(slide, "--mpp", 1, "--mpp", 2, "--format", "clam", "--format", "trident")
    assert said.code == 0, said.err
    low, high = stores(said)
    assert (low.grid.spec.mpp, high.grid.spec.mpp) == (2.0, 1.0)
    assert len(high.grid) == 4 * len(low.grid)
    first = bag_of_runs([high, low]).levels[1]
    assert first.parents.tolist() == np.repeat(np.arange(len(low.grid)), 4).tolist()
    assert " tiles of 32 px at 2 µm/px, 16 values each, in " in said.err
    written = sorted((tmp_path / "out" / "trident").rglob("features_tiny-encoder/*.h5"))
    assert [p.parts[-3] for p in written] == [
        "10x_32px_0px_overlap", "5x_32px_0px_overlap",
    ]  # fmt: skip
    with h5py.File(written[0]) as file:
        np.testing.assert_array_equal(file["features"][:], np.asarray(first.features))
    told = histomil("bag", written[0], "--slide", slide, "--json")
    assert json.loads(told.out)["levels"] == [
        {"tiles": len(high.grid), "side_px0": [64.0, 64.0], "mpp": 1.0}
    ]
    again = features(slide, "--mpp", 1, "--mpp", 2)
    assert again.out == said.out
    assert "all were done before" in again.err
    both = histomil("bag", low.path, high.path)
    assert both.out.splitlines()[0].endswith("features of tiny-encoder, 16 values a tile")


def test_json_has_just_these_members(features, slide):
    said = features(slide, "--json", "--tta")
    row = json.loads(said.out)
    assert list(row) == ["run", "encoder", "mpp", "tiles", "dim", "seconds", "device"]
    assert (row["encoder"], row["dim"], row["mpp"]) == ("tiny-encoder", 16, 1.0)
    assert FeatureStore.open(Path(row["run"])).tta


def test_a_classifier_is_an_encoder_too(features, slide, models):
    (store,) = stores(features(slide, encoder=models / "tiny-tumor"))
    assert store.model["name"] == "tiny-tumor"
    assert store.classes == ()


def test_one_tile_is_a_bag(features, slide, histomil):
    (store,) = stores(features(slide, "--region", "130,130,60,60"))
    assert len(store.grid) == 1
    said = histomil("bag", store.path, "--slide", slide)
    assert "1 tiles of 64 x 64 px of the slide, 1 µm/px" in said.out


def test_weights_of_ones_own(features, slide, tmp_path):
    net = timm.create_model("test_resnet.r160_in1k", pretrained=False)
    safetensors.torch.save_file(net.state_dict(), tmp_path / "w.safetensors")
    said = features(
        slide, "--weights", tmp_path / "w.safetensors", encoder="timm/test_resnet.r160_in1k"
    )
    assert said.code == 0, said.err
    (store,) = stores(said)
    assert (store.dim, store.grid.spec.tile_px) == (net.num_features, 160)
    by_name = features(slide, encoder=store.model["name"])
    assert by_name.out == said.out, "it is a model like any other from now on"


@pytest.mark.parametrize(
    ("words", "encoder", "why"),
    [
        (["--mpp", "1", "--mpp", "1.5"], "tiny-encoder", "do not divide"),
        (["--mpp", "0"], "tiny-encoder", "not a number above 0"),
        ([], "tiny-encodr", "Did you mean tiny-encoder"),
        ([], "uni", "cannot be reached"),
        ([], "timm/no-such-net", "timm has no net"),
        (["--weights", "w.pt"], "tiny-encoder", "--weights is for published encoders"),
        (["--weights", "none.pt"], "uni", "none.pt cannot be read"),
        ([], "nuclei-unet-small", "cannot embed tiles"),
    ],
)
def test_bad_input_is_a_sentence(features, slide, words, encoder, why, tmp_path):
    said = features(slide, *words, encoder=encoder)
    assert said.code == 2, said.err
    assert why in said.err
    assert "Traceback" not in said.err
    assert not list((tmp_path / "out").rglob("*.zarr"))


def test_slides_that_cannot_be_looked_at_are_told(features, write_slide, tmp_path):
    said = features(write_slide(tmp_path / "no-mpp.tif", mpp=None))
    assert (said.code, "--slide-mpp" in said.complaint) == (2, True)
    said = features(write_slide(tmp_path / "blank.tif", blank=True))
    assert (said.code, "No tissue was found" in said.complaint) == (2, True)


def test_a_tree_needs_a_place(histomil, slide, encoders):
    said = histomil("features", encoders / "tiny-encoder", slide, "--format", "clam")
    assert (said.code, "say where with -o" in said.complaint) == (2, True)


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere"
)
def test_a_folder_that_is_read_only_is_told(features, slide, tmp_path):
    (tmp_path / "out").mkdir(mode=0o500)
    said = features(slide)
    assert (said.code, "cannot be written" in said.complaint) == (2, True)


def test_a_place_that_is_a_file_is_told(features, slide, tmp_path):
    (tmp_path / "out").write_bytes(b"")
    said = features(slide)
    assert (said.code, "cannot be written" in said.complaint) == (2, True)


def test_a_real_slide_at_two_magnifications(features, data_dir):
    path = data_dir / "wsi-aperio-svs" / "CMU-1-Small-Region.svs"
    said = features(path, "--mpp", 8, "--mpp", 4)
    assert said.code == 0, said.err
    low, high = bag_of_runs(stores(said)).levels
    assert (len(high), len(low)) == (4 * len(low), len(low))
    assert np.isfinite(np.asarray(high.features)).all()


def test_a_file_without_a_tile_size_names_the_option(histomil, data_dir):
    path = data_dir / "mil-features-tcga-crc" / "TCGA-AD-6964-01Z-00-DX1" / "features.h5"
    said = histomil("bag", path)
    assert (said.code, "--tile-px0" in said.complaint) == (2, True)
    said = histomil("bag", path, "--tile-px0", 512, "--mpp", 1.1)
    assert "777 tiles of 512 x 512 px of the slide, 1.1 µm/px" in said.out


def test_published_encoders_are_listed_with_how_to_get_them(histomil):
    rows = {row["name"]: row for row in json.loads(histomil("models", "encoders", "--json").out)}
    assert {"uni", "uni2-h", "virchow2", "h-optimus-0", "conch", "gigapath", "phikon"} <= set(rows)
    assert (rows["virchow2"]["dim"], rows["virchow2"]["gated"]) == (2560, True)
    text = histomil("models", "encoders").out
    assert "https://huggingface.co/MahmoodLab/UNI2-h" in text
    assert "gated: ask there, then 'hf auth login'" in text
