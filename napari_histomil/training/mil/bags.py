"""The bags of a table, opened: read as they are asked for, kept in memory where they fit.

A file needs no coordinates here (``features`` or ``feats`` [N, D], in HDF5 or of torch): training
does not ask where an instance lies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_histomil.errors import HistomilError, TrainingError, brief
from napari_histomil.exchange.pt_files import read_tensors
from napari_histomil.nets.mil.model import Bag as NetBag
from napari_histomil.results import FeatureStore
from napari_histomil.results.bag import bag_of_runs
from napari_histomil.slides.memory import machine_memory_bytes
from napari_histomil.training.mil.table import Case

FEATURES = ("features", "feats")
MEMORY_SHARE = 0.25
"""Bags that together take less of the machine's memory stay in it."""


@dataclass(frozen=True, slots=True)
class Scaling:
    """Each value of a feature minus its mean, divided by its standard deviation."""

    mean: Tensor
    std: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class BagData:
    """The bags of all cases.

    Raises
    ------
    TrainingError
        When made by `open_bags`: if a bag cannot be read, or they do not have the same width and
        magnifications.
    """

    cases: tuple[Case, ...]
    dim: int
    magnifications: int
    arrays: Mapping[str, tuple[Any, ...]] = field(repr=False)
    """Name of the case -> features of each magnification, the lowest first."""
    scaling: Scaling | None = None

    def read(self, case: Case, device: str = "cpu") -> NetBag:
        """Return the bag of a case as the nets take it, scaled."""
        levels = [_tensor(a) for a in self.arrays[case.name]]
        if self.scaling is not None:
            levels = [(x - self.scaling.mean) / self.scaling.std for x in levels]
        levels = [x.to(device) for x in levels]
        return levels[0] if self.magnifications == 1 else levels

    def scaled(self, cases: Sequence[Case]) -> BagData:
        """Return the same bags, to be scaled by what the instances of some cases have."""
        return replace(self, scaling=scaling_of(self, cases))


def open_bags(cases: Sequence[Case]) -> BagData:
    """Open the files of features of all cases.

    Raises
    ------
    TrainingError
        See `BagData`.
    """
    arrays = {c.name: _as_nested(c.bags, tuple(map(_open, c.bags))) for c in cases}
    shapes = {n: (len(a), a[0].shape[1]) for n, a in arrays.items()}
    first = cases[0].name
    for name, shape in shapes.items():
        if shape != shapes[first]:
            raise TrainingError(
                f"{name} has {shape[0]} magnifications of {shape[1]} values a tile, and {first} "
                f"has {shapes[first][0]} of {shapes[first][1]}: all bags must be by one encoder "
                f"at the same magnifications."
            )
        if not all(len(a) for a in arrays[name]):
            raise TrainingError(f"{name} holds no tile: leave it out of the table.")
    total = sum(4 * a.shape[0] * a.shape[1] for levels in arrays.values() for a in levels)
    if total < MEMORY_SHARE * machine_memory_bytes():
        arrays = {n: tuple(_tensor(a) for a in levels) for n, levels in arrays.items()}
    magnifications, dim = shapes[first]
    return BagData(tuple(cases), dim, magnifications, arrays)


def scaling_of(data: BagData, cases: Sequence[Case]) -> Scaling:
    """Return mean and standard deviation [D] over all instances of some cases."""
    count, total, squares = 0, torch.zeros(data.dim).double(), torch.zeros(data.dim).double()
    for case in cases:
        for array in data.arrays[case.name]:
            values = _tensor(array).double()
            count, total = count + len(values), total + values.sum(0)
            squares = squares + (values**2).sum(0)
    mean = total / count
    std = (squares / count - mean**2).clamp(min=0).sqrt()
    std[std < 1e-9 * (1 + mean.abs())] = 1.0  # a constant tells nothing, whatever it is divided by
    return Scaling(mean.float(), std.float())


def _open(path: Path) -> Any:
    """Return the features of a file, or run, as an array that is read as it is asked for."""
    try:
        if path.is_dir():
            return FeatureStore.open(path)
        if path.suffix.lower() == ".pt":
            return _checked(path, read_tensors(path))
        with h5py.File(path) as file:
            held = {n: file[n] for n in FEATURES if isinstance(file.get(n), h5py.Dataset)}
            stored = _checked(path, held)
            return _File(path, stored.name, stored.shape)
    except HistomilError:
        raise
    except (OSError, ValueError) as error:
        raise TrainingError(f"{path} cannot be read as a bag: {brief(error)}.") from error


def _checked(path: Path, held: Mapping[str, Any]) -> Any:
    """Return the features among what a file holds."""
    name = next((n for n in FEATURES if n in held), None)
    if name is None:
        raise TrainingError(f"{path} holds no {' or '.join(FEATURES)}: it is no bag.")
    shape = held[name].shape
    if len(shape) != 2:
        raise TrainingError(f"{path} has features of the shape {shape}, and a bag has [N, D].")
    return held[name]


def _as_nested(paths: Sequence[Path], opened: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return features; of runs those of the bag that they are together."""
    if not any(isinstance(one, FeatureStore) for one in opened):
        return opened
    if not all(isinstance(one, FeatureStore) for one in opened):
        raise TrainingError(f"{paths[0]}: a bag is either of files or of runs, not of both.")
    return tuple(level.features for level in bag_of_runs(opened).levels)


@dataclass(frozen=True, slots=True)
class _File:
    """Features in an HDF5 file."""

    path: Path
    name: str
    shape: tuple[int, int]

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        with h5py.File(self.path) as file:
            return np.asarray(file[self.name][:], dtype)


def _tensor(array: Any) -> Tensor:
    if isinstance(array, Tensor):
        return array
    return torch.from_numpy(np.asarray(array, np.float32))
