from __future__ import annotations

import itertools
import re

import pytest
import torch

from napari_histomil.errors import RunError
from napari_histomil.inference import devices
from napari_histomil.inference.devices import (
    core_count,
    describe_device,
    is_out_of_memory,
    resolve_device,
)


def test_auto_takes_the_best_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(devices, "_has_mps", lambda: False)
    assert resolve_device("auto").type == "cpu"
    monkeypatch.setattr(devices, "_has_mps", lambda: True)
    assert resolve_device("auto").type == "mps"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert resolve_device("auto").type == "cuda"


@pytest.mark.parametrize("name", ["abacus", "cuda:7", "xla"])
def test_a_device_that_is_not_there_is_told(name: str) -> None:
    with pytest.raises(RunError, match=f"{name}"):
        resolve_device(name)


def test_the_cpu_has_a_name() -> None:
    name = describe_device("cpu")
    assert re.fullmatch(rf".+, {core_count()} cores? \(cpu\)", name)


def test_a_device_is_tested_by_computing(monkeypatch: pytest.MonkeyPatch) -> None:
    sentence = devices.test_device("cpu")
    assert re.fullmatch(r".+ works: [\d,]+ GFLOP/s in a small convolution\.", sentence)
    wrong = itertools.count()
    monkeypatch.setattr(torch.nn.functional, "conv2d", lambda x, w, padding: x + next(wrong))
    with pytest.raises(RunError, match="computes wrong numbers"):
        devices.test_device("cpu")


def test_a_device_that_fails_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no kernel image is available\nmore")

    monkeypatch.setattr(torch.nn.functional, "conv2d", fail)
    with pytest.raises(RunError, match="does not work: no kernel image is available; choose"):
        devices.test_device("cpu")


def test_only_memory_is_memory() -> None:
    assert is_out_of_memory(torch.OutOfMemoryError("x"))
    assert not is_out_of_memory(RuntimeError("x"))
    assert not is_out_of_memory(ValueError("out of memory"))
