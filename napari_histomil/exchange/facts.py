"""What every export takes from a run: footprints with scores, the slide's frame, the origin."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_histomil.annotations.model import SlideFrame
from napari_histomil.errors import RunError
from napari_histomil.results import MilRun, RunStore, SegmentationStore

AnyRun = RunStore | SegmentationStore


def footprints(run: RunStore) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return what is known so far: footprints and scores of the tiles that have scores.

    Positions and sizes are whole level-0 pixels, because the files of others hold whole ones:
    each corner is rounded on its own, so it is at most half a pixel off, however far from the
    slide's corner.

    Returns
    -------
    boxes
        int64 [M, 4]: x, y, width, height in level-0 pixels.
    scores
        float32 [M, C]
    """
    scores = run.scores
    known = ~np.isnan(scores).any(axis=1)
    size = np.rint(run.grid.tile_size_px0).astype(np.int64)
    corners = run.grid.xy_px0[known]
    return np.column_stack([corners, np.broadcast_to(size, corners.shape)]), scores[known]


def frame_of(run: AnyRun | MilRun) -> SlideFrame:
    """Return QuPath's frame of the slide that a run looked at."""
    slide = run.slide
    x, y, *_ = slide.get("bounds_px0") or (0.0, 0.0)
    return SlideFrame((float(x), float(y)), str(slide["name"]), str(slide["fingerprint"]))


def identity(run: AnyRun | MilRun) -> dict[str, Any]:
    """Return which run it is, of which slide by which model."""
    return {
        "run": run.run_id,
        "slide": run.slide["name"],
        "slide_fingerprint": run.slide["fingerprint"],
        "model": run.model["name"],
        "model_sha256": run.model["sha256"],
    }


def locked_tile(
    key: str, box: tuple[float, float, float, float], measurements: Mapping[str, np.floating[Any]]
) -> dict[str, Any]:
    """Return a tile as QuPath's GeoJSON has it, locked, as WSInfer writes them.

    Parameters
    ----------
    key
        Names the tile among all of all runs: the same again gives the same id.
    box
        (x0, y0, x1, y1), corners in QuPath's frame.
    measurements
        Name -> value; written as the shortest decimal number that is the same value again.
    """
    x0, y0, x1, y1 = box
    digest = hashlib.sha256(key.encode()).digest()
    ring = [[x1, y0], [x1, y1], [x0, y1], [x0, y0], [x1, y0]]
    return {
        "type": "Feature",
        "id": str(uuid.UUID(bytes=digest[:16], version=4)),
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {
            "isLocked": True,
            "measurements": {name: float(str(value)) for name, value in measurements.items()},
            "objectType": "tile",
        },
    }


def provenance(run: AnyRun) -> dict[str, Any]:
    """Return what made a result in a few plain values, for files with room for a text."""
    return {
        **identity(run),
        "mpp": run.grid.spec.mpp,
        "tile_px": run.grid.spec.tile_px,
        "stride_px": run.grid.spec.stride_px,
        "slide_mpp_xy": list(run.grid.slide_mpp),
        "complete": run.complete,
    }


def class_column(run: AnyRun, name: str) -> int:
    """Return the column of a class in the scores.

    Raises
    ------
    RunError
        If the run has no class of that name.
    """
    if name not in run.class_names:
        raise RunError(
            f"The run {run.path.name} has no class '{name}': choose one of "
            f"{', '.join(run.class_names)}."
        )
    return run.class_names.index(name)


def default_class(run: AnyRun) -> str:
    """Return the class that is shown first: the model's positive class, else its last."""
    return str(run.model.get("positive_class") or run.class_names[-1])


def ome_metadata(run: AnyRun, names: Sequence[str], pixel_um: float) -> dict[str, Any]:
    """Return OME's members of an image of a run, a channel a class, for tifffile."""
    return {
        "axes": "CYX",
        # The same for the same content; tifffile's own would hold the time and this machine.
        "UUID": str(uuid.uuid5(uuid.NAMESPACE_OID, f"{run.run_id}/{'/'.join(names)}")),
        "Channel": {"Name": list(names)},
        "PhysicalSizeX": pixel_um,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": pixel_um,
        "PhysicalSizeYUnit": "µm",
        "Description": json.dumps(provenance(run)),
    }
