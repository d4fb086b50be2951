"""From runs on disk to the tiles of a gallery: several slides, with what their annotations say."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from napari_histomil.annotations.model import SlideFrame
from napari_histomil.annotations.recovery import FILE_NAME, JOURNAL_NAME, look
from napari_histomil.errors import RunError
from napari_histomil.resources import sidecars
from napari_histomil.results import RunStore, find_runs, open_result
from napari_histomil.review.tile_scores import TileScores, read_tiles
from napari_histomil.review.truth import tile_truth
from napari_histomil.review.truth_sources import RegionTruth
from napari_histomil.slides.readers import open_slide
from napari_histomil.slides.slide import SlideInfo


def runs_of_model(infos: Iterable[SlideInfo], sha256: str, *, task: str) -> list[Path]:
    """Return the newest run of a model over each slide that has one."""
    found = []
    for info in infos:
        for path in find_runs(info, task=task):
            if open_result(path).model.get("sha256") == sha256:
                found.append(path)
                break
    return found


def gather(
    runs: Iterable[Path],
    class_name: str | None = None,
    *,
    annotated: bool = False,
    fully_annotated: bool = False,
) -> Iterator[TileScores]:
    """Yield the tiles of each run, with the truth of its slide's annotations if it is asked for.

    Parameters
    ----------
    runs
        Folders of runs, one a slide.
    class_name
        As of `scores_of_run`.
    annotated
        Whether the slides' annotations are their truth, inside ``Region*``.
    fully_annotated
        Whether the person says that all of each slide was annotated.

    Raises
    ------
    HistomilError
        If a run, its slide, or its annotations cannot be used.
    """
    for path in runs:
        tiles = read_tiles(path, class_name)
        yield (
            with_annotations(tiles, class_name, fully_annotated=fully_annotated)
            if annotated and tiles.is_probability
            else tiles
        )


def with_annotations(
    tiles: TileScores, class_name: str | None = None, *, fully_annotated: bool = False
) -> TileScores:
    """Return tiles with the share of each that the slide's annotations have as positive.

    Raises
    ------
    AnnotationError
        If nobody has said where the slide was annotated.
    RunError
        If the tiles are of no run on disk.
    """
    if tiles.run is None:
        raise RunError(
            f"The tiles of {tiles.slide.name} are of no run: give their truth yourself."
        )
    run = RunStore.open(tiles.run)
    positive = class_name or str(run.model.get("positive_class") or run.class_names[-1])
    with open_slide(tiles.slide) as slide:
        info = slide.info
    frame = SlideFrame.of(info)
    folders = [
        each
        for each in sidecars(info.path, info.fingerprint)
        if (each / FILE_NAME).is_file() or (each / JOURNAL_NAME).is_file()
    ]
    regions = list(look(folders[0], frame).annotations) if folders else []
    truth = RegionTruth(
        regions, f"annotations of {tiles.slide.name}", fully_annotated=fully_annotated
    )
    return tiles.with_truth(tile_truth(truth, run.grid, positive).share)
