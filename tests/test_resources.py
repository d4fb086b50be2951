from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from napari_histomil import resources
from napari_histomil.errors import HistomilError
from napari_histomil.resources import (
    SeenSidecar,
    all_seen_sidecars,
    note_sidecar,
    packaged,
    seen_sidecars,
    sidecar,
    sidecars,
    user_data_dir,
)

FINGERPRINT = "ab" * 32


def test_the_variable_names_the_user_data_folder(own_user_data: Path) -> None:
    assert user_data_dir() == own_user_data


def test_without_the_variable_the_system_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HISTOMIL_USER_DATA")
    assert user_data_dir().name == "napari-histomil"


def test_packaged_folders_are_those_of_the_repository(repository: Path) -> None:
    assert packaged("models") == repository / "models"


def test_an_incomplete_installation_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resources, "__file__", str(tmp_path / "package" / "resources.py"))
    with pytest.raises(HistomilError, match="install it again"):
        packaged("models")


def test_work_lies_beside_the_slide(tmp_path: Path) -> None:
    slide = tmp_path / "a slide [1].svs"
    assert sidecar(slide, FINGERPRINT) == tmp_path / "a slide [1].svs.histomil"
    assert sidecar(slide, FINGERPRINT, out=Path("out")) == Path("out/a slide [1].svs.histomil")
    assert list(tmp_path.iterdir()) == [], "asking leaves nothing behind"


def test_where_nothing_can_be_written_work_lies_in_the_user_data(
    tmp_path: Path, own_user_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slide = tmp_path / "slide.svs"
    monkeypatch.setattr(resources, "_writable", lambda folder: False)  # root may write anywhere
    place = sidecar(slide, FINGERPRINT)
    assert place == own_user_data / "slides" / f"{FINGERPRINT[:32]}.histomil"
    assert sidecar(tmp_path / "moved" / "slide.svs", FINGERPRINT) == place
    place.mkdir(parents=True)
    monkeypatch.undo()
    monkeypatch.setenv("HISTOMIL_USER_DATA", str(own_user_data))
    assert sidecars(slide, FINGERPRINT) == [place], "found again where it was kept"


def test_work_on_a_sample_does_not_lie_in_the_program(own_user_data: Path) -> None:
    sample = packaged("sample_data") / "synthetic-lymph-node.tiff"
    assert sidecar(sample, FINGERPRINT).is_relative_to(own_user_data)


def test_a_folder_that_is_missing_is_not_writable(tmp_path: Path) -> None:
    assert not resources._writable(tmp_path / "gone")


# --- the index ----------------------------------------------------------------------------------


def test_work_is_found_where_it_was_seen(tmp_path: Path) -> None:
    folder, slide = tmp_path / "old" / "a.svs.histomil", tmp_path / "old" / "a.svs"
    folder.mkdir(parents=True)
    note_sidecar(FINGERPRINT, folder, slide)
    moved = tmp_path / "new" / "b.svs"
    moved.parent.mkdir()
    assert sidecars(moved, FINGERPRINT) == [folder]
    assert seen_sidecars(FINGERPRINT) == [SeenSidecar(folder, slide)]
    assert sidecars(moved, "cd" * 32) == [], "other content"
    note_sidecar(FINGERPRINT, folder, moved)
    assert all_seen_sidecars() == [SeenSidecar(folder, moved)], "one entry a folder"


def test_a_folder_left_behind_names_the_slide_where_it_is(tmp_path: Path) -> None:
    left, begun = tmp_path / "old" / "a.svs.histomil", tmp_path / "new" / "a.svs.histomil"
    for folder in (left, begun):
        folder.mkdir(parents=True)
        note_sidecar(FINGERPRINT, folder, folder.with_suffix(""))
    (tmp_path / "new" / "a.svs").touch()
    assert {each.slide for each in all_seen_sidecars()} == {tmp_path / "new" / "a.svs"}
    assert {each.folder for each in all_seen_sidecars()} == {left, begun}


def test_folders_that_are_gone_are_dropped_and_unplugged_ones_kept(
    tmp_path: Path, own_user_data: Path
) -> None:
    gone, away = tmp_path / "a.svs.histomil", tmp_path / "drive" / "a.svs.histomil"
    for folder in (gone, away):
        note_sidecar(FINGERPRINT, folder, tmp_path / "a.svs")
    entries = own_user_data / "index" / FINGERPRINT[:32]
    assert seen_sidecars(FINGERPRINT) == []
    (entry,) = entries.iterdir()  # the drive may come back
    old = time.time() - (resources.FORGOTTEN_DAYS + 1) * 86400
    os.utime(entry, (old, old))
    assert seen_sidecars(FINGERPRINT) == []
    assert list(entries.iterdir()) == []


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"schema_version": 99}', "[" * 5000, '{"sidecar": 3}', "\0"]
)
def test_damaged_entries_are_passed_over(tmp_path: Path, own_user_data: Path, text: str) -> None:
    note_sidecar(FINGERPRINT, tmp_path, tmp_path / "a.svs")
    (entry,) = (own_user_data / "index" / FINGERPRINT[:32]).iterdir()
    entry.with_name("damaged.json").write_text(text)
    assert [seen.folder for seen in seen_sidecars(FINGERPRINT)] == [tmp_path]
    entry.write_text(text)
    note_sidecar(FINGERPRINT, tmp_path, tmp_path / "a.svs")
    assert [seen.folder for seen in all_seen_sidecars()] == [tmp_path], "written anew"


def test_a_data_folder_that_cannot_be_written_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("HISTOMIL_USER_DATA", str(tmp_path / "file"))
    note_sidecar(FINGERPRINT, tmp_path, tmp_path / "a.svs")
    assert seen_sidecars(FINGERPRINT) == []


def test_many_processes_note_at_once(tmp_path: Path, own_user_data: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from napari_histomil.resources import note_sidecar\n"
        "for k in range(40):\n"
        f"    note_sidecar('{FINGERPRINT}', Path(sys.argv[1]) / str(k % 5), Path('s.svs'))\n"
    )
    for k in range(5):
        (tmp_path / str(k)).mkdir()
    workers = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) for _ in range(3)]
    assert [worker.wait(60) for worker in workers] == [0, 0, 0]
    assert {seen.folder.name for seen in seen_sidecars(FINGERPRINT)} == set("01234")
    entries = own_user_data / "index" / FINGERPRINT[:32]
    assert all(entry.suffix == ".json" for entry in entries.iterdir()), "nothing half-written"
