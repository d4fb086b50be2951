"""Fields to train a refiner of heatmaps on: a slide from afar, its heatmap, and its labels.

The detector that a chain has first is run over each slide's tissue, as the chain runs it; what a
net gets of it in training is laid out by the same function as in a run (`inference/refining.py`).
"""

from __future__ import annotations

import dataclasses
import math
import threading
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_histomil.errors import TrainingError, listed
from napari_histomil.files import make_folder
from napari_histomil.inference.chain import heatmap
from napari_histomil.inference.engine import run
from napari_histomil.inference.job import plan_job
from napari_histomil.inference.refining import heat_channel
from napari_histomil.manifest import ModelManifest, find_model
from napari_histomil.results import RunStore
from napari_histomil.training.config import Detector
from napari_histomil.training.fields import Field, SlideField, Uint8
from napari_histomil.training.loop import TrainingCancelled, TrainingProgress


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class HeatmapField(SlideField):
    """An annotated slide as a refiner sees it: its tiles have a fourth channel."""

    heat: NDArray[np.float32] = field(repr=False)
    """[rows, columns], probabilities of the detector's cells; NaN where it did not look."""
    cell_px0: tuple[float, float]
    """(width, height) of a cell in level-0 px; the first begins at the slide's corner."""

    @property
    def fingerprint(self) -> bytes:
        """The slide's, its labels', and the heatmap."""
        return SlideField.fingerprint.fget(self) + self.heat.tobytes()  # type: ignore[attr-defined, no-any-return]

    def cut(self, xy_px: tuple[int, int], size_px: int) -> tuple[Uint8, Uint8]:
        """Return pixels [size, size, 4] and labels [size, size] of a square.

        The channels are red, green, blue, and 255 times the probability, 0 where the detector
        did not look.
        """
        image, labels = SlideField.cut(self, xy_px, size_px)
        pixel = self.painting.grid.pixel_px0
        corner = xy_px[0] * pixel[0], xy_px[1] * pixel[1]
        heat = heat_channel(self.heat, self.cell_px0, corner, pixel, (size_px, size_px))
        return np.dstack([image, heat]), labels


def find_detector(detector: Detector, data: Path) -> tuple[ModelManifest, str]:
    """Return the model that makes a refiner's heatmaps, and its class.

    Parameters
    ----------
    detector
        As the training names it.
    data
        The training's data folder, where models are looked for first.

    Raises
    ------
    ModelError
        If there is no such model.
    TrainingError
        If it does not classify tiles, or has no such class.
    """
    model = find_model(detector.model, [data])
    if model.task != "classify":
        raise TrainingError(f"{model.name} makes no heatmaps: a detector is a patch classifier.")
    chosen = detector.class_name or model.positive_class or model.class_names[-1]
    if chosen not in model.class_names:
        raise TrainingError(
            f"{chosen!r} is none of the classes of {model.name}: {', '.join(model.class_names)}."
        )
    return model, chosen


def heatmap_fields(
    fields: Sequence[Field],
    detector: ModelManifest,
    class_name: str,
    *,
    out: Path,
    device: str = "auto",
    cancel: threading.Event | None = None,
) -> Generator[TrainingProgress, None, list[Field]]:
    """Run a detector over annotated slides, and return these as a refiner sees them.

    Parameters
    ----------
    fields
        Slides with their labels, at the refiner's µm/px.
    detector, class_name
        As `find_detector` gives them.
    out
        Folder for the detector's runs: what is there already is used, or gone on with.
    device, cancel
        As of `inference.engine.run`.

    Yields
    ------
    TrainingProgress
        How far the detector is, in tiles; the loss is NaN.

    Returns
    -------
    list of Field
        `HeatmapField` of each slide (the generator's value).

    Raises
    ------
    TrainingCancelled
        If `cancel` was set; the runs go on another time.
    HistomilError
        As `run` does.
    """
    make_folder(out)
    found: list[Field] = []
    for each in _slides(fields):
        job = plan_job(each.slide.info, detector)
        store = None
        for now in run(job, out=out, device=device, cancel=cancel):
            store, stage = now.store, f"heatmap of {each.name}"
            yield TrainingProgress(stage, now.done, now.total, math.nan, now.seconds)
        assert store is not None  # a run tells at least that it began
        scores = RunStore.open(store)
        if not scores.complete:
            raise TrainingCancelled(f"The training was stopped in the heatmap of {each.name}.")
        own: dict[str, Any] = {
            f.name: getattr(each, f.name) for f in dataclasses.fields(SlideField) if f.init
        }
        heat = heatmap(scores, class_name)
        found.append(HeatmapField(**own, heat=heat, cell_px0=scores.grid.cell_size_px0))
    return found


def _slides(fields: Iterable[Field]) -> list[SlideField]:
    return [f for f in fields if isinstance(f, SlideField)]


# --- what a detector has seen -------------------------------------------------------------------


def learnt_slides(fields: Iterable[Field]) -> list[str]:
    """Return the beginning of the fingerprint of each slide: what `model.json` keeps of them."""
    return sorted({f.slide.info.fingerprint[:16] for f in _slides(fields)})


def has_seen(model: ModelManifest, slide: SlideField) -> bool | None:
    """Say whether a model has learnt from a slide, or was chosen on it; None if nobody knows.

    Models keep the slides that they learnt from. Of one that learnt from tiles or pictures it is
    not known which slides those were cut from.
    """
    training = model.training
    if slide.slide.info.fingerprint[:16] in training.get("slides", ()):
        return True
    kinds = {source.get("kind") for source in training.get("data", ())}
    known = kinds <= {"slide", "synthetic"} and ("slide" not in kinds or "slides" in training)
    return False if kinds and known else None


def describe_detector(
    model: ModelManifest, class_name: str, fields: Sequence[Field]
) -> dict[str, Any]:
    """Return what `model.json` says of a refiner's detector."""
    answers = [has_seen(model, f) for f in _slides(fields)]
    return {
        "name": model.name,
        "sha256": model.sha256,
        "class": class_name,
        "slides": {
            "learnt_from": answers.count(True),
            "not_learnt_from": answers.count(False),
            "unknown": answers.count(None),
        },
    }


def refuse_seen(model: ModelManifest, scored: Iterable[Field]) -> None:
    """Make sure that a refiner is not scored on slides that its detector has learnt from.

    Raises
    ------
    TrainingError
        If that is known of one.
    """
    seen = sorted({f.name for f in _slides(scored) if has_seen(model, f)})
    if seen:
        raise TrainingError(
            f"{model.name} has learnt from {listed(seen)}: its heatmaps are too good there, and "
            f"so would be the scores. Take another detector, or do not keep these slides for a "
            f"test, nor evaluate their source."
        )
