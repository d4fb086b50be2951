"""Whole files or none."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from napari_histomil.errors import OutputError, RunError
from napari_histomil.files import read_rows, whole_file, whole_folder


def write_half(path, error):
    with whole_file(path) as part:
        part.write_text("half")
        raise error


def test_the_file_appears_whole_and_nothing_else_stays(tmp_path):
    path = tmp_path / "результат [1].ome.tif"
    with whole_file(path) as part:
        assert part.parent == tmp_path
        assert part.suffix == ".tif"
        part.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_what_goes_wrong_leaves_the_old_file(tmp_path, error):
    path = tmp_path / "a.csv"
    path.write_text("old")
    with pytest.raises(error):
        write_half(path, error())
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_told_with_its_cause(tmp_path):
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(OutputError, match=r"a\.csv cannot be written .* No space left") as told:
        write_half(tmp_path / "a.csv", full)
    assert told.value.__cause__ is full
    assert list(tmp_path.iterdir()) == []


def test_a_read_only_disk_is_told_though_it_refuses_the_cleaning_too(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "unlink", refuse)
    told = pytest.raises(OutputError, match=r"a\.csv cannot be written .*: Read-only file system")
    with told, whole_file(tmp_path / "a.csv"):
        refuse()


def test_a_long_name_still_has_room_for_its_sibling(tmp_path):
    path = tmp_path / ("n" * 250 + ".csv")
    with whole_file(path) as part:
        part.write_text("x")
    assert path.read_text() == "x"


def test_two_writers_do_not_meet(tmp_path):
    path = tmp_path / "a.csv"
    with whole_file(path) as first, whole_file(path) as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"  # the outer one ends last


def test_a_folder_is_replaced_whole(tmp_path):
    path = tmp_path / "a.zarr"
    for text in ("old", "new"):
        with whole_folder(path, "sign") as part:
            part.mkdir()
            (part / "sign").write_text(text)
            (part / f"only {text}").write_text("")
    assert (path / "sign").read_text() == "new"
    assert not (path / "only old").exists()
    assert list(tmp_path.iterdir()) == [path]


def test_what_goes_wrong_leaves_the_old_folder(tmp_path):
    path = tmp_path / "a.zarr"
    path.mkdir()
    (path / "sign").write_text("old")

    def fail(error):
        with whole_folder(path, "sign") as part:
            part.mkdir()
            raise error

    for error, seen in ((ValueError, ValueError), (OSError(errno.ENOSPC, "full"), OutputError)):
        with pytest.raises(seen):
            fail(error)
        assert (path / "sign").read_text() == "old"
        assert list(tmp_path.iterdir()) == [path]


def test_a_folder_of_another_kind_is_not_replaced(tmp_path):
    (tmp_path / "a").mkdir()
    with whole_folder(tmp_path / "a", "sign") as part:  # an empty one may be
        part.mkdir()
        (part / "other").write_text("")
    for path, words in ((tmp_path / "a", "something else"), (tmp_path / "x/y", "does not exist")):
        with pytest.raises(OutputError, match=words), whole_folder(path, "sign"):
            pass


def test_a_table_is_read_without_blanks_and_a_short_line_is_named(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("\ufeffslide , label\n a.svs,tumor \n", "utf-8")
    assert read_rows(path, RunError) == [{"slide": "a.svs", "label": "tumor"}]
    path.write_text("slide,label\na.svs,x\nb.svs\n", "utf-8")
    with pytest.raises(RunError, match="line 3 has not as many fields"):
        read_rows(path, RunError)
    with pytest.raises(RunError, match="cannot be read as a table"):
        read_rows(tmp_path / "none.csv", RunError)
