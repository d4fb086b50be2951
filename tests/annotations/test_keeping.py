"""Annotations on disk: what was done is there after anything that may happen."""

from __future__ import annotations

import json
import os
import tempfile
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import shapely
from disks import another_user, room_for
from shapely.geometry import Point, box

from napari_histomil.annotations import commands, saving
from napari_histomil.annotations.collection import Command
from napari_histomil.annotations.geojson import read_geojson, write_geojson
from napari_histomil.annotations.keeping import AnnotationKeeper, open_annotations
from napari_histomil.annotations.model import Region, SlideFrame, class_named, each_but
from napari_histomil.annotations.stamps import Stamp
from napari_histomil.errors import AnnotationError, OutputError
from napari_histomil.geometry import Rect
from napari_histomil.journal import Journal
from napari_histomil.slides.slide import Level, SlideInfo

FRAME = SlideFrame((1000.0, 250.0), "slide.mrxs", "ab" * 32)
STAMP = Stamp("Ada", "2026-01-02T03:04:05Z")
TUMOR = class_named("Tumor")


@pytest.fixture(autouse=True)
def let_go(monkeypatch) -> Iterator[None]:
    """Give back the locks that a test leaves with its last keeper."""
    savers: list[saving.Saver] = []
    made = saving.Saver.__init__

    def noted(saver, *args) -> None:
        made(saver, *args)
        savers.append(saver)

    monkeypatch.setattr(saving.Saver, "__init__", noted)
    yield
    for saver in savers:
        saver.wait()
        saver.journal.close()


def keeper_in(folder: Path, **more) -> AnnotationKeeper:
    return AnnotationKeeper.open(folder, FRAME, author="Ada", **more)


def draw(keeper: AnnotationKeeper, *regions: Region) -> None:
    keeper.do(commands.add(regions, STAMP))


def square(x: float = 0, **more) -> Region:
    return Region(box(x, 0, x + 10, 10), **more)


def many(count: int) -> list[Region]:
    shapes = shapely.points([(n % 1000, n // 1000) for n in range(count)])
    return each_but(
        [Region(Point(0, 0))] * count,
        geometry=shapes,
        id=[str(uuid.UUID(int=n)) for n in range(1, count + 1)],
    )


def regions_of(keeper: AnnotationKeeper) -> list[Region]:
    return list(keeper.annotations)


@contextmanager
def crashed(keeper: AnnotationKeeper) -> Iterator[None]:
    """Let go of the lock as the system does when a process dies; nothing is written any more."""
    keeper.saver.wait()
    keeper.saver.journal.close()
    yield


def reopened(keeper: AnnotationKeeper) -> AnnotationKeeper:
    with crashed(keeper):
        return keeper_in(keeper.folder)


@pytest.fixture
def folder(tmp_path) -> Path:
    """A slide's sidecar that does not exist yet."""
    return tmp_path / "slide.mrxs.histomil"


def test_what_was_drawn_is_there_after_a_crash_with_its_history(folder):
    keeper = keeper_in(folder)
    assert (len(keeper.annotations), keeper.notes, keeper.saving.kind) == (0, (), "saved")
    a, b = square(), square(30, name="B")
    draw(keeper, a)
    draw(keeper, b)
    keeper.do(commands.set_class(keeper.annotations, [a.id], TUMOR, STAMP))
    keeper.do(commands.delete(keeper.annotations, [b.id]))
    keeper.undo()
    keeper.undo()
    keeper.redo()
    before = regions_of(keeper)
    again = reopened(keeper)
    assert not (folder / "annotations.geojson").exists()
    assert regions_of(again) == before
    assert [each.class_name for each in before] == ["Tumor", None]
    assert again.annotations.can_redo == "delete 1 region"
    again.redo()
    assert [each.id for each in again.annotations] == [a.id]
    for left in (2, 2, 1, 0):
        again.undo()
        assert len(again.annotations) == left
    assert again.undo() is None
    for _ in range(4):
        again.redo()
    assert again.redo() is None
    assert [each.class_name for each in again.annotations] == ["Tumor"]
    again.close()
    assert read_geojson(folder / "annotations.geojson").regions == tuple(regions_of(again))


def test_undo_reaches_back_over_closed_days(folder):
    for x in range(3):
        keeper = keeper_in(folder)
        draw(keeper, square(20 * x))
        keeper.close()
        keeper.close()
    keeper = keeper_in(folder)
    before = regions_of(keeper)
    assert keeper.notes == ()
    assert [keeper.undo() is not None for _ in range(4)] == [True, True, True, False]
    assert regions_of(keeper) == []
    keeper.close()
    keeper = keeper_in(folder)
    assert keeper.annotations.can_undo is None
    for _ in range(3):
        keeper.redo()
    assert regions_of(keeper) == before
    keeper.close()


def test_the_file_is_in_qupaths_frame_and_keeps_what_it_held(folder):
    folder.mkdir()
    path = folder / "annotations.geojson"
    write_geojson(path, [square(2000)], frame=FRAME, extra={"mine": 1})
    keeper = keeper_in(folder)
    draw(keeper, square(3000.004))
    keeper.close()
    document = json.loads(path.read_text())
    assert document["mine"] == 1
    assert document["histomil"]["origin_px0"] == [1000, 250]
    left = [min(x for x, _ in f["geometry"]["coordinates"][0]) for f in document["features"]]
    assert left == [1000, 2000]
    assert [each.geometry.bounds[0] for each in keeper.annotations] == [2000, 3000]


def test_what_is_in_memory_is_what_is_on_disk(folder):
    keeper = keeper_in(folder)
    odd = Region(
        box(1.0049, 2.123456, 9, 9),
        nucleus=Point(3.14159, 3),
        children=(Region(shapely.Point(1.23456, 2, 7)),),
        measurements={"a": float("nan"), "b": float("inf")},
    )
    flat = Region(shapely.Polygon([(0, 0, 5), (9, 0, 5), (9, 9, 5)]))
    empty = Region(Point())
    draw(keeper, odd, flat, empty)
    assert shapely.get_coordinates(keeper.annotations.get(odd.id).geometry).min() == 1
    assert keeper.annotations.get(flat.id).geometry.has_z is False
    before = [each.but(measurements={}) for each in keeper.annotations]
    again = reopened(keeper)
    assert [each.but(measurements={}) for each in again.annotations] == before
    again.do(commands.delete(again.annotations, [odd.id]))
    again.undo()
    again.close()
    assert [each.but(measurements={}) for each in keeper_in(folder).annotations] == before


def test_bulk_steps_are_written_by_a_thread_and_steps_after_them_wait(folder, monkeypatch):
    keeper = keeper_in(folder)
    gate = threading.Event()
    attach = Journal.attach

    def slowly(journal, chunks):
        gate.wait(20)
        return attach(journal, chunks)

    monkeypatch.setattr(Journal, "attach", slowly)
    told = []
    keeper.saver.changed.connect(lambda state: told.append(state.kind))
    keeper.do(commands.bring_in(keeper.annotations, many(500), "cells.geojson"))
    draw(keeper, square())
    keeper.undo()
    keeper.redo()
    assert (keeper.saving.kind, keeper.saver.waiting) == ("saving", 4)
    gate.set()
    keeper.saver.wait()
    assert told == ["saving", "saved"]
    assert len(read_geojson(folder / "annotations.geojson").regions) == 500
    before = regions_of(keeper)
    assert len(before) == 501
    again = reopened(keeper)
    assert regions_of(again) == before
    again.undo()
    again.undo()
    assert len(again.annotations) == 0
    again.close()


def test_a_change_of_all_classes_is_small_on_disk(folder):
    keeper = keeper_in(folder)
    regions = many(1000)
    keeper.do(commands.bring_in(keeper.annotations, regions, "cells.geojson"))
    keeper.do(commands.set_class(keeper.annotations, [r.id for r in regions], TUMOR, STAMP))
    keeper.saver.wait()
    sizes = sorted(file.stat().st_size for file in (folder / "annotations.journal.d").iterdir())
    assert sizes[0] < 50 * 1000 < sizes[1]
    again = reopened(keeper)
    assert again.annotations.totals()["Tumor"].count == 1000
    again.undo()
    assert list(again.annotations.totals()) == [None]
    again.close()


def test_the_file_is_written_now_and_then(folder, monkeypatch):
    monkeypatch.setattr("napari_histomil.annotations.keeping.STEPS_BETWEEN_FILES", 5)
    keeper = keeper_in(folder)
    for x in range(20):
        draw(keeper, square(20 * x))
    keeper.saver.wait()
    assert 6 <= len(read_geojson(folder / "annotations.geojson").regions) <= 20
    assert len(reopened(keeper).annotations) == 20


@pytest.mark.parametrize("killed_at", ["checkpoint", "replaced", "placed"])
def test_a_crash_while_the_file_is_written_loses_nothing(folder, monkeypatch, killed_at):
    keeper = keeper_in(folder)
    draw(keeper, square())
    keeper.file_soon()
    keeper.saver.wait()
    draw(keeper, square(20))
    before = regions_of(keeper)

    class Killed(Exception):
        pass

    def die(*_args) -> None:
        raise Killed

    append = Journal.append

    def append_until(journal, kind, data):
        if kind == "placed":
            die()
        return append(journal, kind, data)

    with monkeypatch.context() as patched:
        if killed_at == "checkpoint":
            patched.setattr(Journal, "append", die)
        elif killed_at == "replaced":
            patched.setattr(saving.os, "replace", die)
        else:
            patched.setattr(Journal, "append", append_until)
        with pytest.raises(Killed):
            keeper.close()
    again = keeper_in(folder)
    assert (regions_of(again), again.conflict, again.notes) == (before, None, ())
    draw(again, square(40))
    again.close()
    assert len(read_geojson(folder / "annotations.geojson").regions) == 3


# --- others -----------------------------------------------------------------------------------


def test_a_second_window_looks_and_does_not_touch(folder):
    keeper = keeper_in(folder)
    draw(keeper, square())
    second = keeper_in(folder)
    assert regions_of(second) == regions_of(keeper)
    assert second.is_open_elsewhere
    assert "being written by another process" in second.why_read_only
    assert (second.saving, second.conflict) == (None, None)
    for refused in (
        lambda: draw(second, square(20)),
        second.undo,
        second.redo,
        second.file_soon,
        lambda: second.resolve("ours"),
    ):
        with pytest.raises(AnnotationError, match="looked at, not changed"):
            refused()
    assert len(second.annotations) == 1
    second.close()
    draw(keeper, square(20))
    keeper.close()
    assert len(keeper_in(folder).annotations) == 2


def test_a_closed_keeper_is_closed(folder):
    keeper = keeper_in(folder)
    keeper.close()
    with pytest.raises(AnnotationError, match="are closed"):
        draw(keeper, square())


def elsewhere(folder: Path, *regions: Region) -> bytes:
    """Write the file as another program would."""
    path = folder / "annotations.geojson"
    write_geojson(path, regions, frame=FRAME)
    return path.read_bytes()


@pytest.fixture
def changed(folder) -> tuple[AnnotationKeeper, list[Region], list[Region]]:
    """A keeper whose file another program changed while it was closed; ours and theirs."""
    keeper = keeper_in(folder)
    draw(keeper, square(name="a"), square(20, name="b"))
    keeper.close()
    a, b = keeper.annotations
    theirs = [a.but(name="A"), square(40, name="c")]
    elsewhere(folder, *theirs)
    return keeper_in(folder), [a, b], theirs


def test_a_changed_file_is_told_and_stays_until_one_chooses(folder, changed):
    keeper, ours, _ = changed
    content = (folder / "annotations.geojson").read_bytes()
    assert regions_of(keeper) == ours
    assert "was changed by another program since it was written here" in keeper.conflict
    assert keeper.notes[0] == keeper.conflict
    draw(keeper, square(60))
    keeper.close()
    assert (folder / "annotations.geojson").read_bytes() == content
    again = keeper_in(folder)
    assert again.conflict
    assert len(again.annotations) == 3
    assert again.undo() is not None
    assert again.undo() is not None
    assert len(again.annotations) == 0


def test_theirs_is_a_step_that_can_be_undone(folder, changed):
    keeper, ours, theirs = changed
    keeper.resolve("theirs")
    assert regions_of(keeper) == theirs
    assert keeper.conflict is None
    keeper.undo()
    assert regions_of(keeper) == ours
    keeper.redo()
    keeper.close()
    assert read_geojson(folder / "annotations.geojson").regions == tuple(theirs)
    again = keeper_in(folder)
    assert (again.conflict, regions_of(again)) == (None, theirs)
    with pytest.raises(AnnotationError, match="No other program"):
        again.resolve("ours")


def test_ours_keeps_theirs_beside(folder, changed):
    keeper, ours, theirs = changed
    assert keeper.resolve("ours") is None
    keeper.close()
    assert read_geojson(folder / "annotations.geojson").regions == tuple(ours)
    kept = read_geojson(folder / "annotations.theirs-1.geojson")
    assert kept.regions == tuple(theirs)


def test_both_takes_copies_of_what_differs(folder, changed):
    keeper, ours, _ = changed
    keeper.resolve("both")
    assert [each.name for each in keeper.annotations] == ["a", "b", "A", "c"]
    assert regions_of(keeper)[:2] == ours
    keeper.close()
    assert len(read_geojson(folder / "annotations.geojson").regions) == 4


@pytest.mark.parametrize("content", [None, b"{", b""])
def test_a_file_that_is_gone_or_broken_is_noticed_too(folder, changed, content):
    keeper, ours, _ = changed
    keeper.close()
    path = folder / "annotations.geojson"
    path.unlink() if content is None else path.write_bytes(content)
    again = keeper_in(folder)
    assert regions_of(again) == ours
    assert ("is gone" in again.conflict) == (content is None)
    if content is not None:
        for choice in ("theirs", "both"):
            with pytest.raises(AnnotationError, match=r"annotations\.geojson"):
                again.resolve(choice)
        assert regions_of(again) == ours
        assert again.conflict
    again.resolve("ours")
    again.close()
    assert read_geojson(path).regions == tuple(ours)


def test_an_old_file_put_back_is_a_change_by_another(folder):
    keeper = keeper_in(folder)
    draw(keeper, square())
    keeper.close()
    old = (folder / "annotations.geojson").read_bytes()
    for x in (20, 40):
        keeper = keeper_in(folder)
        draw(keeper, square(x))
        keeper.close()
    (folder / "annotations.geojson").write_bytes(old)
    keeper = keeper_in(folder)
    assert keeper.conflict
    assert len(keeper.annotations) == 3


def test_a_file_that_was_there_first_is_kept_in_the_journal(folder):
    folder.mkdir()
    first = [square(name="first")]
    elsewhere(folder, *first)
    keeper = keeper_in(folder)
    assert (regions_of(keeper), keeper.conflict) == (first, None)
    draw(keeper, square(20))
    ours = regions_of(keeper)
    keeper.close()
    elsewhere(folder)
    again = keeper_in(folder)
    assert regions_of(again) == ours
    again.resolve("theirs")
    assert regions_of(again) == []


def test_a_change_while_it_is_open_is_noticed_before_writing(folder):
    keeper = keeper_in(folder)
    draw(keeper, square())
    keeper.file_soon()
    keeper.saver.wait()
    content = elsewhere(folder, square(40))
    draw(keeper, square(20))
    keeper.file_soon()
    keeper.saver.wait()
    assert keeper.saving.kind == "failed"
    assert keeper.saving.sentence == keeper.conflict
    assert (folder / "annotations.geojson").read_bytes() == content
    draw(keeper, square(60))
    assert keeper.saving.kind == "saved"  # in the journal
    keeper.close()
    again = keeper_in(folder)
    assert (len(again.annotations), bool(again.conflict)) == (3, True)
    again.resolve("both")
    assert len(again.annotations) == 4


# --- disks ------------------------------------------------------------------------------------


def test_a_full_disk_keeps_steps_waiting_in_order(folder):
    keeper = keeper_in(folder)
    draw(keeper, square())
    path = folder / "annotations.journal"
    with room_for(path.stat().st_size + 50):
        draw(keeper, square(20))
        assert keeper.saving.kind == "failed"
        assert "annotations.journal cannot be written: File too large" in keeper.saving.sentence
        keeper.undo()
        keeper.redo()
        assert (len(keeper.annotations), keeper.saver.waiting) == (2, 3)
        with pytest.raises(OutputError, match="3 steps are not on the disk yet: "):
            keeper.close()
    draw(keeper, square(40))
    assert (keeper.saving.kind, keeper.saver.waiting) == ("saved", 0)
    before = regions_of(keeper)
    assert regions_of(reopened(keeper)) == before


@pytest.mark.parametrize("count", [5, 500])
def test_a_full_disk_during_a_bulk_step_and_when_closing(folder, count):
    keeper = keeper_in(folder)
    path = folder / "annotations.journal"
    with room_for(path.stat().st_size + 50):
        keeper.do(commands.bring_in(keeper.annotations, many(count), "a.geojson"))
        keeper.saver.wait()
        assert keeper.saving.kind == "failed"
    keeper.saver.retry()
    assert keeper.saving.kind == "saved"
    with room_for(100), pytest.raises(OutputError, match=r"annotations\.\S*geojson cannot be"):
        keeper.close()
    again = keeper_in(folder)
    assert (len(again.annotations), again.notes) == (count, ())
    again.close()


def test_one_may_let_go_of_what_cannot_be_written(folder):
    keeper = keeper_in(folder)
    with room_for((folder / "annotations.journal").stat().st_size):
        draw(keeper, square())
        keeper.close(force=True)
    assert len(keeper_in(folder).annotations) == 0


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that every user may reach."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def info_of(path: Path, fingerprint: str = "ab" * 32) -> SlideInfo:
    return SlideInfo(
        path=path,
        reader="openslide",
        vendor="mirax",
        width_px0=9000,
        height_px0=9000,
        mpp_x=0.25,
        mpp_y=0.25,
        mpp_source="file",
        objective_power=40,
        levels=(Level(9000, 9000, 1.0, 256, 256),),
        channels=("red", "green", "blue"),
        dtype="uint8",
        composite="",
        bounds_px0=Rect(1000, 250, 3000, 3000),
        associated_images=(),
        properties={},
        fingerprint=fingerprint,
    )


def test_a_read_only_folder_is_looked_at(public_folder):
    keeper = keeper_in(public_folder / "s.histomil")
    draw(keeper, square())
    keeper.close()
    draw(keeper_in(public_folder / "s.histomil"), square(20))  # behind in the file
    names = sorted(file.name for file in (public_folder / "s.histomil").iterdir())
    with another_user():
        keeper = keeper_in(public_folder / "s.histomil")
        assert "looked at, not changed: " in keeper.why_read_only
        assert not keeper.is_open_elsewhere
        assert len(keeper.annotations) == 2
        assert len(keeper.history(regions_of(keeper)[0].id)) == 1
        with pytest.raises(AnnotationError, match="not changed"):
            draw(keeper, square(40))
        nothing = keeper_in(public_folder / "none.histomil")
        assert nothing.why_read_only
        assert len(nothing.annotations) == 0
    assert sorted(file.name for file in (public_folder / "s.histomil").iterdir()) == names


# --- where they lie ---------------------------------------------------------------------------


def test_annotations_lie_beside_the_slide_and_move_with_it(tmp_path):
    info = info_of(tmp_path / "slide.mrxs")
    keeper = open_annotations(info, author="Ada")
    assert keeper.folder == tmp_path / "slide.mrxs.histomil"
    assert keeper.frame == FRAME
    draw(keeper, square())
    keeper.close()
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    again = open_annotations(replace(info, path=moved / "other name.mrxs"))
    assert (again.folder, len(again.annotations)) == (keeper.folder, 1)
    again.close()


def test_annotations_of_another_slide_of_that_name_are_not_shown(tmp_path):
    info = info_of(tmp_path / "slide.mrxs")
    keeper = open_annotations(info)
    draw(keeper, square())
    keeper.close()
    (keeper.folder / "annotations.journal").unlink()  # the file alone tells, too
    for _ in range(2):
        other = open_annotations(info_of(info.path, "cd" * 32))
        assert other.folder != keeper.folder
        assert "were drawn on another slide of that name" in other.notes[0]
        draw(other, square(20))
        other.close()
    assert len(other.annotations) == 2
    renamed = open_annotations(info_of(tmp_path / "third.mrxs", "ef" * 32))
    assert (renamed.folder.name, len(renamed.annotations)) == ("third.mrxs.histomil", 0)
    assert len(open_annotations(info).annotations) == 1


def test_a_file_of_qupath_put_beside_the_slide_is_taken(tmp_path):
    folder = tmp_path / "slide.mrxs.histomil"
    folder.mkdir()
    feature = {"type": "Feature", "geometry": {"type": "Point", "coordinates": [5, 6]}}
    (folder / "annotations.geojson").write_text(json.dumps(feature))
    keeper = open_annotations(info_of(tmp_path / "slide.mrxs"))
    (region,) = keeper.annotations
    assert region.geometry == Point(1005, 256)
    assert "does not say where its origin is" in keeper.notes[0]


def test_what_lies_on_a_read_only_disk_is_taken_over(public_folder, own_user_data):
    own_user_data.chmod(0o777)
    for parent in own_user_data.parents:
        if parent.stat().st_uid == os.getuid() and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o011)
    info = info_of(public_folder / "slide.mrxs")
    keeper = open_annotations(info)
    draw(keeper, square())
    keeper.close()
    before = regions_of(keeper)
    with another_user():
        for count in (1, 2):
            taken = open_annotations(info)
            assert taken.why_read_only is None
            assert own_user_data in taken.folder.parents
            assert len(taken.annotations) == count
            assert (f"now lie in {taken.folder}" in " ".join(taken.notes)) == (count == 1)
            draw(taken, square(20 * count))
            taken.close()
    assert regions_of(taken)[0] == before[0]


# --- damage -----------------------------------------------------------------------------------


def damage(folder: Path, what: bytes) -> bytes:
    """Flip a bit in the line of a journal that holds something; return the damaged file."""
    path = folder / "annotations.journal"
    data = path.read_bytes()
    place = data.index(what)
    damaged = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
    path.write_bytes(damaged)
    return damaged


def test_a_damaged_line_loses_what_is_behind_it_and_nothing_is_deleted(folder):
    keeper = keeper_in(folder)
    for name in "abcd":
        draw(keeper, square(name=name))
    with crashed(keeper):
        damaged = damage(folder, b'"name":{"values":["c"]')
    again = keeper_in(folder)
    assert [each.name for each in again.annotations] == ["a", "b"]
    assert len(again.notes) == 1
    assert "is damaged: the steps before it are here, those after it are lost" in again.notes[0]
    assert (folder / "annotations.journal.damaged-1").read_bytes() == damaged
    draw(again, square(name="e"))
    third = reopened(again)
    assert [each.name for each in third.annotations] == ["a", "b", "e"]
    assert third.notes == ()
    assert [third.undo() is not None for _ in range(4)] == [True, True, True, False]
    third.close()


def test_a_damaged_line_before_the_file_was_written_costs_the_history_only(folder):
    keeper = keeper_in(folder)
    for name in "ab":
        draw(keeper, square(name=name))
    keeper.close()
    keeper = keeper_in(folder)
    draw(keeper, square(name="c"))
    with crashed(keeper):
        damage(folder, b'"name":{"values":["a"]')
    again = keeper_in(folder)
    assert [each.name for each in again.annotations] == ["a", "b", "c"]
    assert "all regions are here" in again.notes[0]
    assert [again.undo() is not None for _ in range(3)] == [True, True, False]
    again.close()
    assert [each.name for each in keeper_in(folder).annotations] == ["a"]


def test_a_damaged_first_line_and_a_foreign_journal_leave_the_file(folder):
    keeper = keeper_in(folder)
    draw(keeper, square(name="a"))
    keeper.close()
    path = folder / "annotations.journal"
    for number, content in enumerate((b"nonsense\n", bytes(999)), 1):
        path.write_bytes(content)
        again = keeper_in(folder)
        assert [each.name for each in again.annotations] == ["a"]
        assert "its steps are lost" in again.notes[0]
        assert (folder / f"annotations.journal.damaged-{number}").read_bytes() == content
        draw(again, square(20, name="b"))
        again.undo()
        again.close()
        last = keeper_in(folder)
        assert last.notes == ()
        last.close()


def test_a_torn_line_is_a_step_that_was_never_promised(folder):
    keeper = keeper_in(folder)
    for name in "ab":
        draw(keeper, square(name=name))
    with crashed(keeper):
        path = folder / "annotations.journal"
        path.write_bytes(path.read_bytes()[:-3])
    again = keeper_in(folder)
    assert [each.name for each in again.annotations] == ["a"]
    assert again.notes == ()


def test_newer_journals_are_refused_and_a_lost_attachment_is_said(folder):
    keeper = keeper_in(folder)
    keeper.do(commands.bring_in(keeper.annotations, many(300), "a.geojson"))
    keeper.saver.wait()
    (attached,) = (folder / "annotations.journal.d").iterdir()
    attached.unlink()
    again = reopened(keeper)  # the file has it all
    assert len(again.annotations) == 300
    with pytest.raises(AnnotationError, match="cannot be read"):
        again.undo()
    assert len(again.annotations) == 300
    again.close()
    path = folder / "annotations.journal"
    journal = Journal(folder / "new.journal", "annotations", 2)
    journal.close()
    path.write_bytes(journal.path.read_bytes())
    with pytest.raises(AnnotationError, match="newer version"):
        keeper_in(folder)


def test_a_broken_file_without_a_journal_is_an_error_that_changes_nothing(folder):
    folder.mkdir()
    path = folder / "annotations.geojson"
    path.write_bytes(b"{")
    for _ in range(2):
        with pytest.raises(AnnotationError, match=r"annotations\.geojson is not whole"):
            keeper_in(folder)
    assert path.read_bytes() == b"{"


# --- history ----------------------------------------------------------------------------------


def test_history_says_who_when_what_and_brings_it_back(folder):
    folder.mkdir()
    first = square(name="first")
    elsewhere(folder, first)
    keeper = keeper_in(folder)
    draw(keeper, square(40))
    keeper.do(commands.set_class(keeper.annotations, [first.id], TUMOR, STAMP))
    keeper.close()
    keeper = AnnotationKeeper.open(folder, FRAME, author="Bo")
    keeper.do(commands.reshape(keeper.annotations, {first.id: box(0, 0, 50, 50)}, "brush", STAMP))
    keeper.undo()
    keeper.redo()
    keeper.do(commands.delete(keeper.annotations, [first.id]))
    versions = keeper.history(first.id)
    assert [(v.author, v.text) for v in versions] == [
        ("", ""),
        ("Ada", "set class of 1 region to Tumor"),
        ("Bo", "brush"),
        ("Bo", "undo brush"),
        ("Bo", "redo brush"),
        ("Bo", "delete 1 region"),
    ]
    assert versions[0].region == first
    areas = [v.region and v.region.geometry.area for v in versions]
    assert areas == [100, 100, 2500, 100, 2500, None]
    assert all(v.time.endswith("Z") for v in versions[1:])
    keeper.revert(first.id, versions[1])
    region = keeper.annotations.get(first.id)
    assert region.geometry == first.geometry
    assert region.class_name == "Tumor"
    keeper.revert(first.id, versions[-1])
    assert first.id not in keeper.annotations
    keeper.undo()
    assert keeper.annotations.get(first.id) == region
    with pytest.raises(AnnotationError, match="as it was then"):
        keeper.revert(first.id, keeper.history(first.id)[-1])
    keeper.do(commands.set_locked(keeper.annotations, [first.id], True, STAMP))
    with pytest.raises(AnnotationError, match="is locked"):
        keeper.revert(first.id, versions[0])
    assert keeper.history(str(uuid.uuid4())) == []
    keeper.close()
    assert len(keeper.history(first.id)) == 10


def test_commands_that_do_not_fit_write_nothing(folder):
    keeper = keeper_in(folder)
    size = (folder / "annotations.journal").stat().st_size
    with pytest.raises(AnnotationError):
        keeper.do(Command("x", {"a": square()}))
    assert keeper.undo() is None
    assert keeper.redo() is None
    assert (folder / "annotations.journal").stat().st_size == size
