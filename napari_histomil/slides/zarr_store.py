"""Where the pieces of an OME-Zarr lie: a folder of this machine, or an address through fsspec.

Addresses are what fsspec knows: ``https://``, ``s3://``, ``gs://``, ``memory://`` and others, each
with the package that it needs. Keys and other settings come from fsspec's own configuration
(files in ``~/.config/fsspec``, variables ``FSSPEC_...``) and from what its packages read
themselves (as ``AWS_...``): none is kept by this program.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import LocalStore

from napari_histomil.errors import SlideError, brief
from napari_histomil.files import remote_url
from napari_histomil.slides.identity import fingerprint_contents, fingerprint_files

MAX_FINGERPRINT_CHUNKS = 64

CONNECT_SECONDS, SILENCE_SECONDS = 15, 60
"""How long a server may take to answer at all, and may be silent while it sends."""

READ_ERRORS = (
    OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, RuntimeError,
    MemoryError, ImportError, ArithmeticError, RecursionError, SystemError,
)  # fmt: skip
"""What zarr, its codecs and stores raise on what only looks like an image."""

METADATA_FILES = ("zarr.json", ".zattrs", ".zgroup")


class _Folder(LocalStore):
    """A folder in which only files are read: a pipe would be waited for without end."""

    async def get(
        self,
        key: str,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        # zarr keeps to the names that it makes up: none leads out of the folder.
        self._check(key)
        return await super().get(key, prototype, byte_range)

    def get_sync(
        self,
        key: str,
        *,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        self._check(key)
        return super().get_sync(key, prototype=prototype, byte_range=byte_range)

    def _check(self, key: str) -> None:
        try:
            mode = os.stat(f"{self.root}/{key}").st_mode
        except OSError:
            return  # there is nothing: that has a meaning, which zarr knows
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise ValueError(f"{key} is no file")


def is_zarr(path: Path) -> bool:
    """Say whether a folder looks like a Zarr group."""
    return any((path / name).is_file() for name in METADATA_FILES)


def open_root(path: Path) -> zarr.Group:
    """Open a folder, or what lies at an address, as a Zarr group for reading.

    Raises
    ------
    SlideError
        If it is none, or a package is missing, or the place cannot be reached.
    """
    url = remote_url(path)
    try:
        if url is None:
            return zarr.open_group(_Folder(path, read_only=True), mode="r")
        return zarr.open_group(url, mode="r", storage_options=_options(url))
    except ImportError as error:
        raise SlideError(
            f"{path.name} lies at an address that needs a package for {url_scheme(url)}: "
            f"{brief(error)}."
        ) from error
    except READ_ERRORS as error:
        if url is None:
            raise SlideError(
                f"{path.name} is no OME-Zarr image, or parts of it are missing or damaged: "
                f"{brief(error)}."
            ) from error
        raise SlideError(_why_not(url, error)) from error
    # Servers' own errors have no common kind: each package of fsspec brings its own.
    except Exception as error:
        raise SlideError(_why_not(url or path.name, error)) from error


def url_scheme(url: str | None) -> str:
    """Return what an address begins with, such as ``s3``."""
    return (url or "").partition(":")[0]


def fingerprint_zarr(path: Path, group: zarr.Group, arrays: Sequence[Any]) -> str:
    """Return the fingerprint of an image: all its metadata, chunks of its coarsest level.

    The coarsest level is made from all pixels, so it tells slides apart as the whole would. A
    copy elsewhere has the same fingerprint.

    Parameters
    ----------
    path
        Where the image lies.
    group
        The image.
    arrays
        Its levels, finest first.

    Raises
    ------
    OSError
        If a server does not answer.
    """
    names = list(dict.fromkeys(_names_of_content(group, arrays)))
    url = remote_url(path)
    if url is None:
        return fingerprint_files((p for name in names if (p := path / name).is_file()), path)
    import fsspec

    system, root = fsspec.core.url_to_fs(url, **_options(url))
    root = root.rstrip("/")
    # Not `cat`, to which a bracket in a name is a pattern.
    places = [f"{root}/{name}" for name in names]
    answers = system.cat_ranges(places, None, None, on_error="return")
    contents = {}
    for name, answer in zip(names, answers, strict=True):
        if isinstance(answer, FileNotFoundError | KeyError):
            continue
        if isinstance(answer, Exception):
            raise answer
        contents[name] = BytesIO(answer)
    return fingerprint_contents(contents)


def _options(url: str) -> dict[str, Any]:
    if url_scheme(url) not in ("http", "https"):
        return {}
    import aiohttp

    # Without these a server that has gone is waited for during five minutes, for each chunk.
    timeout = aiohttp.ClientTimeout(
        total=None, sock_connect=CONNECT_SECONDS, sock_read=SILENCE_SECONDS
    )
    return {"client_kwargs": {"timeout": timeout}}


def _why_not(url: str, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return (
            f"There is no OME-Zarr image at {url}: give the address of the folder that holds "
            f"zarr.json or .zattrs (other formats have to be downloaded first)."
        )
    return f"{url} cannot be read: {brief(error)}."


def _names_of_content(group: zarr.Group, arrays: Sequence[Any]) -> Iterator[str]:
    """Yield the names under the root of what stands for the content; not all of them exist."""
    for folder in (group.path, *(array.path for array in arrays)):
        for name in (*METADATA_FILES, ".zarray"):
            yield f"{folder}/{name}".lstrip("/")
    coarsest = arrays[-1]
    pieces = coarsest.shards or coarsest.chunks
    shape = [-(-size // piece) for size, piece in zip(coarsest.shape, pieces, strict=True)]
    count = int(np.prod(shape))
    steps = min(count, MAX_FINGERPRINT_CHUNKS)
    for index in range(steps):
        position = np.unravel_index(count * index // steps, shape)
        key = coarsest.metadata.encode_chunk_key(tuple(int(n) for n in position))
        yield f"{coarsest.path}/{key}".lstrip("/")
