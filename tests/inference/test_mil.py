from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from model_folders import make_encoder_folder, make_mil_folder

from napari_histomil.errors import MissingMppError, ModelError, RunError
from napari_histomil.geometry import Rect
from napari_histomil.inference import mil, predictor
from napari_histomil.inference.engine import run
from napari_histomil.inference.job import Job, MilSpec, ModelRef, RegionSpec, plan_job
from napari_histomil.inference.mil_features import feature_job
from napari_histomil.manifest import load_manifest
from napari_histomil.nets.encoders import as_encoder
from napari_histomil.nets.mil import load_mil
from napari_histomil.results import FeatureStore, MilRun, find_runs, open_mil_run
from napari_histomil.results.bag import bag_of_runs
from napari_histomil.slides.readers import open_slide

TINY = {"channels": [8, 16, 16, 16], "stem_width": 8}
TILES = 19 * 15
ZOOM = {"magnifications": 3, "k": [3, 4], "hidden": 8, "attention": 4, "dropout": 0.0}
SMALL = {"hidden": [8], "attention": 4}


@pytest.fixture(autouse=True)
def fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictor, "has_fast_bf16", lambda device: False)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an encoder and MIL models over it."""
    folder = tmp_path_factory.mktemp("models ü")
    encoder = make_encoder_folder(folder / "tiny", "resnet10t", TINY)
    make_mil_folder(folder / "gated", "gated-attention", encoder, arguments=SMALL)
    make_mil_folder(folder / "other", "gated-attention", encoder, arguments=SMALL, seed=1)
    make_mil_folder(folder / "zoom", "zoommil", encoder, mpps=(4.0, 2.0, 1.0), arguments=ZOOM)
    make_mil_folder(folder / "zoom2", "zoommil", encoder, mpps=(4.0, 2.0, 1.0), arguments=ZOOM,
                    seed=5)  # fmt: skip
    make_mil_folder(
        folder / "several", "magnification-transformer", encoder, mpps=(4.0, 2.0),
        arguments={"magnifications": 2, "width": 8},
    )  # fmt: skip
    return folder


@pytest.fixture
def make_mil_job(slide_path: Path, models: Path) -> Callable[..., Job]:
    def make(name: str, **options: Any) -> Job:
        options.setdefault("region", RegionSpec("all"))
        with open_slide(slide_path) as slide:
            return plan_job(slide.info, load_manifest(models / name), **options)

    return make


def finished(job: Job, out: Path, **options: Any) -> MilRun:
    told = list(run(job, out=out, device="cpu", **options))
    assert [p.done for p in told] == sorted(p.done for p in told)
    assert all(p.done < p.total for p in told[:-1]), "done only when the run is there"
    assert told[-1].done == told[-1].total
    return open_mil_run(told[-1].store)


def feature_runs(out: Path) -> list[FeatureStore]:
    stores = []
    for path in out.rglob("*.zarr"):
        if (path / "features").is_dir():
            stores.append(FeatureStore.open(path))
    return sorted(stores, key=lambda store: -store.grid.spec.mpp)


def test_the_answer_is_the_models_own_for_the_features_on_disk(
    tmp_path: Path, make_mil_job: Callable[..., Job], models: Path, slide_path: Path
) -> None:
    result = finished(make_mil_job("gated"), tmp_path)
    (store,) = feature_runs(tmp_path)
    with torch.inference_mode():
        wanted = load_mil(load_manifest(models / "gated"))(torch.from_numpy(store.features))
    np.testing.assert_allclose(result.answer.logits, wanted.logits, atol=1e-6)
    np.testing.assert_allclose(result.answer.probabilities, wanted.probabilities, atol=1e-6)
    (shown,) = result.maps
    np.testing.assert_allclose(shown.raw, wanted.attention_raw, atol=1e-6)
    np.testing.assert_allclose(shown.value.sum(), 1, atol=1e-5)
    assert shown.value.max() > 2 * shown.value.min(), "else nothing was tested"
    np.testing.assert_allclose(
        result.bias + result.contributions[0].values.sum(1), result.answer.logits, atol=1e-5
    )
    np.testing.assert_array_equal(result.levels[0].grid.cells, store.grid.cells)
    assert (len(result.levels[0]), result.answer.spread) == (TILES, None)
    assert result.source.runs == (store.run_id,)
    assert result.source.encoder.name == "tiny"
    effective = result.numbers["effective_patches"][0][0]
    assert effective == pytest.approx(shown.effective_number[0], abs=0.01)
    assert 1 < effective < TILES
    with open_slide(slide_path) as slide:
        assert find_runs(slide.info, tmp_path, task="mil") == [result.path]


def test_features_that_are_there_are_used_again(
    tmp_path: Path, make_mil_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    finished(make_mil_job("gated"), tmp_path)
    monkeypatch.setattr(mil, "EmbedSession", None)  # nothing is encoded any more
    other = finished(make_mil_job("other"), tmp_path)
    assert other.numbers["seconds"]["features"] == 0
    (last,) = run(make_mil_job("other"), out=tmp_path, device="cpu")
    assert (last.done, last.total, last.resumed) == (TILES, TILES, TILES)


def test_zooming_encodes_only_what_was_chosen_and_answers_as_with_all(
    tmp_path: Path, make_mil_job: Callable[..., Job], models: Path
) -> None:
    job = make_mil_job("zoom")
    few = finished(job, tmp_path / "few")
    lowest, middle, high = feature_runs(tmp_path / "few")
    assert (len(lowest.grid), len(middle.grid), len(high.grid)) == (20, 3 * 4, 4 * 4)
    assert [len(level) for level in few.levels] == [20, 12, 16]
    assert [level.tiles for level in few.levels] == [20, 80, 320]
    assert few.numbers["skipped_tiles"] == [0, 68, 304]
    assert any("304 of 320 tiles" in w for w in few.warnings)
    assert [(m.level, m.kind) for m in few.maps] == [
        (0, "selection"), (0, "attention"), (1, "selection"), (1, "attention"), (2, "attention")
    ]  # fmt: skip

    encoder = as_encoder(load_manifest(models / "tiny"))
    stores = []
    for level in range(3):
        *_, last = run(feature_job(job, encoder, level), out=tmp_path / "all", device="cpu")
        stores.append(FeatureStore.open(last.store))
    bag = bag_of_runs(stores)
    net = load_mil(load_manifest(models / "zoom"))
    with torch.inference_mode():
        wanted = net([torch.from_numpy(np.asarray(level.features)) for level in bag.levels])
    np.testing.assert_allclose(few.answer.logits, wanted.logits, atol=2e-3)
    whole = finished(job, tmp_path / "all")
    np.testing.assert_allclose(whole.answer.logits, wanted.logits, atol=1e-5)
    for one, other, reference in zip(few.maps, whole.maps, wanted.maps, strict=True):
        np.testing.assert_allclose(other.value, reference.value, atol=1e-5)
        np.testing.assert_allclose(one.value, other.value, atol=2e-3)
        places = [r.levels[m.level].xy_px0[m.index] for r, m in ((few, one), (whole, other))]
        np.testing.assert_array_equal(*places)
        np.testing.assert_array_equal(
            places[0], bag.levels[reference.magnification].xy_px0[reference.index]
        )
    total = sum(part.values.sum(1) for part in few.contributions) + few.bias
    np.testing.assert_allclose(total, few.answer.logits, atol=1e-5)


def test_an_ensemble_is_the_mean_of_its_members(
    tmp_path: Path, make_mil_job: Callable[..., Job], models: Path
) -> None:
    for names in (("gated", "other"), ("zoom", "zoom2")):
        alone = [finished(make_mil_job(name), tmp_path) for name in names]
        second = load_manifest(models / names[1])
        spec = MilSpec(members=(ModelRef(second.name, second.path, second.sha256),))
        both = finished(make_mil_job(names[0], mil=spec), tmp_path)
        members = np.stack([one.answer.probabilities for one in alone])
        np.testing.assert_allclose(both.answer.members, members, atol=1e-3)
        np.testing.assert_allclose(both.answer.probabilities, members.mean(0), atol=1e-3)
        np.testing.assert_allclose(both.answer.spread, members.std(0, ddof=1), atol=1e-3)
        assert both.answer.how == "ensemble"
        total = sum(part.values.sum(1) for part in both.contributions) + both.bias
        np.testing.assert_allclose(total, both.answer.logits, atol=1e-5)
        for each in both.maps:
            np.testing.assert_allclose(each.value.sum(), 1, atol=1e-4)
            assert each.raw is None
    assert len(both.levels[1]) > 12, (
        "the members zoom into different tiles, else nothing is tested"
    )


def test_passes_with_dropout_give_a_spread_and_leave_the_answer(
    tmp_path: Path, make_mil_job: Callable[..., Job], models: Path
) -> None:
    plain = finished(make_mil_job("gated"), tmp_path)
    first = finished(make_mil_job("gated", mil=MilSpec(passes=8)), tmp_path / "a")
    again = finished(make_mil_job("gated", mil=MilSpec(passes=8)), tmp_path / "b")
    np.testing.assert_array_equal(first.answer.members, again.answer.members)
    np.testing.assert_allclose(first.answer.logits, plain.answer.logits, atol=1e-6)
    assert (first.answer.members.shape, first.answer.how) == ((8, 2), "dropout")
    assert (first.answer.spread > 0).all()
    with pytest.raises(RunError, match="has no dropout"):
        finished(make_mil_job("zoom", mil=MilSpec(passes=2)), tmp_path)
    with pytest.raises(RunError, match="have no spread"):
        MilSpec(passes=1)


def test_a_finer_map_has_the_bags_values_where_the_bag_has_tiles(
    tmp_path: Path, make_mil_job: Callable[..., Job], models: Path
) -> None:
    result = finished(make_mil_job("gated", mil=MilSpec(finer=2)), tmp_path)
    coarse, fine = result.maps
    level = result.levels[1]
    assert (fine.level, level.finer_than, level.grid.spec.stride_px) == (1, 0, 16)
    assert len(level) > 3 * TILES
    assert result.default_map is fine
    plain = finished(make_mil_job("gated"), tmp_path)
    np.testing.assert_array_equal(coarse.value, plain.maps[0].value)
    np.testing.assert_array_equal(result.answer.logits, plain.answer.logits)
    log_ratio = np.log(fine.value) - fine.raw
    np.testing.assert_allclose(log_ratio, (np.log(coarse.value) - coarse.raw)[0, 0], atol=1e-4)
    with pytest.raises(RunError, match="between those of the bag"):
        make_mil_job("zoom", mil=MilSpec(finer=2))
    with pytest.raises(RunError, match="cannot be divided by 3"):
        make_mil_job("gated", mil=MilSpec(finer=3))


def test_several_magnifications_without_zooming(
    tmp_path: Path, make_mil_job: Callable[..., Job]
) -> None:
    result = finished(make_mil_job("several"), tmp_path)
    assert [len(level) for level in result.levels] == [20, 80]
    assert len(result.source.runs) == 2


CHILD = """
import sys
from pathlib import Path
from napari_histomil.inference import blocks
from napari_histomil.inference.engine import run
from napari_histomil.inference.job import RegionSpec, plan_job
from napari_histomil.manifest import load_manifest
from napari_histomil.slides.readers import open_slide

blocks.WRITE_SECONDS = 0.0
slide_path, model_path, out = map(Path, sys.argv[1:])
with open_slide(slide_path) as slide:
    job = plan_job(slide.info, load_manifest(model_path), region=RegionSpec("all"))
for progress in run(job, out=out, device="cpu"):
    print(progress.done, flush=True)
    if progress.done > progress.resumed:
        sys.stdin.readline()
"""


@pytest.mark.parametrize("name", ["gated", "zoom"])
def test_killed_and_cancelled_and_run_again_equals_straight(
    tmp_path: Path, make_mil_job: Callable[..., Job], slide_path: Path, models: Path, name: str
) -> None:
    job = make_mil_job(name)
    straight = finished(job, tmp_path / "straight")
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(slide_path), str(models / name), str(tmp_path / "out")],
        stdout=subprocess.PIPE, stdin=subprocess.PIPE,
    )  # fmt: skip
    with child:
        assert child.stdout is not None
        child.stdout.readline()
        assert int(child.stdout.readline()) > 0
        child.kill()
        child.communicate()
    cancel = threading.Event()
    for progress in run(job, out=tmp_path / "out", device="cpu", cancel=cancel):
        assert progress.resumed > 0
        assert not progress.store.exists()
        if progress.done > progress.resumed:
            cancel.set()
    assert not progress.store.exists(), "an answer is there whole or not at all"
    again = finished(job, tmp_path / "out")
    assert again.run_id == straight.run_id
    np.testing.assert_allclose(again.answer.logits, straight.answer.logits, atol=2e-3)
    for one, other in zip(again.maps, straight.maps, strict=True):
        np.testing.assert_array_equal(one.index, other.index)
        np.testing.assert_allclose(one.value, other.value, atol=2e-3)


def test_what_cannot_be_run_is_told_in_a_sentence(
    tmp_path: Path, make_mil_job: Callable[..., Job], models: Path, slide_path: Path
) -> None:
    copy = tmp_path / "models" / "gated"
    shutil.copytree(models / "gated", copy)
    with open_slide(slide_path) as slide:
        info = slide.info
    job = plan_job(info, load_manifest(copy), region=RegionSpec("all"))
    with pytest.raises(ModelError, match="takes features of the encoder tiny, which is not here"):
        list(run(job, out=tmp_path, device="cpu"))
    make_encoder_folder(tmp_path / "models" / "tiny", "resnet10t", TINY, seed=3)
    with pytest.raises(ModelError, match="is not the one that gated was trained on"):
        list(run(job, out=tmp_path, device="cpu"))
    with pytest.raises(RunError, match="its grids"):
        make_mil_job("gated", mpp=2.0)
    second = load_manifest(models / "zoom")
    spec = MilSpec(members=(ModelRef(second.name, second.path, second.sha256),))
    with pytest.raises(ModelError, match="no ensemble: their grids differ"):
        list(run(make_mil_job("gated", mil=spec), out=tmp_path, device="cpu"))
    tifffile.imwrite(tmp_path / "none.tif", np.full((300, 300, 3), 200, np.uint8), tile=(256, 256),
                     photometric="rgb")  # fmt: skip
    with open_slide(tmp_path / "none.tif") as slide, pytest.raises(MissingMppError):
        plan_job(slide.info, load_manifest(models / "gated"))
    with open_slide(tmp_path / "none.tif", mpp=0.5) as slide:
        white = plan_job(slide.info, load_manifest(models / "gated"))
    with pytest.raises(RunError, match="No tissue was found"):
        list(run(white, out=tmp_path, device="cpu"))
    assert not list(tmp_path.rglob("*.zarr"))


def test_one_tile_is_an_answer_with_a_warning(
    tmp_path: Path, models: Path, slide_path: Path, make_mil_job: Callable[..., Job]
) -> None:
    region = RegionSpec("rect", rect_px0=Rect(0, 0, 64, 64))
    result = finished(make_mil_job("gated", region=region), tmp_path)
    assert len(result.levels[0]) == 1
    assert any("only 1 patch:" in w for w in result.warnings)


def test_a_real_slide_with_its_scale_off_by_two_is_caught(
    tmp_path: Path, data_dir: Path, models: Path
) -> None:
    folder = tmp_path / "models" / "gated"
    shutil.copytree(models / "tiny", tmp_path / "models" / "tiny")
    make_mil_folder(folder, "gated-attention", models / "tiny", mpps=(4.0,), arguments=SMALL)
    manifest = json.loads((folder / "model.json").read_text("utf-8"))
    manifest["mil"]["reference"] = {"nuclear_um": 5.0}
    (folder / "model.json").write_text(json.dumps(manifest), "utf-8")
    path = data_dir / "wsi-aperio-svs" / "CMU-1-Small-Region.svs"
    said = {}
    for factor in (1, 2):
        with open_slide(path, mpp=0.499 * factor) as slide:
            job = plan_job(slide.info, load_manifest(folder))
        result = finished(job, tmp_path / str(factor))
        said[factor] = [w for w in result.warnings if "Nuclei seem" in w]
        assert 3 < result.numbers["nuclear_um"] / factor < 7
    assert said[1] == []
    assert len(said[2]) == 1
    assert "may be wrong by a factor of about 2" in said[2][0]
