"""From what lies on disk to the set as it was left: the file, then the journal's steps on it.

The entries of the journal of ``annotations.geojson``:

* ``base``: what the file was when the journal began: its hash, and a copy of it;
* ``do``, ``undo``, ``redo``: a step, with who and when;
* ``checkpoint``: the file is about to be written anew: its hash, and how many of the steps before
  this entry are not in it; ``placed``: it has been;
* ``lost``: here were steps in lines that are damaged, but a later file holds what they did.
  Nothing before can be undone.

The state is the newest of our files, which its hash tells, and the steps after it. A file with
another hash was written by another program: then all steps are replayed from the base.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from napari_histomil.annotations.collection import AnnotationSet, Command, Recalled
from napari_histomil.annotations.files import AnnotationFile
from napari_histomil.annotations.geojson import read_geojson
from napari_histomil.annotations.model import SlideFrame
from napari_histomil.annotations.steps import command_from_step
from napari_histomil.errors import AnnotationError, JournalError
from napari_histomil.journal import GAP, Entry, Journal, read_attachment, read_log

FILE_NAME = "annotations.geojson"
JOURNAL_NAME = "annotations.journal"
OF = "annotations"
SCHEMA_VERSION = 1

LOOKS = 3
"""So often a folder is looked at that another window writes to, until it holds still."""

LOST = "lost"
STEPS = ("do", "undo", "redo")
_FILES = ("base", "checkpoint")


@dataclass(frozen=True, slots=True)
class Found:
    """What was on disk."""

    annotations: AnnotationSet
    entries: tuple[Entry, ...]
    """The journal's entries that count; those behind a damage that could not be used are out."""
    sha256: str | None
    """Of the file as it is now; None if there is none."""
    unwritten: int
    """Steps that the file does not hold."""
    notes: tuple[str, ...] = ()
    """Sentences for the person."""
    foreign: bool = False
    """Whether another program changed the file: the set is what was ours."""


def recover(folder: Path, entries: Sequence[Entry], frame: SlideFrame) -> Found:
    """Return the annotations of a folder as they were left; nothing is written.

    Parameters
    ----------
    folder
        With the file and its journal, either of which may be missing.
    entries
        Of the journal; gaps are damaged lines.
    frame
        QuPath's frame of the slide.

    Raises
    ------
    AnnotationError
        If the file, or a step, cannot be used.
    """
    path = folder / FILE_NAME
    sha256 = hash_of(path)
    notes = []
    last_gap = max((n for n, entry in enumerate(entries) if entry.kind == GAP), default=-1)
    base = _file_entry(entries, sha256)
    foreign = base is None
    if base is None:
        if not entries or entries[0].kind != "base":  # a new journal, or one that lost its start
            file = read_geojson(path, frame=frame) if sha256 else _nothing(frame)
            notes = [_damage(folder, "its steps are lost")] if entries else []
            told = (*notes, *file.notes)
            return Found(AnnotationSet(file.regions, extra=file.extra), (), sha256, 0, told)
        base = 0
        gone = "is gone" if sha256 is None else "was changed by another program"
        notes.append(
            f"{path} {gone} since it was written here: what was drawn here is shown, and the "
            f"file stays as it is until you choose."
        )
    if last_gap >= 0 and base < last_gap:
        first_gap = next(n for n, e in enumerate(entries) if n > base and e.kind == GAP)
        notes.append(_damage(folder, "the steps before it are here, those after it are lost"))
        entries = entries[:first_gap]
    elif last_gap >= 0:
        notes.append(_damage(folder, "all regions are here, but steps before cannot be undone"))
    if foreign:
        file, start = _base_copy(entries, folder, frame), 0
    else:
        file = read_geojson(path, frame=frame) if sha256 else _nothing(frame)
        start = _first_unwritten(entries, base)
    annotations, count = _replayed(file, entries, start)
    return Found(annotations, tuple(entries), sha256, count, (*notes, *file.notes), foreign)


def look(folder: Path, frame: SlideFrame) -> Found:
    """Return the annotations of a folder without its lock; see `recover`.

    Raises
    ------
    JournalError
        If the journal is of something else, or of a newer version.
    """
    path = folder / JOURNAL_NAME
    for _ in range(LOOKS):
        entries = read_log(path, OF, SCHEMA_VERSION).entries if path.is_file() else ()
        found = recover(folder, entries, frame)
        if not found.foreign:
            break  # else the file may have been written anew just then, by the other window
    return found


def take_up(journal: Journal, frame: SlideFrame) -> Found:
    """Return the annotations of a journal's folder, and make both fit to go on; see `recover`.

    A damaged journal is put aside and replaced by what could be used of it; what a killed process
    left half done is cleared away.

    Raises
    ------
    OutputError
        If that cannot be written.
    """
    folder = journal.path.parent
    found = recover(folder, journal.entries, frame)
    if not journal.is_whole:
        kept = [(LOST, b"{}") if e.kind == GAP else (e.kind, e.text()) for e in found.entries]
        journal.rewrite(kept)
        found = replace(recover(folder, journal.entries, frame), notes=found.notes)
    for part in folder.glob(f".{Path(FILE_NAME).stem}.*"):
        part.unlink(missing_ok=True)
    if journal.entries:
        journal.sweep(_attached(journal.entries))
    else:
        copy = None
        if found.sha256 is not None:
            copy = journal.attach([(folder / FILE_NAME).read_bytes()]).member()
        journal.append("base", {"sha256": found.sha256, "attached": copy})
    return found


def _attached(entries: Iterable[Entry]) -> set[str]:
    """Return the names of all files that entries name."""
    return {
        entry.data()["attached"]["name"]
        for entry in entries
        if entry.kind in ("base", "do") and b'"attached":{' in entry.text()
    }


def hash_of(path: Path) -> str | None:
    """Return the SHA-256 of a file, None if there is none.

    Raises
    ------
    AnnotationError
        If it cannot be read.
    """
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise AnnotationError(f"{path} cannot be read: {error.strerror or error}.") from error


def load_step(entry: Entry) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return what a ``do`` entry says about itself, and its step, wherever that lies.

    Raises
    ------
    AnnotationError
        If it cannot be read.
    """
    try:
        data = entry.data()
        if "attached" not in data:
            return data, data["step"]
        return data, json.loads(read_attachment(entry.path, data["attached"]))
    except (JournalError, ValueError, KeyError, TypeError) as error:
        raise AnnotationError(f"A step of {entry.path} cannot be read: {error}.") from error


def _damage(folder: Path, what: str) -> str:
    return (
        f"A line of {JOURNAL_NAME} in {folder} is damaged: {what}; the damaged journal is kept "
        f"beside."
    )


# --- which file, and what is missing in it ------------------------------------------------------


def _file_entry(entries: Sequence[Entry], sha256: str | None) -> int | None:
    """Return the newest entry that wrote the file as it is; None if it is not ours.

    A process that was killed while it wrote leaves a checkpoint that is not placed, and the file
    of the one before: both are ours. Older ones are not: somebody put an old file back.
    """
    for n in range(len(entries) - 1, -1, -1):
        entry = entries[n]
        if entry.kind in _FILES:
            if entry.data()["sha256"] == sha256:
                return n
            if entry.kind == "base" or any(
                later.kind == "placed" for later in _until_next_file(entries, n)
            ):
                return None
    return None


def _until_next_file(entries: Sequence[Entry], n: int) -> Iterable[Entry]:
    for entry in entries[n + 1 :]:
        if entry.kind in _FILES:
            return
        yield entry


def _first_unwritten(entries: Sequence[Entry], base: int) -> int:
    """Return the index of the first entry whose step the file lacks."""
    behind = entries[base].data().get("behind", 0)
    n = base
    while behind:
        n -= 1
        behind -= entries[n].kind in STEPS
    return n


def _base_copy(entries: Sequence[Entry], folder: Path, frame: SlideFrame) -> AnnotationFile:
    """Return the file that the journal began with."""
    attached = entries[0].data().get("attached")
    if attached is None:
        return _nothing(frame)
    try:
        data = read_attachment(folder / JOURNAL_NAME, attached)
    except JournalError as error:
        raise AnnotationError(str(error)) from error
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name) / FILE_NAME
        copy.write_bytes(data)
        return read_geojson(copy, frame=frame)


def _nothing(frame: SlideFrame) -> AnnotationFile:
    return AnnotationFile((), frame)


# --- steps --------------------------------------------------------------------------------------


def _replayed(
    file: AnnotationFile, entries: Sequence[Entry], start: int
) -> tuple[AnnotationSet, int]:
    """Return the set with its history, and how many steps were replayed on the file."""
    past, future = stacks(entries[:start])
    annotations = AnnotationSet(
        file.regions,
        extra=file.extra,
        past=[_recalled(entry, done=True) for entry in past],
        future=[_recalled(entry, done=False) for entry in reversed(future)],
    )
    count = 0
    for entry in entries[start:]:
        if entry.kind == "do":
            annotations.do(_recalled(entry, done=False)(annotations))
        elif entry.kind == "undo":
            annotations.undo()
        elif entry.kind == "redo":
            annotations.redo()
        count += entry.kind in STEPS
    return annotations, count


def stacks(entries: Iterable[Entry]) -> tuple[list[Entry], list[Entry]]:
    """Return what could be undone and redone after these entries; the next one is last."""
    past: list[Entry] = []
    future: list[Entry] = []
    for entry in entries:
        if entry.kind == "do":
            past.append(entry)
            future.clear()
        elif entry.kind == "undo" and past:
            future.append(past.pop())
        elif entry.kind == "redo" and future:
            past.append(future.pop())
        elif entry.kind in (GAP, LOST):
            past.clear()
            future.clear()
    return past, future


def _recalled(entry: Entry, *, done: bool) -> Recalled:
    def fetch(annotations: AnnotationSet) -> Command:
        about, step = load_step(entry)
        text = str(about.get("text", ""))
        return command_from_step(step, text, annotations.get, done=done)

    return fetch
