"""An append-only log that survives what happens to files.

One line an entry, each a JSON object with the length and the checksum of what it holds::

    {"length":46,"crc":"5b1d2f0a","kind":"journal","data":{"of":"annotations","schema_version":1}}
    {"length":59,"crc":"0c9e6b11","kind":"do","data":{...}}

1. An entry is on the disk (fsync) when `append` returns; if it cannot be, the file is cut back to
   the last whole line and one error says why. Later entries go on when there is room again.
2. A torn last line is what a killed process left of an entry that was never promised: opening
   for writing cuts it off and tells (`Journal.torn_bytes`).
3. A line that is damaged in the middle becomes an entry of the kind `GAP`. Nothing is appended
   behind a gap until `rewrite` has put a new file in place; the damaged one stays beside it.
4. One writer: a lock of the operating system (`lock.py`). Who only reads needs none.

Large data lie in files of their own in a folder beside the journal (`attach`), on disk before the
line that names them. What entries mean is the business of those who write them.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import sys
import threading
import zlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from napari_histomil.errors import BusyError, JournalError, OutputError, RunError
from napari_histomil.files import whole_file
from napari_histomil.lock import WriterLock

HEAD = "journal"
GAP = "gap"

_LINE = re.compile(rb'\{"length":(\d{1,12}),"crc":"([0-9a-f]{8})","kind":"([a-z-]+)","data":')
_END = b"}\n"


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of a journal; its data are read when they are asked for."""

    kind: str
    path: Path
    start: int
    """Where its JSON begins in the file; of a gap, where the damage begins."""
    length: int

    def text(self) -> bytes:
        """Return the JSON of the data; of a gap, the damaged bytes.

        Raises
        ------
        JournalError
            If the file is gone.
        """
        try:
            with self.path.open("rb") as stream:
                stream.seek(self.start)
                return stream.read(self.length)
        except OSError as error:
            raise JournalError(
                f"{self.path} cannot be read: {error.strerror or error}."
            ) from error

    def data(self) -> Any:
        """Return what the entry holds."""
        return json.loads(self.text())


@dataclass(frozen=True, slots=True)
class Log:
    """What a journal's file holds."""

    head: Mapping[str, Any]
    """Of the first line; empty where that is damaged."""
    entries: tuple[Entry, ...]
    """All others, in order; damaged stretches as gaps."""
    whole_bytes: int
    """Length of the file up to the end of its last whole line."""
    torn_bytes: int
    """Length of what a killed process left behind it."""


def read_log(path: Path, of: str, version: int) -> Log:
    """Read a journal without locking or changing it.

    Parameters
    ----------
    path
        The file.
    of
        What it is a journal of.
    version
        The newest version of its entries that the caller understands.

    Raises
    ------
    JournalError
        If it cannot be read, is of something else, or of a newer version.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise JournalError(f"{path} cannot be read: {error.strerror or error}.") from error
    entries, whole = _entries(data, path)
    head: Mapping[str, Any] = {}
    if entries and entries[0].kind == HEAD:
        first = entries.pop(0)
        head = json.loads(data[first.start : first.start + first.length])
        if head.get("of") != of:
            raise JournalError(f"{path} is a journal of something else than {of}: move it away.")
        if not isinstance(head.get("schema_version"), int) or head["schema_version"] > version:
            raise JournalError(
                f"{path} was written by a newer version of this program (schema "
                f"{head.get('schema_version')}, this one knows {version}): update napari-histomil."
            )
    elif data:  # without a first line nothing says that what is torn may be cut off
        if not entries or entries[0].kind != GAP:
            entries.insert(0, Entry(GAP, path, 0, 0 if entries else len(data)))
        whole = len(data)
    return Log(head, tuple(entries), whole, len(data) - whole)


def _entries(data: bytes, path: Path) -> tuple[list[Entry], int]:
    """Return the entries, and the length up to the last whole line."""
    entries: list[Entry] = []
    position = whole = 0
    while position < len(data):
        found = _entry_at(data, position, path)
        if found is None:
            following = data.find(b"\n", position) + 1
            position = following or len(data)
            continue
        if position > whole:
            entries.append(Entry(GAP, path, whole, position - whole))
        entries.append(found)
        position = whole = found.start + found.length + len(_END)
    return entries, whole


def _entry_at(data: bytes, position: int, path: Path) -> Entry | None:
    match = _LINE.match(data, position)
    if match is None:
        return None
    start, length = match.end(), int(match[1])
    if data[start + length : start + length + len(_END)] != _END:
        return None
    if _crc(match[3], memoryview(data)[start : start + length]) != match[2]:
        return None
    return Entry(match[3].decode(), path, start, length)


def _crc(kind: bytes, text: bytes | memoryview) -> bytes:
    return b"%08x" % zlib.crc32(text, zlib.crc32(kind))


def _line(kind: str, text: bytes) -> bytes:
    name = kind.encode()
    crc = _crc(name, text)
    start = b'{"length":%d,"crc":"%s","kind":"%s","data":' % (len(text), crc, name)
    return start + text + _END


def json_bytes(value: Any) -> bytes:
    """Return JSON in one line; numbers that it has no word for as Python writes and reads them."""
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:  # half of a surrogate pair: legal in JSON only as an escape
        return json.dumps(value, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True)
class Attachment:
    """Data in a file of their own, as an entry names them."""

    name: str
    length: int
    crc: str

    def member(self) -> dict[str, Any]:
        """Return what an entry holds to find the data again."""
        return {"name": self.name, "length": self.length, "crc": self.crc}


class Journal:
    """A journal open for writing; every method may be called from any thread.

    Parameters
    ----------
    path
        The file; it is made, with its folder, where it is missing.
    of, version
        See `read_log`.
    head
        Further members of the first line of a new journal.

    Raises
    ------
    BusyError
        If it is open for writing elsewhere.
    JournalError
        See `read_log`.
    OutputError
        If the folder or the file cannot be written.
    """

    def __init__(
        self, path: Path, of: str, version: int, *, head: Mapping[str, Any] | None = None
    ) -> None:
        self.path = path
        self._mutex = threading.RLock()
        self._of, self._version = of, version
        first = {"of": of, "schema_version": version} | dict(head or {})
        self._stream: IO[bytes] | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = WriterLock(path)
        except OSError as error:
            raise self._refused(error) from error
        except BusyError:
            raise
        except RunError as error:
            raise OutputError(str(error)) from error
        try:
            if not path.exists() or not path.stat().st_size:
                self._replace([(HEAD, json_bytes(first))])
            log = read_log(path, of, version)
            self._stream = path.open("r+b", buffering=0)
        except OSError as error:
            self._lock.release()
            raise self._refused(error) from error
        except BaseException:
            self._lock.release()
            raise
        self.head = log.head or first
        self.entries: list[Entry] = list(log.entries)
        self.torn_bytes = log.torn_bytes
        """Length of the torn last line that was cut off; 0 if there was none."""
        self._end = log.whole_bytes
        self._untidy = log.torn_bytes > 0
        if self._untidy:
            with suppress(OutputError):  # a full or failing disk: tried again before each entry
                self._cut()

    @property
    def is_whole(self) -> bool:
        """Whether no line is damaged."""
        return not any(entry.kind == GAP for entry in self.entries)

    def append(self, kind: str, data: Any) -> Entry:
        """Add an entry; it is on the disk when this returns.

        Raises
        ------
        OutputError
            If the disk is full or fails, or another program changed the file: nothing was added.
        """
        text = json_bytes(data)
        line = _line(kind, text)
        with self._mutex:
            stream = self._checked()
            if not self.is_whole:
                raise OutputError(f"{self.path} is damaged: nothing is added behind the damage.")
            if self._untidy:
                self._cut()
            try:
                stream.seek(self._end)
                written = 0
                while written < len(line):
                    written += stream.write(line[written:])
                os.fsync(stream.fileno())
            except OSError as error:
                self._untidy = True
                with suppress(OutputError):  # tried again before the next entry
                    self._cut()
                raise self._refused(error) from error
            self._end += len(line)
            start = self._end - len(_END) - len(text)
            self.entries.append(Entry(kind, self.path, start, len(text)))
            return self.entries[-1]

    def rewrite(self, entries: Iterable[tuple[str, bytes]]) -> Path | None:
        """Put a new file in the place of a damaged one, which stays beside it.

        Parameters
        ----------
        entries
            Kind and JSON of each (`Entry.text`).

        Returns
        -------
        Path or None
            Where the old file is now; None if nothing in it was damaged, then it is gone.

        Raises
        ------
        OutputError
            If the disk is full or fails; all is then as it was.
        """
        with self._mutex:
            self._checked()
            kept = None if self.is_whole else self._keep_aside()
            self._replace([(HEAD, json_bytes(self.head)), *entries])
            assert self._stream is not None
            self._stream.close()
            self._stream = None
            try:
                log = read_log(self.path, self._of, self._version)
                self._stream = self.path.open("r+b", buffering=0)
            except OSError as error:
                raise self._refused(error) from error
            self._end = log.whole_bytes
            self._untidy = False
            self.entries = list(log.entries)
            return kept

    def close(self) -> None:
        """Give file and lock back; does nothing the second time."""
        with self._mutex:
            if self._stream is not None:
                self._stream.close()
                self._stream = None
            self._lock.release()

    # --- large data ---------------------------------------------------------------------------

    def attach(self, chunks: Iterable[bytes]) -> Attachment:
        """Write data to a file of their own; on disk when this returns.

        Raises
        ------
        OutputError
            If the disk is full or fails.
        """
        folder = attachments(self.path)
        name = f"{secrets.token_hex(8)}.jsonl"
        length = crc = 0
        try:
            folder.mkdir(exist_ok=True)
            with whole_file(folder / name) as part, part.open("wb") as stream:
                for chunk in chunks:
                    stream.write(chunk)
                    length += len(chunk)
                    crc = zlib.crc32(chunk, crc)
                stream.flush()
                os.fsync(stream.fileno())
            sync_folder(folder)
            sync_folder(folder.parent)
        except OSError as error:
            raise self._refused(error) from error
        return Attachment(name, length, f"{crc:08x}")

    def sweep(self, named: Iterable[str]) -> None:
        """Delete attachments that no entry names: a killed process left them unfinished.

        Nothing is deleted while there is, or ever was, a damaged line that may have named one.
        """
        folder = attachments(self.path)
        if not folder.is_dir() or not self.is_whole or list(self._damaged()):
            return
        known = set(named)
        with suppress(OSError):  # costs room and nothing else
            for file in folder.iterdir():
                if file.name not in known:
                    file.unlink()

    # --- helpers ------------------------------------------------------------------------------

    def _checked(self) -> IO[bytes]:
        """Return the file, if it still is the one that was opened."""
        if self._stream is None:
            raise OutputError(f"{self.path} is closed.")
        try:
            there = self.path.stat()
            mine = os.fstat(self._stream.fileno())
        except OSError as error:
            raise self._refused(error) from error
        if not os.path.samestat(there, mine) or (mine.st_size != self._end and not self._untidy):
            raise OutputError(
                f"{self.path} was changed by another program: close the slide and open it again."
            )
        return self._stream

    def _cut(self) -> None:
        """Take away what stands behind the last whole line."""
        assert self._stream is not None
        try:
            self._stream.truncate(self._end)
            os.fsync(self._stream.fileno())
        except OSError as error:
            raise self._refused(error) from error
        self._untidy = False

    def _replace(self, entries: Iterable[tuple[str, bytes]]) -> None:
        with whole_file(self.path) as part, part.open("wb") as stream:
            stream.writelines(_line(kind, text) for kind, text in entries)
            stream.flush()
            os.fsync(stream.fileno())
        sync_folder(self.path.parent)

    def _damaged(self) -> Iterable[Path]:
        return self.path.parent.glob(f"{self.path.name}.damaged-*")

    def _keep_aside(self) -> Path:
        number = 1 + len(list(self._damaged()))
        kept = self.path.with_name(f"{self.path.name}.damaged-{number}")
        with whole_file(kept) as part:
            part.write_bytes(self.path.read_bytes())
        return kept

    def _refused(self, error: OSError) -> OutputError:
        return OutputError(f"{self.path} cannot be written: {error.strerror or error}.")


def attachments(path: Path) -> Path:
    """Return the folder of the attachments of a journal."""
    return path.with_name(f"{path.name}.d")


def read_attachment(path: Path, member: Mapping[str, Any]) -> bytes:
    """Return attached data of the journal at `path`.

    Raises
    ------
    JournalError
        If they are missing or damaged.
    """
    try:
        wanted = Attachment(str(member["name"]), int(member["length"]), str(member["crc"]))
        data = (attachments(path) / Path(wanted.name).name).read_bytes()
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise JournalError(f"A file of {path} cannot be read: {error}.") from error
    if len(data) != wanted.length or f"{zlib.crc32(data):08x}" != wanted.crc:
        raise JournalError(f"{wanted.name}, a file of {path}, is damaged.")
    return data


def sync_folder(folder: Path) -> None:
    """Have a folder's list of files on the disk too; Windows does that by itself."""
    if sys.platform == "win32":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
