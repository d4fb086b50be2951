"""``models chain``, and a chain where models are listed, shown, verified and run."""

from __future__ import annotations

import json
import shutil

import pytest
from model_folders import TINY_UNET, make_segmenter_folder

from napari_histomil.results import SegmentationStore


@pytest.fixture
def zoo(models, tmp_path):
    """A folder with a patch classifier, a U-Net that knows its background, and a refiner."""
    folder = tmp_path / "zoo"
    shutil.copytree(models / "tiny-tumor", folder / "tiny-tumor")
    make_segmenter_folder(folder / "tiny-unet", background_class="normal")
    make_segmenter_folder(
        folder / "tiny-refiner",
        arguments={**TINY_UNET, "in_channels": 4},
        inputs=["overview", "heatmap"],
        normalisation={"mean": [0.5] * 4, "std": [0.2] * 4},
    )
    return folder


@pytest.fixture
def chain(histomil, zoo):
    """Write a chain in the same folder; return the words that do so."""
    words = (
        "models", "chain", "cascade", "--detect", "tiny-tumor", "--segment", "tiny-unet",
        "--models", zoo, "-o", zoo / "cascade",
    )  # fmt: skip
    said = histomil(*words, "--class", "tumor", "--threshold", "0.25", "--margin", "40")
    assert said.code == 0, said.err
    assert said.out.strip() == str(zoo / "cascade")
    return words


WORDS = [
    "detect tumor with tiny-tumor (1 µm/px, a cell of 16 µm)",
    "segment with tiny-unet where that is at least 0.25, and 40 µm around",
]


def test_a_chain_is_listed_shown_and_verified(histomil, zoo, chain):
    said = histomil("models", "list", "--models", zoo)
    listed = [line.strip() for line in said.out.splitlines()]
    first = listed.index(f"1. {WORDS[0]}")
    assert listed[first + 1] == f"2. {WORDS[1]}"
    said = histomil("models", "show", "cascade", "--models", zoo)
    assert said.code == 0
    assert [line[12:] for line in said.out.splitlines() if line.startswith("step")] == WORDS
    facts = json.loads(histomil("models", "show", "cascade", "--models", zoo, "--json").out)
    tiny = json.loads(histomil("models", "show", "tiny-tumor", "--models", zoo, "--json").out)
    assert facts["steps"][0] == {
        "do": "detect",
        "model": "tiny-tumor",
        "sha256": tiny["sha256"],
        "class": "tumor",
        "grid": {"mpp": 1.0, "tile_px": 32, "stride_px": 16},
        "stain": "none",
    }
    assert histomil("models", "verify", "--models", zoo, "cascade").code == 0
    assert WORDS[0] in (zoo / "cascade" / "README.md").read_text("utf-8")
    weights = zoo / "tiny-unet" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    said = histomil("models", "verify", "--models", zoo, "cascade")
    assert said.code == 1
    assert "'tiny-unet'" in said.out


def test_a_chain_runs_like_a_model(histomil, zoo, chain, slide, tmp_path):
    said = histomil("run", zoo / "cascade", slide, "-o", tmp_path / "out", "--region", "all")
    assert said.code == 0, said.err
    store = SegmentationStore.open(tmp_path / said.out.strip())
    facts = store.chain
    share = f"({100 * facts['fine_tiles'] / facts['tiles']:.0f} %)"
    line = f"fine segmenter on {facts['fine_tiles']} of {facts['tiles']} tiles {share}; detect "
    assert line in said.err
    assert facts["tiles"] == 7 * 6
    again = histomil("run", zoo / "cascade", slide, "-o", tmp_path / "out", "--region", "all")
    assert again.out == said.out
    assert f"all {facts['tiles'] + facts['detector_tiles']} tiles were done before" in again.err
    said = histomil("segmentation", store.path, "-o", tmp_path / "found.geojson")
    assert said.code == 0, said.err
    assert json.loads((tmp_path / "found.geojson").read_text("utf-8"))["features"] is not None


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--class", "stroma"), "'stroma', which is none of the classes of tiny-tumor"),
        (("--detect", "tiny-unet"), "cannot detect with tiny-unet: that step needs a model that"),
        (("--segment", "tiny-refiner"), "cannot segment with tiny-refiner"),
        (("--refine", "tiny-unet"), "takes overview and heatmap as inputs"),
        (("--threshold", "1.5"), "1.5 is not a probability of 0 to 1"),
        (("--background", "stroma"), "background_class 'stroma' is none of the classes"),
        (("--segment", "no-unet"), "There is no model named 'no-unet'"),
    ],
)
def test_models_that_make_no_chain_are_told(histomil, zoo, chain, words, complaint):
    before = (zoo / "cascade" / "model.json").read_bytes()
    said = histomil(*chain, *words)
    assert said.code == 2
    assert complaint in said.complaint
    assert (zoo / "cascade" / "model.json").read_bytes() == before


def test_another_model_s_folder_is_not_written_over(histomil, zoo, chain):
    said = histomil(*chain, "-o", zoo / "tiny-tumor")
    assert said.code == 2
    assert "holds another model" in said.complaint


def test_a_softmax_model_without_background_needs_one(histomil, zoo, chain):
    make_segmenter_folder(zoo / "plain-unet")
    said = histomil(*chain, "--segment", "plain-unet")
    assert said.code == 2
    assert "give one of normal, Tumor as the background" in said.complaint
    assert histomil(*chain, "--segment", "plain-unet", "--background", "normal").code == 0
