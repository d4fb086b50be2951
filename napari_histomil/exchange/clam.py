"""Tiles and scores as CLAM's patch files: HDF5 with ``coords`` and its attributes.

CLAM takes the side of a patch as ``patch_size * downsample`` of a stored level. A tile of ours is
defined in µm, and its side at level 0 is seldom a whole number of pixels: it is rounded, and the
attribute ``patch_size_exact_px0`` (a member that CLAM does not look at) holds what was rounded.
"""

from __future__ import annotations

import io
import json
from pathlib import Path

import h5py
import numpy as np

from napari_histomil.exchange.facts import footprints, provenance
from napari_histomil.files import whole_file
from napari_histomil.results import RunStore


def write_h5(run: RunStore, path: Path) -> int:
    """Write ``coords`` as CLAM's fast pipeline does, and ``scores`` beside it.

    ============  ==================================================================
    ``coords``    int64 [M, 2], x and y of a tile's footprint in level-0 pixels,
                  rounded, uncropped, with CLAM's attributes; ``patch_level`` is 0
                  and ``downsample`` 1, so ``patch_size`` is the side at level 0
                  (of a slide with two resolutions: the mean of both sides)
    ``scores``    float32 [M, C], attribute ``class_names`` (C texts)
    attributes    ``run`` (JSON: run, slide, model, µm/px) of the file itself
    ============  ==================================================================

    Returns
    -------
    int
        Number of tiles.

    Raises
    ------
    OutputError
        If the file cannot be written there.
    """
    boxes, scores = footprints(run)
    width, height = run.grid.tile_size_px0
    level_dim = np.array(run.grid.slide_size_px0, np.int64)
    # HDF5 crashes the process at its end when the disk is full, so it writes to memory
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        coords = file.create_dataset(
            "coords", data=boxes[:, :2], chunks=(32, 2), maxshape=(None, 2)
        )
        coords.attrs["patch_size"] = round((width + height) / 2)
        coords.attrs["patch_size_exact_px0"] = np.array([width, height])
        coords.attrs["patch_level"] = 0
        coords.attrs["downsample"] = np.array([1.0, 1.0])
        coords.attrs["downsampled_level_dim"] = level_dim
        coords.attrs["level_dim"] = level_dim
        coords.attrs["name"] = Path(str(run.slide["name"])).stem
        coords.attrs["save_path"] = "."  # where CLAM had written the file; it never reads it
        dataset = file.create_dataset("scores", data=scores, maxshape=(None, scores.shape[1]))
        dataset.attrs["class_names"] = list(run.class_names)
        file.attrs["run"] = json.dumps(provenance(run))
    with whole_file(path) as part:
        part.write_bytes(content.getbuffer())
    return len(boxes)
