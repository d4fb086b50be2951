"""``sidecars``: what it lists, what it deletes, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from napari_histomil.lock import WriterLock
from napari_histomil.results.stored import size_text


@pytest.fixture
def run(histomil, models, slide) -> Path:
    """A run beside its slide."""
    said = histomil("run", "tiny-tumor", slide, "--models", models, "--region", "all")
    assert said.code == 0, said.err
    return Path(said.out.strip())


def test_the_list(histomil, run, slide, tmp_path):
    sidecar = run.parent.parent
    for words in ((), (tmp_path,), (slide,), (sidecar,)):
        said = histomil("sidecars", *words)
        assert said.code == 0, said.err
        _, row, total = said.out.splitlines()
        assert row.endswith(str(sidecar))
        assert "  there  " in row
        assert total.endswith("in 1 sidecar")
    slide.unlink()
    (found,) = json.loads(histomil("sidecars", tmp_path, "--json").out)
    assert found["path"] == str(sidecar)
    assert found["slide"] == str(slide)
    assert not found["slide_there"]
    assert found["runs"] == 1
    assert found["bytes"] == sum(p.stat().st_size for p in sidecar.rglob("*") if p.is_file())


def test_a_slide_elsewhere_is_known_by_its_runs(histomil, run_path, slide, tmp_path, monkeypatch):
    monkeypatch.setenv("HISTOMIL_USER_DATA", str(tmp_path / "of somebody else"))
    (found,) = json.loads(histomil("sidecars", tmp_path / "out", "--json").out)
    assert found["slide"] == str(slide)
    assert found["slide_there"]


def test_nothing_to_list(histomil, tmp_path):
    said = histomil("sidecars", tmp_path)
    assert (said.code, said.out, said.err) == (0, "", "No sidecars there.\n")
    assert json.loads(histomil("sidecars", "--json").out) == []


def test_cleaning_needs_yes(histomil, run, tmp_path):
    said = histomil("sidecars", "clean", tmp_path, "--runs")
    assert said.code == 0
    assert said.out == f"would delete  {run}\n"
    assert "nothing is deleted yet, add --yes" in said.err
    assert run.is_dir()
    said = histomil("sidecars", "clean", tmp_path, "--runs", "--yes")
    assert said.code == 0
    assert said.out == f"deleted  {run}\n"
    assert "freed." in said.err
    assert not run.parent.parent.exists(), "it was empty"
    assert "nothing to delete" in histomil("sidecars", "clean", tmp_path, "--runs").err


def test_what_was_drawn_goes_only_with_all(histomil, run, slide):
    drawn = run.parent.parent / "annotations.geojson"
    drawn.write_text("{}")
    said = histomil("sidecars", "clean", slide, "--runs", "--overviews", "--yes")
    assert said.code == 0
    assert drawn.is_file()
    assert histomil("sidecars", "clean", slide, "--all", "--yes").code == 0
    assert not drawn.parent.exists()
    assert slide.is_file()


def test_only_those_whose_slide_is_gone(histomil, run, slide, tmp_path):
    assert "nothing to delete" in histomil("sidecars", "clean", tmp_path, "--all", "--gone").err
    slide.unlink()
    assert histomil("sidecars", "clean", tmp_path, "--all", "--gone", "--yes").code == 0
    assert not run.exists()


def test_a_run_that_is_being_written_is_kept_and_said_so(histomil, run, tmp_path):
    lock = WriterLock(run)
    said = histomil("sidecars", "clean", tmp_path, "--runs", "--yes")
    lock.release()
    assert said.code == 1
    assert "is being written by another process" in said.err
    assert run.is_dir()


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("clean", "--runs"), "Say whose work"),
        (("clean", "."), "--overviews, --runs or --all"),
        (("--runs",), "Only 'histomil sidecars clean' deletes"),
        (("--yes",), "Only 'histomil sidecars clean' deletes"),
        (("no such folder",), "There is no folder no such folder"),
        (("clean", "no such folder", "--all"), "There is no folder no such folder"),
    ],
)
def test_refusals(histomil, words, complaint):
    said = histomil("sidecars", *words)
    assert said.code == 2
    assert complaint in said.complaint


def test_a_folder_of_somebody_else_is_refused_by_name(histomil, tmp_path):
    other = tmp_path / "photos.histomil"
    other.mkdir()
    (other / "photo.jpg").touch()
    said = histomil("sidecars", "clean", other, "--all", "--yes")
    assert said.code == 2
    assert "is not cleaned" in said.complaint
    assert (other / "photo.jpg").is_file()


def test_sizes_as_people_read_them():
    texts = [size_text(size) for size in (0, 999, 1000, 1_500_000, 2.5e9, 7e12)]
    assert texts == ["0 B", "999 B", "1.0 kB", "1.5 MB", "2.5 GB", "7000.0 GB"]


def test_an_address_is_no_folder(histomil):
    said = histomil("sidecars", "clean", "https://example.org/a.zarr", "--all")
    assert said.code == 2
    assert "https://example.org/a.zarr is an address" in said.complaint
