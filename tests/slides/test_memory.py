from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from napari_histomil.slides import memory
from napari_histomil.slides.cache import shared_cache


def test_the_machines_memory_is_what_psutil_says() -> None:
    total = psutil.virtual_memory().total
    assert memory._physical_bytes() == pytest.approx(total, rel=0.01)
    assert 0 < memory.machine_memory_bytes() <= memory._physical_bytes()


@pytest.mark.parametrize(
    ("machine", "budget"),
    [(64 << 30, 2 << 30), (8 << 30, 2 << 30), (4 << 30, 1 << 30), (100 << 20, 64 << 20)],
)
def test_a_quarter_of_the_machine_and_at_most_two_gigabytes(
    monkeypatch: pytest.MonkeyPatch, machine: int, budget: int
) -> None:
    monkeypatch.setattr(memory, "_physical_bytes", lambda: machine)
    monkeypatch.setattr(memory, "_CGROUP_LIMITS", ())
    assert memory.automatic_budget_bytes() == budget


@pytest.mark.parametrize(("text", "machine"), [("1073741824\n", 1 << 30), ("max\n", 8 << 30)])
def test_a_containers_limit_counts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, machine: int
) -> None:
    (tmp_path / "memory.max").write_text(text)
    monkeypatch.setattr(memory, "_physical_bytes", lambda: 8 << 30)
    monkeypatch.setattr(memory, "_CGROUP_LIMITS", (tmp_path / "memory.max", tmp_path / "none"))
    assert memory.machine_memory_bytes() == machine


def test_a_machine_that_does_not_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_physical_bytes", lambda: 0)
    monkeypatch.setattr(memory, "_CGROUP_LIMITS", ())
    assert memory.machine_memory_bytes() == memory.ASSUMED_BYTES


def test_the_shared_cache_has_the_automatic_budget() -> None:
    shared_cache.cache_clear()
    assert shared_cache().budget_bytes == memory.automatic_budget_bytes()
