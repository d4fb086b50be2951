from __future__ import annotations

import threading
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from model_folders import make_model_folder

from napari_histomil.errors import ModelError, OutputError, RunError, TileError
from napari_histomil.geometry import Rect
from napari_histomil.inference import lanes, opening, predictor, session, tiles
from napari_histomil.inference.engine import run
from napari_histomil.inference.job import Job, Progress, RegionSpec, plan_job
from napari_histomil.manifest import load_manifest
from napari_histomil.nets.load import load_module
from napari_histomil.results import RunStore
from napari_histomil.slides.readers import open_slide
from napari_histomil.slides.slide import Slide, Uint8Image, read_tile

MakeJob = Callable[..., Job]
TILES = 38 * 29


def scores(job: Job, out: Path, **options: Any) -> RunStore:
    """Run a job to its end."""
    *_, last = run(job, out=out, device="cpu", **options)
    return RunStore.open(last.store)


@pytest.fixture(params=["fp32", "as this machine likes"])
def tolerance(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> float:
    """The architecture's rule: 1e-6 in float32, 0.01 in bfloat16, where there is that."""
    if request.param == "fp32" or not predictor.has_fast_bf16(torch.device("cpu")):
        monkeypatch.setattr(predictor, "has_fast_bf16", lambda device: False)
        return 1e-6
    return predictor.BF16_TOLERANCE


def test_every_tile_gets_the_answer_of_the_plain_model(
    tmp_path: Path, make_job: MakeJob, model_folder: Path, slide_path: Path, tolerance: float
) -> None:
    """Tile by tile, scaled in the open, unfolded, in float32: what the engine must equal."""
    store = scores(make_job(), tmp_path)
    assert (store.sessions[0]["precision"] == "fp32") == (tolerance == 1e-6)
    model = load_manifest(model_folder)
    module, normalisation = load_module(model), model.normalisation
    assert normalisation is not None
    mean, std = (torch.tensor(v)[:, None, None] for v in (normalisation.mean, normalisation.std))
    with open_slide(slide_path) as slide, torch.inference_mode():
        for tile in range(0, TILES, 23):
            x, y = store.grid.tile_rects_px0[tile, :2]
            pixels = torch.tensor(read_tile(slide, (float(x), float(y)), 32, 1.0))
            scaled = (pixels.permute(2, 0, 1) / 255 - mean) / std
            wanted = torch.softmax(module(scaled[None]), dim=1)[0].numpy()
            np.testing.assert_allclose(store.scores[tile], wanted, rtol=0, atol=tolerance)
    assert np.ptp(store.scores, axis=0).max() > 0.02, "else nothing was tested"


def test_progress_tells_where_and_how_far(tmp_path: Path, make_job: MakeJob) -> None:
    job = make_job()
    told = list(run(job, out=tmp_path, device="cpu"))
    assert (told[0].done, told[0].total, told[0].resumed) == (0, TILES, 0)
    assert [p.done for p in told[1:]] == sorted(p.done for p in told[1:])
    assert told[-1].done == TILES
    assert len(told) == 1 + 18
    assert told[0].rect_px0 == Rect(0, 0, 38 * 32, 29 * 32)
    # workers share blocks, so the second may be done a little before the first
    assert Rect(0, 0, 256, 256) in [p.rect_px0 for p in told[1:4]], "8 x 8 cells"
    assert len({p.rect_px0 for p in told[1:]}) == 18
    assert told[0].store.name == f"{job.run_id}.zarr"
    assert told[0].store.parent.parent.name == "noise [1] ü.tif.histomil"


def test_the_store_says_what_made_it(tmp_path: Path, make_job: MakeJob) -> None:
    job = make_job()
    store = scores(job, tmp_path)
    assert store.complete
    assert store.job == job.canonical()
    assert store.model["sha256"] == job.model.sha256
    assert store.model["positive_class"] == "tumor"
    assert store.slide["fingerprint"] == job.slide.fingerprint
    assert store.slide["mpp_xy"] == [0.5, 0.5]
    (session,) = store.sessions
    assert session["state"] == "finished"
    assert session["tiles"] == TILES
    assert session["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert session["device"].endswith("(cpu)")
    assert session["finished"] >= session["started"]
    assert session["scaling_folded"] is True
    assert session["batch_norms_folded"] > 0
    assert store.warnings == []


def test_a_finished_job_returns_at_once(
    tmp_path: Path, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job()
    scores(job, tmp_path)
    monkeypatch.setattr(opening, "open_slide", None)  # neither slide nor model are touched
    monkeypatch.setattr(opening, "load_manifest", None)
    (only,) = run(job, out=tmp_path)
    assert (only.done, only.total, only.resumed) == (TILES, TILES, TILES)


def test_a_torn_run_is_mended(tmp_path: Path, make_job: MakeJob) -> None:
    """As after a power cut: a block is flagged, and its scores are not all there."""
    job = make_job()
    whole = scores(job, tmp_path)
    chunk = whole.path / "scores" / "c" / "3" / "0"
    chunk.write_bytes(chunk.read_bytes()[:99])
    with pytest.raises(RunError, match="run its job again"):
        RunStore.open(whole.path)
    told = list(run(job, out=tmp_path, device="cpu"))
    assert (told[0].resumed, told[-1].done) == (TILES - 64, TILES)
    np.testing.assert_array_equal(RunStore.open(whole.path).scores, whole.scores)


def test_cancelling_before_the_first_block_stops_too(tmp_path: Path, make_job: MakeJob) -> None:
    cancel = threading.Event()
    cancel.set()
    (only,) = run(make_job(), out=tmp_path, device="cpu", cancel=cancel)
    assert only.done == 0
    assert RunStore.open(only.store).sessions == [], "nothing was worked on"


def test_blocks_in_any_order_and_any_batch_give_one_result(
    tmp_path: Path, make_job: MakeJob, tolerance: float
) -> None:
    job = make_job()
    straight = scores(job, tmp_path / "a")
    seen: list[Rect] = []
    for progress in run(job, out=tmp_path / "b", device="cpu", near=lambda: (1199, 899)):
        seen.append(progress.rect_px0)
    far = seen[1].center_px0
    assert far[0] > 800
    assert far[1] > 500, "the corner that is looked at comes first"
    other = RunStore.open(progress.store)
    np.testing.assert_array_equal(other.scores, straight.scores)
    odd = scores(job, tmp_path / "c", batch=7)
    np.testing.assert_allclose(odd.scores, straight.scores, rtol=0, atol=tolerance)


def test_cancelling_begins_no_block_and_resumes(tmp_path: Path, make_job: MakeJob) -> None:
    job = make_job()
    straight = scores(job, tmp_path / "straight")
    cancel, told = threading.Event(), list[Progress]()
    for progress in run(job, out=tmp_path / "b", device="cpu", cancel=cancel):
        told.append(progress)
        if len(told) == 5:
            cancel.set()
    assert len(told) <= 7, "no block is begun any more"
    assert 4 * 64 <= told[-1].done < TILES
    cancelled = RunStore.open(told[-1].store)
    assert cancelled.sessions[0]["state"] == "cancelled"
    assert int(cancelled.done_tiles.sum()) == told[-1].done
    again = list(run(job, out=tmp_path / "b", device="cpu"))
    assert again[0].resumed == again[0].done == told[-1].done
    assert again[-1].done == TILES
    resumed = RunStore.open(again[-1].store)
    assert [s["state"] for s in resumed.sessions] == ["cancelled", "finished"]
    assert sum(s["tiles"] for s in resumed.sessions) == TILES
    np.testing.assert_array_equal(resumed.scores, straight.scores)


def test_cancelling_does_not_wait_for_a_slow_slide(
    tmp_path: Path, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One region is read to its end, not the whole piece (16 tiles, read one by one here)."""
    real, cancel = opening.open_slide, threading.Event()

    class Slow(Broken):
        def read_region(self, xy: Any, level: int, size: Any) -> Uint8Image:
            if slow.is_set():
                time.sleep(0.3)
            read_after.extend([xy] * cancel.is_set())
            return super().read_region(xy, level, size)

    slow, read_after = threading.Event(), list[Any]()
    monkeypatch.setattr(opening, "open_slide", lambda *a, **k: Slow(real(*a, **k), []))
    monkeypatch.setattr(tiles, "MAX_REGION_PX", 1)
    progress = run(make_job(), out=tmp_path, device="cpu", cancel=cancel)
    next(progress), next(progress)
    slow.set()
    time.sleep(0.1)
    cancel.set()
    list(progress)
    assert len(read_after) <= 2, "each of two threads ends with the region it reads"


def test_closing_the_generator_ends_threads_and_frees_the_store(
    tmp_path: Path, make_job: MakeJob
) -> None:
    job = make_job()
    threads = torch.get_num_threads()
    progress = run(job, out=tmp_path, device="cpu")
    next(progress)
    store = next(progress).store
    progress.close()  # type: ignore[attr-defined]
    assert not [t for t in threading.enumerate() if t.name.startswith("histomil")]
    assert torch.get_num_threads() == threads
    with RunStore.open(store, writable=True) as again:
        assert again.sessions[0]["state"] == "cancelled"
        assert again.done_tiles.sum() >= 64


def test_two_runs_of_one_job_at_once_are_told(tmp_path: Path, make_job: MakeJob) -> None:
    job = make_job()
    first = run(job, out=tmp_path, device="cpu")
    next(first)
    with pytest.raises(RunError, match="being written by another process"):
        next(run(job, out=tmp_path, device="cpu"))
    first.close()  # type: ignore[attr-defined]


class Broken:
    """A slide with two places that cannot be read."""

    def __init__(self, slide: Slide, places_px0: list[tuple[int, int]]) -> None:
        self._slide, self._places, self.info = slide, places_px0, slide.info

    def read_region(self, xy: tuple[int, int], level: int, size: tuple[int, int]) -> Uint8Image:
        from napari_histomil.errors import SlideError

        for place in self._places:
            if all(0 <= p - a < s for p, a, s in zip(place, xy, size, strict=True)):
                raise SlideError(f"{self.info.path.name}: damaged data.")
        return self._slide.read_region(xy, level, size)

    def __enter__(self) -> Broken:
        return self

    def __exit__(self, *_: object) -> None:
        self._slide.close()


@pytest.fixture
def break_slide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Break the centres of the cells (10, 10) and (20, 30); context reaches none of them."""
    places = [(10 * 32 + 16, 10 * 32 + 16), (30 * 32 + 16, 20 * 32 + 16)]
    real = opening.open_slide
    monkeypatch.setattr(opening, "open_slide", lambda *a, **k: Broken(real(*a, **k), places))


@pytest.mark.usefixtures("break_slide")
def test_a_tile_that_fails_is_an_error_with_its_place(tmp_path: Path, make_job: MakeJob) -> None:
    with pytest.raises(TileError, match=r"noise \[1\] ü.tif: the tile at x = \d+, y = \d+") as e:
        scores(make_job(), tmp_path)
    assert "level 0" in str(e.value)
    assert "damaged data" in str(e.value)
    assert not [t for t in threading.enumerate() if t.name.startswith("histomil")]


@pytest.mark.usefixtures("break_slide")
def test_tiles_that_fail_can_be_skipped(tmp_path: Path, make_job: MakeJob) -> None:
    store = scores(make_job(), tmp_path, on_error="skip")
    assert store.complete
    cells = {tuple(store.grid.cells[tile].tolist()) for tile in store.skipped}
    assert {(10, 10), (20, 30)} <= cells
    missing = np.flatnonzero(np.isnan(store.scores).all(axis=1))
    assert missing.tolist() == sorted(store.skipped)
    assert all("damaged data" in text for text in store.skipped.values())
    assert np.isfinite(np.delete(store.scores, missing, axis=0)).all()
    (only,) = run(make_job(), out=tmp_path, device="cpu")
    assert only.done == TILES, "what was skipped is done"


def test_nothing_is_left_of_a_run_that_could_not_begin(
    tmp_path: Path, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ModelError("no good")

    monkeypatch.setattr(session, "prepare_net", fail)
    with pytest.raises(ModelError):
        scores(make_job(), tmp_path)
    assert list(tmp_path.rglob("*.zarr*")) == []


def test_a_model_that_answers_no_number_is_told(tmp_path: Path, make_job: MakeJob) -> None:
    folder = make_model_folder(tmp_path / "nan")
    change_weights(folder, lambda state: state["fc.bias"].fill_(float("nan")))
    with pytest.raises(TileError, match="not a number"):
        scores(make_job(folder), tmp_path)


def test_a_model_that_always_answers_the_same_is_told(tmp_path: Path, make_job: MakeJob) -> None:
    folder = make_model_folder(tmp_path / "constant")
    change_weights(folder, lambda state: state["fc.weight"].zero_())
    store = scores(make_job(folder), tmp_path)
    (warning,) = store.warnings
    assert warning.startswith(f"constant gives every one of {TILES} tiles the same answer")


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    """Change a model's weights, and state their new hash."""
    import hashlib

    import safetensors.torch

    file = folder / "weights.safetensors"
    before = hashlib.sha256(file.read_bytes()).hexdigest()
    state = safetensors.torch.load_file(file)
    change(state)
    safetensors.torch.save_file(state, file)
    after = hashlib.sha256(file.read_bytes()).hexdigest()
    text = (folder / "model.json").read_text("utf-8")
    (folder / "model.json").write_text(text.replace(before, after), "utf-8")


def test_enlarged_tiles_and_another_mpp_are_told(tmp_path: Path, make_job: MakeJob) -> None:
    region = RegionSpec("rect", Rect(0, 0, 300, 300))
    store = scores(make_job(mpp=0.3, region=region), tmp_path)
    assert "0.5 µm/px and the tiles 0.3: they are enlarged" in store.warnings[0]
    assert "trained on 1 µm/px and was run on 0.3" in store.warnings[1]


def test_the_wrong_slide_or_model_is_refused(tmp_path: Path, make_job: MakeJob) -> None:
    job = make_job()
    with pytest.raises(RunError, match="not the slide"):
        scores(replace(job, slide=replace(job.slide, fingerprint="0" * 64)), tmp_path)
    other = make_model_folder(tmp_path / "models" / "tiny", seed=1)
    with pytest.raises(RunError, match="not the one that the job was made for"):
        scores(replace(job, model=replace(job.model, path=other)), tmp_path)
    gone = replace(job, model=replace(job.model, path=tmp_path / "gone", name="gone"))
    with pytest.raises(ModelError, match="no model named 'gone'"):
        scores(gone, tmp_path)


def test_a_model_that_moved_is_found_by_name(tmp_path: Path, make_job: MakeJob) -> None:
    job = make_job()
    make_model_folder(tmp_path / "models" / "tiny")
    moved = replace(job, model=replace(job.model, path=tmp_path / "gone"))
    region = replace(moved, region=RegionSpec("rect", Rect(0, 0, 100, 100)))
    assert scores(region, tmp_path, models=[tmp_path / "models"]).complete


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path, make_job: MakeJob) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot be written"):
        scores(make_job(), tmp_path / "file")


@pytest.mark.parametrize("workers", [1, 3])
def test_a_device_fed_by_readers_gives_the_same(
    tmp_path: Path,
    make_job: MakeJob,
    monkeypatch: pytest.MonkeyPatch,
    workers: int,
    tolerance: float,
) -> None:
    """The lane of GPUs, here with the CPU as the device."""
    job = make_job()
    straight = scores(job, tmp_path / "a")

    def feed(plan: Any, reader: Any, net: Any) -> Any:
        net.batch = 150
        return lanes.device_lane(plan, reader, net, workers=workers)

    monkeypatch.setattr(session, "cpu_lane", feed)
    fed = scores(job, tmp_path / "b", batch=64)
    np.testing.assert_allclose(fed.scores, straight.scores, rtol=0, atol=tolerance)
    assert not [t for t in threading.enumerate() if t.name.startswith("histomil")]


def test_memory_does_not_grow_with_the_number_of_tiles(tmp_path: Path, make_job: MakeJob) -> None:
    """1102 tiles are 3.4 MB as pixels; what is in flight at a time is far less."""
    job = make_job()
    scores(job, tmp_path / "warm")
    tracemalloc.start()
    progress = run(job, out=tmp_path / "out", device="cpu")
    next(progress), next(progress)
    before = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    for _ in progress:
        time.sleep(0.01)  # a slow consumer: workers must wait, not pile up
    grown = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    assert grown < 2_000_000


def test_a_device_that_is_not_there_leaves_nothing_behind(
    tmp_path: Path, make_job: MakeJob
) -> None:
    with pytest.raises(RunError, match="There is no device 'abacus'"):
        list(run(make_job(), out=tmp_path / "out", device="abacus"))
    assert not (tmp_path / "out").exists()


def test_a_slide_that_glows_is_told(tmp_path: Path, model_folder: Path) -> None:
    pixels = np.zeros((600, 600, 3), np.uint8)
    pixels[200:400, 200:400, 2] = 200
    slide = tmp_path / "dapi.tif"
    tifffile.imwrite(slide, pixels, tile=(256, 256), photometric="rgb", compression="deflate")
    with open_slide(slide, mpp=0.5) as opened:
        job = plan_job(opened.info, load_manifest(model_folder), region=RegionSpec("all"))
    *_, last = run(job, out=tmp_path, device="cpu")
    assert any("dapi.tif is bright on black" in w for w in RunStore.open(last.store).warnings)
