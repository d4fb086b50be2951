"""Whole files or none: nothing half-written is ever left where a person asked for a result."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from napari_histomil.errors import OutputError


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
    if not path.parent.is_dir():
        raise OutputError(
            f"{path.name} cannot be written, because the folder {path.parent} does not exist: "
            f"make it first or choose another."
        )
    if path.is_dir():
        raise OutputError(f"{path} is a folder: give the name of a file in it.")
    part = path.with_name(f".{path.stem[:64]}.{secrets.token_hex(4)}.part{path.suffix}")
    try:
        yield part
        os.replace(part, path)
    except OSError as error:
        raise OutputError(
            f"{path.name} cannot be written in {path.parent}: {error.strerror or error}."
        ) from error
    finally:
        with suppress(OSError):  # a read-only disk refuses even what is not there
            part.unlink(missing_ok=True)
