"""Whole files or none, tables, and what is no file of this machine at all.

Nothing half-written is ever left where a person asked for a result. A slide may lie elsewhere: a
`Path` made from its address is taken for that address everywhere (`remote_url`).
"""

from __future__ import annotations

import csv
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from napari_histomil.errors import HistomilError, OutputError

REMOTE = re.compile(r"(?!file:)([A-Za-z][A-Za-z0-9+.-]+):/+(.*)", re.DOTALL)
"""An address: a scheme of two letters or more (one is a Windows drive), then the place."""


def remote_url(path: str | Path) -> str | None:
    """Return the address that a path stands for; None if it is a path of this machine.

    Parameters
    ----------
    path
        An address such as ``https://example.org/a.zarr`` or ``s3://bucket/a.zarr``, or a path
        made from one: `Path` joins the two slashes to one, which is undone here.
    """
    text = path.as_posix() if isinstance(path, Path) else path
    match = REMOTE.fullmatch(text)
    return f"{match[1]}://{match[2]}" if match is not None else None


def is_there(path: Path) -> bool:
    """Say whether a file or folder exists; an address always counts as there, unasked."""
    return remote_url(path) is not None or path.exists()


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a temporary sibling to write to, which takes the place of `path` at the end.

    An existing file stays as it is until then, and stays if anything goes wrong. The sibling
    has the suffix of `path`, because some writers go by it.

    Yields
    ------
    Path
        Where to write.

    Raises
    ------
    OutputError
        If the folder is missing or not writable, or the disk is full.
    """
    _check_parent(path)
    if path.is_dir():
        raise OutputError(f"{path} is a folder: give the name of a file in it.")
    part = _sibling(path, "part")
    try:
        yield part
        os.replace(part, path)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        with suppress(OSError):  # a read-only disk refuses even what is not there
            part.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path, sign: str) -> Iterator[Path]:
    """Give the name of a temporary sibling folder, which takes the place of `path` at the end.

    An existing folder stays as it is until then, and stays if anything goes wrong.

    Parameters
    ----------
    path
        The folder.
    sign
        A file that every folder of this kind holds: a folder without it is another, and is not
        replaced (an empty one is).

    Yields
    ------
    Path
        Of a folder that is not there yet.

    Raises
    ------
    OutputError
        If the folder above is missing or not writable, the disk is full, or something else has
        the name.
    """
    _check_parent(path)
    if path.exists() and not (path / sign).is_file() and not _is_empty(path):
        raise OutputError(f"{path} is there and is something else: choose another name.")
    part, old = _sibling(path, "part"), _sibling(path, "old")
    try:
        yield part
        if path.exists():
            os.replace(path, old)
        try:
            os.replace(part, path)
        except OSError:
            if old.exists():
                os.replace(old, path)
            raise
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        for folder in (part, old):
            shutil.rmtree(folder, ignore_errors=True)  # a read-only disk refuses even this


def make_folder(path: Path) -> None:
    """Make a folder, and those above it; one that is there stays as it is.

    Raises
    ------
    OutputError
        If it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path} cannot be made: {error.strerror or error}.") from error


def read_rows(path: Path, failure: type[HistomilError]) -> list[dict[str, str]]:
    """Return the lines of a table (CSV with a header), fields without blanks around them.

    The first of them is line 2 of the file, unless a field goes over several lines.

    Raises
    ------
    HistomilError
        Of the kind `failure`, if it cannot be read, or a line has not as many fields as the
        header.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, ValueError, csv.Error) as error:
        raise failure(f"{path} cannot be read as a table (CSV): {error}.") from error
    for line, row in enumerate(rows, 2):
        if None in row or None in row.values():
            raise failure(f"{path}, line {line} has not as many fields as the header.")
    return [{name.strip(): value.strip() for name, value in row.items()} for row in rows]


def write_rows(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table (CSV with a header), whole or not at all.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    with whole_file(path) as part, part.open("w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(header)
        table.writerows(rows)


def _is_empty(path: Path) -> bool:
    return path.is_dir() and next(path.iterdir(), None) is None


def _check_parent(path: Path) -> None:
    if not path.parent.is_dir():
        raise OutputError(
            f"{path.name} cannot be written, because the folder {path.parent} does not exist: "
            f"make it first or choose another."
        )


def _sibling(path: Path, kind: str) -> Path:
    return path.with_name(f".{path.stem[:64]}.{secrets.token_hex(4)}.{kind}{path.suffix}")


def _unwritable(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"{path.name} cannot be written in {path.parent}: {error.strerror or error}."
    )
