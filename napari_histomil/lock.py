"""One writer at a time: a lock that the operating system drops when its holder dies.

No file that says "locked" is believed: after a killed process, or on another machine, it would be
wrong. The lock is the system's own, on a file beside what is written; the file's text only tells
a person who holds it.
"""

from __future__ import annotations

import errno
import os
import platform
import sys
from contextlib import suppress
from pathlib import Path
from typing import IO

from napari_histomil.errors import BusyError, RunError

_LOCK_OFFSET = 1 << 30
"""Windows locks bytes, and locked bytes cannot be read: lock one far behind the text."""

if sys.platform == "win32":
    import msvcrt

    def _try_lock(stream: IO[str]) -> None:
        stream.seek(_LOCK_OFFSET)
        msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)
        stream.seek(0)
else:
    import fcntl

    def _try_lock(stream: IO[str]) -> None:
        fcntl.flock(stream.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)


_HELD = {errno.EACCES, errno.EAGAIN, errno.EDEADLK}
_UNSUPPORTED = {errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL}


class WriterLock:
    """The right to write to a store or file; taken on creation, given back by `release`.

    On a file system that knows no locks (some network drives) nothing is held and nothing can
    be noticed.

    Raises
    ------
    BusyError
        If another process, or another place in this one, is writing there.
    RunError
        If the lock cannot be had for another reason.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.with_name(path.name + ".lock")
        self._stream: IO[str] | None = None
        while True:
            stream = self.path.open("a+", encoding="utf-8")
            try:
                _try_lock(stream)
            except OSError as error:
                holder = "" if error.errno in _UNSUPPORTED else self._holder()
                stream.close()
                if error.errno in _UNSUPPORTED:
                    return
                if error.errno not in _HELD:
                    raise RunError(f"{self.path} cannot be locked: {error}.") from error
                raise BusyError(
                    f"{path} is being written by another process{holder}: wait for it, or cancel "
                    f"it there."
                ) from error
            if self._is_current(stream):
                break
            stream.close()  # its last holder deleted the file between our open and our lock
        self._stream = stream
        with suppress(OSError):  # a full disk: the lock holds without its text
            os.ftruncate(stream.fileno(), 0)
            os.write(stream.fileno(), f"process {os.getpid()} on {platform.node()}".encode())

    def release(self) -> None:
        """Give the lock back; does nothing the second time."""
        if self._stream is None:
            return
        if sys.platform != "win32":  # deleted while held, so that nobody locks a dying file
            self.path.unlink(missing_ok=True)
        self._stream.close()
        self._stream = None
        if sys.platform == "win32":
            try:
                self.path.unlink(missing_ok=True)
            except PermissionError:
                return  # the next writer has opened it already

    def _is_current(self, stream: IO[str]) -> bool:
        try:
            return os.path.samestat(os.fstat(stream.fileno()), self.path.stat())
        except FileNotFoundError:
            return False

    def _holder(self) -> str:
        try:
            text = self.path.read_text(encoding="utf-8").strip()
        except OSError:
            return ""  # the message is complete without
        return text and f" ({text})"
