"""Tiles to train on: pictures, masks of the same size and names, and a table of them.

The folder is the one that training reads (``images/`` and ``masks/``), with two files beside::

    OUT/images/<slide>_<x>_<y>.png   RGB
    OUT/masks/<slide>_<x>_<y>.png    values of the classes, as in other masks
    OUT/manifest.csv                 one line a tile: slide, patient, split, corner, shares
    OUT/classes.json                 what the values mean

It is written whole or not at all. The split is made of groups, patients or slides, never of
tiles: what comes from one patient is never on both sides.
"""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from napari_histomil.annotations.masks import LabelImage, LabelTable, MaskGrid
from napari_histomil.annotations.model import Region
from napari_histomil.annotations.raster import Painting, Priority, prepare, window
from napari_histomil.errors import AnnotationError
from napari_histomil.files import whole_folder
from napari_histomil.slides.slide import Slide, read_rect
from napari_histomil.slides.threads import core_count
from napari_histomil.slides.tiles import TiledSlide
from napari_histomil.tiling import GridSpec, TileGrid

MANIFEST = "manifest.csv"
CLASSES = "classes.json"

AT_ONCE = 64
"""Tiles that are in memory together."""


@dataclass(frozen=True, slots=True)
class AnnotatedSlide:
    """One slide of the set."""

    slide: Slide
    regions: tuple[Region, ...]
    name: str
    """Of the tiles' files; no two slides share it."""
    patient: str
    split: str


@dataclass(frozen=True, slots=True)
class TileOptions:
    """Which tiles are made."""

    spec: GridSpec
    table: LabelTable
    min_labelled: float = 0.5
    """Share of a tile's pixels that must be background or one of the classes, above 0."""
    fully_annotated: bool = False
    priority: Priority = "drawn"
    mend: bool = False


@dataclass(frozen=True, slots=True)
class TileProgress:
    """How far the work is."""

    slide: str
    done: int
    total: int
    """Places of this slide that are looked at."""
    written: int
    """Tiles of all slides so far."""


def split_groups(
    groups: Iterable[str], shares: Mapping[str, float], seed: int = 0
) -> dict[str, str]:
    """Put every group into one split, by chance.

    Parameters
    ----------
    groups
        Names of patients or slides; their order does not matter.
    shares
        Wanted share of the groups in each split, ``{"train": 0.8, "val": 0.2}``; any numbers
        above 0, they are taken relative to their sum.
    seed
        The same seed gives the same split.

    Returns
    -------
    dict
        Group -> split. Every split gets at least one.

    Raises
    ------
    AnnotationError
        If there are fewer groups than splits, or a share is not above 0.
    """
    names = sorted(set(groups))
    if not shares or not all(0 < share < float("inf") for share in shares.values()):
        raise AnnotationError("The share of every split must be above 0, as in train=0.8,val=0.2.")
    if len(names) < len(shares):
        raise AnnotationError(
            f"{len(names)} patients or slides cannot be put into {len(shares)} splits: add more, "
            f"or name fewer splits."
        )
    wanted = np.array(list(shares.values()))
    wanted = wanted / wanted.sum() * len(names)
    counts = np.maximum(np.floor(wanted), 1).astype(int)
    while counts.sum() != len(names):  # what rounding left over goes where most is missing
        step = 1 if counts.sum() < len(names) else -1
        lack = (wanted - counts) * step
        counts[int(np.argmax(np.where((counts > 1) | (step > 0), lack, -np.inf)))] += step
    order = np.random.default_rng(seed).permutation(len(names))
    splits = np.repeat(list(shares), counts)
    return {names[i]: str(split) for i, split in zip(order, splits, strict=True)}


def write_tiles(
    out: Path, slides: Sequence[AnnotatedSlide], options: TileOptions
) -> Iterator[TileProgress]:
    """Write the tiles of slides, and yield how far it is.

    Parameters
    ----------
    out
        Folder that is made; one of earlier tiles is replaced.
    slides
        Opened; they stay open.
    options
        Which tiles.

    Raises
    ------
    AnnotationError
        If a shape is broken, two slides have the same name, a patient is on both sides of the
        split, or no tile is labelled enough.
    SlideError
        If a slide cannot be read.
    OutputError
        If the folder cannot be written.
    """
    _check(slides, options)
    meanings = options.table.names
    written = 0
    with whole_folder(out, MANIFEST) as part:
        for kind in ("images", "masks"):
            (part / kind).mkdir(parents=True)
        with (part / MANIFEST).open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file)
            head = ("tile", "slide", "patient", "split", "x_px0", "y_px0", "mpp", "tile_px")
            table.writerow([*head, *(f"share {name}" for name in meanings.values())])
            for one in slides:
                for done, total, rows in _tiles_of(one, options, part):
                    table.writerows(rows)
                    written += len(rows)
                    yield TileProgress(one.name, done, total, written)
        if not written:
            raise AnnotationError(
                f"No tile is labelled to {options.min_labelled:.0%} or more: take smaller tiles "
                f"or a smaller share, mark what is annotated with Region*, or say that the "
                f"slides are fully annotated."
            )
        (part / CLASSES).write_text(_classes_text(options), encoding="utf-8")


def _check(slides: Sequence[AnnotatedSlide], options: TileOptions) -> None:
    if not 0 < options.min_labelled <= 1:
        raise AnnotationError(
            f"The labelled share of a tile must be above 0 and at most 1, not "
            f"{options.min_labelled:g}."
        )
    names = [one.name for one in slides]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise AnnotationError(f"Two slides are called {twice[0]}: tiles need a name for each.")
    side: dict[str, str] = {}
    for one in slides:
        if side.setdefault(one.patient, one.split) != one.split:
            raise AnnotationError(
                f"The patient {one.patient} is in {side[one.patient]} and in {one.split}: nobody "
                f"may be on both sides of a split."
            )


def _tiles_of(
    one: AnnotatedSlide, options: TileOptions, folder: Path
) -> Iterator[tuple[int, int, list[list[object]]]]:
    """Write the tiles of a slide; yield places done, places in all, and lines of the table."""
    info, spec = one.slide.info, options.spec
    grid = TileGrid.cover(info, spec)
    pixels = MaskGrid.cover(info, spec.mpp)
    painting = prepare(
        one.regions,
        pixels,
        options.table,
        priority=options.priority,
        fully_annotated=options.fully_annotated,
        mend=options.mend,
    )
    if isinstance(one.slide, TiledSlide):
        one.slide.expect_walk()
    rects = grid.tile_rects_px0

    def save(job: tuple[int, LabelImage]) -> list[object]:
        index, mask = job
        x, y, width, height = rects[index].tolist()
        name = f"{one.name}_{round(x)}_{round(y)}.png"
        picture = read_rect(one.slide, (x, y), (width, height), (spec.tile_px, spec.tile_px))
        Image.fromarray(picture).save(folder / "images" / name, compress_level=1)
        Image.fromarray(mask).save(folder / "masks" / name, compress_level=1)
        shares = [round(float((mask == value).mean()), 6) for value in options.table.names]
        facts = [name, info.path.name, one.patient, one.split, round(x, 3), round(y, 3)]
        return [*facts, spec.mpp, spec.tile_px, *shares]

    with ThreadPoolExecutor(core_count()) as pool:
        for start in range(0, len(grid), AT_ONCE):
            places = range(start, min(start + AT_ONCE, len(grid)))
            # In one thread: rasterio silences its own warnings, which is not safe in several.
            masks = [(i, _mask_at(painting, one, rects[i, :2], spec.tile_px)) for i in places]
            jobs = [
                (index, mask)
                for index, mask in masks
                if (mask != options.table.unlabelled).mean() >= options.min_labelled
            ]
            yield places.stop, len(grid), list(pool.map(save, jobs))


def _mask_at(
    painting: Painting, one: AnnotatedSlide, xy_px0: NDArray[np.float64], tile_px: int
) -> LabelImage:
    """Return the mask of a tile; what lies outside the slide is unlabelled."""
    info, pixel = one.slide.info, painting.grid.pixel_px0
    xy = float(xy_px0[0]) / pixel[0], float(xy_px0[1]) / pixel[1]
    mask = window(painting, xy, (tile_px, tile_px))
    for axis, size_px0 in ((1, info.width_px0), (0, info.height_px0)):
        centers = (np.arange(tile_px) + 0.5 + xy[1 - axis]) * pixel[1 - axis]
        outside = (centers < 0) | (centers >= size_px0)
        mask[(slice(None), outside) if axis else outside] = painting.table.unlabelled
    return mask


def _classes_text(options: TileOptions) -> str:
    table = options.table
    classes = [
        {"value": value, "name": kind.name, "color": list(kind.color)}
        for value, kind in zip(table.values, table.classes, strict=True)
    ]
    facts = {
        "mpp": options.spec.mpp,
        "tile_px": options.spec.tile_px,
        "stride_px": options.spec.stride_px,
        "background": table.background,
        "unlabelled": table.unlabelled,
        "classes": classes,
    }
    return json.dumps(facts, ensure_ascii=False, indent=1) + "\n"


def unique_names(paths: Sequence[Path]) -> list[str]:
    """Return a name for the tiles of each slide: the file's, numbered where it occurs twice."""
    counts: dict[str, Iterator[int]] = {}
    stems = [path.name.partition(".")[0] or path.name for path in paths]
    names = []
    for stem in stems:
        number = next(counts.setdefault(stem, itertools.count(1)))
        names.append(stem if number == 1 else f"{stem}-{number}")
    return names
