"""What can be learnt from: annotated slides as they lie on the disk, folders of tiles with masks.

Looking reads no pixels but those of a few masks, and may take a moment: the Train dock does it
beside the window. Nothing here knows Qt or torch.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import Image

from napari_histomil.annotations.formats import check_slide, read_annotations
from napari_histomil.annotations.keeping import kept_regions
from napari_histomil.annotations.model import (
    IGNORE,
    REGION,
    RGB,
    Region,
    SlideFrame,
    class_named,
    is_starred,
    walk,
)
from napari_histomil.annotations.training_tiles import CLASSES, MANIFEST
from napari_histomil.errors import HistomilError, TrainingError, brief
from napari_histomil.manifest import ClassSpec
from napari_histomil.slides.readers import open_slide
from napari_histomil.slides.slide import SlideInfo
from napari_histomil.training.data import PICTURES

BESIDE = (".geojson", ".geojson.gz", ".xml", ".annotations")
"""Ends of the names of annotation files that are looked for beside a slide."""

LOOKED_AT = 8
"""Masks of a folder that are opened to see which values they hold."""

MOST_VALUES = 32
"""A mask with more values than this is no mask of classes."""

BACKGROUND = "background"


@dataclass(frozen=True, slots=True)
class AnnotatedSlide:
    """A slide, and what was drawn on it."""

    path: Path
    fingerprint: str = ""
    mpp: float | None = None
    """µm that a level-0 pixel spans; None where nobody has said it."""
    annotations: str = ""
    """File of the regions with ``{stem}`` for the slide's name; empty for those of this program,
    which lie beside the slide."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """Regions of each class of tissue."""
    colors: Mapping[str, RGB] = field(default_factory=dict)
    bounded: bool = False
    """Whether there is a ``Region*``: what is not drawn inside it is background."""
    ignored: bool = False
    """Whether there is an ``Ignore*``: nothing inside it is looked at."""
    problem: str = ""
    """Why it cannot be used, in a sentence."""

    @property
    def usable(self) -> bool:
        """Whether something can be learnt from it."""
        return not self.problem


def look_at_slide(path: Path) -> AnnotatedSlide:
    """Find out what was drawn on a slide: in this program, or in a file beside it.

    What stands in the way is told as its `problem`.
    """
    try:
        with open_slide(path) as slide:
            info = slide.info
        regions, annotations = _regions(info)
    except HistomilError as error:
        return AnnotatedSlide(path, problem=str(error))
    areal = [region for region in walk(regions) if region.is_areal]
    drawn = [r for r in areal if r.class_name is not None and not is_starred(r.class_name)]
    names = {region.class_name for region in areal}
    counts = Counter(region.class_name or "" for region in drawn)
    colors = {r.classification.name: r.classification.color for r in drawn if r.classification}
    problem = ""
    if info.mpp_x is None:
        problem = (
            f"{path.name} does not say how many µm one pixel spans: say it in the Slide dock."
        )
    elif not drawn and REGION not in names:
        problem = (
            f"Nothing with a class is drawn on {path.name}: draw on it in the Annotate dock, or "
            f"put a file of annotations of the same name beside it."
        )
    return AnnotatedSlide(
        path,
        info.fingerprint,
        None if info.mpp_x is None else info.mpp,
        annotations,
        dict(sorted(counts.items())),
        colors,
        REGION in names,
        IGNORE in names,
        problem,
    )


def _regions(info: SlideInfo) -> tuple[Sequence[Region], str]:
    """Return what was drawn on a slide, and the file it is from if that is not our own."""
    kept = kept_regions(info)
    if kept:
        return kept, ""
    path = info.path
    for name in ("{stem}", f"{{stem}}{path.suffix}"):
        for end in BESIDE:
            file = path.with_name(name.replace("{stem}", path.stem) + end)
            if file.is_file():
                read = read_annotations(file, frame=SlideFrame.of(info))
                check_slide(read, info)
                return read.regions, str(path.absolute().parent / f"{name}{end}")
    return (), ""


def slide_text(slide: AnnotatedSlide) -> str:
    """Return in one line what is drawn on a slide, and what that means for learning."""
    if slide.problem:
        return slide.problem
    drawn = ", ".join(f"{name} {number}" for name, number in slide.counts.items())
    parts = [f"{drawn or 'no class of tissue'}."]
    parts.append(
        "Region*: all else inside it is background."
        if slide.bounded
        else "No Region*: only what is drawn is learnt from."
    )
    if slide.ignored:
        parts.append("Ignore*: left out.")
    return " ".join(parts)


def classes_of(slides: Iterable[AnnotatedSlide]) -> dict[str, tuple[RGB, int]]:
    """Return the classes that are drawn on slides: colour and number of regions of each."""
    found: dict[str, tuple[RGB, int]] = {}
    for slide in slides:
        for name, number in slide.counts.items():
            color, before = found.get(name, (slide.colors[name], 0))
            found[name] = color, before + number
    return dict(sorted(found.items(), key=lambda item: (-item[1][1], item[0])))


# --- tiles with masks ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TileFolder:
    """A folder of pictures in ``images`` with masks of the same names in ``masks``."""

    path: Path
    pictures: int
    classes: tuple[ClassSpec, ...]
    """Background first, if the masks have any."""
    values: Mapping[str, str]
    """Value in a mask -> class; empty for a mask of dark and bright."""
    mpp: float | None = None
    """µm/px of the pictures, where the folder says so."""
    groups: tuple[tuple[str, ...], ...] = ()
    """Pictures of one patient or slide, where the folder says so."""
    has_background: bool = True
    """Whether the first class means none of the others."""

    @property
    def group_count(self) -> int:
        """How many groups a split has to share out."""
        return self.pictures - sum(len(group) - 1 for group in self.groups)


def renamed(tiles: TileFolder, before: str, name: str) -> TileFolder:
    """Return a folder one of whose classes has another name."""
    classes = tuple(replace(c, name=name) if c.name == before else c for c in tiles.classes)
    values = {value: name if word == before else word for value, word in tiles.values.items()}
    return replace(tiles, classes=classes, values=values)


def look_at_tiles(folder: Path) -> TileFolder:
    """Find out what a folder of tiles holds.

    Raises
    ------
    TrainingError
        If it holds no pictures with masks, or masks that tell no classes apart.
    """
    images, masks = (_pictures(folder / name) for name in ("images", "masks"))
    if not images or {p.stem for p in images} != {p.stem for p in masks}:
        raise TrainingError(
            f"{folder} is no folder of tiles: it needs pictures in 'images', and for each of them "
            f"a mask of the same name in 'masks'."
        )
    try:
        if (folder / CLASSES).is_file():
            return _of_facts(folder, len(images))
        return _of_masks(folder, len(images), masks)
    except (OSError, ValueError, KeyError, TypeError, Image.DecompressionBombError) as error:
        raise TrainingError(f"{folder} cannot be used: {brief(error)}.") from error


def _of_facts(folder: Path, pictures: int) -> TileFolder:
    """Read what ``histomil annotations tiles`` has written beside the tiles."""
    facts = json.loads((folder / CLASSES).read_text(encoding="utf-8"))
    classes = [ClassSpec(str(c["name"]), tuple(c["color"])) for c in facts["classes"]]
    values = {str(int(c["value"])): str(c["name"]) for c in facts["classes"]}
    values |= {str(int(facts["background"])): BACKGROUND}
    values |= {str(int(facts["unlabelled"])): "unlabelled"}
    together: dict[str, list[str]] = {}
    bare = False
    with (folder / MANIFEST).open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            group = row["patient"] or row["slide"]
            together.setdefault(group, []).append(Path(row["tile"]).stem)
            bare = bare or float(row[f"share {BACKGROUND}"]) > 0
    if bare:  # some of what was looked at is of none of the classes
        classes.insert(0, ClassSpec(BACKGROUND, class_named(BACKGROUND).color))
    return TileFolder(
        folder,
        pictures,
        tuple(classes),
        values,
        float(facts["mpp"]),
        tuple(tuple(names) for names in together.values() if len(names) > 1),
        bare,
    )


def _of_masks(folder: Path, pictures: int, masks: Sequence[Path]) -> TileFolder:
    """Look into some of the masks, evenly taken."""
    values: set[int] = set()
    some = masks[:: -(-len(masks) // LOOKED_AT)]
    for path in some:
        with Image.open(path) as image:
            values |= set(np.unique(np.asarray(image.convert("L"))).tolist())
    lossy = some[0].suffix.lower() in (".jpg", ".jpeg")
    background = ClassSpec(BACKGROUND, class_named(BACKGROUND).color)
    if lossy or (len(values) == 2 and max(values) > 127 >= min(values)):
        positive = ClassSpec("Tumor", class_named("Tumor").color)
        return TileFolder(folder, pictures, (background, positive), {})
    if len(values) > MOST_VALUES or len(values) < 2:
        raise TrainingError(
            f"The masks in {folder} hold {len(values)} different values: the value of a pixel "
            f"must be the number of its class, or dark or bright."
        )
    first, *others = sorted(values)
    names = {str(first): BACKGROUND} | {str(value): f"class {value}" for value in others}
    classes = [ClassSpec(n, class_named(n).color) for n in names.values() if n != BACKGROUND]
    return TileFolder(folder, pictures, (background, *classes), names)


def _pictures(folder: Path) -> list[Path]:
    try:
        return [p for p in sorted(folder.iterdir()) if p.suffix.lower() in PICTURES]
    except OSError:
        return []  # which the sentence about the folder tells
