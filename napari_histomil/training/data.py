"""Labelled pixels: read folders of tiles, annotated slides and synthetic ones; split by group.

Everything becomes fields (`fields.py`). A *group* is what must not be on both sides of a split:
pieces of the same tissue, the tiles of a slide, a patient.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from napari_histomil.annotations.geojson import read_geojson
from napari_histomil.annotations.model import SlideFrame, walk
from napari_histomil.errors import TrainingError
from napari_histomil.slides.readers import open_slide
from napari_histomil.slides.synthetic import Stains, SyntheticSlide
from napari_histomil.training.config import Source, TrainingConfig
from napari_histomil.training.fields import (
    UNLABELLED,
    ArrayField,
    Field,
    SlideField,
    array_field,
)

SYNTHETIC_MPP = 0.5

PICTURES = (".jpg", ".jpeg", ".png", ".tif", ".tiff")


def read_sources(config: TrainingConfig, data: Path) -> list[Field]:
    """Read all that a training names.

    Parameters
    ----------
    config
        The training.
    data
        Folder that the sources' paths are relative to.

    Raises
    ------
    TrainingError
        If a source is missing or cannot be used; the sentence says which.
    """
    names = [c.name for c in config.classes]
    found: list[Field] = []
    for source in config.sources:
        if source.kind == "tiles":
            found += read_tiles(source, data, config.grid.mpp)
        elif source.kind == "slide":
            found.append(read_slide(source, data, config.grid.mpp, names))
        else:
            found += [
                make_synthetic(seed, source.name, config.grid.mpp, source.size_px)
                for seed in source.seeds
            ]
    if not found:
        raise TrainingError("The sources hold nothing to train on.")
    return found


def read_tiles(source: Source, data: Path, mpp: float) -> list[Field]:
    """Read a folder of pictures with masks of the same names.

    Raises
    ------
    TrainingError
        If a picture or its mask is missing or of another size, or a group names no picture.
    """
    folder = data / source.path
    pictures = {p.stem: p for p in _pictures(folder / "images")}
    masks = {p.stem: p for p in _pictures(folder / "masks")}
    if not pictures:
        raise TrainingError(f"{folder} holds no pictures in 'images': name the data's folder.")
    lonely = sorted(set(pictures) ^ set(masks))
    if lonely:
        raise TrainingError(f"{folder}: {lonely[0]} has no partner in 'images' or 'masks'.")
    group_of = {name: "+".join(group) for group in source.groups for name in group}
    unknown = sorted(set(group_of) - set(pictures))
    if unknown:
        raise TrainingError(
            f"{folder}: the group of {unknown[0]} names a picture that is missing."
        )
    found: list[Field] = []
    for name in sorted(pictures):
        image = np.asarray(Image.open(pictures[name]).convert("RGB"))
        mask = np.asarray(Image.open(masks[name]).convert("L"))
        if image.shape[:2] != mask.shape:
            raise TrainingError(f"{masks[name]} is not of the size of its picture.")
        if source.channel_order == "bgr":
            image = image[..., ::-1]
        labels = (mask > source.threshold).astype(np.uint8)
        factor = (source.mpp or mpp) / mpp
        if abs(factor - 1) > 0.05:  # nearer than that the pixels are taken as they are
            size = max(round(mask.shape[1] * factor), 1), max(round(mask.shape[0] * factor), 1)
            image = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))
            labels = np.asarray(Image.fromarray(labels).resize(size, Image.Resampling.NEAREST))
        found.append(
            array_field(
                name,
                f"{source.name}/{group_of.get(name, name)}",
                source.name,
                np.ascontiguousarray(image),
                labels,
                mirrored=True,
            )
        )
    return found


def read_slide(source: Source, data: Path, mpp: float, classes: Sequence[str]) -> SlideField:
    """Open a slide with its annotations; the slide is a group of its own.

    Raises
    ------
    TrainingError
        If a class is not one of the model's, or no region is of a class that is used.
    SlideError, AnnotationError
        If a file cannot be read.
    """
    slide = open_slide(data / source.path, mpp=source.mpp)
    read = read_geojson(data / source.annotations, frame=SlideFrame.of(slide.info))
    index = {theirs: _class_index(ours, classes) for theirs, ours in source.class_names.items()}
    shapes = []
    for region in walk(read.regions):
        value = index.get(region.class_name or "")
        if value is None or not region.is_areal:
            continue
        problem = region.problem()
        if problem:
            raise TrainingError(f"{source.annotations}: {problem}")
        shapes.append((region.geometry, value))
    if not shapes:
        raise TrainingError(
            f"{source.annotations} holds no region of {', '.join(index) or 'any class'}: "
            f"name the classes to learn from under class_names."
        )
    rest = _class_index(source.unannotated, classes) if source.unannotated else UNLABELLED
    group = f"{source.name}/{slide.info.fingerprint[:16]}"
    return SlideField(source.path, group, source.name, slide, mpp, tuple(shapes), rest)


def make_synthetic(
    seed: int, source: str, mpp: float, size_px: tuple[int, int], *, only_tissue: bool = False
) -> ArrayField:
    """Make a procedural slide (class 1 is its tumour), stained a little differently each seed.

    With `only_tissue` glass is unlabelled instead of class 0: for scores, which glass would make
    too easy.
    """
    rng = np.random.default_rng([seed, 77])
    stains = Stains(strength=float(rng.uniform(0.8, 1.25)))
    pen = ("green", "blue", "black", "")[seed % 4]
    slide = SyntheticSlide(*size_px, SYNTHETIC_MPP, seed, stains=stains, pen=pen)
    tumour, tissue = slide.truth.masks(mpp)
    image = Image.fromarray(slide.read((0, 0), size_px))
    small = image.resize((tumour.shape[1], tumour.shape[0]), Image.Resampling.BOX)
    return array_field(
        f"seed {seed}",
        f"{source}/{seed}",
        source,
        np.asarray(small),
        np.where(tissue | (not only_tissue), tumour, UNLABELLED).astype(np.uint8),
        mirrored=False,
    )


def split_groups(groups: Iterable[str], folds: int) -> list[frozenset[str]]:
    """Share groups out among folds of nearly equal size.

    The largest group goes first, each into the fold that holds least; so it depends on the
    groups alone, not on chance.

    Parameters
    ----------
    groups
        Group of each field; one that occurs n times counts n.
    folds
        How many.

    Raises
    ------
    TrainingError
        If there are fewer groups than folds.
    """
    sizes: dict[str, int] = {}
    for group in groups:
        sizes[group] = sizes.get(group, 0) + 1
    if folds < 2 or len(sizes) < folds:
        raise TrainingError(
            f"{len(sizes)} groups cannot be split into {folds} folds: two or more folds, and a "
            f"group or more for each."
        )
    parts: list[list[str]] = [[] for _ in range(folds)]
    for group in sorted(sizes, key=lambda name: (-sizes[name], name)):
        min(parts, key=lambda part: sum(sizes[g] for g in part)).append(group)
    return [frozenset(part) for part in parts]


def refuse_leakage(train: Iterable[Field], held_out: Iterable[Field]) -> None:
    """Make sure that no group is on both sides.

    Raises
    ------
    TrainingError
        If one is.
    """
    both = sorted({f.group for f in train} & {f.group for f in held_out})
    if both:
        raise TrainingError(
            f"{both[0]} is both in the training and in the test: scores would be of no value."
        )


def _pictures(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise TrainingError(f"There is no folder {folder}: name the data's folder with --data.")
    return [p for p in sorted(folder.iterdir()) if p.suffix.lower() in PICTURES]


def _class_index(name: str, classes: Sequence[str]) -> int:
    if name not in classes:
        raise TrainingError(f"{name!r} is none of the classes {', '.join(classes)}.")
    return list(classes).index(name)
