from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from model_folders import make_model_folder

from napari_histomil.bench import run as bench
from napari_histomil.bench.run import RunBenchmark, append_results, report, run_benchmark
from napari_histomil.cli import main
from napari_histomil.errors import RunError
from napari_histomil.inference.job import RegionSpec
from napari_histomil.manifest import load_manifest
from napari_histomil.resources import packaged

RESULT = RunBenchmark(
    model="tiny",
    slide="slide.svs",
    device="Processor, 2 cores (cpu)",
    precision="fp32",
    batch=16,
    workers=2,
    tiles=1000,
    tile_px=128,
    stride_px=64,
    mpp=1.0,
    rounds=3,
    end_to_end=750.0,
    forward=1000.0,
    reading=4000.0,
    bound=800.0,
    efficiency=0.9375,
    cpu_efficiency=0.95,
    random_reads=3000.0,
    random_reads_openslide=600.0,
)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "FORWARD_SECONDS", 0.2)
    monkeypatch.setattr(bench, "READS", 20)


@pytest.mark.usefixtures("quick")
def test_a_benchmark_measures_what_it_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the command line, whose text and JSON come from the same figures."""
    folder = make_model_folder(
        tmp_path / "tiny", grid={"mpp": 2.0, "tile_px": 64, "stride_px": 64}
    )
    file = tmp_path / "benchmarks" / "RESULTS.md"
    arguments = ["bench", "--model", str(folder), "--region", "all", "--device", "cpu"]
    assert main([*arguments, "--rounds", "1", "--json", "--results", str(file)]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["tiles"] == 24 * 18  # 6000 x 4500 px at 0.5 µm/px, cells of 256 px
    assert figures["bound"] == pytest.approx(1 / (1 / figures["forward"] + 1 / figures["reading"]))
    assert figures["efficiency"] == pytest.approx(figures["end_to_end"] / figures["bound"])
    assert 0.2 < figures["efficiency"] < 5, "a wrong unit or count would be far off"
    assert 0.2 < figures["cpu_efficiency"] < 5
    assert figures["random_reads_openslide"] > 0
    assert "## 20" in file.read_text("utf-8")


@pytest.mark.usefixtures("quick")
def test_too_few_tiles_are_told(tmp_path: Path) -> None:
    model = load_manifest(
        make_model_folder(tmp_path / "tiny", grid={"mpp": 8.0, "tile_px": 64, "stride_px": 64})
    )
    slide = packaged("sample_data") / "synthetic-lymph-node.tiff"
    with pytest.raises(RunError, match="too few to measure"):
        run_benchmark(model, slide, region=RegionSpec("all"), rounds=1)


def test_results_are_added_below_those_that_are_there(tmp_path: Path) -> None:
    file = tmp_path / "new" / "RESULTS.md"
    append_results(file, RESULT, "histomil bench")
    append_results(file, replace(RESULT, model="other"), "histomil bench --model other")
    text = file.read_text("utf-8")
    assert text.startswith("# Benchmarks\n")
    assert text.count("\n## ") == 2
    assert text.index("tiny") < text.index("`histomil bench --model other`")


def test_the_report_says_the_ratios() -> None:
    text = report(RESULT)
    assert "end to end 750 tiles/s, 0.94 of the bound** 1 / (1/F + 1/R) = 800" in text
    assert "3,000 a second, openslide-python 600: 5.0 times" in text
    other = replace(RESULT, random_reads_openslide=None, device="GPU, 80 GiB (cuda)")
    assert "does not open this slide" in report(other)
    assert "min(F, R)" in report(other)
