"""Labelled pixels: read folders of tiles, of pictures by class, and synthetic slides.

Everything becomes fields (`fields.py`). A *group* is what must not be on both sides of a split:
pieces of the same tissue, the tiles of a slide, a patient (`splits.py`). Annotated slides are in
`slide_data.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from napari_histomil.errors import TrainingError, brief
from napari_histomil.slides.synthetic import Stains, SyntheticSlide
from napari_histomil.training.config import Source, TrainingConfig
from napari_histomil.training.fields import ArrayField, Field, array_field
from napari_histomil.training.labels import TWO, UNLABELLED, Labels
from napari_histomil.training.slide_data import read_slides
from napari_histomil.training.splits import connect, connect_sources
from napari_histomil.training.tables import Row, as_written, read_rows

SYNTHETIC_MPP = 0.5

PICTURES = (".jpg", ".jpeg", ".png", ".tif", ".tiff")


def read_sources(config: TrainingConfig, data: Path) -> list[Field]:
    """Read all that a training names; what two sources share is one group.

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
    mpp, labels = config.grid.mpp, config.labels
    found: list[Field] = []
    for source in config.sources:
        if source.kind == "tiles":
            found += read_tiles(source, data, mpp, labels)
        elif source.kind == "folders":
            found += read_folders(source, data, mpp, labels)
        elif source.kind == "slide":
            found += read_slides(source, data, mpp, labels, read_rows(source, data))
        else:
            found += [
                make_synthetic(seed, source.name, mpp, source.size_px, labels=labels)
                for seed in source.seeds
            ]
    if not found:
        raise TrainingError("The sources hold nothing to train on.")
    return connect_sources(found)


def read_tiles(source: Source, data: Path, mpp: float, labels: Labels = TWO) -> list[ArrayField]:
    """Read a folder of pictures with masks of the same names.

    Raises
    ------
    TrainingError
        If a picture or its mask is missing or of another size, or a group names no picture.
    """
    folder = data / source.path
    source = as_written(source, data, labels)
    pictures = {p.stem: p for p in _pictures(folder / "images")}
    masks = {p.stem: p for p in _pictures(folder / "masks")}
    if not pictures:
        raise TrainingError(f"{folder} holds no pictures in 'images': name the data's folder.")
    lonely = sorted(set(pictures) ^ set(masks))
    if lonely:
        raise TrainingError(f"{folder}: {lonely[0]} has no partner in 'images' or 'masks'.")
    names = sorted(pictures)
    rows = _rows_of(source, data, {name: (name, pictures[name].name) for name in names})
    groups = _groups(source, folder, names, rows)
    return [
        _tile(source, name, pictures[name], masks[name], groups[name], rows[name], mpp, labels)
        for name in names
    ]


def _tile(
    source: Source,
    name: str,
    picture: Path,
    mask: Path,
    group: str,
    row: Row,
    mpp: float,
    labels: Labels,
) -> ArrayField:
    image = _pixels(picture, source)
    values = np.asarray(_opened(mask, "L" if not source.values else None))
    if values.ndim != 2 or image.shape[:2] != values.shape:
        raise TrainingError(f"{mask} is not a mask (one channel) of the size of its picture.")
    index = _labels_of(values, source, mask, labels)
    factor = (source.mpp or mpp) / mpp
    if abs(factor - 1) > 0.05:  # nearer than that the pixels are taken as they are
        size = max(round(index.shape[1] * factor), 1), max(round(index.shape[0] * factor), 1)
        image = np.asarray(Image.fromarray(image).resize(size, _filter(factor)))
        index = np.asarray(Image.fromarray(index).resize(size, Image.Resampling.NEAREST))
    return array_field(
        name, group, source.name, image, index, mirrored=True, tags={**source.tags, **row}
    )


def _labels_of(
    values: NDArray[Any], source: Source, mask: Path, labels: Labels
) -> NDArray[np.uint8]:
    """Return the label [h, w] of each pixel of a mask [h, w]."""
    if not source.values:
        bright = values > source.threshold
        return np.where(bright, labels.positive, labels.background).astype(np.uint8)
    try:
        known = {int(value): labels.of(word) for value, word in source.values.items()}
    except ValueError as error:
        raise TrainingError(
            f"{source.name}: values must be whole numbers before the '=', not "
            f"{', '.join(source.values)}."
        ) from error
    except TrainingError as error:
        raise TrainingError(f"{source.name}: values: {error}") from error
    keys = np.array(sorted(known))
    meanings = np.array([known[key] for key in keys.tolist()], np.uint8)
    place = np.abs(values[..., None].astype(np.int64) - keys).argmin(axis=-1)
    found: NDArray[np.uint8] = meanings[place]
    if mask.suffix.lower() not in (".jpg", ".jpeg"):  # which keeps no value as it was
        found[keys[place] != values] = UNLABELLED
    return found


def read_folders(source: Source, data: Path, mpp: float, labels: Labels) -> list[ArrayField]:
    """Read a folder of pictures for each class; every pixel has the picture's class.

    Raises
    ------
    TrainingError
        If there are no pictures of a class that the model has.
    """
    folder = data / source.path
    if not folder.is_dir():
        raise TrainingError(f"There is no folder {folder}: name the data's folder with --data.")
    pictures = {
        f"{inner.name}/{p.name}": p
        for inner in sorted(folder.iterdir())
        if inner.is_dir()
        for p in _pictures(inner)
    }
    names = {name: (name, p.stem, p.name) for name, p in pictures.items()}
    rows = _rows_of(source, data, names)
    words = {name: rows[name].get("label") or p.parent.name for name, p in pictures.items()}
    known = source.class_names or {name: name for name in labels.names}
    used = [name for name in pictures if words[name] in known]
    if not used:
        raise TrainingError(
            f"{folder} holds no pictures in folders called {', '.join(known)}: name folder and "
            f"class under class_names."
        )
    groups = _groups(source, folder, used, rows)
    found = []
    for name in used:
        image = _pixels(pictures[name], source)
        factor = (source.mpp or mpp) / mpp
        if source.resize_px:
            size, factor = (source.resize_px,) * 2, source.resize_px / max(image.shape[:2])
        else:
            size = max(round(image.shape[1] * factor), 1), max(round(image.shape[0] * factor), 1)
        if size != (image.shape[1], image.shape[0]):
            image = np.asarray(Image.fromarray(image).resize(size, _filter(factor)))
        found.append(
            array_field(
                name,
                groups[name],
                source.name,
                image,
                np.full(image.shape[:2], labels.of(known[words[name]]), np.uint8),
                mirrored=True,
                tags={**source.tags, **rows[name]},
                whole=bool(source.resize_px),
            )
        )
    return found


def _rows_of(source: Source, data: Path, names: Mapping[str, Sequence[str]]) -> dict[str, Row]:
    """Return the row of each picture, found by one of its names."""
    rows = read_rows(source, data)
    found: dict[str, Row] = {}
    for key, words in names.items():
        row = next((rows[word] for word in words if word in rows), None)
        if row is None and rows:
            raise TrainingError(f"{data / source.labels} has no line for {words[0]}.")
        found[key] = row or {}
    return found


def _groups(
    source: Source, folder: Path, names: Sequence[str], rows: Mapping[str, Row]
) -> dict[str, str]:
    """Return the group of each picture: listed together, or of one patient or slide."""
    listed = {name: "+".join(group) for group in source.groups for name in group}
    stems = {_stem(name) for name in names}
    unknown = sorted(set(listed) - stems)
    if unknown:
        raise TrainingError(
            f"{folder}: the group of {unknown[0]} names a picture that is missing."
        )
    keys = []
    for name in names:
        together = listed.get(_stem(name))
        own = [rows[name].get("patient"), rows[name].get("slide"), together]
        keys.append([key for key in own if key] or [name])
    return {
        name: f"{source.name}/{group}" for name, group in zip(names, connect(keys), strict=True)
    }


def _stem(name: str) -> str:
    """Return the name of a picture without folders and suffix; other dots belong to it."""
    path = Path(name)
    return path.stem if path.suffix.lower() in PICTURES else path.name


def make_synthetic(
    seed: int,
    source: str,
    mpp: float,
    size_px: tuple[int, int],
    *,
    only_tissue: bool = False,
    labels: Labels = TWO,
) -> ArrayField:
    """Make a procedural slide with known tumour, stained a little differently each seed.

    Tumour is of the positive class. With `only_tissue` glass is unlabelled instead of background:
    for scores, which glass would make too easy.
    """
    rng = np.random.default_rng([seed, 77])
    stains = Stains(strength=float(rng.uniform(0.8, 1.25)))
    pen = ("green", "blue", "black", "")[seed % 4]
    slide = SyntheticSlide(*size_px, SYNTHETIC_MPP, seed, stains=stains, pen=pen)
    tumour, tissue = slide.truth.masks(mpp)
    image = Image.fromarray(slide.read((0, 0), size_px))
    small = image.resize((tumour.shape[1], tumour.shape[0]), Image.Resampling.BOX)
    index = np.where(tumour, labels.positive, labels.background)
    return array_field(
        f"seed {seed}",
        f"{source}/{seed}",
        source,
        np.asarray(small),
        np.where(tissue | (not only_tissue), index, UNLABELLED).astype(np.uint8),
        mirrored=False,
        beyond=labels.background,
    )


def _pictures(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise TrainingError(f"There is no folder {folder}: name the data's folder with --data.")
    return [p for p in sorted(folder.iterdir()) if p.suffix.lower() in PICTURES]


def _opened(path: Path, mode: str | None) -> Image.Image:
    try:
        with Image.open(path) as image:
            return image.convert(mode) if mode else image.copy()
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise TrainingError(f"{path} cannot be read as a picture: {brief(error)}.") from error


def _pixels(path: Path, source: Source) -> NDArray[np.uint8]:
    image = np.asarray(_opened(path, "RGB"))
    return np.ascontiguousarray(image[..., ::-1]) if source.channel_order == "bgr" else image


def _filter(factor: float) -> Image.Resampling:
    """Average what is shrunk, as slides are; what is enlarged would show squares so."""
    return Image.Resampling.BOX if factor < 1 else Image.Resampling.BICUBIC
