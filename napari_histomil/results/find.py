"""Where the runs of a slide are, and where the slide of a run is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from napari_histomil.errors import SlideError
from napari_histomil.files import is_there
from napari_histomil.resources import (
    SIDECAR_SUFFIX,
    note_sidecar,
    seen_sidecars,
    sidecar,
    sidecars,
)
from napari_histomil.results.features import FeatureStore
from napari_histomil.results.layout import ATTRIBUTE, task_of
from napari_histomil.results.mil import TASK as MIL_TASK
from napari_histomil.results.mil import MilRun
from napari_histomil.results.mil_layout import open_mil_run
from napari_histomil.results.segmentation import SegmentationStore
from napari_histomil.results.store import RunStore
from napari_histomil.slides.readers import open_slide
from napari_histomil.slides.slide import SlideInfo

MOST_CANDIDATES = 200
"""So many files of a folder are opened at most to see whether one of them is the slide."""


def run_path(slide_path: Path, run_id: str, *, fingerprint: str, out: Path | None = None) -> Path:
    """Return where a run of a slide is or shall be: ``<sidecar>/runs/<run_id>.zarr``.

    A run that exists in a place where the slide's work was kept before is taken there; with
    `out`, only in places under it. The id knows the slide's content: a run of that name in
    another slide's folder is this slide's from before it was renamed, which is then noted.
    """
    name = f"{run_id}.zarr"
    preferred = sidecar(slide_path, fingerprint, out=out)
    if out is None:
        places = sidecars(slide_path, fingerprint)
    else:
        places = [preferred, *sorted(out.glob(f"*{SIDECAR_SUFFIX}"))]
    for folder in places:
        if (folder / "runs" / name).is_dir():
            if folder != preferred:  # the slide was moved or renamed: where it is now counts
                note_sidecar(fingerprint, folder, slide_path)
            return folder / "runs" / name
    return preferred / "runs" / name


def find_runs(
    info: SlideInfo, out: Path | None = None, *, task: str | None = "classify"
) -> list[Path]:
    """Return the runs of a slide of one task, the one worked on last first.

    None stands for all tasks whose runs `open_run` opens: those of features and of MIL models,
    which answer for no tile, are not among them.

    A run that is damaged is among those of every task: opening it says what is the matter.
    """
    runs = {
        run
        for folder in sidecars(info.path, info.fingerprint, out=out)
        for run in (folder / "runs").glob("*.zarr")
        if (run / "zarr.json").is_file() and _slide_of(run) in (info.fingerprint, None)
        if _is_of(run, task)
    }
    return sorted(runs, key=lambda run: (run / "zarr.json").stat().st_mtime_ns, reverse=True)


def open_run(path: Path) -> RunStore | SegmentationStore:
    """Open a run for reading, whichever kind of result it holds: scores, or a picture.

    Others have functions of their own: `FeatureStore.open`, `open_mil_run`.

    Raises
    ------
    RunError
        If it cannot be opened, as `RunFolder.open`.
    """
    kind = RunStore if (path / "scores").is_dir() else SegmentationStore
    return kind.open(path)


def find_results(info: SlideInfo) -> list[Path]:
    """Return all runs of a slide that lie over it in a window, the one worked on last first."""
    runs = {*find_runs(info, task=None), *find_runs(info, task=MIL_TASK)}
    return sorted(runs, key=lambda run: (run / "zarr.json").stat().st_mtime_ns, reverse=True)


def open_result(path: Path) -> RunStore | SegmentationStore | MilRun:
    """Open a run for reading as `open_run`, or the answer of a MIL model."""
    return open_mil_run(path) if (path / "logits").is_dir() else open_run(path)


def is_run(path: Path) -> bool:
    """Return whether a Zarr folder is a run, to judge by its attributes."""
    return _slide_of(path) is not None


def find_slide(run: Path, slide_path: Path, fingerprint: str) -> Path | None:
    """Return where the slide of a run is now, or None where it is not found.

    It is looked for where it was, beside the run's sidecar, and where the index saw it last; it
    may have been renamed in any of these folders.

    Parameters
    ----------
    run
        The run's folder.
    slide_path
        Where the slide was when the run was made.
    fingerprint
        The slide's content fingerprint.
    """
    if is_there(slide_path):
        return slide_path
    tried: set[Path] = set()
    for candidate in _candidates(run, slide_path, fingerprint):
        if candidate in tried or not candidate.exists():
            continue
        tried.add(candidate)
        try:
            with open_slide(candidate) as slide:
                if slide.info.fingerprint == fingerprint:
                    return candidate
        except SlideError:
            continue  # some other file of the folder
    return None


def _candidates(run: Path, slide_path: Path, fingerprint: str) -> Iterator[Path]:
    """Yield the likely places first, then whatever has the slide's suffix in their folders."""
    beside = run.absolute().parent.parent  # <sidecar>/runs/<id>.zarr
    seen = [each.slide for each in seen_sidecars(fingerprint)]
    folders = [beside.parent, slide_path.parent, *(path.parent for path in seen)]
    yield beside.with_suffix("")
    yield beside.parent / slide_path.name
    yield from seen
    for folder in dict.fromkeys(folders):
        if folder.is_dir():
            yield from sorted(folder.glob(f"*{slide_path.suffix}"))[:MOST_CANDIDATES]


def _slide_of(run: Path) -> str | None:
    """Return the fingerprint of a run's slide; None if the run is damaged, as opening it tells."""
    try:
        return str(_attributes(run)["slide"]["fingerprint"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_of(run: Path, task: str | None) -> bool:
    found = run_task(run)
    if task is None:
        return found not in (FeatureStore.TASK, MIL_TASK)
    return found in (task, None)


def run_task(run: Path) -> str | None:
    """Return a run's task; None if the run is damaged."""
    try:
        return task_of(_attributes(run))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _attributes(run: Path) -> Any:
    document = json.loads((run / "zarr.json").read_text(encoding="utf-8"))
    return document["attributes"][ATTRIBUTE]
