"""Segmentation from slide to stored picture: what it says, and that nothing else changes it."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from model_folders import make_segmenter_folder, script_model

from napari_histomil.errors import ModelError, RunError, SlideError, TileError
from napari_histomil.geometry import Rect
from napari_histomil.inference import lanes, opening, predictor, segmentation, session
from napari_histomil.inference.engine import run
from napari_histomil.inference.job import Job, Progress, RegionSpec, plan_job
from napari_histomil.inference.segmentation import BandPlan
from napari_histomil.manifest import load_manifest
from napari_histomil.nets.load import load_module
from napari_histomil.results import SegmentationStore, bands, run_path
from napari_histomil.results import segmentation as stored
from napari_histomil.results.segmentation import UNKNOWN, from_stored
from napari_histomil.slides.readers import open_slide
from napari_histomil.slides.slide import read_rect

MakeJob = Callable[..., Job]
CELLS = 10 * 13
SMALL = """
from napari_histomil.inference import segmentation
from napari_histomil.results import bands, segmentation as stored
for module in (bands, stored, segmentation):
    module.BAND_PX = 64
bands.LANE_PX = 256
"""


@pytest.fixture(autouse=True)
def _small_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three lanes of eight bands in a picture of 600 x 450 px; float32, to compare exactly."""
    for module in (bands, stored, segmentation):
        monkeypatch.setattr(module, "BAND_PX", 64)
    monkeypatch.setattr(bands, "LANE_PX", 256)
    monkeypatch.setattr(predictor, "has_fast_bf16", lambda device: False)


@pytest.fixture(scope="session")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A U-Net with random weights: tiles of 96 px, margins of 16, stride 48, 1 µm/px."""
    return make_segmenter_folder(tmp_path_factory.mktemp("models") / "tiny-unet")


@pytest.fixture
def make_segment_job(make_job: MakeJob, segmenter: Path) -> MakeJob:
    return lambda model=segmenter, **options: make_job(model, **options)


def segmented(job: Job, out: Path, **options: Any) -> SegmentationStore:
    *_, last = run(job, out=out, device="cpu", **options)
    return SegmentationStore.open(last.store)


def pixels(store: SegmentationStore) -> np.ndarray:
    return store.strip(slice(0, store.picture.shape[0]))


def test_a_pixel_gets_the_weighted_answers_of_the_plain_model(
    tmp_path: Path, make_segment_job: MakeJob, segmenter: Path, slide_path: Path
) -> None:
    """Made here in the plainest way, in memory, without engine, folding or stitcher."""
    store = segmented(make_segment_job(), tmp_path)
    assert store.picture.shape == (450, 600)
    model = load_manifest(segmenter)
    module, norm = load_module(model), model.normalisation
    assert norm is not None
    mean, std = (torch.tensor(v)[:, None, None] for v in (norm.mean, norm.std))
    along = np.minimum(np.arange(64) + 0.5, 64 - np.arange(64) - 0.5) / 16
    along = np.sin(np.pi / 2 * along.clip(0, 1)) ** 2
    sums = np.zeros((3, 6 * 48 + 16, 6 * 48 + 16))  # with the overhang of 8 px
    with open_slide(slide_path) as slide, torch.inference_mode():
        for row, column in np.ndindex(6, 6):
            corner = ((column * 48 - 24) * 2.0, (row * 48 - 24) * 2.0)
            tile = torch.tensor(read_rect(slide, corner, (192, 192), (96, 96)))
            logits = module((tile.permute(2, 0, 1) / 255 - mean)[None] / std)
            says = torch.softmax(logits, dim=1)[0, :, 16:-16, 16:-16].numpy()
            weights = np.outer(along, along)
            into = np.s_[:, row * 48 : row * 48 + 64, column * 48 : column * 48 + 64]
            sums[into] += np.concatenate([says * weights, weights[None]])
    wanted = (sums[:2] / sums[2])[:, 8:280, 8:280]  # farther right other tiles count too
    read = from_stored(pixels(store))[:, :272, :272]
    np.testing.assert_allclose(read, wanted, rtol=0, atol=0.5 / 254 + 2e-3)  # one grey level
    assert np.abs(read - wanted).mean() < 1e-3
    assert read[1].std() > 0.05, "else nothing was tested"


def test_a_constant_net_gives_a_constant(tmp_path: Path, make_segment_job: MakeJob) -> None:
    folder = make_segmenter_folder(tmp_path / "constant", logits=[0.0, 1.0])
    answers: list[np.ndarray] = []
    real = stored.SegmentationStore.write_band

    def write(self: Any, band: Any, give: Any, skipped: Any = None) -> None:
        answers.append(give(band.columns))
        real(self, band, give, skipped)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stored.SegmentationStore, "write_band", write)
        store = segmented(make_segment_job(folder), tmp_path)
    exact = 1 / (1 + np.exp(-1))
    for values in answers:
        np.testing.assert_allclose(values[1], exact, rtol=0, atol=1e-6)
    assert (pixels(store)[1] == round(exact * 254)).all()
    (warning,) = store.warnings
    assert warning.startswith("constant gives the same answer everywhere")


def test_batches_threads_and_lanes_change_nothing(
    tmp_path: Path, make_segment_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_segment_job()
    straight = pixels(segmented(job, tmp_path / "a"))
    looked_at = pixels(segmented(job, tmp_path / "b", near=lambda: (1100.0, 10.0)))
    np.testing.assert_array_equal(looked_at, straight)
    for workers, batch in ((1, 1), (3, 7)):
        real = lanes.cpu_lane
        monkeypatch.setattr(
            session, "cpu_lane", lambda *a, w=workers, real=real: real(*a, workers=w)
        )
        other = pixels(segmented(job, tmp_path / f"{workers}", batch=batch))
        difference = np.abs(other.astype(int) - straight)
        assert difference.max() <= 1, "1e-6 may cross the edge of a step"
        assert (difference > 0).mean() < 1e-3


def test_a_device_fed_by_readers_gives_the_same(
    tmp_path: Path, make_segment_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lane of GPUs with the CPU as device: batches larger than pieces must not starve."""
    job = make_segment_job()
    straight = pixels(segmented(job, tmp_path / "a"))
    monkeypatch.setattr(session, "cpu_lane", lanes.device_lane)
    real = BandPlan.__init__

    def as_for_a_device(self: BandPlan, *a: Any, **k: Any) -> None:
        real(self, *a, **{**k, "piece_tiles": 4, "ahead": 4 * 10 + 4})

    monkeypatch.setattr(BandPlan, "__init__", as_for_a_device)
    fed = pixels(segmented(job, tmp_path / "b", batch=40))
    assert np.abs(fed.astype(int) - straight).max() <= 1


def test_progress_counts_what_is_on_disk(tmp_path: Path, make_segment_job: MakeJob) -> None:
    told = list(run(make_segment_job(), out=tmp_path, device="cpu"))
    assert (told[0].done, told[0].total) == (0, CELLS)
    assert [p.done for p in told] == sorted(p.done for p in told)
    assert told[-1].done == CELLS
    assert len(told) == 1 + 2 * 8  # the narrow rest of a third lane is in the second
    assert told[1].rect_px0 == Rect(0, 0, 512, 128)
    assert told[-1].rect_px0 == Rect(512, 896, 688, 4)
    (again,) = run(make_segment_job(), out=tmp_path, device="cpu")
    assert (again.done, again.resumed) == (CELLS, CELLS)
    (record,) = SegmentationStore.open(told[-1].store).sessions
    assert (record["state"], record["tiles"]) == ("finished", CELLS)


def test_cancelled_and_resumed_equals_straight(tmp_path: Path, make_segment_job: MakeJob) -> None:
    job = make_segment_job()
    straight = segmented(job, tmp_path / "straight")
    counts = [0]
    for _ in range(3):
        cancel, told = threading.Event(), list[Progress]()
        for progress in run(job, out=tmp_path / "b", device="cpu", cancel=cancel):
            told.append(progress)
            if len(told) == 6:
                cancel.set()
        assert told[0].done == counts[-1]
        counts.append(told[-1].done)
        assert not [t for t in threading.enumerate() if t.name.startswith("histomil")]
    assert counts == sorted(set(counts))
    assert counts[-1] < CELLS
    resumed = segmented(job, tmp_path / "b")
    assert [s["state"] for s in resumed.sessions] == ["cancelled"] * 3 + ["finished"]
    for a, b in zip(resumed.levels, straight.levels, strict=True):
        np.testing.assert_array_equal(a[:], b[:])


CHILD = (
    SMALL
    + """
import sys, time
from pathlib import Path
from napari_histomil.inference.engine import run
from napari_histomil.inference.job import RegionSpec, plan_job
from napari_histomil.inference import predictor
from napari_histomil.manifest import load_manifest
from napari_histomil.slides.readers import open_slide

predictor.has_fast_bf16 = lambda device: False
slide_path, model_path, out = map(Path, sys.argv[1:])
with open_slide(slide_path) as slide:
    job = plan_job(slide.info, load_manifest(model_path), region=RegionSpec("all"))
for progress in run(job, out=out, device="cpu"):
    print(progress.done, flush=True)
    time.sleep(0.05)
"""
)


def test_killed_and_resumed_equals_straight(
    tmp_path: Path, make_segment_job: MakeJob, slide_path: Path, segmenter: Path
) -> None:
    job = make_segment_job()
    straight = segmented(job, tmp_path / "straight")
    out = tmp_path / "killed"
    path = run_path(slide_path, job.run_id, fingerprint=job.slide.fingerprint, out=out)
    done = [0]
    for pause in (0.02, 0.11):
        words = [sys.executable, "-c", CHILD, str(slide_path), str(segmenter), str(out)]
        with subprocess.Popen(words, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            assert int(child.stdout.readline()) == done[-1], "nothing that was done is lost"
            for _ in range(4):
                child.stdout.readline()
            time.sleep(pause)
            child.kill()
            child.communicate()
        killed = SegmentationStore.open(path)
        done.append(int(killed.done_tiles.sum()))
        for band in killed.picture.bands:
            if killed.done_bands[band.index]:
                part = np.s_[:, band.rows, band.columns]
                np.testing.assert_array_equal(killed.levels[0][part], straight.levels[0][part])
    assert done == sorted(set(done)), "every session got further"
    assert done[-1] < CELLS
    resumed = segmented(job, out)
    for a, b in zip(resumed.levels, straight.levels, strict=True):
        np.testing.assert_array_equal(a[:], b[:])


def test_closing_the_generator_ends_threads(tmp_path: Path, make_segment_job: MakeJob) -> None:
    progress = run(make_segment_job(), out=tmp_path, device="cpu")
    next(progress)
    store = next(progress).store
    progress.close()  # type: ignore[attr-defined]
    assert not [t for t in threading.enumerate() if t.name.startswith("histomil")]
    with SegmentationStore.open(store, writable=True) as again:
        assert again.sessions[0]["state"] == "cancelled"


def test_only_the_region_is_looked_at(tmp_path: Path, make_segment_job: MakeJob) -> None:
    region = RegionSpec("rect", Rect(400, 300, 300, 250))
    store = segmented(make_segment_job(region=region), tmp_path)
    assert store.complete
    known = pixels(store)[0] != UNKNOWN
    rows, columns = np.flatnonzero(known.any(axis=1)), np.flatnonzero(known.any(axis=0))
    assert (rows[0], rows[-1] + 1) == (144, 288), "cells of 48 px that it covers by a tenth"
    assert (columns[0], columns[-1] + 1) == (192, 384)
    assert known[144:288, 192:384].all()
    whole = pixels(segmented(make_segment_job(), tmp_path / "all"))
    inside = np.s_[:, 160:272, 208:368]  # farther in than the overlap of 16 px
    np.testing.assert_array_equal(pixels(store)[inside], whole[inside])


def write_noise(path: Path, shift: int) -> Path:
    """The same coloured noise, moved to the lower right by `shift` px over white; 1 µm/px."""
    rng = np.random.default_rng(3)
    noise = np.kron(rng.integers(0, 255, (32, 40, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    image = np.full((320, 384, 3), 255, np.uint8)
    image[32 + shift : 288 + shift, 32 + shift : 352 + shift] = noise[: 288 - shift, :]
    tifffile.imwrite(
        path, image, tile=(64, 64), photometric="rgb", resolution=(1e4, 1e4),
        resolutionunit="CENTIMETER",
    )  # fmt: skip
    return path


class Smoother(torch.nn.Module):
    """Sees 9 px around each pixel, less than a margin, and answers for whatever is there."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        blurred = torch.nn.functional.avg_pool2d(x, 19, 1, 9)
        green = (blurred[:, 1:2] - 0.5) * 6
        return torch.cat([-green, green], 1)


class Halver(torch.nn.Module):
    """Answers for every second pixel only."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :2, ::2, ::2]


def scripted(folder: Path, net: torch.nn.Module) -> Path:
    """That net as a model folder with TorchScript."""
    return script_model(make_segmenter_folder(folder), net)


@pytest.fixture(scope="session")
def smoother(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scripted(tmp_path_factory.mktemp("models") / "smoother", Smoother())


@pytest.mark.parametrize("shift", [1, 7, 17, 24])
def test_shifting_the_slide_shifts_the_result(tmp_path: Path, smoother: Path, shift: int) -> None:
    """By parts of a tile; the grid stays where it is, at the slide's corner."""
    results = []
    for moved in (0, shift):
        path = write_noise(tmp_path / f"{moved}.tif", moved)
        with open_slide(path) as slide:
            job = plan_job(slide.info, load_manifest(smoother), region=RegionSpec("all"))
        store = segmented(job, tmp_path / f"out {moved}")
        assert store.sessions[0]["backend"] == "torchscript"
        results.append(pixels(store).astype(int))
    here, there = results
    difference = np.abs(there[:, shift:-24, shift:-24] - here[:, : -24 - shift, : -24 - shift])
    assert difference.max() <= 1, "1e-6 may cross the edge of a step"
    assert here[1].std() > 20, "else nothing was tested"


def test_no_grid_is_seen_on_real_tissue(tmp_path: Path, data_dir: Path) -> None:
    """Mean step across the seams of tiles against everywhere else.

    The net sees farther than its margin, so that neighbours disagree: only the window hides it.
    """
    deep = {"encoder_name": "resnet18", "decoder_channels": [64, 32, 32, 16, 16]}
    path = data_dir / "wsi-aperio-svs" / "CMU-1-Small-Region.svs"

    def seams(name: str, stride: int) -> float:
        grid = {"mpp": 1.0, "tile_px": 256, "stride_px": stride, "margin_px": 32}
        folder = make_segmenter_folder(tmp_path / name, grid=grid, arguments=deep)
        with open_slide(path) as slide:
            part = RegionSpec("rect", Rect(0, 0, 1536, 1536))
            job = plan_job(slide.info, load_manifest(folder), region=part)
        values = from_stored(pixels(segmented(job, tmp_path)))[1, :768, :768]
        ratios = []
        for axis in (0, 1):
            step = np.abs(np.diff(values, axis=axis)).mean(axis=1 - axis)
            at_seam = np.arange(1, step.size + 1) % stride == 0
            ratios.append(step[at_seam].mean() / step[~at_seam].mean())
        return float(np.mean(ratios))

    assert seams("without-overlap", 192) > 3, "else no seam could be seen"
    assert seams("with-overlap", 128) < 1.4


def test_several_labels_at_once(tmp_path: Path, make_segment_job: MakeJob) -> None:
    """Sigmoid: classes do not have to share a pixel."""
    folder = make_segmenter_folder(
        tmp_path / "labels", logits=[2.0, 1.0], activation="sigmoid", temperature=2.0
    )
    values = from_stored(pixels(segmented(make_segment_job(folder), tmp_path)))
    np.testing.assert_allclose(values[0], 1 / (1 + np.exp(-1)), atol=0.5 / 254)
    np.testing.assert_allclose(values[1], 1 / (1 + np.exp(-0.5)), atol=0.5 / 254)


class Broken:
    """A slide with a place that cannot be read."""

    def __init__(self, slide: Any, place_px0: tuple[int, int]) -> None:
        self._slide, self._place, self.info = slide, place_px0, slide.info

    def read_region(self, xy: tuple[int, int], level: int, size: tuple[int, int]) -> Any:
        if all(0 <= p - a < s for p, a, s in zip(self._place, xy, size, strict=True)):
            raise SlideError(f"{self.info.path.name}: damaged data.")
        return self._slide.read_region(xy, level, size)

    def __enter__(self) -> Broken:
        return self

    def __exit__(self, *_: object) -> None:
        self._slide.close()


def test_a_tile_that_fails_stops_or_is_left_out(
    tmp_path: Path, make_segment_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = opening.open_slide
    monkeypatch.setattr(opening, "open_slide", lambda *a, **k: Broken(real(*a, **k), (624, 432)))
    with pytest.raises(TileError, match=r"the tile at x = .* damaged data"):
        segmented(make_segment_job(), tmp_path)
    assert not [t for t in threading.enumerate() if t.name.startswith("histomil")]
    store = segmented(make_segment_job(), tmp_path, on_error="skip")
    assert store.complete
    failed = {tuple(store.grid.cells[tile].tolist()) for tile in store.skipped}
    assert (4, 6) in failed
    assert pixels(store)[0, 4 * 48 + 24, 6 * 48 + 24] == UNKNOWN
    assert (pixels(store)[0, :96] != UNKNOWN).all()


def test_a_model_that_does_not_fit_is_told(tmp_path: Path, make_segment_job: MakeJob) -> None:
    folder = scripted(tmp_path / "halver", Halver())
    with pytest.raises(ModelError, match=r"halver gives outputs of the shape \(2, 2, 48, 48\)"):
        segmented(make_segment_job(folder), tmp_path)
    assert list(tmp_path.rglob("*.zarr")) == []
    with pytest.raises(RunError, match="choose a stride that is even"):
        make_segment_job(stride_px=47)
    with pytest.raises(RunError, match="at most 64"):
        make_segment_job(stride_px=80)


def test_memory_is_that_of_bands_not_of_the_slide(make_segment_job: MakeJob) -> None:
    """Nobody runs ahead of who stitches: that is what bounds what waits."""
    from napari_histomil.results.bands import Picture
    from napari_histomil.tiling import GridSpec, TileGrid

    empty = TileGrid(GridSpec(1.0, 96, 48, 16), (1.0, 1.0), (4000, 4000), np.empty((0, 2), int))
    cells = np.indices(empty.shape, np.int32).reshape(2, -1).T
    picture = Picture(TileGrid(empty.spec, (1.0, 1.0), (4000, 4000), cells))
    none = np.zeros(len(picture.bands), bool)
    plan = BandPlan(picture, none, piece_tiles=8, ahead=5, near=None)
    assert [plan.take() is not None for _ in range(5)] == [True] * 5
    waits = threading.Thread(target=plan.take, daemon=True)
    waits.start()
    waits.join(0.2)
    assert waits.is_alive()
    plan.stitched()
    waits.join(5)
    assert not waits.is_alive()
    plan.end()
    assert plan.take() is None
