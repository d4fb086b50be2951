"""Steps are the same again, whatever else the process does and how many threads it was left."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from napari_histomil.slides.threads import core_count
from napari_histomil.training.config import read_config
from napari_histomil.training.data import read_sources
from napari_histomil.training.loop import fit
from napari_histomil.training.repeatable import seeded, settle_threads, thread_count


@pytest.fixture
def threads() -> Iterator[None]:
    """Give torch its threads back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_what_the_program_draws_is_left_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with seeded(1, "cpu"):
        inside = torch.rand(3)
    assert torch.equal(torch.rand(3), expected)
    with seeded(1, "cpu"):
        assert torch.equal(torch.rand(3), inside)


def test_the_seed_is_that_of_torch() -> None:
    with seeded(3, "cpu") as own:
        drawn = torch.rand(4), torch.rand(4, generator=own)
    expected = torch.rand(4, generator=torch.Generator().manual_seed(3))
    assert torch.equal(drawn[0], expected)
    assert torch.equal(drawn[1], expected)


@pytest.mark.parametrize(("said", "count"), [("3", 3), ("4,2", 4), ("", 0), ("0", 0), ("many", 0)])
def test_threads_are_as_many_as_was_said(
    said: str, count: int, monkeypatch: pytest.MonkeyPatch, threads: None
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", said)
    assert thread_count() == (count or core_count())
    torch.set_num_threads(7)
    settle_threads()
    assert torch.get_num_threads() == thread_count()


def test_threads_left_over_from_something_else_change_no_bit(
    toy_unet: Path, threads: None
) -> None:
    config = read_config(toy_unet / "train.toml")
    fields = read_sources(config, toy_unet)
    weights = []
    for left_over in (1, 2):
        steps = fit(config, fields, seed=1)
        while True:
            torch.set_num_threads(left_over)
            try:
                next(steps)
            except StopIteration as end:
                weights.append(end.value.state_dict())
                break
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
