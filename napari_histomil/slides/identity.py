"""What a slide's content is called: a fingerprint that stays when the file is moved or renamed.

It must be quick on files of gigabytes, so it does not read everything. Two slides get the same
fingerprint only if they have the same size and agree in every sampled block; a change of single
pixels between the blocks goes unnoticed. It tells slides apart, it does not prove integrity.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

EDGE_BYTES = 1 << 20
"""Read whole at both ends, where headers, directories and small levels lie."""
SAMPLES = 32
SAMPLE_BYTES = 1 << 14


def fingerprint_file(path: Path) -> str:
    """Return 64 hexadecimal digits: sha256 of the size, both ends and evenly spread samples.

    Files up to 2 MiB and a bit are hashed whole.
    """
    digest = hashlib.sha256(b"histomil file 1\0")
    _add_file(digest, path)
    return digest.hexdigest()


def fingerprint_files(paths: Iterable[Path], root: Path) -> str:
    """Return the fingerprint of several files: each one's name under `root`, size and samples."""
    digest = hashlib.sha256(b"histomil files 1\0")
    for name, path in sorted((path.relative_to(root).as_posix(), path) for path in paths):
        digest.update(name.encode() + b"\0")
        _add_file(digest, path)
    return digest.hexdigest()


def fingerprint_contents(contents: Mapping[str, BinaryIO]) -> str:
    """Return what `fingerprint_files` would of files with these names and this content."""
    digest = hashlib.sha256(b"histomil files 1\0")
    for name in sorted(contents):
        digest.update(name.encode() + b"\0")
        _add_content(digest, contents[name])
    return digest.hexdigest()


def fingerprint_text(*parts: str) -> str:
    """Return the fingerprint of a slide that its library identifies by words."""
    return hashlib.sha256("\0".join(("histomil text 1", *parts)).encode()).hexdigest()


def dicom_fingerprint(series: str, sizes: Sequence[tuple[int, int]]) -> str:
    """Return the fingerprint of a DICOM slide: any file of it, and any reader, gives the same.

    Parameters
    ----------
    series
        SeriesInstanceUID, which no other slide has.
    sizes
        (width, height) of each level.
    """
    hashed = hashlib.sha256(series.encode() + b"\0").hexdigest()  # OpenSlide's "quickhash-1"
    return fingerprint_text("dicom", hashed, repr(tuple(sizes)))


def _add_file(digest: hashlib._Hash, path: Path) -> None:
    with path.open("rb") as file:
        _add_content(digest, file)


def _add_content(digest: hashlib._Hash, file: BinaryIO) -> None:
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    digest.update(f"{size}\0".encode())
    if size <= 2 * EDGE_BYTES + SAMPLES * SAMPLE_BYTES:
        while block := file.read(EDGE_BYTES):
            digest.update(block)
        return
    digest.update(file.read(EDGE_BYTES))
    span = size - 2 * EDGE_BYTES - SAMPLE_BYTES
    for index in range(SAMPLES):
        file.seek(EDGE_BYTES + span * index // (SAMPLES - 1))
        digest.update(file.read(SAMPLE_BYTES))
    file.seek(size - EDGE_BYTES)
    digest.update(file.read(EDGE_BYTES))
