from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from model_folders import make_model_folder, make_segmenter_folder

from napari_histomil.bench import chains, run_memory
from napari_histomil.bench import run as bench
from napari_histomil.bench.chains import ChainFigures, OneWay, measure_chain
from napari_histomil.bench.run import NetworkFigures, measure_network, sample_job
from napari_histomil.bench.run_memory import MemoryFigures, constant_model, measure_memory
from napari_histomil.bench.run_report import RunBenchmark, append_results, report
from napari_histomil.cli import main
from napari_histomil.errors import RunError
from napari_histomil.inference import backend_choice
from napari_histomil.inference.engine import run
from napari_histomil.inference.job import RegionSpec, plan_job
from napari_histomil.inference.plan import select_tiles
from napari_histomil.manifest import StepModels, load_manifest, write_chain
from napari_histomil.resources import packaged
from napari_histomil.results import RunStore, SegmentationStore
from napari_histomil.slides.readers import open_slide

SLIDE = packaged("sample_data") / "synthetic-lymph-node.tiff"
NETWORK = NetworkFigures(
    model="tiny",
    task="classify",
    slide="slide.svs",
    device="Processor, 2 cores (cpu)",
    backend="onnxruntime fp32",
    batch=16,
    workers=2,
    tiles=1000,
    tiles_of_job=24000,
    tile_px=128,
    stride_px=64,
    mpp=1.0,
    rounds=3,
    end_to_end=750.0,
    forward={"eager fp32": 900.0, "onnxruntime fp32": 1000.0},
    reading=4000.0,
    bound=800.0,
    efficiency=0.9375,
    cpu_efficiency=0.95,
)
MEMORY = MemoryFigures("tiny", 3 << 30, 2 << 30, 5 << 29, (128, 100, 900), 1 << 30)
CHAIN = ChainFigures(
    "cascade", "unet", "slide.svs", OneWay(2.0, 150, 50, 0.81), OneWay(8.0, 400, 400, 0.83)
)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short looks, and torch alone: an export takes seconds (`inference/test_backend_choice`)."""
    monkeypatch.setattr(bench, "FORWARD_SECONDS", 0.1)
    monkeypatch.setattr(backend_choice, "runtime_version", lambda: None)
    monkeypatch.setattr(bench, "in_onnxruntime", _not_installed)


def _not_installed(*args: object) -> None:
    from napari_histomil.errors import ModelError

    raise ModelError("needs ONNX Runtime")


def tiny(path: Path, tile_px: int = 64) -> Path:
    return make_model_folder(path, grid={"mpp": 2.0, "tile_px": tile_px, "stride_px": tile_px})


def test_a_benchmark_measures_what_it_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the command line, whose text and JSON come from the same figures."""
    file = tmp_path / "benchmarks" / "RESULTS.md"
    arguments = ["bench", "run", "--model", str(tiny(tmp_path / "tiny")), "--slide", str(SLIDE)]
    arguments += ["--region", "all", "--device", "cpu", "--rounds", "1", "--only", "speed"]
    assert main([*arguments, "--json", "--results", str(file)]) == 0
    (n,) = json.loads(capsys.readouterr().out)["networks"]
    assert n["tiles"] == n["tiles_of_job"] == 24 * 18  # 6000 x 4500 px at 0.5 µm, cells of 256 px
    f = max(n["forward"].values())
    assert n["bound"] == pytest.approx(1 / (1 / f + 1 / n["reading"]))
    assert n["efficiency"] == pytest.approx(n["end_to_end"] / n["bound"])
    assert 0.1 < n["efficiency"] < 10, "a wrong unit or count would be far off"
    assert "1 / (1/F + 1/R)" in file.read_text("utf-8")


def test_a_net_that_segments_is_measured_on_a_sample(tmp_path: Path) -> None:
    grid = {"mpp": 2.0, "tile_px": 64, "stride_px": 32, "margin_px": 16}
    model = load_manifest(make_segmenter_folder(tmp_path / "unet", grid=grid))
    n = measure_network(model, SLIDE, device="cpu", region=RegionSpec("all"), rounds=1, seconds=0)
    assert (n.tiles, n.tiles_of_job) == (128, 47 * 36)
    assert 0.1 < n.efficiency < 10


def test_a_sample_holds_neighbours_that_a_job_looks_at(tmp_path: Path) -> None:
    model = load_manifest(tiny(tmp_path / "tiny"))
    with open_slide(SLIDE) as slide:
        job = plan_job(slide.info, model, region=RegionSpec("all"))
        grid = select_tiles(slide, job)
        assert sample_job(job, grid, 10_000) == (job, grid)
        part_job, part = sample_job(job, grid, 64)
        again = select_tiles(slide, part_job)
    assert sorted(map(tuple, again.cells)) == sorted(map(tuple, part.cells))
    assert len(part) == 64
    assert np.ptp(part.cells, axis=0).max() < 20


def test_too_few_tiles_are_told(tmp_path: Path) -> None:
    model = load_manifest(tiny(tmp_path / "tiny", 256))
    with pytest.raises(RunError, match="too few to measure"):
        measure_network(model, SLIDE, region=RegionSpec("all"), rounds=1)


@pytest.mark.parametrize("task", ["classify", "segment"])
def test_the_constant_in_a_networks_place_is_one(tmp_path: Path, task: str) -> None:
    folder = tiny(tmp_path / "m") if task == "classify" else make_segmenter_folder(tmp_path / "m")
    own = load_manifest(folder)
    model = load_manifest(constant_model(own, tmp_path / "constant", mpp=own.grid.mpp))
    region = RegionSpec("rect", rect_px0=bench_rect())
    with open_slide(SLIDE) as slide:
        job = plan_job(slide.info, model, region=region)
    *_, last = run(job, out=tmp_path / "out", device="cpu")
    if task == "classify":
        scores = RunStore.open(last.store).scores[:]
        assert scores[:, 0] == pytest.approx(1 / (1 + np.e), abs=1e-5)
    else:
        stored = np.asarray(SegmentationStore.open(last.store).levels[0][0])
        assert set(np.unique(stored)) <= {round(254 / (1 + np.e)), 255}


def bench_rect():
    from napari_histomil.geometry import Rect

    return Rect(2000, 2000, 900, 900)


def test_memory_is_measured_in_processes_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Played here: which runs are asked for, and what is made of their peaks."""
    model = load_manifest(tiny(tmp_path / "tiny"))
    asked = []
    peaks = iter([(100, 400), (100, 300), (100, 340)])

    def own(function, folder, slide, device, tiles):
        assert function is run_memory.run_peak
        asked.append((load_manifest(folder).name, load_manifest(folder).grid.mpp, tiles))
        return next(peaks)

    m = measure_memory(model, SLIDE, device="cpu", in_own_process=own, sample_tiles=20)
    count = m.tiles[2]
    with open_slide(SLIDE) as slide:
        mpp = slide.info.mpp
    assert mpp < model.grid.mpp
    assert asked == [
        ("tiny", model.grid.mpp, 20),
        ("constant", mpp, count // 9),
        ("constant", mpp, count),
    ]
    assert (m.start, m.sample, m.part, m.whole) == (100, 400, 300, 340)
    assert m.growth == pytest.approx(1.2)


def test_a_peak_is_that_of_a_run(tmp_path: Path) -> None:
    start, peak = run_memory.run_peak(tiny(tmp_path / "tiny"), SLIDE, "cpu", 64)
    assert 50 << 20 < start <= peak


def test_dice_is_that_of_the_truth(tmp_path: Path) -> None:
    """Everything is called tumour: Dice follows from the share that is."""
    grid = {"mpp": 8.0, "tile_px": 96, "stride_px": 48, "margin_px": 16}
    folder = make_segmenter_folder(tmp_path / "all", logits=[0.0, 3.0], grid=grid)
    with open_slide(SLIDE) as slide:
        job = plan_job(slide.info, load_manifest(folder), region=RegionSpec("all"))
    *_, last = run(job, out=tmp_path / "out", device="cpu")
    store = SegmentationStore.open(last.store)
    found = chains.dice(store, SLIDE.with_suffix(".geojson"))
    from napari_histomil.annotations.geojson import read_geojson

    regions = read_geojson(SLIDE.with_suffix(".geojson")).regions
    share = sum(
        r.geometry.area for r in regions if r.classification and r.classification.name == "Tumor"
    ) / (6000 * 4500)
    assert found == pytest.approx(2 * share / (1 + share), rel=0.02)


def test_a_chain_is_held_against_its_last_model(tmp_path: Path) -> None:
    detect = load_manifest(tiny(tmp_path / "detect"))
    grid = {"mpp": 4.0, "tile_px": 64, "stride_px": 32, "margin_px": 16}
    made = make_segmenter_folder(tmp_path / "segment", grid=grid, background_class="normal")
    segment = load_manifest(made)
    steps = StepModels(detect, None, segment)
    write_chain(tmp_path / "chain", "chain", steps, threshold=0.5, margin_um=0)
    chain = load_manifest(tmp_path / "chain")
    truth = SLIDE.with_suffix(".geojson")
    c = measure_chain(chain, SLIDE, truth=truth, device="cpu", models=[tmp_path])
    assert c.dense_model == "segment"
    assert c.dense.forwards == c.dense.fine_forwards >= c.chain.fine_forwards
    assert c.chain.forwards > c.chain.fine_forwards
    assert c.time_ratio > 0
    assert 0 <= c.dense.dice <= 1


def test_results_are_added_below_those_that_are_there(tmp_path: Path) -> None:
    file = tmp_path / "new" / "RESULTS.md"
    result = RunBenchmark("slide.svs", (36_000, 28_000), [NETWORK])
    append_results(file, result, "histomil bench run")
    other = replace(NETWORK, model="other")
    append_results(
        file, RunBenchmark("slide.svs", (1, 1), [other]), "histomil bench --model other"
    )
    text = file.read_text("utf-8")
    assert text.startswith("# Benchmarks\n")
    assert text.count("\n## ") == 2
    assert text.index("tiny") < text.index("`histomil bench --model other`")


def test_the_report_says_what_was_measured_and_what_is_missed() -> None:
    text = report(RunBenchmark("slide.svs", (36_000, 28_000), [NETWORK], [MEMORY], [CHAIN]))
    assert "24,000 tiles of 128 px, stride 64 px, at 1 µm/px, measured on 1,000" in text
    assert "1 of 2 targets met; missed: tiny: memory" not in text
    assert "0 of 2 targets met" in text, "0.94 < 0.95; 1.5 GiB over 1 GiB"
    assert "2.0 s, 150 forwards (50 fine), Dice 0.810; 8.0 s, 400 forwards" in text
    gpu = replace(NETWORK, device="GPU, 80 GiB (cuda)")
    assert "min(F, R)" in report(RunBenchmark("slide.svs", (1, 1), [gpu]))
