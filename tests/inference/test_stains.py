from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from napari_histomil.errors import RunError
from napari_histomil.geometry import Rect
from napari_histomil.inference import session
from napari_histomil.inference.backends import prepare_net
from napari_histomil.inference.engine import run
from napari_histomil.inference.job import Job, RegionSpec, plan_job
from napari_histomil.inference.predictor import Predictor
from napari_histomil.inference.stains import fit_to_tiles
from napari_histomil.manifest import load_manifest
from napari_histomil.resources import packaged
from napari_histomil.results import RunStore
from napari_histomil.slides.readers import open_slide
from napari_histomil.slides.slide import read_tile
from napari_histomil.stain import REFERENCE, StainFit, normalise_stain, with_condition


@pytest.fixture
def slide_path() -> Path:
    """A slide with stains; noise has none."""
    return packaged("sample_data") / "synthetic-lymph-node.tiff"


@pytest.fixture
def job(slide_path: Path, model_folder: Path) -> Job:
    region = RegionSpec("rect", Rect(2000, 1500, 640, 640))  # 400 tiles of 32 px0
    with open_slide(slide_path) as slide:
        return plan_job(slide.info, load_manifest(model_folder), region=region, stain="macenko")


def test_stains_are_fitted_once_and_applied_to_every_tile(
    tmp_path: Path, job: Job, slide_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    progress = run(job, out=tmp_path, device="cpu")
    next(progress), next(progress), next(progress)
    progress.close()  # type: ignore[attr-defined]
    monkeypatch.setattr(session, "fit_to_tiles", None)  # a second session must not fit again
    *_, last = run(job, out=tmp_path, device="cpu")
    store = RunStore.open(last.store)
    assert len(store.sessions) == 2
    assert store.stain is not None
    fit = StainFit.from_json(store.stain)
    assert fit.method == "macenko"
    model = load_manifest(job.model.path)
    net = prepare_net(model, (32, 32), torch.device("cpu"))
    with open_slide(slide_path) as slide:
        tiles = np.stack(
            [
                read_tile(slide, (float(x), float(y)), 32, 1.0)
                for x, y in store.grid.tile_rects_px0[::9, :2]
            ]
        )
    changed = np.stack([normalise_stain(tile, fit, REFERENCE["macenko"]) for tile in tiles])
    assert np.abs(changed.astype(int) - tiles).max() > 10, "else nothing was tested"
    wanted = Predictor(net, model, 16).scores(changed)
    np.testing.assert_allclose(store.scores[::9], wanted, atol=0.01)


def test_a_slide_without_stains_is_told(tmp_path: Path, job: Job, model_folder: Path) -> None:
    glass = RegionSpec("rect", Rect(0, 0, 320, 320))
    with open_slide(job.slide.path) as slide:
        empty = plan_job(slide.info, load_manifest(model_folder), region=glass, stain="reinhard")
    with pytest.raises(RunError, match=r"stains of synthetic-lymph-node\.tiff cannot be fitted"):
        list(run(empty, out=tmp_path, device="cpu"))
    assert list(tmp_path.rglob("*.zarr")) == []


def test_a_slide_that_glows_has_no_stains_to_normalise() -> None:
    tiles = np.zeros((4, 64, 64, 3), np.uint8)
    tiles[:, 20:40, 20:40, 2] = 220
    with pytest.raises(RunError, match=r"dapi\.ndpi is bright on black.*--stain none"):
        fit_to_tiles(tiles, "macenko", "dapi.ndpi")


def test_a_condition_changes_the_slides_own_stains(
    tmp_path: Path, slide_path: Path, model_folder: Path
) -> None:
    manifest = load_manifest(model_folder)
    region = RegionSpec("rect", Rect(2000, 1500, 320, 320))
    with open_slide(slide_path) as slide:
        plain, high = (
            plan_job(slide.info, manifest, region=region, stain="none", condition=condition)
            for condition in (None, "intensity high")
        )
        with pytest.raises(RunError, match="would be undone by the stain normalisation macenko"):
            plan_job(slide.info, manifest, stain="macenko", condition="hue near")
    stores = []
    for each in (plain, high):
        *_, last = run(each, out=tmp_path, device="cpu")
        stores.append(RunStore.open(last.store))
    assert stores[0].stain is None
    assert "condition" not in stores[0].job["stain"]
    assert stores[1].job["stain"] == {"method": "none", "condition": "intensity high"}
    fit = StainFit.from_json(stores[1].stain)
    target = with_condition(fit, "intensity high")
    net = prepare_net(manifest, (32, 32), torch.device("cpu"))
    with open_slide(slide_path) as slide:
        tiles = np.stack(
            [
                normalise_stain(read_tile(slide, (float(x), float(y)), 32, 1.0), fit, target)
                for x, y in stores[1].grid.tile_rects_px0[::9, :2]
            ]
        )
    wanted = Predictor(net, manifest, 16).scores(tiles)
    np.testing.assert_allclose(stores[1].scores[::9], wanted, atol=0.01)
    assert np.abs(stores[1].scores - stores[0].scores).max() > 0.01
