"""From runs on disk to the tiles of a gallery: several slides, with what their annotations say."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from napari_histomil.annotations.model import Region, SlideFrame
from napari_histomil.annotations.recovery import FILE_NAME, JOURNAL_NAME, look
from napari_histomil.errors import RunError
from napari_histomil.resources import sidecars
from napari_histomil.results import FeatureStore, RunStore, find_runs, open_result
from napari_histomil.review.drift import MPP, TILE_PX, Look, measure_look
from napari_histomil.review.gallery import Patch
from napari_histomil.review.lesions import lesions_of
from napari_histomil.review.tile_scores import TileScores, read_tiles
from napari_histomil.review.truth import tile_truth
from napari_histomil.review.truth_sources import RegionTruth
from napari_histomil.slides.readers import open_slide
from napari_histomil.slides.slide import SlideInfo
from napari_histomil.tiling import GridSpec, TileGrid
from napari_histomil.tissue import find_tissue

TISSUE_SHARE = 0.5
"""A place of which less is tissue says nothing of how the tissue looks."""


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
    run, positive = _run_of(tiles, class_name)
    with open_slide(tiles.slide) as slide:
        regions = stored_regions(slide.info)
    truth = RegionTruth(
        regions, f"annotations of {tiles.slide.name}", fully_annotated=fully_annotated
    )
    return tiles.with_truth(tile_truth(truth, run.grid, positive).share)


def lesion_patches(tiles: Iterable[TileScores], class_name: str | None = None) -> list[Patch]:
    """Return the annotated lesions of some slides, those that the model came least near to first.

    Each is a patch as large as the lesion's bounding box, with the best score in it.

    Parameters
    ----------
    tiles
        The slides.
    class_name
        What is a lesion: a class of the annotations, capitals do not count; the model's positive
        class by default.

    Raises
    ------
    HistomilError
        If the annotations of a slide cannot be read, or hold a broken outline.
    """
    found = []
    for each in tiles:
        _, positive = _run_of(each, class_name)
        with open_slide(each.slide) as slide:
            info = slide.info
        regions = stored_regions(info)
        names = {r.class_name for r in regions if r.class_name is not None}
        for name in sorted(n for n in names if n.casefold() == positive.casefold()):
            for lesion in lesions_of(regions, name, each, info.mpp_xy):
                best = "not looked at" if math.isnan(lesion.best) else f"best {lesion.best:.3g}"
                why = f"{lesion.group}, {lesion.longest_mm:.2f} mm long, {best}"
                found.append(
                    Patch(
                        each.slide,
                        each.fingerprint,
                        lesion.xy_px0,
                        lesion.size_px0,
                        math.nan if math.isnan(lesion.best) else lesion.best,
                        1.0,
                        why,
                    )
                )
    return sorted(found, key=lambda patch: -1.0 if math.isnan(patch.score) else patch.score)


def look_at(path: Path) -> Look:
    """Return how a slide's tissue looks, with the mean of its features where some are stored.

    Raises
    ------
    SlideError
        If the slide cannot be opened or read.
    RunError
        If no tissue is found on it.
    """
    with open_slide(path) as slide:
        info = slide.info
        grid = TileGrid.cover(info, GridSpec(MPP, TILE_PX, TILE_PX))
        share = find_tissue(slide).fraction(grid.cell_rects_px0)
        rects = grid.cell_rects_px0[share >= TISSUE_SHARE]
        if not len(rects):
            raise RunError(f"No tissue is found on {path.name}: nothing of it can be compared.")
        runs = find_runs(info, task=FeatureStore.TASK)
        features = None
        if runs:
            run = FeatureStore.open(runs[0])
            features = run.read(run.known_tiles).astype(np.float32)
        return measure_look(slide, rects[:, :2] + rects[:, 2:] / 2, features=features)


def stored_regions(info: SlideInfo) -> list[Region]:
    """Return the regions that are kept for a slide; none where nothing was drawn.

    Raises
    ------
    AnnotationError, JournalError
        If they cannot be read.
    """
    for folder in sidecars(info.path, info.fingerprint):
        if (folder / FILE_NAME).is_file() or (folder / JOURNAL_NAME).is_file():
            return list(look(folder, SlideFrame.of(info)).annotations)
    return []


def _run_of(tiles: TileScores, class_name: str | None) -> tuple[RunStore, str]:
    """Return the run that tiles are from, and the class that is positive."""
    if tiles.run is None or not tiles.is_probability:
        raise RunError(
            f"The tiles of {tiles.slide.name} are not those of a patch classifier's run, which "
            f"can be held against annotations."
        )
    run = RunStore.open(tiles.run)
    return run, class_name or str(run.model.get("positive_class") or run.class_names[-1])
