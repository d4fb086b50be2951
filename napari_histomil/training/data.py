"""Labelled pixels: read folders of tiles, annotated slides and synthetic ones; split by group.

A *field* is a connected piece of tissue with its labels, at the model's µm/px. Training tiles are
cut from fields at any place, on the fly. A *group* is what must not be on both sides of a split:
pieces of the same tissue, the tiles of a slide, a patient.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import shapely
from numpy.typing import NDArray
from PIL import Image

from napari_histomil.annotations.geojson import read_geojson
from napari_histomil.annotations.model import SlideFrame, walk
from napari_histomil.errors import TrainingError
from napari_histomil.slides.readers import open_slide
from napari_histomil.slides.slide import Slide, read_tile
from napari_histomil.slides.synthetic import Stains, SyntheticSlide
from napari_histomil.training.config import Source, TrainingConfig

UNLABELLED = 255
"""Label of pixels that nobody has judged: they are not learnt from."""

SYNTHETIC_MPP = 0.5

PICTURES = (".jpg", ".jpeg", ".png", ".tif", ".tiff")

Uint8 = NDArray[np.uint8]


class Field(Protocol):
    """A piece of tissue that tiles are cut from."""

    @property
    def name(self) -> str:
        """What messages call it."""

    @property
    def group(self) -> str:
        """What it belongs to."""

    @property
    def source(self) -> str:
        """Name of its source."""

    @property
    def size_px(self) -> tuple[int, int]:
        """(width, height) at the model's µm/px."""

    def cut(self, xy_px: tuple[int, int], size_px: int) -> tuple[Uint8, Uint8]:
        """Return pixels [size, size, 3] and labels [size, size] from a corner (x, y) on.

        The square may reach beyond the field.
        """

    def centre(self, rng: np.random.Generator) -> tuple[int, int]:
        """Return a random place (x, y) to cut a training tile around."""


@dataclass(frozen=True, slots=True, eq=False)
class ArrayField:
    """A field in memory. Beyond its edge the tissue is mirrored, or there is glass."""

    name: str
    group: str
    source: str
    image: Uint8
    """[h, w, 3]"""
    labels: Uint8
    """[h, w], index of the class or `UNLABELLED`."""
    mirrored: bool
    """True for a piece cut out of tissue; False for a whole slide, which ends in glass."""
    foreground: NDArray[np.int64]
    """[n, 2] places (x, y) of other classes than the first; half of the training tiles of a
    whole slide are cut around one of them, because most of a slide is background."""

    @property
    def size_px(self) -> tuple[int, int]:
        """(width, height)."""
        return self.image.shape[1], self.image.shape[0]

    def cut(self, xy_px: tuple[int, int], size_px: int) -> tuple[Uint8, Uint8]:
        """Return pixels and labels of a square."""
        height, width = self.labels.shape
        x = np.arange(xy_px[0], xy_px[0] + size_px)
        y = np.arange(xy_px[1], xy_px[1] + size_px)
        inner_x, inner_y = _mirror(x, width), _mirror(y, height)
        image = self.image[inner_y[:, None], inner_x[None, :]]
        labels = self.labels[inner_y[:, None], inner_x[None, :]]
        if not self.mirrored:
            outside = (y != inner_y)[:, None] | (x != inner_x)[None, :]
            image[outside], labels[outside] = 255, 0
        return image, labels

    def centre(self, rng: np.random.Generator) -> tuple[int, int]:
        """Return a random place; on a whole slide every other one in the foreground."""
        if not self.mirrored and len(self.foreground) and rng.random() < 0.5:
            x, y = self.foreground[rng.integers(len(self.foreground))]
            return int(x), int(y)
        width, height = self.size_px
        return int(rng.integers(width)), int(rng.integers(height))


def array_field(
    name: str, group: str, source: str, image: Uint8, labels: Uint8, *, mirrored: bool
) -> ArrayField:
    """Return a field of pixels [h, w, 3] and labels [h, w] in memory."""
    y, x = np.nonzero((labels > 0) & (labels != UNLABELLED))
    return ArrayField(name, group, source, image, labels, mirrored, np.stack([x, y], axis=1))


@dataclass(frozen=True, slots=True, eq=False)
class SlideField:
    """An annotated slide; pixels are read when they are asked for."""

    name: str
    group: str
    source: str
    slide: Slide
    mpp: float
    shapes: tuple[tuple[shapely.Geometry, int], ...]
    """Polygons in level-0 px with the index of their class; later ones lie above."""
    unannotated: int
    """Label of what no polygon covers."""

    @property
    def size_px(self) -> tuple[int, int]:
        """(width, height) at the model's µm/px."""
        info = self.slide.info
        mpp_x, mpp_y = info.mpp_xy
        return (
            max(round(info.width_px0 * mpp_x / self.mpp), 1),
            max(round(info.height_px0 * mpp_y / self.mpp), 1),
        )

    def cut(self, xy_px: tuple[int, int], size_px: int) -> tuple[Uint8, Uint8]:
        """Return pixels and labels of a square; a pixel is what its centre is."""
        mpp_x, mpp_y = self.slide.info.mpp_xy
        step = self.mpp / mpp_x, self.mpp / mpp_y  # level-0 px per px
        corner = xy_px[0] * step[0], xy_px[1] * step[1]
        image = read_tile(self.slide, corner, size_px, self.mpp)
        labels = np.full((size_px, size_px), self.unannotated, np.uint8)
        x = corner[0] + (np.arange(size_px) + 0.5) * step[0]
        y = corner[1] + (np.arange(size_px) + 0.5) * step[1]
        for shape, value in self.shapes:
            left, top, right, bottom = shape.bounds
            columns, rows = _between(x, left, right), _between(y, top, bottom)
            if columns.start < columns.stop and rows.start < rows.stop:
                inside = shapely.contains_xy(shape, x[None, columns], y[rows, None])
                labels[rows, columns][inside] = value
        return image, labels

    def centre(self, rng: np.random.Generator) -> tuple[int, int]:
        """Return a random place in a random polygon; anywhere every other time if all counts."""
        width, height = self.size_px
        if not self.shapes or (self.unannotated != UNLABELLED and rng.random() < 0.5):
            return int(rng.integers(width)), int(rng.integers(height))
        shape, _ = self.shapes[rng.integers(len(self.shapes))]
        left, top, right, bottom = shape.bounds
        mpp_x, mpp_y = self.slide.info.mpp_xy
        for _ in range(100):  # a polygon fills a fair part of its box, as a rule
            x, y = rng.uniform(left, right), rng.uniform(top, bottom)
            if shapely.contains_xy(shape, x, y):
                break
        return int(x * mpp_x / self.mpp), int(y * mpp_y / self.mpp)


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


def cut_around(
    fields: Sequence[Field], shares: Mapping[str, float], size_px: int, rng: np.random.Generator
) -> tuple[Uint8, Uint8]:
    """Cut a random square: the source by its share, then any of its fields, then a place."""
    present = sorted({f.source for f in fields if shares[f.source] > 0})
    weights = np.array([shares[name] for name in present])
    source = present[rng.choice(len(present), p=weights / weights.sum())]
    own = [f for f in fields if f.source == source]
    chosen = own[rng.integers(len(own))]
    x, y = chosen.centre(rng)
    return chosen.cut((x - size_px // 2, y - size_px // 2), size_px)


def _mirror(index: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Reflect indices at both ends (the edge pixel is not doubled)."""
    if size == 1:
        return np.zeros_like(index)
    period = 2 * (size - 1)
    folded = np.mod(index, period)
    return np.where(folded >= size, period - folded, folded)


def _between(values: NDArray[np.floating], low: float, high: float) -> slice:
    """Return which of the ascending values lie in low to high."""
    return slice(int(np.searchsorted(values, low)), int(np.searchsorted(values, high, "right")))


def _pictures(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise TrainingError(f"There is no folder {folder}: name the data's folder with --data.")
    return [p for p in sorted(folder.iterdir()) if p.suffix.lower() in PICTURES]


def _class_index(name: str, classes: Sequence[str]) -> int:
    if name not in classes:
        raise TrainingError(f"{name!r} is none of the classes {', '.join(classes)}.")
    return list(classes).index(name)
