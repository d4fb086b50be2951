"""Curves: a row a step, whole after a kill; other programs get the same numbers."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from napari_histomil.errors import TrainingError
from napari_histomil.training.config import Tracking
from napari_histomil.training.curves import FILE, curves, read_curves

ROW = {"step": 1234567, "loss": 0.25, "learning_rate": 1e-3, "seconds": 2.0}


def test_rows_after_the_checkpoint_are_dropped(tmp_path: Path) -> None:
    with curves(tmp_path, "s", 0, Tracking()) as (table,):
        for step in range(1, 6):
            table.add({**ROW, "step": step})
    with (tmp_path / FILE).open("a", encoding="utf-8") as stream:
        stream.write("6,0.")  # killed while it was written
    with curves(tmp_path, "s", 3, Tracking()) as (table,):
        table.add({**ROW, "step": 4, "validation_dice": 0.5})
    rows = read_curves(tmp_path / FILE)
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert "validation_dice" not in rows[0]
    assert rows[3]["validation_dice"] == 0.5
    with pytest.raises(TrainingError, match="is no table of curves"):
        read_curves(tmp_path / "nothing.csv")


def test_steps_are_whole_numbers_and_no_folder_means_no_file(tmp_path: Path) -> None:
    with curves(tmp_path, "s", 0, Tracking()) as (table,):
        table.add(ROW)
    assert "1234567,0.25,0.001,2," in (tmp_path / FILE).read_text(encoding="utf-8")
    with curves(None, "s", 0, Tracking()) as sinks:
        assert sinks == []


def test_tensorboard_and_mlflow_get_the_same_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[object, ...]] = []

    class Writer:
        def __init__(self, folder: str, purge_step: int | None) -> None:
            told.append((folder, purge_step))

        def add_scalar(self, name: str, value: float, step: int) -> None:
            told.append((name, value, step))

        def flush(self) -> None:
            told.append(("flush",))

        def close(self) -> None:
            told.append(("close",))

    server = SimpleNamespace(
        set_tracking_uri=lambda address: told.append((address,)),
        start_run=lambda run_name: nullcontext(told.append((run_name,))),
        log_metrics=lambda values, step: told.append((dict(values), step)),
    )
    board = SimpleNamespace(SummaryWriter=Writer)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", board)
    monkeypatch.setitem(sys.modules, "mlflow", server)
    with curves(tmp_path, "fold 1", 0, Tracking(True, "runs")) as sinks:
        for sink in sinks:
            sink.add(ROW)
            sink.flush()
    assert (str(tmp_path), None) in told
    assert ("loss", 0.25, 1234567) in told
    assert ("runs",) in told
    assert ("fold 1",) in told
    assert ({"loss": 0.25, "learning_rate": 1e-3, "seconds": 2.0}, 1234567) in told
    assert told[-1] == ("close",)
