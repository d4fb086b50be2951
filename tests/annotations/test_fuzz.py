"""Annotation files damaged at random, but always in the same way; `fuzzing.py` goes on for longer.

Every one is read, and can be written and read again, or is refused with one sentence.
"""

from __future__ import annotations

import random

import pytest

from tests.annotations.fuzzing import damaged, look, real_sources, sources

EXAMPLES = 90
"""Of each source."""


@pytest.mark.parametrize(
    "name", ["geojson", "asap", "imagescope", "halo", "dsa", "dsa-others", "wsinfer"]
)
def test_damaged_files(tmp_path, name):
    sound = sources(tmp_path)[name]
    assert look(tmp_path / "a.bin", sound) == "read", "the sound one"
    for seed in range(EXAMPLES):
        look(tmp_path / "a.bin", damaged(sound, random.Random(seed)))


def test_damaged_real_files(data_dir, tmp_path):
    for name, sound in real_sources(data_dir).items():
        assert look(tmp_path / "a.bin", sound) == ("refused" if "darwin" in name else "read")
        for seed in range(EXAMPLES // 5):
            look(tmp_path / "a.bin", damaged(sound, random.Random(seed)))
