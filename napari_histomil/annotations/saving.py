"""Steps onto the disk: at once, by a thread, or again when there is room.

1. A step of a few regions is in the journal (fsync) when `Saver.put` returns.
2. A step of many is written by a thread: its data to a file of their own, then one entry. Steps
   after it wait behind it.
3. What cannot be written (a full disk) waits, in order; every later step, or `retry`, tries again.
4. ``annotations.geojson`` is written anew by another thread, beside the steps: an entry says which
   steps it lacks, so that it does not matter what is killed when. It is never written over what
   another program put there.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

from psygnal import Signal

from napari_histomil.annotations.collection import AnnotationSet, Command
from napari_histomil.annotations.geojson import write_geojson
from napari_histomil.annotations.model import Region, SlideFrame
from napari_histomil.annotations.recovery import FILE_NAME, Found, hash_of
from napari_histomil.annotations.steps import step_from_command
from napari_histomil.errors import HistomilError, OutputError
from napari_histomil.journal import Journal, json_bytes, sync_folder

BULK = 200
"""A step of more regions is written by a thread."""

LARGE_BYTES = 2**23
"""A step of more JSON lies in a file of its own, so that the journal is read quickly."""

STEPS_BETWEEN_FILES = 200
"""After so many steps ``annotations.geojson`` is written anew, or after as many as ..."""

REGIONS_PER_STEP = 50
"""... a step for so many regions: a large file is written more rarely."""


@dataclass(frozen=True, slots=True)
class Saving:
    """How far what was done is on the disk."""

    kind: Literal["saved", "saving", "failed"]
    time: float
    """When everything was on the disk last, in seconds as `time.time` counts."""
    sentence: str = ""
    """Why it failed."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The set after so many steps."""

    regions: Sequence[Region]
    extra: Mapping[str, Any]
    steps: int

    @classmethod
    def of(cls, annotations: AnnotationSet, steps: int) -> Self:
        """Return a set as it is now."""
        return cls(list(annotations), annotations.extra, steps)


@dataclass(frozen=True, slots=True)
class _Line:
    """An entry that is on its way to the disk."""

    kind: str
    about: dict[str, Any]
    command: Command | None

    @property
    def is_bulk(self) -> bool:
        return is_bulk(self.command)


def is_bulk(command: Command | None) -> bool:
    """Whether a step is of so many regions that a thread writes it."""
    return command is not None and max(len(command.removed), len(command.added)) > BULK


class Saver:
    """Writes the steps of one set, and its file.

    `put`, `retry`, `file_soon` and `wait` are called from one thread; `changed` is emitted from
    the threads that write, too.

    Parameters
    ----------
    journal
        Open for writing.
    frame
        Of the file.
    found
        What was there when it was opened.
    """

    changed: ClassVar[Signal] = Signal(Saving)

    def __init__(self, journal: Journal, frame: SlideFrame, found: Found) -> None:
        self.journal = journal
        self.state = Saving("saved", time.time())
        self.conflict = found.notes[0] if found.foreign else None
        """A sentence if another program changed the file."""
        self._path = journal.path.parent / FILE_NAME
        self._frame = frame
        # What follows belongs to all threads; changes are guarded.
        self._guard = threading.Condition()
        self._waiting: deque[_Line] = deque()
        self._writer: threading.Thread | None = None
        self._filer: threading.Thread | None = None
        self._known_sha256 = found.sha256
        self._written = 0
        self._in_file = -found.unwritten

    # --- steps --------------------------------------------------------------------------------

    @property
    def steps(self) -> int:
        """How many steps were put, written or not."""
        with self._guard:
            return self._written + len(self._waiting)

    @property
    def waiting(self) -> int:
        """How many of them are not on the disk."""
        return len(self._waiting)

    @property
    def steps_since_file(self) -> int:
        """How many steps the file lacks."""
        return self.steps - self._in_file

    def put(
        self,
        kind: str,
        about: dict[str, Any],
        command: Command | None,
        annotations: AnnotationSet | None,
    ) -> None:
        """Write a step, or have it written.

        Parameters
        ----------
        kind
            ``do``, ``undo`` or ``redo``.
        about
            What, who and when.
        command
            Of ``do``.
        annotations
            The set after the step, if the file shall be written after it.
        """
        line = _Line(kind, about, command)
        with self._guard:
            self._waiting.append(line)
            snapshot = None if annotations is None else Snapshot.of(annotations, self.steps)
            if self._writer is not None:
                return
            if line.is_bulk:
                work = threading.Thread(
                    target=self._write_beside, args=(snapshot,), name="annotations.journal"
                )
                self._writer = work
        if line.is_bulk:
            self._tell(Saving("saving", self.state.time))
            work.start()
        elif self._write_waiting() and snapshot is not None:
            self.file_soon(snapshot)

    def retry(self) -> None:
        """Try to write what could not be written."""
        if self._writer is None and self._waiting:
            self._write_waiting()

    def wait(self) -> None:
        """Wait until the threads have done what they can."""
        for name in ("_writer", "_filer"):  # the first starts the second
            thread = getattr(self, name)
            if thread is not None:
                thread.join()

    def _write_beside(self, snapshot: Snapshot | None) -> None:
        """Write what waits until nothing does, then the file: the writing thread."""
        while True:
            written = self._write_waiting()
            with self._guard:
                if not written or not self._waiting:
                    if written and snapshot is not None:
                        self.file_soon(snapshot)
                    self._writer = None
                    self._guard.notify_all()
                    return

    def _write_waiting(self) -> bool:
        """Write what waits, in order; return whether all of it is on the disk."""
        while self._waiting:
            try:
                self._write(self._waiting[0])
            except OutputError as error:
                self._tell(Saving("failed", self.state.time, str(error)))
                return False
            except BaseException as error:  # said here too, where the thread has no caller
                self._tell(Saving("failed", self.state.time, f"This is a bug: {error!r}."))
                raise
        self._tell(Saving("saved", time.time()))
        return True

    def _write(self, line: _Line) -> None:
        data = line.about
        if line.command is not None:
            step = step_from_command(line.command)
            text = json_bytes(step)
            if line.is_bulk or len(text) > LARGE_BYTES:
                data = {**data, "attached": self.journal.attach([text]).member()}
            else:
                data = {**data, "step": step}
        with self._guard:
            self.journal.append(line.kind, data)
            self._waiting.popleft()
            self._written += 1
            self._guard.notify_all()

    def _tell(self, state: Saving) -> None:
        self.state = state
        self.changed.emit(state)

    # --- the file -----------------------------------------------------------------------------

    def settle(self, sha256: str | None) -> None:
        """End a conflict: the file of this hash may be written over."""
        self._known_sha256, self.conflict = sha256, None
        self._in_file = -1  # what is here is not what is there, even without a step

    def file_soon(self, snapshot: Snapshot) -> None:
        """Have the file written by a thread, unless one is at it."""
        with self._guard:
            if self._filer is not None or self.conflict is not None:
                return
            self._filer = threading.Thread(
                target=self._file_beside, args=(snapshot,), name="annotations.geojson"
            )
            self._filer.start()

    def file_now(self, snapshot: Snapshot) -> None:
        """Write the file if it is behind.

        Raises
        ------
        OutputError
            If it cannot be written. All steps are in the journal nevertheless.
        """
        if self._written != self._in_file and not self._waiting and self.conflict is None:
            self._file(snapshot)

    def _file_beside(self, snapshot: Snapshot) -> None:
        try:
            self._file(snapshot)
        except HistomilError as error:
            self._tell(Saving("failed", self.state.time, str(error)))
        finally:
            self._filer = None

    def _file(self, snapshot: Snapshot) -> None:
        path = self._path
        part = path.with_name(f".{path.stem}.next{path.suffix}")
        try:
            write_geojson(part, snapshot.regions, frame=self._frame, extra=snapshot.extra)
            with part.open("rb") as stream:
                os.fsync(stream.fileno())
                sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
            with self._guard:
                # A file that is ahead of the journal would be one that nobody drew.
                self._guard.wait_for(
                    lambda: self._written >= snapshot.steps or self._writer is None
                )
                if self._written < snapshot.steps:
                    return
                if hash_of(path) != self._known_sha256:
                    self.conflict = (
                        f"{path} was changed by another program: it stays as it is until you "
                        f"choose, and what you draw is kept in the journal."
                    )
                    raise OutputError(self.conflict)
                behind = self._written - snapshot.steps
                self.journal.append("checkpoint", {"sha256": sha256, "behind": behind})
                os.replace(part, path)
                sync_folder(path.parent)
                self._known_sha256, self._in_file = sha256, snapshot.steps
                self.journal.append("placed", {})
        except OSError as error:
            raise OutputError(f"{path} cannot be written: {error.strerror or error}.") from error
        finally:
            with suppress(OSError):
                part.unlink(missing_ok=True)
