"""Fingerprints: of the content, not of the name; quick on large files."""

from __future__ import annotations

from pathlib import Path

import pytest

from napari_histomil.slides.identity import (
    EDGE_BYTES,
    fingerprint_file,
    fingerprint_files,
    fingerprint_text,
)


def test_the_name_does_not_matter(tmp_path: Path):
    one, two = tmp_path / "one.svs", tmp_path / "zwei ü.tif"
    one.write_bytes(b"tissue" * 1000)
    two.write_bytes(b"tissue" * 1000)
    assert fingerprint_file(one) == fingerprint_file(two)


@pytest.mark.parametrize("at", [0, 3 << 20, 6 << 20])
def test_small_files_are_hashed_whole(tmp_path: Path, at: int):
    path = tmp_path / "a"
    content = bytearray(2 * EDGE_BYTES)
    at = min(at, len(content) - 1)
    path.write_bytes(content)
    before = fingerprint_file(path)
    content[at] = 1
    path.write_bytes(content)
    assert fingerprint_file(path) != before


def test_large_files_are_sampled(tmp_path: Path):
    """Sparse on disk: what matters is how much is read."""
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(8 << 30)
    before = fingerprint_file(path)
    for position in (5, (8 << 30) - 5, (8 << 30) - EDGE_BYTES + 5):
        with path.open("r+b") as file:
            file.seek(position)
            file.write(b"x")
        after = fingerprint_file(path)
        assert after != before
        before = after
    with path.open("ab") as file:
        file.truncate((8 << 30) + 1)
    assert fingerprint_file(path) != before


def test_of_several_files_names_and_contents_count(tmp_path: Path):
    for folder in ("a", "b", "c", "d"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x").write_bytes(b"1")
        (tmp_path / folder / "y").write_bytes(b"2")
    (tmp_path / "c" / "y").write_bytes(b"3")
    (tmp_path / "d" / "y").rename(tmp_path / "d" / "z")
    prints = [
        fingerprint_files((tmp_path / folder).iterdir(), tmp_path / folder) for folder in "abcd"
    ]
    assert prints[0] == prints[1]
    assert len(set(prints)) == 3


def test_of_words():
    assert fingerprint_text("dicom", "ab") != fingerprint_text("dicoma", "b")
