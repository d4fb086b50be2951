"""Slides damaged at random, but always in the same way; `fuzzing.py` goes on for longer.

Every one is read or refused with one sentence, in bounded time and memory, and nothing crashes.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.slides.fuzz_sources import REAL, TIFFS, damaged_copy, make_sources
from tests.slides.fuzzing import Reader, damage, structure

EXAMPLES = 12
"""Of each source."""

MADE = (*(f"tiff-{name}" for name in TIFFS), "tiff-motorola", "tiff-palette", "tiff-float",
        "tiff-bilevel", "tiff-imagej", "tiff-twelve-bits", "tiff-ome", "zarr2", "zarr3",
        "zarr-shards", "zarr-collection", "leica", "philips", "trestle", "ventana",
        "ndpi-colours", "mirax")  # fmt: skip


@pytest.fixture(scope="module")
def reader() -> Iterator[Reader]:
    """A process that reads, shared by the tests of this file."""
    reader = Reader()
    yield reader
    reader.close()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_sources(tmp_path_factory.mktemp("fuzz") / "sound", None)


def slide_of(source: Path) -> Path:
    """Return the file to open of what lies in several."""
    return next(source.glob("*.mrxs"), source) if source.is_dir() else source


def look_at_damaged(source: Path, folder: Path, reader: Reader) -> None:
    """Damage a slide in many ways and let it be read."""

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=(Phase.explicit, Phase.generate),  # what is found is looked into by hand
        suppress_health_check=list(HealthCheck),
    )
    @given(st.integers(0, 2**32))
    def look(seed: int) -> None:
        path = damaged_copy(source, folder, random.Random(seed))
        answer = reader.look(path)
        assert answer.good, f"seed {seed}: {answer.outcome}: {answer.said}"

    look()


@pytest.mark.parametrize("name", MADE)
def test_damaged_slides(made: dict[str, Path], tmp_path: Path, reader: Reader, name: str) -> None:
    assert reader.look(slide_of(made[name])).outcome == "read", "the sound one"
    look_at_damaged(made[name], tmp_path / "hurt", reader)


def test_every_made_source_is_damaged(made: dict[str, Path]) -> None:
    assert set(made) == set(MADE)


@pytest.mark.parametrize("name", REAL)
def test_damaged_real_slides(data_dir: Path, tmp_path: Path, reader: Reader, name: str) -> None:
    look_at_damaged(data_dir / REAL[name], tmp_path / "hurt", reader)


def test_damage_is_done(made: dict[str, Path]) -> None:
    """Else nothing is tested: nearly every case differs from the sound file, and is the same
    for the same seed."""
    data = made["tiff-jpeg"].read_bytes()
    parts = structure(data)
    assert parts is not None
    assert len(parts.links) == 4, "three directories, and where the first is"
    hurt = [damage(data, parts, random.Random(seed)) for seed in range(200)]
    assert sum(one != data for one in hurt) > 150
    assert hurt == [damage(data, parts, random.Random(seed)) for seed in range(200)]


def test_the_reader_notices_a_crash_and_a_hang(
    tmp_path: Path, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.slides.fuzzing.CASE_SECONDS", 0.5)
    assert reader.look(Path("<crash>")).outcome == "crash"
    assert reader.look(Path("<hang>")).outcome == "hang"
    monkeypatch.undo()
    answer = reader.look(Path("<memory>"))
    assert (answer.outcome, "MB of memory" in answer.said) == ("bad", True)
