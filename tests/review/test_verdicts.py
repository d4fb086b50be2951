"""What was judged: the last answer counts, all are kept, whatever is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
from disks import room_for

from napari_histomil.errors import BusyError, JournalError, OutputError, ReviewError
from napari_histomil.review.verdicts import Place, Verdict, VerdictLog, file_name, read_verdicts

HERE = Place("f" * 64, (100.0, 200.0), (50.0, 60.0))
RIGHT = Verdict("p1/a", HERE, "right", "right", model="run1")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "a.verdicts"


def test_the_last_answer_counts_and_all_are_kept(folder):
    with VerdictLog.open(folder, reader="Ada") as log:
        (first,) = log.append(RIGHT)
        log.append(replace(RIGHT, answer="wrong"))
        log.append(Verdict("p1/a", None, "tags", ("necrosis", "ink")))
        assert first.reader == "Ada"
        assert first.at.endswith("Z")
    with VerdictLog.open(folder, reader="Ada") as log:
        assert [v.answer for v in log.all()] == ["right", "wrong", ("necrosis", "ink")]
        assert [v.answer for v in log.latest()] == ["wrong", ("necrosis", "ink")]
        assert log.latest()[0].place == HERE
        assert log.answer("p1/a", "right", HERE, model="run1") == "wrong"
        assert log.answer("p1/a", "right", HERE) is None


def test_other_places_models_and_readers_are_apart(folder):
    elsewhere = replace(HERE, xy_px0=(101.0, 200.0))
    with VerdictLog.open(folder, reader="Ada") as log:
        log.append(RIGHT, replace(RIGHT, model="run2"), replace(RIGHT, place=elsewhere))
    with VerdictLog.open(folder, reader="Ben") as log:
        log.append(replace(RIGHT, answer="partly"))
        assert len(log.latest()) == 4
        assert len(log.latest(reader="Ben")) == 1
        assert log.answer("p1/a", "right", HERE, model="run1") == "partly"
        assert log.answer("p1/a", "right", HERE, model="run1", reader="Ada") == "right"


def test_two_readers_may_judge_at_once_and_see_each_other_after_a_reload(folder):
    with (
        VerdictLog.open(folder, reader="Ada") as ada,
        VerdictLog.open(folder, reader="Ben") as ben,
    ):
        ben.append(RIGHT)
        ada.append(RIGHT)
        assert len(ben.latest()) == 1
        ben.reload()
        assert {v.reader for v in ben.latest()} == {"Ada", "Ben"}


def test_one_reader_judges_in_one_place(folder):
    with VerdictLog.open(folder, reader="Ada"), pytest.raises(BusyError, match="another process"):
        VerdictLog.open(folder, reader="Ada")


def test_an_answer_that_is_taken_back_counts_no_more(folder):
    with VerdictLog.open(folder, reader="Ada") as log:
        log.append(RIGHT)
        log.append(replace(RIGHT, answer=None))
        assert log.latest() == []
        assert len(log.all()) == 2


def test_steps_are_undone_one_by_one_also_after_opening_again(folder):
    with VerdictLog.open(folder, reader="Ada") as log:
        log.append(RIGHT)
        log.append(replace(RIGHT, answer="wrong"), Verdict("p1/a", None, "status", "done"))
        log.append(replace(RIGHT, answer="partly"))
        log.take_back()
        assert log.answer("p1/a", "right", HERE, model="run1") == "wrong"
        log.take_back()
    with VerdictLog.open(folder, reader="Ada") as log:
        assert log.answer("p1/a", "right", HERE, model="run1") == "right"
        assert log.answer("p1/a", "status") is None
        log.take_back()
        assert log.latest() == []
        assert log.take_back() == ()
        assert len(log.all()) == 8


def test_readers_of_like_names_have_journals_of_their_own():
    names = {file_name(name) for name in ("Ada L.", "ada l", "Ada-L", "文", "字", "")}
    assert len(names) == 6
    assert all(name.endswith(".journal") and "/" not in name for name in names)


def test_without_a_reader_nothing_is_judged(folder):
    with pytest.raises(ReviewError, match="who reads"):
        VerdictLog.open(folder, reader=" ")


def test_read_only_makes_nothing_and_writes_nothing(folder):
    with VerdictLog.open(folder, reader="", read_only=True) as log:
        assert log.all() == []
        with pytest.raises(ReviewError, match="reading only"):
            log.append(RIGHT)
    assert not folder.exists()


def test_a_damaged_line_costs_that_line_and_is_kept_beside(folder):
    with VerdictLog.open(folder, reader="Ada") as log:
        for n in range(3):
            log.append(replace(RIGHT, case=f"c{n}"))
    path = folder / file_name("Ada")
    lines = path.read_bytes().splitlines(keepends=True)
    lines[2] = lines[2].replace(b"right", b"wrong")
    path.write_bytes(b"".join(lines))
    assert [v.case for v in read_verdicts(path)] == ["c0", "c2"]
    with VerdictLog.open(folder, reader="Ada") as log:
        assert [v.case for v in log.all()] == ["c0", "c2"]
        assert "damaged-1" in log.notes[0]
        log.append(replace(RIGHT, case="c3"))
    assert [v.case for v in read_verdicts(path)] == ["c0", "c2", "c3"]


def test_a_foreign_or_newer_journal_is_refused(folder):
    from napari_histomil.journal import Journal

    Journal(folder / "x.journal", "annotations", 1).close()
    with pytest.raises(JournalError, match="something else"):
        VerdictLog.open(folder, reader="Ada")
    with pytest.raises(JournalError, match="something else"):
        VerdictLog.open(folder, reader="", read_only=True)
    (folder / "x.journal").unlink()
    Journal(folder / "x.journal", "verdicts", 9).close()
    with pytest.raises(JournalError, match="newer version"):
        VerdictLog.open(folder, reader="Ada")


def test_on_a_full_disk_nothing_counts_that_is_not_kept(folder):
    with VerdictLog.open(folder, reader="Ada") as log:
        log.append(RIGHT)
        with (
            room_for((folder / file_name("Ada")).stat().st_size + 20),
            pytest.raises(OutputError, match="cannot"),
        ):
            log.append(replace(RIGHT, answer="wrong"))
        assert log.answer("p1/a", "right", HERE, model="run1") == "right"
        log.append(replace(RIGHT, answer="partly"))
    assert [v.answer for v in read_verdicts(folder / file_name("Ada"))] == ["right", "partly"]


JUDGE = """
import sys
from pathlib import Path
from napari_histomil.review.verdicts import Verdict, VerdictLog
log = VerdictLog.open(Path(sys.argv[1]), reader="Ada")
for n in range(10**6):
    log.append(Verdict(f"c{n}", None, "own answer", "tumour"), Verdict(f"c{n}", None, "confidence", 4))
    print(n, flush=True)
"""  # noqa: E501


def test_kill_9_in_the_middle_of_judging_loses_nothing(folder):
    with subprocess.Popen(
        [sys.executable, "-c", JUDGE, str(folder)], stdout=subprocess.PIPE, text=True
    ) as judge:
        assert judge.stdout is not None
        for _ in range(20):
            told = int(judge.stdout.readline())
        os.kill(judge.pid, signal.SIGKILL)
        rest = judge.stdout.read().split()
    told = max([told, *(int(n) for n in rest[:-1])])
    with VerdictLog.open(folder, reader="Ada") as log:
        kept = log.all()
        assert len(kept) >= 2 * (told + 1)
        assert len(kept) % 2 == 0  # an answer is never without its confidence
        log.append(Verdict("after", None, "status", "done"))
    assert read_verdicts(folder / file_name("Ada"))[-1].case == "after"
