"""Chains from slide to stored picture: equal to the dense picture where they look."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from model_folders import TINY_UNET, make_model_folder, make_segmenter_folder, script_model

from napari_histomil.errors import MissingMppError, ModelError, RunError
from napari_histomil.geometry import Rect
from napari_histomil.inference import predictor, refining, segmentation
from napari_histomil.inference.engine import run
from napari_histomil.inference.job import Job, Progress, RegionSpec, plan_job
from napari_histomil.inference.segmentation import BandPlan
from napari_histomil.manifest import StepModels, load_manifest, write_chain
from napari_histomil.results import RunStore, SegmentationStore, bands, find_runs
from napari_histomil.results import segmentation as stored
from napari_histomil.results.segmentation import CERTAIN, UNKNOWN
from napari_histomil.slides.readers import open_slide

FINE, COARSE = 10 * 13, 29 * 38
"""Tiles of the fine segmenter, of the detector, on the whole slide."""
DARK_UM = Rect(192, 160, 64, 48)
SMALL = """
from napari_histomil.inference import segmentation
from napari_histomil.results import bands, segmentation as stored
for module in (bands, stored, segmentation):
    module.BAND_PX = 64
bands.LANE_PX = 256
"""

MakeChain = Callable[..., Path]


@pytest.fixture(autouse=True)
def _small_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three lanes of eight bands in a picture of 600 x 450 px; float32, to compare exactly."""
    for module in (bands, stored, segmentation):
        monkeypatch.setattr(module, "BAND_PX", 64)
    monkeypatch.setattr(bands, "LANE_PX", 256)
    monkeypatch.setattr(predictor, "has_fast_bf16", lambda device: False)


class Darkness(torch.nn.Module):
    """Answers for the second class where the middle of a tile is dark."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        light = x[:, :, 8:24, 8:24].mean((1, 2, 3))
        dark = (0.4 - light)[:, None] * 40
        return torch.cat([-dark, dark], 1)


class Repeat(torch.nn.Module):
    """Refines nothing: the heatmap's channel as logits, for sigmoid."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.logit(x[:, 3:4].clamp(1e-6, 1 - 1e-6))


def write_slide(path: Path, dark_um: Rect | None = DARK_UM) -> Path:
    """1200 x 900 px at 0.5 µm/px: bright coloured noise, a dark rectangle in it; one level."""
    rng = np.random.default_rng(0)
    noise = np.kron(rng.integers(120, 250, (90, 120, 3)), np.ones((10, 10, 1)))
    if dark_um is not None:
        x, y = int(dark_um.x_px0 * 2), int(dark_um.y_px0 * 2)
        noise[y : y + int(dark_um.height_px0 * 2), x : x + int(dark_um.width_px0 * 2)] *= 0.2
    tifffile.imwrite(
        path, noise.astype(np.uint8), tile=(256, 256), photometric="rgb",
        resolution=(20_000, 20_000), resolutionunit="CENTIMETER",
    )  # fmt: skip
    return path


@pytest.fixture(scope="session")
def dark_slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_slide(tmp_path_factory.mktemp("slides") / "dark.tif")


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector of darkness, a U-Net with random weights, and a refiner that changes nothing."""
    folder = tmp_path_factory.mktemp("models")
    script_model(make_model_folder(folder / "darkness"), Darkness())
    make_segmenter_folder(folder / "unet", background_class="normal")
    script_model(
        make_segmenter_folder(
            folder / "repeat",
            classes=[{"name": "tumor", "color": [200, 0, 0]}],
            inputs=["overview", "heatmap"],
            activation="sigmoid",
            grid={"mpp": 16.0, "tile_px": 16, "stride_px": 8, "margin_px": 2},
            architecture={"name": "smp/unet", "arguments": {**TINY_UNET, "in_channels": 4}},
        ),
        Repeat(),
        channels=4,
    )
    return folder


@pytest.fixture
def make_chain(models: Path, tmp_path: Path) -> MakeChain:
    """Write a chain of these models (or others, by name); return its folder."""

    def make(
        threshold: float, margin_um: float = 0.0, *, refine: str = "", segment: str = "unet"
    ) -> Path:
        steps = StepModels(
            load_manifest(models / "darkness"),
            load_manifest(models / refine) if refine else None,
            load_manifest(models / segment),
        )
        folder = tmp_path / f"chain-{threshold}-{margin_um}-{refine}-{segment}"
        write_chain(folder, folder.name, steps, threshold=threshold, margin_um=margin_um)
        return folder

    return make


def job_of(model: Path, slide: Path, **options: Any) -> Job:
    options.setdefault("region", RegionSpec("all"))
    with open_slide(slide) as opened:
        return plan_job(opened.info, load_manifest(model), **options)


def told_of(job: Job, out: Path, models: Path, **options: Any) -> list[Progress]:
    return list(run(job, out=out, device="cpu", models=[models], **options))


def segmented(job: Job, out: Path, models: Path, **options: Any) -> SegmentationStore:
    return SegmentationStore.open(told_of(job, out, models, **options)[-1].store)


def assert_equal(a: SegmentationStore, b: SegmentationStore) -> None:
    for one, other in zip(a.levels, b.levels, strict=True):
        np.testing.assert_array_equal(one[:], other[:])


def pixels(store: SegmentationStore) -> np.ndarray:
    return store.strip(slice(0, store.picture.shape[0]))


def pixels_of(store: SegmentationStore, cells: np.ndarray) -> np.ndarray:
    """Bool [450, 600]: which pixels lie in cells chosen by bool [N]."""
    picture = store.picture
    return picture.pixels(picture.cells_image(cells), slice(0, 450), slice(0, 600))


@pytest.fixture(scope="module")
def dense(
    tmp_path_factory: pytest.TempPathFactory, models: Path, dark_slide: Path
) -> Iterator[np.ndarray]:
    """What the U-Net alone says, uint8 [2, 450, 600]."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (bands, stored, segmentation):
            patch.setattr(module, "BAND_PX", 64)
        patch.setattr(bands, "LANE_PX", 256)
        patch.setattr(predictor, "has_fast_bf16", lambda device: False)
        job = job_of(models / "unet", dark_slide)
        yield pixels(segmented(job, tmp_path_factory.mktemp("dense"), models))


def test_a_chain_that_leaves_nothing_out_is_the_dense_picture(
    tmp_path: Path, make_chain: MakeChain, models: Path, dark_slide: Path, dense: np.ndarray
) -> None:
    store = segmented(job_of(make_chain(0.0), dark_slide), tmp_path, models)
    np.testing.assert_array_equal(pixels(store), dense)
    assert store.left_out is not None
    assert not store.left_out.any()
    assert store.chain is not None
    assert (store.chain["fine_tiles"], store.chain["tiles"]) == (FINE, FINE)
    assert dense[1].std() > 10, "else nothing was tested"


@pytest.mark.parametrize("margin_um", [0.0, 30.0, 100.0])
def test_it_looks_where_the_detector_found_something_and_around(
    tmp_path: Path, make_chain: MakeChain, models: Path, dark_slide: Path, dense: np.ndarray,
    margin_um: float,
) -> None:  # fmt: skip
    store = segmented(job_of(make_chain(0.5, margin_um), dark_slide), tmp_path, models)
    # Dark cells of the detector fill the rectangle: 12 x 16 .. 15 x 20 cells of 16 µm.
    left, top = DARK_UM.x_px0 - margin_um, DARK_UM.y_px0 - margin_um
    right, bottom = DARK_UM.right_px0 + margin_um, DARK_UM.bottom_px0 + margin_um
    rows, columns = store.grid.cells.T * 48
    wanted = (columns < right) & (columns + 48 > left) & (rows < bottom) & (rows + 48 > top)
    assert store.left_out is not None
    np.testing.assert_array_equal(~store.left_out, wanted)
    assert 0 < wanted.sum() < FINE / 1.5
    here = pixels_of(store, wanted)
    values = pixels(store).astype(int)
    difference = np.abs(values - dense)[:, here]
    assert difference.max() <= 1, "1e-6 may cross the edge of a step"
    assert (difference > 0).mean() < 1e-3
    assert (values[0][~here] == CERTAIN).all()
    assert (values[1][~here] == 0).all()
    assert store.warnings == []


def test_only_the_tiles_that_are_needed_are_computed_and_all_are_counted(
    tmp_path: Path, make_chain: MakeChain, models: Path, dark_slide: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    plans: list[BandPlan] = []
    real = BandPlan.__init__

    def remember(self: BandPlan, *a: Any, **k: Any) -> None:
        real(self, *a, **k)
        plans.append(self)

    monkeypatch.setattr(BandPlan, "__init__", remember)
    job = job_of(make_chain(0.5), dark_slide)
    told = told_of(job, tmp_path, models)
    store = SegmentationStore.open(told[-1].store)
    computed = {t for _, p in plans[0].order for t in range(p.tiles.start, p.tiles.stop)}
    assert store.chain is not None
    # The rectangle touches 2 x 2 cells; their pixels need the tiles around them too.
    assert store.left_out is not None
    assert (~store.left_out).sum() == 2 * 2
    assert store.chain["fine_tiles"] == len(computed) == 4 * 4
    assert store.chain["cells_left_out"] == FINE - 4
    assert store.chain["detector_tiles"] == COARSE
    assert [step.split()[0] for step in store.chain["steps"]] == ["detect", "segment"]
    assert set(store.stage_seconds) == {"detect", "segment"}
    assert {p.total for p in told} == {FINE + COARSE}
    assert [p.done for p in told] == sorted(p.done for p in told)
    assert [p.seconds for p in told] == sorted(p.seconds for p in told)
    assert (told[0].done, told[-1].done) == (0, FINE + COARSE)
    assert {p.store for p in told} == {store.path}
    (again,) = told_of(job, tmp_path, models)
    assert (again.done, again.total, again.resumed) == (FINE + COARSE,) * 3


def test_the_detector_s_run_is_its_own_and_used_again(
    tmp_path: Path, make_chain: MakeChain, models: Path, dark_slide: Path
) -> None:
    alone = told_of(job_of(models / "darkness", dark_slide), tmp_path, models)
    told = told_of(job_of(make_chain(0.5), dark_slide), tmp_path, models)
    store = SegmentationStore.open(told[-1].store)
    assert store.chain is not None
    assert store.chain["detector_run"] == alone[-1].store.stem
    assert told[0].resumed == COARSE
    assert len(RunStore.open(alone[-1].store).sessions) == 1
    with open_slide(dark_slide) as slide:
        assert find_runs(slide.info, tmp_path, task="segment") == [store.path]
        assert find_runs(slide.info, tmp_path) == [alone[-1].store]
    other = told_of(job_of(make_chain(0.9), dark_slide), tmp_path, models)
    assert other[-1].store != store.path, "another threshold is another run"
    assert other[0].resumed == COARSE


def test_cancelled_in_either_stage_and_resumed_equals_straight(
    tmp_path: Path, make_chain: MakeChain, models: Path, dark_slide: Path
) -> None:
    job = job_of(make_chain(0.5, 60.0), dark_slide)
    straight = segmented(job, tmp_path / "straight", models)
    counts = [0]
    for pause in (4, 20, 5, 4):
        cancel, told = threading.Event(), list[Progress]()
        for progress in run(job, out=tmp_path / "b", device="cpu", models=[models], cancel=cancel):
            told.append(progress)
            if len(told) == pause:
                cancel.set()
        assert told[0].done == counts[-1]
        counts.append(told[-1].done)
        assert not [t for t in threading.enumerate() if t.name.startswith("histomil")]
    assert counts == sorted(set(counts)), "every session got further"
    assert counts[1] < COARSE < counts[2] < counts[-1] < FINE + COARSE
    assert_equal(segmented(job, tmp_path / "b", models), straight)


CHILD = (
    SMALL
    + """
import sys, time
from pathlib import Path
from napari_histomil.inference.engine import run
from napari_histomil.inference.job import RegionSpec, plan_job
from napari_histomil.inference import blocks, predictor
from napari_histomil.manifest import load_manifest
from napari_histomil.slides.readers import open_slide

predictor.has_fast_bf16 = lambda device: False
blocks.WRITE_SECONDS = 0.0
slide_path, model_path, models, out = map(Path, sys.argv[1:])
with open_slide(slide_path) as slide:
    job = plan_job(slide.info, load_manifest(model_path), region=RegionSpec("all"))
for progress in run(job, out=out, device="cpu", models=[models]):
    print(progress.done, flush=True)
    time.sleep(0.05)
"""
)


def test_killed_in_either_stage_and_resumed_equals_straight(
    tmp_path: Path, make_chain: MakeChain, models: Path, dark_slide: Path
) -> None:
    folder, out = make_chain(0.5, 60.0), tmp_path / "killed"
    job = job_of(folder, dark_slide)
    straight = segmented(job, tmp_path / "straight", models)
    words = [sys.executable, "-c", CHILD, *map(str, (dark_slide, folder, models, out))]
    reached = []
    for wanted in (COARSE // 3, COARSE + FINE // 4):
        with subprocess.Popen(words, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            begun = int(child.stdout.readline())
            assert begun >= (reached[-1] if reached else 0), "nothing that was done is lost"
            while (done := int(child.stdout.readline())) < wanted:
                pass
            time.sleep(0.02)
            child.kill()
            child.communicate()
        reached.append(done)
    assert reached[0] < COARSE < reached[1] < COARSE + FINE
    resumed = segmented(job, out, models)
    assert_equal(resumed, straight)
    assert resumed.chain is not None
    assert straight.chain is not None
    assert {**resumed.chain, "seconds": {}} == {**straight.chain, "seconds": {}}


def test_closing_the_generator_ends_threads(
    tmp_path: Path, make_chain: MakeChain, models: Path, dark_slide: Path
) -> None:
    progress = run(
        job_of(make_chain(0.5), dark_slide), out=tmp_path, device="cpu", models=[models]
    )
    next(progress)
    store = next(progress).store
    progress.close()  # type: ignore[attr-defined]
    assert not [t for t in threading.enumerate() if t.name.startswith("histomil")]
    with SegmentationStore.open(store, writable=True) as again:
        assert again.chain is None
        assert not again.complete
    for path in store.parent.glob("*.zarr"):
        if path != store:
            RunStore.open(path, writable=True).close()


def test_nothing_found_is_background_and_known(
    tmp_path: Path, make_chain: MakeChain, models: Path
) -> None:
    slide = write_slide(tmp_path / "bright.tif", None)
    store = segmented(job_of(make_chain(0.5, 100.0), slide), tmp_path, models)
    assert store.complete
    assert store.chain is not None
    assert store.chain["fine_tiles"] == 0
    assert store.left_out is not None
    assert store.left_out.all()
    for level in store.levels:
        assert (np.asarray(level[0]) == CERTAIN).all()
        assert (np.asarray(level[1]) == 0).all()
    assert store.warnings == []


def test_glass_alone_is_told(tmp_path: Path, make_chain: MakeChain, models: Path) -> None:
    path = tmp_path / "glass.tif"
    tifffile.imwrite(
        path, np.full((600, 800, 3), 245, np.uint8), tile=(256, 256), photometric="rgb",
        resolution=(20_000, 20_000), resolutionunit="CENTIMETER",
    )  # fmt: skip
    job = job_of(make_chain(0.5), path, region=RegionSpec("tissue"))
    with pytest.raises(RunError, match=r"No tissue was found on glass\.tif"):
        segmented(job, tmp_path, models)
    assert list(tmp_path.rglob("*.zarr")) == []


def test_only_the_region_is_looked_at(
    tmp_path: Path, make_chain: MakeChain, models: Path, dark_slide: Path
) -> None:
    """The rest is not background, but unknown; the region's edge is no edge of cells."""
    region = RegionSpec("rect", Rect(350, 290, 500, 300))
    store = segmented(job_of(make_chain(0.5), dark_slide, region=region), tmp_path, models)
    dense = segmented(
        job_of(models / "unet", dark_slide, region=region), tmp_path / "dense", models
    )
    values, all_of_it = pixels(store), pixels(dense)
    np.testing.assert_array_equal(values == UNKNOWN, all_of_it == UNKNOWN)
    assert store.left_out is not None
    here = pixels_of(store, ~store.left_out)
    assert here.any()
    assert np.abs(values.astype(int) - all_of_it)[:, here].max() <= 1
    assert (values[1][~here & (values[1] != UNKNOWN)] == 0).all()
    assert store.chain is not None
    assert store.chain["detector_tiles"] < COARSE / 4


def test_several_labels_at_once_are_unlikely_elsewhere(
    tmp_path: Path, make_chain: MakeChain, models: Path, dark_slide: Path
) -> None:
    make_segmenter_folder(models / "labels", logits=[2.0, 1.0], activation="sigmoid")
    store = segmented(job_of(make_chain(0.5, segment="labels"), dark_slide), tmp_path, models)
    values = pixels(store)
    assert store.left_out is not None
    here = pixels_of(store, ~store.left_out)
    assert (values[:, ~here] == 0).all()
    for value, logit in zip(values[:, here], (2.0, 1.0), strict=True):
        assert (value == round(CERTAIN / (1 + np.exp(-logit)))).all()


def test_a_refiner_that_changes_nothing_changes_nothing(
    tmp_path: Path, make_chain: MakeChain, models: Path, dark_slide: Path
) -> None:
    """Its pixels are the detector's cells: overview, heatmap and picture lie on one another."""
    plain = segmented(job_of(make_chain(0.5, 30.0), dark_slide), tmp_path, models)
    refined = segmented(
        job_of(make_chain(0.5, 30.0, refine="repeat"), dark_slide), tmp_path, models
    )
    assert_equal(refined, plain)
    np.testing.assert_array_equal(refined.left_out, plain.left_out)
    assert set(refined.stage_seconds) == {"detect", "refine", "segment"}


def test_a_refiner_of_this_program_s_nets_sees_the_overview(
    tmp_path: Path, make_chain: MakeChain, models: Path, dark_slide: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    make_segmenter_folder(
        models / "refiner",
        arguments={**TINY_UNET, "in_channels": 4},
        inputs=["overview", "heatmap"],
        grid={"mpp": 8.0, "tile_px": 64, "stride_px": 32, "margin_px": 8},
        normalisation={"mean": [0.7, 0.5, 0.7, 0.0], "std": [0.2, 0.2, 0.2, 1.0]},
    )
    given: list[np.ndarray] = []
    real = predictor.Predictor.scores
    monkeypatch.setattr(
        predictor.Predictor,
        "scores",
        lambda self, tiles: (given.append(np.asarray(tiles)), real(self, tiles))[1],
    )
    job = job_of(make_chain(0.5, refine="refiner"), dark_slide)
    store = segmented(job, tmp_path, models)
    assert store.complete
    first = next(tiles[0] for tiles in given if tiles.shape[-1] == 4)
    # That of cell (0, 0), 64 px of 8 µm: the slide's corner is 16 px inside, beyond is glass.
    assert (first[:16] == (255, 255, 255, 0)).all()
    seen = first[16:, 16:]
    dark = np.zeros(seen.shape[:2], bool)
    dark[20:26, 24:32] = True
    np.testing.assert_array_equal(seen[..., 3] > 127, dark)
    np.testing.assert_array_equal(seen[..., :3].mean(axis=2) < 90, dark)


def test_a_refiner_is_cancelled_too(
    tmp_path: Path, make_chain: MakeChain, models: Path, dark_slide: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Then nothing is chosen yet, and the next session does so."""
    cancel, real = threading.Event(), refining.heat_channel

    def seen(*a: Any) -> np.ndarray:
        cancel.set()
        return real(*a)

    monkeypatch.setattr(refining, "heat_channel", seen)
    job = job_of(make_chain(0.5, refine="repeat"), dark_slide)
    store = segmented(job, tmp_path, models, cancel=cancel)
    assert store.chain is None
    assert not store.done_tiles.any()
    assert segmented(job, tmp_path, models).complete


def test_a_refiner_cannot_run_alone(models: Path, dark_slide: Path) -> None:
    with pytest.raises(RunError, match="is given one by a chain"):
        job_of(models / "repeat", dark_slide)


def test_what_the_detector_cannot_read_is_left_to_the_last_model(
    tmp_path: Path, make_chain: MakeChain, models: Path, dark_slide: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(
        RunStore, "skipped", property(lambda self: {len(self.grid) - 1: "damaged"})
    )
    store = segmented(job_of(make_chain(0.5), dark_slide), tmp_path, models)
    assert store.left_out is not None
    assert not store.left_out[-1], "the last tile lies in the last cell"


def test_what_was_left_out_is_found_again_when_it_is_damaged(
    tmp_path: Path, make_chain: MakeChain, models: Path, dark_slide: Path
) -> None:
    job = job_of(make_chain(0.5), dark_slide)
    straight = segmented(job, tmp_path / "a", models)
    store = segmented(job, tmp_path / "b", models)
    (file,) = [p for p in (store.path / "left_out" / "c").rglob("*") if p.is_file()]
    file.write_bytes(b"torn")
    with pytest.raises(RunError, match="damaged"):
        SegmentationStore.open(store.path)
    mended = segmented(job, tmp_path / "b", models)
    assert_equal(mended, straight)
    np.testing.assert_array_equal(mended.left_out, straight.left_out)


def test_a_slide_without_mpp_is_told(
    tmp_path: Path, make_chain: MakeChain, dark_slide: Path
) -> None:
    path = tmp_path / "no-mpp.tif"
    tifffile.imwrite(path, tifffile.imread(dark_slide), tile=(256, 256), photometric="rgb")
    with pytest.raises(MissingMppError, match=r"no-mpp\.tif"):
        job_of(make_chain(0.5), path)


def test_a_missing_or_another_model_is_told_before_anything_is_made(
    tmp_path: Path, make_chain: MakeChain, models: Path, dark_slide: Path
) -> None:
    job = job_of(make_chain(0.5), dark_slide)
    with pytest.raises(ModelError, match=r"The chain chain-0\.5.* There is no model named 'dark"):
        segmented(job, tmp_path / "out", tmp_path)
    other = tmp_path / "other"
    make_model_folder(other / "darkness", seed=1)
    make_segmenter_folder(other / "unet")
    with pytest.raises(ModelError, match=r"is not the one that the chain .* was made with"):
        segmented(job, tmp_path / "out", other)
    assert list(tmp_path.rglob("*.zarr")) == []
    changed = replace(job, model=replace(job.model, sha256="0" * 64))
    with pytest.raises(RunError, match="is not the one that the job was made for"):
        segmented(changed, tmp_path / "out", models)
