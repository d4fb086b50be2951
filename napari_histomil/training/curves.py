"""How a fit went, step by step: ``curves.csv``, and TensorBoard and MLflow where asked for."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from napari_histomil.errors import OutputError, TrainingError
from napari_histomil.files import whole_file
from napari_histomil.training.config import Tracking

FILE = "curves.csv"

SCORES = ("loss", "auroc", "dice", "kappa")
"""What a look at the validation gives."""

COLUMNS = ("step", "loss", "learning_rate", "seconds", *(f"validation_{name}" for name in SCORES))


class Sink(Protocol):
    """Where a row goes."""

    def add(self, row: Mapping[str, float]) -> None:
        """Take a row; what was not measured in this step is missing."""

    def flush(self) -> None:
        """Put all on the disk."""


@contextmanager
def curves(folder: Path | None, stage: str, step: int, tracking: Tracking) -> Iterator[list[Sink]]:
    """Give what takes the rows of a fit.

    Parameters
    ----------
    folder
        Where ``curves.csv`` lies; None for nowhere at all.
    stage
        Name of the run for MLflow.
    step
        Rows after this one are from a fit that was killed: they are dropped.
    tracking
        What else is asked for.

    Raises
    ------
    TrainingError
        If TensorBoard or MLflow are asked for and not installed.
    OutputError
        If the file cannot be written.
    """
    sinks: list[Sink] = []
    with ExitStack() as stack:
        if folder is not None:
            table = _Table(folder / FILE, step)
            stack.callback(table.close)
            sinks.append(table)
            if tracking.tensorboard:
                board = _tensorboard(folder, step)
                stack.callback(board.close)
                sinks.append(board)
            if tracking.mlflow:
                sinks.append(stack.enter_context(_mlflow(tracking.mlflow, stage)))
        yield sinks


def read_curves(path: Path) -> list[dict[str, float]]:
    """Read ``curves.csv``: one row a step; a validation's scores only where it took place.

    Raises
    ------
    TrainingError
        If it cannot be read.
    """
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            rows = [row for row in csv.DictReader(stream) if None not in row.values()]
        return [{k: float(v) for k, v in row.items() if v} for row in rows]
    except (OSError, ValueError, csv.Error) as error:
        raise TrainingError(f"{path} is no table of curves: {error}.") from error


class _Table:
    """``curves.csv``."""

    def __init__(self, path: Path, step: int) -> None:
        rows = read_curves(path) if step and path.exists() else []
        with whole_file(path) as part, part.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(_short(row) for row in rows if row["step"] <= step)
        try:
            self._stream = path.open("a", encoding="utf-8", newline="")
        except OSError as error:
            raise OutputError(f"{path} cannot be written: {error.strerror or error}.") from error
        self._writer = csv.DictWriter(self._stream, COLUMNS, lineterminator="\n")

    def add(self, row: Mapping[str, float]) -> None:
        self._writer.writerow(_short(row))

    def flush(self) -> None:
        self._stream.flush()

    def close(self) -> None:
        self._stream.close()


def _short(row: Mapping[str, float]) -> dict[str, str]:
    values = {name: f"{value:.6g}" for name, value in row.items()}
    return values | {"step": str(int(row["step"]))}


def _tensorboard(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise TrainingError(
            "tracking.tensorboard is asked for, and TensorBoard is not installed: install the "
            "package tensorboard, or set it to false."
        ) from error

    class Board:
        def __init__(self) -> None:
            self._writer = SummaryWriter(str(folder), purge_step=step or None)

        def add(self, row: Mapping[str, float]) -> None:
            for name, value in row.items():
                if name != "step":
                    self._writer.add_scalar(name, value, int(row["step"]))

        def flush(self) -> None:
            self._writer.flush()

        def close(self) -> None:
            self._writer.close()

    return Board()


@contextmanager
def _mlflow(address: str, stage: str) -> Iterator[Sink]:
    try:
        mlflow = import_module("mlflow")
    except ImportError as error:
        raise TrainingError(
            "tracking.mlflow is asked for, and MLflow is not installed: install the package "
            "mlflow, or leave it out."
        ) from error

    class Run:
        def add(self, row: Mapping[str, float]) -> None:
            values = {name: value for name, value in row.items() if name != "step"}
            mlflow.log_metrics(values, step=int(row["step"]))

        def flush(self) -> None:
            return None

    mlflow.set_tracking_uri(address)
    with mlflow.start_run(run_name=stage or None):
        yield Run()
