"""The log on disk: whole or cut, full disks, damage kept aside, one writer, kill -9."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from disks import another_user, room_for
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_histomil.errors import BusyError, JournalError, OutputError
from napari_histomil.journal import GAP, Attachment, Journal, read_attachment, read_log

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def opened(path: Path, version: int = 1) -> Journal:
    return Journal(path, "tests", version, head={"slide": "a.svs"})


@pytest.fixture
def path(tmp_path) -> Path:
    """A journal of three entries, closed."""
    journal = opened(tmp_path / "a.journal")
    for n in range(3):
        journal.append("do", {"n": n})
    journal.close()
    return journal.path


def read(path: Path) -> list:
    return [entry.data() for entry in read_log(path, "tests", 1).entries if entry.kind != GAP]


def whole(journal: Journal) -> list[tuple[str, bytes]]:
    return [(entry.kind, entry.text()) for entry in journal.entries if entry.kind != GAP]


THREE = [{"n": 0}, {"n": 1}, {"n": 2}]


@given(st.lists(values, max_size=5))
@settings(max_examples=30, deadline=None)
def test_what_is_appended_is_read(tmp_path_factory, contents):
    path = tmp_path_factory.mktemp("journal") / "a.journal"
    journal = opened(path)
    for content in contents:
        assert journal.append("do", content).data() == content
    journal.close()
    again = opened(path)
    assert [entry.data() for entry in again.entries] == contents
    assert (again.torn_bytes, again.is_whole) == (0, True)
    assert again.head == {"of": "tests", "schema_version": 1, "slide": "a.svs"}
    again.close()


def test_every_line_is_json_of_its_own(path):
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["journal", "do", "do", "do"]
    assert lines[1]["data"] == {"n": 0}


def test_infinite_numbers_and_half_characters_survive(tmp_path):
    journal = opened(tmp_path / "a.journal")
    content = {"x": float("inf"), "half": "\ud800"}
    assert journal.append("do", content).data() == content
    journal.close()
    assert read(journal.path) == [content]


def test_a_torn_last_line_is_cut_off_wherever_it_tears(path):
    data = path.read_bytes()
    start = data.rindex(b'{"length"')
    for end in range(start + 1, len(data)):
        path.write_bytes(data[:end])
        assert read(path) == THREE[:2]  # looking does not touch it
        assert path.stat().st_size == end
        journal = opened(path)
        assert (journal.torn_bytes, journal.is_whole) == (end - start, True)
        assert path.stat().st_size == start
        journal.append("do", {"n": 9})
        journal.close()
        assert read(path) == [*THREE[:2], {"n": 9}]


def test_zeros_behind_the_last_line_are_torn_too(path):
    with path.open("ab") as stream:
        stream.write(bytes(5000))
    journal = opened(path)
    assert journal.torn_bytes == 5000
    journal.close()
    assert read(path) == THREE


def test_any_flipped_byte_is_noticed(path):
    data = path.read_bytes()
    rng = random.Random(0)
    first = data.index(b"\n") + 1
    for _ in range(200):
        place = rng.randrange(first, len(data))
        flipped = bytes([data[place] ^ 1 << rng.randrange(8)])
        path.write_bytes(data[:place] + flipped + data[place + 1 :])
        log = read_log(path, "tests", 1)
        assert log.torn_bytes or any(entry.kind == GAP for entry in log.entries)
        assert all(content in THREE for content in read(path))


def test_damage_in_the_middle_is_kept_aside_and_nothing_is_added_behind_it(path):
    data = path.read_bytes()
    damaged = data.replace(b'{"n":1}', b'{"n":7}')
    path.write_bytes(damaged)
    journal = opened(path)
    assert [entry.kind for entry in journal.entries] == ["do", GAP, "do"]
    assert not journal.is_whole
    with pytest.raises(OutputError, match="is damaged"):
        journal.append("do", {})
    journal.sweep([])
    assert path.read_bytes() == damaged
    kept = journal.rewrite(whole(journal))
    assert kept.name == "a.journal.damaged-1"
    assert kept.read_bytes() == damaged
    journal.append("do", {"n": 3})
    journal.close()
    assert read(path) == [{"n": 0}, {"n": 2}, {"n": 3}]
    assert opened_head(path) == {"of": "tests", "schema_version": 1, "slide": "a.svs"}


def opened_head(path: Path) -> dict:
    return dict(read_log(path, "tests", 1).head)


@pytest.mark.parametrize("content", [b"\0" * 300, b"a letter to mother\n", b'{"length":1'])
def test_a_file_that_is_no_journal_is_kept_aside(tmp_path, content):
    path = tmp_path / "a.journal"
    path.write_bytes(content)
    journal = opened(path)
    assert [entry.kind for entry in journal.entries] == [GAP]
    kept = journal.rewrite([])
    journal.append("do", 1)
    journal.close()
    assert kept.read_bytes() == content
    assert read(path) == [1]


def test_a_lost_first_line_is_damage(path):
    data = path.read_bytes()
    path.write_bytes(data[data.index(b"\n") + 1 :])
    journal = opened(path)
    assert [entry.kind for entry in journal.entries] == [GAP, "do", "do", "do"]
    journal.rewrite(whole(journal))
    journal.close()
    assert read(path) == THREE


def test_newer_and_foreign_journals_are_refused_and_unlocked_again(path):
    with pytest.raises(JournalError, match=r"newer version .* \(schema 1, this one knows 0\)"):
        opened(path, version=0)
    with pytest.raises(JournalError, match="something else than verdicts"):
        Journal(path, "verdicts", 1)
    with pytest.raises(JournalError, match="cannot be read"):
        read_log(path.parent / "none", "tests", 1)
    opened(path).close()


def test_an_empty_file_becomes_a_journal(tmp_path):
    path = tmp_path / "new" / "folder" / "a.journal"
    path.parent.mkdir(parents=True)
    path.touch()
    opened(path).close()
    assert opened_head(path)["of"] == "tests"


def test_one_writer_and_any_number_of_readers(path):
    journal = opened(path)
    with pytest.raises(BusyError, match=f"process {os.getpid()}"):
        opened(path)
    assert read(path) == THREE
    journal.close()
    journal.close()
    opened(path).close()
    with pytest.raises(OutputError, match="is closed"):
        journal.append("do", 1)


def test_a_file_changed_by_another_program_is_noticed(path):
    journal = opened(path)
    with path.open("ab") as stream:
        stream.write(b"hello\n")
    with pytest.raises(OutputError, match="changed by another program"):
        journal.append("do", 1)
    journal.close()
    journal = opened(path)
    path.rename(path.with_name("elsewhere"))
    with pytest.raises(OutputError, match="cannot be written"):
        journal.append("do", 1)
    path.write_bytes(b"another")
    with pytest.raises(OutputError, match="changed by another program"):
        journal.append("do", 1)
    assert path.read_bytes() == b"another"
    journal.close()


# --- disks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("room", [0, 1, 40, 100])
def test_a_full_disk_is_one_error_and_later_entries_go_on(path, room):
    journal = opened(path)
    whole = path.read_bytes()
    with room_for(len(whole) + room):
        for _ in range(2):
            with pytest.raises(OutputError, match=r"a\.journal cannot be written: File too large"):
                journal.append("do", "x" * 5000)
            assert path.read_bytes() == whole
    journal.append("do", {"n": 3})
    journal.close()
    assert read(path) == [*THREE, {"n": 3}]


def test_where_not_even_the_cut_succeeds_it_is_tried_again(path, monkeypatch):
    journal = opened(path)
    whole = path.read_bytes()

    def fail(_self) -> None:
        raise OutputError("the disk is gone")

    with monkeypatch.context() as patched, room_for(len(whole) + 50):
        patched.setattr(Journal, "_cut", fail)
        with pytest.raises(OutputError):
            journal.append("do", "x" * 5000)
    assert len(path.read_bytes()) == len(whole) + 50
    assert read(path) == THREE
    journal.append("do", {"n": 3})
    journal.close()
    assert read(path) == [*THREE, {"n": 3}]


def test_a_full_disk_while_a_damaged_file_is_replaced_changes_nothing(path):
    damaged = path.read_bytes().replace(b'{"n":1}', b'{"n":7}')
    path.write_bytes(damaged)
    journal = opened(path)
    with room_for(10), pytest.raises(OutputError):
        journal.rewrite([])
    assert path.read_bytes() == damaged
    journal.rewrite(whole(journal)[:1])
    journal.close()
    assert read(path) == [{"n": 0}]


def test_a_read_only_folder_is_told():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o555)
        try:
            with another_user(), pytest.raises(OutputError, match="Permission denied"):
                opened(folder / "a.journal")
            with another_user(), pytest.raises(OutputError, match="Permission denied"):
                opened(folder / "deeper" / "a.journal")
        finally:
            folder.chmod(0o755)
        assert list(folder.iterdir()) == []


# --- attachments ------------------------------------------------------------------------------


def test_large_data_lie_beside_and_are_checked(path):
    journal = opened(path)
    attached = journal.attach([b"one\n", b"two\n"])
    orphan = journal.attach([b""])
    assert read_attachment(path, attached.member()) == b"one\ntwo\n"
    assert read_attachment(path, orphan.member()) == b""
    folder = path.with_name("a.journal.d")
    journal.sweep([attached.name])
    assert [file.name for file in folder.iterdir()] == [attached.name]
    (folder / attached.name).write_bytes(b"one\ntwO\n")
    with pytest.raises(JournalError, match="is damaged"):
        read_attachment(path, attached.member())
    for member in (
        {},
        Attachment("none", 0, "0").member(),
        {"name": "../a.journal", "length": "x"},
    ):
        with pytest.raises(JournalError, match="cannot be read"):
            read_attachment(path, member)
    with room_for(10), pytest.raises(OutputError, match="File too large"):
        journal.attach([b"x" * 100])
    assert len(list(folder.iterdir())) == 1
    journal.close()


# --- kill -9 ----------------------------------------------------------------------------------

WRITER = """
import sys
from pathlib import Path
from napari_histomil.journal import Journal
journal = Journal(Path(sys.argv[1]), "tests", 1)
n = len(journal.entries)
while True:
    journal.append("do", {"n": n, "filler": "x" * (n * 7919 % 20000)})
    print(n, flush=True)
    n += 1
"""


def test_what_a_killed_process_was_promised_is_there(tmp_path):
    path = tmp_path / "a.journal"
    rng = random.Random(1)
    for _ in range(5):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE
        ) as process:
            process.stdout.readline()
            time.sleep(rng.uniform(0, 0.1))
            process.send_signal(signal.SIGKILL)
            lines = process.stdout.read().splitlines()
        promised = int(lines[-1]) if lines else 0
        journal = opened(path)
        numbers = [entry.data()["n"] for entry in journal.entries]
        journal.close()
        assert numbers == list(range(len(numbers)))
        assert len(numbers) - 1 in (promised, promised + 1)
