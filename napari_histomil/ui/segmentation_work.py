"""What is done with a whole segmentation beside the window: regions, exact areas, files.

Everything here runs in the thread of a job (`jobs.py`) and knows neither Qt nor napari. What is in
view is painted elsewhere (`segmentation_picture.py`), with the same steps.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from napari_histomil.annotations.classes import ClassSet, classes_of
from napari_histomil.annotations.collection import Command
from napari_histomil.annotations.geojson import write_geojson
from napari_histomil.annotations.mask_files import check_mask_format, write_mask
from napari_histomil.annotations.model import AnnotationClass
from napari_histomil.annotations.shapes import Shift
from napari_histomil.annotations.steps import settled
from napari_histomil.exchange.facts import frame_of
from napari_histomil.exchange.labels import (
    Steps,
    Turn,
    class_areas_mm2,
    label_bands,
    label_facts,
    outline_bands,
    regions_of,
)
from napari_histomil.exchange.probabilities import write_probabilities
from napari_histomil.results import SegmentationStore
from napari_histomil.slides.slide import Slide
from napari_histomil.tissue import find_tissue
from napari_histomil.ui.segmentation_view import Facts
from napari_histomil.ui.words import regions_text

Result = TypeVar("Result")


class Stopped(Exception):
    """The person has cancelled."""


def stoppable(
    work: Callable[[Turn], Result],
) -> Callable[[threading.Event], Generator[None, None, Result | None]]:
    """Return a function for `jobs.start`: the result of some work, or None if it was cancelled."""

    def generate(cancel: threading.Event) -> Generator[None, None, Result | None]:
        yield from ()

        def turn() -> None:
            if cancel.is_set():
                raise Stopped

        try:
            return work(turn)
        except Stopped:
            return None

    return generate


@dataclass(frozen=True, slots=True)
class Taken:
    """Regions that are ready to come into the annotations."""

    command: Command
    """One step, with settled shapes."""
    classes: tuple[AnnotationClass, ...]


def take_regions(
    store: SegmentationStore,
    steps: Steps,
    names: tuple[str, ...],
    shift: Shift,
    classes: ClassSet,
    turn: Turn,
) -> Taken:
    """Return the step that takes the objects over as regions, with the model as author.

    Parameters
    ----------
    store, steps, names, turn
        As in `regions_of`.
    shift
        Origin of the frame in which the annotations are kept.
    classes
        Those one annotates with: a model's ``tumor`` is the person's ``Tumor``.
    """
    here = {each.name.casefold(): each for each in classes.classes}
    regions = []
    for region in regions_of(store, steps, names, turn=turn):
        same = here.get(str(region.class_name).casefold(), region.classification)
        regions.append(replace(region, classification=same))
    text = f"take {regions_text(len(regions))} of {store.model['name']} over"
    command = Command(text, added={region.id: region for region in regions})
    return Taken(settled(command, shift), classes_of(regions))


def exact_facts(store: SegmentationStore, steps: Steps, turn: Turn) -> Facts:
    """Return the areas on the finest level after all steps; where objects overlap, of each."""
    areas, looked_at = class_areas_mm2(store, steps, store.class_names, turn=turn)
    if steps.on_outlines:
        pixel_mm2 = store.slide["mpp_xy"][0] * store.slide["mpp_xy"][1] / 1e6
        areas = dict.fromkeys(areas, 0.0)
        for region in regions_of(store, steps, store.class_names, turn=turn):
            areas[str(region.class_name)] += float(region.geometry.area * pixel_mm2)
    return Facts(areas, looked_at, exact=True, done_tiles=int(store.done_tiles.sum()))


def tissue_mm2(slide: Slide) -> float:
    """Return how much tissue a slide has, mm²."""
    return find_tissue(slide).area_um2(slide.info.mpp_xy) / 1e6


def write(
    store: SegmentationStore,
    path: Path,
    kind: str,
    steps: Steps,
    names: tuple[str, ...],
    turn: Turn,
) -> str:
    """Write a segmentation for another program, all or nothing; returns what was written.

    Parameters
    ----------
    store, steps, names, turn
        As in `regions_of`; probabilities are written as they are, whatever the steps.
    path
        Its end says in which format.
    kind
        ``regions``, ``labels``, ``outlines`` or ``probability``.

    Raises
    ------
    RunError, AnnotationError, OutputError
        If the format does not fit, or the file cannot be written.
    """
    if kind == "probability":
        write_probabilities(store, path, names, turn=turn)
        return f"The probabilities of {', '.join(names)} are in {path.name}."
    if kind == "regions":
        regions = regions_of(store, steps, names, turn=turn)
        write_geojson(path, regions, frame=frame_of(store))
        return f"{regions_text(len(regions))} written to {path.name}."
    facts = label_facts(store, names)
    check_mask_format(path, facts)
    bands = label_bands(store, steps, names, turn=turn)
    write_mask(path, outline_bands(bands, facts.table) if kind == "outlines" else bands, facts)
    values: dict[int, Any] = dict(sorted(facts.table.names.items()))
    told = ", ".join(f"{value} {name}" for value, name in values.items())
    return f"{kind.capitalize()} written to {path.name}: {told}."
