from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from model_folders import make_encoder_folder, make_model_folder, make_segmenter_folder

from napari_histomil.errors import ModelError, RunError
from napari_histomil.inference import predictor
from napari_histomil.inference.engine import run
from napari_histomil.inference.job import Job, RegionSpec, plan_job
from napari_histomil.inference.plan import select_tiles
from napari_histomil.inference.tasks import difference
from napari_histomil.manifest import load_manifest
from napari_histomil.nets.encoders import as_encoder
from napari_histomil.nets.load import build_module, load_module
from napari_histomil.results import FeatureStore, RunStore, find_runs, open_run
from napari_histomil.slides.readers import open_slide
from napari_histomil.slides.slide import read_tile

TINY = {"channels": [8, 16, 16, 16], "stem_width": 8}
TILES = 19 * 15


@pytest.fixture(autouse=True)
def fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictor, "has_fast_bf16", lambda device: False)


@pytest.fixture(scope="module")
def encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_encoder_folder(tmp_path_factory.mktemp("encoders") / "tiny", "resnet10t", TINY)


@pytest.fixture
def make_embedding(slide_path: Path, encoder_folder: Path) -> Callable[..., Job]:
    def make(model: Path = encoder_folder, **options: Any) -> Job:
        options.setdefault("region", RegionSpec("all"))
        with open_slide(slide_path) as slide:
            return plan_job(slide.info, as_encoder(load_manifest(model)), **options)

    return make


def features(job: Job, out: Path, **options: Any) -> FeatureStore:
    *_, last = run(job, out=out, device="cpu", **options)
    return FeatureStore.open(last.store)


def plain(folder: Path, slide_path: Path, store: FeatureStore, tile: int) -> torch.Tensor:
    """The tile as the model is given it, float32 [1, 3, 32, 32]."""
    normalisation = load_manifest(folder).normalisation
    assert normalisation is not None
    mean, std = (torch.tensor(v)[:, None, None] for v in (normalisation.mean, normalisation.std))
    with open_slide(slide_path) as slide:
        x, y = store.grid.tile_rects_px0[tile, :2]
        pixels = torch.tensor(read_tile(slide, (float(x), float(y)), 32, 1.0))
    return ((pixels.permute(2, 0, 1) / 255 - mean) / std)[None]


def test_every_tile_has_the_features_that_the_plain_net_gives(
    tmp_path: Path,
    make_embedding: Callable[..., Job],
    encoder_folder: Path,
    slide_path: Path,
) -> None:
    store = features(make_embedding(), tmp_path)
    assert store.complete
    assert store.features.dtype == np.float16
    assert (store.features.shape, store.dim) == ((TILES, 16), 16)
    net = load_module(load_manifest(encoder_folder))
    for tile in range(0, TILES, 37):
        with torch.inference_mode():
            wanted = net(plain(encoder_folder, slide_path, store, tile))[0].numpy()
        np.testing.assert_allclose(store.features[tile], wanted, rtol=2e-3, atol=1e-3)
        np.testing.assert_array_equal(store.read(np.array([tile]))[0], store.features[tile])
    assert np.ptp(store.features.astype(float), axis=0).max() > 0.02, "else nothing was tested"
    assert store.warnings == []
    assert store.classes == ()
    assert store.model["embedding_dim"] == 16


def test_a_classifier_embeds_without_its_last_layer(
    tmp_path: Path, make_embedding: Callable[..., Job], model_folder: Path, slide_path: Path
) -> None:
    job = make_embedding(model_folder, stride_px=32)
    store = features(job, tmp_path)
    net = load_module(load_manifest(model_folder))
    with torch.inference_mode():
        x = plain(model_folder, slide_path, store, 7)
        wanted = net.forward_head(net.forward_features(x), pre_logits=True)[0].numpy()
    np.testing.assert_allclose(store.features[7], wanted, rtol=2e-3, atol=1e-3)


def test_a_centre_patch_gives_the_two_means_it_answers_from(
    tmp_path: Path, make_embedding: Callable[..., Job], slide_path: Path
) -> None:
    arguments = {
        "backbone": "resnet10t", "backbone_arguments": TINY, "level": 2, "cell_px": 16,
    }  # fmt: skip
    folder = make_model_folder(
        tmp_path / "centre", architecture={"name": "histomil/centre-patch", "arguments": arguments}
    )
    torch.manual_seed(0)
    net = build_module("histomil/centre-patch", 2, arguments).eval()
    safetensors.torch.save_file(net.state_dict(), folder / "weights.safetensors")
    digest = hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()
    weights = {"file": "weights.safetensors", "format": "safetensors", "sha256": digest}
    text = (folder / "model.json").read_text("utf-8")
    (folder / "model.json").write_text(json.dumps({**json.loads(text), "weights": weights}))
    store = features(make_embedding(folder, stride_px=32), tmp_path)
    assert store.dim == 32
    with torch.inference_mode():
        x = plain(folder, slide_path, store, 11)
        logits = net(x)[0]
        given = torch.tensor(store.features[11].astype(np.float32))
        again = given @ net.head.weight.T + net.head.bias
    np.testing.assert_allclose(again, logits, atol=5e-3)


def test_a_graph_cannot_be_asked_for_features(tmp_path: Path, model_folder: Path) -> None:
    segmenter = make_segmenter_folder(tmp_path / "unet")
    with pytest.raises(ModelError, match=r"unet cannot embed tiles \(segment\)"):
        as_encoder(load_manifest(segmenter))


def test_augmentation_is_the_mean_over_eight_ways_and_another_run(
    tmp_path: Path,
    make_embedding: Callable[..., Job],
    encoder_folder: Path,
    slide_path: Path,
) -> None:
    job = make_embedding(tta=True)
    assert job.run_id != make_embedding().run_id
    store = features(job, tmp_path)
    assert store.tta
    net = load_module(load_manifest(encoder_folder))
    x = plain(encoder_folder, slide_path, store, 30)
    ways = [torch.rot90(y, k, (2, 3)) for y in (x, x.flip(3)) for k in range(4)]
    with torch.inference_mode():
        wanted = net(torch.cat(ways)).mean(0).numpy()
        once = net(x)[0].numpy()
    np.testing.assert_allclose(store.features[30], wanted, rtol=2e-3, atol=1e-3)
    assert np.abs(wanted - once).max() > 5e-3, "else nothing was tested"


def test_cancelled_and_resumed_is_the_same_to_the_last_bit(
    tmp_path: Path, make_embedding: Callable[..., Job]
) -> None:
    job = make_embedding()
    straight = features(job, tmp_path / "a")
    cancel = threading.Event()
    for progress in run(job, out=tmp_path / "b", device="cpu", cancel=cancel):
        if progress.done:
            cancel.set()
    part = FeatureStore.open(progress.store)
    done = part.done_tiles
    assert 0 < done.sum() < TILES
    assert np.isnan(part.features[~done]).all()
    assert part.known_tiles.tolist() == np.flatnonzero(done).tolist()
    told = list(run(job, out=tmp_path / "b", device="cpu"))
    assert told[0].resumed == done.sum()
    again = FeatureStore.open(progress.store)
    np.testing.assert_array_equal(again.features, straight.features)
    (only,) = run(job, out=tmp_path / "b")
    assert only.done == only.resumed == TILES


def test_a_torn_block_is_noticed_and_done_again(
    tmp_path: Path, make_embedding: Callable[..., Job]
) -> None:
    job = make_embedding()
    store = features(job, tmp_path)
    whole = store.features
    chunk = store.path / "features" / "c" / "1" / "0"
    chunk.write_bytes(chunk.read_bytes()[:-9])
    with pytest.raises(RunError, match="run its job again"):
        FeatureStore.open(store.path).read(slice(64, 70))
    told = list(run(job, out=tmp_path, device="cpu"))
    assert told[0].done == TILES, "a finished run is not read through: its files are whole"
    with FeatureStore.open(store.path, writable=True) as mended:
        assert mended.done_blocks.tolist() == [True, False, True, True, True]
    list(run(job, out=tmp_path, device="cpu"))
    np.testing.assert_array_equal(FeatureStore.open(store.path).features, whole)


def test_tiles_within_those_of_a_lower_magnification_are_all_its_children(
    tmp_path: Path, make_embedding: Callable[..., Job], slide_path: Path
) -> None:
    edge = RegionSpec(
        "polygons", polygons_wkt=("POLYGON((900 600, 1199 600, 1199 899, 900 600))",)
    )
    coarse_job = make_embedding(region=edge, mpp=3.0)
    coarse = coarse_job.grids[0]
    job = make_embedding(region=edge, within=coarse)
    with open_slide(slide_path) as slide:
        parents, children = (select_tiles(slide, j) for j in (coarse_job, job))
        rows, columns = children.shape
    ways = [(row, column) for row in range(3) for column in range(3)]
    wanted = {(r * 3 + i, c * 3 + j) for r, c in parents.cells.tolist() for i, j in ways}
    assert sorted(wanted) == sorted(map(tuple, children.cells.tolist()))
    outside = (children.cells[:, 0] >= rows) | (children.cells[:, 1] >= columns)
    assert outside.any(), "else the slide's edge was not tested"
    store = features(job, tmp_path)
    white = store.features[outside]
    assert np.isfinite(white).all()
    assert (white == white[0]).all()
    assert job.run_id != make_embedding(region=edge).run_id
    assert make_embedding(within=job.grids[0]).run_id == make_embedding().run_id, "it is that grid"
    with pytest.raises(RunError, match="do not divide"):
        make_embedding(mpp=2.5, within=coarse)
    with pytest.raises(RunError, match="do not divide"):
        make_embedding(mpp=6.0, within=coarse)


def test_features_are_kept_out_of_what_can_be_looked_at(
    tmp_path: Path, make_embedding: Callable[..., Job], slide_path: Path
) -> None:
    store = features(make_embedding(), tmp_path)
    with open_slide(slide_path) as slide:
        assert find_runs(slide.info, tmp_path, task=None) == []
        assert find_runs(slide.info, tmp_path, task="embed") == [store.path]
    for opened in (open_run, RunStore.open):
        with pytest.raises(RunError, match="holds the features of tiles"):
            opened(store.path)


def test_features_differ_by_direction_and_length() -> None:
    one = np.array([[3.0, 4.0], [10.0, 0.0]], np.float32)
    other = np.array([[3.0, 4.5], [10.0, 0.5]], np.float32)
    assert difference(one, other, "embed") == pytest.approx(0.1)
    assert difference(one, other, "classify") == pytest.approx(0.5)


def test_what_float16_cannot_hold_is_a_sentence(
    tmp_path: Path, make_embedding: Callable[..., Job]
) -> None:
    store = features(make_embedding(), tmp_path)
    with (
        FeatureStore.open(store.path, writable=True) as writer,
        pytest.raises(RunError, match=r"features of up to 7e\+04.*65504"),
    ):
        writer.write_block(0, np.full((64, 16), 7e4, np.float32))
