"""Bags written as CLAM and TRIDENT write them: the same folders, datasets, types and attributes.

Both know whole pixels only. What they have no place for (the exact side of a tile, µm/px, the
encoder's hash) stands in members that they do not look at.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from napari_histomil.errors import OutputError
from napari_histomil.exchange.bags import PROVENANCE
from napari_histomil.exchange.pt_files import write_tensor
from napari_histomil.files import make_folder, whole_file
from napari_histomil.results.bag import Bag, BagLevel

WHOLE = 0.02
"""A magnification this near to a whole number is that: slides have 0.499 µm/px."""

BAND_ROWS = 4096
"""Rows of features that are in memory at once."""


def write_clam(bag: Bag, folder: Path) -> list[Path]:
    """Write a bag as CLAM's tree: ``patches``, ``h5_files`` and ``pt_files``.

    =============================  ============================================================
    ``patches/<slide>.h5``         ``coords`` int64 [N, 2] with CLAM's attributes, at level 0
    ``h5_files/<slide>.h5``        ``features`` float32 [N, D], ``coords`` int32 [N, 2]
    ``pt_files/<slide>.pt``        a bare float32 tensor [N, D]
    =============================  ============================================================

    Of several magnifications each has a folder of its own, named as TRIDENT's.

    Returns
    -------
    list of Path
        The files of features, ``h5_files/<slide>.h5``.

    Raises
    ------
    OutputError
        If they cannot be written.
    """
    written = []
    for level in bag.levels:
        root = folder if len(bag.levels) == 1 else folder / _tiles_name(bag, level)
        name = Path(bag.slide.name).stem
        attributes = {
            "patch_size": round(sum(level.side_px0) / 2),
            "patch_size_exact_px0": np.array(level.side_px0),
            "patch_level": 0,
            "downsample": np.array([1.0, 1.0]),
            "downsampled_level_dim": np.array(_size(bag), np.int64),
            "level_dim": np.array(_size(bag), np.int64),
            "name": name,
            "save_path": ".",  # where CLAM had written the file; it never reads it
        }
        patches = root / "patches" / f"{name}.h5"
        with _new_hdf5(patches, 16 * len(level)) as file:
            coords = file.create_dataset(
                "coords", data=_corners(level, np.int64), chunks=(32, 2), maxshape=(None, 2)
            )
            coords.attrs.update(attributes)
            file.attrs[PROVENANCE] = _provenance(bag, level)
        path = root / "h5_files" / f"{name}.h5"
        _write_features(path, level, _corners(level, np.int32), {}, {})
        tensors = root / "pt_files" / f"{name}.pt"
        make_folder(tensors.parent)
        _check_room(tensors.parent, 4 * len(level) * level.dim)
        write_tensor(tensors, np.asarray(level.features, np.float32))
        written.append(path)
    return written


def write_trident(bag: Bag, folder: Path) -> list[Path]:
    """Write a bag as TRIDENT's tree: ``<mag>x_<px>px_<overlap>px_overlap/...``.

    ======================================  ===================================================
    ``patches/<slide>_patches.h5``          ``coords`` int64 [N, 2] with TRIDENT's attributes
    ``features_<encoder>/<slide>.h5``       ``features`` float32 [N, D] and the same ``coords``
    ======================================  ===================================================

    Magnifications are whole numbers in the attributes: 10 / (µm/px), rounded.

    Returns
    -------
    list of Path
        The files of features, a magnification each.

    Raises
    ------
    OutputError
        If they cannot be written.
    """
    written = []
    for level in bag.levels:
        root = folder / _tiles_name(bag, level)
        name = Path(bag.slide.name).stem
        patch_px, overlap_px = _tiles(bag, level)
        width, height = _size(bag)
        mpp = bag.slide.mpp_xy
        encoder = bag.encoder.name if bag.encoder is not None else "unknown"
        attributes = {
            "patch_size": patch_px,
            "patch_size_level0": round(sum(level.side_px0) / 2),
            "patch_size_exact_px0": np.array(level.side_px0),
            "level0_magnification": _magnification(mpp[0] if mpp is not None else None),
            "target_magnification": _magnification(level.mpp),
            "overlap": overlap_px,
            "name": name,
            "savetodir": ".",
            "level0_width": width,
            "level0_height": height,
        }
        corners = _corners(level, np.int64)
        with _new_hdf5(root / "patches" / f"{name}_patches.h5", 16 * len(level)) as file:
            coords = file.create_dataset("coords", data=corners, chunks=(1, 2), maxshape=(None, 2))
            coords.attrs.update(attributes)
            file.attrs[PROVENANCE] = _provenance(bag, level)
        path = root / f"features_{encoder}" / f"{name}.h5"
        facts = {"name": name, "savetodir": ".", "encoder": encoder}
        _write_features(path, level, corners, facts, attributes, _provenance(bag, level))
        written.append(path)
    return written


WRITERS = {"clam": write_clam, "trident": write_trident}
"""Whose tree -> what writes it."""


def _write_features(
    path: Path,
    level: BagLevel,
    corners: NDArray[Any],
    of_features: Mapping[str, Any],
    of_coords: Mapping[str, Any],
    provenance: str | None = None,
) -> None:
    """Write ``features`` and ``coords``, in bands: of a large bag only a part is in memory."""
    count, dim = len(level), level.dim
    with _new_hdf5(path, 4 * count * dim + corners.nbytes) as file:
        features = file.create_dataset(
            "features", (count, dim), np.float32, chunks=(1, dim), maxshape=(None, dim)
        )
        for start in range(0, count, BAND_ROWS):
            band = slice(start, min(start + BAND_ROWS, count))
            features[band] = np.asarray(level.features[band], np.float32)
        features.attrs.update(of_features)
        coords = file.create_dataset("coords", data=corners, chunks=(1, 2), maxshape=(None, 2))
        coords.attrs.update(of_coords)
        if provenance is not None:
            file.attrs[PROVENANCE] = provenance


@contextmanager
def _new_hdf5(path: Path, size: int) -> Iterator[Any]:
    """Give a new HDF5 file of about so many bytes, which is whole or not there at the end."""
    make_folder(path.parent)
    _check_room(path.parent, size)
    with whole_file(path) as part, h5py.File(part, "w") as file:
        yield file


def _check_room(folder: Path, size: int) -> None:
    """Refuse to begin what the disk will not hold: HDF5 crashes the process at its end."""
    free = shutil.disk_usage(folder).free
    if free < 1.1 * size + 2**20:
        raise OutputError(
            f"{folder} has room for {free / 1e6:.0f} MB, and the features take "
            f"{size / 1e6:.0f} MB: make room, or choose another folder."
        )


def _corners(level: BagLevel, dtype: Any) -> NDArray[Any]:
    corners: NDArray[Any] = np.rint(level.xy_px0).astype(dtype)
    return corners


def _size(bag: Bag) -> tuple[int, int]:
    if bag.slide.size_px0 is None:
        raise OutputError(f"The size of {bag.slide.name} is not known: give the slide itself.")
    return bag.slide.size_px0


def _tiles(bag: Bag, level: BagLevel) -> tuple[int, int]:
    """Return side and overlap of tiles in their own pixels."""
    if level.grid is not None:
        spec = level.grid.spec
        return spec.tile_px, spec.tile_px - spec.stride_px
    mpp, slide_mpp = level.mpp, bag.slide.mpp_xy
    px = level.side_px0[0] * slide_mpp[0] / mpp if mpp and slide_mpp else level.side_px0[0]
    return round(px), 0


def _tiles_name(bag: Bag, level: BagLevel) -> str:
    """Return TRIDENT's name of the folder; 2.5x stays that, so that no two have one name."""
    patch_px, overlap_px = _tiles(bag, level)
    exact, whole = 10 / level.mpp if level.mpp else 1.0, _magnification(level.mpp)
    shown = whole if abs(exact / whole - 1) < WHOLE else round(exact, 2)
    return f"{shown:g}x_{patch_px}px_{overlap_px}px_overlap"


def _magnification(mpp: float | None) -> int:
    return max(round(10 / mpp), 1) if mpp else 1


def _provenance(bag: Bag, level: BagLevel) -> str:
    encoder = bag.encoder
    return json.dumps(
        {
            "mpp": level.mpp,
            "slide_fingerprint": bag.slide.fingerprint,
            **(
                {"encoder": encoder.name, "encoder_sha256": encoder.sha256, "tta": encoder.tta}
                if encoder is not None
                else {}
            ),
        }
    )
