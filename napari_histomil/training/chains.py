"""Score a chain on annotated slides: it is run over each, and its picture is scored.

Its last model is run alone over the same tissue, and scored beside it: what the steps before cost
in Dice is told together with the tiles that they spared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from napari_histomil.errors import TrainingError
from napari_histomil.inference.engine import run
from napari_histomil.inference.job import Progress, plan_job
from napari_histomil.manifest import ModelManifest, find_steps
from napari_histomil.results import SegmentationStore
from napari_histomil.results.bands import BAND_PX
from napari_histomil.results.segmentation import from_stored
from napari_histomil.training.config import Validation
from napari_histomil.training.evaluate import Evaluation
from napari_histomil.training.fields import UNLABELLED, Field, SlideField
from napari_histomil.training.figures import rounded, summarise_pixels
from napari_histomil.training.pixels import Part, PixelAnswers, count_pixels, join_pixels
from napari_histomil.training.scores import score
from napari_histomil.training.worst import worst_sheet

COUNTED = ("detector_tiles", "tiles", "fine_tiles")
"""Of `SegmentationStore.chain`, added up over slides."""


def evaluate_chain(
    chain: ModelManifest,
    fields: Sequence[Field],
    *,
    validation: Validation,
    runs: Path,
    device: str = "auto",
    models: Sequence[Path] = (),
    tell: Callable[[str, Progress], None] = lambda what, now: None,
) -> Evaluation:
    """Run a chain over annotated slides, score its pictures, and what it spared.

    Parameters
    ----------
    chain
        The model.
    fields
        Slides with their labels, at the chain's µm/px, as `evaluate.read_data` gives them.
    validation
        ``bootstraps`` and ``objects`` count.
    runs
        Folder for the runs: what is there is used, or gone on with.
    device
        As of `inference.engine.run`.
    models
        Folders in which the chain's models are looked for first.
    tell
        Called with what is run over which slide, and how far that is.

    Raises
    ------
    ModelError
        If one of the chain's models cannot be used.
    TrainingError
        If something else than slides is given, or nothing is labelled.
    HistomilError
        As `run` does.
    """
    last = find_steps(chain, models).segment
    answers: dict[str, list[PixelAnswers]] = {chain.name: [], last.name: []}
    counts = dict.fromkeys(COUNTED, 0)
    for field in fields:
        if not isinstance(field, SlideField):
            raise TrainingError(
                f"{chain.name} is a chain, which looks at slides from afar and then closely: "
                f"{field.source} holds pictures, give it annotated slides."
            )
        for model in (chain, last):
            job = plan_job(field.slide.info, model)
            for now in run(job, out=runs, device=device, models=models):
                tell(f"{model.name} on {field.name}", now)
            store = SegmentationStore.open(now.store)
            parts = _parts(chain, store, field)
            answers[model.name].append(
                count_pixels(chain, field, parts, objects=validation.objects)
            )
            if store.chain is not None:
                counts = {key: counts[key] + store.chain[key] for key in COUNTED}
    together, alone = (join_pixels(each) for each in answers.values())
    if not together.labelled.sum():
        raise TrainingError(
            "Nothing on the slides is labelled with a class of the chain: there is nothing to "
            "score."
        )
    scores = score([together], rounds=validation.bootstraps)  # a run's probabilities are tempered
    scores["chain"] = {
        "slides": len(fields),
        **counts,
        "spared": rounded(1 - counts["fine_tiles"] / max(counts["tiles"], 1)),
        "elsewhere": chain.background_class or "none of the classes",
        "alone": {
            "model": last.name,
            "sha256": last.sha256,
            "pixels": summarise_pixels([alone], rounds=validation.bootstraps),
        },
    }
    return Evaluation(scores, worst_sheet(chain, together, fields))


def _parts(model: ModelManifest, store: SegmentationStore, field: SlideField) -> Iterator[Part]:
    """Yield what a run says of the labelled parts of a slide: background where it did not look."""
    background = [float(name == model.background_class) for name in model.class_names]
    elsewhere = np.array(background, np.float32)[:, None, None]
    width, height = field.size_px
    rows, columns = (min(a, b) for a, b in zip((height, width), store.picture.shape, strict=True))
    for top in range(0, rows, BAND_PX):
        for left in range(0, columns, BAND_PX):
            bottom, right = min(top + BAND_PX, rows), min(left + BAND_PX, columns)
            labels = field.labels_at((left, top), BAND_PX)[: bottom - top, : right - left]
            if (labels == UNLABELLED).all():
                continue
            said = from_stored(store.read(0, slice(top, bottom), slice(left, right)))
            yield (top, left), np.where(np.isnan(said), elsewhere, said), labels
