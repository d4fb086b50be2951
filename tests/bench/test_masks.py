"""The benchmark of masks: both sides paint the same, and what it says is what it measured."""

from __future__ import annotations

import json

import pytest

from napari_histomil.bench import masks as bench
from napari_histomil.cli import main


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "SLIDE_PX0", (4000, 8400))
    monkeypatch.setattr(bench, "POLYGONS", 40)


@pytest.mark.usefixtures("small")
def test_masks_are_measured_and_written_down(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("napari_histomil.cli.bench._in_own_process", lambda measure: measure())
    # The window has a measurement and a test of its own: tests/ui/test_bench_annotations.py.
    monkeypatch.setattr("napari_histomil.cli.bench.window_problem", lambda: "No screen.")
    file = tmp_path / "RESULTS.md"
    assert main(["bench", "annotations", "--rounds", "2", "--json", "--results", str(file)]) == 0
    told = json.loads(capsys.readouterr().out)["masks"]
    assert (told["columns"], told["rows"]) == (1000, 2100)
    assert told["different_pixels"] == 0
    assert told["ratio"] == pytest.approx(told["seconds"] / told["rasterio_seconds"], rel=2)
    assert told["peak_gb"] >= told["base_gb"] > 0
    text = file.read_text(encoding="utf-8")
    assert ": annotations\n\n`histomil bench annotations --rounds 2`" in text
    assert "| mask / rasterio's filling" in text
    assert "The window was not measured: no screen." in text


@pytest.mark.usefixtures("small")
def test_the_polygons_are_the_same_each_time_and_not_few():
    first, second = bench.made_painting(), bench.made_painting()
    assert len(first.polygons) == 40
    assert all(a.equals(b) for a, b in zip(first.polygons, second.polygons, strict=True))
    assert {int(value) for value in first.values} == {1, 2, 3, 4, 5}
