"""The truth of a stored run by file names: annotations, a mask, another run, what was drawn here.

The run knows its slide well enough (size, µm/px, fingerprint), so the slide itself is not opened:
stored results are judged wherever they lie.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from napari_histomil.annotations.formats import check_slide, read_annotations
from napari_histomil.annotations.keeping import kept_regions
from napari_histomil.annotations.mask_reading import open_mask
from napari_histomil.annotations.model import SlideFrame
from napari_histomil.errors import AnnotationError, RunError, listed
from napari_histomil.geometry import Rect
from napari_histomil.results import MilRun, RunStore, SegmentationStore, open_run
from napari_histomil.review.truth import Truth
from napari_histomil.review.truth_sources import MaskTruth, RegionTruth, RunTruth
from napari_histomil.slides.slide import SlideInfo

AnyRun = RunStore | SegmentationStore

DRAWN_HERE = "drawn here"
"""Stands for the annotations that were drawn in this program and lie beside the slide."""

COLUMNS = ("run", "other", "annotations", "mask", "truth_run", "label", "patient")
"""Of a table of runs; ``other`` is a second model's run of the same slide."""


@dataclass(frozen=True, slots=True)
class Case:
    """One slide's run, and where its truth is."""

    run: Path
    other: Path | None = None
    """A second model's run of the same slide."""
    annotations: str = ""
    """A file of regions, or `DRAWN_HERE`."""
    mask: str = ""
    truth_run: str = ""
    label: str = ""
    """The slide's class, where somebody knows it."""
    patient: str = ""
    """Whose slide it is; the slide's own name where nobody says it."""


def read_cases(path: Path) -> list[Case]:
    """Read a table of runs: CSV with a header of `COLUMNS`, ``run`` at least, and a line a slide.

    Paths are relative to the table.

    Raises
    ------
    RunError
        If it cannot be read, has other columns, or names a run twice.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, ValueError, csv.Error) as error:
        raise RunError(f"{path} cannot be read as a table (CSV): {error}.") from error
    if not rows or "run" not in rows[0]:
        raise RunError(
            f"{path} names no run: it needs a header with the column 'run' and a line a slide."
        )
    strange = [str(name) for name in rows[0] if name not in COLUMNS]
    if strange:
        raise RunError(
            f"{path} has the column {listed(strange)}, and a table of runs has {listed(COLUMNS)}."
        )
    cases = [_case(row, path, number) for number, row in enumerate(rows, 2)]
    twice = [str(run) for run, times in Counter(c.run for c in cases).items() if times > 1]
    if twice:
        raise RunError(f"{path} names the run {twice[0]} twice: one line a slide.")
    return cases


def _case(row: dict[str, str], path: Path, number: int) -> Case:
    if None in row or None in row.values():
        raise RunError(f"{path}, line {number}, has not as many fields as the header.")
    said = {name: value.strip() for name, value in row.items()}
    if not said["run"]:
        raise RunError(f"{path}, line {number}, names no run.")
    near = {
        name: str(path.parent / said[name])
        for name in ("annotations", "mask", "truth_run")
        if said.get(name) and said[name] != DRAWN_HERE
    }
    return Case(
        run=path.parent / said["run"],
        other=path.parent / said["other"] if said.get("other") else None,
        label=said.get("label", ""),
        patient=said.get("patient", ""),
        **{"annotations": said.get("annotations", ""), **near},
    )


def slide_of(run: AnyRun | MilRun) -> SlideInfo:
    """Return what a run knows of its slide, as if it were open.

    Raises
    ------
    RunError
        If it does not know enough, as of a bag without its slide.
    """
    slide = run.slide
    try:
        mpp_x, mpp_y = (float(v) for v in slide["mpp_xy"])
        bounds = slide.get("bounds_px0")
        return SlideInfo(
            path=Path(str(slide.get("path") or slide["name"])),
            reader="",
            vendor="",
            width_px0=int(slide["width_px0"]),
            height_px0=int(slide["height_px0"]),
            mpp_x=mpp_x,
            mpp_y=mpp_y,
            mpp_source="file",
            objective_power=None,
            levels=(),
            channels=(),
            dtype="uint8",
            composite="",
            bounds_px0=None if bounds is None else Rect(*bounds),
            associated_images=(),
            properties={},
            fingerprint=str(slide["fingerprint"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(
            f"The run {run.path.name} does not know the size of its slide: it cannot be judged by "
            f"annotations."
        ) from error


@contextmanager
def open_truth(
    case: Case,
    run: AnyRun,
    *,
    positive: str,
    fully_annotated: bool = False,
    values: dict[int, str] | None = None,
) -> Iterator[Truth | None]:
    """Open what is true of the tiles and pixels of a run; None where only its label is known.

    Parameters
    ----------
    case
        Where the truth is.
    run
        The run of the case.
    positive
        Class that counts as positive: of another run, what its truth is about.
    fully_annotated
        Whether the person declares that the whole slide was annotated.
    values
        Of a mask that does not say it: value -> class.

    Raises
    ------
    AnnotationError, RunError
        If it cannot be read, is of another slide, or nothing was judged.
    """
    info = slide_of(run)
    if case.annotations:
        yield _regions(case.annotations, info, fully_annotated)
    elif case.mask:
        with open_mask(Path(case.mask), info) as mask:
            yield MaskTruth(mask, values, fully_annotated)
    elif case.truth_run:
        other = open_run(Path(case.truth_run))
        check_same_slide(run, other)
        name = next(
            (n for n in other.class_names if n.casefold() == positive.casefold()), positive
        )
        yield RunTruth(other, name)
    else:
        yield None


def check_same_slide(run: AnyRun | MilRun, other: AnyRun | MilRun) -> None:
    """Refuse two runs of different slides; raises `RunError`."""
    if run.slide.get("fingerprint") != other.slide.get("fingerprint"):
        raise RunError(
            f"{run.path.name} is of the slide {run.slide.get('name')}, and {other.path.name} of "
            f"{other.slide.get('name')}: compare runs of one slide."
        )


def _regions(source: str, info: SlideInfo, fully_annotated: bool) -> RegionTruth:
    if source == DRAWN_HERE:
        found = kept_regions(info)
        if not found:
            raise AnnotationError(
                f"Nothing is drawn on {info.path.name}: annotate it, or name a file of "
                f"annotations."
            )
        return RegionTruth(found, "what was drawn here", fully_annotated)
    path = Path(source)
    file = read_annotations(path, frame=SlideFrame.of(info))
    check_slide(file, info)
    return RegionTruth(file.regions, path.name, fully_annotated)
