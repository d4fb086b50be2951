"""``export``: formats by name and by suffix, and what it refuses."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_histomil.annotations.geojson import read_geojson
from napari_histomil.results import RunStore


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("a.csv", b"minx,miny,width,height,prob_normal,prob_tumor\n"),
        ("a.geojson", b'{"type":"FeatureCollection"'),
        ("a.h5", b"\x89HDF"),
        ("a.ome.tif", b"II"),
        ("a.PNG", b"\x89PNG"),
    ],
)
def test_the_suffix_tells_the_format(histomil, run_path, tmp_path, name, start):
    said = histomil("export", run_path, "-o", tmp_path / name)
    assert (said.code, said.err) == (0, "")
    assert said.out == f"{tmp_path / name}\n"
    assert (tmp_path / name).read_bytes().startswith(start)


def test_the_format_by_name_wins(histomil, run_path, tmp_path):
    histomil("export", run_path, "--format", "csv", "-o", tmp_path / "table.txt")
    rows = (tmp_path / "table.txt").read_text().splitlines()
    assert len(rows) == 1 + 320


def test_a_name_that_tells_no_format(histomil, run_path, tmp_path):
    said = histomil("export", run_path, "-o", tmp_path / "a.xyz")
    assert said.code == 2
    assert "add --format" in said.complaint


def test_one_class(histomil, run_path, tmp_path):
    scores = RunStore.open(run_path).scores
    for column, name in enumerate(("normal", "tumor")):
        path = tmp_path / f"{name}.tif"
        assert histomil("export", run_path, "-o", path, "--class", name).code == 0
        values = tifffile.imread(path)
        np.testing.assert_array_equal(np.sort(values, axis=None), np.sort(scores[:, column]))
    said = histomil("export", run_path, "-o", tmp_path / "b.tif", "--class", "stroma")
    assert said.code == 2
    assert "choose one of normal, tumor" in said.complaint
    said = histomil("export", run_path, "-o", tmp_path / "a.csv", "--class", "tumor")
    assert said.code == 2
    assert "csv holds all classes" in said.complaint
    assert not (tmp_path / "b.tif").exists()
    assert not (tmp_path / "a.csv").exists()


def test_tiles_lie_on_the_slide_for_qupath(histomil, run_path, tmp_path):
    histomil("export", run_path, "-o", tmp_path / "a.geojson")
    file = read_geojson(tmp_path / "a.geojson")
    assert file.frame.slide == "слайд [1] 50%.tif"
    assert len(file.regions) == 320


def test_a_slide_that_has_moved(histomil, run_path, slide, tmp_path, write_slide):
    (tmp_path / "far away").mkdir()
    moved = slide.rename(tmp_path / "far away" / "moved.tif")
    said = histomil("export", run_path, "-o", tmp_path / "a.png")
    assert said.code == 2
    assert "say where it is with --slide" in said.complaint
    assert histomil("export", run_path, "-o", tmp_path / "a.csv").code == 0
    said = histomil("export", run_path, "-o", tmp_path / "a.png", "--slide", moved)
    assert said.code == 0
    other = write_slide(tmp_path / "other.tif", blank=True)
    said = histomil("export", run_path, "-o", tmp_path / "b.png", "--slide", other)
    assert said.code == 2
    assert "other.tif is not the slide of this run" in said.complaint


def test_a_renamed_slide_is_found(histomil, run_path, slide, tmp_path, write_slide):
    write_slide(slide.with_name("another.tif"), blank=True)
    moved = slide.rename(slide.with_name("renamed.tif"))
    said = histomil("export", run_path, "-o", tmp_path / "a.png")
    assert said.code == 0, said.err
    assert said.err == f"The slide of the run is now {moved}.\n"


def test_a_slide_that_moved_with_its_folder_is_found(histomil, models, slide, tmp_path):
    said = histomil("run", "tiny-tumor", slide, "--models", models, "--region", "all")
    assert said.code == 0, said.err
    run = Path(said.out.strip())
    folder = slide.parent.rename(tmp_path / "elsewhere")
    run = folder / run.relative_to(slide.parent)
    said = histomil("export", run, "-o", tmp_path / "a.png")
    assert said.code == 0, said.err
    assert said.err == f"The slide of the run is now {folder / slide.name}.\n"


def test_an_unfinished_run_is_written_and_said_to_be_unfinished(histomil, run_path, tmp_path):
    with RunStore.open(run_path, writable=True) as store:
        flags = store._array("done")
        flags[1:] = False
    said = histomil("export", run_path, "-o", tmp_path / "a.csv")
    assert said.code == 0
    assert said.err == "The run is not finished: 64 of 320 tiles are written.\n"
    assert len((tmp_path / "a.csv").read_text().splitlines()) == 65


def test_what_exists_is_kept_unless_forced(histomil, run_path, tmp_path):
    target = tmp_path / "a.csv"
    target.write_text("old")
    said = histomil("export", run_path, "-o", target)
    assert said.code == 2
    assert "exists already" in said.complaint
    assert target.read_text() == "old"
    assert histomil("export", run_path, "-o", target, "--force").code == 0
    assert target.read_text().startswith("minx")


def test_what_is_no_run(histomil, run_path, tmp_path):
    damaged = tmp_path / "damaged.zarr"
    shutil.copytree(run_path, damaged)
    (damaged / "zarr.json").write_text("{")
    for path in (tmp_path / "missing.zarr", tmp_path, damaged):
        said = histomil("export", path, "-o", tmp_path / "a.csv")
        assert said.code == 2
        assert path.name in said.complaint
    assert not (tmp_path / "a.csv").exists()
