from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import tifffile

from napari_histomil.bench import slides as bench
from napari_histomil.bench.figures import AT_LEAST, AT_MOST, Figure, Spread, table, verdict
from napari_histomil.bench.slides_report import SlidesBenchmark, append_results, as_json, report
from napari_histomil.bench.test_slide import tissue_outline, write_slide
from napari_histomil.bench.views import (
    ARRAYS,
    DASK,
    JUMP,
    OURS,
    REVISIT,
    SCRIPTS,
    WORST,
    WORST_JUMP,
    ZOOM,
    MemoryFigures,
    PaintFigures,
    Times,
    ViewerFigures,
    ViewTime,
    anchors,
    region_of,
    scripts,
)
from napari_histomil.cli import main
from napari_histomil.errors import RunError
from napari_histomil.geometry import Rect
from napari_histomil.slides.readers import open_slide
from napari_histomil.tissue import TissueMask

SIZE = 2400, 1920


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("made") / "small.svs"
    write_slide(path, skimage.data.immunohistochemistry(), SIZE)
    return path


# --- reading ---


def test_reading_is_measured_by_the_command_line(
    made: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(bench, "READS", 20)
    file = tmp_path / "RESULTS.md"
    arguments = ["bench", "slides", str(made), "--only", "reading", "--rounds", "1"]
    assert main([*arguments, "--json", "--results", str(file)]) == 0
    result = json.loads(capsys.readouterr().out)
    reading = result["reading"]
    assert result["size_px0"] == list(SIZE)
    assert reading["decoder"] in ("simplejpeg", "imagecodecs")
    assert set(reading["raw"]) == {"native 1", "native 2", "tuned 1"}
    assert set(reading["ours"]) == {"native 1", "native 2", "off-grid 1", "off-grid 2", "kept 1"}
    assert 1 < min(reading["ours"].values()) < 1e5, "megapixels a second"
    assert 0.05 < reading["ours"]["native 1"] / reading["raw"]["native 1"] < 5
    assert reading["reads"]["openslide-python"] > 0
    assert any("random 256 px" in figure["name"] for figure in result["figures"])
    assert result["viewer"] is None
    text = file.read_text("utf-8")
    assert ": slides\n\n`histomil bench slides small.svs --only reading --rounds 1`" in text


def test_raw_decoding_gives_the_programs_bytes(made: Path) -> None:
    with open_slide(made) as slide:
        raw = bench.RawTiles.of(made, slide)
        assert raw is not None
        with raw:
            for scaled in (False, True):
                assert raw.sweep(2, scaled=scaled).pixels == 10 * 8 * 240 * 240
        whole = raw._decode_eighth(made_tile(made))
    assert whole.shape == (30, 30, 3)


def made_tile(path: Path) -> bytes:
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages.first
        tiff.filehandle.seek(page.dataoffsets[0])
        return tiff.filehandle.read(page.databytecounts[0])


def test_sweeps_go_over_every_pixel_once(made: Path) -> None:
    assert bench.sweep_native(made, 2).pixels == 10 * 8 * 240 * 240
    assert bench.sweep_native(made, 1, kept=True).pixels == 10 * 8 * 240 * 240
    assert bench.sweep_native(made, 1, every=2).pixels == 10 * 4 * 240 * 240
    assert bench.sweep_off_grid(made, 1).pixels == 2560 * 1800


def test_a_slide_without_jpeg_tiles_has_no_raw_decoding(tmp_path: Path) -> None:
    path = tmp_path / "flat.tiff"
    pixels = np.tile(skimage.data.immunohistochemistry(), (2, 2, 1))
    tifffile.imwrite(path, pixels, photometric="rgb", tile=(256, 256), compression="deflate")
    result = bench.measure_reading(path, rounds=1, reads=5)
    assert result.decoder == ""
    assert result.raw == {}
    figures = {figure.name: figure for figure in result.figures()}
    first = figures["sweep of native tiles against raw decoding, 1 thread"]
    assert first.value is None
    assert "no JPEG" in first.note
    assert "no JPEG" in table(result.figures())


def test_a_slide_without_tissue_is_told(tmp_path: Path) -> None:
    path = tmp_path / "glass.tiff"
    tifffile.imwrite(
        path, np.full((1024, 1024, 3), 245, np.uint8), photometric="rgb", tile=(256, 256)
    )
    with pytest.raises(RunError, match="too little tissue"):
        bench.measure_reading(path, rounds=1, reads=5)


def test_the_first_error_of_a_sweep_is_raised() -> None:
    def work(band: range) -> int:
        raise OSError(f"row {band.start}")

    with pytest.raises(OSError, match="row"):
        bench._in_bands(work, 40, 2)


def test_what_is_missing_is_said(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "find_spec", lambda name: None)
    missing: dict[str, str] = {}
    assert set(bench._other_readers(made, missing)) == {"openslide-python"}
    assert "not installed" in missing["tiffslide"]


# --- views ---


def test_scripts_are_what_they_say() -> None:
    region = Rect(0, 0, 36_000, 28_000)
    places = [(9_000.0, 9_000.0), (20_000.0, 14_000.0), (8_000.0, 8_000.0), (30_000.0, 20_000.0)]
    by_name = {script.name: script for script in scripts(places, region, 0.03)}
    assert set(by_name) == set(SCRIPTS)
    zoom = by_name[ZOOM]
    assert zoom.start.zoom == 0.03
    assert zoom.views[-1].zoom == 1.0
    assert zoom.views[-1].xy_px0 == places[0]
    ratios = np.diff(np.log([zoom.start.zoom, *(view.zoom for view in zoom.views)]))
    np.testing.assert_allclose(ratios, ratios[0])
    pan, again = by_name["pan"], by_name[REVISIT]
    assert again.views == (*pan.views[-2::-1], pan.start)
    assert not again.cold
    for name, step in ((JUMP, 800), (WORST, 100 / 0.26), (WORST_JUMP, 800 / 0.26)):
        script = by_name[name]
        walked = np.diff([script.start.xy_px0, *(view.xy_px0 for view in script.views)], axis=0)
        np.testing.assert_allclose(np.abs(walked).sum(1), step)


def test_scripts_begin_amid_tissue() -> None:
    outline = tissue_outline((36_000, 28_000))
    mask = TissueMask(outline, (16.0, 16.0), "brightfield")
    places = anchors(mask, Rect(0, 0, 36_000, 28_000), 12)
    assert len(set(places)) == 12
    assert np.mean([outline[int(y // 16), int(x // 16)] for x, y in places]) > 0.8


def test_what_does_not_fit_into_memory_is_left_out(made: Path) -> None:
    with open_slide(made) as slide:
        info = slide.info
    assert region_of(info, 10**9) == info.rect_px0
    part = region_of(info, 4 * 1500 * 1500)
    assert (part.width_px0, part.height_px0) == (1024, 1024)
    assert part.x_px0 % 1024 == 0


# --- figures ---


def times(stall_ms: float, complete_ms: float) -> Times:
    row = [ViewTime(stall_ms / 1e3, complete_ms / 1e3)] * 3
    slower = [ViewTime(stall_ms / 1e2, complete_ms / 1e2)] * 3
    return Times.of([slower, row])


def test_the_best_of_the_rounds_counts() -> None:
    best = times(20, 50)
    assert (best.stall.p95, best.complete.most) == (0.02, 0.05)
    assert str(Spread.of([0.01, 0.02, 0.03])) == "20 / 29 / 30"


def test_verdicts() -> None:
    fast = Figure("fast", 2.0, AT_LEAST, 1.85)
    heavy = Figure("heavy", 301.0, AT_MOST, 300.0, unit="MB")
    unknown = Figure("unknown", None, AT_LEAST, 1.0, note="no such reader")
    assert (fast.met, heavy.met, unknown.met) == (True, False, None)
    assert verdict([fast, heavy, unknown]) == "1 of 2 targets met; missed: heavy."
    rows = table([fast, heavy, unknown]).splitlines()
    assert rows[2].endswith("pass |")
    assert "301 MB" in rows[3]
    assert rows[3].endswith("MISS |")
    assert "| - " in rows[4]


def full_result() -> SlidesBenchmark:
    viewer = ViewerFigures("slide.svs", (1280, 800), 3, "", job_tiles=120.0)
    viewer.times = {
        "idle": {
            ZOOM: {OURS: times(25, 60), ARRAYS: times(20, 30)},
            WORST: {OURS: times(30, 90), ARRAYS: times(20, 30), DASK: times(100, 500)},
        }
    }
    return SlidesBenchmark(
        slide="slide.svs",
        size_px0=(36_000, 28_000),
        texture="CMU-1-Small-Region.svs",
        rounds=3,
        machine="a processor",
        viewer=viewer,
        painting=PaintFigures({"one level": 0.4}, {"one level": 2.4}, 2.0),
        memory=MemoryFigures(400 << 20, 800 << 20, 256 << 20, 255 << 20, 12, 0),
    )


def test_the_report_says_ratios_targets_and_times() -> None:
    result = full_result()
    text = report(result)
    figures = {figure.name: figure for figure in result.figures()}
    stall = figures["idle, zoom in: stall p95 against arrays in memory"]
    assert stall.value == pytest.approx(1.25)
    assert stall.met
    assert figures["idle, worst zoom: stall p95 against arrays in memory"].met is False
    assert figures[f"idle, worst zoom: {DASK}'s complete p95 against ours"].value == pytest.approx(
        500 / 90
    )
    overview = figures["complete overview against decoding all tiles at 1/8, one level"]
    assert overview.value == pytest.approx(1.2)
    assert figures["peak memory above napari's own, less the cache's budget"].value == 144
    assert "the job did 120 tiles/s meanwhile" in text
    assert (
        "| idle | zoom in: from the whole slide to 1:1 in 12 steps | ours | 25 / 25 / 25 |" in text
    )
    assert "MISS" in text
    assert json.loads(json.dumps(as_json(result)))["figures"][0]["met"] is True


def test_results_are_added_below_those_that_are_there(tmp_path: Path) -> None:
    file = tmp_path / "new" / "RESULTS.md"
    append_results(file, full_result(), "histomil bench slides")
    append_results(file, full_result(), "histomil bench slides --rounds 2")
    text = file.read_text("utf-8")
    assert text.startswith("# Benchmarks\n")
    assert text.count("\n## ") == 2


def test_without_a_screen_only_reading_is_measured(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    assert main(["bench", "slides", str(made), "--only", "viewer"]) == 0
    assert "The window was not measured: there is no screen" in capsys.readouterr().out
