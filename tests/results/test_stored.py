"""What is stored about slides: listed by size, and cleaned of what is named and no more."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from napari_histomil.errors import RunError
from napari_histomil.lock import WriterLock
from napari_histomil.resources import note_sidecar
from napari_histomil.results.stored import (
    clean,
    describe,
    is_sidecar,
    known_sidecars,
    sidecars_under,
)

EVERYTHING = ("overviews", "runs", "answers", "drawn")


@pytest.fixture
def sidecar(tmp_path: Path) -> Path:
    """A sidecar with something of everything in it."""
    folder = tmp_path / "slides" / "a.svs.histomil"
    run = folder / "runs" / "0123.zarr"
    run.mkdir(parents=True)
    attributes = {"attributes": {"histomil": {"schema_version": 1}}}
    (run / "zarr.json").write_text(json.dumps(attributes))
    (run / "scores").write_bytes(b"s" * 5000)
    (folder / "overview-3.jpg").write_bytes(b"o" * 3000)
    (folder / "slide.json").write_text('{"fingerprint": "ab"}')
    (folder / "view.json").write_text('{"fingerprint": "ab"}')
    for name in ("annotations.geojson", "annotations.journal", "review.json"):
        (folder / name).write_bytes(b"drawn" * 10)
    (folder / "notes of mine.txt").write_bytes(b"mine")
    return folder


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_what_is_in_a_sidecar(sidecar: Path) -> None:
    (sidecar.parent / "a.svs").touch()
    found = describe(sidecar, sidecar.with_suffix(""))
    assert found.slide_there
    assert found.runs == 1
    assert found.sizes["overviews"] == 3000
    assert 5000 < found.sizes["runs"] < 5100
    assert found.sizes["drawn"] == 150
    assert found.sizes["other"] == 4
    assert found.size == sum(path.stat().st_size for path in sidecar.rglob("*") if path.is_file())
    newest = max(path.stat().st_mtime for path in [sidecar, *sidecar.rglob("*")])
    assert found.last_used == pytest.approx(newest, abs=1e-3)


def test_sidecars_are_found_in_folders_largest_first(sidecar: Path, tmp_path: Path) -> None:
    small = tmp_path / "slides" / "deep" / "b.svs.histomil"
    small.mkdir(parents=True)
    (small / "view.json").write_text('{"fingerprint": "cd"}')
    (tmp_path / "slides" / "other.histomil").mkdir()  # nothing of ours in it
    inside = tmp_path / "slides" / "c.zarr" / "d.svs.histomil"
    inside.mkdir(parents=True)
    (inside / "view.json").write_text('{"fingerprint": "ef"}')
    assert [each.path for each in sidecars_under(tmp_path)] == [sidecar, small]
    assert [each.path for each in sidecars_under(sidecar)] == [sidecar]
    assert [each.path for each in sidecars_under(tmp_path / "slides" / "a.svs")] == [sidecar]
    assert sidecars_under(tmp_path / "none") == []


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_links_are_not_followed(sidecar: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.svs.histomil"
    link.symlink_to(sidecar, target_is_directory=True)
    assert not is_sidecar(link)
    with pytest.raises(RunError, match="no folder of this program's work"):
        clean(link, EVERYTHING, really=True)
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").touch()
    (sidecar / "runs" / "far.zarr").symlink_to(precious, target_is_directory=True)
    clean(sidecar, ["runs"], really=True)
    assert (precious / "file").exists()
    assert not (sidecar / "runs").exists()


def test_those_known_are_in_the_index_or_the_data_folder(
    sidecar: Path, own_user_data: Path
) -> None:
    assert known_sidecars() == []
    slide = sidecar.parent / "moved" / "b.svs"
    note_sidecar("ab" * 32, sidecar, slide)
    kept = own_user_data / "slides" / "cdcd.histomil"
    kept.mkdir(parents=True)
    (kept / "slide.json").write_text('{"fingerprint": "cd"}')
    assert [(each.path, each.slide) for each in known_sidecars()] == [
        (sidecar, slide),
        (kept, kept.with_suffix("")),
    ]


def test_a_dry_run_deletes_nothing_and_says_what_it_would(sidecar: Path) -> None:
    before = names(sidecar)
    answer = clean(sidecar, EVERYTHING, really=False)
    assert names(sidecar) == before
    assert answer.kept == ()
    real = clean(sidecar, EVERYTHING, really=True)
    assert (real.deleted, real.size) == (answer.deleted, answer.size)


def test_chosen_parts_go_and_what_was_drawn_stays(sidecar: Path) -> None:
    before = names(sidecar)
    answer = clean(sidecar, ["overviews"], really=True)
    assert answer.size == 3000
    assert before - names(sidecar) == {"overview-3.jpg"}
    clean(sidecar, ["runs"], really=True)
    assert before - names(sidecar) == {
        "overview-3.jpg",
        "runs/0123.zarr/zarr.json",
        "runs/0123.zarr/scores",
    }


def test_everything_is_everything_of_ours(sidecar: Path) -> None:
    clean(sidecar, EVERYTHING, really=True)
    assert names(sidecar) == {"notes of mine.txt"}
    sidecar.joinpath("notes of mine.txt").unlink()
    (sidecar / "slide.json").write_text('{"fingerprint": "ab"}')
    clean(sidecar, EVERYTHING, really=True)
    assert not sidecar.exists()


def test_a_run_that_is_being_written_is_kept(sidecar: Path) -> None:
    run = sidecar / "runs" / "0123.zarr"
    beginning = sidecar / "runs" / ".4567.zarr.abcd.partial"
    beginning.mkdir()
    locks = [WriterLock(run), WriterLock(sidecar / "runs" / "4567.zarr")]
    for really in (False, True):
        answer = clean(sidecar, ["runs"], really=really)
        assert answer.deleted == ()
        assert len(answer.kept) == 2
        assert all("is being written by another process" in why for why in answer.kept)
    assert (run / "scores").is_file()
    assert beginning.is_dir()
    for lock in locks:
        lock.release()
    assert clean(sidecar, ["runs"], really=True).kept == ()
    assert not (sidecar / "runs").exists()


def test_what_cannot_be_deleted_is_told(sidecar: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("napari_histomil.results.stored.Path.unlink", refuse)
    answer = clean(sidecar, ["overviews"], really=True)
    assert answer.deleted == ()
    (why,) = answer.kept
    assert "overview-3.jpg cannot be deleted: Permission denied." in why


@pytest.mark.parametrize("name", ["photos", "photos.histomil"])
def test_what_is_no_sidecar_is_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    (folder / "runs").mkdir(parents=True)
    (folder / "runs" / "0123.zarr").mkdir()
    (folder / "runs" / "0123.zarr" / "zarr.json").write_text('{"attributes": {}}')
    with pytest.raises(RunError, match="no folder of this program's work"):
        clean(folder, EVERYTHING, really=True)
    assert (folder / "runs" / "0123.zarr" / "zarr.json").is_file()
