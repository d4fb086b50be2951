"""Annotated slides as fields: many in one source, their pixels read on the fly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from napari_histomil.annotations import raster
from napari_histomil.annotations.formats import check_slide, read_annotations
from napari_histomil.annotations.keeping import kept_regions
from napari_histomil.annotations.masks import LabelTable, MaskGrid
from napari_histomil.annotations.model import Region, SlideFrame
from napari_histomil.errors import TrainingError, listed
from napari_histomil.resources import SIDECAR_SUFFIX
from napari_histomil.slides.readers import open_slide
from napari_histomil.slides.slide import Slide
from napari_histomil.training.config import Source
from napari_histomil.training.fields import SlideField
from napari_histomil.training.labels import UNLABELLED, Labels
from napari_histomil.training.splits import connect


def read_slides(
    source: Source,
    data: Path,
    mpp: float,
    labels: Labels,
    rows: Mapping[str, Mapping[str, str]] | None = None,
) -> list[SlideField]:
    """Open the slides of a source with their annotations.

    Slides of one patient, those that `Source.groups` lists together, and the same slide under two
    names, are one group. They stay open: tiles are read when they are asked for.

    Parameters
    ----------
    source
        Of kind ``slide``.
    data
        Folder that paths are relative to.
    mpp
        µm/px of the tiles.
    labels
        What classes and background mean.
    rows
        Path, file name or stem of a slide -> ``patient``, ``slide`` and further tags.

    Raises
    ------
    TrainingError
        If there is no slide, or nothing that is annotated on one can be learnt from.
    SlideError, AnnotationError
        If a file cannot be read.
    """
    about = rows or {}
    opened = []
    for path in _paths(source, data):
        inside = path.is_relative_to(data)
        names = [str(path.relative_to(data)) if inside else "", path.name, path.stem]
        row = next((about[name] for name in names if name in about), {})
        opened.append((open_slide(path, mpp=source.mpp), row))
    together = {name: "+".join(group) for group in source.groups for name in group}
    unknown = sorted(set(together) - {slide.info.path.stem for slide, _ in opened})
    if unknown:
        raise TrainingError(f"{source.name}: groups names a slide {unknown[0]!r} that is missing.")
    keys = [
        [
            key
            for key in (row.get("patient"), row.get("slide"), together.get(slide.info.path.stem))
            if key
        ]
        + [slide.info.fingerprint[:16]]
        for slide, row in opened
    ]
    return [
        _field(source, slide, f"{source.name}/{group}", data, mpp, labels, row)
        for (slide, row), group in zip(opened, connect(keys), strict=True)
    ]


def _field(
    source: Source,
    slide: Slide,
    group: str,
    data: Path,
    mpp: float,
    labels: Labels,
    row: Mapping[str, str],
) -> SlideField:
    regions = _regions(source, data, slide)
    table = LabelTable.of_regions(regions)
    wanted = source.class_names or {name: name for name in labels.names}
    index = {theirs.casefold(): labels.of(ours) for theirs, ours in wanted.items()}
    label_of = np.full(table.unlabelled + 1, UNLABELLED, np.uint8)
    for value, kind in zip(table.values, table.classes, strict=True):
        label_of[value] = _label(kind.name, index)
    whole = bool(source.unannotated)
    label_of[table.background] = labels.of(source.unannotated) if whole else labels.background
    painting = raster.prepare(
        regions, MaskGrid.cover(slide.info, mpp), table, fully_annotated=whole, mend=True
    )
    path = slide.info.path
    tags = {"slide": path.name, **source.tags, **row}
    field = SlideField(path.name, group, source.name, slide, mpp, painting, label_of, tags)
    drawn = {kind.name for kind in table.classes}
    if not field.present:
        raise TrainingError(
            f"{path.name}: no region of {listed(sorted(wanted))}, nor Region*, was drawn on it "
            f"(there are {listed(sorted(drawn)) if drawn else 'none'}): name the classes to learn "
            f"from under class_names, or leave the slide out."
        )
    return field


def _label(name: str, index: Mapping[str, int]) -> int:
    """Return the label of a class of the annotations; of ``Tumor: Positive`` that of ``Tumor``."""
    parts = name.casefold().split(": ")
    for length in range(len(parts), 0, -1):
        label = index.get(": ".join(parts[:length]))
        if label is not None:
            return label
    return UNLABELLED


def _paths(source: Source, data: Path) -> list[Path]:
    """Return the slides of a source: those named, and those that its patterns find."""
    patterns = [p for p in (source.path, *source.slides) if p]
    found: list[Path] = []
    for pattern in patterns:
        if any(sign in pattern for sign in "*?["):
            inside = Path(pattern)
            root = Path(inside.anchor) if inside.is_absolute() else data
            own = str(inside.relative_to(inside.anchor)) if inside.is_absolute() else pattern
            paths = [p for p in sorted(root.glob(own)) if not _is_ours(p)]
            if not paths:
                raise TrainingError(f"{source.name}: no slide is found as {data / pattern}.")
            found += paths
        else:
            found.append(data / pattern)
    if not found:
        raise TrainingError(f"{source.name} names no slide: give it a path, or slides.")
    return list(dict.fromkeys(found))


def _is_ours(path: Path) -> bool:
    """Say whether a path that a pattern found is the folder of the work on a slide."""
    return path.suffix in (SIDECAR_SUFFIX, ".geojson", ".json", ".xml")


def _regions(source: Source, data: Path, slide: Slide) -> Sequence[Region]:
    info = slide.info
    if not source.annotations:
        return kept_regions(info)
    path = data / source.annotations.replace("{stem}", info.path.stem)
    file = read_annotations(path, frame=SlideFrame.of(info))
    check_slide(file, info)
    return file.regions
