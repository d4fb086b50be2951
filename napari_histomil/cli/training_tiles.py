"""The verb ``annotations tiles``: tiles of annotated slides, to train on."""

from __future__ import annotations

import argparse
import contextlib
import csv
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from napari_histomil.cli.masks import add_classes, add_painting, read_regions, table_of
from napari_histomil.cli.shared import add_verb, new_file, open_slide_with, positive, say

if TYPE_CHECKING:
    from napari_histomil.annotations.training_tiles import TileProgress
    from napari_histomil.cli.shared import Subparsers

EXAMPLES = """\
  histomil annotations tiles slides.csv --mpp 0.5 --tile 256 -o tiles
  histomil annotations tiles slides.csv --mpp 1 --tile 128 -o tiles \\
      --split train=0.7,val=0.15,test=0.15 --seed 3 --classes Stroma,Tumor

slides.csv has the columns slide and annotations (paths, relative to it), and
patient if slides of one patient must stay together; else each slide is a
group of its own. The folder is written whole or not at all."""


def add_verbs(subparsers: Subparsers) -> None:
    """Add the verb of this file to the family ``annotations``."""
    parser = add_verb(
        subparsers,
        "tiles",
        tiles,
        "tiles of annotated slides, to train on",
        "Cut annotated slides into tiles: pictures, masks and a table with the share of each "
        "class, split by patient or slide.",
        EXAMPLES,
    )
    parser.add_argument("slides", metavar="SLIDES.csv", type=Path, help="slides and annotations")
    parser.add_argument("--mpp", type=positive(float), required=True, help="µm/px of the tiles")
    parser.add_argument(
        "--tile", metavar="PX", type=positive(int), default=256, help="side of a tile, 256"
    )
    parser.add_argument(
        "--stride", metavar="PX", type=positive(int), help="distance of tiles; a tile by default"
    )
    parser.add_argument(
        "-o", "--output", metavar="FOLDER", type=Path, required=True, help="folder to make"
    )
    parser.add_argument("--force", action="store_true", help="replace a folder of earlier tiles")
    parser.add_argument(
        "--min-labelled",
        metavar="SHARE",
        type=positive(float),
        default=0.5,
        help="leave out tiles of which less than this is labelled, 0.5 by default",
    )
    parser.add_argument(
        "--split",
        metavar="NAME=SHARE,...",
        default="train=0.8,val=0.2",
        help="splits with their shares of the patients (or slides); train=0.8,val=0.2",
    )
    parser.add_argument("--seed", type=int, default=0, help="another number, another split; 0")
    add_classes(parser)
    add_painting(parser)


def tiles(args: argparse.Namespace) -> int:
    """Cut slides into tiles."""
    from napari_histomil.annotations.training_tiles import (
        AnnotatedSlide,
        TileOptions,
        split_groups,
        unique_names,
        write_tiles,
    )
    from napari_histomil.tiling import GridSpec

    target = new_file(args.output, force=args.force)
    rows = _read_list(args.slides)
    split = split_groups([patient for _, _, patient in rows], _shares(args.split), args.seed)
    names = unique_names([path for path, _, _ in rows])
    with contextlib.ExitStack() as stack:
        slides = []
        for name, (path, drawn, patient) in zip(names, rows, strict=True):
            slide = stack.enter_context(open_slide_with(path, None))
            regions = read_regions(drawn, slide.info)
            slides.append(AnnotatedSlide(slide, regions, name, patient, split[patient]))
        table = table_of(args.classes, [r for one in slides for r in one.regions])
        options = TileOptions(
            spec=GridSpec(args.mpp, args.tile, args.stride or args.tile),
            table=table,
            min_labelled=args.min_labelled,
            fully_annotated=args.fully_annotated,
            priority=args.priority,
            mend=args.mend,
        )
        written = _show(write_tiles(target, slides, options))
    for value, name in sorted(table.names.items()):
        say(f"  {value:5}  {name}")
    for part in dict.fromkeys(split.values()):
        inside = sorted(group for group, place in split.items() if place == part)
        say(f"  {part}: {', '.join(inside)}")
    say(f"{written} tiles of {len(slides)} slides")
    print(target)
    return 0


def _read_list(path: Path) -> list[tuple[Path, Path, str]]:
    """Return slide, annotations and patient of each line."""
    from napari_histomil.errors import AnnotationError, brief

    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            table = csv.DictReader(file)
            columns = set(table.fieldnames or ())
            lines = list(table)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise AnnotationError(f"{path} cannot be read as a table: {brief(error)}.") from error
    missing = {"slide", "annotations"} - columns
    if missing or not lines:
        raise AnnotationError(
            f"{path.name} needs the columns slide and annotations, and a line for each slide"
            + (f": {', '.join(sorted(missing))} is missing." if missing else ".")
        )
    rows = []
    for number, line in enumerate(lines, 2):
        if not line["slide"] or not line["annotations"]:
            raise AnnotationError(f"Line {number} of {path.name} lacks a slide or annotations.")
        slide, drawn = (path.parent / line[column] for column in ("slide", "annotations"))
        patient = line.get("patient") if "patient" in columns else str(line["slide"])
        if not patient:
            raise AnnotationError(
                f"Line {number} of {path.name} names no patient: name one on every line, or leave "
                f"the column out."
            )
        rows.append((slide, drawn, patient))
    return rows


def _shares(text: str) -> dict[str, float]:
    """Read ``train=0.8,val=0.2``."""
    from napari_histomil.errors import AnnotationError

    shares: dict[str, float] = {}
    for part in text.split(","):
        name, _, share = part.partition("=")
        try:
            shares[name.strip()] = float(share)
        except ValueError:
            raise AnnotationError(
                f"'{text}' is no split: write names with shares, as in train=0.8,val=0.2."
            ) from None
    return shares


def _show(progress: Iterator[TileProgress]) -> int:
    """Show progress on stderr if that is a terminal; return the number of tiles."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    console = Console(stderr=True)
    written = 0
    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task("tiles", total=None)
        for step in progress:
            bar.update(task, description=step.slide, completed=step.done, total=step.total)
            written = step.written
    return written
