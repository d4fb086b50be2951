from __future__ import annotations

from pathlib import Path

import pytest

from napari_histomil import resources
from napari_histomil.errors import HistomilError
from napari_histomil.resources import packaged, sidecar, sidecars, user_data_dir

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


def test_a_folder_that_is_missing_is_not_writable(tmp_path: Path) -> None:
    assert not resources._writable(tmp_path / "gone")
