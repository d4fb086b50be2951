"""``run``: what it prints, goes on with, looks at, and how it fails."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import get_args

import fsspec
import imagecodecs
import numpy as np
import pytest
import tifffile
import zarr
from shapely.geometry import LineString, Polygon, box

from napari_histomil.annotations.geojson import write_geojson
from napari_histomil.annotations.model import Region, SlideFrame, class_named
from napari_histomil.cli import running
from napari_histomil.errors import TileError
from napari_histomil.inference import blocks, engine, session
from napari_histomil.inference.job import StainMethod
from napari_histomil.results import RunStore, find_runs
from napari_histomil.slides.readers import open_slide


@pytest.fixture
def run(histomil, models, tmp_path):
    """Call ``histomil run tiny-tumor ... -o out``."""

    def call(*words):
        return histomil("run", "tiny-tumor", *words, "-o", tmp_path / "out", "--models", models)

    return call


def tiles_of(said) -> np.ndarray:
    """Cells that a run looked at, [N, 2] as (row, column)."""
    return RunStore.open(Path(said.out.strip())).grid.cells


def test_a_run_prints_where_it_is_and_says_what_came_out(run, slide, tmp_path):
    said = run(slide)
    assert said.code == 0, said.err
    path = Path(said.out.strip())
    assert path.parent == tmp_path / "out" / f"{slide.name}.histomil" / "runs"
    store = RunStore.open(path)
    assert store.complete
    # the square of tissue covers 8 x 8 cells of 32 px0; its outline may be drawn generously
    inside = {(row, column) for row in range(4, 12) for column in range(4, 12)}
    assert inside <= set(map(tuple, store.grid.cells.tolist()))
    assert len(store.grid) < 160
    lines = said.err.splitlines()
    assert lines[0].startswith(f"{slide.name}: {len(store.grid)} tiles in ")
    assert " tiles/s on " in lines[0]
    assert lines[1].startswith(f"{slide.name}: tumor at 0.5 or more: ")
    assert f"of {len(store.grid) * 256e-6:.3g} mm² looked at" in lines[1]


def test_json_ends_with_one_line_of_just_these_members(run, slide):
    said = run(slide, "--json", "--region", "all")
    result = json.loads(said.out.splitlines()[-1])
    assert list(result) == ["run", "model", "tiles", "seconds", "tiles_per_second", "device"]
    assert result["model"] == "tiny-tumor"
    assert result["tiles"] == 320
    assert result["tiles_per_second"] == pytest.approx(320 / result["seconds"], rel=0.02)
    assert RunStore.open(Path(result["run"])).complete
    again = json.loads(run(slide, "--json", "--region", "all").out)
    assert again["run"] == result["run"]
    assert (again["tiles"], again["seconds"], again["tiles_per_second"]) == (320, 0, 0)
    assert again["device"] == result["device"]


def test_without_out_the_run_lies_beside_the_slide(histomil, models, slide):
    said = histomil("run", "tiny-tumor", slide, "--models", models)
    assert Path(said.out.strip()).parent == slide.with_name(f"{slide.name}.histomil") / "runs"


def test_paths_from_where_the_person_stands(histomil, models, slide, monkeypatch):
    monkeypatch.chdir(slide.parent)
    said = histomil("run", "tiny-tumor", slide.name, "-o", "out", "--models", models)
    assert said.code == 0, said.err
    run = Path(said.out.strip())
    assert run.parts[0] == "out"
    monkeypatch.chdir("out")  # the run knows its slide from anywhere
    assert histomil("export", Path("..") / run, "-o", "a.png").code == 0


def test_ctrl_c_stops_cleanly_and_the_same_command_goes_on(
    run, slide, histomil, models, tmp_path, monkeypatch
):
    before = signal.getsignal(signal.SIGINT)
    calm = engine.run

    def interrupted(*args, **options):
        for count, progress in enumerate(calm(*args, **options)):
            yield progress
            if count == 2:
                signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(engine, "run", interrupted)
    monkeypatch.setattr(blocks, "WRITE_SECONDS", 0.0)  # else all is done before anybody can stop
    said = run(slide, "--region", "all", "--batch", "4")
    assert said.code == 1
    assert said.out == ""
    assert said.err.splitlines()[-1] == "Cancelled: run the same command again to go on."
    assert signal.getsignal(signal.SIGINT) is before
    (path,) = (tmp_path / "out").rglob("*.zarr")
    done = RunStore.open(path).done_blocks
    assert 0 < done.sum() < len(done)

    monkeypatch.setattr(engine, "run", calm)
    said = run(slide, "--region", "all", "--batch", "4")
    assert said.code == 0
    assert Path(said.out.strip()) == path
    assert "were done before" in said.err
    straight = histomil(
        "run", "tiny-tumor", slide, "-o", tmp_path / "straight", "--models", models,
        "--region", "all", "--batch", "4",
    )  # fmt: skip
    expected = RunStore.open(Path(straight.out.strip())).scores
    np.testing.assert_allclose(RunStore.open(path).scores, expected, atol=1e-6)


def test_ctrl_c_while_the_model_is_loaded_stops_at_once(run, slide, tmp_path, monkeypatch):
    before = signal.getsignal(signal.SIGINT)

    def interrupted(*args):
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("nobody waits until the model is there")

    monkeypatch.setattr(session, "prepare_net", interrupted)
    said = run(slide)
    assert (said.code, said.out) == (1, "")
    assert said.err == "Cancelled: run the same command again to go on.\n"
    assert signal.getsignal(signal.SIGINT) is before
    assert list((tmp_path / "out").rglob("*.zarr")) == []


def test_a_bad_slide_does_not_stop_the_others(run, slide, tmp_path, data_dir, write_slide):
    other = write_slide(tmp_path / "other.tif")
    broken = data_dir / "wsi-broken/broken.svs"
    said = run(slide, broken, other)
    assert said.code == 1
    assert len(said.out.splitlines()) == 2
    assert "broken.svs" in said.complaint
    assert said.err.splitlines()[-1] == "1 of 3 slides failed: broken.svs."


def test_nothing_but_bad_slides_is_2(run, tmp_path, data_dir):
    broken = data_dir / "wsi-broken/broken.svs"
    said = run(broken, tmp_path / "missing.svs")
    assert said.code == 2
    assert said.out == ""
    assert said.err.splitlines()[-1] == "2 of 2 slides failed: broken.svs, missing.svs."
    assert run(broken).code == 2
    assert not (tmp_path / "out").exists()


def test_a_tile_that_fails_is_1(run, slide, monkeypatch):
    def fail(*_args, **_options):
        raise TileError("slide.svs cannot be read at x = 1, y = 2, level 0.")
        yield

    monkeypatch.setattr(engine, "run", fail)
    said = run(slide)
    assert said.code == 1
    assert said.complaint == "histomil: slide.svs cannot be read at x = 1, y = 2, level 0."


def test_an_unknown_model_says_which_is_near(histomil, models, slide, tmp_path):
    said = histomil("run", "tiny-tumr", slide, "-o", tmp_path / "out", "--models", models)
    assert said.code == 2
    assert said.complaint.endswith("Did you mean tiny-tumor?")
    assert not (tmp_path / "out").exists()


def test_a_missing_resolution_is_asked_for_and_remembered(run, tmp_path, write_slide):
    path = write_slide(tmp_path / "no mpp.tif", mpp=None)
    said = run(path)
    assert said.code == 2
    assert "--slide-mpp" in said.complaint
    assert not (tmp_path / "out").exists()
    said = run(path, "--slide-mpp", "0.5")
    assert said.code == 0, said.err
    assert "0.5 µm/px is remembered for no mpp.tif." in said.err
    assert RunStore.open(Path(said.out.strip())).slide["mpp_xy"] == [0.5, 0.5]
    assert run(path).out == said.out  # the same run: the answer was remembered


def test_no_tissue_leaves_nothing(run, tmp_path, write_slide):
    blank = write_slide(tmp_path / "blank.tif", blank=True)
    said = run(blank)
    assert said.code == 2
    assert "blank.tif" in said.complaint
    assert not list((tmp_path / "out").rglob("*.zarr"))


def test_an_out_that_is_a_file(run, slide, tmp_path):
    (tmp_path / "out").write_text("a file")
    said = run(slide)
    assert said.code == 2
    assert str(tmp_path / "out") in said.complaint
    assert (tmp_path / "out").read_text() == "a file"


# --- where to look ----------------------------------------------------------------------------


def test_a_rectangle(run, slide):
    said = run(slide, "--region", "64,128,96,64")
    assert sorted(map(tuple, tiles_of(said).tolist())) == [
        (row, column) for row in (4, 5) for column in (2, 3, 4)
    ]


def test_areas_of_a_file_without_what_is_ignored(run, slide, tmp_path):
    path = tmp_path / "мої зони.geojson"
    regions = [
        Region(box(64, 64, 160, 160), classification=class_named("Region*")),
        Region(box(96, 96, 128, 128), classification=class_named("Ignore*")),
        Region(LineString([(0, 0), (600, 500)])),
        Region(box(320, 64, 352, 96)),
    ]
    write_geojson(path, regions)
    cells = set(map(tuple, tiles_of(run(slide, "--region", path)).tolist()))
    block = {(row, column) for row in (2, 3, 4) for column in (2, 3, 4)}
    assert cells == (block - {(3, 3)}) | {(2, 10)}


def test_a_file_in_the_frame_of_a_cropped_slide(run, slide, tmp_path):
    path = tmp_path / "cropped.geojson"
    frame = SlideFrame((64.0, 32.0), slide.name)
    write_geojson(path, [Region(box(64, 64, 96, 96))], frame=frame)
    assert tiles_of(run(slide, "--region", path)).tolist() == [[2, 2]]


def test_a_file_of_another_slide_is_used_and_said_so(run, slide, tmp_path):
    path = tmp_path / "a.geojson"
    frame = SlideFrame((0.0, 0.0), "other.svs", "ab" * 32)
    write_geojson(path, [Region(box(64, 64, 96, 96))], frame=frame)
    said = run(slide, "--region", path)
    assert said.code == 0
    assert "drawn on another slide (other.svs)" in said.err


def test_files_with_nothing_to_look_at(run, slide, tmp_path):
    path = tmp_path / "a.geojson"
    for regions, words in (
        ([], "a.geojson holds no area to look at"),
        ([Region(LineString([(0, 0), (9, 9)]))], "a.geojson holds no area to look at"),
        ([Region(Polygon([(0, 0), (9, 9), (9, 0), (0, 9)]))], "crosses itself"),
    ):
        write_geojson(path, regions)
        said = run(slide, "--region", path)
        assert said.code == 2
        assert words in said.complaint
    path.write_text("{")
    assert "a.geojson is not whole" in run(slide, "--region", path).complaint


@pytest.mark.parametrize("text", ["everything", "1,2,3", "0,0,0,10", "0,0,nan,10", "1,2,3,x"])
def test_regions_that_are_none(run, slide, text):
    said = run(slide, "--region", text)
    assert said.code == 2
    assert f"'{text}' is" in said.err


def test_a_rectangle_off_the_slide(run, slide, tmp_path):
    said = run(slide, "--region", "9000,9000,100,100")
    assert said.code == 2
    assert slide.name in said.complaint
    assert not list((tmp_path / "out").rglob("*.zarr"))


# --- other options ----------------------------------------------------------------------------


def test_stride_mpp_and_stain_make_runs_of_their_own(run, slide):
    plain = run(slide, "--region", "all")
    fine = run(slide, "--region", "all", "--stride", "8")
    coarse = run(slide, "--region", "all", "--mpp", "2")
    stained = run(slide, "--region", "all", "--stain", "reinhard")
    said = [plain, fine, coarse, stained]
    assert [s.code for s in said] == [0] * 4, [s.err for s in said]
    stores = [RunStore.open(Path(s.out.strip())) for s in said]
    assert [len(store.grid) for store in stores] == [320, 1280, 80, 320]
    assert len({store.run_id for store in stores}) == 4
    assert stores[3].stain is not None
    assert "its scores may mean nothing" in coarse.err


@pytest.mark.parametrize(
    "words", [("--stride", "0"), ("--stride", "1.5"), ("--mpp", "0"), ("--batch", "-1"),
              ("--stain", "vahadane")],
)  # fmt: skip
def test_options_out_of_range(run, slide, words):
    said = run(slide, *words)
    assert said.code == 2
    assert f"argument {words[0]}" in said.err


def test_a_stride_longer_than_the_tile_and_a_device_that_is_none(run, slide):
    assert "leaves gaps between tiles of 32 px" in run(slide, "--stride", "33").complaint
    assert "'abacus'" in run(slide, "--device", "abacus").complaint


def test_the_choices_of_stain_are_those_of_a_job():
    assert get_args(StainMethod) == running.STAINS


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00"), (75, "1:15"), (3725, "1:02:05")])
def test_time_left_in_words(seconds, text):
    assert running.duration(seconds) == text


# --- moved and renamed slides -------------------------------------------------------------------


def test_a_slide_that_was_moved_finds_its_run(histomil, models, slide, tmp_path):
    words = ("--models", models, "--region", "all")
    first = histomil("run", "tiny-tumor", slide, *words)
    assert first.code == 0, first.err
    (tmp_path / "moved").mkdir()
    moved = slide.rename(tmp_path / "moved" / "another name.tif")
    again = histomil("run", "tiny-tumor", moved, *words)
    assert again.code == 0, again.err
    assert again.out == first.out
    assert "all 320 tiles were done before" in again.err
    with open_slide(moved) as opened:
        assert find_runs(opened.info) == [Path(first.out.strip())]
    said = histomil("export", first.out.strip(), "-o", tmp_path / "a.png")
    assert said.code == 0, said.err
    assert said.err == f"The slide of the run is now {moved}.\n"
    assert "No sidecars" in histomil("sidecars", "--gone").err


def test_a_renamed_slide_finds_its_run_where_results_were_asked_for(
    histomil, models, slide, tmp_path
):
    words = ("-o", tmp_path / "out", "--models", models, "--region", "all")
    first = histomil("run", "tiny-tumor", slide, *words)
    assert first.code == 0, first.err
    renamed = slide.rename(slide.with_name("renamed.tif"))
    again = histomil("run", "tiny-tumor", renamed, *words)
    assert again.out == first.out
    assert "all 320 tiles were done before" in again.err
    elsewhere = histomil("run", "tiny-tumor", renamed, "-o", tmp_path / "b", *words[2:])
    assert Path(elsewhere.out.strip()).is_relative_to(tmp_path / "b"), "as it was asked for"


def test_a_moved_slide_finds_its_resolution(histomil, write_slide, tmp_path):
    slide = write_slide(tmp_path / "a.tif", mpp=None)
    assert histomil("info", slide, "--slide-mpp", "0.25").code == 0
    (tmp_path / "moved").mkdir()
    moved = slide.rename(tmp_path / "moved" / "b.tif")
    assert "µm/px       0.25 (remembered)" in histomil("info", moved).out


def test_converted_colours_or_another_reader_are_another_run(run, tmp_path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(60, 200, (128, 160, 3), np.uint8)
    path = tmp_path / "profile.tif"
    profile = imagecodecs.cms_profile("adobergb")
    tifffile.imwrite(
        path, pixels, tile=(64, 64), photometric="rgb", resolution=(2e4, 2e4),
        resolutionunit="CENTIMETER", extratags=[(34675, 7, None, profile, True)],
    )  # fmt: skip
    plain, converted, other = (
        RunStore.open(Path(run(path, "--region", "all", *options).out.strip()))
        for options in ((), ("--icc",), ("--reader", "openslide"))
    )
    assert len({plain.path, converted.path, other.path}) == 3
    assert "icc" not in plain.job["slide"]
    assert converted.job["slide"]["icc"] is True
    assert np.abs(plain.scores - converted.scores).max() > 1e-4
    np.testing.assert_array_equal(plain.scores, other.scores)  # one level: the same pixels


def test_a_slide_at_an_address(histomil, models, tmp_path, own_user_data):
    """Runs lie at home, are found again, and know their slide."""
    pixels = np.random.default_rng(0).integers(60, 200, (3, 128, 160), np.uint8)
    group = zarr.create_group(tmp_path / "a.zarr", zarr_format=3)
    group.create_array("0", data=pixels, chunks=(3, 64, 64))
    axes = [{"name": "c", "type": "channel"}]
    axes += [{"name": name, "type": "space", "unit": "micrometer"} for name in "yx"]
    step = {"type": "scale", "scale": [1.0, 0.5, 0.5]}
    levels = [{"path": "0", "coordinateTransformations": [step]}]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": levels}]}
    memory = fsspec.filesystem("memory")
    memory.put(str(tmp_path / "a.zarr"), "/runs/a.zarr", recursive=True)
    words = ("run", "tiny-tumor", "memory://runs/a.zarr", "--region", "all", "--models", models)
    try:
        said = histomil(*words)
        assert said.code == 0, said.err
        path = Path(said.out.strip())
        assert path.is_relative_to(own_user_data)
        assert RunStore.open(path).slide["path"] == "memory://runs/a.zarr"
        assert "were done before" in histomil(*words).err
        assert histomil("export", path, "-o", tmp_path / "a.png").code == 0
    finally:
        memory.rm("/runs", recursive=True)
