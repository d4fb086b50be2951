"""Fields to train a refiner of heatmaps on: a slide from afar, its heatmap, and its labels.

The detector that a chain has first is run over the whole slide, as the chain runs it; what a net
gets of it in training is laid out by the same function as in a run (`inference/refining.py`).
"""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np

from napari_histomil.errors import TrainingError
from napari_histomil.inference.chain import heatmap
from napari_histomil.inference.engine import run
from napari_histomil.inference.job import RegionSpec, plan_job
from napari_histomil.inference.refining import heat_channel
from napari_histomil.manifest import ModelManifest
from napari_histomil.results import RunStore
from napari_histomil.slides.slide import SlideInfo
from napari_histomil.training.fields import UNLABELLED, ArrayField, Field, array_field


def heatmap_field(
    field: Field,
    info: SlideInfo,
    detector: ModelManifest,
    *,
    class_name: str,
    mpp: float,
    border_px: int,
    region: RegionSpec | None = None,
    out: Path | None = None,
    device: str = "auto",
    cancel: threading.Event | None = None,
) -> ArrayField:
    """Return an annotated slide as a refiner sees it.

    Parameters
    ----------
    field
        The whole slide with its labels, at the refiner's µm/px.
    info
        The slide's facts.
    detector
        The patch classifier; it has not seen this slide, or the refiner learns to trust it.
    class_name
        Whose probability the heatmap holds.
    mpp
        The refiner's µm/px.
    border_px
        So much glass around the slide, half a tile of the refiner: there runs have glass too.
    region
        Where the detector looks; tissue by default.
    out
        Folder for its run, which is used again where it is there; None for beside the slide.
    device, cancel
        As of `inference.engine.run`.

    Returns
    -------
    ArrayField
        Pixels uint8 [h, w, 4]: red, green, blue, and 255 times the probability, 0 where the
        detector did not look. The border is not labelled.

    Raises
    ------
    HistomilError
        As `run` does.
    TrainingError
        If the detector has no such class, or was cancelled.
    """
    if class_name not in detector.class_names:
        raise TrainingError(
            f"{class_name!r} is none of the classes of {detector.name}: "
            f"{', '.join(detector.class_names)}."
        )
    job = plan_job(info, detector, region=region)
    *_, last = run(job, out=out, device=device, cancel=cancel)  # tells at least that it began
    scores = RunStore.open(last.store)
    if not scores.complete:
        raise TrainingError(f"The heatmap of {info.path.name} was cancelled.")
    width, height = field.size_px
    image, labels = field.cut((0, 0), max(width, height))
    heat = heat_channel(
        heatmap(scores, class_name),
        scores.grid.cell_size_px0,
        (0.0, 0.0),
        (mpp / info.mpp_xy[0], mpp / info.mpp_xy[1]),
        (height, width),
    )
    around = ((border_px, border_px), (border_px, border_px))
    rgb = np.pad(image[:height, :width], (*around, (0, 0)), constant_values=255)
    return array_field(
        field.name,
        field.group,
        field.source,
        np.concatenate([rgb, np.pad(heat, around)[..., None]], axis=2),
        np.pad(labels[:height, :width], around, constant_values=UNLABELLED),
        mirrored=True,
    )
